"""From scores of rows to AUROC, average precision and yes/no measures with intervals.

Used by every task that ends in one score a volume or study and finding. Values come from
`rules.values_of`; here they get draws, chance, floor and ceiling. Legend: N rows, F findings,
B draws, K permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.drawn import (
    answers_drawn,
    answers_permuted,
    auroc_drawn,
    one_finding,
    side_by_side,
)
from t3d.judge.outcome import Outcome, StudyTable, draws_of, metric_of
from t3d.judge.protocol import Printed, Protocol
from t3d.judge.rules import (
    Scored,
    Values,
    blind_and_perfect,
    both_classes_of,
    called_by,
    constant_floor,
    measure_of,
    values_of,
)
from t3d.judge.truth import FORMS, Truth
from t3d.scores.auroc import auroc, auroc_of_masses, average_precision_draws
from t3d.scores.bootstrap import Draws, interval, mean_over_findings, permutations
from t3d.scores.calibration import INSPECT_CELLS, calibration_error
from t3d.scores.confusion import MEASURES, Confusion, crg, pooled
from t3d.scores.resample import Resampled, refitted
from t3d.scores.thresholds import rule_named
from t3d.types import Metric, Result

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(slots=True, kw_only=True, eq=False)
class _Sheet:
    """What one run of `classify` collects."""

    protocol: Protocol
    dev: Scored | None
    test: Scored
    values: Values
    draws: Draws
    orders: NDArray[np.intp]  # (K, N) permutations
    again: Resampled | None  # every draw with thresholds of its own, where the protocol refits
    metrics: list[Metric] = field(default_factory=list)
    drawn: dict[str, Floats] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: float, drawn: Floats, keep: Flags, **bounds: float) -> None:
        """Note a metric with its interval."""
        rules = self.protocol.intervals
        spread = interval(drawn, rule=rules.percentiles)
        num = len(np.unique(self.draws.row_patient[keep]))
        unit = "patients" if rules.resample == "patients" else "rows"
        self.metrics.append(metric_of(name, value, spread, num, bounds=bounds, unit=unit))
        self.drawn[name] = drawn
        if spread.num_dropped:
            self.dropped[f"draws_dropped:{name}"] = spread.num_dropped


def classify(
    dev: Scored | None,
    test: Scored,
    protocol: Protocol,
    *,
    task: str,
    column: str,
    provenance: Mapping[str, str],
) -> Outcome:
    """Judge scores.

    Metrics by name: `auroc:macro | large | small`, `auroc:<finding>`,
    `auroc_large:<finding>`, `auroc_small:<finding>`, the same for `permuted_auroc:` (macro
    forms only: mean and 95 % range when truth is handed to other patients),
    `average_precision:`, each of `scores.confusion.MEASURES` and `threshold:<finding>`.
    A macro number is the mean over findings with both classes; the others are named in
    `excluded`. In a draw it is the mean over findings that have both classes there.
    `printed:<key>` is what the original prints under that key, rounded as there;
    `blind:<model>:<measure>` and `perfect:<measure>` say what `rules.blind_and_perfect` models
    get under the same rule on the same rows.

    Args:
        dev: Development rows, for protocols whose thresholds come from them; else None.
        test: Rows that are scored.
        protocol: Rules.
        task: Name of the task.
        column: Names the score columns of the table: `score:<column>:<finding>`.
        provenance: What the result rests on.

    Returns:
        The outcome.

    Raises:
        ProtocolError: Dev and test name different findings, share a patient, or no finding
            has both classes; or one has not, and the protocol takes that for an error.
    """
    rules = protocol.classes
    if rules.fitted_on != "dev":
        dev = None
    elif dev is not None:
        _check_apart(dev.truth, test.truth)
    values = values_of(dev, test, protocol)
    ids = test.truth.patient_ids
    draws = draws_of(ids, protocol.intervals)
    again = None
    if protocol.intervals.refit:
        rule = rule_named(rules.threshold)
        again = refitted(test.scores, test.truth.labels, draws, rule)
    sheet = _Sheet(
        protocol=protocol,
        dev=dev,
        test=test,
        values=values,
        draws=draws,
        orders=permutations(ids, num=protocol.num_permutations, seed=protocol.seed),
        again=again,
    )
    for form in FORMS:
        _add_auroc(sheet, form)
        _add_permuted(sheet, form)
    _add_precision(sheet)
    _add_answers(sheet)
    _add_printed(sheet)
    _add_bounds(sheet)
    result = Result(
        task=task,
        protocol=protocol.name,
        metrics=tuple(sheet.metrics),
        counts=_counts(test.truth) | sheet.dropped | dict(test.notes),
        excluded=sheet.excluded | dict(test.excluded),
        provenance=dict(provenance),
    )
    return Outcome(result=result, table=_table(test, column), draws=sheet.drawn)


def _check_apart(dev: Truth, test: Truth) -> None:
    """Refuse thresholds from other findings or from the patients that are scored."""
    if dev.findings != test.findings:
        raise ProtocolError(
            f"dev has {len(dev.findings)} findings, test {len(test.findings)}, or other names",
            expected="the same findings in the same order",
            fix="read both truths with one list of findings",
        )
    shared = len(set(dev.patient_ids) & set(test.patient_ids))
    if shared:
        raise ProtocolError(
            f"{shared} patients are in dev and in test",
            expected="splits by patient",
            fix="split by patient; a threshold must not see what is scored with it",
        )


def _add_auroc(sheet: _Sheet, form: str) -> None:
    """AUROC of every finding and their mean, for one form."""
    truth, scores = sheet.test.truth, sheet.test.scores
    prefix = "auroc" if form == "all" else f"auroc_{form}"
    values: list[float] = []
    drawn: list[Floats] = []
    anyone = np.zeros(len(scores), dtype=bool)
    labels = truth.of_form(form)
    both = both_classes_of(labels)
    for f, finding in enumerate(truth.findings):
        if not both[f]:
            sheet.excluded[f"one class ({form}): {finding}"] = 1
            continue
        keep = labels[:, f] >= 0
        if form == "all":
            values.append(float(sheet.values.table["auroc"][f]))
        else:
            values.append(auroc(scores[keep, f], labels[keep, f]))
        if form == "all" and sheet.again is not None:
            drawn.append(sheet.again.auroc[:, f])
        else:
            drawn.append(auroc_drawn(scores[:, f], labels[:, f], sheet.draws))
        sheet.add(f"{prefix}:{finding}", values[-1], drawn[-1], keep, **_HALF)
        anyone |= keep
    if values:
        name = "auroc:macro" if form == "all" else f"auroc:{form}"
        means = mean_over_findings(np.stack(drawn, axis=1))
        sheet.add(name, float(np.mean(values)), means, anyone, **_HALF)


def _add_permuted(sheet: _Sheet, form: str) -> None:
    """Mean AUROC over findings when truth is handed to other patients."""
    labels, scores = sheet.test.truth.of_form(form), sheet.test.scores
    columns = [
        auroc_of_masses(scores[:, f], moved == 1, moved == 0)
        for f in np.flatnonzero(both_classes_of(labels))
        for moved in (labels[:, f][sheet.orders],)
    ]
    if columns:
        values = np.mean(columns, axis=0)
        spread = interval(values)
        name = "permuted_auroc:macro" if form == "all" else f"permuted_auroc:{form}"
        num = len(set(sheet.test.truth.patient_ids))
        bounds = {"chance": 0.5}
        sheet.metrics.append(metric_of(name, float(values.mean()), spread, num, bounds=bounds))


def _add_precision(sheet: _Sheet) -> None:
    """Average precision of every finding and their mean."""
    truth, scores = sheet.test.truth, sheet.test.scores
    found: list[tuple[float, float]] = []  # value, share of positives
    drawn: list[Floats] = []
    for f in np.flatnonzero(both_classes_of(truth.labels)):
        keep = truth.labels[:, f] >= 0
        column, labels = scores[keep, f], truth.labels[keep, f]
        share = float(labels.mean())
        found.append((float(sheet.values.table["average_precision"][f]), share))
        if sheet.again is not None:
            drawn.append(sheet.again.average_precision[:, f])
        else:
            drawn.append(average_precision_draws(column, labels, sheet.draws.weights[:, keep]))
        name = f"average_precision:{truth.findings[f]}"
        sheet.add(name, found[-1][0], drawn[-1], keep, chance=share, floor=share, ceiling=1.0)
    value, share = (float(np.mean([row[i] for row in found])) for i in (0, 1))
    sheet.add(
        "average_precision:macro",
        value,
        mean_over_findings(np.stack(drawn, axis=1)),
        _any_stated(truth),
        chance=share,
        floor=share,
        ceiling=1.0,
    )


def _add_answers(sheet: _Sheet) -> None:
    """Yes/no measures under the protocol's thresholds."""
    truth, rules = sheet.test.truth, sheet.protocol.classes
    both = both_classes_of(truth.labels)
    gathered: dict[str, list[tuple[float, Floats, float, float]]] = {m: [] for m in MEASURES}
    for f, finding in enumerate(truth.findings):
        threshold = float(sheet.values.thresholds[f])
        if np.isnan(threshold):
            if both[f]:
                sheet.excluded[f"no threshold, one class in dev: {finding}"] = 1
            continue
        sheet.metrics.append(_threshold_metric(sheet, f, threshold))
        for measure, row in _answers(sheet, f).items():
            gathered[measure].append(row)
            bounds = {"chance": row[2], "floor": row[3], "ceiling": 1.0}
            keep = truth.labels[:, f] >= 0
            sheet.add(f"{measure}:{finding}", row[0], row[1], keep, **bounds)
    for measure, rows in gathered.items():
        if rows:
            value, chance, floor = (float(np.mean([r[i] for r in rows])) for i in (0, 2, 3))
            drawn = mean_over_findings(np.stack([r[1] for r in rows], axis=1))
            bounds = {"chance": chance, "floor": floor, "ceiling": 1.0}
            sheet.add(f"{measure}:macro", value, drawn, _any_stated(truth), **bounds)
    if any(row.definition == "crg" for row in rules.printed):
        _add_crg(sheet)


