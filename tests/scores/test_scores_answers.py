"""Yes/no measures and thresholds against loops, known vectors and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import mean_over_findings
from t3d.scores.confusion import (
    MEASURES,
    Confusion,
    confusion,
    confusion_of_masses,
    crg,
    pooled,
)
from t3d.scores.thresholds import RULES, fit_threshold

P = (0.10, 0.40, 0.35, 0.80, 0.65, 0.20, 0.55, 0.90)  # project vectors T1
Y = (0, 0, 1, 1, 0, 0, 1, 1)

SCORED = st.lists(
    st.tuples(st.sampled_from((0.0, 0.25, 0.5, 0.75, 1.0)), st.booleans()),
    min_size=2,
    max_size=25,
).filter(lambda rows: len({label for _, label in rows}) == 2)


def slow_measures(
    scores: Sequence[float], labels: Sequence[int], threshold: float
) -> dict[str, float]:
    """Every measure from counts made one study at a time."""
    tp = fp = tn = fn = 0
    for s, y in zip(scores, labels, strict=True):
        if s >= threshold and y == 1:
            tp += 1
        elif s >= threshold:
            fp += 1
        elif y == 1:
            fn += 1
        else:
            tn += 1
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0
    f1_negative = 2 * tn / (2 * tn + fp + fn) if tn + fp + fn else 0.0
    return {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "f1": f1,
        "f1_macro": (f1 + f1_negative) / 2,
        "f1_weighted": ((tp + fn) * f1 + (tn + fp) * f1_negative) / len(labels),
        "accuracy": (tp + tn) / len(labels),
        "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
    }


@given(rows=SCORED, threshold=st.sampled_from((-1.0, 0.25, 0.6, 1.0, 2.0)))
def test_every_measure_equals_its_definition(
    rows: list[tuple[float, bool]], threshold: float
) -> None:
    scores, labels = [s for s, _ in rows], [int(y) for _, y in rows]
    found = confusion(scores, labels, threshold)
    for name, value in slow_measures(scores, labels, threshold).items():
        assert getattr(found, name)[0] == pytest.approx(value, abs=1e-12), name


@given(rows=SCORED)
def test_f1_and_accuracy_agree_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in rows]), [int(y) for _, y in rows]
    called = (scores >= 0.5).astype(int)
    found = confusion(scores, labels, 0.5)
    for name, average in (("f1", "binary"), ("f1_macro", "macro"), ("f1_weighted", "weighted")):
        expected = sk.f1_score(labels, called, average=average, zero_division=0.0)
        assert getattr(found, name)[0] == pytest.approx(expected, abs=1e-12)
    expected = sk.balanced_accuracy_score(labels, called)
    assert found.balanced_accuracy[0] == pytest.approx(expected, abs=1e-12)


def test_weights_count_a_study_as_often_as_it_was_drawn() -> None:
    weights = np.array([[2, 0, 1, 1, 0, 3, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    found = confusion(P, Y, 0.5, weights=weights)
    for b, row in enumerate(weights):
        again, truth = np.repeat(P, row).tolist(), np.repeat(Y, row).tolist()
        for name, value in slow_measures(again, truth, 0.5).items():
            assert getattr(found, name)[b] == pytest.approx(value, abs=1e-12), name


def test_a_missing_class_has_no_sensitivity_rather_than_a_zero() -> None:
    found = confusion((0.2, 0.9), (0, 0), 0.5)
    assert math.isnan(found.sensitivity[0])
    assert math.isnan(found.balanced_accuracy[0])
    assert found.specificity[0] == 0.5
    assert found.f1[0] == 0.0


def answers_of(truth: list[list[int]], called: list[list[int]]) -> Confusion:
    """Counts of (studies, findings) tables, one draw."""
    y, p = np.array(truth) == 1, np.array(called) == 1
    counts = [np.atleast_2d(side.sum(axis=0)) for side in (y & p, ~y & p, ~y & ~p, y & ~p)]
    return Confusion(
        true_positive=counts[0].astype(float),
        false_positive=counts[1].astype(float),
        true_negative=counts[2].astype(float),
        false_negative=counts[3].astype(float),
    )


CRG_TRUTH = [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]  # project vector "CRG"


@pytest.mark.parametrize(
    ("called", "score"),
    [
        ([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], 0.5294117647),
        (CRG_TRUTH, 1.0),
        ([[0] * 4] * 3, 1 / 3),
        ([[1] * 4] * 3, 1 / 3),
        ([[1 - y for y in row] for row in CRG_TRUTH], 0.2),
    ],
)
def test_crg_equals_the_project_vector_and_says_a_third_for_nothing(
    called: list[list[int]], score: float
) -> None:
    assert crg(pooled(answers_of(CRG_TRUTH, called)))[0] == pytest.approx(score, abs=1e-10)


def test_crg_of_answers_independent_of_the_truth_is_a_third_whatever_their_rate() -> None:
    for rate in (0.1, 0.35, 0.9):
        blind = Confusion(
            true_positive=np.array([rate * 30]),
            false_positive=np.array([rate * 170]),
            true_negative=np.array([(1 - rate) * 170]),
            false_negative=np.array([(1 - rate) * 30]),
        )
        assert crg(blind)[0] == pytest.approx(1 / 3, abs=1e-12)


def test_crg_without_positives_is_not_defined_and_without_negatives_zero() -> None:
    assert math.isnan(crg(pooled(answers_of([[0, 0]], [[1, 0]])))[0])
    assert crg(pooled(answers_of([[1, 1]], [[1, 0]])))[0] == 0.0


def test_the_macro_f1_of_binary_answers_counts_an_empty_class_as_zero() -> None:
    answers = answers_of([[1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]])
    truth, called = [[1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]]
    expected = sk.f1_score(truth, called, average="macro", zero_division=0.0)
    assert mean_over_findings(answers.f1)[0] == pytest.approx(expected)
    assert pooled(answers).f1[0] == pytest.approx(
        sk.f1_score(truth, called, average="micro", zero_division=0.0)
    )


def test_nan_counts_give_nan_measures_and_leave_the_pooled_ones_alone() -> None:
    nan, one = np.array([[math.nan, 2.0]]), np.array([[math.nan, 1.0]])
    answers = Confusion(
        true_positive=nan, false_positive=one, true_negative=nan, false_negative=one
    )
    for measure in MEASURES:
        assert np.isnan(getattr(answers, measure)[0, 0]), measure
    assert pooled(answers).accuracy[0] == pytest.approx(4 / 6)


def test_masses_and_labels_count_alike() -> None:
    labels = np.array(Y)
    called = np.array(P) >= 0.5
    one = confusion(P, Y, 0.5)
    two = confusion_of_masses(called, (labels == 1)[None], (labels == 0)[None])
    assert all(getattr(one, m)[0] == getattr(two, m)[0] for m in MEASURES)


def test_the_youden_threshold_of_the_project_vector_is_080() -> None:
    threshold = fit_threshold(P, Y, RULES["youden"])
    found = confusion(P, Y, threshold)
    assert threshold == 0.80
    assert (found.precision[0], found.sensitivity[0], found.specificity[0]) == (1.0, 0.5, 1.0)
    assert found.f1_weighted[0] == pytest.approx(0.733333, abs=1e-6)
    assert found.balanced_accuracy[0] == 0.75


@given(rows=SCORED)
def test_thresholds_are_the_best_of_all_candidates_and_the_highest_of_the_best(
    rows: list[tuple[float, bool]],
) -> None:
    scores, labels = [s for s, _ in rows], [int(y) for _, y in rows]
    gains = {t: slow_measures(scores, labels, t) for t in sorted(set(scores), reverse=True)}
    for rule, gain in (("youden", "balanced_accuracy"), ("f1", "f1")):
        best = max(g[gain] for g in gains.values())
        highest = next(t for t, g in gains.items() if g[gain] > best - 1e-12)
        assert fit_threshold(scores, labels, RULES[rule]) == highest


def test_the_f1_threshold_of_three_studies_is_the_lowest_score() -> None:
    assert fit_threshold((0.9, 0.8, 0.7), (1, 0, 1), RULES["f1"]) == 0.7


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_a_score_that_says_nothing_gets_a_finite_threshold_that_calls_everything(
    rule: str,
) -> None:
    assert fit_threshold((0.3, 0.3, 0.3), (0, 1, 0), RULES[rule]) == 0.3


@pytest.mark.parametrize("rule", ["youden", "f1"])
def test_a_threshold_needs_both_classes(rule: str) -> None:
    with pytest.raises(ProtocolError, match="0 positive and 3 negative"):
        fit_threshold((0.1, 0.2, 0.3), (0, 0, 0), RULES[rule])
