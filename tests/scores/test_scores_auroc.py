"""AUROC and average precision against their definitions, known vectors and scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from t3d.errors import ProtocolError
from t3d.scores.auroc import (
    auroc,
    auroc_of_masses,
    average_precision,
    average_precision_draws,
)
from t3d.scores.bootstrap import Draws

P = (0.10, 0.40, 0.35, 0.80, 0.65, 0.20, 0.55, 0.90)  # project vectors T1
Y = (0, 0, 1, 1, 0, 0, 1, 1)

SCORED = st.lists(
    st.tuples(st.sampled_from((-1.5, -0.25, 0.0, 0.5, 2.0, 7.0)), st.booleans()),
    min_size=2,
    max_size=30,
).filter(lambda rows: len({label for _, label in rows}) == 2)


def slow_auroc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Share of pairs in order, a tie one half, pair by pair."""
    won, pairs = 0.0, 0
    for s, y in zip(scores, labels, strict=True):
        for t, z in zip(scores, labels, strict=True):
            if y == 1 and z == 0:
                pairs += 1
                won += 1.0 if s > t else 0.5 if s == t else 0.0
    return won / pairs


def slow_average_precision(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Sum of recall steps times precision, threshold by threshold."""
    total, last, area = sum(labels), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        recall = sum(called) / total
        area += (recall - last) * sum(called) / len(called)
        last = recall
    return area


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ((0.1, 0.4, 0.35, 0.8), (0, 0, 1, 1), 0.75),
        (P, Y, 0.8125),
        ((0.3, 0.5, 0.5, 0.7), (0, 1, 0, 1), 0.875),
        (
            (-0.020, -0.012, -0.006, -0.004, -0.002, 0.001, 0.004, 0.010),
            (0, 0, 1, 0, 1, 0, 1, 1),
            0.8125,
        ),
        ((1.0, 1.0, 1.0), (0, 1, 0), 0.5),
    ],
)
def test_auroc_equals_the_project_vectors(
    scores: tuple[float, ...], labels: tuple[int, ...], expected: float
) -> None:
    assert auroc(scores, labels) == pytest.approx(expected, abs=1e-12)


@given(rows=SCORED)
def test_auroc_equals_its_pairwise_definition(rows: list[tuple[float, bool]]) -> None:
    scores, labels = [s for s, _ in rows], [int(y) for _, y in rows]
    assert auroc(scores, labels) == pytest.approx(slow_auroc(scores, labels), abs=1e-12)
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(rows=SCORED)
def test_average_precision_equals_its_definition_and_scikit_learn(
    rows: list[tuple[float, bool]],
) -> None:
    scores, labels = [s for s, _ in rows], [int(y) for _, y in rows]
    found = average_precision(scores, labels)
    assert found == pytest.approx(slow_average_precision(scores, labels), abs=1e-12)
    assert found == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_average_precision_of_three_studies_is_five_sixths() -> None:
    assert average_precision((0.9, 0.8, 0.7), (1, 0, 1)) == pytest.approx(5 / 6)


@given(rows=SCORED)
def test_auroc_turns_round_with_the_sign_of_the_scores(rows: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in rows]), [int(y) for _, y in rows]
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels), abs=1e-12)


@settings(max_examples=30)
@given(rows=SCORED, seed=st.integers(0, 1000))
def test_a_draw_equals_the_score_of_the_studies_repeated(
    rows: list[tuple[float, bool]], seed: int
) -> None:
    scores, labels = np.array([s for s, _ in rows]), np.array([int(y) for _, y in rows])
    weights = np.random.default_rng(seed).integers(0, 4, (5, len(rows)))
    areas = auroc_of_masses(scores, weights * labels, weights * (1 - labels))
    precisions = average_precision_draws(scores, labels, weights)
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        again, truth = np.repeat(scores, row).tolist(), np.repeat(labels, row).tolist()
        if len(set(truth)) < 2:
            assert np.isnan(area)
            assert np.isnan(precision)
        else:
            assert area == pytest.approx(slow_auroc(again, truth), abs=1e-12)
            assert precision == pytest.approx(slow_average_precision(again, truth), abs=1e-12)


def test_many_draws_are_cut_into_blocks_without_changing_a_number() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(size=900), rng.random(900) < 0.3
    weights = rng.integers(0, 3, (3000, 900))  # more than one block of two million numbers
    positive, negative = weights * labels, weights * ~labels
    whole = auroc_of_masses(scores, positive, negative)
    assert whole[2999] == auroc_of_masses(scores, positive[2999:], negative[2999:])[0]
    assert whole[0] == auroc_of_masses(scores, positive[:1], negative[:1])[0]


def test_masses_of_permuted_labels_give_the_score_of_those_labels() -> None:
    rng = np.random.default_rng(4)
    scores, labels = rng.integers(0, 5, 40).astype(float), (rng.random(40) < 0.4).astype(int)
    moved = np.stack([labels[rng.permutation(40)] for _ in range(6)])
    found = auroc_of_masses(scores, moved == 1, moved == 0)
    expected = [slow_auroc(scores.tolist(), row.tolist()) for row in moved]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ((0.1, float("nan")), (0, 1), "1 of 2 scores are not finite"),
        ((0.1, 0.2), (1, 1), "2 positive and 0 negative"),
        ((0.1, 0.2), (0, 0), "0 positive and 2 negative"),
        ((0.1, 0.2), (0, -1), r"labels hold \[-1\]"),
        ((0.1, 0.2), (0,), r"shape \(2,\) beside labels of shape \(1,\)"),
    ],
)
@pytest.mark.parametrize("score", [auroc, average_precision])
def test_input_that_has_no_score_is_named(
    score: object, scores: tuple[float, ...], labels: tuple[int, ...], message: str
) -> None:
    assert callable(score)
    with pytest.raises(ProtocolError, match=message):
        score(scores, labels)


def test_weights_of_another_length_are_refused() -> None:
    with pytest.raises(ProtocolError, match="beside 8 rows"):
        average_precision_draws(P, Y, np.ones((3, 7)))
    with pytest.raises(ProtocolError, match="beside 8 rows"):
        auroc_of_masses(P, np.ones((3, 7)), np.ones((3, 7)))


def test_eighteen_findings_of_300_patients_resampled_1000_times_take_seconds() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(300, 18)), rng.random((300, 18)) < 0.25
    draws = Draws.of([f"p{i:03}" for i in range(300)], num_draws=1000, seed=0)
    start = time.process_time()
    for f in range(18):
        masses = (draws.weights * side for side in (labels[:, f], ~labels[:, f]))
        auroc_of_masses(scores[:, f], *masses)
    assert time.process_time() - start < 5.0
