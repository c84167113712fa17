"""Suites: everything that is measured on one public corpus, and what that takes.

A suite names protocols; what each fixes stands in docs/reference/protocols.md. It runs on any
cohort prepared from a source of its kind, says how its counts differ from those of the papers, and
names every protocol that could not be served with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings, ScoringModel, embed_split
from t3d.judge.external import ENDINGS, Foreign, read_scores
from t3d.judge.facts import facts_of, label_facts
from t3d.judge.nulls import frequent_report, nulls_of, with_nulls
from t3d.judge.outcome import Outcome
from t3d.judge.prompts import PromptSet, templates
from t3d.judge.protocol import Protocol
from t3d.judge.protocols import protocol_named
from t3d.judge.results import write_results
from t3d.judge.strata import BY, by_stratum, with_matched
from t3d.judge.tasks import retrieval, supervised, zero_shot
from t3d.judge.units import asked_of
from t3d.text.findings import CT_RATE_18
from t3d.types import Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

SUITE_FILE = "suite.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What is measured on one corpus."""

    name: str
    corpus: str
    kinds: tuple[str, ...]  # kinds of source whose cohorts it runs on
    splits: tuple[str, str]  # thresholds from, scored
    classification: tuple[str, ...]  # protocols
    retrieval: tuple[str, ...]  # protocols
    localization: tuple[str, ...] = ()  # protocols
    expected: Mapping[str, int]  # counts of the scored split of the whole corpus
    labels: str  # which labels it needs, in words
    files: tuple[str, ...]  # what must lie in the folder
    access: str  # where and how to get it
    page: str  # how to prepare it
    command: str  # that prepares it
    notes: tuple[str, ...] = ()


