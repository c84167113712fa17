"""Two evaluations side by side: paired differences on the same draws of patients.

The other one is read from its folder: one score a study and finding, or a file's rows, is all that
a paired comparison of ranks needs; both must have scored the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.drawn import auroc_drawn
from t3d.judge.outcome import Outcome, StudyTable, metric_of
from t3d.judge.results import read_results, read_table
from t3d.judge.strata import Judged, judged_rows
from t3d.scores.bootstrap import Draws, interval, mean_over_findings
from t3d.scores.clustered import clustered_auroc
from t3d.types import Metric, Result

Floats = NDArray[np.float64]

NUM_DRAWS, SEED = 1000, 0
_MEANS = ("rank:", "v2v_map@", "depth:")  # columns compared by their mean
_PREFIX = "difference"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """The table of another evaluation under one protocol."""

    name: str
    checkpoint: str
    columns: Mapping[str, Mapping[str, float]]  # column -> row -> value; what is stated

    def scores(self, column: str, findings: Sequence[str]) -> tuple[str, list[str]]:
        """The score columns to compare with: of the same prompts, or the only ones there are."""
        sets = list(dict.fromkeys(n.split(":")[1] for n in self.columns if n.startswith("score:")))
        sets = [name for name in sets if not name.startswith("probe-")]
        chosen = column if column in sets else sets[0] if len(sets) == 1 else ""
        return chosen, [f for f in findings if f"score:{chosen}:{f}" in self.columns]


def compared(outcomes: Sequence[Outcome], folder: Path) -> list[Outcome]:
    """Compare outcomes with another evaluation of the same rows.

    Metrics, this one minus the other: `difference:auroc:<finding>` and `difference:auroc:macro`
    with intervals over draws of patients, `difference_closed:auroc:...` with Obuchowski's closed
    form, and `difference:<column>` for the means of ranks, map@K and depth errors a study.

    Args:
        outcomes: Of this evaluation.
        folder: OUT of the other one.

    Returns:
        One outcome of task `compare:<task>` for each that can be compared.

    Raises:
        ProtocolError: There is no evaluation, or it shares no protocol and rows with this one.
    """
    others = {protocol: _read(folder, result) for protocol, result in _by_protocol(folder).items()}
    found = []
    for outcome in outcomes:
        other = others.get(outcome.result.protocol)
        if other is not None:
            metrics = list(_scored(outcome, other)) + list(_meant(outcome, other))
            if metrics:
                found.append(_outcome(outcome, other, metrics))
    if not found:
        raise ProtocolError(
            f"the evaluation in {folder.name!r} has no rows in common with this one",
            expected="another evaluation on the same split under one of the same protocols",
            fix="evaluate both on one cohort",
        )
    return found


def _by_protocol(folder: Path) -> dict[str, Result]:
    """One result a protocol: they share a table."""
    return {
        result.protocol: result
        for result in reversed(read_results(folder))
        if result.per_study is not None
    }


def _read(folder: Path, result: Result) -> _Other:
    """The table of a protocol."""
    assert result.per_study is not None
    rows = read_table(result.per_study)
    names = [n for n in (rows[0] if rows else ()) if n not in ("study_id", "patient_id")]
    columns = {
        name: {row["study_id"]: float(row[name]) for row in rows if row[name]} for name in names
    }
    return _Other(
        name=folder.name, checkpoint=result.provenance.get("checkpoint", ""), columns=columns
    )


def _scored(outcome: Outcome, other: _Other) -> Iterator[Metric]:
    """Differences of AUROC."""
    names = {n.split(":")[1] for n in outcome.table.columns if n.startswith("score:")}
    if len(names) != 1 or outcome.result.task.startswith(("strata", "probe")):
        return
    judged = judged_rows(outcome)
    column, findings = other.scores(next(iter(names)), judged.findings)
    ids = outcome.table.study_ids
    findings = [f for f in findings if all(i in other.columns[f"score:{column}:{f}"] for i in ids)]
    places = [judged.findings.index(f) for f in findings]
    both = [f for f in places if {0, 1} <= set(judged.labels[:, f].tolist())]
    if not both:
        return
    theirs = np.array(
        [[other.columns[f"score:{column}:{judged.findings[f]}"][i] for f in both] for i in ids]
    )
    yield from _aurocs(judged, both, theirs, outcome.table.patient_ids)


def _aurocs(
    judged: Judged, places: Sequence[int], theirs: Floats, patients: Sequence[str]
) -> Iterator[Metric]:
    """Paired AUROC, by draws and in closed form."""
    names = [judged.findings[f] for f in places]
    ours, labels = judged.scores[:, places], judged.labels[:, places]
    closed = clustered_auroc(np.hstack((ours, theirs)), np.hstack((labels, labels)), patients)
    draws, k = Draws.of(patients, num_draws=NUM_DRAWS, seed=SEED), len(names)
    gaps = [
        auroc_drawn(ours[:, f], labels[:, f], draws)
        - auroc_drawn(theirs[:, f], labels[:, f], draws)
        for f in range(k)
    ]
    rows = [("macro", list(range(k)), mean_over_findings(np.stack(gaps, axis=1)))]
    rows += [(name, [f], gaps[f]) for f, name in enumerate(names)]
    for name, columns, drawn in rows:
        told = closed.difference(columns, [k + f for f in columns])
        num, bounds = draws.num_patients, {"chance": 0.0}
        spread = interval(drawn)
        yield metric_of(f"{_PREFIX}:auroc:{name}", told.value, spread, num, bounds=bounds)
        low, high = told.interval("wald")
        yield Metric(
            name=f"{_PREFIX}_closed:auroc:{name}",
            value=told.value,
            low=low,
            high=high,
            n=num,
            unit="patients",
            chance=0.0,
        )


def _meant(outcome: Outcome, other: _Other) -> Iterator[Metric]:
    """Differences of means over the rows that both have."""
    for name, values in outcome.table.columns.items():
        held = other.columns.get(name, {})
        if not name.startswith(_MEANS) or not held:
            continue
        gap = np.array([held.get(i, np.nan) for i in outcome.table.study_ids])
        gap = values - gap
        known = np.isfinite(gap)
        if known.any():
            patients = np.asarray(outcome.table.patient_ids, dtype=str)[known]
            draws = Draws.of(patients.tolist(), num_draws=NUM_DRAWS, seed=SEED)
            spread = interval(draws.mean(gap[known]))
            yield metric_of(
                f"{_PREFIX}:{name}",
                float(gap[known].mean()),
                spread,
                draws.num_patients,
                bounds={"chance": 0.0},
            )


def _outcome(outcome: Outcome, other: _Other, metrics: list[Metric]) -> Outcome:
    """The comparison as an outcome without a table."""
    told = outcome.result.provenance
    kept = {key: told[key] for key in ("prompts", "protocol", "cohort", "test") if key in told}
    result = Result(
        task=f"compare:{outcome.result.task}",
        protocol=outcome.result.protocol,
        metrics=tuple(metrics),
        provenance={**kept, "minus": other.name, "minus_checkpoint": other.checkpoint},
    )
    table = StudyTable(study_ids=(), patient_ids=(), columns={})
    return Outcome(result=result, table=table, draws={})
