"""Values of a protocol's measures on one set of rows, and what answers that say nothing get.

No interval enters here: `classification.classify` adds them. Legend: N rows, F findings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.protocol import Protocol
from t3d.judge.truth import Truth
from t3d.scores.auroc import auroc, average_precision
from t3d.scores.bootstrap import Draws
from t3d.scores.calibration import INSPECT_CELLS, calibration_error
from t3d.scores.confusion import (
    MEASURES,
    Confusion,
    confusion,
    confusion_of_masses,
    crg,
    pooled,
)
from t3d.scores.thresholds import Rule, fit_threshold, rule_named

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NUM_RANDOM = 10  # random models that the floor is the mean of
ORDERS = ("auroc", "average_precision")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Scores of rows beside their truth."""

    truth: Truth
    scores: Floats  # (N, F) finite, larger = more likely present
    notes: Mapping[str, int] = field(default_factory=dict)  # what was filled or taken instead
    excluded: Mapping[str, int] = field(default_factory=dict)  # what was left out

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
                f"the first: {self.truth.row_ids[bad[0]]}",
                expected="a finite score for every study and finding",
                fix="find why the model gives none; it is never replaced by 0",
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Values:
    """Measures of every finding; NaN = not defined there."""

    thresholds: Floats  # (F,) NaN = none could be fitted
    answers: Confusion  # counts, each (F,); NaN where there is no threshold
    table: Mapping[str, Floats]  # measure -> (F,)
    pooled: Mapping[str, float]  # measures over all answers at once

    def macro(self) -> dict[str, float]:
        """Mean of each measure over the findings that have it; pooled ones as they are."""
        known = {name: column[np.isfinite(column)] for name, column in self.table.items()}
        means = {name: float(np.mean(c)) if len(c) else np.nan for name, c in known.items()}
        return means | dict(self.pooled)


def values_of(dev: Scored | None, test: Scored, protocol: Protocol) -> Values:
    """Judge scores once, without intervals.

    A finding that is always or never present in the test rows has no AUROC and no average
    precision; it has yes/no measures only where the protocol counts it (`one_class` is "nan":
    an empty denominator is 0 there).

    Args:
        dev: Rows that thresholds are fitted on; used only where the protocol says so.
        test: Rows that are scored.
        protocol: With rules for classification.

    Returns:
        The values.

    Raises:
        ProtocolError: No finding has both classes; or one has not, and the protocol takes that
            for an error.
    """
    _check_classes(test.truth, protocol)
    rules = protocol.classes
    rule = rule_named(rules.threshold)
    labels, scores = test.truth.labels, test.scores
    both = both_classes_of(labels)
    fitted = test if rules.fitted_on != "dev" else dev
    judged = both if rules.one_class != "nan" else (labels >= 0).any(axis=0)
    thresholds = np.full(len(both), np.nan)
    counts = np.full((4, len(both)), np.nan)
    table = {name: np.full(len(both), np.nan) for name in (*ORDERS, *MEASURES)}
    wanted = {row.definition for row in rules.printed}
    table |= {name: np.full(len(both), np.nan) for name in wanted & {"ece9"}}
    for f in np.flatnonzero(judged):
        stated = labels[:, f] >= 0
        column, truth = scores[stated, f], labels[stated, f]
        if both[f]:
            table["auroc"][f] = auroc(column, truth)
            table["average_precision"][f] = average_precision(column, truth)
            if "ece9" in wanted:
                once = Draws.disabled(len(column))
                table["ece9"][f] = calibration_error(column, truth, once, INSPECT_CELLS)[0]
        thresholds[f] = _threshold(fitted, int(f), rule)
        if not np.isnan(thresholds[f]):
            counts[:, f] = _counted(called_by(column, thresholds[f], rule), truth)
    answers = Confusion(
        true_positive=counts[0],
        false_positive=counts[1],
        true_negative=counts[2],
        false_negative=counts[3],
    )
    for name in MEASURES:
        table[name] = measure_of(answers, name, zero=rules.one_class == "nan")
    once_all = {"crg": float(crg(pooled(answers)))} if "crg" in wanted else {}
    return Values(thresholds=thresholds, answers=answers, table=table, pooled=once_all)


def measure_of(answers: Confusion, name: str, *, zero: bool) -> Floats:
    """Read a measure; `zero`: what an absent class leaves undefined is 0."""
    found: Floats = getattr(answers, name)
    known = np.isfinite(answers.true_positive)
    return np.where(np.isnan(found) & known, 0.0, found) if zero else np.where(known, found, np.nan)


def called_by(scores: Floats, threshold: float, rule: Rule) -> Flags:
    """Say which scores are called positive."""
    return scores > threshold if rule.strict else scores >= threshold


