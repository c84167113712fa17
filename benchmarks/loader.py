"""How fast files become arrays and prepared volumes become crops.

    python benchmarks/loader.py                     # all parts
    python benchmarks/loader.py --part store --json out.json

file      one 512 x 512 x 300 CT (.nii.gz) to 128 x 256 x 256, beside gunzip alone; peak memory
          of a fresh process
store     whole volumes and crops from a cohort, beside MONAI's PersistentDataset on the same
          files in the same run, alternating
prepare   studies of 32 x 64 x 64 into a cohort, files to digest

Times are CPU seconds of one thread (`prepare`: wall seconds), page cache warm, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.ct import nifti
from t3d.ct.preparations import named_preparation
from t3d.ct.regrid import regrid
from t3d.types import Preparation, Zyx

Row = dict[str, object]
CROP = Zyx(z=64, y=128, x=128)


def row(name: str, value: float, unit: str, baseline: float | None = None, note: str = "") -> Row:
    """One line of the table; `ratio` is value / baseline."""
    return {
        "name": name,
        "value": round(value, 5),
        "unit": unit,
        "baseline": None if baseline is None else round(baseline, 5),
        "ratio": None if not baseline else round(value / baseline, 3),
        "note": note,
    }


def chest(shape: Zyx[int], seed: int) -> NDArray[np.int16]:
    """A noisy body with two lungs in air, -1024 outside the scan circle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape.y * 1j, -1 : 1 : shape.x * 1j].astype(np.float32)
    inside = (x / 0.85) ** 2 + (y / 0.62) ** 2 < 1
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.45) ** 2 < 1
    out = np.empty(shape, dtype=np.int16)
    for z in range(shape.z):
        noise = rng.normal(0, 1, (shape.y, shape.x)).astype(np.float32)
        noise = 0.8 * noise + 0.2 * np.roll(noise, 1, axis=1)
        plane = np.where(inside, 40 + 18 * noise, -990 + 9 * noise)
        if 0.13 < z / shape.z < 0.87:
            plane[lungs] -= 880
        plane[x**2 + y**2 >= 1] = -1024
        out[z] = np.rint(plane)
    return out


def matrix(spacing: Zyx[float]) -> NDArray[np.float64]:
    """Geometry with the y axis stored backwards, as LAS files are."""
    out = np.zeros((4, 4))
    out[2, 0], out[1, 1], out[0, 2] = spacing.z, -spacing.y, spacing.x
    out[:, 3] = (-190.0, 190.0, -300.0, 1.0)
    return out


