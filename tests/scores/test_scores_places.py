"""Places in mm and cells: vectors of the field, a slow twin, and what blind guesses get."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, interval
from t3d.scores.places import (
    PLACES,
    RADFINDER_PLACES,
    DepthGrid,
    anywhere,
    at_fractions,
    first_per_scan,
    middle,
    peaks,
    per_scan,
    place_errors,
    random_cells,
)
from t3d.scores.retrieval import exact_mean


def cells(
    num_snippets: int, num_cells: int, *, low: object = None, high: object = None
) -> DepthGrid:
    """Cells of 12 mm, the first centre at 0; low and high end the valid run."""
    at = np.arange(num_cells)
    first = np.zeros(num_snippets) if low is None else np.asarray(low)
    last = np.full(num_snippets, num_cells) if high is None else np.asarray(high)
    valid = (first[:, None] <= at) & (at <= last[:, None])
    return DepthGrid.of(np.tile(12.0 * at, (num_snippets, 1)), valid)


def pointing(chosen: object, num_cells: int) -> np.ndarray:
    return (np.asarray(chosen)[:, None] == np.arange(num_cells)).astype(float)


def test_the_projects_localization_vector() -> None:
    grid, target = cells(4, 20), 12.0 * np.array((5, 10, 3, 2))
    guess = pointing((4, 10, 7, 2), 20)
    found = place_errors(guess, grid, target, RADFINDER_PLACES)
    off, scans = found["cell_error_mm"], ("0", "0", "0", "1")
    assert (exact_mean(off), np.median(off)) == (15, 6)
    assert [found[n].mean() for n in ("exact", "within_1_cells", "within_2_cells")] == [
        0.5,
        0.75,
        0.75,
    ]
    assert per_scan(off, scans).mean() == 10
    assert per_scan(found["exact"], scans).mean() == pytest.approx(0.666667, abs=1e-6)
    blind = place_errors(middle(grid), grid, target, RADFINDER_PLACES)
    assert blind["cell_error_mm"].mean() == 54


def test_radfinders_localization_vector() -> None:
    low, high = (0, 0, 0, 8), (11, 23, 23, 31)
    grid, target = cells(4, 32, low=low, high=high), 12.0 * np.array((2, 5, 10, 12))
    guesses = {
        "model": pointing((0, 5, 9, 20), 32),
        "middle": middle(grid),
        "random": random_cells(grid),
        "expected random": anywhere(grid),
    }
    assert guesses["random"].argmax(axis=1).tolist() == [6, 19, 14, 18]
    assert guesses["middle"].argmax(axis=1).tolist() == [5, 11, 11, 19]
    found = {
        name: place_errors(guess, grid, target, RADFINDER_PLACES) for name, guess in guesses.items()
    }
    off = found["model"]["cell_error_mm"]
    assert (off.mean(), np.median(off)) == (33, 18)
    assert [found["model"][n].mean() for n in ("exact", "within_1_cells", "within_2_cells")] == [
        0.25,
        0.5,
        0.75,
    ]
    assert per_scan(off, ("0", "0", "1", "2")).mean() == 40
    assert found["middle"]["cell_error_mm"].mean() == 51
    assert found["random"]["cell_error_mm"].mean() == 84
    assert found["expected random"]["cell_error_mm"].mean() == pytest.approx(78.5)
    draws = Draws.of(["0", "1", "2", "3"], num_draws=10_000, seed=42)
    spread = interval(draws.mean(off))
    assert (spread.low, spread.high) == (pytest.approx(6), pytest.approx(75))


@pytest.mark.parametrize(
    ("num", "blind", "central"),
    [(16, 63.75, 48), (24, 95.83, 72), (32, 127.88, 96), (40, 159.9, 120)],
)
def test_baselines_on_uniform_targets(num: int, blind: float, central: float) -> None:
    grid, target = cells(num, num), 12.0 * np.arange(num)
    off = place_errors(anywhere(grid), grid, target)["error_mm"].mean()
    assert off == pytest.approx(blind, abs=0.005)
    assert off == pytest.approx(12 * (num**2 - 1) / (3 * num))
    assert place_errors(middle(grid), grid, target)["error_mm"].mean() == pytest.approx(central)


def test_the_depth_cell_vector() -> None:
    # 70 slices of 3 mm from z = 0: the crop starts 9 mm up, cell 0 is centred 4.5 mm further on
    z = (7.4, 7.6, 19.4, 19.6, 30, 100, 198, 201)
    wanted = [-1, 0, 0, 1, 1, 7, 15, -1]
    centres = 13.5 + 12.0 * np.arange(16)
    grid = DepthGrid.of(np.tile(centres, (8, 1)))
    assert grid.cells_of(z).tolist() == wanted
    falling = DepthGrid.of(np.tile(centres[::-1], (8, 1)))
    assert falling.cells_of(z).tolist() == [15 - c if c >= 0 else -1 for c in wanted]


# ---- a second implementation ---------------------------------------------------------------


def slow_errors(
    curve: list[float], centres: list[float], valid: list[bool], target: float
) -> dict[str, float]:
    """One snippet, from the definition: the mean over all cells that share the peak."""
    here = [i for i, ok in enumerate(valid) if ok]
    gaps = sorted(abs(centres[b] - centres[a]) for a, b in pairwise(here))
    middle_gap = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2
    own = -1
    for place, i in enumerate(here):
        before, after = here[max(place - 1, 0)], here[min(place + 1, len(here) - 1)]
        back = abs(centres[i] - centres[before]) or abs(centres[after] - centres[i])
        ahead = abs(centres[after] - centres[i]) or back
        rising = centres[here[1]] > centres[here[0]]
        low = centres[i] - (back if rising else ahead) / 2
        high = centres[i] + (ahead if rising else back) / 2
        if low <= target <= high and own < 0:
            own = i
    names = ("error_mm", "error_cells", "cell_error_mm", "exact", "within_12_mm", "within_24_mm")
    names = (*names, "within_1_cells", "within_2_cells")
    if own < 0:
        return dict.fromkeys(names, math.nan)
    top = max(curve[i] for i in here)
    rows = []
    for i in (i for i in here if curve[i] == top):
        mm, off = abs(centres[i] - target), abs(i - own)
        shares = (
            float(off == 0),
            float(mm <= 12),
            float(mm <= 24),
            float(off <= 1),
            float(off <= 2),
        )
        rows.append((mm, float(off), off * middle_gap, *shares))
    return {
        name: math.fsum(column) / len(rows)
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def random_snippets(
    rng: np.random.Generator, num: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    curves = rng.integers(0, 4, (num, 9)) / 4
    centres = np.cumsum(rng.uniform(3, 20, (num, 9)), axis=1) * rng.choice((-1, 1), (num, 1))
    low = rng.integers(0, 4, num)[:, None]
    valid = (low <= np.arange(9)) & (np.arange(9) < low + rng.integers(2, 6, num)[:, None])
    targets = centres[np.arange(num), rng.integers(0, 9, num)] + rng.normal(0, 5, num)
    return curves, centres, valid, targets


def test_a_thousand_random_snippets_agree_with_plain_loops() -> None:
    curves, centres, valid, targets = random_snippets(np.random.default_rng(0), 1000)
    grid = DepthGrid.of(centres, valid)
    found = place_errors(peaks(curves, grid), grid, targets)
    twins = [
        slow_errors(*row)
        for row in zip(
            curves.tolist(), centres.tolist(), valid.tolist(), targets.tolist(), strict=True
        )
    ]
    for name, column in found.items():
        twin = np.array([row[name] for row in twins])
        np.testing.assert_array_equal(np.isnan(column), np.isnan(twin))
        assert np.nanmax(np.abs(column - twin)) <= 1e-12
    assert 100 < np.isnan(twin).sum() < 900  # places outside their scan, and places inside


def test_the_order_of_snippets_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(1)
    curves, centres, valid, targets = random_snippets(rng, 200)
    order, scans = rng.permutation(200), np.array([f"scan{i}" for i in rng.integers(0, 60, 200)])
    first, second = (
        place_errors(peaks(curves[o], g), g, targets[o])
        for o in (np.arange(200), order)
        for g in (DepthGrid.of(centres[o], valid[o]),)
    )
    for name, column in first.items():
        np.testing.assert_array_equal(column[order], second[name])
        assert exact_mean(column) == exact_mean(second[name])
        np.testing.assert_array_equal(per_scan(column, scans), per_scan(second[name], scans[order]))


# ---- blind guesses -------------------------------------------------------------------------


def test_constant_curves_get_exactly_what_random_gets() -> None:
    _, centres, valid, _ = random_snippets(np.random.default_rng(2), 100)
    grid = DepthGrid.of(centres, valid)
    flat = np.full(centres.shape, 0.3) + np.random.default_rng(3).normal(0, 1e-9, centres.shape)
    np.testing.assert_array_equal(peaks(flat, grid), anywhere(grid))
    assert peaks(flat, grid, ties="first").argmax(axis=1).tolist() == valid.argmax(axis=1).tolist()


def test_random_draws_come_near_the_closed_form() -> None:
    _, centres, valid, targets = random_snippets(np.random.default_rng(4), 4000)
    grid = DepthGrid.of(centres, valid)
    drawn = place_errors(random_cells(grid), grid, targets)["error_mm"]
    exact = place_errors(anywhere(grid), grid, targets)["error_mm"]
    error = np.nanstd(drawn - exact) / math.sqrt(np.isfinite(drawn).sum())
    assert exact_mean(drawn) == pytest.approx(exact_mean(exact), abs=4 * error)


def test_a_mean_position_is_carried_over_by_its_place_in_the_scan() -> None:
    training = DepthGrid.of(np.tile(np.arange(5.0, 100, 10), (3, 1)))  # edges 0 and 100 mm
    share = training.fractions((20.0, 30.0, 40.0))
    np.testing.assert_allclose(share, (0.2, 0.3, 0.4))
    elsewhere = DepthGrid.of(
        -1000.0 - np.arange(5.0, 200, 10)[None, :]
    )  # falls, edges -1200, -1000
    guess = at_fractions(share.mean(), elsewhere)
    assert elsewhere.centres_mm[0, guess.argmax()] in (-1145.0, -1135.0)  # -1140 is their edge
    found = place_errors(guess, elsewhere, [-1141.0])
    assert found["error_mm"][0] in (4.0, 6.0)


def test_a_text_prior_points_each_snippet_elsewhere() -> None:
    grid = cells(3, 10)
    assert at_fractions((0.0, 0.5, 1.0), grid).argmax(axis=1).tolist() == [0, 4, 9]


def test_errors_use_the_real_spacing_unless_the_rules_say_otherwise() -> None:
    grid = DepthGrid.of(np.arange(0.0, 80, 8)[None, :])
    guess, target = pointing([5], 10), [17.0]
    ours, theirs = (place_errors(guess, grid, target, r) for r in (PLACES, RADFINDER_PLACES))
    assert (ours["error_mm"][0], ours["error_cells"][0]) == (23, 3)
    assert (ours["cell_error_mm"][0], theirs["cell_error_mm"][0]) == (24, 36)
    close = replace(PLACES, within_mm=(23.0,), within_cells=(3,))
    assert place_errors(guess, grid, target, close)["within_23_mm"][0] == 1


def test_one_snippet_a_scan_is_the_first_by_key() -> None:
    scans, keys = ("b", "a", "b", "a", "c"), ("9", "2", "10", "1", "5")
    assert first_per_scan(scans, keys).tolist() == [2, 3, 4]


def test_grids_and_curves_that_cannot_be_used_are_refused() -> None:
    for centres, valid in (
        ([[1.0, 2.0, 1.5]], None),
        ([[1.0, 2.0, 3.0]], [[True, False, True]]),
        ([[1.0, 2.0, 3.0]], [[True, False, False]]),
        ([[1.0, 1.0, 2.0]], None),
    ):
        with pytest.raises(ProtocolError, match="1 of 1 depth grids cannot be used"):
            DepthGrid.of(centres, valid)
    with pytest.raises(ProtocolError, match="1 of 2 depth curves are not finite"):
        peaks([[0.0, 1.0], [np.nan, 1.0]], cells(2, 2))
    with pytest.raises(ProtocolError, match="beside a grid"):
        peaks([[0.0, 1.0, 2.0]], cells(1, 2))
