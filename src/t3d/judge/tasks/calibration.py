"""Calibration: what a score is worth as a probability, as an answer, and as a doubt.

For any scores: those of a model or of a file. Cosines, log odds and sums are not probabilities;
what turns them into some is fitted on dev patients and applied to test patients, never fitted
there. Legend: N rows, F findings, B draws of patients.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.drawn import answers_drawn
from t3d.judge.embeddings import ScoringModel
from t3d.judge.outcome import Outcome, StudyTable, draws_of, metric_of, provenance
from t3d.judge.results import finish
from t3d.judge.rules import Scored, both_classes_of, called_by
from t3d.judge.truth import truth_of
from t3d.judge.units import ScoreTable, rows_of, scored_of
from t3d.scores.abstention import abstention, risk_at
from t3d.scores.bootstrap import Draws, interval, mean_over_findings
from t3d.scores.calibration import (
    ReliabilityCell,
    brier,
    calibration_error,
    equal_width,
    fit_isotonic,
    fit_logistic,
    reliability,
)
from t3d.scores.thresholds import fit_threshold, rule_named
from t3d.types import Metric, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol

Floats = NDArray[np.float64]

FITS: tuple[str, ...] = ("logistic", "isotonic")
"""How scores become probabilities: temperature and bias; a monotone curve. "as_given" is added
where the scores are within 0..1 and may be probabilities already."""
POINTS = ("specificity:0.9", "specificity:0.95", "sensitivity:0.9", "sensitivity:0.95")
COVERAGES = (0.8, 0.5)  # shares of the answers that are not left to a person
NUM_CELLS = 10  # of equal width
RELIABILITY_FILE = "reliability.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibrated:
    """An outcome with the curves that its numbers summarise."""

    outcome: Outcome
    curves: Mapping[str, Mapping[str, tuple[ReliabilityCell, ...]]]  # fit -> finding -> cells

    def write_curves(self, folder: Path) -> Path:
        """Write FOLDER/reliability.json: fit -> finding -> cells."""
        folder.mkdir(parents=True, exist_ok=True)
        told = {
            fit: {name: [_plain(cell) for cell in cells] for name, cells in table.items()}
            for fit, table in self.curves.items()
        }
        path = folder / RELIABILITY_FILE
        path.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path


def run(
    model: ScoringModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    name: str = "supervised",
    dev: str = "dev",
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Calibrate a model that gives one score a study and finding; see `measure`.

    Args:
        model: Scores studies. For a model that is asked by prompts, pass the tables of
            `zero_shot.table_of` to `measure`.
        cohort: With labels.
        protocol: Rules.
        name: Of the scores.
        dev: Split that everything is fitted on.
        test: Split that is measured.
        out: Folder for result.json, per_study.csv and reliability.json; None = none is written.

    Returns:
        The result.

    Raises:
        ProtocolError: As `measure`.
    """
    tables = []
    for split in (dev, test):
        ids = tuple(row.study_id for row in cohort.studies(split))
        tables.append(
            ScoreTable(
                findings=tuple(model.findings),
                volume_ids=ids,
                study_ids=ids,
                order=(0,) * len(ids),
                scores=np.asarray(model.score_studies(cohort, ids), dtype=np.float64),
                whole_studies=True,
            )
        )
    found = measure(
        cohort, protocol, tables=(tables[0], tables[1]), column=name, splits=(dev, test)
    )
    if out is not None:
        found.write_curves(out)
    return finish(found.outcome, out)


