"""1,000 random tables with ties, one class, siblings and unstated labels, against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

import plain_loops as loops
from t3d.scores.bootstrap import Draws, mean_over_findings
from t3d.scores.clustered import clustered_auroc
from t3d.scores.confusion import MEASURES, Confusion, crg, pooled
from t3d.scores.matched import matched_auroc
from t3d.scores.missing import worst_case
from t3d.scores.resample import Resampled, judged_at, refitted
from t3d.scores.thresholds import rule_named

NUM_TABLES = 1000
FITTED: dict[str, Callable[[list[float], list[int]], float]] = {
    "youden": lambda s, y: loops.exact_best(s, y, "youden"),
    "f1": lambda s, y: loops.exact_best(s, y, "f1"),
    "ctclip_grid": loops.corner,
    "radfinder_youden": loops.first_youden,
}


@dataclass(frozen=True)
class Table:
    scores: NDArray[np.float64]  # (N, 2) probabilities, many tied, some on the grid, some NaN
    labels: NDArray[np.int64]  # (N, 2) with -1
    patients: tuple[str, ...]
    ages: NDArray[np.float64]
    sexes: tuple[str, ...]

    def filled(self) -> NDArray[np.float64]:
        return worst_case(self.scores, self.labels, bounds=(0.0, 1.0))


def same(found: float, expected: float) -> bool:
    """Equal to 1e-12, or both not defined."""
    return bool(np.isnan(found) and np.isnan(expected)) or bool(abs(found - expected) <= 1e-12)


def make_table(number: int) -> Table:
    rng = np.random.default_rng((7, number))
    num = int(rng.integers(3, 13))
    levels = (np.array([0, 10, 33, 50, 54, 98, 99]) / 99, np.arange(8) / 7, rng.random(num))
    scores = rng.choice(levels[number % 3], (num, 2))
    scores[rng.random((num, 2)) < 0.05] = np.nan
    labels = (rng.random((num, 2)) < rng.choice([0.1, 0.5, 0.8])).astype(np.int64)
    labels[rng.random((num, 2)) < 0.1] = -1
    owner = rng.integers(0, max(2, num // 2), num)
    ages = rng.integers(40, 46, num).astype(float)
    ages[rng.random(num) < 0.05] = np.nan
    return Table(
        scores=scores,
        labels=labels,
        patients=tuple(f"p{i}" for i in owner),
        ages=ages,
        sexes=tuple(rng.choice(["F", "M", ""], num, p=[0.5, 0.45, 0.05]).tolist()),
    )


def drawn_rows(table: Table, draws: Draws, draw: int) -> list[int]:
    """Row numbers of a draw, from the patients' counts."""
    order = sorted(set(table.patients))
    times = [int(draws.counts[draw, order.index(p)]) for p in table.patients]
    return [r for r, n in enumerate(times) for _ in range(n)]


def stated(table: Table, rows: list[int], finding: int) -> tuple[list[float], list[int]]:
    keep = [r for r in rows if table.labels[r, finding] >= 0]
    values = table.filled()
    return [float(values[r, finding]) for r in keep], [int(table.labels[r, finding]) for r in keep]


def counts_of(answers: Confusion, at: tuple[int, int]) -> list[float]:
    names = ("true_positive", "false_positive", "true_negative", "false_negative")
    return [float(getattr(answers, name)[at]) for name in names]


def check_rule(table: Table, draws: Draws, name: str, found: Resampled) -> None:
    rule = rule_named(name)
    for b in range(len(draws.counts)):
        rows = drawn_rows(table, draws, b)
        for f in range(2):
            scores, labels = stated(table, rows, f)
            assert same(found.auroc[b, f], loops.area(scores, labels))
            assert same(found.average_precision[b, f], loops.precision_area(scores, labels))
            if len(set(labels)) < 2:
                assert np.isnan(found.thresholds[b, f])
                assert all(np.isnan(counts_of(found.answers, (b, f))))
                continue
            threshold = FITTED[name](scores, labels)
            expected = loops.count(scores, labels, threshold, strict=rule.strict)
            assert found.thresholds[b, f] == threshold
            assert counts_of(found.answers, (b, f)) == list(expected)
            for measure, value in loops.measures(*expected).items():
                assert same(getattr(found.answers, measure)[b, f], value), measure


