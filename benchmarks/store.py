"""What a prepared volume costs to write, to read whole, to cut a crop from, and in bytes.

    python benchmarks/store.py                            # synthetic data
    python benchmarks/store.py --real ../shared/data      # and two real chests (DICOM)
    python benchmarks/store.py --json docs/results/store.json

Formats: ours (`cohort/shelf.py`), .nii.gz as nibabel writes and reads it (and our own reader),
.npy with a memory map, zarr v3 (one shard, 32 x 64 x 64 chunks, Blosc zstd-1 with bitshuffle). All
get the same int16 voxels, exact and in steps of 2 HU (error at most 1 HU). All volumes are on the
paper's grid, 128 x 256 x 256, except the phantom, which is on its own. A crop is a random
64 x 128 x 128 box (of the phantom: half of each axis); the file is opened each time.

CPU milliseconds of one thread, page cache warm, medians of alternating rounds; waiting for the
disk is not in them. Writing in steps of 2 HU includes the rounding and, for ours, reading back.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from loader import Row, alternating, chest, matrix, row, show
from t3d.cohort.shelf import coarse, pack, read_array, read_box, write_file
from t3d.ct import nifti
from t3d.ct.door import open_scan, read
from t3d.ct.preparations import named_preparation
from t3d.ct.regrid import regrid
from t3d.phantom.patient import patient
from t3d.phantom.presets import STANDARD
from t3d.types import Preparation, Zyx

Voxels = NDArray[np.int16]
Box = tuple[Zyx[int], Zyx[int]]
LOSS_HU = 1
BARS_MS = {"write": 60, "read": 20, "crop": 8}  # of our format at 128 x 256 x 256
REAL = {
    "chest, kernel B, 5 mm": "chest_lungpetctdx_A0001/series3_B_j2k",
    "chest, B40f, 8 mm": "chest_lungpetctdx_A0002/series3_B40f_deflated",
}


@dataclass(frozen=True, slots=True)
class Format:
    """One way to keep a volume."""

    name: str
    path: str  # file or folder
    write: Callable[[Path, Voxels, int], object]  # (path, voxels, loss in HU)
    read: Callable[[Path], object]
    crop: Callable[[Path, Box], object]


def rounded(voxels: Voxels, loss_hu: int) -> Voxels:
    """What the other formats are given when a loss is allowed."""
    return coarse(voxels, loss_hu) if loss_hu else voxels


def inside(box: Box) -> tuple[slice, ...]:
    """A box as an index."""
    return tuple(slice(a, b) for a, b in zip(*box, strict=True))


def as_nifti(path: Path, voxels: Voxels, loss_hu: int) -> None:
    """Write as most people do: nibabel's default compression."""
    image = nib.Nifti1Image(rounded(voxels, loss_hu).T, np.diag([1.0, 1.0, 1.0, 1.0]))
    nib.save(image, path)


def cut_nifti(path: Path, box: Box) -> object:
    """A crop of a .nii.gz: nibabel has to unpack up to its end."""
    return np.asarray(nib.load(path).dataobj[inside(box)[::-1]])


def as_zarr(path: Path, voxels: Voxels, loss_hu: int) -> None:
    """Write one shard with inner chunks."""
    import zarr

    chunks = tuple(min(c, n) for c, n in zip((32, 64, 64), voxels.shape, strict=True))
    array = zarr.create_array(
        path,
        shape=voxels.shape,
        dtype=voxels.dtype,
        chunks=chunks,
        shards=tuple(-(-n // c) * c for c, n in zip(chunks, voxels.shape, strict=True)),
        compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
        overwrite=True,
    )
    array[:] = rounded(voxels, loss_hu)


def from_zarr(path: Path, where: Any) -> object:
    """Open and read."""
    import zarr

    return zarr.open_array(path, mode="r")[where]


def formats() -> list[Format]:
    """All of them, ours first."""
    made = [
        Format(
            "t3d .b2nd",
            "ours.b2nd",
            lambda path, voxels, loss: write_file(path, pack(voxels, {}, loss_hu=loss)),
            read_array,
            lambda path, box: read_box(path, *box),
        ),
        Format(
            ".nii.gz, nibabel",
            "a.nii.gz",
            as_nifti,
            lambda path: np.asarray(nib.load(path).dataobj),
            cut_nifti,
        ),
        Format(
            ".nii.gz, t3d reader",
            "b.nii.gz",
            lambda path, voxels, loss: nifti.write(path, rounded(voxels, loss), np.eye(4)[FLIP]),
            read,
            lambda path, box: read(path).voxels[inside(box)],
        ),
        Format(
            ".npy, memory map",
            "c.npy",
            lambda path, voxels, loss: np.save(path, rounded(voxels, loss)),
            np.load,
            lambda path, box: np.load(path, mmap_mode="r")[inside(box)].copy(),
        ),
    ]
    if find_spec("zarr"):
        import zarr

        zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1})
        made.append(
            Format("zarr v3", "d.zarr", as_zarr, lambda path: from_zarr(path, ...), cut_zarr)
        )
    return made


