"""One pass over a scan that keeps only what a judgement needs: cells, a sample, slice facts.

Memory holds a few slices and at most `MAX_CELLS` cells, whatever the file.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.geometry import (
    Matrix,
    Orientation,
    letters,
    oriented_matrix,
    oriented_view,
    output_matrix,
    spacing_mm,
)
from t3d.ct.intensity import Rescale
from t3d.ct.limits import MAX_CELLS
from t3d.ct.slices import HeldSlices, Slices, oriented_grid, slices_a_piece
from t3d.types import Volume, Zyx

CELL_MM = 3.0  # a cell is as many whole voxels as fit into this, at least one
SAMPLE_VOX = 1 << 18
COMPARED_HU = (-1024, 600)  # metal and padding would drown everything else


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one pass saw. World axes are those the file claims; nothing here believes them."""

    name: str
    shape: tuple[int, int, int]  # (Z, Y, X), axes to S, P, L as the file claims
    spacing_mm: Zyx[float]
    letters: str  # of the file's axes, as nibabel writes them
    tilt_degrees: float
    stacked_along: int  # the axis z, y, x (0, 1, 2) along which the file's slices follow
    cells: Volume  # block means, int16 HU, axes to S, P, L as the file claims
    flat: NDArray[np.bool_]  # (Z', Y', X') all voxels of the cell and its neighbours are equal
    sample_hu: NDArray[np.float32]  # (N,) every n-th voxel, unrounded
    stored: np.dtype[Any]  # type in the file
    range_hu: tuple[int, int]  # of all cells: lowest and highest voxel
    slice_keys: tuple[tuple[int, int], ...]  # checksum and sum, in file order
    slice_flat: NDArray[np.bool_]  # (K,) every voxel of the slice is equal
    slice_steps_hu: NDArray[np.float64]  # (K - 1,) mean change from each slice to the next
    num_nan: int
    steps: tuple[str, ...]

    @property
    def extent_mm(self) -> Zyx[float]:
        """Size of the volume, voxel edge to voxel edge."""
        return Zyx(*(n * s for n, s in zip(self.shape, self.spacing_mm, strict=True)))


