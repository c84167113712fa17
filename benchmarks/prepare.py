"""From a file to the array a model eats: ours beside MONAI, SimpleITK and a CT-CLIP-style loader.

    python benchmarks/prepare.py                        # all parts
    python benchmarks/prepare.py --part grid --rounds 3 --json out.json

grid      one 512 x 512 x 300 chest (.nii.gz) to three targets, beside gunzip alone:
          A  1 x 1 x 4 mm, then 256 x 256 x 128 (x, y, z); ours also in one `area` step
          B  0.75 x 0.75 x 1.5 mm, middle 480 x 480 x 240 cut out or padded (CT-CLIP)
          C  0.5 x 0.5 x 1 mm, whole: 768 x 768 x 300
agree     A in MONAI with float32 arrays and the clip right after loading, beside ours
dicom     60 noisy 12-bit slices, raw and JPEG 2000, shuffled; times 5
slices    ours on 100 to 600 slices
workers   ours with 1 and 2 processes at a time

Every figure is the median of fresh processes with one thread on one core, the pipelines in turn,
page cache warm: CPU seconds (user + system) of one scan after a tiny one, which loads what a
library imports late; peak resident memory with imports and output. All get the same file and
leave HU or scaled values in memory.
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
from functools import partial
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
for _name in THREADS:
    os.environ[_name] = "1"

# Nothing else is imported here: this file is also the child whose memory is measured.
Row = dict[str, object]
Action = Callable[[Path], object]

SPACING_XYZ = {"A": (1.0, 1.0, 4.0), "B": (0.75, 0.75, 1.5), "C": (0.5, 0.5, 1.0)}
SIZE_XYZ = {"A": (256, 256, 128), "B": (480, 480, 240), "C": (768, 768, 300)}
SOURCE_XYZ = (0.75, 0.75, 1.0)
CLIP_HU = (-1000, 1000)
STORED_HU = (-1024, 3071)
REPEATS_5 = 5  # 60 slices stand for 300
NEED_GB = {"monai": {"A": 4, "B": 6, "C": 12}, "ctclip": {"A": 4, "B": 5, "C": 6}}
BARS = {"monai": 8.0, "gunzip": 1.7, "peak_mb": 100.0, "float_hu": 0.01, "int16_hu": 0.51}


# ---------------------------------------------------------------- the pipelines, one child each
def gunzip(_target: str) -> Action:
    """The floor: decompress in pieces and keep nothing."""
    from isal import igzip

    def run(path: Path) -> None:
        piece = bytearray(4 << 20)
        with igzip.open(path) as stream:
            while stream.readinto(piece):
                pass

    return run


def ours(target: str) -> Action:
    """This package, streamed; `A1` is A's grid in one step of `area`, our default."""
    from t3d.ct.preparations import named_preparation
    from t3d.ct.regrid import regrid
    from t3d.types import Preparation, Zyx

    x, y, z = SPACING_XYZ["C"]
    preparation = {
        "A": named_preparation("paper"),
        "A1": named_preparation("paper_direct"),
        "B": named_preparation("ctclip"),
        "C": Preparation(name="c", spacing_mm=Zyx(z=z, y=y, x=x)),
    }[target]
    return lambda path: regrid(path, preparation).voxels


def monai(target: str) -> Action:
    """MONAI's transforms as its users chain them, defaults kept."""
    import warnings

    warnings.simplefilter("ignore")
    import torch
    from monai import transforms as mt

    torch.set_num_threads(1)
    last: list[Any] = {
        "A": [mt.Resize(SIZE_XYZ["A"], mode="trilinear")],
        "B": [mt.ResizeWithPadOrCrop(SIZE_XYZ["B"])],
        "C": [],
    }[target]
    steps = [
        mt.LoadImage(image_only=True),
        mt.EnsureChannelFirst(),
        mt.Orientation(axcodes="RAS", labels=None),
        mt.Spacing(pixdim=SPACING_XYZ[target], mode="bilinear"),
        mt.ScaleIntensityRange(*map(float, CLIP_HU), 0.0, 1.0, clip=True),
        *last,
    ]
    return mt.Compose(steps)


