"""Nulls: what age, sex, scanner and other findings get under a model's own protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from made_aged import FINDINGS, AgedCohort, aged, noise, of_age, oracle, table_of
from t3d.errors import ProtocolError
from t3d.judge import rules
from t3d.judge.embeddings import Embeddings
from t3d.judge.facts import facts_of, label_facts
from t3d.judge.nulls import (
    CROSS_FIT,
    FIT_SPLIT,
    NULLS,
    Known,
    beside,
    folds,
    frequent_report,
    known_of,
    null_table,
    nulls_of,
    verdicts,
    with_nulls,
)
from t3d.judge.outcome import Outcome
from t3d.judge.protocol import Classification, Protocol
from t3d.judge.protocols.ctclip import CTCLIP
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER
from t3d.judge.strata import with_matched
from t3d.judge.tasks import retrieval
from t3d.judge.units import judge_scores


def quick(protocol: Protocol) -> Protocol:
    intervals = replace(protocol.intervals, resample="patients", num_draws=200)
    return replace(protocol, name="quick", intervals=intervals, num_permutations=5)


def of_five(protocol: Protocol) -> Classification:
    return replace(protocol.classes, findings="", scored="")


QUICK = quick(PLAIN)


def judged(cohort: AgedCohort, score: object, protocol: Protocol = QUICK) -> Outcome:
    tables = tuple(table_of(cohort, split, score) for split in ("dev", "test"))
    return judge_scores(
        cohort, protocol, tables=tables, task="supervised", column="model", facts={}
    )


@pytest.fixture(scope="module", autouse=True)
def _one_random_model() -> Iterator[None]:
    """Floors are not looked at here, and 20 random models cost most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "NUM_RANDOM", 1)
        yield


@pytest.fixture(scope="module")
def cohort() -> AgedCohort:
    return aged({"train": 150, "dev": 150, "test": 240})


@pytest.fixture(scope="module")
def model(cohort: AgedCohort) -> Outcome:
    return with_matched(judged(cohort, oracle), facts_of(cohort, "test"))


@pytest.mark.parametrize("seed", [0, 1])
def test_where_findings_depend_on_age_only_matched_age_is_a_guess_and_an_oracle_is_not(
    seed: int,
) -> None:
    cohort = aged({"dev": 60, "test": 300}, seed=seed)
    facts = facts_of(cohort, "test")
    age, blurred, knows = (
        with_matched(judged(cohort, score), facts)
        for score in (of_age, lambda s, f: of_age(s, f) + 0.05 * noise(s, f), oracle)
    )
    assert age.metric("auroc:macro").value > 0.8
    assert age.metric("matched_auroc:macro").value == 0.5  # the same age is the same score
    assert blurred.metric("auroc:macro").value > 0.8
    matched = blurred.metric("matched_auroc:macro")
    assert matched.low <= 0.5 <= matched.high
    assert matched.high - matched.low < 0.3
    assert knows.metric("matched_auroc:macro").value > 0.95
    assert knows.result.counts["matched_pairs:Lung nodule"] > 30


def test_a_model_that_knows_the_age_only_is_said_not_to_beat_age(cohort: AgedCohort) -> None:
    outcome = judged(cohort, of_age)
    nulls = nulls_of(cohort, QUICK, outcome, FINDINGS, names=("age",))
    told = with_nulls(outcome, nulls)
    assert told.result.provenance["nulls_not_beaten"] == "age"
    rows = {row.null: row for row in verdicts(outcome, nulls)}
    assert rows["age"].difference.value == pytest.approx(0.0, abs=1e-12)
    assert not rows["age"].beaten
    assert "does NOT beat age" in rows["age"].say()


def test_an_oracle_beats_every_null_and_each_stands_beside_it(
    cohort: AgedCohort, model: Outcome
) -> None:
    nulls = nulls_of(cohort, QUICK, model, FINDINGS)
    assert set(nulls.outcomes) == set(NULLS)
    assert nulls.fit == FIT_SPLIT
    told = with_nulls(model, nulls)
    assert told.result.provenance["nulls_not_beaten"] == "none"
    for name in NULLS:
        one = told.metric(f"null:{name}:auroc:macro")
        gap = told.metric(f"over_null:{name}:auroc:macro")
        assert gap.value == pytest.approx(model.metric("auroc:macro").value - one.value)
        assert gap.low > 0
    assert told.metric("null:sex:auroc:macro").value == pytest.approx(0.5, abs=0.06)
    assert told.metric("null:scanner:auroc:macro").value == pytest.approx(0.5, abs=0.06)
    assert told.metric("null:age_sex:auroc:macro").value > 0.8
    assert nulls.outcomes["age"].result.provenance["null_fit"] == "nothing fitted"


