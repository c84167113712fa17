"""What `t3d doctor` sees: turned axes, planted faults, near copies; and what a scan costs.

    python benchmarks/doctor.py                            # phantoms
    python benchmarks/doctor.py --real ../shared/data      # and seven real scans
    python benchmarks/doctor.py --json docs/results/doctor.json

turned   directions of whole chests in all 8 flips, of parts along z, of chests cut on both sides.
         `value` is the share of axes whose direction is told; the note counts wrong answers
planted  a fault in each of 60 other phantoms; `value` is the share in which it is seen
copies   phantoms on other grids: how many are found, the lowest likeness; the highest of others
cost     512 x 512 x 300 in a process of its own, one thread, page cache warm

Phantoms of even seeds are small ones (preset DEMO), of odd seeds STANDARD. The same seeds give the
same figures, but for those of cost. Five minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from loader import Row, apart, chest, cpu_s, gunzip, matrix, peak_mb, row, show
from t3d.cohort.audit import SAME_CONTENT
from t3d.ct import nifti
from t3d.ct.anatomy import AXES, CANNOT_TELL, FITS, FLIPPED, read_anatomy
from t3d.ct.doctor import NOTE, Examination, examine
from t3d.ct.door import open_scan, read
from t3d.ct.preparations import PREPARATIONS
from t3d.ct.regrid import regrid
from t3d.ct.survey import survey
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO, STANDARD
from t3d.types import Volume, Zyx

PARTS = ("turned", "planted", "copies", "cost")
NUM, NUM_PLANTED, NUM_COPIED, OTHER_SEEDS = 200, 60, 12, 1000
FLIPS = tuple(itertools.product((1, -1), repeat=3))  # z, y, x
ALONG_Z = ((0.0, 0.5), (0.0, 0.6), (0.0, 0.75), (0.25, 0.75), (0.3, 1.0), (0.5, 1.0))
CUT_SIDES = (0.1, 0.2, 0.3)  # of the width, on either side
REAL = {
    "chest": "dicom/chest_lungpetctdx_A0001/series3_B_j2k",
    "chest, tumour beside the heart": "dicom/chest_lungpetctdx_A0002/series3_B40f_deflated",
    "chest, coarse": "nrrd/CTChest4.nrrd",
    "torso": "nifti/ct/torso_3mm_int32.nii.gz",
    "abdomen, 40 mm": "dicom/abdomen_totalseg_j2k",
    "abdomen, 90 mm": "nifti/ct/abdomen_3mm_int16.nii.gz",
    "aorta, a crop": "nifti/ct/aorta_1p5mm_LPS.nii.gz",
}
Voxels = NDArray[np.int16]
Told = Counter[tuple[str, bool, str]]  # axis, is turned, verdict


def made(seed: int) -> Volume:
    """One phantom, both presets in turn."""
    return patient(seed, preset=STANDARD if seed % 2 else DEMO).volume


def changed(
    volume: Volume, voxels: Voxels, scale: tuple[float, float, float] = (1, 1, 1)
) -> Volume:
    """Other voxels, or another spacing (times z, y, x), under the affine of a volume."""
    return Volume(
        volume_id=volume.volume_id,
        voxels=np.ascontiguousarray(voxels),
        world_from_voxel=volume.world_from_voxel @ np.diag([*scale, 1.0]),
    )


def along_z(volume: Volume, shares: Iterable[tuple[float, float]]) -> Iterator[Volume]:
    """Cut parts out along z."""
    n = len(volume.voxels)
    for low, high in shares:
        yield changed(volume, volume.voxels[int(low * n) : int(high * n)])


def cut_sides(volume: Volume) -> Iterator[Volume]:
    """Cut off both sides."""
    for share in CUT_SIDES:
        lost = int(share * volume.voxels.shape[2])
        yield changed(volume, volume.voxels[..., lost:-lost])


# ---- turned axes ---------------------------------------------------------------------------


def look(told: Told, cells: Volume, flip: tuple[int, ...] = (1, 1, 1)) -> None:
    """Count what is said of the three axes of some cells after a flip."""
    z, y, x = flip
    cells = changed(cells, cells.voxels[::z, ::y, ::x])
    found = read_anatomy(cells, np.zeros(cells.voxels.shape[1:], dtype=bool))
    for number, sign in enumerate(flip):
        verdict = CANNOT_TELL if found is None else found.directions[number].verdict
        told[AXES[number], sign < 0, verdict] += 1


def told_rows(name: str, told: Told) -> list[Row]:
    """One row an axis: the share that is told, and how often it is told wrong."""
    rows = []
    for axis in AXES:
        right = told[axis, False, FITS] + told[axis, True, FLIPPED]
        alarms, missed = told[axis, False, FLIPPED], told[axis, True, FITS]
        n = sum(count for (one, _, _), count in told.items() if one == axis)
        note = f"{n} looks; {alarms} false alarms, {missed} called right though turned"
        rows.append(row(f"{name}: {axis}", right / n, "share", note=note))
    return rows


def turned_part(real: Path | None) -> list[Row]:
    """Directions of phantoms and, where there are any, of real scans."""
    whole, parts, cut = Told(), Told(), Told()
    for seed in range(NUM):
        cells = survey(made(seed)).cells
        for flip in FLIPS:
            look(whole, cells, flip)
        for part in along_z(cells, ALONG_Z):
            look(parts, part)
        for part in cut_sides(cells):
            look(cut, part)
    rows = told_rows("phantoms, 8 flips", whole)
    rows += told_rows("parts along z", parts) + told_rows("cut on both sides", cut)
    if real is None:
        return rows
    parts = Told()
    for name, path in REAL.items():
        cells = survey(read(real / path)).cells
        whole = Told()
        for flip in FLIPS:
            look(whole, cells, flip)
        for part in (*along_z(cells, ALONG_Z), *cut_sides(cells)):
            look(parts, part)
        rows += told_rows(f"{name}, 8 flips", whole)
    return rows + told_rows("parts of the real scans", parts)


# ---- planted faults ------------------------------------------------------------------------


def zeros(voxels: Voxels) -> Voxels:
    """Ten slices with a box of zeros, a third of each side."""
    voxels = voxels.copy()
    y, x = voxels.shape[1] // 3, voxels.shape[2] // 3
    voxels[10:20, y : 2 * y, x : 2 * x] = 0
    return voxels


def lost(voxels: Voxels, count: int) -> Voxels:
    """Some slices of the middle are lost."""
    middle = len(voxels) // 2
    return np.delete(voxels, slice(middle, middle + count), axis=0)


SLICES = {
    "a box of zeros": ("zero_filled", zeros),
    "a repeated slice": ("duplicate_slices", lambda v: np.insert(v, 15, v[15], axis=0)),
    "sorted by name": ("content_jump", lambda v: v[sorted(range(len(v)), key=str)]),
    "four slices lost": ("content_jump", lambda v: lost(v, 4)),
    "two slices lost": ("content_jump", lambda v: lost(v, 2)),
    "one slice lost": ("content_jump", lambda v: lost(v, 1)),
}
SPACINGS = {
    "z doubled": (2, 1, 1),
    "z halved": (0.5, 1, 1),
    "in-plane doubled": (1, 2, 2),
    "in-plane halved": (1, 0.5, 0.5),
    "everything 1.5 times": (1.5, 1.5, 1.5),
    "everything halved": (0.5, 0.5, 0.5),
    "x 1.5 times": (1, 1, 1.5),
}


def codes(found: Examination) -> list[str]:
    """Errors and warnings of one scan."""
    return [one.code for one in found.findings if one.severity != NOTE]


def seen_row(name: str, code: str, scans: Iterable[Volume]) -> Row:
    """The share of scans in which a symptom ("any": one at all) is seen, and what was seen."""
    seen = [set(codes(examine(scan))) for scan in scans]
    hits = sum(code in found or (code == "any" and bool(found)) for found in seen)
    told = Counter(itertools.chain.from_iterable(seen))
    note = ", ".join(f"{count} {code}" for code, count in sorted(told.items()))
    return row(name, hits / len(seen), "share", note=f"{len(seen)} scans: {note or 'nothing'}")


def planted_part() -> list[Row]:
    """Faults in phantoms, and what intact ones and their parts raise."""
    some = [made(seed) for seed in range(OTHER_SEEDS, OTHER_SEEDS + NUM_PLANTED)]
    rows = [
        seen_row(name, code, (changed(v, change(v.voxels)) for v in some))
        for name, (code, change) in SLICES.items()
    ]
    rows += [
        seen_row(name, "spacing_implausible", (changed(v, v.voxels, scale) for v in some))
        for name, scale in SPACINGS.items()
    ]
    intact = [made(seed) for seed in range(OTHER_SEEDS, OTHER_SEEDS + NUM)]
    shares = ((0.0, 0.5), (0.0, 0.7), (0.3, 1.0), (0.5, 1.0), (0.25, 0.75))
    rows.append(seen_row("intact phantoms", "any", intact))
    parts = (part for v in intact for part in along_z(v, shares))
    return [*rows, seen_row("parts of intact phantoms", "any", parts)]


# ---- near copies and cost ------------------------------------------------------------------


def likeness(scans: Iterable[Volume]) -> NDArray[np.float32]:
    """Correlation of the fingerprints of all pairs."""
    held = [np.frombuffer(examine(scan).fingerprint, np.float16) for scan in scans]
    prints = np.stack(held).astype(np.float32)
    return prints @ prints.T


def copies_part() -> list[Row]:
    """How alike copies on other grids are (uncropped ones), and different phantoms."""
    whole = [preparation for preparation in PREPARATIONS if preparation.fit != "pad_crop"]
    copies: list[float] = []
    for seed in range(OTHER_SEEDS, OTHER_SEEDS + NUM_COPIED):
        scan = made(seed)
        copies += likeness((scan, *(regrid(scan, one) for one in whole)))[0, 1:].tolist()
    alike = likeness(map(made, range(OTHER_SEEDS, OTHER_SEEDS + NUM)))
    np.fill_diagonal(alike, 0)
    note = f"{NUM_COPIED} phantoms, {len(whole)} preparations"
    found = sum(value > SAME_CONTENT for value in copies) / len(copies)
    return [
        row("copies on other grids, found", found, "share", note=note),
        row("copies on other grids, lowest", min(copies), "", note=note),
        row("different phantoms, highest", float(alike.max()), "", note=f"{NUM} phantoms"),
    ]


def one(path: Path) -> None:
    """Examine one scan three times; write the median of the CPU seconds and the peak in MB."""

    def whole() -> None:
        with open_scan((path,)) as scan:
            examine(scan)

    seconds = sorted(cpu_s(whole) for _ in range(3))[1]
    sys.stdout.write(json.dumps([seconds, peak_mb()]))


def cost_part(real: Path | None) -> list[Row]:
    """CPU seconds and peak memory of one scan."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        packed, plain = Path(name) / "scan.nii.gz", Path(name) / "scan.nii"
        voxels = chest(Zyx(z=300, y=512, x=512), 0)
        for path in (packed, plain):
            nifti.write(path, voxels, matrix(Zyx(z=1.0, y=0.75, x=0.75)))
        scans = {".nii.gz, 300 slices": packed, ".nii, 300 slices": plain}
        if real is not None:
            scans["DICOM, 30 slices"] = real / REAL["chest, tumour beside the heart"]
        unpacked = min(cpu_s(lambda: gunzip(packed)) for _ in range(3))
        rows.append(row("gunzip alone", unpacked, "CPU s"))
        for what, path in scans.items():
            seconds, peak = apart(__file__, "--one", path)
            rows.append(row(what, seconds, "CPU s"))
            rows.append(row(f"{what}, peak", peak, "MB"))
    return rows


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--real", type=Path, help="the folder of the test data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one is not None:
        one(told.one)
        return
    parts = told.part or PARTS
    rows: list[Row] = []
    rows += turned_part(told.real) if "turned" in parts else []
    rows += planted_part() if "planted" in parts else []
    rows += copies_part() if "copies" in parts else []
    rows += cost_part(told.real) if "cost" in parts else []
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
