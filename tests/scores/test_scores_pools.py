"""Pools of published code by their vectors, and the closed form against every partition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, interval
from t3d.scores.pools import RADFINDER_POOLS, SPECTRE_POOLS, expected_in_pools, partitions
from t3d.scores.retrieval import Ranks, exact_mean, ranks
from t3d.scores.similarity import RowSimilarity, TableSimilarity

TEXTS = (
    (0.9, 0.1, 0, 0, 0),
    (0.6, 0.5, 0, 0, 0),
    (0, 0, 1, 0, 0),
    (0, 0, 0, 0.2, 0.3),
    (0, 0, 0, 0, 1),
)
BOTH = (SPECTRE_POOLS, RADFINDER_POOLS)


def test_published_pools_give_their_vectors() -> None:
    rows = np.array(TEXTS) / np.linalg.norm(TEXTS, axis=1, keepdims=True)
    similarity = RowSimilarity.of(rows, np.eye(5))
    kept, dropped = (
        partitions(similarity, replace(rules, sizes=(2,), ks=(1,), num_repeats=3)) for rules in BOTH
    )
    np.testing.assert_allclose(kept.recall[0, 0], (1, 1, 0.8))
    assert kept.mean()[0, 0] == pytest.approx(0.933333, abs=1e-6)
    assert dropped.mean()[0, 0] == pytest.approx(0.916667, abs=1e-6)
    low, high = kept.spread()[:, 0, 0]
    assert (low, high) == (pytest.approx(0.81), 1.0)  # percentiles of .8, 1, 1


def slow_recall(table: np.ndarray, order: list[int], size: int, k: int, *, keep: bool) -> float:
    """R@K of one partition; a tie with a lower place in the pool comes first."""
    hits = asked = 0
    for at in range(0, len(order), size):
        pool = order[at : at + size]
        if len(pool) < size and not keep:
            continue
        for place, query in enumerate(pool):
            own = table[query][query]
            ahead = sum(
                table[query][other] > own or (table[query][other] == own and i < place)
                for i, other in enumerate(pool)
            )
            hits += ahead < k
            asked += 1
    return hits / asked


@pytest.mark.parametrize("rules", BOTH)
def test_partitions_agree_with_plain_loops(rules: object) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 6, (23, 23)) / 6
    wanted = replace(rules, sizes=(4, 7), ks=(1, 3), num_repeats=5)  # type: ignore[type-var]
    found = partitions(TableSimilarity.of(table), wanted)
    generator = np.random.default_rng(42)
    for repeat in range(5):
        order = np.arange(23)
        generator.shuffle(order)  # as both sources do
        for s, size in enumerate((4, 7)):
            for j, k in enumerate((1, 3)):
                keep = wanted.short_pool == "keep"
                twin = slow_recall(table, order.tolist(), size, k, keep=keep)
                assert found.recall[s, j, repeat] == pytest.approx(twin, abs=1e-12)


# ---- the closed form -----------------------------------------------------------------------


def slow_in_pools(table: np.ndarray, query: int, size: int, k: int) -> float:
    """Mean over all pools with the query and all orders of ties, by enumeration."""
    others = [c for c in range(len(table)) if c != query]
    own = table[query][query]
    shares = []
    for pool in combinations(others, size - 1):
        above = sum(table[query][c] > own for c in pool)
        tied = sum(table[query][c] == own for c in pool)
        shares.append(sum(above + place < k for place in range(tied + 1)) / (tied + 1))
    return math.fsum(shares) / len(shares)


def strict(table: np.ndarray) -> Ranks:
    return ranks(table, range(len(table)), range(len(table)))


def test_the_closed_form_is_the_mean_over_every_pool() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        num = int(rng.integers(2, 9))
        table = rng.integers(0, 4, (num, num)) / 4
        size, k = int(rng.integers(1, num + 1)), int(rng.integers(1, 4))
        found = expected_in_pools(strict(table), num, size=size, k=k)
        twin = [slow_in_pools(table, query, size, k) for query in range(num)]
        assert np.abs(found - twin).max() <= 1e-12


def all_partitions(num: int) -> Iterator[list[int]]:
    for order in permutations(range(num)):
        yield list(order)


def test_the_closed_form_is_the_mean_over_every_partition() -> None:
    table = np.random.default_rng(2).random((5, 5))  # no ties: both tie rules agree
    for rules in BOTH:
        keep = rules.short_pool == "keep"
        means = [slow_recall(table, order, 2, 1, keep=keep) for order in all_partitions(5)]
        found = expected_in_pools(strict(table), 5, size=2, k=1, short_pool=rules.short_pool)
        assert exact_mean(found) == pytest.approx(math.fsum(means) / len(means), abs=1e-12)


def test_the_number_by_hand() -> None:
    found = Ranks(
        above=np.array([1, 0]),
        tied=np.array([1, 3]),
        right=np.array([1, 1]),
        before=np.array([0, 0]),
    )
    credit = expected_in_pools(found, 5, size=2, k=1)
    np.testing.assert_allclose(credit, (3 / 4, (1 + 3 / 4 + 1 / 2) / 3), atol=1e-14)


def test_many_repeats_come_near_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    table = rng.random((40, 40)) + 0.8 * np.eye(40)
    for rules in BOTH:
        dealt = partitions(
            TableSimilarity.of(table), replace(rules, sizes=(16,), ks=(1, 8), num_repeats=800)
        )
        for j, k in enumerate((1, 8)):
            exact = exact_mean(
                expected_in_pools(strict(table), 40, size=16, k=k, short_pool=rules.short_pool)
            )
            error = dealt.recall[0, j].std() / math.sqrt(800)
            assert dealt.recall[0, j].mean() == pytest.approx(exact, abs=4 * error)


def test_constant_embeddings_get_exactly_chance() -> None:
    found = strict(np.ones((200, 200)))
    credit = expected_in_pools(found, 200, size=32, k=8)
    np.testing.assert_allclose(credit, 8 / 32, atol=1e-13)
    same = partitions(
        TableSimilarity.of(np.ones((200, 200))),
        replace(RADFINDER_POOLS, ties="expected", num_repeats=2),
    )
    np.testing.assert_allclose(
        same.recall[:, :, 0], [[k / n for k in (1, 8)] for n in (32, 64, 128)]
    )


def test_the_whole_set_as_one_pool_gives_plain_recall() -> None:
    table = np.random.default_rng(4).integers(0, 9, (30, 30)) / 9
    found = strict(table)
    credit = expected_in_pools(found, 30, size=30, k=3)
    np.testing.assert_allclose(credit, found.credit(3), atol=1e-12)


def test_the_spread_over_partitions_is_narrower_than_the_interval_over_patients() -> None:
    rng = np.random.default_rng(5)
    patients = np.repeat(np.arange(60), 3)  # three studies each, found or missed together
    table = rng.random((180, 180)) + np.diag((rng.random(60) < 0.5)[patients] * 1.0)
    dealt = partitions(TableSimilarity.of(table), replace(RADFINDER_POOLS, sizes=(32,), ks=(1,)))
    low, high = dealt.spread()[:, 0, 0]
    credit = expected_in_pools(strict(table), 180, size=32, k=1)
    draws = Draws.of([str(p) for p in patients], num_draws=1000, seed=0)
    clustered = interval(draws.mean(credit))
    assert high - low < 0.8 * (clustered.high - clustered.low)


def test_the_order_of_rows_does_not_change_a_bit_of_the_closed_form() -> None:
    rng = np.random.default_rng(6)
    table, order = rng.integers(0, 9, (50, 50)) / 9, rng.permutation(50)
    first, second = (
        expected_in_pools(strict(t), 50, size=8, k=2, short_pool="keep")
        for t in (table, table[np.ix_(order, order)])
    )
    np.testing.assert_array_equal(first[order], second)
    assert exact_mean(first) == exact_mean(second)
    assert Counter(first) == Counter(second)


def test_pools_that_cannot_be_dealt_are_refused() -> None:
    with pytest.raises(ProtocolError, match="for pools of 128"):
        partitions(TableSimilarity.of(np.eye(40)), RADFINDER_POOLS)
    pair = ranks(np.ones((2, 2)), (0, 0), (0, 0))
    with pytest.raises(ProtocolError, match="2 queries with several right candidates"):
        expected_in_pools(pair, 2, size=2, k=1)
