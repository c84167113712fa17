"""Two models, several seeds, unsure answers and missing scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.scores.abstention import abstention, risk_at
from t3d.scores.auroc import auroc
from t3d.scores.bootstrap import Draws, interval, mean_over_findings
from t3d.scores.comparison import swap_test, variance_split, with_seeds
from t3d.scores.missing import worst_case
from t3d.scores.resample import Resampled
from t3d.scores.thresholds import RULES

SURE = st.lists(
    st.tuples(st.sampled_from((0.1, 0.2, 0.5, 0.9)), st.booleans()), min_size=1, max_size=14
)


def macro(drawn: Resampled) -> NDArray[np.float64]:
    return mean_over_findings(drawn.auroc)


def slow_risks(sure: list[float], wrong: list[int]) -> list[float]:
    """Expected share of wrong answers among the k surest, k = 1 .. N."""
    risks = []
    for k in range(1, len(sure) + 1):
        expected = 0.0
        for level in sorted(set(sure), reverse=True):
            group = [w for s, w in zip(sure, wrong, strict=True) if s == level]
            before = sum(s > level for s in sure)
            part = min(max(k - before, 0), len(group)) / len(group)
            expected += part * sum(group)
        risks.append(expected / k)
    return risks


# ---- two models ----------------------------------------------------------------------------


def two_models(gain: float, seed: int) -> tuple[NDArray[np.float64], ...]:
    rng = np.random.default_rng(seed)
    labels = np.repeat((rng.random((60, 2)) < 0.4).astype(int), 2, axis=0)
    shared = np.repeat(rng.normal(size=(60, 2)), 2, axis=0)
    models = [labels * g + shared + rng.normal(size=labels.shape) for g in (1 + gain, 1.0)]
    return models[0], np.exp(models[1]), labels  # scales of their own


IDS = [f"p{i // 2}" for i in range(120)]


def test_equal_models_have_no_difference_and_a_p_of_one() -> None:
    one, _, labels = two_models(0.0, 0)
    found = swap_test((one, np.exp(one)), labels, IDS, macro, num=50, seed=0)
    assert found.difference == 0.0
    assert (found.permuted == 0.0).all()
    assert found.p_value == 1.0


def test_a_swap_hands_over_all_rows_of_a_patient_as_ranks() -> None:
    one, two, labels = two_models(0.5, 1)
    found = swap_test((one, two), labels, IDS, macro, num=5, seed=3)
    patients = sorted(set(IDS))
    coins = np.random.default_rng(3).integers(0, 2, (6, 60), dtype=np.int32)
    ranks = [
        np.stack([[sum(v < x) + (sum(v == x) + 1) / 2 for x in v] for v in m.T], axis=1)
        for m in (one, two)
    ]
    expected = [
        np.mean([auroc(one[:, f], labels[:, f]) - auroc(two[:, f], labels[:, f]) for f in (0, 1)])
    ]
    for coin in coins[1:]:
        swapped = np.array([coin[patients.index(p)] == 1 for p in IDS])[:, None]
        first, second = np.where(swapped, ranks[1], ranks[0]), np.where(swapped, ranks[0], ranks[1])
        expected.append(
            np.mean(
                [
                    auroc(first[:, f], labels[:, f]) - auroc(second[:, f], labels[:, f])
                    for f in (0, 1)
                ]
            )
        )
    assert found.difference == pytest.approx(expected[0], abs=1e-12)
    np.testing.assert_allclose(found.permuted, expected[1:], atol=1e-12)


def test_p_is_small_where_models_differ_and_spread_out_where_they_do_not() -> None:
    one, two, labels = two_models(1.5, 2)
    assert swap_test((one, two), labels, IDS, macro, num=199, seed=0).p_value < 0.02
    null = []
    for seed in range(60):
        first, second, truth = two_models(0.0, 100 + seed)
        null.append(swap_test((first, second), truth, IDS, macro, num=39, seed=seed).p_value)
    assert 0 <= np.mean(np.array(null) <= 0.05) <= 0.15
    assert 0.35 < np.mean(null) < 0.65


def test_a_swap_can_refit_thresholds_on_scores_of_one_scale() -> None:
    one, two, labels = two_models(0.5, 3)
    found = swap_test(
        (one, np.log(two)),
        labels,
        IDS,
        lambda drawn: mean_over_findings(drawn.answers.balanced_accuracy),
        num=20,
        seed=0,
        rule=RULES["youden"],
    )
    assert np.isfinite(found.permuted).all()
    assert 0 < found.p_value <= 1


def test_models_on_other_rows_are_refused() -> None:
    one, two, labels = two_models(0.5, 3)
    with pytest.raises(ProtocolError, match="beside labels"):
        swap_test((one, two[:50]), labels, IDS, macro, num=5, seed=0)
    with pytest.raises(ProtocolError, match="2 patient ids"):
        swap_test((one, two), labels, ["a", "b"], macro, num=5, seed=0)


# ---- several trainings ---------------------------------------------------------------------


def test_an_interval_over_seeds_and_patients_covers_where_one_over_patients_does_not() -> None:
    rng = np.random.default_rng(0)
    both, patients_only = 0, 0
    for trial in range(300):
        seeds = 0.05 * rng.normal(size=(5, 1))
        study = 0.03 * rng.normal()
        drawn = seeds + study + 0.03 * rng.normal(size=400)
        for k, draws in enumerate((with_seeds(drawn, seed=trial), drawn.mean(axis=0))):
            spread = interval(draws)
            if k == 0:
                both += spread.low <= 0.0 <= spread.high
            else:
                patients_only += spread.low <= 0.0 <= spread.high
    assert both >= 0.88 * 300
    assert patients_only < both


def test_the_variance_of_draws_with_seeds_is_the_sum_of_both_parts() -> None:
    rng = np.random.default_rng(1)
    values = np.array([0.70, 0.74, 0.79])
    drawn = values[:, None] + 0.01 * rng.normal(size=20_000)
    patients, seeds = variance_split(values, drawn)
    assert patients == pytest.approx(0.0001, rel=0.05)
    assert seeds == pytest.approx(values.var(ddof=1) / 3)
    assert with_seeds(drawn, seed=0).var() == pytest.approx(patients + seeds, rel=0.05)


def test_the_seeds_of_two_values_have_the_variance_of_a_hand() -> None:
    patients, seeds = variance_split((0.7, 0.8), np.array([[0.7] * 4, [0.8] * 4]))
    assert (patients, seeds) == (pytest.approx(0.0, abs=1e-30), pytest.approx(0.0025))


def test_one_training_says_nothing_about_seeds() -> None:
    with pytest.raises(ProtocolError, match="at least two trainings"):
        with_seeds(np.zeros((1, 10)), seed=0)


# ---- unsure answers ------------------------------------------------------------------------


@given(rows=SURE)
def test_the_area_under_risk_and_coverage_is_the_mean_of_all_risks(
    rows: list[tuple[float, bool]],
) -> None:
    sure, wrong = [s for s, _ in rows], [int(w) for _, w in rows]
    found = abstention(sure, wrong, Draws.disabled(len(sure)))
    risks = slow_risks(sure, wrong)
    perfect = slow_risks([1.0 - w for w in wrong], wrong)
    # within the wrong ones of a perfect order all are wrong, so ties do not matter
    assert found.area[0] == pytest.approx(sum(risks) / len(risks), abs=1e-12)
    assert found.excess[0] == pytest.approx(sum(risks) / len(risks) - sum(perfect) / len(risks))
    assert found.error_rate[0] == pytest.approx(sum(wrong) / len(wrong))
    for coverage in (0.3, 0.5, 1.0):
        k = math.ceil(coverage * len(sure) - 1e-9)
        risk = risk_at(sure, wrong, Draws.disabled(len(sure)), coverage)[0]
        assert risk == pytest.approx(risks[k - 1], abs=1e-12)


def test_three_answers_have_the_area_of_a_hand() -> None:
    found = abstention((0.9, 0.8, 0.7), (0, 1, 0), Draws.disabled(3))
    assert found.area[0] == pytest.approx(5 / 18)
    assert found.excess[0] == pytest.approx(1 / 6)


def test_a_draw_of_answers_is_that_of_its_rows_and_equal_sureness_gives_the_error_rate() -> None:
    rng = np.random.default_rng(2)
    sure, wrong = np.round(rng.random(24), 1), (rng.random(24) < 0.3).astype(int)
    draws = Draws.of([f"p{i // 3}" for i in range(24)], num_draws=6, seed=0)
    found, risks = abstention(sure, wrong, draws), risk_at(sure, wrong, draws, 0.5)
    for b, weight in enumerate(draws.weights.astype(int)):
        again = np.repeat(sure, weight), np.repeat(wrong, weight), Draws.disabled(weight.sum())
        for part, other in zip(found, abstention(*again), strict=True):
            assert part[b] == pytest.approx(other[0], abs=1e-12)
        assert risks[b] == pytest.approx(risk_at(*again, 0.5)[0], abs=1e-12)
    flat = abstention(np.ones(24), wrong, draws)
    np.testing.assert_allclose(flat.area, flat.error_rate, atol=1e-12)


def test_a_coverage_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match="coverage 0"):
        risk_at([0.1], [0], Draws.disabled(1), 0.0)
    with pytest.raises(ProtocolError, match="2 answers beside draws of 3"):
        abstention([0.1, 0.2], [0, 1], Draws.disabled(3))


# ---- missing scores ------------------------------------------------------------------------


def test_the_worst_case_is_worse_than_any_score_that_could_have_been() -> None:
    scores = np.array([[0.2], [np.nan], [0.6], [np.nan]])
    labels = np.array([[0], [1], [1], [0]])
    assert worst_case(scores, labels)[:, 0].tolist() == pytest.approx([0.2, -0.8, 0.6, 1.6])
    assert worst_case(scores, labels, bounds=(0, 1))[:, 0].tolist() == [0.2, 0.0, 0.6, 1.0]
    assert np.isnan(scores).sum() == 2  # the input is left as it is
    worst = auroc(worst_case(scores, labels)[:, 0], labels[:, 0])
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = np.where(np.isnan(scores), rng.normal(size=scores.shape), scores)
        assert auroc(other[:, 0], labels[:, 0]) >= worst


def test_a_finding_without_any_score_is_all_wrong() -> None:
    filled = worst_case(np.full((3, 1), np.nan), np.array([[1], [0], [-1]]))
    assert auroc(filled[:2, 0], [1, 0]) == 0.0
