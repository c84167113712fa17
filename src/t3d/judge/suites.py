"""Suites: everything that is measured on one public corpus, and what that takes.

A suite names protocols; what each fixes stands in docs/reference/protocols.md. It runs on any
cohort prepared from a source of its kind, says how its counts differ from those of the papers, and
names every protocol that could not be served with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import t3d
from t3d.errors import ProtocolError
from t3d.judge.evaluate import opened
from t3d.judge.external import Foreign
from t3d.judge.facts import label_facts
from t3d.judge.frozen import Frozen, Still
from t3d.judge.outcome import Outcome
from t3d.judge.prompts import PromptSet, templates
from t3d.judge.protocol import PARTS, Protocol
from t3d.judge.protocols import protocol_named
from t3d.judge.results import write_results
from t3d.judge.steps import STEPS, Bench
from t3d.judge.strata import BY
from t3d.text.findings import CT_RATE_18
from t3d.types import Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

SUITE_FILE = "suite.json"
NOT_RUN = "not run: "  # before the reason of `steps.skipped`


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What is measured on one corpus."""

    name: str
    corpus: str
    kinds: tuple[str, ...]  # kinds of source whose cohorts it runs on
    splits: tuple[str, str]  # thresholds from, scored
    classification: tuple[str, ...]  # protocols
    retrieval: tuple[str, ...]  # protocols
    neighbours: tuple[str, ...] = ()  # protocols
    pools: tuple[str, ...] = ()  # protocols
    localization: tuple[str, ...] = ()  # protocols
    expected: Mapping[str, int]  # counts of the scored split of the whole corpus
    labels: str  # which labels it needs, in words
    files: tuple[str, ...]  # what must lie in the folder
    access: str  # where and how to get it
    page: str  # how to prepare it
    command: str  # that prepares it
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Part of a protocol -> protocols that it is measured under."""
        return {part: getattr(self, part) for part in PARTS}

    @property
    def protocols(self) -> tuple[str, ...]:
        """Every protocol once."""
        return tuple(dict.fromkeys(name for names in self.tasks.values() for name in names))


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
        neighbours=("plain", "ctclip_v2v", "spectre", "radfinder"),
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
            "colipri needs the list of scans without a chest: tasks.retrieval.run(lists=...)",
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
        retrieval=("plain",),
        pools=("plain", "merlin_pools_spectre", "merlin_pools_radfinder"),
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
            *(f"  {part}: {', '.join(names) or 'none'}" for part, names in suite.tasks.items()),
            f"  prepare: {suite.command}",
            f"  read: {suite.page}",
            *(f"  note: {note}" for note in suite.notes),
        ]
    )


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
        allow_missing: A score or row that is not there counts as the worst that the truth
            allows, under a name of its own; False = it is an error unless the protocol says
            what it counts as.
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
    still = cast("Cohort", Still(cohort))
    model, told = _opened(judged, still)
    told |= {"version": t3d.__version__, "suite": name, **label_facts(still, suite.splits[1])}
    refused: dict[str, str] = {}
    with TemporaryDirectory() as spare:
        bench = Bench(
            judged=model,
            cohort=still,
            out=Path(spare) if out is None else out,
            prompts=_open_prompts(still, suite, prompts),
            own_prompts=False,
            nulls=nulls,
            by=by,
            allow_missing=allow_missing,
            splits=("train", *suite.splits),
        )
        results = _measured(suite, bench, told, refused, keep=out is not None)
    if not results:
        raise ProtocolError(
            f"suite {name!r}: none of its protocols could be served; "
            + "; ".join(f"{what}: {why}" for what, why in refused.items()),
            expected="scores or embeddings of its scored split",
            fix=f"see {suite.page} and docs/howto/evaluate.md",
        )
    report = SuiteReport(
        suite=name,
        results=tuple(results),
        refused=refused,
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


def _opened(judged: Any, cohort: Cohort) -> tuple[Frozen | Foreign, dict[str, str]]:
    """What is judged, and where it comes from."""
    if isinstance(judged, Frozen):
        return judged, {}
    return opened(str(judged) if isinstance(judged, Path) else judged, cohort)


def _measured(
    suite: Suite,
    bench: Bench,
    told: Mapping[str, str],
    refused: dict[str, str],
    *,
    keep: bool,
) -> list[Result]:
    """Results of every protocol that could be served, in a folder each if they are kept."""
    results: list[Result] = []
    for protocol in suite.protocols:
        folder = bench.out / protocol
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = list(_judged(suite, replace(bench, out=folder), protocol, refused))
        outcomes = [_with_provenance(outcome, told) for outcome in outcomes]
        if outcomes and keep:
            results += write_results(folder, outcomes)
        else:
            results += [outcome.result for outcome in outcomes]
        if not any(folder.iterdir()):
            folder.rmdir()
    if isinstance(bench.judged, Frozen):
        bench.judged.save()
    return results


def _open_prompts(cohort: Cohort, suite: Suite, prompts: PromptSet | None) -> tuple[PromptSet, ...]:
    """Prompts where a protocol leaves them open; none where findings are no class names."""
    if prompts is not None:
        return (prompts,)
    labels = {name for s in cohort.studies(suite.splits[1]) for name in s.labels}
    return (templates(CT_RATE_18),) if labels & set(CT_RATE_18) else ()


def _judged(suite: Suite, bench: Bench, name: str, refused: dict[str, str]) -> Iterator[Outcome]:
    """All that a suite measures under one protocol; what could not be served is noted."""
    protocol = protocol_named(name)
    for part in PARTS:
        if name not in suite.tasks[part]:
            continue
        try:
            for task in _tasks(part, bench, protocol):
                for outcome in STEPS[task][1](bench, protocol):
                    result = outcome.result
                    skipped = any(why.startswith(NOT_RUN) for why in result.excluded)
                    if skipped or (result.task in STEPS and not result.metrics):
                        told = [why.removeprefix(NOT_RUN) for why in result.excluded]
                        refused[f"{result.task} {name}"] = ", ".join(told)
                    else:
                        yield outcome
        except ProtocolError as error:
            refused[f"{part} {name}"] = error.found


def _tasks(part: str, bench: Bench, protocol: Protocol) -> tuple[str, ...]:
    """Tasks that measure a part of a protocol on what is judged."""
    if part != "classification":
        return (part,)
    if isinstance(bench.judged, Foreign):  # each takes the kind of scores that it can judge
        return "zero_shot", "supervised"
    if hasattr(bench.judged, "score_studies"):
        return ("supervised",)
    if not protocol.classes.prompts and not bench.prompts:
        raise ProtocolError(
            f"protocol {protocol.name!r} leaves the prompts open, and the findings of this corpus "
            "are no class names to put into sentences",
            expected="a prompt file, or a file of scores",
            fix="give --prompts FILE",
        )
    return ("zero_shot",)


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
    for result in results:
        part, _ = STEPS.get(result.task, ("", None))
        rules = getattr(protocol_named(result.protocol.partition("@")[0]), part, None)
        for what, num in getattr(rules, "expected", ()):
            # where rows are studies, each is one volume
            found = result.counts.get(what, result.counts.get("studies", num))
            if found != num:
                notes.append(f"{result.protocol}: {found:,} {what}, the original {num:,}")
    return list(dict.fromkeys(notes))
