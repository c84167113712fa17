"""The terms of a report: which are kept, and their predictability weight against a slow twin."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import sparse

from t3d.errors import CheckpointError, RecipeError
from t3d.text import terms as terms_module
from t3d.text.terms import TermTable, frequency_bounds, predictability_weight

Matrix = list[list[float]]

# ---- the slow twin: plain loops, written from the definition ---------------------------------


def columns(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def standardised(column: list[float]) -> list[float]:
    mean = sum(column) / len(column)
    spread = math.sqrt(sum((x - mean) ** 2 for x in column) / len(column))
    return [(x - mean) / spread if spread > 0 else 0.0 for x in column]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def jacobi(symmetric: Matrix) -> list[tuple[float, list[float]]]:
    """Eigenvalues and eigenvectors by Jacobi rotations, largest first."""
    n = len(symmetric)
    a = [row[:] for row in symmetric]
    v = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(60):
        for p in range(n):
            for q in range(p + 1, n):
                if abs(a[p][q]) < 1e-14:
                    continue
                angle = 0.5 * math.atan2(2 * a[p][q], a[q][q] - a[p][p])
                c, s = math.cos(angle), math.sin(angle)
                for matrix in (a, v):
                    for row in matrix:
                        row[p], row[q] = c * row[p] - s * row[q], s * row[p] + c * row[q]
                for k in range(n):
                    a[p][k], a[q][k] = c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]
    pairs = [(a[i][i], [v[k][i] for k in range(n)]) for i in range(n)]
    return sorted(pairs, key=lambda pair: -pair[0])


def left_vectors(matrix: Matrix, rank: int) -> Matrix:
    """Left singular vectors of the standardised matrix, each as a list of N numbers."""
    x = [standardised(column) for column in columns(matrix)]
    found = []
    for value, vector in jacobi([[dot(a, b) for b in x] for a in x])[:rank]:
        if value > 1e-9:
            along = [
                sum(v * c[n] for v, c in zip(vector, x, strict=True)) for n in range(len(x[0]))
            ]
            found.append([number / math.sqrt(value) for number in along])
    return found


def slow_weight(presence: Matrix, findings: Matrix, impression: Matrix) -> list[float]:
    num = len(presence)
    left = left_vectors(findings, max(1, min(250, 250 * num // 3000)))
    right = left_vectors(impression, max(1, min(120, 120 * num // 3000)))
    cross = [[dot(a, b) for b in right] for a in left]
    directions = []
    for value, mix in jacobi([[dot(a, b) for b in cross] for a in cross])[: len(right)][:40]:
        along = [sum(m * u[n] for m, u in zip(mix, left, strict=True)) for n in range(num)]
        directions.append((math.sqrt(max(value, 0.0)), along))
    raw = []
    for column in columns(presence):
        term = standardised(column)
        raw.append(
            sum(
                (rho * dot(term, standardised(along)) / num) ** 2
                for rho, along in directions
                if rho > 1e-9
            )
        )
    mean = sum(raw) / len(raw)
    return [min(value / mean, 6.0) for value in raw]


def draw(num: int, width: int, hidden: np.ndarray, seed: int) -> np.ndarray:
    """Columns of 0 and 1 that depend on hidden causes."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((hidden.shape[1], width))
    return (hidden @ mixing + rng.standard_normal((num, width)) > 0.3).astype(float)


def weigh(presence: np.ndarray, findings: np.ndarray, impression: np.ndarray) -> np.ndarray:
    first, second, third = (sparse.csr_array(m) for m in (presence, findings, impression))
    return predictability_weight(first, second, third, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_weight_equals_its_slow_twin(seed: int) -> None:
    num = 110
    hidden = np.random.default_rng(seed).standard_normal((num, 3))
    presence, findings, impression = (
        draw(num, width, hidden, seed + k) for k, width in ((10, 14), (20, 12), (30, 9))
    )
    expected = slow_weight(presence.tolist(), findings.tolist(), impression.tolist())
    np.testing.assert_allclose(weigh(presence, findings, impression), expected, rtol=1e-7)
    assert max(expected) > 1.2 * min(expected)


def test_a_weight_that_can_be_checked_by_hand() -> None:
    """The shared n-gram explains itself and nothing of an uncorrelated term."""
    shared = np.array([[1, 1, 0, 0, 1, 1, 0, 0]], float).T
    other = np.array([[1, 0, 1, 0, 1, 0, 1, 0]], float).T
    np.testing.assert_allclose(
        weigh(np.hstack([shared, other]), shared, shared), [2.0, 0.0], atol=1e-12
    )


def test_a_weight_is_capped_at_six_times_the_mean() -> None:
    shared = np.array([[1, 1, 0, 0, 1, 1, 0, 0]], float).T
    other = np.array([[1, 0, 1, 0, 1, 0, 1, 0]], float).T
    presence = np.hstack([shared, *([other] * 9)])
    np.testing.assert_allclose(weigh(presence, shared, shared), [6.0] + [0.0] * 9, atol=1e-12)


def test_the_iterated_decomposition_equals_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    num = 600
    hidden = np.random.default_rng(0).standard_normal((num, 8))
    presence, findings, impression = (
        draw(num, width, hidden, k) for k, width in ((1, 40), (2, 120), (3, 70))
    )
    dense = weigh(presence, findings, impression)
    monkeypatch.setattr(terms_module, "_DENSE_SIDE", 10)
    np.testing.assert_allclose(weigh(presence, findings, impression), dense, rtol=1e-6)


def test_the_weight_does_not_depend_on_the_seed_and_two_runs_agree_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terms_module, "_DENSE_SIDE", 10)
    hidden = np.random.default_rng(0).standard_normal((600, 8))
    matrices = [sparse.csr_array(draw(600, 60, hidden, k)) for k in range(3)]
    first = predictability_weight(*matrices, seed=0)
    assert np.array_equal(first, predictability_weight(*matrices, seed=0))
    np.testing.assert_allclose(predictability_weight(*matrices, seed=9), first, rtol=1e-6)