def both_classes_of(labels: NDArray[np.int8]) -> Flags:
    """(F,) True where a finding has a positive and a negative row."""
    return np.asarray((labels == 1).any(axis=0) & (labels == 0).any(axis=0))


def constant_answers(labels: NDArray[np.int8]) -> dict[str, tuple[float, float]]:
    """What "all negative" and "all positive" get for every yes/no measure.

    Weighted F1 and accuracy look good for an answer that says nothing: on CT-RATE's 3,039
    validation volumes all-negative gets a weighted F1 of .725 and an accuracy of .807.

    Args:
        labels: (N,) 1 or 0.

    Returns:
        Measure -> (all negative, all positive).
    """
    blind = np.zeros(len(labels))
    never, always = (confusion(blind, labels, threshold) for threshold in (1.0, 0.0))
    return {m: (float(getattr(never, m)[0]), float(getattr(always, m)[0])) for m in MEASURES}


def constant_floor(labels: NDArray[np.int8]) -> dict[str, float]:
    """The better of all-negative and all-positive for every yes/no measure.

    Args:
        labels: (N,) 1 or 0, both present.

    Returns:
        Measure -> floor. Sensitivity and specificity alone get 1: neither means anything
        without the other.
    """
    return {measure: max(pair) for measure, pair in constant_answers(labels).items()}


def blind_and_perfect(
    dev: Truth | None, test: Truth, protocol: Protocol
) -> dict[str, dict[str, float]]:
    """What models that see nothing, and one that knows, get under a protocol's own rule.

    Args:
        dev: Truth that thresholds are fitted on, where the protocol says so.
        test: Truth of the evaluated rows.
        protocol: With rules for classification.

    Returns:
        Model -> measure -> mean over findings. Models: "constant" (one score for all),
        "all_negative", "all_positive", "random" (uniform scores, mean of `NUM_RANDOM`, seeded by
        the protocol), "perfect" (the labels as scores).
    """

    def judged(make: Callable[[Truth], Floats]) -> dict[str, float]:
        known = None if dev is None else Scored(truth=dev, scores=make(dev))
        return values_of(known, Scored(truth=test, scores=make(test)), protocol).macro()

    found = {"constant": judged(lambda t: np.full(t.labels.shape, 0.5))}
    used = both_classes_of(test.labels)
    rows = [constant_answers(y[y >= 0]) for y in test.labels.T[used]]
    for name, side in (("all_negative", 0), ("all_positive", 1)):
        found[name] = {m: float(np.mean([row[m][side] for row in rows])) for m in MEASURES}
    rng = np.random.default_rng(protocol.seed)
    drawn = [judged(lambda t: rng.random(t.labels.shape)) for _ in range(NUM_RANDOM)]
    found["random"] = {name: float(np.mean([d[name] for d in drawn])) for name in drawn[0]}
    found["perfect"] = judged(lambda t: np.where(t.labels == 1, 1.0, 0.0))
    return found


def _check_classes(truth: Truth, protocol: Protocol) -> None:
    """Refuse findings with one class where the protocol does, and a split without any finding."""
    both = both_classes_of(truth.labels)
    lacking = [name for name, has in zip(truth.findings, both, strict=True) if not has]
    if not both.any():
        raise ProtocolError(
            "no finding has both a positive and a negative study in the evaluated split",
            expected="at least one finding with both",
            fix="evaluate on a larger split, or on other findings",
        )
    if lacking and protocol.classes.one_class == "error":
        raise ProtocolError(
            f"protocol {protocol.name!r}: always or never present: {', '.join(lacking)}",
            expected="both classes of every finding, as its code needs",
            fix="evaluate on a larger split, or leave them out by name: "
            "protocol.variant('skip', classification__one_class='skip')",
        )


def _threshold(fitted: Scored | None, f: int, rule: Rule) -> float:
    """Threshold of one finding; NaN where a class is missing to fit it on."""
    if rule.is_fixed:
        return float(rule.fallback(np.zeros(1)))
    if fitted is None:
        raise ProtocolError(
            f"threshold rule {rule.name!r} without development rows",
            expected="scores of the dev split",
            fix="give them, or name a protocol with fixed thresholds",
        )
    labels = fitted.truth.labels[:, f]
    if not both_classes_of(labels[:, None])[0]:
        return np.nan
    stated = labels >= 0
    return fit_threshold(fitted.scores[stated, f], labels[stated], rule)


def _counted(called: Flags, labels: NDArray[np.int8]) -> tuple[float, float, float, float]:
    """True and false positives, true and false negatives."""
    found = confusion_of_masses(called, (labels == 1)[None], (labels == 0)[None])
    return (
        float(found.true_positive[0]),
        float(found.false_positive[0]),
        float(found.true_negative[0]),
        float(found.false_negative[0]),
    )
