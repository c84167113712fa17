"""What is wrong with one scan, how we know, and what would fix it.

One pass over the slices (`survey.py`), then values (`plausibility.py`), slices, grid and body
(`anatomy.py`). A symptom is said only where its evidence is beyond what intact scans show; where
nothing can be told the facts say "cannot tell".

Source:
    Thresholds: our choice, set on the intact real scans and phantoms named in
    docs/howto/doctor.md, which also gives how often each symptom is missed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.anatomy import (
    FITS,
    FLIPPED,
    MIN_BODY_CM2,
    MIN_CUT_MM,
    MIN_CUT_SLICES,
    MIN_LUNG_ML,
    SURE,
    Anatomy,
    Direction,
    read_anatomy,
)
from t3d.ct.geometry import spacing_mm
from t3d.ct.guard import is_ct_spacing
from t3d.ct.limits import MAX_SPACING_MM, MIN_AXIS_VOX, MIN_SPACING_MM
from t3d.ct.plausibility import judge
from t3d.ct.slices import Slices
from t3d.ct.survey import Survey, survey
from t3d.types import Volume, Zyx

ERROR, WARNING, NOTE = "error", "warning", "note"  # gravest first
SEVERITIES = (ERROR, WARNING, NOTE)

Z_EXTENT_MM = (100.0, 700.0)
BODY_MM = (150.0, 620.0)  # width; a child of two years has about 180
BODY_RATIO = (0.9, 2.4)  # width / depth; real adults seen: 1.2 to 1.9
LUNG_MM = (90.0, 380.0)  # height of whole lungs
LUNG_RATIO = (0.38, 1.1)  # lung height / body width; seen: 0.57 to 0.92
LUNG_ML = (400.0, 11_000.0)
NO_LUNG_ML, NO_LUNG_CM2 = 300.0, 20.0  # less in all, and a slice on average
SCOUT_SLICES = 3
JUMP = 1.6  # times the larger neighbour; intact scans: at most 1.27
JUMP_OF_MEDIAN = 1.4
BLOCK_ML = 20.0
BLOCK_FILL = 0.9  # share of its bounding box; anatomy fills less
METAL_HU = 2500
DARK_HU = -900
FINGERPRINT = 8  # cells along each axis
HISTOGRAM_HU = (-1104.0, 1504.0)
HISTOGRAM_BINS = 163  # of 16 HU


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """One thing that is wrong, or worth knowing."""

    code: str  # "left_right_flipped", ...
    severity: str  # "error", "warning" or "note"
    found: str
    evidence: str  # how we know
    fix: str  # what would fix it


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One picture plane through the middle of the body, rows running down the picture."""

    kind: str  # "axial" (as seen from the feet), "coronal" or "sagittal" (head on top)
    down: str  # the letter of the side to which rows run, as the file claims
    across: str  # the letter of the side to which columns run
    hu: NDArray[np.int16]  # (rows, columns)
    pixel_mm: tuple[float, float]  # row pitch, column pitch
    at_mm: float  # LPS coordinate across the plane


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found out about one scan."""

    volume_id: str
    findings: tuple[Symptom, ...]  # gravest first
    facts: Mapping[str, str]
    planes: tuple[Plane, ...] = field(repr=False)
    histogram: tuple[int, ...] = field(repr=False)  # voxels looked at in bins of 16 HU
    content: str = field(repr=False)  # equal voxels in equal order give equal digests
    fingerprint: bytes = field(repr=False)  # coarse picture of the content, for near copies

    @property
    def severity(self) -> str:
        """The gravest severity; "" = nothing to say."""
        return self.findings[0].severity if self.findings else ""


def examine(source: Slices | Volume) -> Examination:
    """Examine one scan in one pass over its slices; memory does not grow with the scan.

    Args:
        source: An opened scan (`ct/door.py`), or a Volume.

    Returns:
        Symptoms, gravest first; facts; three planes; a histogram.

    Raises:
        RefusedFile: The file ends early or is damaged.
        GeometryError: A Volume whose axes are not the body's.
    """
    seen = survey(source)
    empty = _empty_field(seen)
    findings = [*_values(seen), *_slices(seen), *_grid(seen)]
    anatomy = None
    # Numbers that are no HU show no body, so nothing would be learned from looking for one.
    if not any(f.code in HU_CODES for f in findings):
        findings += _blocks(seen, empty)
        anatomy = read_anatomy(seen.cells, empty)
        findings += _no_body(seen) if anatomy is None else _body(seen, anatomy)
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), f.code))
    return Examination(
        volume_id=seen.name,
        findings=tuple(findings),
        facts=_facts(seen, anatomy),
        planes=_planes(seen.cells),
        histogram=_histogram(seen.sample_hu),
        content=hashlib.sha256(repr(seen.slice_keys).encode()).hexdigest()[:32],
        fingerprint=_fingerprint(seen.cells),
    )


HU_CODES = (
    *("constant", "scaled", "label_map", "rescaled_twice", "never_rescaled"),
    *("window_burnt_in", "not_ct"),
)


def _values(seen: Survey) -> Iterator[Symptom]:
    """What the values look like, and whether all are numbers."""
    if seen.num_nan:
        yield Symptom(
            code="not_a_number",
            severity=WARNING,
            found=f"{seen.num_nan} voxels are not a number",
            evidence="counted in the whole file",
            fix="nothing: they are read as air; better, export the scan again",
        )
    for verdict in judge(seen.sample_hu, stored=seen.stored):
        yield Symptom(
            code=verdict.code,
            severity=ERROR if verdict.refuse else NOTE,
            found=verdict.found,
            evidence=f"{len(seen.sample_hu)} voxels from all over the scan",
            fix=verdict.fix,
        )


def _slices(seen: Survey) -> Iterator[Symptom]:
    """Empty, repeated and missing slices, by their place in the file."""
    flat = np.flatnonzero(seen.slice_flat)
    if len(flat) and len(flat) < len(seen.slice_flat):
        yield Symptom(
            code="empty_slices",
            severity=ERROR,
            found=f"{len(flat)} of {len(seen.slice_flat)} slices hold one value: {_runs(flat)}",
            evidence="every voxel of such a slice is equal",
            fix="export the series again, or crop these slices away",
        )
    copies = _copies(seen)
    if len(copies):
        yield Symptom(
            code="duplicate_slices",
            severity=ERROR,
            found=f"{len(copies)} slices repeat an earlier one: {_runs(copies)}",
            evidence="equal voxel for voxel",
            fix="export the series again: slices were written twice and others may be missing",
        )
    jumps = _jumps(seen.slice_steps_hu)
    if jumps:
        worst = max(jumps, key=lambda j: j[1])
        yield Symptom(
            code="content_jump",
            severity=WARNING,
            found="the picture jumps after slice " + ", ".join(str(k) for k, _ in jumps[:8]),
            evidence=f"after slice {worst[0]} it changes {worst[1]:.1f} times as much as around it "
            "(intact scans: at most 1.3 times)",
            fix="compare the number of slices with the original series: some may be missing, "
            "repeated or out of order",
        )


def _copies(seen: Survey) -> NDArray[np.intp]:
    """Slices, not empty ones, whose voxels equal those of an earlier slice."""
    first: dict[tuple[int, int], int] = {}
    found = [
        k
        for k, key in enumerate(seen.slice_keys)
        if not seen.slice_flat[k] and first.setdefault(key, k) != k
    ]
    return np.array(found, dtype=np.intp)


def _jumps(steps: NDArray[np.float64]) -> list[tuple[int, float]]:
    """Places (0 = after the first slice) where the picture changes far more than around."""
    found = []
    usual = float(np.median(steps)) if len(steps) >= 6 else 0.0
    for k in range(1, len(steps) - 1):  # at an end there is nothing to compare with on one side
        step = float(steps[k])
        around = np.delete(steps[max(0, k - 2) : k + 3], min(k, 2))
        # Beside an empty or repeated slice nothing can be compared.
        if usual and around.min() > 0.2 * usual and step > JUMP_OF_MEDIAN * usual:
            ratio = step / float(around.max())
            if ratio > JUMP:
                found.append((k, ratio))
    return found


def _runs(numbers: NDArray[np.intp]) -> str:
    """Write rising numbers shortly: 1, 2, 3, 7 becomes "1-3, 7"."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    shown = [f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts[:6]]
    return ", ".join(shown) + (", ..." if len(parts) > 6 else "")


