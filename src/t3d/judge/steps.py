"""Every task on frozen features: what each needs of a model, and how it is asked.

A model is a `Frozen` or, for scores made elsewhere, a `Foreign`. A step gives outcomes; what it
lacks it says as an error, which `evaluate` turns into a line of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings, embed_split, prototypes
from t3d.judge.external import Foreign
from t3d.judge.facts import facts_of
from t3d.judge.frozen import Frozen
from t3d.judge.nulls import Nulls, frequent_report, nulls_of, with_nulls
from t3d.judge.outcome import Outcome, StudyTable
from t3d.judge.prompts import PromptSet
from t3d.judge.protocol import Protocol
from t3d.judge.strata import by_stratum, with_matched
from t3d.judge.tasks import (
    calibration,
    localization,
    neighbours,
    pools,
    probe,
    retrieval,
    zero_shot,
)
from t3d.judge.units import ScoreTable, asked_of, judge_scores
from t3d.text.findings import CT_RATE_18
from t3d.types import Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

Tables = tuple[ScoreTable | None, ScoreTable]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """Scores of dev and test for some findings, and what they rest on."""

    task: str
    column: str
    findings: tuple[str, ...]
    tables: Tables
    facts: Mapping[str, str]


@dataclass(slots=True, kw_only=True, eq=False)
class Bench:
    """What is judged, on what, and what was made so far."""

    judged: Frozen | Foreign
    cohort: Cohort
    out: Path
    prompts: Sequence[PromptSet]
    own_prompts: bool  # named by the user: a protocol with others is refused, not asked silently
    nulls: bool
    by: Sequence[str]
    allow_missing: bool
    splits: tuple[str, str, str] = ("train", "dev", "test")
    embedded: dict[tuple[str, bool], Embeddings] = field(default_factory=dict)
    made_nulls: dict[tuple[str, tuple[str, ...]], Nulls] = field(default_factory=dict)

    def rows(self, split: str, *, volumes: bool) -> Embeddings:
        """Embeddings of a split, made once."""
        judged = self.judged
        if isinstance(judged, Foreign):
            if split not in judged.embeddings:
                raise ProtocolError(f"the file has no embeddings of split {split!r}")
            return judged.embeddings[split]
        _check_pairs(judged)
        key = split, volumes
        if key not in self.embedded:
            self.embedded[key] = embed_split(judged, self.cohort, split, volumes=volumes)
        return self.embedded[key]

    def asked(self, protocol: Protocol, *, task: str) -> Iterator[Asked]:
        """Scores to be judged: of a file, of a model that was told findings, or by prompts."""
        if isinstance(self.judged, Foreign):
            yield from _of_file(self, self.judged, task)
        elif task == "supervised":
            yield _of_labels(self, self.judged)
        else:
            yield from _by_prompts(self, self.judged, protocol)

    def rules(self, protocol: Protocol) -> Protocol:
        """The protocol, or its variant that counts what is missing as the worst."""
        return protocol.allowing_missing() if self.allow_missing else protocol


def _of_file(bench: Bench, judged: Foreign, task: str) -> Iterator[Asked]:
    """The scores of a file."""
    test = judged.tables.get(bench.splits[2])
    if test is None:
        raise ProtocolError("the file has no scores of the evaluated split")
    if task == ("supervised" if test.positive is None else "zero_shot"):
        yield Asked(
            task=task,
            column=judged.name,
            findings=test.findings,
            tables=(judged.tables.get(bench.splits[1]), test),
            facts={"scores": judged.name, "scores_sha256": judged.digest},
        )


def _of_labels(bench: Bench, judged: Frozen) -> Asked:
    """The scores of a model that was told the findings."""
    if not hasattr(judged, "score_studies"):
        raise ProtocolError("the model was not told any findings: it is asked by prompts")
    tables = []
    for split in bench.splits[1:]:
        ids = tuple(study.study_id for study in bench.cohort.studies(split))
        if not ids:
            raise ProtocolError(f"split {split!r} has no studies")
        made = ScoreTable(
            findings=judged.findings,
            volume_ids=ids,
            study_ids=ids,
            order=(0,) * len(ids),
            scores=judged.score_studies(bench.cohort, ids).astype("float64"),
            whole_studies=True,
        )
        tables.append(made)
    return Asked(
        task="supervised",
        column="supervised",
        findings=judged.findings,
        tables=(tables[0], tables[1]),
        facts={"scores": "supervised"},
    )


def _by_prompts(bench: Bench, judged: Frozen, protocol: Protocol) -> Iterator[Asked]:
    """Cosines with prompts: the protocol's own, or every set that is given."""
    rules = protocol.classes
    if not (judged.aligned and hasattr(judged, "embed_text")):
        raise ProtocolError("the model embeds no text: it cannot be asked by prompts")
    given = bench.prompts if bench.own_prompts or not rules.prompts else (None,)
    volumes = rules.unit != "study:first"
    scale = getattr(judged, "logit_scale", None)
    for one in given:
        told = zero_shot.prompts_of(protocol, one)
        asked = told.only(asked_of(rules, told.findings))
        sides = prototypes(judged, asked)
        needed = [bench.splits[1]] if rules.fitted_on == "dev" else []
        tables = [
            zero_shot.table_of(
                bench.rows(split, volumes=volumes), asked.findings, sides, logit_scale=scale
            )
            for split in (*needed, bench.splits[2])
        ]
        yield Asked(
            task="zero_shot",
            column=told.name,
            findings=asked.findings,
            tables=(tables[0] if needed else None, tables[-1]),
            facts={"prompts": told.name, "prompts_digest": told.digest()},
        )


