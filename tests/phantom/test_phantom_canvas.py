"""Windows hold all of what they are asked for; vessels keep their volume."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t3d.errors import GeometryError
from t3d.phantom.body import Pose
from t3d.phantom.canvas import Canvas
from t3d.phantom.grids import Frame, Grid
from t3d.phantom.vessels import Level, _deposit, splat
from t3d.types import Zyx

FRAME = Frame(extent_mm=Zyx(z=96.0, y=120.0, x=130.0), z_world_mm=-70.0)
POSE = Pose(shift_y=3.0, shift_x=-2.0, sway_y=4.0, sway_x=-5.0, phase=1.0, turn=0.07)
GRID = Grid(shape=Zyx(z=16, y=30, x=26), spacing_mm=Zyx(z=6.0, y=4.0, x=5.0))


def test_a_grid_without_low_ends_covers_the_frame() -> None:
    matrix = FRAME.world_from_voxel(GRID)
    low = matrix @ (-0.5, -0.5, -0.5, 1)  # outer corner of the first voxel: x, y, z
    high = matrix @ (15.5, 29.5, 25.5, 1)
    assert low.tolist() == [-65.0, -60.0, -70.0, 1.0]
    assert high.tolist() == [65.0, 60.0, 26.0, 1.0]


def test_a_window_grid_is_centred_where_asked() -> None:
    grid = Grid.window(
        Zyx(z=10.0, y=-5.0, x=7.0), Zyx(z=9.0, y=8.0, x=4.1), Zyx(z=3.0, y=2.0, x=1.0)
    )
    assert grid.shape == (3, 4, 4)
    middle = FRAME.world_from_voxel(grid) @ (1.0, 1.5, 1.5, 1.0)
    assert middle.tolist() == pytest.approx([7.0, -5.0, 10.0, 1.0])


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((0, 4, 4), (1.0, 1.0, 1.0)), ((4, 4, 4), (1.0, 0.0, 1.0)), ((4, 4, 4), (math.inf, 1.0, 1.0))],
)
def test_a_grid_that_cannot_be_is_refused(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    with pytest.raises(GeometryError, match="phantom grid"):
        Grid(shape=Zyx(*shape), spacing_mm=Zyx(*spacing))


def test_coordinates_undo_the_pose() -> None:
    canvas = Canvas(FRAME, GRID, POSE)
    for index in ((0, 0, 0), (7, 13, 20), (15, 29, 25)):
        z, y, x = canvas.z[index[0], 0, 0], canvas.y[index], canvas.x[index]
        found = canvas.voxels(np.array([[z, y, x]], np.float32))[0]
        assert found.tolist() == pytest.approx(index, abs=1e-3)


def test_a_window_holds_every_voxel_of_its_box() -> None:
    canvas = Canvas(FRAME, GRID, POSE)
    low, high = (20.0, -18.0, 5.0), (41.0, 9.0, 33.0)
    inside = np.ones(canvas.hu.shape, bool)
    for values, a, b in zip(canvas.everywhere, low, high, strict=True):
        inside &= (values > a - 0.5 * canvas.width) & (values < b + 0.5 * canvas.width)
    window = canvas.window(low, high)
    assert window is not None
    held = np.zeros_like(inside)
    held[window] = True
    assert inside.sum() > 100
    assert not (inside & ~held).any()
    assert held.sum() < 5 * inside.sum()


def test_a_box_beside_the_grid_has_no_window() -> None:
    canvas = Canvas(FRAME, GRID, POSE)
    assert canvas.window((200.0, 0.0, 0.0), (220.0, 10.0, 10.0)) is None
    assert canvas.paint_tube([(200.0, 0.0, 0.0), (220.0, 5.0, 5.0)], 3.0, 40.0) == []


def test_a_tube_of_three_points_is_the_nearer_of_its_two_legs() -> None:
    canvas = Canvas(FRAME, GRID, POSE)
    points = [(20.0, -20.0, -20.0), (50.0, 0.0, 10.0), (70.0, 25.0, 0.0)]
    found = canvas.tube(points, [4.0, 5.0, 6.0])
    assert found is not None
    window, distance = found
    z, y, x = canvas.at(window)
    for index in np.argwhere(distance < 3)[::7]:
        k, j, i = (int(v) for v in index)
        place = np.array([z[k, 0, 0], y[k, j, i], x[k, j, i]], np.float64)
        legs = []
        for a, b, r, s in ((0, 1, 4.0, 5.0), (1, 2, 5.0, 6.0)):
            start, along = np.array(points[a]), np.array(points[b]) - np.array(points[a])
            t = min(max(float((place - start) @ along / (along @ along)), 0.0), 1.0)
            legs.append(math.dist(place, start + t * along) - (r + t * (s - r)))
        assert distance[k, j, i] == pytest.approx(min(legs), abs=1e-3)


def test_painting_blends_and_changes_the_organ_where_most_is_covered() -> None:
    canvas = Canvas(FRAME, GRID, POSE)
    cover = np.zeros(canvas.hu.shape, np.float32)
    cover[0, 0, :3] = 0.25, 0.5, 0.75
    canvas.paint(cover, 100.0, organ=3)
    assert canvas.hu[0, 0, :4].tolist() == [-725.0, -450.0, -175.0, -1000.0]
    assert canvas.organ[0, 0, :4].tolist() == [0, 0, 3, 0]


def test_a_point_is_shared_among_eight_voxels_by_linear_weights() -> None:
    points = np.array([[0.25, 1.5, 2.0], [2.9, -0.5, 1.0]], np.float32)
    volume = np.array([8.0, 2.0], np.float32)
    found = _deposit((3, 3, 4), points, volume)
    expected = np.zeros((3, 3, 4))
    for point, amount in zip(points.tolist(), volume.tolist(), strict=True):
        for k in range(3):
            for j in range(3):
                for i in range(4):
                    weight = 1.0
                    for a, b in zip(point, (k, j, i), strict=True):
                        weight *= max(0.0, 1 - abs(a - b))
                    expected[k, j, i] += amount * weight
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("pitch", [5.0, 1.0])
def test_a_vessel_keeps_its_volume_on_coarse_and_on_fine_grids(pitch: float) -> None:
    shape = Zyx(z=int(96 / pitch), y=int(120 / pitch), x=int(130 / pitch))
    grid = Grid(shape=shape, spacing_mm=Zyx(z=pitch, y=pitch, x=pitch))
    still = Pose(shift_y=0.0, shift_x=0.0, sway_y=0.0, sway_x=0.0, phase=0.0, turn=0.0)
    ends = np.array([[20, -30, -40], [70, 30, 35]], np.float32)
    level = Level(
        start=ends[:1], middle=ends.mean(axis=0, keepdims=True), end=ends[1:],
        radius=np.array([2.0], np.float32),
    )  # fmt: skip
    share = splat(Canvas(FRAME, grid, still), [level])
    # the halves taper from r to 0.9 r and from 0.9 r to 0.81 r: the mean of (r (1 - t / 10))^2
    # over t is 0.90333 r^2 in the first and 0.81 times that in the second
    half = 0.5 * math.dist(*ends.tolist())
    exact = math.pi * 4.0 * 0.90333 * half * (1 + 0.81)
    assert float(share.sum()) * pitch**3 == pytest.approx(exact, rel=0.02)
    assert share.max() <= 1.0