def _grid(seen: Survey) -> Iterator[Symptom]:
    """Scouts, thin stacks, spacings and extents that no CT has."""
    z, y, x = seen.shape
    size = f"{z} x {y} x {x} voxels of {_mm(seen.spacing_mm)} mm (z, y, x)"
    depth = seen.shape[seen.stacked_along]
    if depth <= SCOUT_SLICES and seen.stacked_along != 0:
        yield Symptom(
            code="scout",
            severity=ERROR,
            found=f"{depth} slices that are not axial",
            evidence=size,
            fix="choose another series: this is a localizer",
        )
    elif min(seen.shape) < MIN_AXIS_VOX:
        yield Symptom(
            code="too_few_slices",
            severity=ERROR,
            found=f"only {min(seen.shape)} voxels along one axis",
            evidence=size,
            fix="choose a reconstruction with more slices; a stack this thin may be a localizer",
        )
    if not is_ct_spacing(seen.spacing_mm):
        yield Symptom(
            code="spacing_out_of_range",
            severity=ERROR,
            found=f"spacing {_mm(seen.spacing_mm)} mm (z, y, x)",
            evidence=f"CT is reconstructed with {MIN_SPACING_MM} to {MAX_SPACING_MM} mm",
            fix="state the true spacing through a HeaderOverride",
        )
    low, high = Z_EXTENT_MM
    if not low <= seen.extent_mm.z <= high:
        yield Symptom(
            code="z_extent",
            severity=WARNING,
            found=f"the scan is {seen.extent_mm.z:.0f} mm long",
            evidence=size,
            fix=f"check the spacing along z; a chest takes {low:g} to {high:g} mm",
        )