SUITES: tuple[Suite, ...] = (
    Suite(
        name="ct_rate",
        corpus="CT-RATE validation",
        kinds=("ct_rate",),
        splits=("dev", "test"),
        classification=(
            *("plain", "ctclip", "fvlm", "hlip", "hlip_starred"),
            *("radfinder", "radfinder_dup", "vlm3d"),
        ),
        retrieval=("plain", "ctclip", "spectre", "radfinder", "radfinder_dup"),
        expected={"patients": 1304, "studies": 1564, "volumes": 3039},
        labels="18 findings of multi_abnormality_labels (output of a classifier on the reports)",
        files=(
            "dataset/valid_fixed/ and dataset/train_fixed/ (dev is a share of the train patients)",
            "metadata/validation_metadata.csv: age, sex, manufacturer, kernel",
            "radiology_text_reports/validation_reports.csv: retrieval",
            "multi_abnormality_labels/valid_predicted_labels.csv: classification",
            "metadata/no_chest_valid.txt: scans of heads",
        ),
        access="Hugging Face ibrahimhamamci/CT-RATE, gated, CC BY-NC-SA 4.0",
        page="docs/howto/ct-rate.md",
        command="t3d prepare ct-rate cohort --source ct_rate --preparation paper_direct",
        notes=(
            "fvlm needs organ masks for a model of that kind; scores from a file serve it",
            "colipri needs a list of scans without a chest and is run by name",
        ),
    ),
    Suite(
        name="rad_chestct",
        corpus="Rad-ChestCT",
        kinds=("rad_chestct",),
        splits=("dev", "test"),
        classification=(
            *("ctclip_external", "radfinder_external"),
            *("hlip_external", "hlip_external_starred"),
        ),
        retrieval=(),
        expected={"patients": 3072, "studies": 3630, "volumes": 3630},
        labels="84 abnormalities at 52 places; how they map to CT-RATE's is the protocol's",
        files=(
            "npz/{trn,val,tst}<5 digits>.npz",
            "{imgtrain,imgvalid,imgtest}_Abnormality_and_Location_Labels.csv",
            "Summary_3630.csv: patients",
        ),
        access="Zenodo record 6406114, its terms are on that page",
        page="docs/howto/rad-chestct.md",
        command="t3d prepare rad-chestct cohort --source rad_chestct --with splits=all_test "
        "--preparation paper_direct",
        notes=("its tables tell neither age nor sex nor scanner: no such null, no matched AUROC",),
    ),
    Suite(
        name="inspect",
        corpus="INSPECT test",
        kinds=("inspect",),
        splits=("dev", "test"),
        classification=("inspect",),
        retrieval=("plain",),
        expected={},
        labels="pe_positive_nlp, mortality, readmission and 12_month_PH; Censored = not stated",
        files=(
            "full/CTPA/PE<hex>.nii.gz",
            "full/{study_mapping,impressions,splits,labels}_<YYYYMMDD>.tsv",
        ),
        access="Stanford AIMI portal, data use agreement, non-commercial",
        page="docs/howto/inspect.md",
        command="t3d prepare inspect cohort --source inspect --preparation paper_direct",
        notes=(
            "prognosis needs probabilities: a probe, or a file of scores; prompts do not serve it",
            "age and sex lie on another portal: no such null, no matched AUROC",
        ),
    ),
    Suite(
        name="merlin",
        corpus="Merlin test",
        kinds=("merlin",),
        splits=("dev", "test"),
        classification=("plain",),
        retrieval=("plain", "merlin_pools_spectre", "merlin_pools_radfinder"),
        expected={"studies": 5137},
        labels="30 findings of zero_shot_findings_disease_cls.csv; -1 = not stated",
        files=(
            "merlin_data/<accession>.nii.gz",
            "reports_final.xlsx",
            "metadata.csv: age, gender, manufacturer",
            "zero_shot_findings_disease_cls.csv",
        ),
        access="Stanford AIMI portal, Stanford University dataset research use agreement",
        page="docs/howto/merlin.md",
        command="t3d prepare merlin cohort --source merlin --preparation paper_direct",
        notes=("the prompts of its paper are not public: give your own, or a file of scores",),
    ),
    Suite(
        name="rexgrounding",
        corpus="ReXGroundingCT",
        kinds=("rexgrounding",),
        splits=("dev", "test"),
        classification=(),
        retrieval=("plain",),
        localization=("radfinder",),
        expected={"studies": 50},
        labels="none; sentences with masks",
        files=(
            "dataset.json",
            "segmentations/<volume>.nii.gz",
            "the corrected volumes of CT-RATE that it names",
        ),
        access="Hugging Face rajpurkarlab/ReXGroundingCT, and CT-RATE for the volumes; both gated",
        page="docs/howto/rexgrounding.md",
        command="t3d prepare rexgrounding cohort --source rexgrounding --with volumes=ct-rate "
        "--preparation paper_direct",
        notes=("localization needs a model that embeds tokens with their places",),
    ),
)
"""Suites that ship."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteReport:
    """What a suite found."""

    suite: str
    results: tuple[Result, ...]
    refused: Mapping[str, str]  # "task protocol" -> why
    notes: tuple[str, ...]  # how counts differ from the whole corpus, and what was left out


def suite_named(name: str) -> Suite:
    """Find a suite.

    Raises:
        ProtocolError: There is none of that name.
    """
    for suite in SUITES:
        if suite.name == name:
            return suite
    raise ProtocolError(f"suite {name!r} is unknown", expected=", ".join(s.name for s in SUITES))


def needs_of(name: str) -> str:
    """Say what the real suite needs: files, where they come from, how they are prepared.

    Args:
        name: Of a suite.
    """
    suite = suite_named(name)
    counts = ", ".join(f"{num:,} {what}" for what, num in suite.expected.items())
    return "\n".join(
        [
            f"suite {suite.name}: {suite.corpus}" + (f" ({counts})" if counts else ""),
            f"  access: {suite.access}",
            "  files:",
            *(f"    {file}" for file in suite.files),
            f"  labels: {suite.labels}",
            f"  classification: {', '.join(suite.classification) or 'none'}",
            f"  retrieval: {', '.join(suite.retrieval) or 'none'}",
            f"  localization: {', '.join(suite.localization) or 'none'}",
            f"  prepare: {suite.command}",
            f"  read: {suite.page}",
            *(f"  note: {note}" for note in suite.notes),
        ]
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Bench:
    """What is judged, on what, and what was embedded so far."""

    suite: Suite
    cohort: Cohort
    judged: Any  # a Foreign or a model
    prompts: PromptSet | None
    allow_missing: bool
    nulls: bool
    by: Sequence[str]
    embedded: dict[tuple[str, bool], Embeddings] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def rows(self, split: str, *, volumes: bool) -> Embeddings:
        """Embeddings of a split, made once."""
        if isinstance(self.judged, Foreign):
            if split not in self.judged.embeddings:
                raise ProtocolError(
                    f"file {self.judged.name!r} has no embeddings of split {split!r}",
                    expected="an NPZ with ids, image and text",
                    fix="write embeddings; scores alone serve classification",
                )
            return self.judged.embeddings[split]
        key = split, volumes
        if key not in self.embedded:
            self.embedded[key] = embed_split(self.judged, self.cohort, split, volumes=volumes)
        return self.embedded[key]


def run_suite(
    name: str,
    judged: Any,
    cohort: Cohort | None,
    out: Path | None = None,
    *,
    prompts: PromptSet | None = None,
    allow_missing: bool = False,
    nulls: bool = True,
    by: Sequence[str] = (),
) -> SuiteReport:
    """Run everything a suite has on one model, or on scores made elsewhere.

    Args:
        name: Of a suite.
        judged: A model with `embed_studies`, `embed_text`, `embed_reports`, one with
            `score_studies`, a `Foreign`, or where to find any: a run, FILE.py:MODEL, a CSV, an
            NPZ.
        cohort: Prepared from a source of the suite's kind.
        out: Folder; each protocol gets one of its own below it. None = nothing is written.
        prompts: For protocols that leave prompts open; None = class names in sentences, where
            the corpus has CT-RATE's 18 findings.
        allow_missing: As for `Foreign.judged`.
        nulls: Judge age, sex, scanner and the others beside each classification.
        by: Facts to split each classification by, of `strata.BY`.

    Returns:
        Results of every protocol that could be served, and why the others could not.

    Raises:
        ProtocolError: There is no cohort, or one of another corpus (the message says what the
            real one needs); no protocol could be served.
    """
    suite = suite_named(name)
    _check_by(by)
    if cohort is None or cohort.facts.get("source_kind", "") not in suite.kinds:
        kind = "no cohort" if cohort is None else "a cohort of another source"
        raise ProtocolError(
            f"suite {name!r} on {kind}",
            expected=f"a cohort prepared from {' or '.join(suite.kinds)}\n{needs_of(name)}",
            fix=suite.command,
        )
    bench = _Bench(
        suite=suite,
        cohort=cohort,
        judged=_loaded(judged, cohort, suite),
        prompts=prompts,
        allow_missing=allow_missing,
        nulls=nulls,
        by=by,
    )
    results: list[Result] = []
    for protocol, outcomes in _all(bench):
        told = label_facts(cohort, suite.splits[1]) | {"suite": name}
        outcomes = [_with_provenance(outcome, told) for outcome in outcomes]
        if out is None:
            results += [outcome.result for outcome in outcomes]
        else:
            results += write_results(out / protocol, outcomes)
    if not results:
        raise ProtocolError(
            f"suite {name!r}: none of its protocols could be served; "
            + "; ".join(f"{what}: {why}" for what, why in bench.refused.items()),
            expected="scores or embeddings of its scored split",
            fix=f"see {suite.page} and docs/howto/evaluate.md",
        )
    report = SuiteReport(
        suite=name,
        results=tuple(results),
        refused=dict(bench.refused),
        notes=(*_differences(suite, results, cohort), *suite.notes),
    )
    if out is not None:
        shown = {"suite": name, "refused": dict(report.refused), "notes": list(report.notes)}
        (out / SUITE_FILE).write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")
    return report


def _check_by(by: Sequence[str]) -> None:
    """Refuse facts that results cannot be split by, before anything is computed."""
    unknown = [fact for fact in by if fact not in BY]
    if unknown:
        raise ProtocolError(f"results by {unknown[0]!r}", expected=", ".join(BY))


def _loaded(judged: Any, cohort: Cohort, suite: Suite) -> Any:
    """What is judged, read from where it lies."""
    if isinstance(judged, str | Path):
        if Path(judged).suffix in ENDINGS:
            return read_scores(Path(judged), cohort, splits=suite.splits)
        from t3d.judge.evaluate import load_model

        return load_model(str(judged), cohort)
    return judged


def _all(bench: _Bench) -> Iterator[tuple[str, list[Outcome]]]:
    """Outcomes by protocol, those that could be served."""
    suite = bench.suite
    tasks: dict[str, tuple[tuple[str, ...], Callable[[_Bench, Protocol], list[Outcome]]]] = {
        "classification": (suite.classification, _classified),
        "retrieval": (suite.retrieval, _retrieved),
        "localization": (suite.localization, _localized),
    }
    for name in dict.fromkeys(name for names, _ in tasks.values() for name in names):
        outcomes: list[Outcome] = []
        for task, (names, judge) in tasks.items():
            if name in names:
                try:
                    outcomes += judge(bench, protocol_named(name))
                except ProtocolError as error:
                    bench.refused[f"{task} {name}"] = error.found
        if outcomes:
            yield name, outcomes


def _classified(bench: _Bench, protocol: Protocol) -> list[Outcome]:
    """A classification with its matched AUROC, nulls and strata."""
    outcome, findings = _scored(bench, protocol)
    splits, facts = bench.suite.splits, facts_of(bench.cohort, bench.suite.splits[1])
    outcome = with_matched(outcome, facts)
    if bench.nulls:
        rules = protocol.allowing_missing() if bench.allow_missing else protocol
        nulls = nulls_of(bench.cohort, rules, outcome, findings, splits=splits)
        outcome = with_nulls(outcome, nulls)
    outcomes = [outcome]
    for fact in bench.by:
        try:
            outcomes.append(by_stratum(outcome, protocol, facts, fact))
        except ProtocolError as error:
            bench.refused[f"strata:{fact} {protocol.name}"] = error.found
    return outcomes


def _scored(bench: _Bench, protocol: Protocol) -> tuple[Outcome, Sequence[str]]:
    """Judge what is there under one protocol; the findings it was asked for."""
    rules, splits, judged = protocol.classes, bench.suite.splits, bench.judged
    if isinstance(judged, Foreign):
        outcome = judged.judged(
            bench.cohort, protocol, allow_missing=bench.allow_missing, splits=splits
        )
        return outcome, judged.tables[splits[1]].findings
    if isinstance(judged, ScoringModel):
        scores = [
            judged.score_studies(bench.cohort, [s.study_id for s in bench.cohort.studies(split)])
            for split in splits
        ]
        outcome = supervised.measure(
            bench.cohort,
            protocol,
            findings=tuple(judged.findings),
            scores=(scores[0], scores[1]),
            name="supervised",
            splits=splits,
        )
        return outcome, judged.findings
    told = zero_shot.prompts_of(protocol, None if rules.prompts else _open_prompts(bench, protocol))
    volumes = rules.unit != "study:first"
    first = bench.rows(splits[0], volumes=volumes) if rules.fitted_on == "dev" else None
    rows = first, bench.rows(splits[1], volumes=volumes)
    outcome = zero_shot.measure(judged, bench.cohort, protocol, told, embedded=rows, splits=splits)
    return outcome, told.findings


def _open_prompts(bench: _Bench, protocol: Protocol) -> PromptSet:
    """Prompts where the protocol leaves them open."""
    if bench.prompts is not None:
        return bench.prompts
    asked = asked_of(protocol.classes, CT_RATE_18)
    labels = {name for s in bench.cohort.studies(bench.suite.splits[1]) for name in s.labels}
    if not set(asked) <= set(CT_RATE_18) or not labels & set(CT_RATE_18):
        raise ProtocolError(
            f"protocol {protocol.name!r} leaves the prompts open, and the findings of this corpus "
            "are no class names to put into sentences",
            expected="a prompt file, or a file of scores",
            fix="give --prompts FILE",
        )
    return templates(asked)


def _retrieved(bench: _Bench, protocol: Protocol) -> list[Outcome]:
    """Retrieval, and the most frequent report under the same rules."""
    rules, split = protocol.pairs, bench.suite.splits[1]
    rows = bench.rows(split, volumes=rules.pool != "split")
    if isinstance(bench.judged, Foreign) and not bench.allow_missing:
        missing = bench.judged.counts.get(f"missing rows: {split}", 0)
        if missing:
            raise ProtocolError(
                f"{missing} rows of split {split!r} are missing: a smaller pool is an easier one",
                expected="an embedding for each",
                fix="embed them too, or allow missing ones",
            )
    outcomes = [retrieval.measure(bench.cohort, protocol, embedded=rows, split=split)]
    if bench.nulls:
        blind = frequent_report(bench.cohort, rows)
        null = retrieval.measure(bench.cohort, protocol, embedded=blind, split=split)
        renamed = replace(null.result, task="null:most_frequent_report")
        columns = {f"null:{name}": held for name, held in null.table.columns.items()}
        table = replace(null.table, columns=columns)
        outcomes.append(replace(null, result=renamed, table=table))
    return outcomes


def _localized(bench: _Bench, protocol: Protocol) -> list[Outcome]:
    """The depth of sentences, for a model that says where its tokens lie."""
    from t3d.judge.tasks import localization

    if not hasattr(bench.judged, "embed_tokens"):
        raise ProtocolError(
            "what is judged gives no tokens with their places",
            expected="a model with embed_tokens",
            fix="see docs/howto/evaluate.md",
        )
    splits = ("train", *bench.suite.splits)
    return [localization.measure(bench.judged, bench.cohort, protocol, splits=splits).outcome]


def _with_provenance(outcome: Outcome, told: Mapping[str, str]) -> Outcome:
    """The outcome with more provenance."""
    result = outcome.result
    return replace(outcome, result=replace(result, provenance={**result.provenance, **told}))


def _differences(suite: Suite, results: Sequence[Result], cohort: Cohort) -> list[str]:
    """How the scored split differs from that of the whole corpus, and from the papers'."""
    studies = cohort.studies(suite.splits[1])
    held = {
        "patients": len({study.patient_id for study in studies}),
        "studies": len(studies),
        "volumes": sum(len(study.volume_ids) for study in studies),
    }
    notes = [
        f"{held[what]:,} {what} are scored, {num:,} in the whole corpus"
        for what, num in suite.expected.items()
        if held[what] != num
    ]
    originals = {name: protocol_named(name).classes.expected for name in suite.classification}
    for result in results:
        for what, num in originals.get(result.protocol, ()):
            found = result.counts.get(what, num)
            if found != num:
                notes.append(f"{result.protocol}: {found:,} {what}, the original {num:,}")
    return list(dict.fromkeys(notes))
