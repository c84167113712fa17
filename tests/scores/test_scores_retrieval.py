"""Ranks with ties against enumeration of every order, and the project's vectors."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, interval
from t3d.scores.retrieval import Ranks, chance_credit, ranks

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
    np.testing.assert_allclose(chance_credit(names, names, 5), 5 / 300, atol=1e-15)


def test_chance_is_what_random_similarities_reach() -> None:
    groups = np.repeat(np.arange(20), 2)
    rng = np.random.default_rng(0)
    tries = [ranks(rng.random((40, 40)), groups, groups).credit(5).mean() for _ in range(300)]
    chance = chance_credit(groups, groups, 5).mean()
    assert chance == pytest.approx(1 - (35 * 34) / (40 * 39))
    assert np.mean(tries) == pytest.approx(chance, abs=4 * np.std(tries) / np.sqrt(300))


def test_intervals_of_recall_equal_the_bootstrap_vector() -> None:
    places = np.array((0, 3, 12, 0, 60, 7, 1, 200, 5, 9))
    found = Ranks(above=places, tied=np.ones(10, dtype=int), right=np.ones(10, dtype=int))
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