def _mm(triple: Zyx[float]) -> str:
    """Three lengths."""
    return " x ".join(f"{v:.3g}" for v in triple)


def _extent(seen: Survey) -> str:
    """The size of the whole scan."""
    return "{:.0f} x {:.0f} x {:.0f} mm (z, y, x)".format(*seen.extent_mm)


def _empty_field(seen: Survey) -> NDArray[np.bool_]:
    """(Y, X) of the cells: one and the same value in nearly all slices."""
    hu = seen.cells.voxels
    usual = np.median(hu, axis=0).astype(np.int16)
    return np.asarray((seen.flat & (hu == usual)).mean(axis=0) > 0.9)


def _blocks(seen: Survey, empty: NDArray[np.bool_]) -> Iterator[Symptom]:
    """Boxes of one value where tissue should be: slices or tiles that were never filled."""
    from scipy import ndimage

    hu = seen.cells.voxels
    label, _ = ndimage.label(seen.flat & ~empty & (hu < METAL_HU) & ~_flat_slices(seen))
    ml = float(np.prod(spacing_mm(seen.cells.world_from_voxel))) / 1000
    sizes = np.bincount(label.ravel()) * ml
    found = []
    for n, box in enumerate(ndimage.find_objects(label), start=1):
        value = int(hu[box][label[box] == n][0])
        fill = sizes[n] / (label[box].size * ml)
        if sizes[n] >= BLOCK_ML and (value > DARK_HU or fill >= BLOCK_FILL):
            found.append((float(sizes[n]), value))
    if found:
        total, (_, value) = sum(size for size, _ in found), max(found)
        yield Symptom(
            code="zero_filled",
            severity=ERROR,
            found=f"{len(found)} region(s), {total:.0f} ml in all, hold one value ({value})",
            evidence="all voxels of each are equal; tissue has noise",
            fix="export or download the scan again; a scan smoothed by a program looks so too",
        )


def _flat_slices(seen: Survey) -> NDArray[np.bool_]:
    """Cells of slices that are wholly flat: they are named already."""
    axis = seen.stacked_along
    others = tuple(a for a in range(3) if a != axis)
    return np.asarray(seen.flat.all(axis=others, keepdims=True))


def _no_body(seen: Survey) -> Iterator[Symptom]:
    """Nothing like a body in the volume."""
    yield Symptom(
        code="no_body",
        severity=WARNING,
        found="nothing like a body was found",
        evidence=f"no solid object of {MIN_BODY_CM2:g} cm2 in any slice of {_extent(seen)}",
        fix="look at the pictures: a phantom, a fragment, or a wrong spacing",
    )