@pytest.mark.parametrize("protocol", [CTCLIP, RADFINDER], ids=lambda p: p.name)
def test_a_null_goes_through_the_rules_of_the_model_it_stands_beside(
    cohort: AgedCohort, protocol: Protocol
) -> None:
    rules = replace(quick(protocol), classification=of_five(protocol))
    outcome = judged(cohort, oracle, rules)
    null = nulls_of(cohort, rules, outcome, FINDINGS, names=("age",)).outcomes["age"]
    assert null.result.protocol == outcome.result.protocol
    assert null.table.study_ids == outcome.table.study_ids
    rows = len(outcome.table.study_ids)
    assert rows == (360 if protocol is CTCLIP else 240)


def test_without_labelled_training_studies_the_logistic_nulls_are_cross_fitted() -> None:
    cohort = aged({"dev": 60, "test": 120})
    outcome = judged(cohort, oracle)
    nulls = nulls_of(cohort, QUICK, outcome, FINDINGS, names=("age_sex",))
    assert nulls.fit == CROSS_FIT
    assert nulls.outcomes["age_sex"].metric("auroc:macro").value > 0.8


def test_no_patient_is_on_both_sides_of_a_fold_and_every_row_is_scored_once() -> None:
    facts = facts_of(aged({"test": 31}), "test")
    ids = facts.patient_ids
    seen: list[int] = []
    for inside, outside in folds(facts):
        assert not {ids[i] for i in inside} & {ids[i] for i in outside}
        assert len(inside) + len(outside) == len(ids)
        seen += outside.tolist()
    assert sorted(seen) == list(range(len(ids)))


def test_cross_fitting_noise_gives_chance_on_average() -> None:
    cohort = aged({"test": 300})
    known = known_of(cohort, "test", FINDINGS)
    rng = np.random.default_rng(0)
    by_study = {s: rng.integers(0, 2, len(FINDINGS)) for s in known.truth.study_ids}
    labels = np.array([by_study[s] for s in known.truth.study_ids], dtype=np.int8)
    blind = Known(facts=known.facts, truth=replace(known.truth, labels=labels))
    scores = null_table("age_sex", blind, fitted=None).scores
    assert scores is not None
    from t3d.scores.auroc import auroc

    values = [auroc(scores[:, f], labels[:, f]) for f in range(len(FINDINGS))]
    # pooled over folds without moving each to one mean, this is .44
    assert np.mean(values) == pytest.approx(0.5, abs=0.03)


def test_age_and_number_of_other_findings_are_what_they_say() -> None:
    cohort = aged({"test": 6})
    known = known_of(cohort, "test", FINDINGS[:3])
    labels = np.tile(np.array([1, 0, 1], dtype=np.int8), (len(known.facts), 1))
    known = Known(facts=known.facts, truth=replace(known.truth, labels=labels))
    others = null_table("other_findings", known, fitted=None).scores
    assert others is not None
    assert others[0] == pytest.approx([1 / 3, 2 / 3, 1 / 3])
    ages = null_table("age", known, fitted=None).scores
    assert ages is not None
    assert ages[:, 1] * 120 == pytest.approx(known.facts.age_years)


def test_an_age_that_is_not_known_counts_as_the_median_of_the_others() -> None:
    cohort = aged({"test": 9})
    known = known_of(cohort, "test", FINDINGS[:2])
    years = known.facts.age_years.copy()
    years[:2] = np.nan
    scores = null_table("age", replace_facts(known, years), fitted=None).scores
    assert scores is not None
    assert scores[0, 0] * 120 == pytest.approx(np.median(years[2:]))


def replace_facts(known: Known, years: object) -> Known:
    return Known(facts=replace(known.facts, age_years=years), truth=known.truth)


def test_a_null_whose_facts_nobody_told_is_named_and_the_rest_is_judged() -> None:
    cohort = aged({"train": 30, "dev": 60, "test": 90}, facts=False)
    outcome = judged(cohort, oracle)
    nulls = nulls_of(cohort, QUICK, outcome, FINDINGS)
    assert nulls.absent["age"] == "no row states age"
    assert "sex" in nulls.absent["age_sex"]
    assert set(nulls.outcomes) == {"header", "other_findings"}  # extents are seen on the grid
    told = with_matched(with_nulls(outcome, nulls), facts_of(cohort, "test"))
    assert "null age: no row states age" in told.result.excluded
    assert "no age and sex, so no matched AUROC" in told.result.excluded


