"""The three "MAP@K" against their vectors, and against loops over every order ties allow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, permutations, product

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.neighbours import (
    CTCLIP,
    CTCLIP_AS_RELEASED,
    RADFINDER,
    RADFINDER_AS_RELEASED,
    SPECTRE,
    NeighbourRules,
    blind_neighbours,
    neighbours,
)
from t3d.scores.similarity import RowSimilarity, TableSimilarity

ALL = (CTCLIP_AS_RELEASED, CTCLIP, SPECTRE, RADFINDER, RADFINDER_AS_RELEASED)
MAP_TABLE = (
    (1, 0.9, 0.8, 0.1, 0.2),
    (0.9, 1, 0.3, 0.4, 0.5),
    (0.8, 0.3, 1, 0.6, 0.7),
    (0.1, 0.4, 0.6, 1, 0),
    (0.2, 0.5, 0.7, 0, 1),
)
MAP_LABELS = ((1, 0), (1, 0), (0, 1), (1, 0), (0, 0))


def test_ctclip_gives_its_vector_as_released_and_corrected() -> None:
    rows = ((1, 0), (0.8, 0.6), (0, 1), (-1, 0))
    labels = ((1, 1, 0), (1, 0, 0), (0, 0, 0), (0, 1, 1))
    similarity = RowSimilarity.of(rows, rows)
    released = replace(CTCLIP_AS_RELEASED, ks=(1, 2, 3))
    assert neighbours(similarity, labels, released).mean() == pytest.approx(
        (0.75, 0.625, 0.546296), abs=1e-6
    )
    reset = replace(released, running=False)
    assert neighbours(similarity, labels, reset).mean() == pytest.approx(
        (0.75, 0.5, 0.388889), abs=1e-6
    )
    corrected = neighbours(similarity, labels, replace(CTCLIP, ks=(1, 2)), siblings=range(4))
    assert corrected.mean() == pytest.approx((0.333333, 0.277778), abs=1e-6)
    assert (corrected.num_queries, corrected.num_pool) == (3, 3)


def test_spectre_gives_its_vector() -> None:
    found = neighbours(TableSimilarity.of(MAP_TABLE), MAP_LABELS, replace(SPECTRE, ks=(1, 2, 5)))
    assert found.mean() == pytest.approx((0.666667, 0.416667, 0.722222), abs=1e-6)
    assert np.isfinite(found.values[:, 0]).tolist() == [True, True, False, True, False]


def test_radfinder_gives_its_vectors_with_and_without_its_bug() -> None:
    similarity = TableSimilarity.of(MAP_TABLE)
    fixed, released = (
        neighbours(similarity, MAP_LABELS, replace(rules, ks=(1, 2, 3, 5))).mean()
        for rules in (RADFINDER, RADFINDER_AS_RELEASED)
    )
    assert fixed == pytest.approx((0.5, 0.4375, 0.402778, 0.241667), abs=1e-6)
    assert released == pytest.approx((0.5, 0.4375, 0.402778, 0.366667), abs=1e-6)
    rows, labels = (
        ((1, 0), (0.8, 0.6), (0, 1), (0.6, 0.8)),
        ((1, 0, 0), (1, 1, 0), (0, 0, 1), (0, 1, 1)),
    )
    found = neighbours(RowSimilarity.of(rows, rows), labels, replace(RADFINDER, ks=(2, 3)))
    assert found.mean() == pytest.approx((0.75, 0.5))


def test_the_first_value_as_released_is_the_share_of_labelled_volumes_for_any_model() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((3039, 18)) < 0.2
    labels[~labels.any(axis=1), 0] = True
    labels[rng.permutation(3039)[:346]] = False
    rows = rng.standard_normal((3039, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = neighbours(RowSimilarity.of(rows, rows), labels, replace(CTCLIP_AS_RELEASED, ks=(1,)))
    # a volume without findings is not in the pool, so its neighbour shares none
    assert found.mean()[0] == pytest.approx(1 - 346 / 3039, abs=1e-12)


# ---- a second implementation, from the prose -----------------------------------------------


@dataclass(frozen=True)
class Case:
    table: list[list[float]]
    labels: list[tuple[int, ...]]
    siblings: list[int]


def random_case(rng: np.random.Generator) -> Case:
    num = int(rng.integers(2, 7))
    return Case(
        table=(rng.integers(0, 4, (num, num)) / 4).tolist(),
        labels=[tuple(row) for row in rng.integers(0, 2, (num, int(rng.integers(1, 4)))).tolist()],
        siblings=rng.integers(0, 4, num).tolist(),
    )


def slow_relevance(one: tuple[int, ...], two: tuple[int, ...], kind: str) -> float:
    both = sum(a and b for a, b in zip(one, two, strict=True))
    if kind == "jaccard":
        either = sum(a or b for a, b in zip(one, two, strict=True))
        return both / either if either else 0.0
    return float(one == two) if kind == "same_labels" else float(both > 0)


def slow_orders(case: Case, query: int, rules: NeighbourRules) -> Iterator[list[int]]:
    """Every list a sort may give; one, by index, where ties have a rule."""
    out = {
        "nobody": lambda c: False,
        "self": lambda c: c == query,
        "study": lambda c: case.siblings[c] == case.siblings[query],
        "patient": lambda c: case.siblings[c] == case.siblings[query],
    }[rules.left_out]
    pool = [c for c, row in enumerate(case.labels) if any(row) or rules.pool == "all"]
    kept = sorted((c for c in pool if not out(c)), key=lambda c: -case.table[query][c])
    levels = [list(g) for _, g in groupby(kept, key=lambda c: case.table[query][c])]
    end = [c for c in pool if out(c)] if rules.self_at_end else []
    choices = [permutations(g) if rules.ties == "expected" else [tuple(sorted(g))] for g in levels]
    for chosen in product(*choices):
        yield [c for group in chosen for c in group] + end


def slow_value(case: Case, query: int, order: list[int], k: int, rules: NeighbourRules) -> float:
    gains = [slow_relevance(case.labels[query], case.labels[c], rules.relevance) for c in order]
    if rules.value == "mean":
        return sum(gains[:k]) / len(gains[:k]) if gains else 0.0
    total = sum(sum(gains[: i + 1]) / (i + 1) for i, gain in enumerate(gains[:k]) if gain)
    return total / (k if rules.ap_over == "k" else max(1, min(k, int(sum(gains)))))


def slow_neighbours(case: Case, rules: NeighbourRules) -> list[list[float]]:
    rows = []
    for query, own in enumerate(case.labels):
        orders = list(slow_orders(case, query, rules))
        found = any(slow_relevance(own, case.labels[c], rules.relevance) for c in orders[0])
        if (rules.queries == "labelled" and not any(own)) or (
            rules.skip_without_positive and not found
        ):
            rows.append([math.nan] * len(rules.ks))
            continue
        values = [
            sum(slow_value(case, query, order, k, rules) for order in orders) / len(orders)
            for k in rules.ks
        ]
        if rules.running:
            values = [sum(values[: i + 1]) / (i + 1) for i in range(len(values))]
        rows.append(values)
    return rows


def test_a_thousand_random_tables_agree_with_plain_loops() -> None:
    rng = np.random.default_rng(1)
    fair = [replace(r, ties="expected", self_at_end=False) for r in ALL[:4]]
    rules = [replace(r, ks=(1, 2, 3, 7)) for r in (*ALL, *fair)]
    judged = 0
    for i in range(1000):
        case, rule = random_case(rng), rules[i % len(rules)]
        twin = np.array(slow_neighbours(case, rule))
        similarity = TableSimilarity.of(case.table)
        empty = rule.pool == "labelled" and not np.any(case.labels)
        if empty or np.isnan(twin).all():
            with pytest.raises(ProtocolError, match="is a query"):
                neighbours(similarity, case.labels, rule, siblings=case.siblings)
            continue
        found = neighbours(similarity, case.labels, rule, siblings=case.siblings)
        np.testing.assert_array_equal(np.isnan(found.values), np.isnan(twin))
        assert np.nanmax(np.abs(found.values - twin)) <= 1e-12
        judged += 1
    assert judged > 800


# ---- order, chance, intervals --------------------------------------------------------------


def cohort(rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings with duplicates, labels, and studies of one to three volumes."""
    rows = rng.standard_normal((num, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[: num // 3] = rows[num // 3 : 2 * (num // 3)]
    return rows, rng.random((num, 5)) < 0.3, rng.integers(0, num // 2, num)


def test_the_order_of_volumes_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(2)
    rows, labels, studies = cohort(rng, 90)
    names, order = np.array([f"volume{i:03d}" for i in range(90)]), rng.permutation(90)
    for rules in (*ALL, replace(CTCLIP_AS_RELEASED, ties="expected")):
        first, second = (
            neighbours(
                RowSimilarity.of(rows[o], rows[o], decimals=6),
                labels[o],
                rules,
                siblings=studies[o],
                names=list(names[o]) if rules.ties == "lowest_index" else None,
            )
            for o in (np.arange(90), order)
        )
        np.testing.assert_array_equal(first.values[order], second.values)
        np.testing.assert_array_equal(first.tied[order], second.tied)
        assert first.mean() == second.mean()
        assert first.tied.any()


def test_without_names_a_published_tie_rule_depends_on_the_order() -> None:
    rng = np.random.default_rng(3)
    rows, labels, _ = cohort(rng, 90)
    order = rng.permutation(90)
    first, second = (
        neighbours(RowSimilarity.of(rows[o], rows[o]), labels[o], SPECTRE).mean()
        for o in (np.arange(90), order)
    )
    assert first != second


def test_constant_embeddings_get_exactly_chance() -> None:
    rng = np.random.default_rng(4)
    labels, studies = rng.random((40, 3)) < 0.4, rng.integers(0, 25, 40)
    for rules in ALL:
        fair = replace(rules, ties="expected", self_at_end=False)
        same = TableSimilarity.of(np.full((40, 40), 0.25))
        constant = neighbours(same, labels, fair, siblings=studies)
        blind = blind_neighbours(labels, rules, siblings=studies)
        np.testing.assert_array_equal(constant.values, blind.values)
    shuffled = [
        neighbours(TableSimilarity.of(rng.random((40, 40))), labels, SPECTRE).mean()
        for _ in range(300)
    ]
    error = np.std(shuffled, axis=0) / math.sqrt(300)
    chance = np.array(blind_neighbours(labels, SPECTRE).mean())
    assert (np.abs(np.mean(shuffled, axis=0) - chance) < 4 * error).all()


def test_siblings_in_the_pool_are_found_by_any_model() -> None:
    rng = np.random.default_rng(5)
    studies = np.repeat(np.arange(60), 2)
    labels = (rng.random((60, 18)) < 0.2)[studies]
    rows = rng.standard_normal((60, 16))[studies]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = RowSimilarity.of(rows, rows)
    leaking = replace(CTCLIP, left_out="self")
    assert neighbours(similarity, labels, leaking).mean()[0] == 1.0
    assert neighbours(similarity, labels, CTCLIP, siblings=studies).mean()[0] < 0.4


def test_values_resample_by_patient() -> None:
    rng = np.random.default_rng(6)
    rows, labels, studies = cohort(rng, 30)
    found = neighbours(RowSimilarity.of(rows, rows), labels, RADFINDER)
    draws = Draws.of([str(s) for s in studies], num_draws=50, seed=0)
    column = found.values[:, 0]
    for drawn, weights in zip(draws.mean(column), draws.weights, strict=True):
        counted = [(w, v) for w, v in zip(weights, column, strict=True) if np.isfinite(v)]
        twin = sum(w * v for w, v in counted) / sum(w for w, _ in counted)
        assert drawn == pytest.approx(twin, abs=1e-12)


def test_rules_and_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ProtocolError, match="0 / 0"):
        replace(CTCLIP, pool="all")
    with pytest.raises(ProtocolError, match="graded relevance"):
        replace(CTCLIP, value="ap")
    with pytest.raises(ProtocolError, match="rising"):
        replace(SPECTRE, ks=(5, 1))
    similarity = TableSimilarity.of(np.eye(3))
    with pytest.raises(ProtocolError, match="no siblings are given"):
        neighbours(similarity, np.eye(3), CTCLIP)
    with pytest.raises(ProtocolError, match="labels hold"):
        neighbours(similarity, np.full((3, 2), -1), SPECTRE)
    with pytest.raises(ProtocolError, match="labels of shape"):
        neighbours(similarity, np.eye(2), SPECTRE)
    with pytest.raises(ProtocolError, match="none of 3 volumes is a query"):
        neighbours(similarity, np.zeros((3, 2)), RADFINDER)
