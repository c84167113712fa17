"""One banded matrix per axis: resampling, cropping and padding as plain linear algebra.

Legend: n input voxels, m output voxels, r = n / m or t / s = input voxels per output voxel.
Voxel centres sit at integers. Every chain of steps on one axis multiplies to one matrix, so a
volume is filtered once, however many steps a paper took.

Source: ours; checked in the tests against plain loops, MONAI, torch, SimpleITK and scipy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t3d.ct.intensity import INT16_HU
from t3d.ct.limits import MAX_AXIS_VOX
from t3d.errors import GeometryError
from t3d.types import Preparation

FILTERS = ("area", "linear", "triangle", "monai", "ctclip")
FITS = ("resize", "pad_crop")
# NIfTI keeps affines in float32: 500 voxels of 0.6 mm may come out as 399.99998 of 0.75 mm.
_ALMOST_WHOLE_VOX = 1e-4


@dataclass(frozen=True, slots=True)
class AxisPlan:
    """How one axis is resampled: `out = weights @ inp`, then padded with air on both sides."""

    weights: NDArray[np.float32]  # (m, n), rows sum to 1
    scale: float  # output index j of the padded axis sits at input index scale * j + offset
    offset: float
    size: int  # output voxels, padding included
    pad_before: int
    source: NDArray[np.float64]  # (m,) input position of each output, clamped to the input
    note: str  # what was done, for `Volume.steps`

    @property
    def identity(self) -> bool:
        """Whether nothing is mixed: output voxel j is input voxel j."""
        m, n = self.weights.shape
        return m == n and bool(np.array_equal(self.weights, np.eye(n, dtype=np.float32)))


@dataclass(frozen=True, slots=True)
class _Step:
    """A matrix and the affine of its grid, before it is narrowed to float32."""

    weights: NDArray[np.float64]  # (m, n)
    scale: float
    offset: float

    def after(self, first: _Step) -> _Step:
        """Chain: `first`, then this one."""
        return _Step(
            self.weights @ first.weights,
            first.scale * self.scale,
            first.offset + first.scale * self.offset,
        )


def linear_weights(source: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Weights of linear interpolation at given positions, clamped to the border.

    Formula: i = floor(s), f = s - i: weight 1 - f on voxel i, f on voxel i + 1.
    Check: n 4, position 1.25 -> [0, 0.75, 0.25, 0].
    """
    clamped = np.clip(source, 0.0, n - 1.0)
    left = np.minimum(np.floor(clamped).astype(int), n - 1)
    right = np.minimum(left + 1, n - 1)
    part = clamped - left
    weights = np.zeros((len(source), n))
    rows = np.arange(len(source))
    np.add.at(weights, (rows, left), 1.0 - part)
    np.add.at(weights, (rows, right), part)
    return weights


def area_weights(n: int, m: int, r: float) -> NDArray[np.float64]:
    """Weights of the mean over the length that an output voxel covers.

    Formula: w_jk = |[j r, (j+1) r] with [k, k+1]|, rows normalised to 1; r <= 1: linear half.
    Check: n 3, m 2, r 1.5 -> [[2/3, 1/3, 0], [0, 1/3, 2/3]].
    """
    if r <= 1.0:
        return linear_weights(half_source(m, r), n)
    low = np.arange(m)[:, None] * r
    edges = np.arange(n)[None, :]
    weights = np.clip(np.minimum(low + r, edges + 1) - np.maximum(low, edges), 0.0, None)
    total = weights.sum(axis=1, keepdims=True)
    # A last voxel may lie wholly beyond the input (rounded sizes): it repeats the border.
    empty = total[:, 0] <= 0
    weights[empty, n - 1] = 1.0
    total[empty] = 1.0
    return np.asarray(weights / total, dtype=np.float64)