@pytest.mark.parametrize("part", range(10))
def test_1000_tables_score_as_plain_loops_do(part: int) -> None:
    seen = {"one class": 0, "missing": 0, "tied": 0}
    for number in range(part * NUM_TABLES // 10, (part + 1) * NUM_TABLES // 10):
        table = make_table(number)
        draws = Draws.of(table.patients, num_draws=2, seed=number)
        name = tuple(FITTED)[number % 4]
        check_rule(
            table, draws, name, refitted(table.filled(), table.labels, draws, rule_named(name))
        )
        seen["one class"] += any(
            len(set(stated(table, list(range(len(table.labels))), f)[1])) < 2 for f in (0, 1)
        )
        seen["missing"] += bool(np.isnan(table.scores).any())
        seen["tied"] += len(np.unique(table.scores[:, 0])) < len(table.scores)
    assert min(seen.values()) > 5, seen


@pytest.mark.parametrize("part", range(4))
def test_1000_tables_have_the_closed_variance_of_plain_loops(part: int) -> None:
    finite = 0
    for number in range(part * NUM_TABLES // 4, (part + 1) * NUM_TABLES // 4):
        table = make_table(number)
        values = table.filled()
        keep = np.flatnonzero(table.labels[:, 0] >= 0)
        labels = table.labels[keep, 0]
        both = np.stack([labels, labels], axis=1)
        patients = [table.patients[r] for r in keep]
        if len(set(labels.tolist())) < 2:
            continue
        found = clustered_auroc(values[keep], both, patients)
        for i, j in ((0, 0), (0, 1), (1, 1)):
            expected = loops.obuchowski(
                values[keep, i].tolist(), values[keep, j].tolist(), labels.tolist(), patients
            )
            assert same(found.covariance[i, j], expected)
            finite += np.isfinite(expected)
    assert finite > 150


@pytest.mark.parametrize("part", range(4))
def test_1000_tables_have_the_matched_auroc_of_plain_loops(part: int) -> None:
    defined = 0
    for number in range(part * NUM_TABLES // 4, (part + 1) * NUM_TABLES // 4):
        table = make_table(number)
        values, draws = table.filled(), Draws.of(table.patients, num_draws=2, seed=number)
        width, weighting = (0.0, 2.0)[number % 2], ("pairs", "cases")[number // 2 % 2]
        found = matched_auroc(
            values,
            table.labels,
            draws,
            age_years=table.ages,
            sex=table.sexes,
            width_years=width,
            weighting="cases" if weighting == "cases" else "pairs",
        )
        for b, rows in enumerate(
            (range(len(values)), *(drawn_rows(table, draws, b) for b in (0, 1)))
        ):
            told = [
                (float(values[r, 0]), int(table.labels[r, 0]), float(table.ages[r]), table.sexes[r])
                for r in rows
                if table.sexes[r] and np.isfinite(table.ages[r])
            ]
            expected = loops.matched(told, width, by_case=weighting == "cases")
            value = found.values[0] if b == 0 else found.draws[b - 1, 0]
            assert same(value, expected)
            defined += np.isfinite(expected)
    assert defined > 200


def test_1000_tables_have_the_macro_micro_and_crg_of_plain_loops() -> None:
    for number in range(NUM_TABLES):
        table = make_table(number)
        num = len(table.labels)
        found = judged_at(
            table.filled(), table.labels, Draws.disabled(num), (0.5, 0.5), strict=number % 2 == 1
        ).answers
        each = [
            loops.count(*stated(table, list(range(num)), f), 0.5, strict=number % 2 == 1)
            for f in (0, 1)
        ]
        together = tuple(sum(one) for one in zip(*each, strict=True))
        assert same(crg(pooled(found))[0], loops.crg_score(*together))
        for measure in MEASURES:
            given = [loops.measures(*one)[measure] for one in each]
            given = [v for v in given if not np.isnan(v)]
            macro = float(mean_over_findings(getattr(found, measure))[0])
            expected = sum(given) / len(given) if given else float("nan")
            assert macro == pytest.approx(expected, abs=1e-12, nan_ok=True), measure
        micro = loops.measures(*together)
        assert pooled(found).f1[0] == pytest.approx(micro["f1"], abs=1e-12)


def test_the_order_of_rows_changes_no_bit() -> None:
    for number in range(0, NUM_TABLES, 10):
        table = make_table(number)
        values, draws = table.filled(), Draws.of(table.patients, num_draws=5, seed=1)
        turn = np.random.default_rng(number).permutation(len(values))
        ids = [table.patients[r] for r in turn]
        turned = Draws.of(ids, num_draws=5, seed=1)
        rule = rule_named(tuple(FITTED)[number // 10 % 4])
        one = refitted(values, table.labels, draws, rule)
        two = refitted(values[turn], table.labels[turn], turned, rule)
        for name in ("auroc", "average_precision", "thresholds"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        for name in MEASURES:
            np.testing.assert_array_equal(getattr(one.answers, name), getattr(two.answers, name))
        first = clustered_auroc(values, table.labels, table.patients)
        second = clustered_auroc(values[turn], table.labels[turn], ids)
        np.testing.assert_array_equal(first.covariance, second.covariance)
        np.testing.assert_array_equal(first.values, second.values)
        same = [
            matched_auroc(v, y, d, age_years=a, sex=s, weighting="cases").draws
            for v, y, d, a, s in (
                (values, table.labels, draws, table.ages, table.sexes),
                (
                    values[turn],
                    table.labels[turn],
                    turned,
                    table.ages[turn],
                    [table.sexes[r] for r in turn],
                ),
            )
        ]
        np.testing.assert_array_equal(*same)
        np.testing.assert_array_equal(draws.mean(values[:, 0]), turned.mean(values[turn, 0]))
