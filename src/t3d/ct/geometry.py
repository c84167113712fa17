"""Space, once: RAS and LPS, (i, j, k) and (z, y, x), nearest axes, spacing, output affine.

Everything leaves this room with axes to Superior, Posterior, Left. `world_from_voxel` maps
(z, y, x, 1) to (L, P, S, 1) in mm. File order is written (k, j, i): the slowest axis first, as
the bytes lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.guard import RefusedGrid
from t3d.ct.limits import MAX_UPRIGHT_RATIO, MAX_VOXELS
from t3d.types import Zyx

Matrix = NDArray[np.float64]
MAX_TILT_DEGREES = 0.5  # beyond it, axes are not "the nearest ones" any more
SAME_GRID_MM = 1e-2  # label maps pass through float32 headers
_WORLD_OF_ZYX = (2, 1, 0)  # the row of (L, P, S) along which z, y, x run


@dataclass(frozen=True, slots=True)
class Orientation:
    """Which file axis becomes z, y, x, and whether it runs backwards."""

    axes: tuple[int, int, int]  # for z, y, x: the axis in (k, j, i) order, 0 = slowest
    flips: tuple[bool, bool, bool]  # for z, y, x


def reverse_axes(matrix_ras: Matrix) -> Matrix:
    """Turn a NIfTI affine, (i, j, k, 1) to RAS mm, into (k, j, i, 1) to LPS mm.

    Two signs change and two columns swap, so doing it twice gives the input back.
    """
    lps = np.array(matrix_ras, dtype=np.float64)[:, [2, 1, 0, 3]]
    # Not a matrix product: a header may hold infinities, which are refused later by name.
    lps[:2] = -lps[:2]
    lps[lps == 0] = 0.0  # no minus zeros: they would print and hash differently
    return lps


def ras_from_ijk(world_from_voxel: Matrix) -> Matrix:
    """Turn (z, y, x, 1) to LPS mm into the NIfTI affine (i, j, k, 1) to RAS mm, i = x."""
    return reverse_axes(world_from_voxel)


def spacing_mm(world_from_voxel: Matrix) -> Zyx[float]:
    """Give the voxel pitch in mm: the column norms of the matrix, by axis.

    Args:
        world_from_voxel: (4, 4).
    """
    z, y, x = np.linalg.norm(np.asarray(world_from_voxel)[:3, :3], axis=0)
    return Zyx(z=float(z), y=float(y), x=float(x))


def check_matrix(matrix: Matrix, *, what: str) -> None:
    """Refuse a matrix that gives voxels no place in space.

    Raises:
        RefusedGrid: Not finite, a column of zeros, or columns that do not span space.
    """
    finite = bool(np.isfinite(matrix).all())
    norms = np.linalg.norm(matrix[:3, :3], axis=0) if finite else np.zeros(3)
    if not finite or norms.min() < 1e-6 or norms.max() > 1e4 or np.abs(matrix[:3, 3]).max() > 1e6:
        raise RefusedGrid(
            f"{what}: the affine is not finite or has an axis without length",
            expected="three axes in mm and an origin",
            fix="export the file again, or state the affine through a HeaderOverride",
        )
    # 0.1: axes 6 degrees from lying in one plane; real gantry tilts stay above 0.8.
    if abs(float(np.linalg.det(matrix[:3, :3] / norms))) < 0.1:
        raise RefusedGrid(
            f"{what}: the axes of the affine lie in one plane",
            expected="three independent axes",
            fix="export the file again, or state the affine through a HeaderOverride",
        )


def nearest_axes(world_from_file: Matrix) -> tuple[Orientation, float]:
    """Find the file axis nearest to Superior, Posterior, Left.

    Args:
        world_from_file: (4, 4), (k, j, i, 1) to LPS mm.

    Returns:
        The orientation, and the largest angle in degrees between an axis and its world axis.
    """
    columns = world_from_file[:3, :3] / np.linalg.norm(world_from_file[:3, :3], axis=0)
    cosine = columns[list(_WORLD_OF_ZYX)]  # rows z, y, x; columns k, j, i
    best = max(permutations(range(3)), key=lambda p: sum(abs(cosine[r, p[r]]) for r in range(3)))
    chosen = [float(cosine[row, axis]) for row, axis in enumerate(best)]
    worst = min(abs(c) for c in chosen)
    a, b, c = best
    orientation = Orientation(axes=(a, b, c), flips=(chosen[0] < 0, chosen[1] < 0, chosen[2] < 0))
    return orientation, float(np.degrees(np.arccos(min(1.0, worst))))


def letters(orientation: Orientation) -> str:
    """Name the file's axes in NIfTI order (i, j, k), as nibabel does: "LPS", "RAS"."""
    named = {}
    for axis, flip, pair in zip(
        orientation.axes, orientation.flips, ("SI", "PA", "LR"), strict=True
    ):
        named[axis] = pair[1] if flip else pair[0]
    return named[2] + named[1] + named[0]