def triangle_weights(n: int, m: int, r: float) -> NDArray[np.float64]:
    """Weights of a triangle that grows with the output voxel: the smoothest filter here.

    Formula: w_jk = max(0, 1 - |k - s_j| / max(r, 1)), s_j = (j + 0.5) r - 0.5, rows normalised
    to 1; r <= 1: linear half.
    Check: n 4, m 2, r 2 -> [[3, 3, 1, 0], [0, 1, 3, 3]] / 7.
    Source: as torch's `interpolate(antialias=True)` and Pillow's BILINEAR.
    """
    apart = np.abs(np.arange(n)[None, :] - half_source(m, r)[:, None])
    weights = np.clip(1.0 - apart / max(r, 1.0), 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def half_source(m: int, r: float) -> NDArray[np.float64]:
    """Positions (j + 0.5) r - 0.5: the outer edges of both grids agree."""
    return np.asarray((np.arange(m) + 0.5) * r - 0.5, dtype=np.float64)


def _half(n: int, m: int, r: float, kind: str) -> _Step:
    """Resample with agreeing outer edges."""
    if kind == "area":
        weights = area_weights(n, m, r)
    elif kind == "triangle":
        weights = triangle_weights(n, m, r)
    else:
        weights = linear_weights(half_source(m, r), n)
    return _Step(weights, r, (r - 1.0) / 2.0)


def _corner(n: int, r: float) -> _Step:
    """Resample with agreeing first voxel centres: MONAI's Spacing."""
    m = _bounded(np.round((n - 1) / r + 1))  # halves to even after adding 1, as MONAI does
    source = np.asarray(np.arange(m) * r, dtype=np.float64)
    return _Step(linear_weights(source, n), r, 0.0)


def _to_spacing(n: int, r: float, kind: str) -> _Step:
    """Resample to a pitch r times the input's; how many voxels that makes is the filter's rule."""
    if kind == "monai":
        return _corner(n, r)
    if kind == "ctclip":  # the size is cut off, and the voxels are stretched to fill it
        m = _bounded(n / r + _ALMOST_WHOLE_VOX)
        return _half(n, m, n / m, kind)
    return _half(n, _bounded(np.round(n / r)), r, kind)


def _bounded(size: float) -> int:
    """Check a size before a matrix of it is made."""
    m = max(1, int(size))
    if m > MAX_AXIS_VOX:
        raise GeometryError(
            f"an axis would get {m} voxels",
            expected=f"at most {MAX_AXIS_VOX}",
            fix="choose a larger spacing",
        )
    return m


def plan_axis(
    n: int, spacing_mm: float, preparation: Preparation, axis: int, *, reverse: bool
) -> AxisPlan:
    """Plan one axis of a preparation.

    First to the spacing (if one is asked for), then to the size (if one is asked for) by
    `resize` or by centre crop and padding.

    Args:
        n: Input voxels.
        spacing_mm: Input pitch.
        preparation: Target, filter and fit.
        axis: 0, 1, 2 for z, y, x.
        reverse: Plan on the reversed axis and turn the plan round. MONAI's rule depends on the
            direction of storage and MONAI works in RAS: y and x run the other way there.

    Returns:
        The plan in the axis's own direction.

    Raises:
        GeometryError: The axis would become too long.
    """
    step = _resampled(n, spacing_mm, preparation, axis)
    m = len(step.weights)
    size, pad_before, start = m, 0, 0
    if preparation.size_vox is not None:
        size = preparation.size_vox[axis]  # what `resize` gave already
        pad_before = max(0, (size - m) // 2)
        start = _crop_start(m, size, monai=preparation.filter == "monai")
    kept = step.weights[start : start + size]
    plan = AxisPlan(
        weights=kept.astype(np.float32),
        scale=step.scale,
        offset=step.offset + step.scale * (start - pad_before),
        size=size,
        pad_before=pad_before,
        source=np.clip(step.scale * (np.arange(len(kept)) + start) + step.offset, 0.0, n - 1.0),
        note=f"{n}->{size}",
    )
    return _turned(plan, n) if reverse else plan


def _resampled(n: int, spacing_mm: float, preparation: Preparation, axis: int) -> _Step:
    """All resampling of one axis in one step: to the spacing, then to the size."""
    kind, size = preparation.filter, preparation.size_vox
    step: _Step | None = None
    if preparation.spacing_mm is not None:
        step = _to_spacing(n, preparation.spacing_mm[axis] / spacing_mm, kind)
    m = n if step is None else len(step.weights)
    if size is not None and preparation.fit == "resize" and size[axis] != m:
        last = _half(m, size[axis], m / size[axis], kind)
        step = last if step is None else last.after(step)
    return _Step(np.eye(n), 1.0, 0.0) if step is None else step


def _crop_start(m: int, size: int, *, monai: bool) -> int:
    """First voxel kept by a centre crop; the libraries differ where one voxel is left over."""
    return max(0, m // 2 - size // 2 if monai else (m - size) // 2)


def _turned(plan: AxisPlan, n: int) -> AxisPlan:
    """Turn a plan made on the reversed axis round: both its ends are counted from the other."""
    kept = len(plan.weights)
    return AxisPlan(
        weights=np.ascontiguousarray(plan.weights[::-1, ::-1]),
        scale=plan.scale,
        offset=n - 1 - plan.offset - plan.scale * (plan.size - 1),
        size=plan.size,
        pad_before=plan.size - kept - plan.pad_before,
        source=(n - 1 - plan.source)[::-1],
        note=plan.note,
    )


def check_preparation(preparation: Preparation) -> None:
    """Refuse a preparation that cannot be carried out; all problems at once.

    Raises:
        GeometryError: Unknown filter or fit, a size or spacing that is not positive, or limits
            outside int16.
    """
    low, high = preparation.store_clip_hu
    lowest, highest = INT16_HU
    spacing, size = preparation.spacing_mm, preparation.size_vox
    problems = [
        text
        for wrong, text in (
            (preparation.filter not in FILTERS, f"filter {preparation.filter!r}: not {FILTERS}"),
            (preparation.fit not in FITS, f"fit {preparation.fit!r}: not {FITS}"),
            (
                spacing is not None and not all(np.isfinite(s) and s > 0 for s in spacing),
                f"spacing_mm {spacing}: not positive",
            ),
            (
                size is not None and not all(1 <= n <= MAX_AXIS_VOX for n in size),
                f"size_vox {size}: not within 1 to {MAX_AXIS_VOX}",
            ),
            (not lowest <= low < high <= highest, f"store_clip_hu {low}, {high}: not within int16"),
            (not preparation.name, "name: empty"),
        )
        if wrong
    ]
    if problems:
        raise GeometryError(
            f"preparation {preparation.name!r}: " + "; ".join(problems),
            expected="a known filter and fit, positive sizes, limits in HU",
            fix="correct the fields named above",
        )