def _threshold_metric(sheet: _Sheet, f: int, threshold: float) -> Metric:
    """A threshold and what it was chosen on."""
    where = sheet.protocol.classes.fitted_on
    source = {"dev": sheet.dev, "evaluated": sheet.test, "nowhere": None}[where]
    n = 0 if source is None else int((source.truth.labels[:, f] >= 0).sum())
    unit = {"dev": "dev studies", "evaluated": "evaluated rows", "nowhere": "not fitted"}[where]
    name = f"threshold:{sheet.test.truth.findings[f]}"
    return Metric(name=name, value=threshold, n=n, unit=unit)


def _answers(sheet: _Sheet, f: int) -> dict[str, tuple[float, Floats, float, float]]:
    """Measure -> value, draws, mean over permutations, floor; for one finding."""
    labels = sheet.test.truth.labels[:, f]
    zero = sheet.protocol.classes.one_class == "nan"
    drawn = _drawn_answers(sheet, f)
    rules = sheet.protocol.classes
    rule = rule_named(rules.threshold)
    blind = answers_permuted(
        sheet.test.scores[:, f],
        labels[sheet.orders],
        rule,
        None if rules.fitted_on == "evaluated" else float(sheet.values.thresholds[f]),
    )
    floors = constant_floor(labels[labels >= 0])
    return {
        m: (
            float(sheet.values.table[m][f]),
            measure_of(drawn, m, zero=zero),
            float(np.mean(measure_of(blind, m, zero=zero))),
            floors[m],
        )
        for m in MEASURES
    }


