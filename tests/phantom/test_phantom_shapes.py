"""Distances and opacities against plain loops in float64 and numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t3d.phantom.shapes import (
    At,
    blend,
    box,
    ellipsoid,
    opacity,
    power,
    segment,
    superellipse,
)

POINTS = np.random.default_rng(5).uniform(-30, 30, (40, 3))


def at_points() -> At:
    z, y, x = POINTS.astype(np.float32).T
    return At(z, y, x)


def test_opacity_is_a_half_on_the_surface_and_ends_half_a_voxel_from_it() -> None:
    found = opacity(np.array([0.0, -3.0, 1.5, 3.0, 9.0], np.float32), 6.0)
    assert found.tolist() == [0.5, 1.0, 0.25, 0.0, 0.0]
    assert found.dtype == np.float32


def test_the_distance_to_a_ball_is_exact() -> None:
    found = ellipsoid(at_points(), (2.0, -3.0, 4.0), (7.0, 7.0, 7.0), 0.8)
    for value, point in zip(found, POINTS, strict=True):
        assert value == pytest.approx(math.dist(point, (2.0, -3.0, 4.0)) - 7.0, abs=2e-4)


def test_the_distance_to_an_ellipsoid_vanishes_on_its_surface_and_has_the_right_sign() -> None:
    radii, centre, turn = (5.0, 12.0, 20.0), (1.0, 2.0, 3.0), 0.4
    for scale in (0.7, 1.0, 1.4):
        for direction in POINTS:
            unit = direction / math.hypot(*direction)
            z, y, x = (scale * u * r for u, r in zip(unit, radii, strict=True))
            # the ellipsoid's own axes lie turned by `turn` about z, x going towards -y
            place = (
                centre[0] + z,
                centre[1] + math.cos(turn) * y + math.sin(turn) * x,
                centre[2] - math.sin(turn) * y + math.cos(turn) * x,
            )
            at = At(*(np.array([p], np.float32) for p in place))
            distance = float(ellipsoid(at, centre, radii, turn)[0])
            if scale == 1.0:
                assert abs(distance) < 1e-3
            else:
                assert (distance > 0) == (scale > 1)


def test_the_distance_to_a_tube_equals_that_of_its_nearest_point() -> None:
    start, end = (-8.0, 3.0, 1.0), (14.0, -6.0, 9.0)
    found = segment(at_points(), start, end, (2.0, 5.0))
    for value, point in zip(found, POINTS, strict=True):
        along = [e - s for s, e in zip(start, end, strict=True)]
        dot = sum((p - s) * a for p, s, a in zip(point, start, along, strict=True))
        t = min(max(dot / sum(a * a for a in along), 0.0), 1.0)
        nearest = [s + t * a for s, a in zip(start, along, strict=True)]
        assert value == pytest.approx(math.dist(point, nearest) - (2.0 + 3.0 * t), abs=1e-4)


def test_the_distance_to_a_box_is_that_of_the_farthest_face() -> None:
    found = box(at_points(), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    for value, (z, y, x) in zip(found, POINTS, strict=True):
        assert value == pytest.approx(max(abs(z - 1) - 4, abs(y - 2) - 5, abs(x - 3) - 6), abs=1e-5)


@pytest.mark.parametrize(("value", "expected"), [(4.0, 32.0), (-4.0, 32.0), (0.0, 0.0), (1.0, 1.0)])
def test_power_is_the_absolute_value_to_two_and_a_half(value: float, expected: float) -> None:
    assert float(power(np.array([value], np.float32))[0]) == expected


def test_the_outline_of_a_superellipse_is_where_its_power_sum_is_one() -> None:
    a, b = 140.0, 90.0
    for angle in np.linspace(0, 2 * np.pi, 17):
        for offset in (-4.0, 0.0, 4.0):
            c, s = math.cos(angle), math.sin(angle)
            edge = (abs(c / a) ** 2.5 + abs(s / b) ** 2.5) ** -0.4  # radius of the outline
            r = edge + offset
            total = abs(r * c / a) ** 2.5 + abs(r * s / b) ** 2.5
            found = superellipse(np.array([total], np.float32), np.array([r], np.float32))
            assert float(found[0]) == pytest.approx(offset, abs=0.02)


def test_blend_climbs_from_start_to_stop_with_the_middle_at_a_half() -> None:
    where = np.array([0.0, 1.0, 2.0, 3.0, 4.0], np.float32)
    assert blend(where, 1.0, 3.0).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert blend(where, 3.0, 1.0).tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]
