"""Smooth random fields that are functions of millimetres, not of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.phantom.grids import Frame

INTERPOLATED_VARIANCE = 26 / 35
"""Mean of s^2 + (1 - s)^2 over a cell for s = 3 t^2 - 2 t^3: variance left, one axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothNoise:
    """Gaussian nodes on a coarse lattice; between them smoothstep interpolation."""

    nodes: NDArray[np.float32]  # (Z, Y, X), unit variance
    low_mm: tuple[float, float, float]  # of node (0, 0, 0), patient frame
    step_mm: float  # correlation length

    def sample(self, axes_mm: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Evaluate on the grid spanned by three axes.

        Formula: sum over the 8 nodes of a cell of w_z w_y w_x node, w = 1 - s and s with
        s = 3 t^2 - 2 t^3, over sqrt((26/35)^3): unit variance averaged over a cell.

        Args:
            axes_mm: Voxel centres along z, y, x, patient frame.

        Returns:
            float32, (len z, len y, len x); beyond the lattice its edge cell goes on.
        """
        z, y, x = (self._weights(axis, axes_mm[axis]) for axis in range(3))
        out = self.nodes @ x.T  # (Z, Y, nx)
        out = np.matmul(y, out)  # (Z, ny, nx)
        flat = z @ out.reshape(len(out), -1)
        field: NDArray[np.float32] = flat.reshape(len(z), len(y), len(x))
        return field

    def _weights(self, axis: int, at_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the interpolation matrix (points, nodes) of one axis."""
        count = self.nodes.shape[axis]
        place = (at_mm - np.float32(self.low_mm[axis])) / np.float32(self.step_mm)
        place = np.clip(place, 0, np.float32(count - 1.001))
        cell = place.astype(np.intp)
        t = place - cell.astype(np.float32)
        s = t * t * (3 - 2 * t) * np.float32(INTERPOLATED_VARIANCE**-0.5)
        rest = np.float32(INTERPOLATED_VARIANCE**-0.5) - s
        weights = np.zeros((len(at_mm), count), np.float32)
        rows = np.arange(len(at_mm))
        weights[rows, cell] = rest
        weights[rows, cell + 1] = s
        return weights


def draw_noise(rng: np.random.Generator, frame: Frame, length_mm: float) -> SmoothNoise:
    """Draw a field over a patient's whole box.

    Args:
        rng: Source of the nodes.
        frame: The box; the field of a patient is the same on every grid.
        length_mm: Distance of the nodes, about the correlation length.

    Returns:
        A field with mean 0 and unit variance over patients.
    """
    extent = frame.extent_mm
    middle = (0.5 * extent.z, 0.0, 0.0)
    return draw_local_noise(rng, middle, tuple(0.5 * e for e in extent), length_mm)


def draw_local_noise(
    rng: np.random.Generator,
    middle_mm: Sequence[float],
    half_mm: Sequence[float],
    length_mm: float,
) -> SmoothNoise:
    """Draw a field over a box; beyond it the field goes on as at its edge.

    Args:
        rng: Source of the nodes.
        middle_mm: z, y, x of the box's middle.
        half_mm: Half its edges.
        length_mm: Distance of the nodes.

    Returns:
        A field with mean 0 and unit variance over patients.
    """
    shape = tuple(int(2 * half / length_mm) + 3 for half in half_mm)
    z, y, x = (at - 0.5 * (n - 1) * length_mm for at, n in zip(middle_mm, shape, strict=True))
    low = (z, y, x)
    nodes = rng.standard_normal(shape, dtype=np.float32)
    return SmoothNoise(nodes=nodes, low_mm=low, step_mm=length_mm)