def _drawn_answers(sheet: _Sheet, f: int) -> Confusion:
    """Counts of one finding in every draw, each (B,)."""
    if sheet.again is not None:
        return one_finding(sheet.again.answers, f)
    labels, scores = sheet.test.truth.labels[:, f], sheet.test.scores[:, f]
    rule = rule_named(sheet.protocol.classes.threshold)
    called = called_by(scores, float(sheet.values.thresholds[f]), rule)
    return answers_drawn(called, labels, sheet.draws)


def _add_crg(sheet: _Sheet) -> None:
    """CRG over all answers at once; 1/3 for every answer that does not depend on the truth."""
    judged = np.flatnonzero(np.isfinite(sheet.values.answers.true_positive))
    drawn = pooled(side_by_side([_drawn_answers(sheet, int(f)) for f in judged]))
    value = sheet.values.pooled["crg"]
    third = 1.0 / 3.0
    keep = _any_stated(sheet.test.truth)
    sheet.add("crg", value, crg(drawn), keep, chance=third, floor=third, ceiling=1.0)


def _add_ece(sheet: _Sheet) -> None:
    """Calibration error in the nine cells of INSPECT, of every finding and their mean."""
    truth, scores = sheet.test.truth, sheet.test.scores
    found: list[tuple[float, Floats]] = []
    for f in np.flatnonzero(both_classes_of(truth.labels)):
        keep = truth.labels[:, f] >= 0
        column, labels = scores[keep, f], truth.labels[keep, f]
        part = Draws(
            row_patient=sheet.draws.row_patient[keep],
            counts=sheet.draws.counts,
            seed=sheet.draws.seed,
        )
        drawn = calibration_error(column, labels, part, INSPECT_CELLS)
        found.append((float(sheet.values.table["ece9"][f]), drawn))
        sheet.add(f"ece9:{truth.findings[f]}", *found[-1], keep, ceiling=0.0)
    means = mean_over_findings(np.stack([row[1] for row in found], axis=1))
    value = float(np.mean([row[0] for row in found]))
    sheet.add("ece9:macro", value, means, _any_stated(truth), ceiling=0.0)