def _classified(bench: Bench, protocol: Protocol, task: str) -> Iterator[Outcome]:
    """A classification with its matched AUROC, its nulls and its strata."""
    facts = facts_of(bench.cohort, bench.splits[2])
    rules = bench.rules(protocol)
    for asked in bench.asked(protocol, task=task):
        outcome = judge_scores(
            bench.cohort,
            rules,
            tables=asked.tables,
            task=asked.task,
            column=asked.column,
            splits=bench.splits[1:],
            facts=asked.facts,
        )
        outcome = with_matched(outcome, facts)
        if bench.nulls:
            outcome = with_nulls(outcome, _nulls(bench, rules, outcome, asked.findings))
        yield outcome
        for fact in bench.by:
            yield _stratum(outcome, rules, facts, fact)


def _nulls(bench: Bench, protocol: Protocol, outcome: Outcome, findings: tuple[str, ...]) -> Nulls:
    """Nulls of a protocol, made once for all prompt sets that ask for the same findings."""
    key = protocol.name, findings
    if key not in bench.made_nulls:
        splits = bench.splits[1:]
        made = nulls_of(bench.cohort, protocol, outcome, findings, splits=splits)
        bench.made_nulls[key] = made
    return bench.made_nulls[key]


def _stratum(outcome: Outcome, protocol: Protocol, facts: Any, fact: str) -> Outcome:
    """A classification split by a fact; one that nobody told is named."""
    try:
        return by_stratum(outcome, protocol, facts, fact)
    except ProtocolError as error:
        return skipped(f"strata:{fact}", protocol, error.found, outcome.result.provenance)