def survey(source: Slices | Volume) -> Survey:
    """Look at every voxel of a scan once.

    Args:
        source: An opened scan, or a Volume.

    Returns:
        Cells of about 3 mm, a sample of the values, and facts of each slice.

    Raises:
        RefusedFile: The file ends early or is damaged.
    """
    slices = HeldSlices(source) if isinstance(source, Volume) else source
    factors = _factors(slices)
    taken = _Taken(slices.shape_kji, factors)
    per_slab = max(1, slices_a_piece(slices) // factors[0]) * factors[0]
    for first, stored in slices.slabs(per_slab):
        taken.sample(stored, slices.rescale)
        taken.look(first, slices.rescale.int16(stored))
    cells, flat = taken.finished(slices.orientation)
    shape, whole = oriented_grid(slices)
    return Survey(
        name=slices.name,
        shape=shape,
        spacing_mm=spacing_mm(whole),
        letters=letters(slices.orientation),
        tilt_degrees=slices.tilt_degrees,
        stacked_along=slices.orientation.axes.index(0),
        cells=Volume(
            volume_id=slices.name,
            voxels=cells,
            world_from_voxel=_cell_matrix(slices, factors, taken.shape),
        ),
        flat=flat,
        sample_hu=np.concatenate(taken.samples),
        stored=taken.stored,
        range_hu=taken.range_hu,
        slice_keys=tuple(taken.keys),
        slice_flat=np.array(taken.flat_slices, dtype=np.bool_),
        slice_steps_hu=np.array(taken.changes),
        num_nan=taken.num_nan,
        steps=slices.steps,
    )


def _factors(slices: Slices) -> tuple[int, int, int]:
    """How many voxels make a cell along k, j, i."""
    pitch = np.linalg.norm(slices.world_from_file[:3, :3], axis=0)
    shape = np.array(slices.shape_kji)
    factors = np.clip(np.floor(CELL_MM / pitch + 1e-6), 1, shape).astype(int)
    while int(np.prod(shape // factors)) > MAX_CELLS:
        factors[np.argmax(shape // factors)] += 1
    k, j, i = (int(f) for f in factors)
    return k, j, i


def _cell_matrix(
    slices: Slices, factors: tuple[int, int, int], shape: tuple[int, int, int]
) -> Matrix:
    """Where the cells lie: a cell's centre is the middle of its voxels."""
    k, j, i = factors
    scale = Zyx(z=float(k), y=float(j), x=float(i))
    offset = Zyx(z=(k - 1) / 2, y=(j - 1) / 2, x=(i - 1) / 2)
    of_file = output_matrix(slices.world_from_file, scale, offset)
    return oriented_matrix(of_file, shape, slices.orientation)


class _Taken:
    """What has been gathered so far, in file order (k, j, i)."""

    def __init__(self, shape: tuple[int, int, int], factors: tuple[int, int, int]) -> None:
        k, j, i = (n // f for n, f in zip(shape, factors, strict=True))
        self.shape = (k, j, i)  # a rest that fills no cell is left out of the cells
        self.samples: list[NDArray[np.float32]] = []
        self.stored: np.dtype[Any] = np.dtype(np.int16)
        self.keys: list[tuple[int, int]] = []
        self.flat_slices: list[bool] = []
        self.changes: list[float] = []
        self.num_nan = 0
        self._factors = factors
        self._last: NDArray[np.float32] | None = None  # in-plane means of the slice before
        self._step = max(1, round((int(np.prod(shape)) / SAMPLE_VOX) ** 0.5))
        self._means = np.empty(self.shape, dtype=np.int16)
        self._lowest = np.empty(self.shape, dtype=np.int16)
        self._highest = np.empty(self.shape, dtype=np.int16)

    def sample(self, stored: NDArray[Any], rescale: Rescale) -> None:
        """Keep every n-th voxel of a slab as it is, and count those that are not numbers."""
        self.stored = stored.dtype
        if stored.dtype.kind == "f":
            self.num_nan += int(np.isnan(stored).sum())
        some = stored[:, :: self._step, :: self._step].astype(np.float32)
        self.samples.append((some * rescale.slope + rescale.intercept).ravel())

    @property
    def range_hu(self) -> tuple[int, int]:
        """Lowest and highest voxel."""
        return int(self._lowest.min()), int(self._highest.max())

    def look(self, first: int, hu: NDArray[np.int16]) -> None:
        """Take a slab (S, J, I) whose first slice is a multiple of the factor along k."""
        for plane in hu:
            key = zlib.crc32(np.ascontiguousarray(plane).view(np.uint8).data)
            self.keys.append((key, int(plane.sum(dtype=np.int64))))
            self.flat_slices.append(bool(plane[0, 0] == plane[-1, -1]) and _is_flat(plane))
        k, j, i = self._factors
        part = hu[:, : self.shape[1] * j, : self.shape[2] * i]
        sums, lowest, highest = (_in_plane(f, part, j, i) for f in (np.add, np.minimum, np.maximum))
        self._compare((np.clip(sums / (j * i), *COMPARED_HU)).astype(np.float32))
        done = first // k
        count = min(len(hu) // k, self.shape[0] - done)
        if count < 1:
            return
        into = slice(done, done + count)
        runs = [a[: count * k].reshape(count, k, *a.shape[1:]) for a in (sums, lowest, highest)]
        self._means[into] = np.rint(runs[0].sum(axis=1) / (k * j * i))
        self._lowest[into] = runs[1].min(axis=1)
        self._highest[into] = runs[2].max(axis=1)

    def _compare(self, means: NDArray[np.float32]) -> None:
        """Note how much each slice (S, J', I') differs from the one before it."""
        if self._last is not None:
            self.changes.append(float(np.abs(means[0] - self._last).mean()))
        steps = np.abs(np.diff(means, axis=0)).mean(axis=(1, 2), dtype=np.float64)
        self.changes += steps.tolist()
        self._last = means[-1].copy()

    def finished(self, orientation: Orientation) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Give means and flatness as (z, y, x)."""
        from scipy import ndimage

        # Neighbours within the slice too: a cell may be a single voxel, which is always flat.
        around = (1, 3, 3)
        lowest = ndimage.minimum_filter(self._lowest, size=around)
        flat = ndimage.maximum_filter(self._highest, size=around) == lowest
        means, flat = (oriented_view(a, orientation) for a in (self._means, flat))
        return np.ascontiguousarray(means), np.ascontiguousarray(flat)


def _is_flat(plane: NDArray[np.int16]) -> bool:
    """Say whether all voxels are equal."""
    return bool((plane == plane[0, 0]).all())


def _in_plane(combine: np.ufunc, hu: NDArray[np.int16], rows: int, columns: int) -> NDArray[Any]:
    """Combine blocks of rows x columns voxels of each slice; sums are int32."""
    out: NDArray[Any] = hu
    for axis, factor in ((1, rows), (2, columns)):
        parts = [out[(slice(None),) * axis + (slice(n, None, factor),)] for n in range(factor)]
        out = parts[0].astype(np.int32) if combine is np.add else parts[0].copy()
        for part in parts[1:]:
            combine(out, part, out=out)
    return out