def measure(
    cohort: Cohort,
    protocol: Protocol,
    *,
    tables: tuple[ScoreTable | None, ScoreTable],
    column: str,
    splits: tuple[str, str] = ("dev", "test"),
    facts: Mapping[str, str] | None = None,
) -> Calibrated:
    """Calibrate scores of dev and test.

    Metrics by name, each of every finding (`:<finding>`) and as a mean (`:macro`); FIT is one of
    `FITS`, or "as_given" where all scores are within 0..1:

    - `brier:FIT`, `miscalibration:FIT`, `discrimination:FIT`, `ece:FIT` (10 cells of one width);
      chance of the Brier score is that of the base rate of the test rows;
    - `temperature:FIT`, `bias:FIT` of the logistic fit, without an interval;
    - `sensitivity@POINT`, `specificity@POINT` for the rules `POINTS`: the threshold is chosen on
      dev so that dev has that specificity or sensitivity; these say what test has;
      `threshold@POINT`;
    - `aurc`, `excess_aurc`, `error_rate`, `risk@0.8`, `risk@0.5`: answers by the protocol's
      threshold rule, the surest first, sure = far from the threshold in score; chance of the
      area is the error rate.

    Intervals draw test patients; what was fitted on dev stays, so its own uncertainty is not in
    them. A calibration error is above 0 even for a calibrated model, and its interval lies high.

    Args:
        cohort: With labels.
        protocol: Rules; its threshold is fitted on dev whatever it says elsewhere.
        tables: Of dev and test.
        column: Names the probability columns: `probability:<column>:<fit>:<finding>`.
        splits: Names of dev and test.
        facts: Further entries of provenance.

    Returns:
        Outcome and reliability curves. Findings that lack a class in dev or in test are named in
        `excluded`.

    Raises:
        ProtocolError: No dev scores, splits share patients, or no finding has both classes in
            both splits.
    """
    if tables[0] is None:
        raise ProtocolError(
            "no scores of dev",
            expected="scores of dev and test: probabilities are fitted on dev, never on test",
            fix="score the dev split too",
        )
    dev, test = (
        _scored(cohort, protocol, table, split)
        for table, split in zip(tables, splits, strict=True)
        if table is not None
    )
    _check(dev, test)
    sheet = _Sheet(draws=draws_of(test.truth.patient_ids, protocol.intervals), test=test)
    both = [both_classes_of(part.truth.labels) for part in (dev, test)]
    for f, finding in enumerate(test.truth.findings):
        lacking = [s for s, has in zip(splits, both, strict=True) if not has[f]]
        for split in lacking:
            sheet.excluded[f"one class in {split}: {finding}"] = 1
        if not lacking:
            _add_finding(sheet, dev, f, protocol)
    sheet.add_macros()
    told = provenance(
        cohort, protocol, **{"scores": column, "dev": splits[0], "test": splits[1]}, **(facts or {})
    )
    result = Result(
        task="calibration",
        protocol=protocol.name,
        metrics=tuple(sheet.metrics),
        counts={
            "studies": len(test.truth.study_ids),
            "dev_studies": len(dev.truth.study_ids),
            **sheet.dropped,
            **test.notes,
        },
        excluded={**sheet.excluded, **test.excluded},
        provenance={**told, "fitted_on": splits[0]},
    )
    columns = {f"probability:{column}:{name}": values for name, values in sheet.columns.items()}
    table = StudyTable(
        study_ids=test.truth.row_ids, patient_ids=test.truth.patient_ids, columns=columns
    )
    outcome = Outcome(result=result, table=table, draws=sheet.drawn)
    return Calibrated(outcome=outcome, curves=sheet.curves)


