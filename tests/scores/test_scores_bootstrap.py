"""Resampling of patients: what is drawn, what intervals cover, what permutations keep."""

from __future__ import annotations

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import (
    Draws,
    interval,
    mean_over_findings,
    paired_difference,
    permutations,
)

PATIENTS = ("b", "a", "b", "c", "a", "b")


def slow_draws(patient_ids: tuple[str, ...], num: int, seed: int) -> list[list[int]]:
    """Row numbers of every draw, patient by patient."""
    patients = sorted(set(patient_ids))
    drawn = np.random.default_rng(seed).integers(0, len(patients), (num, len(patients)))
    return [
        [r for p in draw for r, owner in enumerate(patient_ids) if owner == patients[p]]
        for draw in drawn
    ]


def test_a_draw_takes_all_rows_of_a_patient_as_often_as_the_patient() -> None:
    draws = Draws.of(PATIENTS, num_draws=50, seed=7)
    for weights, rows in zip(draws.weights, slow_draws(PATIENTS, 50, 7), strict=True):
        np.testing.assert_array_equal(weights, np.bincount(rows, minlength=6))


def test_draws_do_not_depend_on_the_order_of_rows() -> None:
    order = [4, 2, 0, 5, 3, 1]
    straight = Draws.of(PATIENTS, num_draws=20, seed=1).weights
    turned = Draws.of([PATIENTS[i] for i in order], num_draws=20, seed=1).weights
    np.testing.assert_array_equal(straight[:, order], turned)


def test_mean_and_median_of_draws_equal_those_of_the_repeated_rows() -> None:
    values = np.array([3.0, 1.0, np.nan, 8.0, 1.0, 5.0])
    draws = Draws.of(PATIENTS, num_draws=60, seed=3)
    means, medians = draws.mean(values), draws.median(values)
    for rows, mean, median in zip(slow_draws(PATIENTS, 60, 3), means, medians, strict=True):
        given = [values[r] for r in rows if not np.isnan(values[r])]
        assert mean == pytest.approx(np.mean(given))
        assert median == np.median(given)


def test_a_draw_without_any_value_has_no_mean_and_no_median() -> None:
    draws = Draws.of(("a", "b"), num_draws=40, seed=0)
    values = np.array([1.0, np.nan])
    empty = draws.counts[:, 0] == 0
    assert empty.any()
    assert not empty.all()
    np.testing.assert_array_equal(np.isnan(draws.mean(values)), empty)
    np.testing.assert_array_equal(np.isnan(draws.median(values)), empty)


def test_percentiles_equal_the_project_vector_under_both_rules() -> None:
    values = np.arange(1, 1001) / 1000
    linear, order = interval(values), interval(values, rule="order_statistic")
    assert (linear.low, linear.high) == (pytest.approx(0.025975), pytest.approx(0.975025))
    assert (order.low, order.high) == (0.025, 0.975)
    assert values.mean() == pytest.approx(0.5005)


def test_draws_without_a_number_are_dropped_and_counted() -> None:
    spread = interval([1.0, np.nan, 2.0, np.nan])
    assert (spread.num_draws, spread.num_dropped) == (2, 2)
    assert 1.0 <= spread.low <= spread.high <= 2.0
    nothing = interval([np.nan, np.nan])
    assert np.isnan(nothing.low)
    assert (nothing.num_draws, nothing.num_dropped) == (0, 2)


