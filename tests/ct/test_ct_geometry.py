"""Space: conventions, nearest axes, output matrices, tilted grids."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from t3d.ct import geometry
from t3d.ct.guard import RefusedGrid
from t3d.errors import GeometryError
from t3d.types import Zyx

EXAMPLE = np.array([[0, 0, 1, -180], [0, 1, 0, -150], [4, 0, 0, 20], [0, 0, 0, 1.0]])
ALL_ORDERS = [
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "SI"))
    for letters in itertools.product(*axes)
]


def affine_of(order: str, pitch: tuple[float, float, float]) -> NDArray[np.float64]:
    """RAS affine of a file stored in a given order, with an odd origin."""
    directions = {
        "R": (1, 0, 0),
        "L": (-1, 0, 0),
        "A": (0, 1, 0),
        "P": (0, -1, 0),
        "S": (0, 0, 1),
        "I": (0, 0, -1),
    }
    affine = np.eye(4)
    for column, letter in enumerate(order):
        affine[:3, column] = np.array(directions[letter]) * pitch[column]
    affine[:3, 3] = (11.5, -23.25, 140.0)
    return affine


def test_the_example_of_the_architecture_has_the_spacing_it_says() -> None:
    assert geometry.spacing_mm(EXAMPLE) == Zyx(z=4.0, y=1.0, x=1.0)


def test_ras_and_lps_undo_each_other_for_the_example() -> None:
    ras = geometry.ras_from_ijk(EXAMPLE)
    # x runs to Left, so the first NIfTI axis runs to -R; the origin's L and P change sign.
    assert ras.tolist() == [[-1, 0, 0, 180], [0, -1, 0, 150], [0, 0, 4, 20], [0, 0, 0, 1]]
    assert np.array_equal(geometry.reverse_axes(ras), EXAMPLE)


@pytest.mark.parametrize("order", ALL_ORDERS)
def test_every_storage_order_ends_with_axes_to_s_p_l_at_the_same_place(order: str) -> None:
    shape_ijk = (3, 4, 5)
    affine = affine_of(order, (0.5, 0.75, 2.0))
    assert nib.aff2axcodes(affine) == tuple(order)
    world_from_file = geometry.reverse_axes(affine)
    orientation, tilt = geometry.nearest_axes(world_from_file)
    assert tilt == pytest.approx(0.0, abs=1e-6)
    assert geometry.letters(orientation) == order
    shape_kji = shape_ijk[::-1]
    matrix = geometry.oriented_matrix(world_from_file, shape_kji, orientation)
    # Slow twin: walk over all voxels; value and place in RAS must arrive together.
    stored = np.arange(60).reshape(shape_kji)
    view = geometry.oriented_view(stored, orientation)
    for z, y, x in np.ndindex(view.shape):
        k, j, i = np.argwhere(stored == view[z, y, x])[0]
        r, a, s, _ = affine @ (i, j, k, 1)
        left, posterior, superior, _ = matrix @ (z, y, x, 1)
        assert (left, posterior, superior) == pytest.approx((-r, -a, s), abs=1e-9)
    steps = matrix[[2, 1, 0], [0, 1, 2]]
    assert steps.min() > 0
    assert np.array_equal(geometry.file_view(view, orientation), stored)


def test_half_a_degree_is_nearest_axes_and_more_is_tilted() -> None:
    for degrees, within in ((0.49, True), (0.51, False)):
        angle = np.radians(degrees)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        _, tilt = geometry.nearest_axes(turn @ EXAMPLE)
        assert (tilt <= geometry.MAX_TILT_DEGREES) is within
        assert tilt == pytest.approx(degrees, abs=1e-6)


def test_output_matrix_by_hand() -> None:
    flat = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    out = geometry.output_matrix(flat, Zyx(z=4.0, y=1.0, x=1.0), Zyx(z=1.5, y=0.0, x=0.0))
    assert out[2].tolist() == [4.0, 0.0, 0.0, 1.5]


@given(
    st.tuples(*[st.floats(0.2, 9.0)] * 3),
    st.tuples(*[st.floats(0.3, 5.0)] * 3),
    st.tuples(*[st.floats(-20.0, 20.0)] * 3),
    st.tuples(*[st.integers(0, 50)] * 3),
)
def test_output_matrix_puts_an_index_where_the_input_index_lies(
    pitch: tuple[float, float, float],
    scale: tuple[float, float, float],
    offset: tuple[float, float, float],
    index: tuple[int, int, int],
) -> None:
    matrix = EXAMPLE @ np.diag([*pitch, 1.0])
    out = geometry.output_matrix(matrix, Zyx(*scale), Zyx(*offset))
    inside = [a * j + b for a, j, b in zip(scale, index, offset, strict=True)]
    assert np.allclose(out @ [*index, 1], matrix @ [*inside, 1], atol=1e-6)


@pytest.mark.parametrize(
    "broken",
    [
        np.diag([1.0, 1.0, 0.0, 1.0]),
        np.diag([1.0, np.nan, 1.0, 1.0]),
        np.diag([1.0, np.inf, 1.0, 1.0]),
        np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 1e-3, 0], [0, 0, 0, 1.0]]),
        np.array([[1, 0, 0, np.nan], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
)
def test_a_matrix_without_a_place_in_space_is_refused(broken: NDArray[np.float64]) -> None:
    with pytest.raises(GeometryError) as caught:
        geometry.check_matrix(broken, what="v")
    assert isinstance(caught.value, RefusedGrid)
    assert caught.value.reason == "bad_affine"


def test_same_grid_sees_a_shift_at_the_far_corner_only() -> None:
    stretched = EXAMPLE.copy()
    stretched[2, 0] = 4.002
    assert geometry.same_grid(EXAMPLE, stretched, (3, 10, 10))
    assert not geometry.same_grid(EXAMPLE, stretched, (30, 10, 10))


def test_a_turned_volume_keeps_its_landmark_in_place() -> None:
    angle = 0.3
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted = turn @ np.diag([1.0, 1.0, 1.0, 1.0]) @ EXAMPLE[:, :]
    tilted[2, 0], tilted[1, 0] = 2 * np.cos(angle), -2 * np.sin(angle)
    voxels = np.full((30, 40, 40), -1000, dtype=np.int16)
    voxels[14:17, 20:23, 25:28] = 1000
    place = tilted @ [15, 21, 26, 1]
    turned, matrix = geometry.turn_upright(voxels, tilted, order=1, outside=-1024, what="v")
    _, tilt = geometry.nearest_axes(matrix)
    assert tilt == 0.0
    weight = np.clip(turned.astype(float) + 1000, 0, None)
    weight[turned < 0] = 0
    middle = [float((weight * g).sum() / weight.sum()) for g in np.indices(turned.shape)]
    assert np.allclose(matrix @ [*middle, 1], place, atol=0.3)
    assert turned[0, 0, 0] == -1024


def test_a_turned_grid_covers_every_voxel_edge_of_its_input() -> None:
    shear = EXAMPLE.copy()
    shear[1, 0] = 1.3
    matrix, shape = geometry.upright_grid(shear, (10, 12, 14), what="v")
    back = np.linalg.inv(matrix)
    for corner in itertools.product((-0.5, 9.5), (-0.5, 11.5), (-0.5, 13.5)):
        index = (back @ shear @ [*corner, 1])[:3]
        assert all(-0.5 - 1e-6 <= i <= n - 0.5 + 1e-6 for i, n in zip(index, shape, strict=True))
    assert geometry.spacing_mm(matrix) == pytest.approx((4.0, 1.0, 1.0))
