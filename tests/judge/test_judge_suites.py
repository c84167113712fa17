"""Suites: on fabricated cohorts laid out as the corpora are, and what the real ones need."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import made_trees
from t3d.cohort.store import Cohort
from t3d.ct.preparations import named_preparation
from t3d.errors import ProtocolError
from t3d.judge import rules, steps, suites
from t3d.judge.nulls import nulls_of
from t3d.judge.protocol import PARTS
from t3d.judge.protocols import protocol_named
from t3d.judge.results import read_results
from t3d.judge.suites import SUITE_FILE, SUITES, needs_of, run_suite
from t3d.learn.train import Plan, train
from t3d.recipes import recipe
from t3d.text.findings import CT_RATE_18
from t3d.types import Report

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules with few draws: what they are worth is tested elsewhere."""

    def few(name: str) -> object:
        protocol = protocol_named(name)
        draws = replace(protocol.intervals, num_draws=min(20, protocol.intervals.num_draws))
        return replace(protocol, intervals=draws, num_permutations=2)

    monkeypatch.setattr(suites, "protocol_named", few)
    monkeypatch.setattr(steps, "nulls_of", partial(nulls_of, names=("age", "header")))
    monkeypatch.setattr(rules, "NUM_RANDOM", 1)


@pytest.fixture(scope="module")
def ct_rate(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return made_trees.ct_rate(tmp_path_factory.mktemp("suite") / "ct_rate")


def scores(path: Path, cohort: Cohort, findings: Sequence[str], *, dev: bool = True) -> Path:
    """Probabilities that know, for every volume."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["volume_id", *findings])
        for study in cohort.studies():
            if study.split == "test" or (dev and study.split == "dev"):
                for volume in study.volume_ids:
                    told = [study.labels.get(f) or 0 for f in findings]
                    writer.writerow([volume, *(0.1 + 0.5 * v + 0.3 * rng.random() for v in told)])
    return path


class Model:
    """Knows each report's text, and nothing of the image but whose it is."""

    logit_scale = 10.0

    def _row(self, text: str) -> list[float]:
        return np.random.default_rng(list(text.encode()) or [0]).normal(size=16).tolist()

    def embed_studies(self, cohort: Cohort, study_ids: Sequence[str]) -> object:
        reports = [cohort.report(study) for study in study_ids]
        return np.array(
            [self._row("" if r is None else r.findings + r.impression) for r in reports]
        )

    def embed_volumes(self, cohort: Cohort, volume_ids: Sequence[str]) -> object:
        of = {v: s.study_id for s in cohort.studies() for v in s.volume_ids}
        return self.embed_studies(cohort, [of[volume] for volume in volume_ids])

    def embed_text(self, texts: list[str]) -> object:
        return np.array([self._row(text) for text in texts])

    def embed_reports(self, reports: list[Report]) -> object:
        return self.embed_text([r.findings + r.impression for r in reports])


def test_scores_of_ct_rate_go_through_every_protocol_of_its_suite(
    ct_rate: Cohort, tmp_path: Path
) -> None:
    path = scores(tmp_path / "scores.csv", ct_rate, CT_RATE_18)
    report = run_suite("ct_rate", path, ct_rate, tmp_path / "out", by=("sex",), nulls=False)
    served = {r.protocol for r in report.results if r.task == "supervised"}
    assert served == set(suites.suite_named("ct_rate").classification)
    assert {name.split()[0] for name in report.refused} == {"retrieval", "neighbours"}
    assert "24 studies are scored, 1,564 in the whole corpus" in report.notes
    assert "ctclip: 36 volumes, the original 3,039" in report.notes
    plain = read_results(tmp_path / "out" / "plain")
    assert [r.task for r in plain] == ["supervised", "strata:sex"]
    told = plain[0].provenance
    assert told["labels_files"].startswith("valid_predicted_labels.csv ")
    assert len(told["labels_digest"]) == len(told["scores_sha256"]) == 64
    assert any(m.name == "auroc:macro" and m.value > 0.95 for m in plain[0].metrics)
    assert json.loads((tmp_path / "out" / SUITE_FILE).read_text())["refused"] == report.refused


def reduced(monkeypatch: pytest.MonkeyPatch, **protocols: tuple[str, ...]) -> None:
    """Leave only some protocols in the suite of CT-RATE."""
    none = dict.fromkeys(PARTS, ())
    few = replace(suites.suite_named("ct_rate"), **{**none, **protocols})
    monkeypatch.setattr(suites, "SUITES", (few,))


def test_a_model_is_asked_with_each_protocols_prompts(
    ct_rate: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced(monkeypatch, classification=("plain", "fvlm"))
    report = run_suite("ct_rate", Model(), ct_rate, nulls=False)
    assert report.refused == {}
    asked = {r.protocol: r.provenance["prompts"] for r in report.results}
    assert asked == {"plain": "template", "fvlm": "fvlm"}


def test_nulls_stand_beside_classification_and_retrieval(
    ct_rate: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced(monkeypatch, classification=("plain",), retrieval=("plain",))
    report = run_suite("ct_rate", Model(), ct_rate)
    told = {r.task: r for r in report.results}
    names = {m.name for m in told["zero_shot"].metrics}
    assert {"null:age:auroc:macro", "over_null:age:auroc:macro"} <= names
    assert "age" in told["zero_shot"].provenance["nulls_not_beaten"]
    best = {m.name: m.value for m in told["retrieval"].metrics}
    blind = {m.name: m.value for m in told["null:most_frequent_report"].metrics}
    assert best["t2i_r@5"] == 1.0
    assert blind["t2i_r@5"] == pytest.approx(5 / 24)


def test_rad_chestct_is_judged_under_each_mapping_of_its_labels(tmp_path: Path) -> None:
    cohort = made_trees.rad_chestct(tmp_path / "rad")
    path = scores(tmp_path / "s.csv", cohort, CT_RATE_18, dev=False)
    report = run_suite("rad_chestct", path, cohort, nulls=False)
    assert {r.protocol for r in report.results} == set(
        suites.suite_named("rad_chestct").classification
    )
    gone = [r.excluded for r in report.results]
    assert all("no age and sex, so no matched AUROC" in excluded for excluded in gone)
    macro = {
        r.protocol: m.value
        for r in report.results
        for m in r.metrics
        if m.name == "auroc:Pulmonary fibrotic sequela"
    }
    assert macro["ctclip_external"] > 0.9  # scarring, which the scores know
    assert macro["hlip_external"] < 0.9  # fibrosis, which they do not


def test_outcomes_of_inspect_are_judged_from_probabilities_and_not_from_prompts(
    tmp_path: Path,
) -> None:
    cohort = made_trees.inspect(tmp_path / "inspect")
    path = scores(tmp_path / "s.csv", cohort, made_trees.INSPECT_TASKS)
    report = run_suite("inspect", path, cohort, nulls=False)
    (result,) = report.results
    assert result.counts["unknown:12_month_PH"] == 1
    held = {m.name for m in result.metrics}
    assert "printed:AUPRC" in held
    asked = run_suite("inspect", Model(), cohort, nulls=False)
    assert {r.task for r in asked.results} == {"retrieval"}
    assert "leaves the prompts open" in asked.refused["classification inspect"]


def test_merlins_findings_are_judged_and_what_is_missing_is_not_a_no(tmp_path: Path) -> None:
    cohort = made_trees.merlin(tmp_path / "merlin")
    path = scores(tmp_path / "s.csv", cohort, made_trees.MERLIN_FINDINGS)
    report = run_suite("merlin", path, cohort)
    told = {(r.task, r.protocol): r for r in report.results}
    result = told["supervised", "plain"]
    assert result.counts["studies"] == 16
    assert {m.name for m in result.metrics} >= {"null:age:auroc:macro", "auroc:ascites"}
    assert "16 studies are scored, 5,137 in the whole corpus" in report.notes


def test_sentences_of_rexgrounding_find_their_volume(tmp_path: Path) -> None:
    cohort = made_trees.rexgrounding(tmp_path / "rex")
    report = run_suite("rexgrounding", Model(), cohort)
    found = {m.name: m.value for r in report.results if r.task == "retrieval" for m in r.metrics}
    assert found["t2i_r@5_strict"] == 1.0
    assert report.refused == {"localization radfinder": "the model has no embed_tokens"}


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_an_absent_corpus_is_described_by_what_the_real_one_needs(suite: suites.Suite) -> None:
    with pytest.raises(ProtocolError) as told:
        run_suite(suite.name, Model(), None)
    text = str(told.value)
    assert needs_of(suite.name) in text
    for part in (suite.access, suite.page, suite.command, *suite.files):
        assert part in text
    assert (ROOT / suite.page).is_file()
    for part, names in suite.tasks.items():
        assert all(getattr(protocol_named(name), part) is not None for name in names)


def test_a_cohort_of_another_corpus_an_unknown_suite_and_fact_are_errors(ct_rate: Cohort) -> None:
    with pytest.raises(ProtocolError, match="suite 'merlin' on a cohort of another source"):
        run_suite("merlin", Model(), ct_rate)
    with pytest.raises(ProtocolError, match="suite 'mnist' is unknown"):
        run_suite("mnist", Model(), ct_rate)
    with pytest.raises(ProtocolError, match="by 'horoscope'"):
        run_suite("ct_rate", Model(), ct_rate, by=("horoscope",))


def test_a_suite_that_nothing_serves_says_why_for_each_protocol(
    ct_rate: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # vlm3d and fvlm count findings without a column as 0
    reduced(monkeypatch, classification=("ctclip", "hlip"), retrieval=("spectre",))
    path = scores(tmp_path / "one.csv", ct_rate, ("Emphysema",), dev=False)
    with pytest.raises(ProtocolError, match="none of its protocols could be served") as told:
        run_suite("ct_rate", path, ct_rate)
    assert "classification ctclip: protocol 'ctclip': no scores for" in str(told.value)
    assert "retrieval spectre: the file has no embeddings" in str(told.value)


class Wordy(Model):
    """Has seen the texts that it is asked with, and gives rows of any length."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def embed_text(self, texts: list[str]) -> object:
        self.texts |= set(texts)
        return 3 * np.asarray(super().embed_text(texts))


def test_reports_are_worded_as_each_protocol_words_them(
    ct_rate: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    reduced(monkeypatch, retrieval=("ctclip", "radfinder"))
    model = Wordy()
    report = run_suite("ct_rate", model, ct_rate, nulls=False)
    assert report.refused == {}
    assert "Case 3.As said." in model.texts  # ctclip: no space between
    assert "Findings: Case 3.\nImpressions: As said.\n" in model.texts
    assert "radfinder: 24 volumes, the original 1,564" in report.notes


def test_merlins_pools_are_dealt_and_nothing_else_carries_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = made_trees.merlin(tmp_path / "merlin")
    plain = suites.protocol_named

    def small(name: str) -> object:
        protocol = plain(name)
        pools = replace(protocol.pools, sizes=(5,), num_repeats=min(3, protocol.pools.num_repeats))
        return replace(protocol, pools=pools)

    monkeypatch.setattr(suites, "protocol_named", small)
    few = replace(suites.suite_named("merlin"), classification=(), retrieval=())
    monkeypatch.setattr(suites, "SUITES", (few,))
    report = run_suite("merlin", Model(), cohort, tmp_path / "out")
    told = {r.protocol: r for r in report.results}
    assert {r.task for r in report.results} == {"pools"}
    assert set(told) == {"plain", "merlin_pools_spectre", "merlin_pools_radfinder"}
    assert {r.counts["studies"] for r in report.results} == {16}
    for name in ("merlin_pools_spectre", "merlin_pools_radfinder"):
        held = {m.name: m.value for m in told[name].metrics}
        assert held["pool5_r@1:full"] == 1.0  # it knows each report
        assert not any(m.startswith(("t2i_", "i2t_")) for m in held)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == sorted(told)


def test_volumes_find_volumes_under_every_rule_of_the_suite(
    ct_rate: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = suites.suite_named("ct_rate").neighbours
    reduced(monkeypatch, neighbours=names)
    report = run_suite("ct_rate", Model(), ct_rate)
    rows = {r.protocol: r.counts["rows"] for r in report.results}
    assert {r.task for r in report.results} == {"neighbours"}
    # without a pool of its own a rule of neighbours takes every volume
    assert rows == {"ctclip_v2v": 36, "radfinder": 24}
    # no two of these studies have all 18 labels alike, so nothing is relevant for anybody
    assert set(report.refused) == {"neighbours plain", "neighbours spectre"}
    assert all("is a query" in why for why in report.refused.values())


def test_a_checkpoint_is_judged_from_its_path(tmp_path: Path) -> None:
    cohort = made_trees.ct_rate(tmp_path / "ct_rate", named_preparation("demo"))
    made = recipe("clip", "demo")
    stages = tuple(replace(stage, num_steps=2, batch_size=4) for stage in made.stages)
    plan = Plan(tensorboard=False, num_evaluations=1, log_every=1)
    best = train(replace(made, stages=stages), cohort, tmp_path / "run", plan=plan)
    few = replace(suites.suite_named("ct_rate"), classification=("plain",))
    few = replace(few, retrieval=("plain",), neighbours=("ctclip_v2v",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "SUITES", (few,))
        report = run_suite("ct_rate", best, cohort, tmp_path / "out", nulls=False)
    assert report.refused == {}
    assert [r.task for r in report.results] == ["zero_shot", "retrieval", "neighbours"]
    for result in read_results(tmp_path / "out" / "plain"):
        assert len(result.provenance["checkpoint"]) == 64
        assert result.provenance["recipe"] == "clip"
        assert result.provenance["suite"] == "ct_rate"
        assert result.provenance["version"]
