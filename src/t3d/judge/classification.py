"""From scores of studies to AUROC, average precision and yes/no measures with intervals.

Used by every task that ends in one score a study and finding. Legend: N studies, F findings,
B draws, K permutations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.outcome import Outcome, StudyTable, metric_of
from t3d.judge.protocol import Protocol
from t3d.judge.rules import THRESHOLDS, constant_floor
from t3d.judge.truth import FORMS, Truth
from t3d.scores.auroc import (
    auroc,
    auroc_of_masses,
    average_precision,
    average_precision_draws,
)
from t3d.scores.bootstrap import Draws, interval, permutations
from t3d.scores.confusion import MEASURES, confusion, confusion_of_masses
from t3d.scores.ratio import ratio
from t3d.types import Metric, Result

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Scores of the studies of one split beside their truth."""

    truth: Truth
    scores: Floats  # (N, F) finite, larger = more likely present

    def __post_init__(self) -> None:
        if self.scores.shape != self.truth.labels.shape:
            raise ProtocolError(
                f"scores of shape {self.scores.shape} beside labels {self.truth.labels.shape}",
                expected="one score a study and finding, in the truth's order",
                fix="ask the model for the studies and findings of the truth",
            )
        bad = np.flatnonzero(~np.isfinite(self.scores).all(axis=1))
        if len(bad):
            raise ProtocolError(
                f"{len(bad)} of {len(self.scores)} studies have a score that is not finite, "
                f"the first: {self.truth.study_ids[bad[0]]}",
                expected="a finite score for every study and finding",
                fix="find why the model gives none; it is never replaced by 0",
            )


@dataclass(slots=True, kw_only=True, eq=False)
class _Sheet:
    """What one run of `classify` collects."""

    test: Scored
    draws: Draws
    orders: NDArray[np.intp]  # (K, N) permutations
    metrics: list[Metric] = field(default_factory=list)
    drawn: dict[str, Floats] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(
        self, name: str, value: float, drawn: Floats, keep: NDArray[np.bool_], **bounds: float
    ) -> None:
        """Note a metric with its interval."""
        spread = interval(drawn)
        patients = len(np.unique(self.draws.row_patient[keep]))
        self.metrics.append(metric_of(name, value, spread, patients, bounds=bounds))
        self.drawn[name] = drawn
        if spread.num_dropped:
            self.dropped[f"draws_dropped:{name}"] = spread.num_dropped