def test_an_unknown_null_is_an_error_that_names_those_there_are(
    cohort: AgedCohort, model: Outcome
) -> None:
    with pytest.raises(ProtocolError, match="horoscope"):
        nulls_of(cohort, QUICK, model, FINDINGS, names=("horoscope",))


def test_the_order_of_rows_changes_no_null() -> None:
    known = known_of(aged({"test": 80}), "test", FINDINGS)
    order = np.random.default_rng(3).permutation(len(known.facts)).tolist()
    facts = known.facts.taken(order)
    moved = Known(facts=facts, truth=known.truth.taken(order, volume_ids=facts.volume_ids))
    for name in ("age", "other_findings"):
        one, two = (null_table(name, rows, fitted=None).scores for rows in (known, moved))
        assert one is not None
        assert two is not None
        assert np.array_equal(one[order], two)
    one, two = (null_table("age_sex", rows, fitted=None).scores for rows in (known, moved))
    assert np.allclose(one[order], two, atol=1e-5)  # the solver stops a little elsewhere


def test_facts_are_read_from_studies_volumes_and_the_prepared_grid() -> None:
    facts = facts_of(aged({"test": 5}), "test")
    assert facts.words["manufacturer"][:3] == ("A", "B", "B")
    assert facts.numbers["num_slices"][0] == 100
    assert facts.numbers["z_extent_mm"][0] == 200  # 100 slices of 2 mm
    assert facts.numbers["xy_extent_mm"][0] == 50
    assert np.isnan(facts.numbers["xy_mm"]).all()
    whole = facts.of_rows(("test00003", "test00001"))
    assert (whole.volume_ids, whole.order) == (("test00003", "test00001"), (0, 0))
    with pytest.raises(ProtocolError, match="have no facts"):
        facts.of_rows(("somebody",))


def test_the_digest_of_labels_moves_with_a_single_label(cohort: AgedCohort) -> None:
    told = label_facts(cohort, "test")
    row = cohort.rows[-1]
    other = {**row.labels, "Lung nodule": 1 - (row.labels["Lung nodule"] or 0)}
    changed = replace(cohort, rows=(*cohort.rows[:-1], replace(row, labels=other)))
    assert label_facts(changed, "test")["labels_digest"] != told["labels_digest"]
    assert label_facts(cohort, "test") == told
    filed = replace(row, facts={"labels_file": "valid.csv", "labels_sha256": "ab12"})
    named = label_facts(replace(cohort, rows=(*cohort.rows[:-1], filed)), "test")
    assert named["labels_files"] == "valid.csv ab12"


def test_the_most_frequent_report_beats_chance_only_where_reports_are_repeated() -> None:
    cohort = aged({"train": 40, "test": 40})  # every fourth report says the same
    rows = embedded(cohort)
    found = retrieval.measure(cohort, QUICK, embedded=frequent_report(cohort, rows))
    at5 = found.metric("i2t_r@5")
    assert at5.value == pytest.approx(0.25)  # the ten who have it, and nobody else
    assert found.metric("t2i_mrr").value == pytest.approx(found.metric("t2i_mrr").chance)
    apart = replace(cohort, texts={k: type(v)(findings=k) for k, v in cohort.texts.items()})
    alone = retrieval.measure(apart, QUICK, embedded=frequent_report(apart, embedded(apart)))
    assert alone.metric("i2t_r@5").value == pytest.approx(5 / 40)


def embedded(cohort: AgedCohort) -> Embeddings:
    studies = cohort.studies("test")
    texts = [cohort.texts[s.study_id].findings for s in studies]
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    rows = np.tile(np.float32((1.0, 0.0)), (len(studies), 1))
    return Embeddings(
        study_ids=tuple(s.study_id for s in studies),
        patient_ids=tuple(s.patient_id for s in studies),
        image=rows,
        text=rows,
        report_ids=tuple(numbers[text] for text in texts),
    )


def test_labels_of_studies_are_repeated_for_each_of_their_volumes() -> None:
    cohort = aged({"test": 6})
    facts = facts_of(cohort, "test")
    known = known_of(cohort, "test", FINDINGS)
    again = beside(facts, known.truth.taken([0, 1, 3, 4, 6, 7]))
    assert np.array_equal(again.labels, known.truth.labels)
    assert noise(cohort.rows[0], "x") != noise(cohort.rows[1], "x")
