"""The order of studies: today's permutation at equal weights, shares and rounds at others."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import floor, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.learn.order import Order
from t3d.learn.recipe import Member


def made(counts: dict[str, int], weights: dict[str, float], batch: int, seed: int = 0) -> Order:
    members = [name for name, count in counts.items() for _ in range(count)]
    told = {name: Member(weight=weight) for name, weight in weights.items()}
    return Order(members, told, batch_size=batch, seed=seed, stage=1)


@pytest.mark.parametrize("weights", [{}, {"a": 1.0, "b": 1.0}, {"a": 3.0, "b": 3.0}])
def test_equal_weights_give_the_permutation_of_a_corpus_without_members(
    weights: dict[str, float],
) -> None:
    order = made({"a": 7, "b": 4}, weights, batch=4, seed=5)
    for step in range(6):  # 11 studies: 2 batches of 4 an epoch, 3 left out
        epoch, place = divmod(step, 2)
        permuted = np.random.default_rng([5, 1, 1, epoch]).permutation(11)
        assert order.rows(step).tolist() == permuted[4 * place : 4 * place + 4].tolist()


def test_an_epoch_takes_the_counts_that_a_person_works_out() -> None:
    # Shares 5 : 15 of 10 draws are 2.5 and 7.5; the shifts are .3090 and .9271.
    order = made({"a": 5, "b": 5}, {"b": 3.0}, batch=5)
    taken = [np.concatenate([order.rows(2 * epoch + i) for i in (0, 1)]) for epoch in (0, 1)]
    assert [(int((rows < 5).sum()), int((rows >= 5).sum())) for rows in taken] == [(2, 8), (3, 7)]


COUNTS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1)
WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.1, 0.5, 2.0, 7.0]))


@given(counts=COUNTS, weights=WEIGHTS, batch=st.integers(1, 5), seed=st.integers(0, 3))
def test_the_order_is_that_of_a_slow_twin(
    counts: dict[str, int], weights: dict[str, float], batch: int, seed: int
) -> None:
    batch = min(batch, sum(counts.values()))
    order = made(counts, weights, batch, seed)
    if order.weighted:
        expected = slow_twin(counts, weights, batch, seed, epochs=5)
        steps = len(expected) // batch
        assert [r for step in range(steps) for r in order.rows(step).tolist()] == expected


def slow_twin(
    counts: dict[str, int], weights: dict[str, float], batch: int, seed: int, *, epochs: int
) -> list[int]:
    """Walk through every draw; each member has a bag that is filled again when it is empty."""
    names = sorted(counts)
    first, places = 0, {}
    for name, count in counts.items():
        places[name] = list(range(first, first + count))
        first += count
    bags: dict[str, list[int]] = {name: [] for name in names}
    rounds = dict.fromkeys(names, 0)
    draws = first // batch * batch
    parts = {name: weights.get(name, 1.0) * counts[name] for name in names}
    drawn = []
    for epoch in range(epochs):
        shift = (epoch + 0.5) * (sqrt(5) - 1) / 2
        shift -= floor(shift)
        slots, low, edge = [], 0, 0.0
        for number, name in enumerate(names):
            edge += parts[name] / sum(parts.values()) * draws
            high = draws if name == names[-1] else floor(edge + shift)
            slots += [number] * (high - low)
            low = high
        for number in np.random.default_rng([seed, 1, 1, epoch]).permutation(slots):
            name = names[number]
            if not bags[name]:
                rng = np.random.default_rng([seed, 3, 1, number, rounds[name]])
                bags[name] = rng.permutation(places[name]).tolist()
                rounds[name] += 1
            drawn.append(bags[name].pop(0))
    return drawn


def test_every_member_gets_its_share_and_none_of_its_studies_comes_twice_before_all_did() -> None:
    counts, weights = {"a": 30, "b": 7, "c": 3}, {"b": 2.0, "c": 0.25}
    order = made(counts, weights, batch=8)
    draws = [int(row) for step in range(5 * 60) for row in order.rows(step)]  # 60 epochs
    total = 30 + 2 * 7 + Fraction(3, 4)
    for name, rows, part in (
        ("a", range(30), Fraction(30)),
        ("b", range(30, 37), Fraction(14)),
        ("c", range(37, 40), Fraction(3, 4)),
    ):
        mine = [row for row in draws if row in rows]
        share = float(part / total)
        for epoch in range(60):
            here = sum(row in rows for row in draws[40 * epoch : 40 * epoch + 40])
            assert here in (floor(share * 40), floor(share * 40) + 1), name
        assert abs(len(mine) - share * len(draws)) < 3, name
        for start in range(0, len(mine) - len(rows) + 1, len(rows)):
            assert sorted(mine[start : start + len(rows)]) == list(rows), name


def test_a_member_of_little_weight_comes_at_last() -> None:
    order = made({"a": 50, "b": 1}, {"b": 0.01}, batch=10)  # a share of 1 / 5001
    seen = Counter(int(row) for step in range(5 * 400) for row in order.rows(step))
    assert 2 <= seen[50] <= 6  # 4 expected of 20,000
    assert min(seen.values()) > 0


def test_a_step_does_not_depend_on_those_before_it_and_seeds_and_stages_differ() -> None:
    first, second = (made({"a": 20, "b": 5}, {"b": 4.0}, batch=6) for _ in range(2))
    told = [first.rows(step).tolist() for step in range(9)]
    assert second.rows(8).tolist() == told[8]
    assert made({"a": 20, "b": 5}, {"b": 4.0}, batch=6, seed=1).rows(0).tolist() != told[0]
    members = ["a"] * 20 + ["b"] * 5
    other = Order(members, {"b": Member(weight=4.0)}, batch_size=6, seed=0, stage=2)
    assert other.rows(0).tolist() != told[0]
