"""Agreement between readings against plain loops and numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.text.agreement import agreement, agreement_table, pooled, wilson

Pairs = list[tuple[int | None, int | None]]
READINGS = st.lists(st.tuples(*[st.sampled_from([1, 0, None])] * 2), max_size=40)


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(8, 10)[:3] == pytest.approx((0.8, 0.4901625, 0.9433178), abs=1e-7)
    assert wilson(0, 5)[:2] == (0.0, 0.0)
    assert wilson(5, 5).high == 1.0
    assert wilson(5, 5).low == pytest.approx(1 / (1 + 1.959964**2 / 5), abs=1e-6)
    assert math.isnan(wilson(0, 0).value)


def test_the_ends_of_the_interval_are_where_the_score_test_just_rejects() -> None:
    """The definition: |share - p| = z sqrt(p (1 - p) / n) at both ends."""
    for hits, n in ((1, 7), (3, 9), (40, 50), (99, 100)):
        share, low, high, *_ = wilson(hits, n)
        for p in (low, high):
            assert abs(share - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / n), rel=1e-6)


def test_kappa_of_the_textbook_table() -> None:
    both = agreement([(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15)
    for of in ("values", "stated", "present"):
        kappa = both.kappa(of)
        assert kappa.value == pytest.approx(0.4)
        assert (kappa.low, kappa.high) == pytest.approx((0.124993, 0.617929), abs=1e-6)
        assert (kappa.hits, kappa.n) == (35, 50)


def slow_kappa(pairs: Sequence[tuple[object, object]]) -> float:
    """Cohen's kappa by counting every pair of reports."""
    agree = sum(a == b for a, b in pairs) / len(pairs)
    chance = sum(a == b for a, _ in pairs for _, b in pairs) / len(pairs) ** 2
    return math.nan if chance == 1 else (agree - chance) / (1 - chance)


@given(READINGS)
def test_precision_recall_and_kappa_are_those_of_plain_loops(pairs: Pairs) -> None:
    one = agreement(pairs)
    assert one.num_reports == len(pairs)
    for value in (1, 0):
        answered = [a == value for a, b in pairs if b == value]
        stated = [b == value for a, b in pairs if a == value]
        for ratio, held in ((one.precision(value), answered), (one.recall(value), stated)):
            assert (ratio.hits, ratio.n) == (sum(held), len(held))
            assert math.isnan(ratio.value) if not held else ratio.value == np.mean(held)
    for of, kept in (
        ("values", pairs),
        ("stated", [(a, b) for a, b in pairs if a is not None and b is not None]),
        ("present", [(a == 1, b == 1) for a, b in pairs]),
    ):
        expected = slow_kappa(kept) if kept else math.nan
        found = one.kappa(of)
        assert found.n == len(kept)
        assert found.value == pytest.approx(expected, nan_ok=True)
        assert math.isnan(expected) or -1 <= found.low <= found.value <= found.high <= 1


def test_a_missed_finding_costs_recall_and_no_precision() -> None:
    one = agreement([(1, None), (1, 1), (None, None)])
    assert (one.recall().hits, one.recall().n) == (1, 2)
    assert (one.precision().hits, one.precision().n) == (1, 1)


def test_findings_add_up() -> None:
    total = pooled([agreement([(1, 1), (0, 1)]), agreement([(1, 0), (1, 1)])])
    assert (total.recall().hits, total.recall().n) == (2, 3)
    assert (total.precision().hits, total.precision().n) == (2, 3)


def test_the_table_shows_counts_and_a_dash_where_nothing_was_counted() -> None:
    lines = agreement_table([("Nodule", agreement([(1, 1), (1, None), (None, None)]))]).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:5] == ["Nodule", "2", "0", "1/1", "1.00"]
    assert "1/2 0.50 (0.09-0.91)" in lines[1]
    assert "  -  " in lines[1]
    assert lines[2].startswith("all")
