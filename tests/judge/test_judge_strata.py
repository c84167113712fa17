"""Results by sex, age and scanner, beside a second way of counting them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from made_aged import FINDINGS, AgedCohort, aged, of_age, oracle, table_of
from t3d.errors import ProtocolError
from t3d.judge import rules
from t3d.judge.facts import Facts, facts_of
from t3d.judge.outcome import Outcome
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.results import to_json
from t3d.judge.strata import AGE_BANDS, MIN_CLASS, by_stratum, groups_of, judged_rows
from t3d.judge.units import judge_scores

QUICK = replace(
    PLAIN,
    name="quick",
    intervals=replace(PLAIN.intervals, num_draws=50),
    num_permutations=2,
)


def judged(cohort: AgedCohort, score: object = oracle) -> Outcome:
    tables = tuple(table_of(cohort, split, score) for split in ("dev", "test"))
    return judge_scores(cohort, QUICK, tables=tables, task="supervised", column="m", facts={})


@pytest.fixture(scope="module", autouse=True)
def _one_random_model() -> Iterator[None]:
    """Floors are not looked at here, and 20 random models cost most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "NUM_RANDOM", 1)
        yield


@pytest.fixture(scope="module")
def cohort() -> AgedCohort:
    return aged({"dev": 60, "test": 210})


@pytest.fixture(scope="module")
def outcome(cohort: AgedCohort) -> Outcome:
    return judged(cohort)


@pytest.fixture(scope="module")
def facts(cohort: AgedCohort) -> Facts:
    return facts_of(cohort, "test")


def pairs_won(scores: Sequence[float], labels: Sequence[int]) -> float:
    """AUROC by comparing every positive with every negative."""
    won = total = 0.0
    for s, y in zip(scores, labels, strict=True):
        for t, z in zip(scores, labels, strict=True):
            if (y, z) == (1, 0):
                total += 1
                won += 1 if s > t else 0.5 if s == t else 0
    return won / total


def test_a_stratum_gets_what_its_own_rows_give(
    cohort: AgedCohort, outcome: Outcome, facts: Facts
) -> None:
    split = by_stratum(outcome, QUICK, facts, "sex", num_draws=50)
    sexes = {s.study_id: s.facts["sex"] for s in cohort.studies("test")}
    macro = []
    for finding in FINDINGS:
        held = outcome.table.columns
        rows = [i for i, study in enumerate(outcome.table.study_ids) if sexes[study] == "F"]
        scores = [float(held[f"score:m:{finding}"][i]) for i in rows]
        labels = [int(held[f"label:{finding}"][i]) for i in rows]
        expected = pairs_won(scores, labels)
        macro.append(expected)
        assert split.metric(f"auroc:{finding}|sex=F").value == pytest.approx(expected, abs=1e-12)
        cut = outcome.metric(f"threshold:{finding}").value
        found = [s >= cut for s, y in zip(scores, labels, strict=True) if y == 1]
        sensitivity = split.metric(f"sensitivity:{finding}|sex=F").value
        assert sensitivity == pytest.approx(sum(found) / len(found), abs=1e-12)
    assert split.metric("auroc:macro|sex=F").value == pytest.approx(np.mean(macro), abs=1e-12)


def test_a_difference_is_that_of_its_two_strata_on_the_same_draws(
    outcome: Outcome, facts: Facts
) -> None:
    split = by_stratum(outcome, QUICK, facts, "sex", num_draws=50)
    counts = split.result.counts
    large, small = ("F", "M") if counts["rows|sex=F"] >= counts["rows|sex=M"] else ("M", "F")
    gap = split.metric(f"auroc:macro|sex={small} minus {large}")
    one, two = (split.metric(f"auroc:macro|sex={sex}") for sex in (small, large))
    assert gap.value == pytest.approx(one.value - two.value)
    drawn = split.draws[f"auroc:macro|sex={small}"] - split.draws[f"auroc:macro|sex={large}"]
    assert np.allclose(split.draws[gap.name], drawn, equal_nan=True)
    assert gap.low <= gap.value <= gap.high


def test_within_a_band_of_age_the_age_says_less(cohort: AgedCohort, facts: Facts) -> None:
    age = judged(cohort, of_age)
    split = by_stratum(age, QUICK, facts, "age", num_draws=50)
    assert split.result.provenance["age_bands"] == ", ".join(name for name, _ in AGE_BANDS)
    within = split.metric("auroc:macro|age=40-59").value
    assert within < age.metric("auroc:macro").value - 0.05


def test_a_small_stratum_gets_no_number_and_is_named(cohort: AgedCohort, facts: Facts) -> None:
    few = replace(facts, sex=tuple("X" if i < 12 else "F" for i in range(len(facts))))
    split = by_stratum(judged(cohort), QUICK, few, "sex", num_draws=20)
    names = [m.name for m in split.result.metrics]
    assert not [name for name in names if "sex=X" in name and "minus" not in name]
    assert split.result.counts["rows|sex=X"] >= 5
    for finding in FINDINGS:
        key = f"fewer than {MIN_CLASS} positives or negatives: {finding}|sex=X"
        assert split.result.excluded[key] < MIN_CLASS


def test_rows_whose_fact_is_not_known_are_counted(cohort: AgedCohort, facts: Facts) -> None:
    years = facts.age_years.copy()
    years[[i for i, s in enumerate(facts.study_ids) if s == facts.study_ids[0]]] = np.nan
    split = by_stratum(judged(cohort), QUICK, replace(facts, age_years=years), "age", num_draws=20)
    assert split.result.excluded["age not known"] == 1


def test_nothing_to_split_by_and_an_unknown_fact_are_errors(outcome: Outcome, facts: Facts) -> None:
    empty = replace(facts, sex=("",) * len(facts))
    with pytest.raises(ProtocolError, match="says its sex"):
        by_stratum(outcome, QUICK, empty, "sex")
    with pytest.raises(ProtocolError, match="horoscope"):
        by_stratum(outcome, QUICK, facts, "horoscope")


@pytest.mark.parametrize("by", ["manufacturer", "kernel"])
def test_scanner_facts_split_too(outcome: Outcome, facts: Facts, by: str) -> None:
    split = by_stratum(outcome, QUICK, facts, by, num_draws=20)
    values = {m.name.partition("|")[2] for m in split.result.metrics if "minus" not in m.name}
    assert values == {f"{by}={name}" for name in {"manufacturer": "AB", "kernel": ("B", "YA")}[by]}
    assert to_json(split.result)["task"] == f"strata:{by}"


def test_bands_begin_where_they_say() -> None:
    ages = np.array([39.0, 40.0, 59.0, 60.0, 79.0, 80.0, 101.0, np.nan])
    few = facts_of(aged({"test": 6}), "test").taken([0] * 8)
    told = groups_of(replace(few, age_years=ages), "age")
    assert told == [
        *("under 40", "40-59", "40-59", "60-79", "60-79", "80 and over", "80 and over"),
        "",
    ]


def test_scores_and_labels_come_back_as_they_were_judged(outcome: Outcome) -> None:
    held = judged_rows(outcome)
    assert held.findings == FINDINGS
    assert held.scores.shape == held.labels.shape == (210, len(FINDINGS))
    assert set(np.unique(held.labels)) == {0, 1}
