"""Where a phantom is sampled: shape, spacing and, for a slab, where it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from t3d.errors import GeometryError
from t3d.types import Zyx

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_VOXELS = 1 << 28
"""Ten float32 copies of more than this do not fit a usual machine (our choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A voxel grid; where no low end is given it covers what the patient's own grid covers."""

    shape: Zyx[int]
    spacing_mm: Zyx[float]
    z_low_mm: float | None = None  # centre of the first voxel, LPS world mm
    y_low_mm: float | None = None
    x_low_mm: float | None = None

    def __post_init__(self) -> None:
        bad_shape = min(self.shape) < 1 or int(np.prod(self.shape)) > MAX_VOXELS
        if bad_shape or not all(np.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise GeometryError(
                f"phantom grid {tuple(self.shape)} at {tuple(self.spacing_mm)} mm",
                expected=f"1 to {MAX_VOXELS} voxels and finite positive spacings",
                fix="give Grid a smaller shape, or spacings in mm ordered z, y, x",
            )

    @classmethod
    def window(cls, centre_mm: Zyx[float], size_mm: Zyx[float], spacing_mm: Zyx[float]) -> Grid:
        """Cut a box around a place, for a fine picture without a fine patient.

        Args:
            centre_mm: Middle of the box, LPS world mm.
            size_mm: Edge lengths; rounded to whole voxels, at least one.
            spacing_mm: Voxel pitch.

        Returns:
            A grid whose box is centred on `centre_mm`.
        """
        pairs = zip(size_mm, spacing_mm, strict=True)
        n = [max(1, round(size / pitch)) for size, pitch in pairs]
        z, y, x = (c - 0.5 * (k - 1) * s for c, k, s in zip(centre_mm, n, spacing_mm, strict=True))
        shape = Zyx(z=n[0], y=n[1], x=n[2])
        return cls(shape=shape, spacing_mm=spacing_mm, z_low_mm=z, y_low_mm=y, x_low_mm=x)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The box a patient lies in: z from 0 up, y and x about 0; world z = z + `z_world_mm`."""

    extent_mm: Zyx[float]  # field of view
    z_world_mm: float  # LPS z of the box's lower edge (the table's position)

    def lows_mm(self, grid: Grid) -> Zyx[float]:
        """Give the first voxel's centre in this frame, mm."""
        extent, pitch = self.extent_mm, grid.spacing_mm
        z = 0.5 * pitch.z if grid.z_low_mm is None else grid.z_low_mm - self.z_world_mm
        y = 0.5 * (pitch.y - extent.y) if grid.y_low_mm is None else grid.y_low_mm
        x = 0.5 * (pitch.x - extent.x) if grid.x_low_mm is None else grid.x_low_mm
        return Zyx(z=z, y=y, x=x)

    def axes_mm(self, grid: Grid) -> tuple[NDArray[np.float32], ...]:
        """Give the voxel centres along z, y and x in this frame, three float32 vectors."""
        parts = zip(self.lows_mm(grid), grid.spacing_mm, grid.shape, strict=True)
        return tuple((low + pitch * np.arange(n)).astype(np.float32) for low, pitch, n in parts)

    def world_from_voxel(self, grid: Grid) -> NDArray[np.float64]:
        """Give the 4 x 4 matrix from (z, y, x, 1) to LPS (L, P, S, 1) in mm."""
        low, pitch = self.lows_mm(grid), grid.spacing_mm
        matrix = np.zeros((4, 4))
        matrix[0, 2], matrix[1, 1], matrix[2, 0] = pitch.x, pitch.y, pitch.z
        matrix[:, 3] = low.x, low.y, low.z + self.z_world_mm, 1.0
        return matrix