def classify(
    dev: Scored,
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

    Args:
        dev: Development studies; thresholds come from them only.
        test: Studies that are scored.
        protocol: Rules.
        task: Name of the task.
        column: Names the score columns of the table: `score:<column>:<finding>`.
        provenance: What the result rests on.

    Returns:
        The outcome.

    Raises:
        ProtocolError: Dev and test name different findings, share a patient, or no finding
            has both classes.
    """
    _check_apart(dev.truth, test.truth)
    ids = test.truth.patient_ids
    sheet = _Sheet(
        test=test,
        draws=Draws.of(ids, num_draws=protocol.num_draws, seed=protocol.seed),
        orders=permutations(ids, num=protocol.num_permutations, seed=protocol.seed),
    )
    for form in FORMS:
        _add_auroc(sheet, form)
        _add_permuted(sheet, form)
    _add_precision(sheet)
    _add_answers(sheet, dev, protocol)
    result = Result(
        task=task,
        protocol=protocol.name,
        metrics=tuple(sheet.metrics),
        counts=_counts(test.truth) | sheet.dropped,
        excluded=sheet.excluded,
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
    for f, (finding, labels) in enumerate(zip(truth.findings, truth.of_form(form).T, strict=True)):
        keep = labels >= 0
        if not _both(labels):
            sheet.excluded[f"one class ({form}): {finding}"] = 1
            continue
        column = scores[:, f]
        values.append(auroc(column[keep], labels[keep]))
        weights = sheet.draws.weights
        drawn.append(auroc_of_masses(column, weights * (labels == 1), weights * (labels == 0)))
        sheet.add(f"{prefix}:{finding}", values[-1], drawn[-1], keep, **_HALF)
        anyone |= keep
    if not values and form == "all":
        raise ProtocolError(
            "no finding has both a positive and a negative study in the evaluated split",
            expected="at least one finding with both",
            fix="evaluate on a larger split, or on other findings",
        )
    if values:
        name = "auroc:macro" if form == "all" else f"auroc:{form}"
        sheet.add(name, float(np.mean(values)), _mean_of_defined(drawn), anyone, **_HALF)


def _add_permuted(sheet: _Sheet, form: str) -> None:
    """Mean AUROC over findings when truth is handed to other patients."""
    labels, scores = sheet.test.truth.of_form(form), sheet.test.scores
    columns = [
        auroc_of_masses(scores[:, f], moved == 1, moved == 0)
        for f in range(scores.shape[1])
        if _both(labels[:, f])
        for moved in (labels[:, f][sheet.orders],)
    ]
    if columns:
        values = np.mean(columns, axis=0)
        spread = interval(values)
        name = "permuted_auroc:macro" if form == "all" else f"permuted_auroc:{form}"
        patients = sheet.draws.num_patients
        sheet.metrics.append(
            metric_of(name, float(values.mean()), spread, patients, bounds={"chance": 0.5})
        )


def _add_precision(sheet: _Sheet) -> None:
    """Average precision of every finding and their mean."""
    truth, scores = sheet.test.truth, sheet.test.scores
    values: list[float] = []
    shares: list[float] = []
    drawn: list[Floats] = []
    for f, (finding, labels) in enumerate(zip(truth.findings, truth.labels.T, strict=True)):
        if not _both(labels):
            continue
        keep = labels >= 0
        column, weights = scores[keep, f], sheet.draws.weights[:, keep]
        values.append(average_precision(column, labels[keep]))
        shares.append(float(labels[keep].mean()))
        drawn.append(average_precision_draws(column, labels[keep], weights))
        bounds = {"chance": shares[-1], "floor": shares[-1], "ceiling": 1.0}
        sheet.add(f"average_precision:{finding}", values[-1], drawn[-1], keep, **bounds)
    share = float(np.mean(shares))
    sheet.add(
        "average_precision:macro",
        float(np.mean(values)),
        _mean_of_defined(drawn),
        _any_stated(truth),
        chance=share,
        floor=share,
        ceiling=1.0,
    )


def _add_answers(sheet: _Sheet, dev: Scored, protocol: Protocol) -> None:
    """Yes/no measures under thresholds from dev."""
    truth = sheet.test.truth
    gathered: dict[str, list[tuple[float, Floats, float, float]]] = {m: [] for m in MEASURES}
    for f, finding in enumerate(truth.findings):
        labels = truth.labels[:, f]
        if not _both(labels):
            continue
        if not _both(dev.truth.labels[:, f]):
            sheet.excluded[f"no threshold, one class in dev: {finding}"] = 1
            continue
        stated = dev.truth.labels[:, f] >= 0
        rule = THRESHOLDS[protocol.threshold_rule]
        threshold = rule(dev.scores[stated, f], dev.truth.labels[stated, f])
        n = int(stated.sum())
        sheet.metrics.append(
            Metric(name=f"threshold:{finding}", value=threshold, n=n, unit="dev studies")
        )
        for measure, row in _answers(sheet, f, threshold).items():
            gathered[measure].append(row)
            bounds = {"chance": row[2], "floor": row[3], "ceiling": 1.0}
            sheet.add(f"{measure}:{finding}", row[0], row[1], labels >= 0, **bounds)
    for measure, rows in gathered.items():
        if rows:
            value, chance, floor = (float(np.mean([r[i] for r in rows])) for i in (0, 2, 3))
            drawn = _mean_of_defined([r[1] for r in rows])
            bounds = {"chance": chance, "floor": floor, "ceiling": 1.0}
            keep = _any_stated(truth)
            sheet.add(f"{measure}:macro", value, drawn, keep, **bounds)


def _answers(
    sheet: _Sheet, f: int, threshold: float
) -> dict[str, tuple[float, Floats, float, float]]:
    """Measure -> value, draws, mean over permutations, floor; for one finding."""
    labels, scores = sheet.test.truth.labels[:, f], sheet.test.scores[:, f]
    keep = labels >= 0
    given = confusion(scores[keep], labels[keep], threshold)
    weights = sheet.draws.weights[:, keep]
    drawn = confusion(scores[keep], labels[keep], threshold, weights=weights)
    moved = labels[sheet.orders]
    blind = confusion_of_masses(scores >= threshold, moved == 1, moved == 0)
    floors = constant_floor(labels[keep])
    return {
        m: (
            float(getattr(given, m)[0]),
            getattr(drawn, m),
            float(np.mean(getattr(blind, m))),
            floors[m],
        )
        for m in MEASURES
    }


def _counts(truth: Truth) -> dict[str, int]:
    """How many studies say what about each finding."""
    counts = {"studies": len(truth.study_ids), "patients": len(set(truth.patient_ids))}
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
    columns = zip(scored.scores.T, scored.truth.of_form(form).T, strict=True)
    values = [auroc(s[y >= 0], y[y >= 0]) for s, y in columns if _both(y)]
    return float(np.mean(values)) if values else float("nan")


def _table(test: Scored, column: str) -> StudyTable:
    """Scores and labels, one row a study."""
    truth = test.truth
    columns: dict[str, Floats] = {}
    for f, finding in enumerate(truth.findings):
        columns[f"score:{column}:{finding}"] = test.scores[:, f]
    for f, finding in enumerate(truth.findings):
        labels = truth.labels[:, f].astype(np.float64)
        columns[f"label:{finding}"] = np.where(labels < 0, np.nan, labels)
    return StudyTable(study_ids=truth.study_ids, patient_ids=truth.patient_ids, columns=columns)


def _both(labels: NDArray[np.int8]) -> bool:
    """Whether there is a positive and a negative."""
    return bool((labels == 1).any() and (labels == 0).any())


def _mean_of_defined(drawn: list[Floats]) -> Floats:
    """Mean over findings in every draw, over those that are defined there."""
    table = np.stack(drawn)
    given = np.isfinite(table)
    number = given.sum(axis=0)
    total = np.where(given, table, 0.0).sum(axis=0)
    return ratio(total, number)


_HALF = {"chance": 0.5, "floor": 0.5, "ceiling": 1.0}


def _any_stated(truth: Truth) -> NDArray[np.bool_]:
    """(N,) True where a study states any finding."""
    return np.asarray((truth.labels >= 0).any(axis=1), dtype=bool)
