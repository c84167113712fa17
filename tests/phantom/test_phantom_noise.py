"""Smooth fields are functions of mm with unit variance, whatever grid asks for them."""

from __future__ import annotations

import numpy as np
import pytest

from t3d.phantom.grids import Frame
from t3d.phantom.noise import INTERPOLATED_VARIANCE, SmoothNoise, draw_noise
from t3d.phantom.streams import stream
from t3d.types import Zyx

FRAME = Frame(extent_mm=Zyx(z=120.0, y=90.0, x=100.0), z_world_mm=0.0)


def slow_sample(field: SmoothNoise, at: tuple[float, float, float]) -> float:
    """Eight nodes, smoothstep weights, by the definition."""
    cells, parts = [], []
    for value, low in zip(at, field.low_mm, strict=True):
        place = (value - low) / field.step_mm
        cells.append(int(place))
        t = place - int(place)
        parts.append(3 * t**2 - 2 * t**3)
    total = 0.0
    for k in (0, 1):
        for j in (0, 1):
            for i in (0, 1):
                weight = 1.0
                for s, up in zip(parts, (k, j, i), strict=True):
                    weight *= s if up else 1 - s
                total += weight * float(field.nodes[cells[0] + k, cells[1] + j, cells[2] + i])
    return total / (26 / 35) ** 1.5


def test_a_field_equals_the_weighted_mean_of_the_nodes_around() -> None:
    field = draw_noise(stream(1, "test"), FRAME, 14.0)
    z, y, x = np.linspace(3, 110, 7), np.linspace(-44, 44, 6), np.linspace(-49, 49, 5)
    found = field.sample([axis.astype(np.float32) for axis in (z, y, x)])
    for k, a in enumerate(z):
        for j, b in enumerate(y):
            for i, c in enumerate(x):
                assert found[k, j, i] == pytest.approx(slow_sample(field, (a, b, c)), abs=2e-4)


def test_the_variance_left_by_interpolation_is_26_of_35() -> None:
    t = (np.arange(100_000) + 0.5) / 100_000
    s = 3 * t**2 - 2 * t**3
    assert np.mean(s**2 + (1 - s) ** 2) == pytest.approx(INTERPOLATED_VARIANCE, abs=1e-9)


def test_fields_have_mean_zero_and_unit_variance() -> None:
    axes = [np.linspace(a, b, 40, dtype=np.float32) for a, b in ((0, 120), (-45, 45), (-50, 50))]
    drawn = np.stack([draw_noise(stream(s, "x"), FRAME, 9.0).sample(axes) for s in range(12)])
    assert abs(drawn.mean()) < 0.03
    assert drawn.std() == pytest.approx(1.0, abs=0.03)


def test_a_window_of_a_field_is_a_part_of_the_whole() -> None:
    field = draw_noise(stream(1, "test"), FRAME, 20.0)
    axes = [np.linspace(a, b, 31, dtype=np.float32) for a, b in ((0, 120), (-45, 45), (-50, 50))]
    part = field.sample([axes[0][4:9], axes[1][2:30], axes[2][11:12]])
    np.testing.assert_allclose(part, field.sample(axes)[4:9, 2:30, 11:12], atol=1e-5)


def test_streams_repeat_and_differ_by_name_and_seed() -> None:
    first = stream(3, "pose").random(4)
    assert (first == stream(3, "pose").random(4)).all()
    assert not (first == stream(3, "body").random(4)).any()
    assert not (first == stream(4, "pose").random(4)).any()