def _body(seen: Survey, anatomy: Anatomy) -> Iterator[Symptom]:
    """What the body says of directions, sizes and field of view."""
    for direction in anatomy.directions:
        if direction.verdict == FLIPPED:
            yield _flipped(direction)
    yield from _sizes(seen, anatomy)
    if anatomy.cut:
        crop = "" if anatomy.outlined else "; so much that its surface cannot be judged"
        yield Symptom(
            code="truncated",
            severity=NOTE,
            found=f"the field of view ends within the body: {', '.join(anatomy.cut)}{crop}",
            evidence=f"the body meets the end of the field over {MIN_CUT_MM:g} mm in more than "
            f"{100 * MIN_CUT_SLICES:.0f} % of slices",
            fix="nothing, if what matters is inside; else choose a wider reconstruction",
        )
    if anatomy.outlined and anatomy.lung_ml < NO_LUNG_ML and anatomy.lung_cm2 < NO_LUNG_CM2:
        yield Symptom(
            code="no_chest",
            severity=WARNING,
            found=f"{anatomy.lung_ml:.0f} ml of lung",
            evidence=f"air inside the body in pieces of {MIN_LUNG_ML:g} ml or more; a chest has "
            f"over {NO_LUNG_ML:.0f} ml, or {NO_LUNG_CM2:.0f} cm2 in each slice",
            fix="leave the scan out where chests are wanted: it shows another part of the body",
        )
    if anatomy.directions[1].verdict == FITS and anatomy.table == "front":
        yield Symptom(
            code="prone",
            severity=NOTE,
            found="the patient lies on the belly",
            evidence="the table is on the side of the belly, the spine on the other",
            fix="nothing",
        )


_TURNED = {
    "head-foot": ("the head lies where the file says foot", "the slices are in reverse order"),
    "front-back": ("the back lies where the file says front", "the rows are in reverse order"),
    "left-right": (
        "the right side lies where the file says left",
        "the columns are mirrored, or the patient's organs are (situs inversus, 1 in 10,000)",
    ),
}


def _flipped(direction: Direction) -> Symptom:
    """One axis runs against the anatomy."""
    what, why = _TURNED[direction.axis]
    told = ", ".join(f"{name} {v:+.1f}" for name, v in direction.evidence.items() if v)
    return Symptom(
        code=direction.axis.replace("-", "_") + "_flipped",
        severity=ERROR,
        found=what,
        evidence=f"{told} (sum {direction.score:+.1f}; beyond {-SURE:g} it is said)",
        fix=f"{why}: correct the affine at its source; do not flip voxels where text names sides",
    )


def _sizes(seen: Survey, anatomy: Anatomy) -> Iterator[Symptom]:
    """Bodies and lungs of a size nobody has."""
    told: list[tuple[str, tuple[float, float]]] = []
    ratio = anatomy.width_mm / max(anatomy.depth_mm, 1.0)
    whole = not anatomy.cut
    if anatomy.width_mm > BODY_MM[1] or (whole and anatomy.width_mm < BODY_MM[0]):
        told.append((f"a body {anatomy.width_mm:.0f} mm wide", BODY_MM))
    if whole and not BODY_RATIO[0] <= ratio <= BODY_RATIO[1] and anatomy.lung_ml > NO_LUNG_ML:
        told.append((f"a body {ratio:.2f} times as wide as deep", BODY_RATIO))
    if anatomy.lungs_whole:
        if not LUNG_MM[0] <= anatomy.lung_height_mm <= LUNG_MM[1]:
            told.append((f"lungs {anatomy.lung_height_mm:.0f} mm high", LUNG_MM))
        slender = anatomy.lung_height_mm / max(anatomy.width_mm, 1.0)
        if slender < LUNG_RATIO[0] or (whole and slender > LUNG_RATIO[1]):
            told.append((f"lungs {slender:.2f} times as high as the body is wide", LUNG_RATIO))
        if not LUNG_ML[0] <= anatomy.lung_ml <= LUNG_ML[1]:
            told.append((f"{anatomy.lung_ml:.0f} ml of lung", LUNG_ML))
    if told:
        yield Symptom(
            code="spacing_implausible",
            severity=ERROR if len(told) > 1 else WARNING,
            found="; ".join(f"{what} (expected {low:g} to {high:g})" for what, (low, high) in told),
            evidence=f"measured with the file's spacing, {_mm(seen.spacing_mm)} mm (z, y, x)",
            fix="compare with the original header and state the spacing through a "
            "HeaderOverride; a small child is small",
        )