FLIP = [2, 1, 0, 3]  # (z, y, x) to (L, P, S): the identity in our convention


def cut_zarr(path: Path, box: Box) -> object:
    """A crop."""
    return from_zarr(path, inside(box))


def size_mb(path: Path) -> float:
    """Bytes of a file or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def boxes(shape: Sequence[int], seed: int) -> Callable[[], Box]:
    """Give random boxes, the same for each format."""
    rng = np.random.default_rng(seed)
    size = [min(c, n // 2) for c, n in zip((64, 128, 128), shape, strict=True)]

    def box() -> Box:
        low = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
        return Zyx(*low), Zyx(*(a + s for a, s in zip(low, size, strict=True)))

    return box


def check(format_: Format, path: Path, voxels: Voxels, loss_hu: int) -> None:
    """A format that gives other voxels back is measured for nothing."""
    got = format_.read(path)
    array = np.asarray(got.voxels if hasattr(got, "voxels") else got)
    if array.shape != voxels.shape:
        array = array.T  # nibabel's axes are (x, y, z)
    worst = int(np.abs(array.astype(int) - voxels).max())
    if worst > loss_hu:
        raise SystemExit(f"{format_.name}: off by {worst} HU")


def compare(name: str, voxels: Voxels, folder: Path, rounds: int) -> list[Row]:
    """Measure one volume in every format, exact and with a bounded loss."""
    rows: list[Row] = []
    on_paper_grid = voxels.shape == (128, 256, 256)
    for loss in (0, LOSS_HU):
        kinds, paths = formats(), []
        for kind in kinds:
            paths.append(folder / f"{loss}{kind.path}")
            kind.write(paths[-1], voxels, loss)
            check(kind, paths[-1], voxels, loss)
        draws = [boxes(voxels.shape, 0) for _ in kinds]
        pairs = list(zip(kinds, paths, draws, strict=True))
        figures = {
            "MB": [size_mb(path) for path in paths],
            "write": alternating(
                [lambda k=k, p=p, loss=loss: k.write(p, voxels, loss) for k, p, _ in pairs], rounds
            ),
            "read": alternating([lambda k=k, p=p: k.read(p) for k, p, _ in pairs], rounds),
            "crop": alternating(
                [lambda k=k, p=p, d=d: k.crop(p, d()) for k, p, d in pairs], rounds
            ),
        }
        how = f"steps of {2 * loss} HU" if loss else "exact"
        baseline = next(n for n, kind in enumerate(kinds) if kind.name == ".nii.gz, nibabel")
        for what, values in figures.items():
            scale, unit = (1.0, "MB") if what == "MB" else (1000.0, "ms")
            for number, kind in enumerate(kinds):
                bar = BARS_MS.get(what) if number == 0 and on_paper_grid else None
                title = f"{name}, {how}: {'size' if what == 'MB' else what}, {kind.name}"
                note = "" if bar is None else f"bar (stated for the synthetic chest): {bar} ms"
                rows.append(
                    row(title, scale * values[number], unit, scale * values[baseline], note)
                )
    return rows


def own_slices(name: str, series: Path) -> list[Row]:
    """Size of a real scan at its own slices, in plane on 256 x 256, scaled to 128 slices."""
    with open_scan((series,)) as file:
        slices = file.shape_kji[0]
        grid = Preparation(name="own", size_vox=Zyx(z=slices, y=256, x=256))
        voxels = regrid(file, grid).voxels
    sizes = [len(pack(voxels, {}, loss_hu=loss)) / 1e6 * 128 / slices for loss in (0, LOSS_HU)]
    note = f"{slices} slices, not interpolated; baseline: exact"
    return [
        row(f"{name}, own slices, exact: size a 128 slices, t3d .b2nd", sizes[0], "MB", None, note),
        row(
            f"{name}, own slices, steps of {2 * LOSS_HU} HU: size a 128 slices, t3d .b2nd",
            sizes[1],
            "MB",
            sizes[0],
            note,
        ),
    ]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--real", type=Path, help="folder with the real test data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    paper = named_preparation("paper_direct")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom = patient(0, preset=STANDARD).volume.voxels
        rows += compare(
            f"phantom {'x'.join(map(str, phantom.shape))}", phantom, folder, told.rounds
        )
        scan = folder / "large.nii.gz"
        nifti.write(scan, chest(Zyx(300, 512, 512), 0), matrix(Zyx(1.0, 0.75, 0.75)))
        rows += compare("synthetic chest", regrid(scan, paper).voxels, folder, told.rounds)
        for title, place in REAL.items() if told.real else ():
            series = told.real / "dicom" / place
            with open_scan((series,)) as file:
                voxels = regrid(file, paper).voxels
            rows += compare(title, voxels, folder, told.rounds)
            rows += own_slices(title, series)
    if not find_spec("zarr"):
        sys.stdout.write("zarr is not installed: its rows are missing (pip install 'zarr>=3')\n")
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