def cpu_s(action: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    action()
    return time.process_time() - began


def alternating(actions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU seconds of each action, in turn, after one warm-up round."""
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds + 1):
        for kept, action in zip(times, actions, strict=True):
            kept.append(cpu_s(action))
    return [statistics.median(kept[1:]) for kept in times]


def peak_mb() -> float:
    """Peak memory of this process in MB.

    Not getrusage: its maximum is handed down from the process that started this one.
    """
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def apart(*words: object) -> Any:
    """Run a script in a process of its own and read the JSON that it writes."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def gunzip(path: Path) -> None:
    """Decompress a file in pieces and keep nothing."""
    piece = bytearray(4 << 20)
    with igzip.open(path) as stream:
        while stream.readinto(piece):
            pass


def file_part(folder: Path, rounds: int) -> list[Row]:
    """One large file to the paper's grid."""
    path = folder / "large.nii.gz"
    nifti.write(path, chest(Zyx(300, 512, 512), 0), matrix(Zyx(1.0, 0.75, 0.75)))
    names = ("paper", "paper_direct")
    actions: list[Callable[[], object]] = [lambda: gunzip(path)]
    actions += [lambda n=n: regrid(path, named_preparation(n)) for n in names]
    floor, *ours = alternating(actions, rounds)
    rows = [row("gunzip alone", floor, "CPU s")]
    for name, value in zip(names, ours, strict=True):
        rows.append(row(f"file to {name}", value, "CPU s", floor, "bar: ratio <= 1.7"))
        peak = apart(__file__, "--fresh", path, "--preparation", name)
        note = "fresh process, imports and output included; bar: 100"
        rows.append(row(f"peak memory, {name}", peak, "MB", None, note))
    return rows


def fresh(path: Path, name: str) -> None:
    """Regrid one file and write the peak memory of this process in MB."""
    regrid(path, named_preparation(name))
    sys.stdout.write(json.dumps(round(peak_mb(), 1)))


def source_of(folder: Path, count: int, shape: Zyx[int], spacing: Zyx[float]) -> Path:
    """Write a plain folder of synthetic CTs."""
    (folder / "volumes").mkdir(parents=True)
    base = chest(Zyx(shape.z + 1, shape.y, shape.x), 1)
    lines = ["volume,findings,impression,patient,split"]
    for number in range(count):
        voxels = np.roll(base, 31 * number, axis=0)[: shape.z]
        nifti.write(folder / "volumes" / f"v{number:05d}.nii.gz", voxels, matrix(spacing))
        lines.append(f"v{number:05d},{'Nothing to report. ' * 30},Normal.,p{number},train")
    (folder / "studies.csv").write_text("\n".join(lines) + "\n")
    return folder


def monai_reader(source: Path, cache: Path, size: Zyx[int]) -> Callable[[int, bool], object]:
    """MONAI's PersistentDataset over the same files; gives volume n whole or cropped."""
    import warnings

    warnings.simplefilter("ignore")
    from monai import transforms as mt
    from monai.data import PersistentDataset

    steps = [
        mt.LoadImage(image_only=True),
        mt.EnsureChannelFirst(),
        mt.Orientation(axcodes="RAS", labels=None),
        mt.Resize(size[::-1], mode="trilinear"),
    ]
    crop = mt.RandSpatialCrop(CROP[::-1], random_size=False)
    files = sorted(str(p) for p in (source / "volumes").iterdir())
    whole = PersistentDataset(files, mt.Compose(steps), cache_dir=cache)
    for number in range(len(files)):
        whole[number]  # fills the cache
    return lambda number, cut: crop(whole[number]) if cut else whole[number]


def store_part(folder: Path, rounds: int) -> list[Row]:
    """Read prepared volumes and crops of them, ours and MONAI's in turn."""
    count, size = 6, Zyx(128, 256, 256)
    source = source_of(folder / "big", count, Zyx(100, 300, 300), Zyx(3.0, 1.2, 1.2))
    preparation = Preparation(name="paper_direct", size_vox=size)
    prepare(Folder(source), folder / "cohort", preparation, workers=0)
    cohort = Cohort.open(folder / "cohort")
    ids = [r.volume_ids[0] for r in cohort.studies()]
    theirs = monai_reader(source, folder / "monai", size)
    rng = np.random.default_rng(0)

    def ours(cut: bool) -> None:
        for name in ids:
            if not cut:
                cohort.volume(name)
                continue
            low = Zyx(*(int(rng.integers(0, n - c + 1)) for n, c in zip(size, CROP, strict=True)))
            high = Zyx(*(a + c for a, c in zip(low, CROP, strict=True)))
            cohort.crop(name, low, high)

    rows = []
    for cut, what in ((False, "whole"), (True, f"crop {'x'.join(map(str, CROP))}")):
        mine, other = alternating(
            [lambda c=cut: ours(c), lambda c=cut: [theirs(n, c) for n in range(count)]], rounds
        )
        note = "baseline: MONAI PersistentDataset, float32, cache warm"
        rows.append(row(f"volumes/s, {what}", count / mine, "1/s", count / other, note))
    used = sum(p.stat().st_size for p in (folder / "cohort" / "volumes").rglob("*.b2nd"))
    theirs_used = sum(p.stat().st_size for p in (folder / "monai").rglob("*.pt"))
    rows.append(row("bytes a volume", used / count / 1e6, "MB", theirs_used / count / 1e6))
    return rows


def prepare_part(folder: Path, count: int) -> list[Row]:
    """Prepare many small studies with every core."""
    source = source_of(folder / "small", count, Zyx(32, 64, 64), Zyx(9.0, 5.2, 5.2))
    summary = prepare(Folder(source), folder / "demo", named_preparation("demo"))
    again = prepare(Folder(source), folder / "demo", named_preparation("demo"))
    note = f"{count} studies of 32x64x64, wall, all cores"
    return [
        row("prepare", summary.seconds, "s", None, note),
        row("prepare again, nothing to do", again.seconds, "s"),
    ]


def show(rows: Sequence[Row]) -> None:
    """Write the table."""
    for told in rows:
        ratio = "" if told["ratio"] is None else f"x {told['ratio']} of {told['baseline']}"
        line = f"{told['name']!s:34} {told['value']!s:>10} {told['unit']!s:6} {ratio:24}"
        sys.stdout.write(f"{line} {told['note']}\n".rstrip() + "\n")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=("file", "store", "prepare"), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--studies", type=int, default=3550)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fresh", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--preparation", default="paper", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.fresh is not None:
        fresh(told.fresh, told.preparation)
        return
    parts = told.part or ["file", "store", "prepare"]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "file" in parts:
            rows += file_part(folder, told.rounds)
        if "store" in parts:
            rows += store_part(folder, told.rounds)
        if "prepare" in parts:
            rows += prepare_part(folder, told.studies)
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
