"""Frames to a stack: order, pitch and place in space, and everything uneven in mm.

Slices are sorted by their place along the normal of the image plane; file names, instance numbers,
SliceLocation, SliceThickness and SpacingBetweenSlices are not asked. A gap is never averaged away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t3d.ct.dicom.headers import Frame
from t3d.ct.dicom.listing import DicomSeries, directions
from t3d.ct.dicom.planes import plane_hu, with_pixels
from t3d.ct.geometry import Matrix, check_matrix
from t3d.ct.guard import RefusedGrid
from t3d.ct.limits import MAX_BRIDGED_MM, MAX_VOXELS, MIN_SPACING_MM

# A slice may lie off the even grid by 0.01 mm (positions are written with two or more decimals)
# plus 1 % of the pitch: linear interpolation then errs by 1 % of the difference between
# neighbouring slices, under the noise of any CT. A missing slice is off by half a pitch or more.
TOLERANCE_MM = 0.01
TOLERANCE_OF_PITCH = 0.01
SHEAR_DEGREES = 0.1  # below it, a shear is the rounding of positions
GAP_POLICIES = ("refuse", "interpolate")
_GAPS = ("missing", "uneven")
_OFF_GRID = (*_GAPS, "wander")
_SEVERAL = 4  # gap sizes named in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about a stack that is not plain."""

    code: str  # "duplicate", "missing", "uneven", "tilt", "drift", "wander"
    mm: float  # its size: a gap, a shift, a length over the whole stack
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Slices in order, from low to high along the normal, and where they lie."""

    frames: tuple[Frame, ...]  # one per position
    offsets_mm: tuple[float, ...]  # of the frames along the normal, the first is 0
    num_slices: int  # of the even grid; more than frames where gaps are interpolated
    pitch_mm: float  # of the even grid, along the normal
    world_from_file: NDArray[np.float64]  # (4, 4): (k, j, i, 1) -> (L, P, S, 1) mm
    findings: tuple[Finding, ...]
    steps: tuple[str, ...]

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.num_slices, self.frames[0].rows, self.frames[0].columns

    @property
    def interpolated(self) -> bool:
        """Say whether slices are made between the frames."""
        return any(finding.code in _GAPS for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Frames of one geometry by position, before any policy."""

    slices: tuple[tuple[Frame, ...], ...]  # by place along the normal; several = same position
    offsets_mm: NDArray[np.float64]  # (n,) along the normal, the first is 0
    findings: tuple[Finding, ...]

    @property
    def is_even(self) -> bool:
        """Say whether one pitch fits all slices."""
        return not any(f.code in _OFF_GRID for f in self.findings)

    @property
    def pitch_mm(self) -> float:
        """Mean pitch along the normal; 0 for one position."""
        count = len(self.offsets_mm)
        return float(self.offsets_mm[-1]) / (count - 1) if count > 1 else 0.0


def lay_out(frames: Sequence[Frame]) -> Layout:
    """Sort frames along their normal and say what is uneven; pixels are not read.

    Args:
        frames: At least one, of one orientation, all with a position and without a problem.
    """
    row, column = directions(frames[0])
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    places = np.array([frame.position_mm for frame in frames], dtype=np.float64)
    offsets = places @ normal
    order = np.argsort(offsets, kind="stable")
    offsets, places = offsets[order], places[order]
    starts = [0]
    for i in range(1, len(order)):
        if offsets[i] - offsets[starts[-1]] > TOLERANCE_MM:
            starts.append(i)
    ends = [*starts[1:], len(order)]
    slices = tuple(
        tuple(frames[order[i]] for i in range(a, b)) for a, b in zip(starts, ends, strict=True)
    )
    kept = offsets[starts] - offsets[0]
    findings = (
        *_repeats(slices),
        *_unevenness(kept),
        *_shear(places[starts], kept, normal, frames[0]),
    )
    return Layout(slices=slices, offsets_mm=kept, findings=findings)