@dataclass(slots=True, kw_only=True, eq=False)
class _Sheet:
    """What one run collects."""

    draws: Draws
    test: Scored
    metrics: list[Metric] = field(default_factory=list)
    drawn: dict[str, Floats] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    columns: dict[str, Floats] = field(default_factory=dict)
    curves: dict[str, dict[str, tuple[ReliabilityCell, ...]]] = field(default_factory=dict)
    gathered: dict[str, list[str]] = field(default_factory=dict)  # measure -> names by finding

    def add(self, f: int, measure: str, value: float, drawn: Floats, **bounds: float) -> None:
        """Note a number of one finding with its draws."""
        keep = self.test.truth.labels[:, f] >= 0
        num = len(np.unique(self.draws.row_patient[keep]))
        name = f"{measure}:{self.test.truth.findings[f]}"
        spread = interval(drawn)
        self.metrics.append(metric_of(name, value, spread, num, bounds=bounds))
        self.drawn[name] = drawn
        if spread.num_dropped:
            self.dropped[f"draws_dropped:{name}"] = spread.num_dropped
        self.gathered.setdefault(measure, []).append(name)

    def add_macros(self) -> None:
        """Mean over findings of everything that has draws."""
        held = {metric.name: metric for metric in self.metrics}
        for measure, names in self.gathered.items():
            rows = [held[name] for name in names]
            drawn = mean_over_findings(np.stack([self.drawn[name] for name in names], axis=1))
            bounds = {
                key: float(np.mean([getattr(row, key) for row in rows]))
                for key in ("chance", "floor", "ceiling")
            }
            name, value = f"{measure}:macro", float(np.mean([row.value for row in rows]))
            n = max(row.n for row in rows)
            self.metrics.append(metric_of(name, value, interval(drawn), n, bounds=bounds))
            self.drawn[name] = drawn


def _scored(cohort: Cohort, protocol: Protocol, table: ScoreTable, split: str) -> Scored:
    """A table beside its truth, in the unit of the protocol."""
    rules = protocol.classes
    findings = scored_of(rules, table.findings)
    return rows_of(table, truth_of(cohort, split, findings, mapping=rules.mapping), protocol)


def _check(dev: Scored, test: Scored) -> None:
    """Refuse splits that share patients, and a test without anything to measure."""
    shared = len(set(dev.truth.patient_ids) & set(test.truth.patient_ids))
    both = both_classes_of(dev.truth.labels) & both_classes_of(test.truth.labels)
    if shared or not both.any():
        raise ProtocolError(
            f"{shared} patients are in dev and in test; {int(both.sum())} findings have both "
            "classes in both",
            expected="splits by patient, at least one finding with both classes in both",
            fix="split by patient, or judge on larger splits",
        )


def _add_finding(sheet: _Sheet, dev: Scored, f: int, protocol: Protocol) -> None:
    """Everything about one finding."""
    known = dev.truth.labels[:, f] >= 0
    fitting = dev.scores[known, f], dev.truth.labels[known, f]
    finding = sheet.test.truth.findings[f]
    for fit, probability in _fits(sheet, finding, fitting, f):
        values = probability(sheet.test.scores[:, f])
        sheet.columns[f"{fit}:{finding}"] = values
        _add_probability(sheet, fit, f, values)
    for point in POINTS:
        _add_point(sheet, point, f, fit_threshold(*fitting, rule_named(point)))
    rule = rule_named(protocol.classes.threshold)
    threshold = fit_threshold(*fitting, rule)
    column = sheet.test.scores[:, f]
    called = called_by(column, threshold, rule)
    _add_abstention(sheet, f, np.abs(column - threshold), called)


def _fits(
    sheet: _Sheet, finding: str, fitting: tuple[Floats, NDArray[np.int8]], f: int
) -> Iterator[tuple[str, Callable[[Floats], Floats]]]:
    """Fit on dev; temperature and bias are noted."""
    logistic, isotonic = fit_logistic(*fitting), fit_isotonic(*fitting)
    n = len(fitting[1])
    temperature = 1 / logistic.slope if logistic.slope else float("inf")
    for name, value in (("temperature", temperature), ("bias", logistic.intercept)):
        sheet.metrics.append(
            Metric(name=f"{name}:logistic:{finding}", value=value, n=n, unit="dev studies")
        )
    yield "logistic", logistic.probability
    yield "isotonic", isotonic.probability
    every = np.concatenate((fitting[0], sheet.test.scores[:, f]))
    if every.min() >= 0 and every.max() <= 1:
        yield "as_given", lambda scores: scores


