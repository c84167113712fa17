"""Retrieval in small random pools: as published, and the mean over all ways to deal them.

Legend: N studies, n pool, K length of the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.embeddings import JudgedModel, Rows, unit_rows
from t3d.judge.outcome import Outcome, StudyTable, draws_of, metric_of, provenance
from t3d.judge.results import finish
from t3d.scores.bootstrap import Interval, interval
from t3d.scores.pools import PoolRules, expected_in_pools, partitions
from t3d.scores.retrieval import Pairing, rank_all
from t3d.scores.similarity import RowSimilarity
from t3d.types import Metric, Report, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol

Floats = NDArray[np.float64]

PARTS: tuple[str, ...] = ("findings", "impression", "full")
"""What asks: one section alone, or the report as the model reads it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolPairs:
    """Images and the texts of one part of their reports; rows are pairs in the order of ids."""

    part: str
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    image: Rows  # (N, D) unit length
    text: Rows  # (N, D) unit length


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Judge a model by finding a study among a few others; see `measure`.

    Args:
        model: Embeds studies and reports.
        cohort: With reports.
        protocol: Rules.
        test: Split that pools are dealt from.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result.

    Raises:
        ProtocolError: The protocol has no rules for it, or an embedding cannot be used.
    """
    pairs = embed_parts(model, cohort, split=test)
    return finish(measure(cohort, protocol, pairs=pairs, split=test), out)


def embed_parts(
    model: JudgedModel, cohort: Cohort, *, split: str = "test"
) -> tuple[PoolPairs, ...]:
    """Embed studies once, and each part of their reports that has words.

    Args:
        model: As for `run`.
        cohort: With reports.
        split: Its name.

    Returns:
        Pairs of each part; a part that no study has is not there.

    Raises:
        ProtocolError: An embedding has no direction, or no study has a report.
    """
    studies = sorted(cohort.studies(split), key=lambda study: study.study_id)
    ids = [study.study_id for study in studies]
    reports = [cohort.report(study) or Report() for study in ids]
    image = (
        unit_rows(model.embed_studies(cohort, ids), ids, what="image") if ids else np.zeros((0, 1))
    )
    found = []
    for part in PARTS:
        told = [_only(report, part) for report in reports]
        rows = [i for i, r in enumerate(told) if f"{r.findings}{r.impression}".strip()]
        if not rows:
            continue
        some = [ids[i] for i in rows]
        text = model.embed_reports([told[i] for i in rows])
        found.append(
            PoolPairs(
                part=part,
                study_ids=tuple(some),
                patient_ids=tuple(studies[i].patient_id for i in rows),
                image=np.asarray(image[rows], dtype=np.float32),
                text=unit_rows(text, some, what="report"),
            )
        )
    if not found:
        raise ProtocolError(
            f"none of {len(ids)} studies of split {split!r} has a report",
            expected="reports",
            fix="evaluate pools on a split with reports",
        )
    return tuple(found)


def measure(
    cohort: Cohort, protocol: Protocol, *, pairs: tuple[PoolPairs, ...], split: str = "test"
) -> Outcome:
    """Judge embeddings that were made before.

    Metrics by name, text to image: `pool32_r@1:findings` is the mean over the rule's repeats; its
    interval is their spread, not sampling error (rules without repeats have none).
    `..._exact` is the mean over all partitions in closed form, ties as expected rank, with the
    protocol's own intervals.

    Args:
        cohort: They are of it.
        protocol: Rules.
        pairs: From `embed_parts`.
        split: Its name.

    Returns:
        The outcome; columns hold the exact credit of each study. Pools larger than the number of
        pairs are left out and named.

    Raises:
        ProtocolError: The protocol has no rules for it.
    """
    rules: PoolRules = protocol.part("pools")
    metrics: list[Metric] = []
    drawn: dict[str, Floats] = {}
    columns: dict[str, Floats] = {}
    excluded: dict[str, int] = {}
    patient = {
        s: p for part in pairs for s, p in zip(part.study_ids, part.patient_ids, strict=True)
    }
    ids = tuple(sorted(patient))
    for part in pairs:
        num = len(part.study_ids)
        fitting = tuple(size for size in rules.sizes if size <= num)
        for size in set(rules.sizes) - set(fitting):
            excluded[f"pool of {size} from {num} studies: {part.part}"] = 1
        if fitting:
            here = replace(rules, sizes=fitting)
            metrics += _published(part, here, protocol) if rules.num_repeats else []
            for metric, values, credit in _exact(part, here, protocol):
                metrics.append(metric)
                drawn[metric.name] = values
                columns[metric.name] = _spread(dict(zip(part.study_ids, credit, strict=True)), ids)
    result = Result(
        task="pools",
        protocol=protocol.name,
        metrics=tuple(metrics),
        counts={"studies": len(ids)}
        | {f"studies:{part.part}": len(part.study_ids) for part in pairs},
        excluded=excluded,
        provenance=provenance(cohort, protocol, test=split),
    )
    table = StudyTable(study_ids=ids, patient_ids=tuple(patient[s] for s in ids), columns=columns)
    return Outcome(result=result, table=table, draws=drawn)


def _published(part: PoolPairs, rules: PoolRules, protocol: Protocol) -> list[Metric]:
    """Means over repeats with their spread."""
    found = partitions(_similarity(part, protocol), rules)
    means, (low, high) = found.mean(), found.spread()
    rows = []
    for s, size in enumerate(rules.sizes):
        for j, k in enumerate(rules.ks):
            spread = Interval(
                low=float(low[s, j]), high=float(high[s, j]), num_draws=rules.num_repeats
            )
            chance = _chance(len(part.study_ids), size, k, rules)
            bounds = {"chance": chance, "floor": chance, "ceiling": 1.0}
            name = f"pool{size}_r@{k}:{part.part}"
            num = len(part.study_ids)
            rows.append(
                metric_of(name, float(means[s, j]), spread, num, bounds=bounds, unit="partitions")
            )
    return rows


def _exact(
    part: PoolPairs, rules: PoolRules, protocol: Protocol
) -> list[tuple[Metric, Floats, Floats]]:
    """Means over all partitions, with draws and the credit of each study."""
    num = len(part.study_ids)
    own = np.arange(num)
    pairing = Pairing(queries=own, candidates=own)
    ranks = rank_all(_similarity(part, protocol), [pairing])[0]
    draws = draws_of(part.patient_ids, protocol.intervals)
    rows = []
    for size in rules.sizes:
        for k in rules.ks:
            credit = expected_in_pools(ranks, num, size=size, k=k, short_pool=rules.short_pool)
            values = draws.mean(credit)
            chance = _chance(num, size, k, rules)
            bounds = {"chance": chance, "floor": chance, "ceiling": 1.0}
            name = f"pool{size}_r@{k}:{part.part}_exact"
            spread = interval(values)
            value = float(credit.mean())
            metric = metric_of(name, value, spread, draws.num_patients, bounds=bounds)
            rows.append((metric, values, credit))
    return rows


def _chance(num: int, size: int, k: int, rules: PoolRules) -> float:
    """K of the pool; a short last pool is easier."""
    share = min(1.0, k / size)
    rest = num % size
    if rules.short_pool == "keep" and rest:
        share += (min(1.0, k / rest) - share) * rest / num
    return share


def _similarity(part: PoolPairs, protocol: Protocol) -> RowSimilarity:
    """Texts ask."""
    return RowSimilarity.of(part.text, part.image, decimals=protocol.score_decimals)


def _only(report: Report, part: str) -> Report:
    """A report with one section only, or as it is."""
    if part == "full":
        return report
    return replace(report, **{name: "" for name in PARTS[:2] if name != part})


def _spread(values: Mapping[str, float], ids: tuple[str, ...]) -> Floats:
    """One value a study, NaN where it was no query."""
    return np.array([values.get(study, np.nan) for study in ids])
