"""The closed form: DeLong with one study a patient, the bootstrap's spread with siblings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, mean_over_findings
from t3d.scores.clustered import Estimate, clustered_auroc
from t3d.scores.resample import judged_at


def delong(first: NDArray[np.float64], second: NDArray[np.float64], labels: list[int]) -> float:
    """Covariance of two AUROCs of independent rows, from the sample covariances of placements."""
    structural = []
    for scores in (first, second):
        pos = [s for s, y in zip(scores, labels, strict=True) if y == 1]
        neg = [s for s, y in zip(scores, labels, strict=True) if y == 0]
        kernel = [[1.0 if x > z else 0.5 if x == z else 0.0 for z in neg] for x in pos]
        rows = [sum(row) / len(neg) for row in kernel]
        columns = [sum(row[j] for row in kernel) / len(pos) for j in range(len(neg))]
        structural.append((rows, columns))
    total = 0.0
    for one, two in zip(*structural, strict=True):
        mean_one, mean_two = sum(one) / len(one), sum(two) / len(two)
        products = [(a - mean_one) * (b - mean_two) for a, b in zip(one, two, strict=True)]
        total += sum(products) / (len(one) - 1) / len(one)
    return total


def cohort(
    seed: int, *, patients: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.int64], list[str]]:
    """Two findings, two models each, three agreeing volumes a patient."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((patients, 2)) < 0.3).astype(np.int64)
    truth = np.repeat(labels, 3, axis=0)
    shared = np.repeat(rng.normal(size=(patients, 2)), 3, axis=0)
    models = [truth * gain + shared + 0.5 * rng.normal(size=truth.shape) for gain in (1.2, 1.0)]
    return (
        np.concatenate(models, axis=1),
        np.concatenate([truth, truth], axis=1),
        [f"p{i:04}" for i in range(patients) for _ in range(3)],
    )


def test_four_rows_have_the_variance_that_a_hand_finds() -> None:
    scores, labels = [[1.0], [3.0], [2.0], [4.0]], [[0], [0], [1], [1]]
    found = clustered_auroc(scores, labels, ["a", "b", "c", "d"])
    assert found.values[0] == 0.75
    assert found.covariance[0, 0] == pytest.approx(0.125, abs=1e-15)
    two = clustered_auroc(scores, labels, ["a", "a", "b", "b"])
    assert math.isnan(two.covariance[0, 0])
    assert two.patients.tolist() == [[1], [1]]


def test_one_row_a_patient_is_delong() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = [1, 1, 0, 0, *(rng.random(20) < 0.4).astype(int).tolist()]
        scores = np.round(rng.normal(size=(24, 2)), 1)
        found = clustered_auroc(
            scores, np.array([labels, labels]).T, [str(i) for i in range(len(labels))]
        )
        for i, j in ((0, 0), (0, 1), (1, 1)):
            expected = delong(scores[:, i], scores[:, j], labels)
            assert found.covariance[i, j] == pytest.approx(expected, abs=1e-12)


def test_errors_and_correlations_agree_with_draws_of_patients() -> None:
    scores, labels, ids = cohort(2)
    found = clustered_auroc(scores, labels, ids)
    drawn = judged_at(
        scores, labels, Draws.of(ids, num_draws=4000, seed=0), np.full(4, np.inf)
    ).auroc
    by_draws = np.cov(drawn.T)
    np.testing.assert_allclose(np.diag(found.covariance), np.diag(by_draws), rtol=0.1)
    own = found.covariance / np.sqrt(np.outer(*[np.diag(found.covariance)] * 2))
    np.testing.assert_allclose(own, np.corrcoef(drawn.T), atol=0.06)
    macro = mean_over_findings(drawn[:, :2])
    assert found.mean([0, 1]).error == pytest.approx(macro.std(), rel=0.05)
    gap = macro - mean_over_findings(drawn[:, 2:])
    assert found.difference([0, 1], [2, 3]).error == pytest.approx(gap.std(), rel=0.05)


def test_siblings_taken_for_independent_make_the_error_too_small() -> None:
    scores, labels, ids = cohort(3)
    by_patient = clustered_auroc(scores, labels, ids).mean().error
    by_volume = clustered_auroc(scores, labels, [str(i) for i in range(len(ids))]).mean().error
    assert by_patient > 1.4 * by_volume


def test_a_finding_without_a_class_has_no_value_and_leaves_the_mean_alone() -> None:
    scores, labels, ids = cohort(4, patients=40)
    labels[:, 1] = 0
    found = clustered_auroc(scores[:, :2], labels[:, :2], ids)
    assert math.isnan(found.values[1])
    assert math.isnan(found.column(1).error)
    assert found.mean().value == found.values[0]
    assert found.mean().error == found.column(0).error
    nothing = clustered_auroc(scores[:, :1], labels[:, 1:2], ids)
    assert math.isnan(nothing.mean().value)


def test_intervals_of_an_estimate_are_those_of_a_hand() -> None:
    told = Estimate(value=0.8, error=0.05)
    assert told.interval("wald") == pytest.approx((0.702002, 0.897998), abs=1e-6)
    reach = 1.959963984540054 * 0.05 / 0.16
    expected = [1 / (1 + math.exp(-math.log(4) - sign * reach)) for sign in (-1, 1)]
    assert told.interval() == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx([0.684344, 0.880669], abs=1e-6)
    assert Estimate(value=1.0, error=0.0).interval() == (1.0, 1.0)


def test_a_difference_of_two_errors_has_a_p_of_five_percent() -> None:
    told = Estimate(value=0.098, error=0.05)
    assert told.p_value == pytest.approx(0.05, abs=1e-4)
    assert Estimate(value=0.0, error=0.0).p_value == 1.0
    assert math.isnan(Estimate(value=0.1, error=math.nan).p_value)


def test_ids_of_another_length_are_refused() -> None:
    with pytest.raises(ProtocolError, match="3 patient ids beside 2 rows"):
        clustered_auroc([[0.1], [0.2]], [[0], [1]], ["a", "b", "c"])