def _rows(sheet: _Sheet, f: int) -> tuple[NDArray[np.bool_], NDArray[np.int8], Draws, Draws]:
    """Stated test rows of a finding, their labels, the draws over them, and the value itself."""
    keep = sheet.test.truth.labels[:, f] >= 0
    some = Draws(
        row_patient=sheet.draws.row_patient[keep], counts=sheet.draws.counts, seed=sheet.draws.seed
    )
    labels = sheet.test.truth.labels[keep, f]
    return keep, labels, some, Draws.disabled(len(labels))


def _add_probability(sheet: _Sheet, fit: str, f: int, values: Floats) -> None:
    """Brier score and its parts, calibration error, reliability curve."""
    keep, labels, draws, once = _rows(sheet, f)
    p, cells = values[keep], equal_width(NUM_CELLS)
    value, drawn = brier(p, labels, once), brier(p, labels, draws)
    base = float(value.uncertainty[0])
    names = ("brier", "miscalibration", "discrimination")
    bounds = ({"chance": base, "ceiling": 0.0}, {"ceiling": 0.0}, {"chance": 0.0, "ceiling": base})
    for name, one, many, bound in zip(names, value[:3], drawn[:3], bounds, strict=True):
        sheet.add(f, f"{name}:{fit}", float(one[0]), many, **bound)
    error = calibration_error(p, labels, once, cells)
    drawn_error = calibration_error(p, labels, draws, cells)
    sheet.add(f, f"ece:{fit}", float(error[0]), drawn_error, ceiling=0.0)
    curve = reliability(p, labels, draws, cells)
    sheet.curves.setdefault(fit, {})[sheet.test.truth.findings[f]] = curve


def _add_point(sheet: _Sheet, point: str, f: int, threshold: float) -> None:
    """What a threshold chosen on dev gives on test."""
    rule = rule_named(point)
    labels = sheet.test.truth.labels[:, f]
    called = called_by(sheet.test.scores[:, f], threshold, rule)
    drawn = answers_drawn(called, labels, sheet.draws)
    value = answers_drawn(called, labels, Draws.disabled(len(labels)))
    kind, _, wanted = point.partition(":")
    at = f"{kind}{wanted}"
    finding = sheet.test.truth.findings[f]
    sheet.metrics.append(Metric(name=f"threshold@{at}:{finding}", value=threshold, unit="score"))
    for name in ("sensitivity", "specificity"):
        sheet.add(f, f"{name}@{at}", float(getattr(value, name)[0]), getattr(drawn, name))


def _add_abstention(sheet: _Sheet, f: int, sure: Floats, called: NDArray[np.bool_]) -> None:
    """What leaving the least sure answers to a person gains."""
    keep, labels, draws, once = _rows(sheet, f)
    wrong, sure = (called[keep] != (labels == 1)).astype(np.int8), sure[keep]
    value, drawn = abstention(sure, wrong, once), abstention(sure, wrong, draws)
    rate = float(value.error_rate[0])
    sheet.add(f, "error_rate", rate, drawn.error_rate, ceiling=0.0)
    sheet.add(f, "aurc", float(value.area[0]), drawn.area, chance=rate)
    sheet.add(f, "excess_aurc", float(value.excess[0]), drawn.excess, ceiling=0.0)
    for coverage in COVERAGES:
        risk = float(risk_at(sure, wrong, once, coverage)[0])
        many = risk_at(sure, wrong, draws, coverage)
        sheet.add(f, f"risk@{coverage:g}", risk, many, chance=rate, ceiling=0.0)


def _plain(cell: ReliabilityCell) -> dict[str, object]:
    """A cell as plain values; a bound that is not there is None."""
    return {
        "low": cell.low,
        "high": cell.high,
        "num": cell.num,
        "predicted": cell.predicted,
        "observed": cell.observed,
        "wilson": list(cell.wilson),
        "by_patient": [_or_none(cell.by_patient.low), _or_none(cell.by_patient.high)],
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