def _add_printed(sheet: _Sheet) -> None:
    """What the original prints, under its keys and rounded as there."""
    rules = sheet.protocol.classes
    if any(row.definition == "ece9" for row in rules.printed):
        _add_ece(sheet)
    held = {metric.name: metric for metric in sheet.metrics}
    for row in rules.printed:
        metric = held.get(_metric_name(row))
        if metric is not None:
            sheet.metrics.append(_rounded(metric, f"printed:{row.key}", rules.decimals))


def _metric_name(row: Printed) -> str:
    """Name of the metric that a printed number is."""
    return row.definition if row.average == "pooled" else f"{row.definition}:macro"


def _rounded(metric: Metric, name: str, decimals: int | None) -> Metric:
    """The metric under another name, rounded."""
    keep = 17 if decimals is None else decimals
    value, low, high = (round(v, keep) for v in (metric.value, metric.low, metric.high))
    bounds = {k: getattr(metric, k) for k in ("chance", "floor", "ceiling")}
    return Metric(
        name=name, value=value, low=low, high=high, n=metric.n, unit=metric.unit, **bounds
    )


def _add_bounds(sheet: _Sheet) -> None:
    """What blind models and a perfect one get under the same rule."""
    dev = None if sheet.dev is None else sheet.dev.truth
    n = len(set(sheet.test.truth.patient_ids))
    for model, row in blind_and_perfect(dev, sheet.test.truth, sheet.protocol).items():
        prefix = "perfect" if model == "perfect" else f"blind:{model}"
        for measure, value in row.items():
            name = f"{prefix}:{measure}"
            sheet.metrics.append(Metric(name=name, value=value, n=n, unit="patients"))


def _counts(truth: Truth) -> dict[str, int]:
    """How many studies say what about each finding."""
    counts = {"studies": len(set(truth.study_ids)), "patients": len(set(truth.patient_ids))}
    if truth.volume_ids:
        counts["volumes"] = len(truth.volume_ids)
    for f, finding in enumerate(truth.findings):
        labels, large = truth.labels[:, f], truth.large[:, f]
        for name, rows in (
            ("positive", labels == 1),
            ("negative", labels == 0),
            ("unknown", labels == -1),
            ("large", large == 1),
            ("small", large == 0),
            ("size_unknown", (labels == 1) & (large == -1)),
        ):
            counts[f"{name}:{finding}"] = int(rows.sum())
    return counts


def macro_auroc(scored: Scored, form: str = "all") -> float:
    """Mean AUROC over findings with both classes, without intervals: cheap enough for training.

    Args:
        scored: Scores beside their truth.
        form: "all", "large" or "small".

    Returns:
        The mean; NaN if no finding has both classes.
    """
    labels = scored.truth.of_form(form)
    columns = [(scored.scores[:, f], labels[:, f]) for f in np.flatnonzero(both_classes_of(labels))]
    values = [auroc(s[y >= 0], y[y >= 0]) for s, y in columns]
    return float(np.mean(values)) if values else float("nan")


def _table(test: Scored, column: str) -> StudyTable:
    """Scores and labels, one row a study or volume."""
    truth = test.truth
    columns: dict[str, Floats] = {}
    for f, finding in enumerate(truth.findings):
        columns[f"score:{column}:{finding}"] = test.scores[:, f]
    for f, finding in enumerate(truth.findings):
        labels = truth.labels[:, f].astype(np.float64)
        columns[f"label:{finding}"] = np.where(labels < 0, np.nan, labels)
    return StudyTable(study_ids=truth.row_ids, patient_ids=truth.patient_ids, columns=columns)


_HALF = {"chance": 0.5, "floor": 0.5, "ceiling": 1.0}


def _any_stated(truth: Truth) -> Flags:
    """(N,) True where a row states any finding."""
    return np.asarray((truth.labels >= 0).any(axis=1), dtype=bool)
