"""Calibration: parts that add up, cells as the sources cut them, fits as scikit-learn's."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.calibration import (
    INSPECT_CELLS,
    Cells,
    brier,
    calibration_error,
    equal_width,
    fit_isotonic,
    fit_logistic,
    reliability,
    wilson,
)

TOLD = st.lists(
    st.tuples(st.sampled_from((0.0, 0.1, 1 / 9, 0.3, 0.5, 2 / 3, 0.9, 1.0)), st.booleans()),
    min_size=2,
    max_size=20,
)


def slow_pooling(p: list[float], y: list[int]) -> list[float]:
    """Isotonic regression: the largest of smallest means over all stretches that hold a level."""
    levels = sorted(set(p))
    hits = [sum(b for a, b in zip(p, y, strict=True) if a == level) for level in levels]
    rows = [sum(a == level for a in p) for level in levels]
    fitted = {}
    for k, level in enumerate(levels):
        fitted[level] = max(
            min(sum(hits[i : j + 1]) / sum(rows[i : j + 1]) for j in range(k, len(levels)))
            for i in range(k + 1)
        )
    return [fitted[level] for level in p]


def slow_error(p: list[float], y: list[int], edges: list[float], *, last_closed: bool) -> float:
    """Calibration error, cell by cell and row by row."""
    total = 0.0
    for low, high in pairwise(edges):
        mine = [
            (a, b)
            for a, b in zip(p, y, strict=True)
            if low <= a < high or (last_closed and a == high == edges[-1])
        ]
        if mine:
            share, mean = sum(b for _, b in mine) / len(mine), sum(a for a, _ in mine) / len(mine)
            total += len(mine) * abs(share - mean)
    return total / len(p)


@given(rows=TOLD)
def test_a_brier_score_is_the_sum_of_its_parts_and_each_part_is_as_defined(
    rows: list[tuple[float, bool]],
) -> None:
    p, y = [a for a, _ in rows], [int(b) for _, b in rows]
    score, miscalibration, discrimination, uncertainty = (
        float(part[0]) for part in brier(p, y, Draws.disabled(len(p)))
    )
    best = sum((a - b) ** 2 for a, b in zip(slow_pooling(p, y), y, strict=True)) / len(p)
    flat = sum((sum(y) / len(y) - b) ** 2 for b in y) / len(p)
    assert score == pytest.approx(brier_score_loss(y, p, pos_label=1), abs=1e-12)
    assert miscalibration == pytest.approx(score - best, abs=1e-12)
    assert discrimination == pytest.approx(flat - best, abs=1e-12)
    assert uncertainty == pytest.approx(flat, abs=1e-12)
    assert score == pytest.approx(miscalibration - discrimination + uncertainty, abs=1e-12)


def test_the_parts_of_four_studies_are_those_of_a_hand() -> None:
    found = brier([0.1, 0.3, 0.6, 0.8], [0, 1, 0, 1], Draws.disabled(4))
    assert [float(part[0]) for part in found] == pytest.approx([0.225, 0.1, 0.125, 0.25])


def test_a_draw_of_a_brier_score_is_that_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    p, y = np.round(rng.random(30), 1), (rng.random(30) < 0.4).astype(int)
    draws = Draws.of([f"p{i // 3}" for i in range(30)], num_draws=5, seed=0)
    found = brier(p, y, draws)
    for b, weight in enumerate(draws.weights.astype(int)):
        again = brier(np.repeat(p, weight), np.repeat(y, weight), Draws.disabled(weight.sum()))
        for part, other in zip(found, again, strict=True):
            assert part[b] == pytest.approx(other[0], abs=1e-12)


@given(rows=TOLD)
def test_a_calibration_error_is_that_of_cells_gone_through_row_by_row(
    rows: list[tuple[float, bool]],
) -> None:
    p, y = [a for a, _ in rows], [int(b) for _, b in rows]
    for cells in (equal_width(10), equal_width(3), INSPECT_CELLS):
        found = calibration_error(p, y, Draws.disabled(len(p)), cells)[0]
        expected = slow_error(p, y, cells.edges.tolist(), last_closed=cells.closed)
        assert found == pytest.approx(expected, abs=1e-12), cells.name


def test_a_certain_answer_falls_out_of_the_nine_cells_of_inspect() -> None:
    p, y, once = [1.0, 0.5], [0, 1], Draws.disabled(2)
    assert calibration_error(p, y, once, INSPECT_CELLS)[0] == 0.25
    assert calibration_error(p, y, once, equal_width(9))[0] == 0.75


def test_a_reliability_curve_says_share_count_and_both_intervals() -> None:
    p = np.repeat([0.1, 0.1, 0.8, 1.0], 25)
    y = np.repeat([0, 1, 1, 1], 25)
    ids = [f"p{i // 25}" for i in range(100)]
    low, high = reliability(p, y, Draws.of(ids, num_draws=200, seed=0), equal_width(2))
    assert (low.num, low.predicted, low.observed) == (50, pytest.approx(0.1), 0.5)
    assert (high.num, high.predicted, high.observed) == (50, pytest.approx(0.9), 1.0)
    assert low.wilson == wilson(25, 50)
    assert low.by_patient.low == 0.0  # two patients only: one of them may be drawn alone
    assert low.by_patient.high == 1.0


def test_wilson_gives_the_numbers_of_a_hand() -> None:
    assert wilson(1, 2) == pytest.approx((0.094531, 0.905469), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    for hits in (0, 3, 10):
        for bound in wilson(hits, 10):
            if 1e-9 < bound < 1 - 1e-9:  # where the share lies 1.96 errors of the bound away
                gap = abs(hits / 10 - bound)
                error = math.sqrt(bound * (1 - bound) / 10)
                assert gap == pytest.approx(1.959963984540054 * error, abs=1e-12)


def test_a_logistic_fit_of_two_studies_is_that_of_a_hand() -> None:
    fit = fit_logistic((0.0, 1.0), (0, 1))
    assert fit.slope == pytest.approx(2 * math.log(2), abs=1e-12)
    assert fit.intercept == pytest.approx(-math.log(2), abs=1e-12)
    assert fit.probability([0.0, 1.0]) == pytest.approx([1 / 3, 2 / 3])


def test_a_logistic_fit_is_the_weighted_one_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    for scale in (0.01, 1.0, 300.0):
        scores, labels = scale * (rng.normal(size=80) + 5), rng.random(80) < 0.3
        m, n = labels.sum(), (~labels).sum()
        target = np.where(labels, (m + 1) / (m + 2), 1 / (n + 2))
        twice = np.concatenate([scores, scores])[:, None] / scale
        model = LogisticRegression(C=1e12, tol=1e-12, max_iter=1000)
        model.fit(twice, np.repeat([1, 0], 80), sample_weight=np.concatenate([target, 1 - target]))
        fit = fit_logistic(scores, labels.astype(int))
        expected = model.predict_proba(scores[:, None] / scale)[:, 1]
        np.testing.assert_allclose(fit.probability(scores), expected, atol=1e-5)


@pytest.mark.parametrize(
    "scores", [np.arange(40.0), -np.arange(40.0), np.full(40, 3.0), 1e6 * np.arange(40.0)]
)
def test_a_logistic_fit_is_finite_also_where_the_scores_separate_or_say_nothing(
    scores: np.ndarray,
) -> None:
    fit = fit_logistic(scores, (np.arange(40) >= 20).astype(int))
    p = fit.probability(scores)
    assert np.isfinite([fit.slope, fit.intercept]).all()
    # at the optimum the sum of probabilities is the sum of the targets
    assert p.sum() == pytest.approx(20 * (21 / 22 + 1 / 22), abs=1e-6)


def test_an_isotonic_fit_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    scores, labels = np.round(rng.normal(size=100), 1), (rng.random(100) < 0.4).astype(int)
    model = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    asked = np.linspace(-5, 5, 401)
    np.testing.assert_allclose(
        fit_isotonic(scores, labels).probability(asked), model.predict(asked), atol=1e-12
    )
    assert fit_isotonic((1, 2, 3, 4), (0, 1, 0, 1)).shares.tolist() == [0, 0.5, 0.5, 1]


def test_the_order_of_rows_changes_no_bit_of_a_fit_or_an_error() -> None:
    rng = np.random.default_rng(4)
    p, y = rng.random(60), (rng.random(60) < 0.5).astype(int)
    ids = [f"p{i // 4}" for i in range(60)]
    turn = rng.permutation(60)
    pairs = [
        (a, b, Draws.of(c, num_draws=4, seed=0))
        for a, b, c in ((p, y, ids), (p[turn], y[turn], [ids[i] for i in turn]))
    ]
    fits = [fit_logistic(a, b) for a, b, _ in pairs]
    assert fits[0] == fits[1]
    for function in (
        lambda a, b, d: calibration_error(a, b, d, equal_width(10)),
        lambda a, b, d: np.stack(brier(a, b, d)),
    ):
        np.testing.assert_array_equal(*(function(*one) for one in pairs))


def test_what_is_no_probability_is_refused() -> None:
    once = Draws.disabled(2)
    with pytest.raises(ProtocolError, match="1 of 2 probabilities"):
        brier([0.2, 1.2], [0, 1], once)
    with pytest.raises(ProtocolError, match="not finite"):
        calibration_error(
            [0.2, math.nan], [0, 1], once, Cells(name="x", edges=np.array([0.0, 1.0]))
        )
    with pytest.raises(ProtocolError, match="0 positive"):
        fit_logistic([0.2, 0.3], [0, 0])