def _zero_shot(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Classification by prompts."""
    return _classified(bench, protocol, "zero_shot")


def _supervised(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Classification by a model that was told the findings."""
    return _classified(bench, protocol, "supervised")


def _calibrated(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Probabilities, answers and doubts; curves of the last prompt set go to a file."""
    scored = hasattr(bench.judged, "score_studies")
    tasks = ("supervised", "zero_shot") if isinstance(bench.judged, Foreign) else ()
    for task in tasks or (("supervised",) if scored else ("zero_shot",)):
        for asked in bench.asked(protocol, task=task):
            found = calibration.measure(
                bench.cohort,
                bench.rules(protocol),
                tables=asked.tables,
                column=asked.column,
                splits=bench.splits[1:],
                facts={k: v for k, v in asked.facts.items() if k != "scores"},
            )
            found.write_curves(bench.out)
            yield found.outcome


def _probed(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """A linear model on frozen features."""
    if isinstance(bench.judged, Foreign):
        raise ProtocolError("a file of scores or embeddings has no features of training studies")
    features = probe.features_of(bench.judged, bench.cohort, bench.splits)
    yield from probe.measure(
        bench.cohort,
        bench.rules(protocol),
        features=features,
        findings=_stated(bench, bench.splits[0]),
        splits=bench.splits,
    )


def _stated(bench: Bench, split: str) -> list[str]:
    """Findings that some study of a split states, those of CT-RATE first where there are any."""
    studies = bench.cohort.studies(split)
    labels = {f for study in studies for f, value in study.labels.items() if value is not None}
    return [name for name in CT_RATE_18 if name in labels] or sorted(labels)


def _retrieved(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Retrieval both ways, and what the most frequent report gets under the same rules."""
    split, judged = bench.splits[2], bench.judged
    _whole_pool(bench, split)
    if isinstance(judged, Foreign):
        rows = bench.rows(split, volumes=protocol.pairs.pool == "volume")
    else:
        _check_pairs(judged)
        rows = retrieval.embed_pairs(judged, bench.cohort, protocol, split=split)
    yield retrieval.measure(bench.cohort, protocol, embedded=rows, split=split)
    if bench.nulls:
        blind = frequent_report(bench.cohort, rows)
        null = retrieval.measure(bench.cohort, protocol, embedded=blind, split=split)
        table = replace(null.table, columns={})
        yield replace(
            null, result=replace(null.result, task="null:most_frequent_report"), table=table
        )


def _neighbours(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Volume to volume."""
    split = bench.splits[2]
    rows = bench.rows(split, volumes=neighbours.by_volume(protocol))
    own = protocol.classification is not None and not protocol.classes.findings
    asked = _stated(bench, split) if own else None  # others name the classes they compare
    yield neighbours.measure(bench.cohort, protocol, embedded=rows, split=split, findings=asked)


def _pooled(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Retrieval in small pools."""
    if isinstance(bench.judged, Foreign):
        raise ProtocolError("pools ask with each section alone: a file has one text a study")
    _check_pairs(bench.judged)
    pairs = pools.embed_parts(bench.judged, bench.cohort, split=bench.splits[2])
    yield pools.measure(bench.cohort, protocol, pairs=pairs, split=bench.splits[2])


def _check_pairs(judged: Frozen) -> None:
    """Refuse a model without a space of images and reports."""
    if not (judged.aligned and hasattr(judged, "embed_reports")):
        raise ProtocolError("the model embeds no reports")


def _whole_pool(bench: Bench, split: str) -> None:
    """Refuse a pool with candidates missing: a smaller one is easier."""
    counts = bench.judged.counts if isinstance(bench.judged, Foreign) else {}
    missing = counts.get(f"missing rows: {split}", 0)
    if missing and not bench.allow_missing:
        raise ProtocolError(f"{missing} rows of split {split!r} are missing: an easier pool")


def _localized(bench: Bench, protocol: Protocol) -> Iterator[Outcome]:
    """Depth of sentences."""
    if isinstance(bench.judged, Foreign):
        raise ProtocolError("the places of a file are not judged: sentences need the text encoder")
    found = localization.measure(bench.judged, bench.cohort, protocol, splits=bench.splits)
    found.write_curves(bench.out)
    yield found.outcome


def skipped(task: str, protocol: Protocol, why: str, told: Mapping[str, str]) -> Outcome:
    """A result without numbers that says why there are none."""
    result = Result(
        task=task,
        protocol=protocol.name,
        metrics=(),
        excluded={f"not run: {why}": 1},
        provenance=dict(told),
    )
    table = StudyTable(study_ids=(), patient_ids=(), columns={})
    return Outcome(result=result, table=table, draws={})


Step = Callable[[Bench, Protocol], Iterator[Outcome]]

STEPS: Mapping[str, tuple[str, Step]] = {
    "zero_shot": ("classification", _zero_shot),
    "supervised": ("classification", _supervised),
    "calibration": ("classification", _calibrated),
    "probe": ("classification", _probed),
    "retrieval": ("retrieval", _retrieved),
    "neighbours": ("neighbours", _neighbours),
    "pools": ("pools", _pooled),
    "localization": ("localization", _localized),
}
"""Task -> the part of a protocol that it follows, and how it is run."""
