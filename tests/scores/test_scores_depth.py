"""What a depth curve says: intervals against every run of cells, flatness against noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.scores.depth import FLAT_ABOVE, densest_interval, depth_mass, flat_p, peak_to_spread
from t3d.scores.places import DepthGrid


def grid_of(num: int, cells: int) -> DepthGrid:
    return DepthGrid.of(np.tile(6 + 12.0 * np.arange(cells), (num, 1)))


def test_a_softmax_gives_its_vector_at_every_temperature() -> None:
    for temperature, first in (
        (1, 0.512497),
        (1 / math.e, 0.533926),
        (0.07, 0.671347),
        (0.01, 0.993307),
    ):
        mass = depth_mass([[0.30, 0.25]], grid_of(1, 2), temperature=temperature)
        np.testing.assert_allclose(mass, [[first, 1 - first]], atol=1e-6)
    with pytest.raises(ProtocolError, match="temperature 0"):
        depth_mass([[0.3, 0.2]], grid_of(1, 2), temperature=0)


def test_padding_gets_no_mass() -> None:
    grid = DepthGrid.of([[6.0, 18.0, np.nan]], [[True, True, False]])
    mass = depth_mass([[0.1, 0.1, 9.0]], grid, temperature=0.1)
    np.testing.assert_array_equal(mass, [[0.5, 0.5, 0.0]])


def slow_interval(
    mass: list[float], edges: list[tuple[float, float]], level: float
) -> tuple[float, float]:
    runs = []
    for a in range(len(mass)):
        for b in range(a, len(mass)):
            held = math.fsum(mass[a : b + 1])
            if held >= level - 1e-12:
                low, high = min(edges[a][0], edges[b][0]), max(edges[a][1], edges[b][1])
                runs.append((round(high - low, 6), -round(held, 12), a, low, high))
    return min(runs)[3:]


def test_the_densest_interval_is_the_shortest_of_all_runs() -> None:
    rng = np.random.default_rng(0)
    centres = np.cumsum(rng.integers(1, 4, (300, 7)) * 4.0, axis=1) * rng.choice((-1, 1), (300, 1))
    low = rng.integers(0, 3, 300)[:, None]
    valid = (low <= np.arange(7)) & (np.arange(7) < low + rng.integers(2, 5, 300)[:, None])
    grid = DepthGrid.of(centres, valid)
    mass = np.where(valid, rng.integers(1, 9, (300, 7)), 0) / 1.0
    mass /= mass.sum(axis=1, keepdims=True)
    for level in (0.5, 0.9):
        found = densest_interval(mass, grid, level)
        for i in range(300):
            here = np.flatnonzero(valid[i])
            edges = [(grid.edges_mm[0][i, c], grid.edges_mm[1][i, c]) for c in here]
            twin = slow_interval(mass[i, here].tolist(), edges, level)
            assert found[i] == pytest.approx(twin, abs=1e-12)


def test_the_interval_by_hand() -> None:
    mass = [[0.1, 0.5, 0.3, 0.1]]
    grid = grid_of(1, 4)
    assert densest_interval(mass, grid, 0.5).tolist() == [[12, 24]]
    assert densest_interval(mass, grid, 0.8).tolist() == [[12, 36]]
    assert densest_interval(mass, grid, 1.0).tolist() == [[0, 48]]


def test_an_interval_of_a_true_distribution_covers_its_level() -> None:
    rng = np.random.default_rng(1)
    curves = rng.normal(0, 0.3, (3000, 24))
    grid = grid_of(3000, 24)
    mass = depth_mass(curves, grid, temperature=0.1)
    at = (np.cumsum(mass, axis=1) < rng.random((3000, 1))).sum(axis=1).clip(0, 23)
    z = grid.centres_mm[np.arange(3000), at]
    for level in (0.5, 0.9):
        low, high = densest_interval(mass, grid, level).T
        covered = ((low < z) & (z < high)).mean()
        assert level - 0.03 < covered  # whole cells hold at least the level


# ---- flat or not ---------------------------------------------------------------------------


def slow_statistic(curve: list[float]) -> float:
    mean = math.fsum(curve) / len(curve)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in curve) / len(curve))
    if spread == 0:
        return 0.0
    return max(
        math.sqrt(width) * (math.fsum(curve[a : a + width]) / width - mean) / spread
        for width in (1, 3, 5)
        for a in range(len(curve) - width + 1)
    )


def test_the_statistic_agrees_with_plain_loops() -> None:
    rng = np.random.default_rng(2)
    curves = rng.integers(0, 4, (500, 9)) / 4
    low = rng.integers(0, 4, 500)[:, None]
    valid = (low <= np.arange(9)) & (np.arange(9) < low + rng.integers(2, 9, 500)[:, None])
    found = peak_to_spread(curves, DepthGrid.of(np.tile(np.arange(9.0), (500, 1)), valid))
    twin = [slow_statistic(row[ok].tolist()) for row, ok in zip(curves, valid, strict=True)]
    assert np.abs(found - twin).max() <= 1e-12
    assert peak_to_spread([[0, 0, 0, 4]], grid_of(1, 4))[0] == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize("cells", [8, 16, 40])
def test_noise_is_called_localizable_as_often_as_stated(cells: int) -> None:
    rng = np.random.default_rng(3)
    p = flat_p(0.2 + 0.01 * rng.standard_normal((2000, cells)), grid_of(2000, cells))
    called = (p <= FLAT_ABOVE).mean()
    assert abs(called - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_broad_and_a_sharp_peak_are_localizable_and_a_constant_is_not() -> None:
    rng = np.random.default_rng(4)
    at = np.arange(24)
    broad = np.exp(-((at - 9) ** 2) / (2 * 2**2))  # as trained: two cells wide
    sharp = 4.0 * (at == 5)
    curves = np.stack([broad, sharp + 0.3 * rng.standard_normal(24), np.full(24, 0.7)])
    assert (flat_p(curves, grid_of(3, 24)) <= FLAT_ABOVE).tolist() == [True, True, False]
    assert flat_p(curves, grid_of(3, 24))[2] == 1.0


def test_smooth_wandering_needs_a_measured_null() -> None:
    rng = np.random.default_rng(5)

    def wander(num: int) -> np.ndarray:
        noise = rng.standard_normal((num, 28))
        return np.stack([np.convolve(row, np.ones(5), "valid") for row in noise])

    empty, null = wander(800), peak_to_spread(wander(800), grid_of(800, 24))
    grid = grid_of(800, 24)
    assert (flat_p(empty, grid) <= FLAT_ABOVE).mean() > 0.2  # white noise is no null for these
    assert (flat_p(empty, grid, null=null) <= FLAT_ABOVE).mean() == pytest.approx(0.05, abs=0.04)


def test_p_depends_on_a_curve_alone() -> None:
    rng = np.random.default_rng(6)
    curves = rng.standard_normal((60, 12))
    valid = np.arange(12) < rng.integers(3, 13, 60)[:, None]
    centres, order = np.tile(np.arange(12.0), (60, 1)), rng.permutation(60)
    whole = flat_p(curves, DepthGrid.of(centres, valid))
    moved = flat_p(5 + 3 * curves[order], DepthGrid.of(centres, valid[order]))
    np.testing.assert_allclose(whole[order], moved, atol=1e-3)
    np.testing.assert_array_equal(
        whole[order], flat_p(curves[order], DepthGrid.of(centres, valid[order]))
    )