def oriented_view(array: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """View an array in file order (k, j, i) as (z, y, x) to S, P, L; no copy."""
    view = array.transpose(orientation.axes)
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in orientation.flips)
    return view[steps]


def file_view(array: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """View an array (z, y, x) in file order (k, j, i); undoes `oriented_view`, no copy."""
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in orientation.flips)
    return array[steps].transpose(np.argsort(orientation.axes))


def oriented_matrix(
    world_from_file: Matrix, shape_kji: tuple[int, int, int], orientation: Orientation
) -> Matrix:
    """Give `world_from_voxel` of the view that `oriented_view` makes."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for column, (axis, flip) in enumerate(zip(orientation.axes, orientation.flips, strict=True)):
        turn[axis, column] = -1.0 if flip else 1.0
        turn[axis, 3] = shape_kji[axis] - 1 if flip else 0
    return np.asarray(world_from_file @ turn, dtype=np.float64)


def output_matrix(world_from_voxel: Matrix, scale: Zyx[float], offset_vox: Zyx[float]) -> Matrix:
    """Give the matrix of a grid whose index j sits at input index scale * j + offset.

    Formula: A_out = A_in @ [[diag(scale), offset], [0 0 0 1]].
    Check: spacing 1, origin 0, scale 4, offset 1.5 -> spacing 4, origin 1.5.
    """
    step = np.diag([*scale, 1.0])
    step[:3, 3] = offset_vox
    return np.asarray(world_from_voxel @ step, dtype=np.float64)


def same_grid(
    matrix_a: Matrix,
    matrix_b: Matrix,
    shape: Sequence[int],
    *,
    tolerance_mm: float = SAME_GRID_MM,
) -> bool:
    """Say whether two matrices put all corners of one shape at the same place in mm."""
    corners = np.array([[a, b, c, 1.0] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    corners[:, :3] *= np.array(shape) - 1
    apart = corners @ (matrix_a - matrix_b).T
    return bool(np.abs(apart).max() <= tolerance_mm)


def upright_grid(
    world_from_voxel: Matrix, shape: tuple[int, int, int], *, what: str
) -> tuple[Matrix, tuple[int, int, int]]:
    """Plan an axis-aligned grid around a tilted or oblique one.

    Along each world axis the pitch is the part of the nearest column that points along it; the
    grid covers all voxel edges of the input.

    Args:
        world_from_voxel: (4, 4), already permuted and flipped to the nearest axes.
        shape: (Z, Y, X).
        what: Names the volume in the message.

    Returns:
        Matrix and shape of the new grid.

    Raises:
        RefusedGrid: The grid would exceed MAX_VOXELS, or MAX_UPRIGHT_RATIO times the input.
    """
    pitch = np.array([world_from_voxel[w, a] for a, w in enumerate(_WORLD_OF_ZYX)])
    edges = np.array([[a, b, c, 1.0] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    edges[:, :3] = edges[:, :3] * np.array(shape) - 0.5
    world = (edges @ world_from_voxel.T)[:, list(_WORLD_OF_ZYX)]
    low, high = world.min(axis=0), world.max(axis=0)
    size = np.maximum(1, np.ceil((high - low) / pitch - 1e-6)).astype(int)
    allowed = min(MAX_VOXELS, MAX_UPRIGHT_RATIO * int(np.prod(shape)))
    if int(np.prod(size.astype(np.float64))) > allowed:
        raise RefusedGrid(
            f"{what}: turned to the body's axes it would need {' x '.join(map(str, size))} voxels",
            expected=f"at most {allowed}",
            fix="leave this series out, or resample it first",
        )
    first = (low + high) / 2 - pitch * (size - 1) / 2  # centred, so both sides gain alike
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for axis, row in enumerate(_WORLD_OF_ZYX):
        matrix[row, axis] = pitch[axis]
        matrix[row, 3] = first[axis]
    z, y, x = (int(n) for n in size)
    return matrix, (z, y, x)


def turn_upright(
    voxels: NDArray[Any], world_from_voxel: Matrix, *, order: int, outside: int, what: str
) -> tuple[NDArray[Any], Matrix]:
    """Resample a tilted or oblique array to the body's axes in one general step.

    Args:
        voxels: (Z, Y, X), permuted and flipped to the nearest axes.
        world_from_voxel: Its (4, 4) matrix.
        order: 0 nearest (labels) or 1 linear (HU).
        outside: Value where the input says nothing.
        what: Names the volume in messages.

    Returns:
        Array of the same type and its axis-aligned matrix.

    Raises:
        RefusedGrid: The result would be too large.
    """
    from scipy import ndimage

    z, y, x = voxels.shape
    matrix, shape = upright_grid(world_from_voxel, (z, y, x), what=what)
    back = np.linalg.inv(world_from_voxel) @ matrix
    resample: Any = ndimage.affine_transform
    turned: NDArray[Any] = resample(
        voxels,
        back[:3, :3],
        offset=back[:3, 3],
        output_shape=shape,
        order=order,
        mode="constant",
        cval=outside,
        prefilter=False,
    )
    return turned, matrix