def stack(
    series: DicomSeries,
    *,
    gaps: str = "refuse",
    name: str = "",
) -> Stack:
    """Make one even stack of a series, or refuse it with the figures.

    Files at one position are one slice where their HU are equal; otherwise the series is refused.
    Slices off the even grid are refused, or with `gaps="interpolate"` resampled linearly along
    the stack to its finest pitch. Tilt and sideways drift become shear in the matrix.

    Args:
        series: Of one geometry, from `list_series`.
        gaps: "refuse" or "interpolate".
        name: Pseudonymous id for messages; "" = the series' label.

    Raises:
        RefusedGrid: `mixed_series`, `bad_affine`, `hu_implausible` (the series' damage),
            `too_small` (one slice), `duplicate_slices`, `uneven_slices`.
        RefusedFile: A plane at a repeated position cannot be read.

    Source:
        DICOM PS3.3 C.7.6.2.1.1. Tolerances and policy: our choice.
    """
    what = name or series.label
    if gaps not in GAP_POLICIES:
        raise RefusedGrid(
            f"{what}: gaps={gaps!r}", expected=" or ".join(GAP_POLICIES), fix="choose one of them"
        )
    if series.damage:
        raise RefusedGrid(
            f"{what}: {series.damage}",
            expected="every slice with its place, size and rescale to HU, of one geometry",
            fix="export the series again",
            reason=series.damage_reason,
        )
    layout = lay_out(series.frames)
    frames = tuple(_one_of(same, what) for same in layout.slices)
    if len(frames) < 2:
        raise RefusedGrid(
            f"{what}: {len(series.frames)} slice(s) at one position (gap 0.00 mm)",
            expected="at least two positions",
            fix="leave this series out",
            reason="too_small",
        )
    count, pitch = _even_grid(layout, gaps, what)
    matrix = _matrix(frames, count)
    check_matrix(matrix, what=what)
    return Stack(
        frames=frames,
        offsets_mm=tuple(float(v) for v in layout.offsets_mm),
        num_slices=count,
        pitch_mm=pitch,
        world_from_file=matrix,
        findings=layout.findings,
        steps=_steps(layout, frames, count, pitch),
    )


def _repeats(slices: Sequence[Sequence[Frame]]) -> list[Finding]:
    """Name positions that hold more than one frame."""
    extra = sum(len(same) - 1 for same in slices)
    if not extra:
        return []
    places = sum(len(same) > 1 for same in slices)
    text = f"{extra} more slice(s) at {places} position(s) already taken"
    return [Finding(code="duplicate", mm=0.0, text=text)]


def _unevenness(offsets: NDArray[np.float64]) -> list[Finding]:
    """Compare the slices' places with an even grid from the first to the last."""
    if len(offsets) < 3:
        return []
    pitch = offsets[-1] / (len(offsets) - 1)
    off = np.abs(offsets - pitch * np.arange(len(offsets)))
    if off.max() <= TOLERANCE_MM + TOLERANCE_OF_PITCH * pitch:
        return []
    gaps = np.diff(offsets)
    usual = float(np.median(gaps))
    widest = int(np.argmax(gaps))
    whole = np.rint(gaps / usual)
    close = np.abs(gaps - whole * usual) <= TOLERANCE_MM + TOLERANCE_OF_PITCH * usual * whole
    text = f"slice gaps are uneven: {_gap_sizes(gaps)}"
    missing = int(whole.sum()) - len(gaps)
    if close.all() and whole.min() >= 1 and missing:
        return [Finding(code="missing", mm=float(gaps[widest]), text=f"{text}, {missing} missing")]
    return [Finding(code="uneven", mm=float(gaps[widest]), text=text)]


def _gap_sizes(gaps: NDArray[np.float64]) -> str:
    """Count gaps by size: "118 x 1.50 mm, 1 x 3.00 mm (after slice 57)"."""
    order = np.argsort(gaps, kind="stable")
    groups: list[list[int]] = [[int(order[0])]]
    for index in order[1:]:
        size = gaps[groups[-1][0]]
        if gaps[index] - size <= TOLERANCE_MM + TOLERANCE_OF_PITCH * size:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    groups.sort(key=lambda group: (-len(group), gaps[group[0]]))
    told = []
    for group in groups[:_SEVERAL]:
        where = f" (after slice {group[0] + 1})" if len(group) == 1 else ""
        told.append(f"{len(group)} x {float(np.mean(gaps[group])):.2f} mm{where}")
    more = len(groups) - _SEVERAL
    return ", ".join(told) + (f" and {more} other sizes" if more > 0 else "")