def test_intervals_by_patient_are_wider_than_by_row_where_siblings_agree() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{i // 4}" for i in range(200)]
    values = np.repeat(rng.random(50) < 0.3, 4).astype(float)
    by_patient = interval(Draws.of(patients, num_draws=1000, seed=0).mean(values))
    rows = [f"r{i}" for i in range(200)]
    by_row = interval(Draws.of(rows, num_draws=1000, seed=0).mean(values))
    assert by_patient.high - by_patient.low > 1.5 * (by_row.high - by_row.low)


def test_the_interval_of_a_mean_covers_the_truth_about_19_times_of_20() -> None:
    rng = np.random.default_rng(5)
    patients = [str(i) for i in range(60)]
    draws = Draws.of(patients, num_draws=400, seed=0)
    hits = 0
    for _ in range(200):
        spread = interval(draws.mean(rng.normal(size=60)))
        hits += spread.low <= 0.0 <= spread.high
    assert 180 <= hits <= 198


def test_the_difference_of_paired_models_is_narrower_than_of_unpaired_ones() -> None:
    rng = np.random.default_rng(1)
    patients = [str(i) for i in range(100)]
    shared = rng.normal(size=100)
    one, two = shared + 0.05, shared + 0.01 * rng.normal(size=100)
    draws = Draws.of(patients, num_draws=1000, seed=0)
    other = Draws.of(patients, num_draws=1000, seed=1)
    paired = paired_difference(draws.mean(one), draws.mean(two))
    unpaired = paired_difference(draws.mean(one), other.mean(two))
    assert paired.low > 0.0
    assert unpaired.low < 0.0


def test_differences_need_the_same_number_of_draws() -> None:
    with pytest.raises(ProtocolError, match="same draws"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_draws_of_rows_are_the_indices_that_the_published_rule_draws() -> None:
    draws = Draws.of_rows(10, num_draws=10_000, seed=42)
    indices = np.random.default_rng(42).integers(0, 10, (10_000, 10))
    np.testing.assert_array_equal(draws.counts[-1], np.bincount(indices[-1], minlength=10))
    ranks = np.array([0, 3, 12, 0, 60, 7, 1, 200, 5, 9])  # project vector "Bootstrap"
    hits = draws.mean((ranks < 10).astype(float))
    spread = interval(hits)
    assert (ranks < 10).mean() == 0.7
    assert (spread.low, spread.high) == (pytest.approx(0.4), pytest.approx(1.0))
    np.testing.assert_allclose(hits, (ranks[indices] < 10).mean(axis=1), atol=1e-12)


def test_the_stream_of_draws_does_not_depend_on_the_size_of_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = Draws.of_rows(37, num_draws=50, seed=1).counts
    monkeypatch.setattr("t3d.scores.bootstrap._BLOCK_ELEMENTS", 100)  # two draws at once
    np.testing.assert_array_equal(whole, Draws.of_rows(37, num_draws=50, seed=1).counts)


def test_disabled_resampling_has_no_width() -> None:
    values = np.array([0.2, 0.9, 0.4])
    draws = Draws.disabled(3, num_draws=1000)
    spread = interval(draws.mean(values), rule="order_statistic")
    assert spread.low == spread.high == pytest.approx(0.5)
    assert spread.num_draws == 1000


def test_a_macro_mean_leaves_out_findings_or_draws() -> None:
    drawn = [[0.5, 0.7], [0.6, np.nan], [np.nan, np.nan]]
    np.testing.assert_allclose(mean_over_findings(drawn), [0.6, 0.6, np.nan])
    whole = mean_over_findings(drawn, drop_draws=True)
    np.testing.assert_allclose(whole, [0.6, np.nan, np.nan])
    assert interval(whole).num_dropped == 2


def test_sums_over_draws_do_not_depend_on_the_order_of_rows_in_any_bit() -> None:
    rng = np.random.default_rng(8)
    values, ids = rng.normal(size=(60, 3)), [f"p{i // 5}" for i in range(60)]
    turn = rng.permutation(60)
    straight = Draws.of(ids, num_draws=30, seed=2).total(values)
    turned = Draws.of([ids[i] for i in turn], num_draws=30, seed=2).total(values[turn])
    np.testing.assert_array_equal(straight, turned)


def test_no_rows_or_no_draws_is_refused() -> None:
    with pytest.raises(ProtocolError, match="2 draws of 0 rows"):
        Draws.of_rows(0, num_draws=2, seed=0)
    with pytest.raises(ProtocolError, match="10 draws of 0 rows"):
        Draws.of([], num_draws=10, seed=0)
    with pytest.raises(ProtocolError, match="0 draws of 1 rows"):
        Draws.of(["a"], num_draws=0, seed=0)


def test_permutations_move_patients_whole_and_only_among_their_like() -> None:
    patients = ("a", "b", "b", "c", "d", "d", "e")
    size = {p: patients.count(p) for p in patients}
    orders = permutations(patients, num=50, seed=2)
    assert len({tuple(row) for row in orders}) > 6
    for row in orders:
        assert sorted(row) == list(range(7))
        for r, source in enumerate(row):
            assert size[patients[source]] == size[patients[r]]
        givers = {p: {patients[row[r]] for r in range(7) if patients[r] == p} for p in size}
        assert all(len(one) == 1 for one in givers.values())


def test_the_same_seed_gives_the_same_draws_and_permutations() -> None:
    ids = [f"p{i % 9}" for i in range(20)]
    one, two = (Draws.of(ids, num_draws=30, seed=4).counts for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (Draws.of(ids, num_draws=30, seed=5).counts != one).any()
    np.testing.assert_array_equal(
        permutations(ids, num=5, seed=4), permutations(ids, num=5, seed=4)
    )
