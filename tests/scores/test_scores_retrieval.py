"""Ranks with ties against enumeration of every order, and the project's vectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, interval
from t3d.scores.retrieval import (
    TIED_LIMIT,
    Pairing,
    Ranks,
    blind_ranks,
    exact_mean,
    median_rank,
    rank_all,
    ranks,
)
from t3d.scores.similarity import RowSimilarity

TIES = ((0.9, 0.2, 0.1), (0.5, 0.5, 0.4), (0.3, 0.6, 0.2))  # "R@K"
TWINS = ((0.7, 0.9, 0.1), (0.7, 0.9, 0.1), (0.2, 0.1, 0.8))  # "Duplicates"

TABLES = st.integers(1, 5).flatmap(
    lambda m: st.tuples(
        st.lists(st.sampled_from((0.0, 0.5, 1.0)), min_size=m, max_size=m),
        st.lists(st.integers(0, 2), min_size=m, max_size=m),
    )
)


def slow_places(scores: list[float], right: list[bool]) -> list[int]:
    """Place of the first right candidate in every order the scores allow."""
    places = []
    for order in permutations(range(len(scores))):
        falling = all(scores[a] >= scores[b] for a, b in pairwise(order))
        if falling:
            places.append(next(i for i, c in enumerate(order) if right[c]))
    return places


def test_ties_share_the_places_they_cover() -> None:
    found = ranks(TIES, (0, 1, 2), (0, 1, 2))
    np.testing.assert_array_equal(found.expected(), (0, 0.5, 2))
    np.testing.assert_array_equal(found.above, (0, 0, 2))  # optimistic
    np.testing.assert_array_equal(found.above + found.tied - 1, (0, 1, 2))  # pessimistic
    assert found.credit(1).mean() == pytest.approx(0.5)
    assert found.credit(2).mean() == pytest.approx(2 / 3)


def test_a_sibling_counts_at_study_level_and_not_strictly() -> None:
    strict = ranks(TWINS, (0, 1, 2), (0, 1, 2))
    study = ranks(TWINS, (0, 0, 2), (0, 0, 2))
    assert strict.credit(1).mean() == pytest.approx(2 / 3)
    assert study.credit(1).mean() == 1.0


@settings(max_examples=80)
@given(table=TABLES, wanted=st.integers(0, 2))
def test_every_number_equals_the_mean_over_all_orders(
    table: tuple[list[float], list[int]], wanted: int
) -> None:
    scores, groups = table
    right = [g == wanted for g in groups]
    if not any(right):
        return
    found = ranks([scores], [wanted], groups)
    places = slow_places(scores, right)
    assert found.expected()[0] == pytest.approx(np.mean(places), abs=1e-9)
    assert found.reciprocal()[0] == pytest.approx(np.mean([1 / (p + 1) for p in places]), abs=1e-9)
    for k in range(1, len(scores) + 2):
        expected = np.mean([p < k for p in places])
        assert found.credit(k)[0] == pytest.approx(expected, abs=1e-9)


def test_constant_similarity_gets_exactly_chance() -> None:
    names = np.arange(300)
    found = ranks(np.full((300, 300), 0.25), names, names)
    assert found.credit(10).mean() == pytest.approx(10 / 300, abs=1e-15)
    blind = blind_ranks(Pairing(queries=names, candidates=names))
    np.testing.assert_allclose(blind.credit(5), 5 / 300, atol=1e-15)


def test_chance_is_what_random_similarities_reach() -> None:
    groups = np.repeat(np.arange(20), 2)
    rng = np.random.default_rng(0)
    tries = [ranks(rng.random((40, 40)), groups, groups).credit(5).mean() for _ in range(300)]
    chance = blind_ranks(Pairing(queries=groups, candidates=groups)).credit(5).mean()
    assert chance == pytest.approx(1 - (35 * 34) / (40 * 39))
    assert np.mean(tries) == pytest.approx(chance, abs=4 * np.std(tries) / np.sqrt(300))


def test_intervals_of_recall_equal_the_bootstrap_vector() -> None:
    places = np.array((0, 3, 12, 0, 60, 7, 1, 200, 5, 9))
    found = Ranks(
        above=places,
        tied=np.ones(10, dtype=int),
        right=np.ones(10, dtype=int),
        before=np.zeros(10, dtype=int),
    )
    draws = Draws.of([str(i) for i in range(10)], num_draws=10_000, seed=42)
    spread = interval(draws.mean(found.credit(10)))
    assert found.credit(10).mean() == pytest.approx(0.7)
    assert (spread.low, spread.high) == (pytest.approx(0.4), pytest.approx(1.0))
    assert np.median(found.expected()) + 1 == 7
    assert found.expected().mean() + 1 == pytest.approx(30.7)


def test_a_query_without_a_right_candidate_is_refused() -> None:
    with pytest.raises(ProtocolError, match="1 of 2 queries have no right candidate"):
        ranks(((0.1, 0.2), (0.3, 0.4)), (0, 5), (0, 1))


def test_a_similarity_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ProtocolError, match="1 similarities are not finite"):
        ranks(((0.1, np.nan),), (0,), (0, 1))


def test_a_transposed_table_is_refused() -> None:
    with pytest.raises(ProtocolError, match="1 queries, 2 candidates"):
        ranks(((0.1,), (0.2,)), (0,), (0, 1))


# ---- the rules of published code, and a second implementation ------------------------------


@dataclass(frozen=True)
class Case:
    """A table with everything that may stand in a real one."""

    table: np.ndarray
    queries: list[int]
    candidates: list[int]
    query_bars: list[int]
    candidate_bars: list[int]


def random_case(rng: np.random.Generator) -> Case:
    num, many = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    candidates = rng.integers(0, 4, many)
    return Case(
        table=rng.integers(0, 3, (num, many)) / 2.0,
        queries=rng.choice(candidates, num).tolist(),
        candidates=candidates.tolist(),
        query_bars=rng.integers(0, 3, num).tolist(),
        candidate_bars=rng.integers(0, 3, many).tolist(),
    )


@dataclass
class Slow:
    """One query, from the definition: orders of the tied candidates, all equally likely."""

    higher: int
    flags: list[bool]  # of tied candidates in the pool, by index: is it right

    @classmethod
    def of(cls, case: Case, query: int, *, bars: bool) -> Slow:
        pool = []
        for c, group in enumerate(case.candidates):
            right = group == case.queries[query]
            if right or not bars or case.candidate_bars[c] != case.query_bars[query]:
                pool.append((float(case.table[query, c]), right))
        best = max(score for score, right in pool if right)
        return cls(
            higher=sum(1 for score, _ in pool if score > best),
            flags=[right for score, right in pool if score == best],
        )

    def firsts(self) -> list[int]:
        """Place of the first right one, for every way to seat the right ones."""
        seats = combinations(range(len(self.flags)), sum(self.flags))
        return [self.higher + seated[0] for seated in seats]

    def mean(self, value: Callable[[int], float]) -> float:
        firsts = self.firsts()
        return math.fsum(value(place) for place in firsts) / len(firsts)


KS = (1, 2, 5, 9)


def slow_numbers(slow: Slow) -> list[float]:
    wrong = len(slow.flags) - sum(slow.flags)
    stable = slow.higher + slow.flags.index(True)
    numbers = [slow.mean(float), slow.mean(lambda p: 1 / (p + 1))]
    numbers += [stable, slow.higher, slow.higher + wrong, slow.higher + wrong / 2]
    for k in KS:
        numbers += [slow.mean(lambda p, k=k: float(p < k)), float(stable < k)]
    return numbers


def numbers_of(found: Ranks) -> np.ndarray:
    columns = [found.expected(), found.reciprocal()]
    columns += [found.place(t) for t in ("lowest_index", "optimistic", "pessimistic", "mid")]
    for k in KS:
        columns += [found.credit(k), found.credit(k, ties="lowest_index")]
    return np.stack(columns, axis=1)


def test_a_thousand_random_tables_agree_with_plain_loops() -> None:
    rng = np.random.default_rng(10)
    for _ in range(1000):
        case = random_case(rng)
        plain = ranks(case.table, case.queries, case.candidates)
        barred = ranks(
            case.table,
            case.queries,
            case.candidates,
            query_bars=case.query_bars,
            candidate_bars=case.candidate_bars,
        )
        for found, bars in ((plain, False), (barred, True)):
            twin = [slow_numbers(Slow.of(case, i, bars=bars)) for i in range(len(case.queries))]
            assert np.abs(numbers_of(found) - twin).max() <= 1e-12


def test_published_tie_rules_give_the_projects_vector() -> None:
    found = ranks(TIES, (0, 1, 2), (0, 1, 2))
    np.testing.assert_array_equal(found.place("mid"), (0, 0.5, 2))
    np.testing.assert_array_equal(found.place("pessimistic"), (0, 1, 2))
    # columns 0 and 1 tie in row 1: a stable sort puts the wrong one first
    assert found.credit(1, ties="lowest_index").mean() == pytest.approx(1 / 3)
    assert found.credit(2, ties="lowest_index").mean() == pytest.approx(2 / 3)
    assert found.tied_share() == pytest.approx(1 / 3)


def test_radfinder_ranks_give_its_vector() -> None:
    table = ((0.9, 0.2, 0.1, 0), (0.3, 0.4, 0.5, 0.1), (0.2, 0.8, 0.7, 0.6), (0.1, 0, 0.3, 0.2))
    found = ranks(table, range(4), range(4))
    np.testing.assert_array_equal(found.place(), (0, 1, 1, 1))
    assert found.credit(1).mean() == 0.25
    assert median_rank(found.place()) == 2
    assert exact_mean(found.place() + 1) == 1.75


def test_the_two_medians_of_radfinder_differ_for_an_even_number() -> None:
    places = (0, 3, 12, 0, 60, 7, 1, 200, 5, 9)
    assert median_rank(places, middle="mean") == 7  # the vector, from its bootstrap
    assert median_rank(places) == 6  # what its task prints: torch takes the lower one
    assert median_rank(places[:9]) == median_rank(places[:9], middle="mean") == 6


# ---- embeddings in blocks ------------------------------------------------------------------


def unit(rng: np.random.Generator, num: int, dims: int) -> np.ndarray:
    rows = rng.standard_normal((num, dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def both_ways(text: np.ndarray, image: np.ndarray, groups: np.ndarray) -> list[Ranks]:
    own, bars = np.arange(len(text)), groups // 2
    pairings = [
        Pairing(
            queries=names, candidates=names, query_bars=barred, candidate_bars=barred, backward=way
        )
        for names in (own, groups)
        for barred in (None, bars)
        for way in (False, True)
    ]
    return rank_all(RowSimilarity.of(text, image, decimals=2), pairings)


def same(first: Ranks, second: Ranks, *, lowest_index: bool = True) -> None:
    names = ("above", "tied", "right", "before") if lowest_index else ("above", "tied", "right")
    for name in names:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_blocks_of_embeddings_rank_as_the_whole_table_does() -> None:
    rng = np.random.default_rng(11)
    text, image = unit(rng, 530, 12), unit(rng, 530, 12)
    image[100:110] = image[0]  # duplicates
    groups = np.arange(530) // 3
    table = np.round(text.astype(float) @ image.astype(float).T, 2)
    own, bars = np.arange(530), groups // 2
    found = iter(both_ways(text, image, groups))
    for names in (own, groups):
        for barred in (None, bars):
            for oriented in (table, table.T):
                twin = ranks(oriented, names, names, query_bars=barred, candidate_bars=barred)
                same(next(found), twin)
    assert twin.tied_share() > TIED_LIMIT


def test_the_order_of_rows_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(12)
    text, image = unit(rng, 400, 24), unit(rng, 400, 24)
    groups = rng.integers(0, 150, 400)
    order = rng.permutation(400)
    before = both_ways(text, image, groups)
    after = both_ways(text[order], image[order], groups[order])
    # pairings that name rows by index name other rows now; strict ones are 0 to 3
    for first, second in zip(before, after, strict=True):
        moved = Ranks(
            above=first.above[order],
            tied=first.tied[order],
            right=first.right[order],
            before=first.before[order],
        )
        same(moved, second, lowest_index=False)
        assert exact_mean(first.reciprocal()) == exact_mean(second.reciprocal())
        assert exact_mean(first.credit(7)) == exact_mean(second.credit(7))


def test_rows_that_are_not_asked_still_stand_in_the_pool() -> None:
    rng = np.random.default_rng(13)
    text, image = unit(rng, 30, 6), unit(rng, 50, 6)
    studies = rng.permutation(50)
    asked = np.isin(studies, np.arange(30))
    similarity = RowSimilarity.of(text, image)
    pairings = [
        Pairing(queries=np.arange(30), candidates=studies),
        Pairing(queries=studies, candidates=np.arange(30), asked=asked, backward=True),
    ]
    forward, backward = rank_all(similarity, pairings)
    table = text.astype(float) @ image.astype(float).T
    same(forward, ranks(table, np.arange(30), studies))
    same(backward, ranks(table.T[asked], studies[asked], np.arange(30)))
    with pytest.raises(ProtocolError, match="20 of 50 queries have no right candidate"):
        rank_all(similarity, [replace(pairings[1], asked=None)])


def test_constant_embeddings_get_exactly_chance() -> None:
    rng = np.random.default_rng(14)
    groups, bars = rng.integers(0, 40, 120), rng.integers(0, 20, 120)
    rows = np.ones((120, 5))
    for barred in (None, bars):
        pairing = Pairing(
            queries=groups, candidates=groups, query_bars=barred, candidate_bars=barred
        )
        found = rank_all(RowSimilarity.of(rows, rows), [pairing])[0]
        blind = blind_ranks(pairing)
        same(found, blind)
        for i in (0, 50, 119):
            right = int((groups == groups[i]).sum())
            pool = 120
            if barred is not None:
                pool -= int(((barred == barred[i]) & (groups != groups[i])).sum())
            chance = 1 - Fraction(math.comb(pool - right, 7), math.comb(pool, 7))
            assert blind.credit(7)[i] == pytest.approx(float(chance), abs=1e-14)


def test_credit_keeps_its_digits_in_large_ties() -> None:
    number = np.array([50_000])
    found = Ranks(above=number * 0, tied=number, right=number * 0 + 2, before=number * 0)
    exact = 1 - Fraction(49_990 * 49_989, 50_000 * 49_999)
    assert found.credit(10)[0] == pytest.approx(float(exact), rel=1e-11)


def test_intervals_of_the_median_rank_come_from_the_same_draws() -> None:
    places = np.array((0, 3, 12, 0, 60, 7, 1, 200, 5, 9))
    draws = Draws.of([str(i) for i in range(10)], num_draws=500, seed=42)
    drawn = np.floor(draws.median(places)) + 1
    rows = np.random.default_rng(42).integers(0, 10, (500, 10))
    np.testing.assert_array_equal(drawn, [median_rank(places[r], middle="mean") for r in rows])