def _shear(
    places: NDArray[np.float64],
    offsets: NDArray[np.float64],
    normal: NDArray[np.float64],
    frame: Frame,
) -> list[Finding]:
    """Find slices that do not lie straight above each other."""
    if len(places) < 2:
        return []
    along = (places[-1] - places[0]) / offsets[-1]
    wander = places - places[0] - np.outer(offsets, along)
    worst = float(np.linalg.norm(wander - np.outer(wander @ normal, normal), axis=1).max())
    pixel = min(frame.pixel_spacing_mm or (1.0, 1.0))
    if worst > TOLERANCE_MM + TOLERANCE_OF_PITCH * pixel:
        text = f"slices lie up to {worst:.2f} mm beside the line from the first to the last"
        return [Finding(code="wander", mm=worst, text=text)]
    sideways = along - normal
    degrees = float(np.degrees(np.arctan(np.linalg.norm(sideways))))
    if degrees < SHEAR_DEGREES:
        return []
    mm = float(np.linalg.norm(sideways) * offsets[-1])
    # A gantry leans while the table moves straight; otherwise the origin itself drifts.
    straight = float(np.abs(along / np.linalg.norm(along)).max()) > float(np.abs(normal).max())
    code, word = ("tilt", "gantry tilt") if straight else ("drift", "drift in the image plane")
    text = f"{word} of {degrees:.1f} degrees ({mm:.1f} mm over the stack)"
    return [Finding(code=code, mm=mm, text=text)]


def _one_of(same: Sequence[Frame], what: str) -> Frame:
    """Take one of the frames at a position; their HU must be equal. Pixels are read only here."""
    if len(same) == 1:
        return same[0]
    planes = (plane_hu(with_pixels(f, what), f, what, whole=False)[0] for f in same)
    first = next(planes)
    for plane in planes:  # one at a time: a whole examination may claim one position
        if not np.array_equal(first, plane):
            worst = float(np.abs(first.astype(np.float64) - plane.astype(np.float64)).max())
            raise RefusedGrid(
                f"{what}: {len(same)} slices at one position (gap 0.00 mm) differ by up to "
                f"{worst:.0f} HU",
                expected="one slice per position",
                fix="choose one phase or acquisition, or export the series again",
                reason="duplicate_slices",
            )
    return same[0]


def _even_grid(layout: Layout, gaps: str, what: str) -> tuple[int, float]:
    """Give number and pitch of the even slices; refuse what the policy does not allow."""
    bad = [f for f in layout.findings if f.code in _OFF_GRID]
    if not bad:
        return len(layout.offsets_mm), layout.pitch_mm
    wanders = any(f.code == "wander" for f in bad)
    if gaps == "refuse" or wanders:
        raise RefusedGrid(
            f"{what}: {'; '.join(f.text for f in bad)}",
            expected=f"one gap for the whole series (tolerance {TOLERANCE_MM} mm + "
            f"{TOLERANCE_OF_PITCH:.0%} of it); a slice is probably missing",
            fix="export the series again"
            + ("" if wanders else ", or use --gaps=interpolate (recorded in the volume's steps)"),
            reason="uneven_slices",
        )
    steps = np.diff(layout.offsets_mm)
    finest, widest = float(steps.min()), float(steps.max())
    extent = float(layout.offsets_mm[-1])
    count = int(np.ceil(extent / finest - 1e-3)) + 1
    frame = layout.slices[0][0]
    too_many = count * frame.rows * frame.columns > MAX_VOXELS
    if widest > MAX_BRIDGED_MM or finest < MIN_SPACING_MM or too_many:
        raise RefusedGrid(
            f"{what}: {bad[0].text}; finest {finest:.2f} mm, widest {widest:.2f} mm, "
            f"{count} slices if interpolated",
            expected=f"gaps from {MIN_SPACING_MM} to {MAX_BRIDGED_MM:.0f} mm and at most "
            f"{MAX_VOXELS} voxels",
            fix="export the series again",
            reason="uneven_slices",
        )
    return count, extent / (count - 1)


def _matrix(frames: Sequence[Frame], count: int) -> Matrix:
    """Put (k, j, i) in LPS mm: along the stack, along a column, along a row."""
    first, last = (np.array(f.position_mm) for f in (frames[0], frames[-1]))
    row, column = directions(frames[0])
    between_rows, between_columns = frames[0].pixel_spacing_mm or (0.0, 0.0)
    matrix = np.eye(4)
    matrix[:3, 0] = (last - first) / (count - 1)
    matrix[:3, 1] = column * between_rows
    matrix[:3, 2] = row * between_columns
    matrix[:3, 3] = first
    return matrix


def _steps(layout: Layout, frames: Sequence[Frame], count: int, pitch: float) -> tuple[str, ...]:
    """Say what was found and what was done about it, for `Volume.steps`."""
    steps = []
    for finding in layout.findings:
        if finding.code == "duplicate":
            steps.append(f"dropped {finding.text}, HU equal")
        elif finding.code in _GAPS:
            steps.append(f"{finding.text}; interpolated linearly to {count} slices, {pitch:.4g} mm")
        else:
            steps.append(f"{finding.text} kept as shear")
    return (*steps, *sorted({note for frame in frames for note in frame.notes}))