def sitk(target: str) -> Action:
    """SimpleITK: linear resampling with agreeing outer edges, one step for each of the paper's."""
    import SimpleITK as Sitk

    Sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    final = "A" if target == "A1" else target

    def resample(image: Any, size: Sequence[int], spacing: Sequence[float]) -> Any:
        half = [(t - s) / 2 for t, s in zip(spacing, image.GetSpacing(), strict=True)]
        origin = image.TransformContinuousIndexToPhysicalPoint(
            [h / s for h, s in zip(half, image.GetSpacing(), strict=True)]
        )
        direction, identity = image.GetDirection(), Sitk.Transform()
        # fmt: off
        return Sitk.Resample(image, [int(n) for n in size], identity, Sitk.sitkLinear, origin,
                             list(spacing), direction, float(STORED_HU[0]))
        # fmt: on

    def run(path: Path) -> Any:
        image = Sitk.DICOMOrient(Sitk.ReadImage(str(path)), "LPS")
        image = Sitk.Clamp(image, lowerBound=STORED_HU[0], upperBound=STORED_HU[1])
        extent = [n * s for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
        if target != "A1":
            spacing = SPACING_XYZ[target]
            size = [round(e / s) for e, s in zip(extent, spacing, strict=True)]
            image = resample(image, size, spacing)
        if final == "A":
            size = SIZE_XYZ["A"]
            image = resample(image, size, [e / n for e, n in zip(extent, size, strict=True)])
        elif final == "B":
            image = _crop_or_pad(Sitk, image, SIZE_XYZ["B"])
        return Sitk.GetArrayViewFromImage(image), image

    return run


def _crop_or_pad(library: Any, image: Any, size: Sequence[int]) -> Any:
    """The middle of an image, air around it."""
    extra = [want - n for want, n in zip(size, image.GetSize(), strict=True)]
    low = [max(0, e // 2) for e in extra]
    image = library.ConstantPad(
        image, low, [max(0, e - a) for e, a in zip(extra, low, strict=True)], STORED_HU[0]
    )
    start = [max(0, -e // 2) for e in extra]
    return library.RegionOfInterest(image, list(size), start)


def ctclip(target: str) -> Action:
    """A loader in the style of CT-CLIP's: the whole scan as float64, torch's interpolation."""
    import nibabel as nib
    import numpy as np
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(1)

    def run(path: Path) -> Any:
        image = nib.load(path)
        voxels = np.clip(image.get_fdata(), *CLIP_HU).transpose(2, 1, 0)
        volume = torch.tensor(voxels)[None, None]
        pitch = np.linalg.norm(image.affine[:3, :3], axis=0)
        size = [
            int(n * (s / t))
            for n, s, t in zip(image.shape, pitch.tolist(), SPACING_XYZ[target], strict=True)
        ]
        volume = F.interpolate(volume, size=size[::-1], mode="trilinear", align_corners=False)
        if target == "A":
            volume = F.interpolate(volume, size=SIZE_XYZ["A"][::-1], mode="trilinear")
        volume = (volume[0, 0] / 1000).float()
        if target == "B":
            for axis, want in enumerate(SIZE_XYZ["B"][::-1]):
                start = max(0, (volume.shape[axis] - want) // 2)
                volume = volume.narrow(axis, start, min(want, volume.shape[axis]))
            before = [
                (want - n) // 2 for want, n in zip(SIZE_XYZ["B"], volume.shape[::-1], strict=True)
            ]
            pads = [
                side
                for want, n, low in zip(SIZE_XYZ["B"], volume.shape[::-1], before, strict=True)
                for side in (low, want - n - low)
            ]
            volume = F.pad(volume, pads, value=-1)
        return volume

    return run


def agree(target: str) -> Action:
    """Largest difference of A from MONAI in HU; `target` is the type its Spacing computes in."""
    import warnings

    warnings.simplefilter("ignore")
    import numpy as np
    import torch
    from monai import transforms as mt

    from t3d.ct.door import open_scan
    from t3d.ct.preparations import named_preparation
    from t3d.ct.regrid import plan_grid, stream
    from t3d.ct.slices import oriented_grid

    torch.set_num_threads(1)
    low, high = map(float, STORED_HU)
    chain = mt.Compose(
        [
            mt.LoadImage(image_only=True, dtype=np.float32),
            mt.EnsureChannelFirst(),
            mt.ScaleIntensityRange(low, high, low, high, clip=True),
            mt.Orientation(axcodes="RAS", labels=None),
            mt.Spacing(pixdim=SPACING_XYZ["A"], mode="bilinear", dtype=getattr(np, target)),
            mt.Resize(SIZE_XYZ["A"], mode="trilinear"),
        ]
    )

    def run(path: Path) -> dict[str, float]:
        theirs = chain(path)[0].numpy().transpose(2, 1, 0)[:, ::-1, ::-1]
        told = {}
        for name, kind in (("float_hu", np.float32), ("int16_hu", np.int16)):
            with open_scan((path,)) as slices:
                plan = plan_grid(*oriented_grid(slices), named_preparation("paper"))
                mine: Any = np.empty(plan.shape, dtype=kind)
                stream(slices, plan, STORED_HU, into=mine)
            told[name] = float(np.abs(mine - theirs).max())
        return told

    return run


def dicom_ours(_target: str) -> Action:
    """A folder of slices through our own door."""
    from t3d.ct.door import open_scan
    from t3d.ct.preparations import named_preparation
    from t3d.ct.regrid import regrid

    def run(folder: Path) -> Any:
        with open_scan(tuple(sorted(folder.iterdir())), name="series") as slices:
            return regrid(slices, named_preparation("paper_direct")).voxels

    return run


def dicom_pydicom(_target: str) -> Action:
    """The floor: every file read and decoded once, kept in a list, nothing checked."""
    import numpy as np
    import pydicom

    def run(folder: Path) -> Any:
        found = []
        for path in folder.iterdir():
            read = pydicom.dcmread(path)
            found.append((float(read.ImagePositionPatient[2]), read.pixel_array))
        return np.stack([plane for _, plane in sorted(found, key=lambda pair: pair[0])])

    return run


def dicom_sitk(_target: str) -> Action:
    """SimpleITK's series reader and one linear resample to the same size."""
    import SimpleITK as Sitk

    Sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def run(folder: Path) -> Any:
        reader = Sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        size = [256, 256, image.GetSize()[2] * 128 // 300]
        spacing = [
            n * s / m for n, s, m in zip(image.GetSize(), image.GetSpacing(), size, strict=True)
        ]
        # fmt: off
        return Sitk.Resample(image, size, Sitk.Transform(), Sitk.sitkLinear, image.GetOrigin(),
                             spacing, image.GetDirection(), float(STORED_HU[0]))
        # fmt: on

    return run


PIPELINES: dict[str, Callable[[str], Action]] = {
    "gunzip": gunzip,
    "t3d": ours,
    "monai": monai,
    "sitk": sitk,
    "ctclip": ctclip,
    "agree": agree,
    "dicom t3d": dicom_ours,
    "dicom pydicom": dicom_pydicom,
    "dicom sitk": dicom_sitk,
}


def child(pipeline: str, target: str, path: Path, tiny: Path) -> None:
    """Run one pipeline once in this process and tell what it took."""
    action = PIPELINES[pipeline](target)
    action(tiny)
    before = os.times()
    made = action(path)
    after = os.times()
    # Not getrusage: its maximum is handed down from the process that started this one.
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    told = {
        "cpu_s": after.user + after.system - before.user - before.system,
        "process_cpu_s": after.user + after.system,
        "peak_mb": peak_kb / 1024,
    }
    if isinstance(made, dict):
        told |= made
    sys.stdout.write(json.dumps(told) + "\n")


# ---------------------------------------------------------------- inputs
def chest(num_slices: int, width: int = 512) -> Any:
    """A noisy body with two lungs, int16 HU (Z, width, width): sd 18 in the body, 9 in air."""
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : width * 1j, -1 : 1 : width * 1j].astype(np.float32)
    inside = (x / 0.85) ** 2 + (y / 0.62) ** 2 < 1
    lungs = ((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.45) ** 2 < 1
    out = np.empty((num_slices, width, width), dtype=np.int16)
    for z in range(num_slices):
        noise = rng.standard_normal((width, width), dtype=np.float32)
        noise = (0.8 * noise + 0.2 * np.roll(noise, 1, axis=1)) / np.float32(0.68**0.5)
        plane = np.where(inside, 40 + 18 * noise, -990 + 9 * noise)
        if 0.13 < z / num_slices < 0.87:
            plane[lungs] -= 880
        plane[x**2 + y**2 >= 1] = -1024
        out[z] = np.rint(plane)
    return out


def write_chest(path: Path, num_slices: int = 300, width: int = 512) -> Path:
    """Write the chest as gzip level 1, the y axis stored backwards as LAS files do."""
    import numpy as np

    from t3d.ct import nifti

    matrix = np.zeros((4, 4))
    matrix[2, 0], matrix[1, 1], matrix[0, 2] = 1.0, -0.75, 0.75
    matrix[:, 3] = (-190.0, 190.0, -300.0, 1.0)
    nifti.write(path, chest(num_slices, width), matrix)
    return path


def write_series(folder: Path, voxels: Any, *, packed: bool) -> None:
    """Write slices of 12 bits under shuffled names, raw or in lossless JPEG 2000."""
    import numpy as np
    from openjpeg.utils import encode_array
    from pydicom import uid
    from pydicom.encaps import encapsulate

    folder.mkdir()
    names = np.random.default_rng(1).permutation(len(voxels)).tolist()
    for z, (name, plane) in enumerate(zip(names, voxels, strict=True)):
        made = _slice_facts(z)
        pixels = np.clip(plane + 1024, 0, 4095).astype("<u2")
        made.PixelData = pixels.tobytes()
        if packed:
            made.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
            made.PixelData = encapsulate([encode_array(pixels, bits_stored=12, use_mct=False)])
            made["PixelData"].is_undefined_length = True
        made.save_as(folder / f"{name:03d}.dcm", enforce_file_format=True)


def _slice_facts(z: int) -> Any:
    """Everything of one CT image but its pixels."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    made, meta = Dataset(), FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID = uid.CTImageStorage
    made.SOPInstanceUID = uid.generate_uid(entropy_srcs=["image", str(z)])
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.file_meta = meta
    made.SeriesInstanceUID = uid.generate_uid(entropy_srcs=["series"])
    made.StudyInstanceUID = uid.generate_uid(entropy_srcs=["study"])
    made.FrameOfReferenceUID = uid.generate_uid(entropy_srcs=["frame"])
    made.PatientID, made.PatientName, made.PatientPosition = "p", "p", "HFS"
    made.Modality, made.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SeriesNumber, made.InstanceNumber = 1, z + 1
    made.ImagePositionPatient = [-190.0, -190.0, float(z)]
    made.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    made.PixelSpacing, made.SliceThickness = [0.75, 0.75], 1.0
    made.RescaleSlope, made.RescaleIntercept, made.RescaleType = 1.0, -1024.0, "HU"
    made.Rows = made.Columns = 512
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelRepresentation = 0
    return made


# ---------------------------------------------------------------- measuring
Told = dict[str, float]
Run = tuple[str, str, Path]  # pipeline, target, input


def command(run: Run) -> list[str]:
    """How a child is started; `tiny...` of the same kind lies beside each input."""
    pipeline, target, path = run
    tiny = path.with_name(f"tiny_{path.name}" if path.is_dir() else "tiny.nii.gz")
    told = {"child": pipeline, "target": target, "input": path, "tiny": tiny}
    return [sys.executable, __file__, *(f"--{key}={value}" for key, value in told.items())]


def run_once(run: Run) -> Told:
    """One fresh process on one core."""
    core = max(os.sched_getaffinity(0))
    pinned = partial(os.sched_setaffinity, 0, {core})
    done = subprocess.run(command(run), capture_output=True, text=True, preexec_fn=pinned)
    if done.returncode:
        raise SystemExit(f"{run[0]} {run[1]}: {done.stderr.strip()}")
    told: Told = json.loads(done.stdout.splitlines()[-1])
    return told


def fits(run: Run) -> bool:
    """Whether the memory that a pipeline needs is free now."""
    need = NEED_GB.get(run[0], {}).get(run[1], 1)
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    free_kb = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return free_kb > need * 1e6


def alternating(runs: Sequence[Run], rounds: int) -> list[Told | None]:
    """Median of each figure of each run, in turn; None where memory was too short."""
    kept: list[list[Told]] = [[] for _ in runs]
    for number in range(rounds):
        for place in range(len(runs)):
            at = (place + number) % len(runs)
            if fits(runs[at]):
                kept[at].append(run_once(runs[at]))
    return [
        {key: statistics.median(t[key] for t in told) for key in told[0]} if told else None
        for told in kept
    ]


def row(
    name: str, value: float | None, unit: str, base: float | None = None, note: str = ""
) -> Row:
    """One line of the table; `ratio` is value / baseline."""
    return {
        "name": name,
        "value": None if value is None else round(value, 4),
        "unit": unit,
        "baseline": None if base is None else round(base, 4),
        "ratio": round(value / base, 3) if value is not None and base else None,
        "note": note if value is not None else f"not measured. {note}".strip(),
    }


def bar(kept: bool, text: str) -> str:
    """A bar and whether it was kept."""
    return f"bar {text}: {'kept' if kept else 'MISSED'}"


# ---------------------------------------------------------------- parts
def grid_part(folder: Path, rounds: int) -> list[Row]:
    """The three targets, every pipeline."""
    path = write_chest(folder / "chest.nii.gz")
    rows = [row("fixture", path.stat().st_size / 1e6, "MB", None, "157.3 MB of voxels")]
    plans = {
        target: [("gunzip", ""), *((p, target) for p in ("t3d", "monai", "sitk", "ctclip"))]
        for target in "ABC"
    }
    plans["A"] += [("t3d", "A1"), ("sitk", "A1")]
    for target, pairs in plans.items():
        runs = [(pipeline, told, path) for pipeline, told in pairs]
        found = alternating(runs, min(rounds, 3) if target == "C" else rounds)
        rows += grid_rows(target, dict(zip(pairs, found, strict=True)))
    return rows


def grid_rows(target: str, found: dict[tuple[str, str], Told | None]) -> list[Row]:
    """Rows of one target: CPU beside gunzip, ours beside each of the others, peak memory."""
    told = {key: value for key, value in found.items() if value is not None}
    floor = told["gunzip", ""]["cpu_s"]
    names = {"A1": "A in one step"}
    rows = []
    for key in found:
        name = f"{key[0]} {names.get(key[1], key[1] or target)}"
        if key not in told:
            rows.append(row(name, None, "CPU s", floor, "memory was short"))
            continue
        cpu, peak = told[key]["cpu_s"], told[key]["peak_mb"]
        mine, is_a = key[0] == "t3d", target == "A"
        note = f"baseline gunzip; whole process {told[key]['process_cpu_s']:.2f}"
        if mine and is_a:
            note += "; " + bar(cpu / floor <= BARS["gunzip"], f"ratio <= {BARS['gunzip']}")
        rows.append(row(name, cpu, "CPU s", floor, note))
        note = bar(peak <= BARS["peak_mb"], f"<= {BARS['peak_mb']:.0f} MB") if mine and is_a else ""
        rows.append(row(f"{name}, peak", peak, "MB", None, note))
    for key in told:
        if key[0] == "t3d" and ("monai", target) in told:
            theirs, cpu = told["monai", target]["cpu_s"], told[key]["cpu_s"]
            note = bar(theirs / cpu >= BARS["monai"], f">= {BARS['monai']:.0f}")
            name = f"MONAI over t3d {names.get(key[1], key[1])}"
            rows.append(row(name, theirs / cpu, "times", None, note if target == "A" else ""))
    return rows


def agree_part(folder: Path, _rounds: int) -> list[Row]:
    """Difference from MONAI with float32 arrays."""
    path = write_chest(folder / "agree.nii.gz")
    usual, narrow = alternating([("agree", kind, path) for kind in ("float64", "float32")], 1)
    if usual is None or narrow is None:
        return [row("A, difference from MONAI", None, "HU", None, "memory was short")]
    rows = [
        row(f"A, {text}", usual[key], "HU", None, bar(usual[key] <= BARS[key], f"<= {BARS[key]}"))
        for key, text in (("float_hu", "before rounding"), ("int16_hu", "as stored"))
    ]
    note = "positions rounded in MONAI: its own two results differ by as much"
    return [*rows, row("A, its Spacing in float32", narrow["float_hu"], "HU", None, note)]


def dicom_part(folder: Path, rounds: int) -> list[Row]:
    """Series of 60 slices, times 5."""
    voxels = chest(60)
    rows = []
    for packed, name in ((False, "raw"), (True, "JPEG 2000")):
        path = folder / name.replace(" ", "_")
        write_series(path, voxels, packed=packed)
        write_series(path.with_name(f"tiny_{path.name}"), voxels[:12], packed=packed)
        pipelines = ["dicom pydicom", "dicom sitk", *(["dicom t3d"] if has_dicom(path) else [])]
        found = alternating([(p, "", path) for p in pipelines], rounds)
        told = dict(zip(pipelines, found, strict=True))
        floor = (told["dicom pydicom"] or {})["cpu_s"] * REPEATS_5
        for pipeline in ("dicom pydicom", "dicom sitk", "dicom t3d"):
            mine = told.get(pipeline)
            value = None if mine is None else mine["cpu_s"] * REPEATS_5
            note = "baseline: pydicom, files read and decoded once, not resampled"
            rows.append(row(f"{pipeline}, {name}, 300 slices", value, "CPU s", floor, note))
    return rows


def has_dicom(folder: Path) -> bool:
    """Whether our own door takes a series of slices."""
    from t3d.ct.door import open_scan
    from t3d.errors import T3DError

    try:
        with open_scan(tuple(sorted(folder.iterdir())), name="series"):
            return True
    except T3DError:
        return False


def slices_part(folder: Path, rounds: int) -> list[Row]:
    """Cost against the number of slices."""
    rows = []
    for count in (100, 200, 300, 400, 600):
        path = write_chest(folder / f"chest{count}.nii.gz", count)
        floor, mine = alternating([("gunzip", "", path), ("t3d", "A1", path)], rounds)
        path.unlink()
        if floor is not None and mine is not None:
            note = f"baseline gunzip; peak {mine['peak_mb']:.0f} MB"
            rows.append(row(f"{count} slices", mine["cpu_s"], "CPU s", floor["cpu_s"], note))
    return rows


def workers_part(folder: Path, rounds: int) -> list[Row]:
    """Eight volumes with 1 and 2 processes at a time; each process one thread."""
    path, volumes = write_chest(folder / "workers.nii.gz"), 8
    cores = len(os.sched_getaffinity(0))
    rows = []
    for workers in (1, 2):
        walls, used = [], []
        for _ in range(min(rounds, 3)):
            began, before = time.monotonic(), os.times()
            for first in range(0, volumes, workers):
                some = range(first, min(first + workers, volumes))
                started = [
                    subprocess.Popen(command(("t3d", "A1", path)), stdout=subprocess.DEVNULL)
                    for _ in some
                ]
                if any(process.wait() for process in started):
                    raise SystemExit("a worker failed")
            after = os.times()
            walls.append((time.monotonic() - began) / volumes)
            spent = after.children_user + after.children_system
            used.append((spent - before.children_user - before.children_system) / volumes)
        note = f"CPU {statistics.median(used):.2f} s a volume, imports included; {cores} cores"
        rows.append(row(f"{workers} workers", statistics.median(walls), "wall s/vol", None, note))
    return rows


PARTS: dict[str, Callable[[Path, int], list[Row]]] = {
    "grid": grid_part,
    "agree": agree_part,
    "dicom": dicom_part,
    "slices": slices_part,
    "workers": workers_part,
}


def show(rows: Sequence[Row]) -> None:
    """Write lines of the table."""
    for told in rows:
        value = "-" if told["value"] is None else f"{told['value']:.4g}"
        ratio = "" if told["ratio"] is None else f"x {told['ratio']:.2f} of {told['baseline']:.3g}"
        line = f"{told['name']!s:36} {value:>8} {told['unit']!s:10} {ratio:18}"
        sys.stdout.write(f"{line} {told['note']}\n".rstrip() + "\n")
        sys.stdout.flush()


def main() -> int:
    """Run the parts asked for; exit code 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=tuple(PARTS), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    for hidden in ("--child", "--target", "--input", "--tiny"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        child(told.child, told.target, Path(told.input), Path(told.tiny))
        return 0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        write_chest(Path(name) / "tiny.nii.gz", 16, 64)
        for part in told.part or PARTS:
            rows += (made := PARTS[part](Path(name), told.rounds))
            show(made)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any("MISSED" in str(r["note"]) for r in rows))


if __name__ == "__main__":
    sys.exit(main())