def _facts(seen: Survey, anatomy: Anatomy | None) -> dict[str, str]:
    """What was measured, in words."""
    low, median, high = np.percentile(seen.sample_hu, (1, 50, 99.9))
    facts = {
        "size": "{} x {} x {} voxels (z, y, x)".format(*seen.shape),
        "spacing": f"{_mm(seen.spacing_mm)} mm (z, y, x)",
        "extent": _extent(seen),
        "axes of the file": seen.letters,
        "tilt": f"{seen.tilt_degrees:.1f} degrees",
        "HU": f"{seen.range_hu[0]} to {seen.range_hu[1]}; percentiles 1, 50, 99.9: "
        f"{low:.0f}, {median:.0f}, {high:.0f}",
        "reading": "; ".join(seen.steps) or "a volume in memory",
    }
    if anatomy is not None:
        facts |= {d.axis: f"{d.verdict} ({d.score:+.1f})" for d in anatomy.directions}
        facts["body"] = f"{anatomy.width_mm:.0f} mm wide, {anatomy.depth_mm:.0f} mm deep"
        whole = "whole" if anatomy.lungs_whole else "cut or absent"
        facts["lungs"] = f"{anatomy.lung_ml:.0f} ml, {anatomy.lung_height_mm:.0f} mm high, {whole}"
        facts["table"] = anatomy.table or "none seen"
    return facts


def _planes(cells: Volume) -> tuple[Plane, ...]:
    """Three planes through the middle of what is not air."""
    hu, pitch = cells.voxels, spacing_mm(cells.world_from_voxel)
    dense = hu > -350
    at = [
        int(np.average(np.arange(n), weights=_share(dense, axis)))
        for axis, n in enumerate(hu.shape)
    ]
    z, y, x = at
    world = cells.world_from_voxel @ np.array([z, y, x, 1.0])
    upside = hu[::-1]  # head on top
    return tuple(
        Plane(kind=kind, down=down, across=across, hu=cut, pixel_mm=pixel, at_mm=float(world[row]))
        for kind, down, across, cut, pixel, row in (
            ("axial", "P", "L", hu[z], (pitch.y, pitch.x), 2),
            ("coronal", "I", "L", upside[:, y], (pitch.z, pitch.x), 1),
            ("sagittal", "I", "P", upside[:, :, x], (pitch.z, pitch.y), 0),
        )
    )


def _share(dense: NDArray[np.bool_], axis: int) -> NDArray[np.float64]:
    """How much of each plane across an axis is dense; never all zero."""
    others = tuple(a for a in range(3) if a != axis)
    return np.asarray(dense.mean(axis=others, dtype=np.float64) + 1e-6)


def _histogram(sample: NDArray[Any]) -> tuple[int, ...]:
    """Voxels looked at in bins of 16 HU; both ends take what lies beyond."""
    held = np.clip(sample, HISTOGRAM_HU[0], HISTOGRAM_HU[1] - 1)
    counts, _ = np.histogram(held[np.isfinite(held)], bins=HISTOGRAM_BINS, range=HISTOGRAM_HU)
    return tuple(int(n) for n in counts)


def _fingerprint(cells: Volume) -> bytes:
    """Means of 8 x 8 x 8 boxes that share the volume, without their mean, of length 1."""
    hu = np.clip(cells.voxels, -1000, 200).astype(np.float64)
    for axis, n in enumerate(hu.shape):
        edges = np.linspace(0, n, FINGERPRINT + 1)
        low = np.minimum(np.arange(n)[None] + 1, edges[1:, None])
        weights = np.clip(low - np.maximum(np.arange(n)[None], edges[:-1, None]), 0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        hu = np.moveaxis(np.tensordot(weights, hu, axes=(1, axis)), 0, axis)
    hu -= hu.mean()
    length = float(np.linalg.norm(hu))
    return (hu / length if length else hu).astype(np.float16).tobytes()
