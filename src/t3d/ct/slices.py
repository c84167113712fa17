"""What every opened scan offers, whatever file it came from: slices in file order, read once.

A door (`nifti.py`, `dicom/`, `itk.py`) gives `Slices`; `regrid.py` and the doctor take them and
know nothing of files. A Volume in memory is offered the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from t3d.ct.geometry import (
    MAX_TILT_DEGREES,
    Matrix,
    Orientation,
    check_matrix,
    file_view,
    nearest_axes,
    oriented_matrix,
    turn_upright,
)
from t3d.ct.intensity import Rescale
from t3d.errors import GeometryError
from t3d.types import Volume

PIECE_BYTES = 4 << 20  # measured: reading in 4 MB pieces is the fastest


class Slices(Protocol):
    """One opened scan in file order: axes (k, j, i), the slowest first."""

    name: str  # pseudonymous id; the only name that enters messages
    shape_kji: tuple[int, int, int]
    world_from_file: Matrix  # (4, 4): (k, j, i, 1) -> (L, P, S, 1) mm
    orientation: Orientation
    tilt_degrees: float  # largest angle between an axis and the body's nearest one
    rescale: Rescale  # from what `slabs` yields to HU
    instances: tuple[tuple[int, float], ...]  # (DICOM instance number, z in LPS mm); () = none

    @property
    def steps(self) -> tuple[str, ...]:
        """What was done so far, for `Volume.steps`."""
        ...

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first slice, slices (S, J, I)) along the slowest axis, in native byte order.

        The array may be a reused buffer and may be changed by the caller.
        """
        ...


class HeldSlices:
    """A Volume in memory, offered slice by slice."""

    def __init__(self, volume: Volume) -> None:
        self.name = volume.volume_id
        z, y, x = volume.voxels.shape
        self.shape_kji = (z, y, x)
        self.world_from_file = volume.world_from_voxel
        check_matrix(self.world_from_file, what=self.name)
        self.orientation, self.tilt_degrees = nearest_axes(self.world_from_file)
        if not is_upright(self):
            raise GeometryError(
                f"volume {self.name}: axes are {self.tilt_degrees:.1f} degrees off the body's",
                expected=f"at most {MAX_TILT_DEGREES}",
                fix="read the file with t3d, which turns it upright",
            )
        self.rescale = Rescale()
        self.steps = volume.steps
        self.instances: tuple[tuple[int, float], ...] = ()
        self._voxels = volume.voxels

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield copies, since the caller clips in place."""
        for first in range(0, self.shape_kji[0], num_slices):
            yield first, self._voxels[first : first + num_slices].copy()


def is_upright(slices: Slices) -> bool:
    """Say whether the axes are the body's within half a degree."""
    return slices.tilt_degrees <= MAX_TILT_DEGREES


def oriented_grid(slices: Slices) -> tuple[tuple[int, int, int], Matrix]:
    """Shape and matrix after the axes are put in order."""
    z, y, x = (slices.shape_kji[a] for a in slices.orientation.axes)
    matrix = oriented_matrix(slices.world_from_file, slices.shape_kji, slices.orientation)
    return (z, y, x), matrix


def read_whole(
    slices: Slices, *, look: Callable[[int, NDArray[Any]], None] | None = None
) -> Volume:
    """Read an opened scan whole at its own grid.

    Args:
        slices: Not read yet.
        look: Called with (first slice, stored slices) as they pass; must not change them.

    Returns:
        int16 HU (rounded, clipped to int16), axes to Superior, Posterior, Left. Tilted or
        oblique scans are resampled to the body's axes, recorded in `steps`.

    Raises:
        RefusedFile: The file ends early or is damaged.
        RefusedGrid: Turned upright it would be too large.
    """
    shape, matrix = oriented_grid(slices)
    voxels = np.empty(shape, dtype=np.int16)
    target = file_view(voxels, slices.orientation)
    for first, stored in slices.slabs(slices_a_piece(slices)):
        if look is not None:
            look(first, stored)
        target[first : first + len(stored)] = slices.rescale.int16(stored)
    steps = slices.steps
    if not is_upright(slices):
        voxels, matrix = turn_upright(voxels, matrix, order=1, outside=-1024, what=slices.name)
        steps += (f"turned upright from {slices.tilt_degrees:.1f} degrees, linear",)
    return Volume(volume_id=slices.name, voxels=voxels, world_from_voxel=matrix, steps=steps)


def slices_a_piece(slices: Slices) -> int:
    """How many slices make about 4 MB, at least one."""
    return max(1, PIECE_BYTES // (2 * slices.shape_kji[1] * slices.shape_kji[2]))