def test_sections_that_share_nothing_give_every_term_the_weight_one() -> None:
    constant = np.ones((8, 1))
    np.testing.assert_array_equal(weigh(np.eye(8), constant, constant), np.ones(8))


# ---- the table -------------------------------------------------------------------------------

FINDINGS = [["no effusion"], ["a nodule"], ["no effusion", "a nodule"], ["no change"]]
IMPRESSION = [["effusion"], ["nodule"], ["nodule"], []]


def table(**changes: object) -> TermTable:
    settings = {"min_reports": 2, "max_share": 0.7, "weighted": False, "seed": 0} | changes
    return TermTable.fit(FINDINGS, IMPRESSION, **settings)  # type: ignore[arg-type]


def test_terms_come_from_both_sections_and_lie_between_the_bounds() -> None:
    """`no` and `effusion` are in 3 and 2 of 4 reports; `no` is above the share of 0.7."""
    found = table()
    assert found.terms == ("a", "a nodule", "effusion", "no effusion", "nodule")
    np.testing.assert_allclose(found.prevalence, [0.5, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(found.weight, np.ones(5))
    assert "no" in table(max_share=0.75).terms


def test_targets_mark_the_terms_of_a_report_at_report_level() -> None:
    row = table().targets(["A nodule is new.", "No change"])
    assert row.dtype == np.uint8
    assert row.tolist() == [1, 1, 0, 0, 1]
    assert table().targets([]).tolist() == [0] * 5


def test_the_prevalence_is_the_mean_of_the_targets() -> None:
    found = table(min_reports=1, max_share=1.0)
    rows = [found.targets([*f, *i]) for f, i in zip(FINDINGS, IMPRESSION, strict=True)]
    np.testing.assert_allclose(np.mean(rows, axis=0), found.prevalence)


def test_without_any_impression_every_weight_is_one() -> None:
    found = TermTable.fit(
        FINDINGS, [[], [], [], []], min_reports=1, max_share=1.0, weighted=True, seed=0
    )
    np.testing.assert_array_equal(found.weight, np.ones(len(found)))


def test_what_the_impression_repeats_weighs_more_than_what_it_does_not() -> None:
    rng = np.random.default_rng(0)
    flags = rng.random((400, 2)) < 0.5
    findings = [
        ["nodule seen" if a else "clear lungs", "old rib" if b else "straight spine"]
        for a, b in flags
    ]
    impression = [["nodule"] if a else ["normal"] for a, _ in flags]
    found = TermTable.fit(
        findings, impression, min_reports=20, max_share=0.9, weighted=True, seed=0
    )
    weight = dict(zip(found.terms, found.weight, strict=True))
    assert weight["nodule seen"] > 1.0 > 0.1 > weight["old rib"]
    assert found.weight.mean() == pytest.approx(1.0)


def test_bounds_scale_with_the_corpus() -> None:
    assert frequency_bounds(3000) == (20, pytest.approx(2600 / 3000))
    assert frequency_bounds(300)[0] == 2
    assert frequency_bounds(30)[0] == 2
    assert frequency_bounds(24_000)[0] == 160


def test_a_table_survives_the_way_through_json() -> None:
    found = table()
    again = TermTable.from_json(found.to_json())
    assert again.terms == found.terms
    np.testing.assert_array_equal(again.prevalence, found.prevalence)
    np.testing.assert_array_equal(again.weight, found.weight)
    assert again.targets(["a nodule"]).tolist() == found.targets(["a nodule"]).tolist()


@pytest.mark.parametrize(
    "text", ["", "{}", json.dumps({"terms": ["a"], "prevalence": [0.5], "weight": []})]
)
def test_json_that_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="term table"):
        TermTable.from_json(text)


@pytest.mark.parametrize(
    ("changes", "found"),
    [({"min_reports": 9}, "no n-gram occurs in 9"), ({"max_share": 0.0}, "max_share 0.0")],
)
def test_bounds_that_leave_nothing_are_refused(changes: dict[str, float], found: str) -> None:
    with pytest.raises(RecipeError, match=found):
        table(**changes)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(RecipeError, match="1 findings, 0 impressions"):
        TermTable.fit([["a"]], [], min_reports=1, max_share=1.0, weighted=False, seed=0)
