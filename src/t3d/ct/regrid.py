"""From a file to the grid a model eats, in one pass over the slices.

    out[z, y, x] = sum_kji Wz[z, k] Wy[y, j] Wx[x, i] HU[k, j, i]

The matrices are banded (`weights.py`), so slices are read a few at a time, clipped to the stored
range, mixed along the slowest axis and finished plane by plane: memory holds a few slices and
the output. Values are clipped before filtering, so that padding such as -8192 cannot bleed in.

Source: our algorithm (docs/concepts/space-and-units.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.door import open_scan
from t3d.ct.geometry import (
    SAME_GRID_MM,
    Matrix,
    Orientation,
    file_view,
    output_matrix,
    same_grid,
    spacing_mm,
)
from t3d.ct.guard import RefusedGrid, check_extent, check_values
from t3d.ct.intensity import INT16_HU
from t3d.ct.limits import MAX_VOXELS
from t3d.ct.nifti import open_nifti, read_label
from t3d.ct.slices import HeldSlices, Slices, is_upright, oriented_grid, read_whole
from t3d.ct.weights import AxisPlan, check_preparation, plan_axis
from t3d.errors import GeometryError
from t3d.types import HeaderOverride, Preparation, Volume, Zyx

Float32 = NDArray[np.float32]
_ROW_BLOCKS = 16  # measured: 4 and 32 blocks are slower
_SLAB_VOX = 1 << 20  # 4 slices of 512 x 512: 8 are no faster and take 14 MB more
# glibc gives freed slabs back to the system and fetches them again page by page, until it has
# once freed a block larger than they are. Measured: a third less CPU time where no axis shrinks.
_KEPT_BYTES = 16 << 20
_BLOCKED_FROM = 128  # below, one plain product is faster than blocks


@dataclass(frozen=True, slots=True)
class Plan:
    """One preparation worked out for one input grid."""

    axes: tuple[AxisPlan, AxisPlan, AxisPlan]  # z, y, x
    shape: tuple[int, int, int]  # of the output, (Z, Y, X)
    world_from_voxel: Matrix  # of the output
    note: str  # for `Volume.steps`

    @property
    def inner(self) -> tuple[slice, slice, slice]:
        """The part of the output that is not padding."""
        z, y, x = (slice(a.pad_before, a.pad_before + len(a.weights)) for a in self.axes)
        return z, y, x


def plan_grid(
    shape: tuple[int, int, int], world_from_voxel: Matrix, preparation: Preparation
) -> Plan:
    """Work out matrices and output geometry.

    Args:
        shape: (Z, Y, X) of the input.
        world_from_voxel: Of the input, axes to S, P, L.
        preparation: The target.

    Raises:
        GeometryError: The preparation cannot be carried out on this grid.
    """
    check_preparation(preparation)
    pitch = spacing_mm(world_from_voxel)
    monai = preparation.filter == "monai"
    z, y, x = (
        plan_axis(shape[a], pitch[a], preparation, a, reverse=monai and a > 0) for a in range(3)
    )
    size = (z.size, y.size, x.size)
    if int(np.prod(np.array(size, dtype=np.int64))) > MAX_VOXELS:
        raise GeometryError(
            f"preparation {preparation.name!r} would make {size} voxels",
            expected=f"at most {MAX_VOXELS}",
            fix="choose a larger spacing or a size",
        )
    low, high = preparation.store_clip_hu
    return Plan(
        axes=(z, y, x),
        shape=size,
        world_from_voxel=output_matrix(
            world_from_voxel,
            Zyx(z=z.scale, y=y.scale, x=x.scale),
            Zyx(z=z.offset, y=y.offset, x=x.offset),
        ),
        note=(
            f"clip {low}..{high} HU, {preparation.filter} {preparation.fit} "
            f"{z.note} {y.note} {x.note} (z y x)"
        ),
    )


def regrid(
    source: str | Path | Slices | Volume,
    preparation: Preparation,
    *,
    override: HeaderOverride | None = None,
    check: bool = False,
) -> Volume:
    """Put a CT on the grid of a preparation without moving the anatomy.

    Args:
        source: A path (streamed), an opened scan, or a Volume.
        preparation: Spacing, size, fit, filter and stored range.
        override: What a table says where the file's header lies; for paths only.
        check: Also refuse grids and values that are not those of a CT (`ct/guard.py`).

    Returns:
        int16 HU, axes (z, y, x) to S, P, L, rounded once; its own `world_from_voxel`; padding
        is the lower stored limit.

    Raises:
        RefusedFile, RefusedGrid: The file cannot be read as a CT, or a check failed.
        GeometryError: The preparation cannot be carried out on this grid.

    Source:
        Filter `area` as default: our measurement of noise and aliasing. `monai`: MONAI 1.6
        Spacing then Resize, reproduced; `ctclip`: CT-CLIP's scripts/data_inference_nii.py.
    """
    check_preparation(preparation)
    if isinstance(source, str | Path):
        with open_scan((Path(source),), override=override) as file:
            return regrid(file, preparation, check=check)
    if isinstance(source, Volume):
        slices: Slices = HeldSlices(source)
    elif is_upright(source):
        slices = source
    else:
        return _turned(source, preparation, check=check)
    shape, matrix = oriented_grid(slices)
    if check:
        check_extent(shape, spacing_mm(matrix), what=slices.name)
    plan = plan_grid(shape, matrix, preparation)
    sampler = _Sampler(slices) if check else None
    voxels = np.empty(plan.shape, dtype=np.int16)
    stream(slices, plan, preparation.store_clip_hu, into=voxels, sampler=sampler)
    if sampler is not None:
        check_values(sampler.values(), what=slices.name)
    return Volume(
        volume_id=slices.name,
        voxels=voxels,
        world_from_voxel=plan.world_from_voxel,
        steps=(*slices.steps, plan.note),
    )


def _turned(slices: Slices, preparation: Preparation, *, check: bool) -> Volume:
    """Turn a tilted scan upright first; judged as stored, since turning adds a border of air."""
    shape, matrix = oriented_grid(slices)
    if not check:
        return regrid(read_whole(slices), preparation)
    check_extent(shape, spacing_mm(matrix), what=slices.name)
    sampler = _Sampler(slices)
    whole = read_whole(slices, look=sampler.look)
    check_values(sampler.values(), what=slices.name)
    return regrid(whole, preparation)


class _Sampler:
    """Collects a coarse subsample of the input while it streams by."""

    def __init__(self, slices: Slices) -> None:
        self._stride = max(1, min(8, min(slices.shape_kji) // 16))
        self._rescale = slices.rescale
        self._kept: list[Float32] = []

    def look(self, first: int, stored: NDArray[Any]) -> None:
        """Keep every n-th voxel of a slab (S, J, I) of stored values, as far out as int16 goes."""
        step = self._stride
        some = stored[(-first) % step :: step, ::step, ::step].copy()
        self._kept.append(self._rescale.float32(some, INT16_HU).ravel())

    def values(self) -> Float32:
        """Everything kept, HU."""
        return np.concatenate(self._kept)


def stream(
    slices: Slices,
    plan: Plan,
    clip_hu: tuple[int, int],
    *,
    into: NDArray[Any],
    sampler: _Sampler | None = None,
) -> None:
    """Run all slices through the three matrices of a plan, once.

    Args:
        slices: Upright, not read yet.
        plan: Made for their grid.
        clip_hu: Applied to the input; padding is the lower limit.
        into: Filled, shape `plan.shape`: int16 gets values rounded once (half to even),
            float32 gets them as they are, for comparison with other libraries.
        sampler: Looks at the input as it passes.
    """
    np.empty(_KEPT_BYTES, dtype=np.uint8)  # freed at once, never touched
    inner = into[plan.inner]
    if inner.shape != into.shape:
        into.fill(clip_hu[0])
    target = file_view(inner, slices.orientation)
    mix_k, mix_j, mix_i = (_file_weights(plan, slices.orientation, axis) for axis in range(3))
    along = _Along(mix_k, _InPlane(mix_j, mix_i), target)
    plane_vox = slices.shape_kji[1] * slices.shape_kji[2]
    # Where few slices count, more are read at a time: products of one row are slow.
    slab_size = max(4, int(_SLAB_VOX / plane_vox / max(along.used_share, 0.5)))
    for first, stored in slices.slabs(slab_size):
        if sampler is not None:
            sampler.look(first, stored)
        needed = along.needed(first, len(stored))
        if len(needed) < len(stored):  # linear to 4 mm uses one slice of four
            stored = stored[needed - first]
        if len(needed):
            along.take(needed, slices.rescale.float32(stored, clip_hu))


def _file_weights(plan: Plan, orientation: Orientation, file_axis: int) -> Float32 | None:
    """Give the matrix of one file axis (0 = slowest); None where nothing is to be done."""
    zyx = orientation.axes.index(file_axis)
    if plan.axes[zyx].identity:
        return None
    weights = plan.axes[zyx].weights
    # `target` is already viewed in file order: flip rows and columns alike.
    return np.ascontiguousarray(weights[::-1, ::-1]) if orientation.flips[zyx] else weights


class _InPlane:
    """The two faster axes: y before x."""

    def __init__(self, rows: Float32 | None, columns: Float32 | None) -> None:
        self._mixes = [
            _Mix(weights, across=across)
            for weights, across in ((rows, False), (columns, True))
            if weights is not None
        ]

    @property
    def identity(self) -> bool:
        """Whether planes pass unchanged."""
        return not self._mixes

    def __call__(self, plane: Float32) -> Float32:
        """Mix one plane (J, I)."""
        for mix in self._mixes:
            plane = mix(plane)
        return plane


class _Mix:
    """One matrix for the rows or columns of planes, in blocks that each see only their band."""

    def __init__(self, weights: Float32, *, across: bool) -> None:
        self._across = across  # mixes columns instead of rows
        self._size = len(weights)
        self._whole = _whole_ratio(weights)
        self._blocks = [] if self._whole else _bands(weights)
        if across:
            self._blocks = [(o, i, np.ascontiguousarray(w.T)) for o, i, w in self._blocks]

    def __call__(self, plane: Float32) -> Float32:
        """Mix one plane (J, I)."""
        if self._whole:
            return self._mean(plane)
        rows, columns = plane.shape
        if self._across:
            mixed = np.empty((rows, self._size), dtype=np.float32)
            for out, inp, weights in self._blocks:
                np.matmul(plane[:, inp], weights, out=mixed[:, out])
        else:
            mixed = np.empty((self._size, columns), dtype=np.float32)
            for out, inp, weights in self._blocks:
                np.matmul(weights, plane[inp], out=mixed[out])
        return mixed

    def _mean(self, plane: Float32) -> Float32:
        """Average neighbours: a fifth of the time of the product (512 to 256 is common)."""
        r = self._whole
        taps = [plane[:, k::r] if self._across else plane[k::r] for k in range(r)]
        mixed = taps[0].copy()
        for tap in taps[1:]:
            mixed += tap
        mixed *= np.float32(1.0 / r)
        return mixed


def _whole_ratio(weights: Float32) -> int:
    """Give r where each output is the mean of its own r inputs (512 to 256), else 0."""
    m, n = weights.shape
    mean = n % m == 0 and np.array_equal(
        weights, np.repeat(np.eye(m, dtype=np.float32), n // m, axis=1) / np.float32(n // m)
    )
    return n // m if mean else 0


def _bands(weights: Float32) -> list[tuple[slice, slice, Float32]]:
    """Cut a banded matrix (m, n) into row blocks with the columns each needs."""
    m, n = weights.shape
    blocks = _ROW_BLOCKS if max(m, n) >= _BLOCKED_FROM else 1
    edges = np.linspace(0, m, min(blocks, m) + 1).astype(int)
    out = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        used = np.flatnonzero(weights[low:high].any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        block = np.ascontiguousarray(weights[low:high, first:last])
        out.append((slice(low, high), slice(first, last), block))
    return out


class _Along:
    """The slowest axis: accumulates output planes while slices arrive, finishes each once."""

    def __init__(self, mix: Float32 | None, in_plane: _InPlane, target: NDArray[Any]) -> None:
        self._mix = mix
        self._in_plane = in_plane
        self._target = target  # (M, J', I') view of the output in file order
        self._pending: dict[int, Float32] = {}
        self._planes_first = False
        self.used_share = 1.0
        if mix is not None:
            nonzero = mix != 0
            self._used = nonzero.any(axis=0)
            self.used_share = float(self._used.mean())
            self._first = nonzero.argmax(axis=1)
            self._last = mix.shape[1] - 1 - nonzero[:, ::-1].argmax(axis=1)
            self._planes_first = mix.shape[0] > mix.shape[1]

    def needed(self, first: int, count: int) -> NDArray[np.intp]:
        """Which of the slices first .. first + count - 1 have any weight."""
        if self._mix is None:
            return np.arange(first, first + count)
        return first + np.flatnonzero(self._used[first : first + count])

    def take(self, which: NDArray[np.intp], slab: Float32) -> None:
        """Take some slices in file order, a slab (S, J, I) in float32 HU."""
        if self._mix is None:
            self._pass_on(int(which[0]), slab)
            return
        if self._planes_first and not self._in_plane.identity:
            slab = np.stack([self._in_plane(plane) for plane in slab])
        low, high = int(which[0]), int(which[-1])
        active = np.flatnonzero((self._first <= high) & (self._last >= low))
        flat = slab.reshape(len(slab), -1)
        # Few slices feed one output plane: products of a few rows keep memory small.
        for some in np.array_split(active, max(1, len(active) // 8)):
            sums = self._mix[np.ix_(some, which)] @ flat
            for j, part in zip(some.tolist(), sums, strict=True):
                self._add(j, part.reshape(slab.shape[1:]), finished=bool(self._last[j] <= high))

    def _pass_on(self, first: int, slab: Float32) -> None:
        """Nothing to mix along this axis."""
        if self._in_plane.identity:
            self._store(slice(first, first + len(slab)), slab)
            return
        for k, plane in enumerate(slab, start=first):
            self._store(k, self._in_plane(plane))

    def _add(self, j: int, part: Float32, *, finished: bool) -> None:
        """Add to output plane j; when its last slice has passed, round and store it."""
        held = self._pending.pop(j, None)
        if held is not None:
            held += part
            part = held
        if not finished:
            self._pending[j] = part.copy() if held is None else part
            return
        if not self._planes_first:
            part = self._in_plane(part)
        self._store(j, part)

    def _store(self, where: int | slice, values: Float32) -> None:
        """Write finished planes, rounded where the target holds whole numbers."""
        if self._target.dtype.kind == "i":
            np.rint(values, out=values)
        self._target[where] = values


def regrid_label(
    source: str | Path | Volume,
    preparation: Preparation,
    *,
    like: Slices | Volume | None = None,
) -> NDArray[np.uint8]:
    """Put a label map on the grid that `regrid` gives the CT: nearest, same source positions.

    Args:
        source: A NIfTI path, or a Volume whose voxels are labels.
        preparation: As for the CT.
        like: The CT it belongs to (open file, or Volume at its own grid); both grids must agree.

    Returns:
        uint8 labels (Z, Y, X); padding is 0.

    Raises:
        RefusedFile, RefusedGrid: Not readable, not labels, or on another grid than `like`.
    """
    if isinstance(source, Volume):
        name = source.volume_id
        labels, matrix = source.voxels.astype(np.uint8), source.world_from_voxel
    else:
        if like is not None and not isinstance(like, Volume):
            _check_same_file_grid(source, like)
        name = Path(source).name
        labels, matrix = read_label(source)
    if isinstance(like, Volume) and not (
        like.voxels.shape == labels.shape and same_grid(matrix, like.world_from_voxel, labels.shape)
    ):
        raise _other_grid(name, labels.shape, like.voxels.shape)
    z, y, x = labels.shape
    plan = plan_grid((z, y, x), matrix, preparation)
    out = np.zeros(plan.shape, dtype=np.uint8)
    nearest = [
        np.floor(a.source + 0.5).astype(int).clip(0, n - 1)
        for a, n in zip(plan.axes, labels.shape, strict=True)
    ]
    out[plan.inner] = labels[np.ix_(*nearest)]
    return out


def _check_same_file_grid(path: str | Path, like: Slices) -> None:
    """Compare two headers before any voxel is read."""
    with open_nifti(path, labels=True) as file:
        if file.shape_kji != like.shape_kji or not same_grid(
            file.world_from_file, like.world_from_file, file.shape_kji
        ):
            raise _other_grid(file.name, file.shape_kji, like.shape_kji)


def _other_grid(name: str, found: Sequence[int], expected: Sequence[int]) -> RefusedGrid:
    """The error for a mask of another scan."""
    return RefusedGrid(
        f"{name}: label map {tuple(found)} lies on another grid than its CT {tuple(expected)}",
        expected=f"the same shape, and corners within {SAME_GRID_MM} mm",
        fix="resample the label map to the CT with nearest neighbours, or leave it out",
    )
