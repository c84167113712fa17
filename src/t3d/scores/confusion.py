"""Scores of yes/no answers, for one set of studies or for many resamples and findings at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.scores.checks import scores_and_labels, weight_rows
from t3d.scores.ratio import ratio

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Confusion:
    """Counts of right and wrong answers; each field is (B,), or (B, F): an entry a draw.

    Every ratio with an empty denominator is 0, never NaN, except where a whole class is
    missing from the truth: sensitivity without positives and specificity without negatives
    (and the balanced accuracy made of them) are NaN. Counts that are NaN (no threshold could be
    fitted) give NaN. Macro is `bootstrap.mean_over_findings` of a measure, micro that of `pooled`.
    """

    true_positive: Floats
    false_positive: Floats
    true_negative: Floats
    false_negative: Floats

    @property
    def sensitivity(self) -> Floats:
        """Share of positives called positive."""
        return ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Floats:
        """Share of negatives called negative."""
        return ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> Floats:
        """Share of positive calls that are right; 0 where nothing is called positive."""
        return ratio(self.true_positive, self.true_positive + self.false_positive, empty=0.0)

    @property
    def accuracy(self) -> Floats:
        """Share of right answers."""
        right = self.true_positive + self.true_negative
        return ratio(right, right + self.false_positive + self.false_negative)

    @property
    def balanced_accuracy(self) -> Floats:
        """Mean of sensitivity and specificity; .5 for every constant answer."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def f1(self) -> Floats:
        """F1 of the positive class (binary F1)."""
        return _f1(self.true_positive, self.false_positive, self.false_negative)

    @property
    def f1_macro(self) -> Floats:
        """Mean of the F1 of both classes."""
        return (self.f1 + self._f1_negative) / 2

    @property
    def f1_weighted(self) -> Floats:
        """F1 of both classes weighted by how frequent each is; high for all-negative answers."""
        positive = self.true_positive + self.false_negative
        negative = self.true_negative + self.false_positive
        summed = positive * self.f1 + negative * self._f1_negative
        return ratio(summed, positive + negative)

    @property
    def _f1_negative(self) -> Floats:
        """F1 of the negative class."""
        return _f1(self.true_negative, self.false_negative, self.false_positive)


MEASURES: tuple[str, ...] = (
    "sensitivity",
    "specificity",
    "precision",
    "f1",
    "f1_macro",
    "f1_weighted",
    "accuracy",
    "balanced_accuracy",
)
"""Names of the scores a `Confusion` gives."""


def pooled(answers: Confusion) -> Confusion:
    """Add up the answers of all findings (micro).

    Args:
        answers: Counts, each (B, F).

    Returns:
        Counts, each (B,); findings without counts (NaN) are left out.
    """
    return Confusion(
        true_positive=np.nansum(answers.true_positive, axis=-1),
        false_positive=np.nansum(answers.false_positive, axis=-1),
        true_negative=np.nansum(answers.true_negative, axis=-1),
        false_negative=np.nansum(answers.false_negative, axis=-1),
    )


def crg(answers: Confusion) -> Floats:
    """CRG of pooled answers: what a hit and a miss weigh follows from how rare positives are.

    Formula: X answers, A of them truly positive; r = (X - A) / (2 A), U = (X - A) / 2,
    s = r TP - r FN - FP; CRG = U / (2 U - s).
    Check: 3 studies x 4 findings, TP 2, FN 1, FP 1 -> r 1.5, U 4.5, s .5: 9/17 = .529412.
    All-negative, all-positive and every answer independent of the truth get exactly 1/3.

    Args:
        answers: Counts pooled over findings, each (B,).

    Returns:
        (B,) between .2 and 1; NaN without positives (the released code fails there), 0 without
        negatives.

    Source:
        arXiv:2505.17167; VLM3D-Dockers crg_score.py.
    """
    positives = answers.true_positive + answers.false_negative
    negatives = answers.true_negative + answers.false_positive
    weight = ratio(negatives, 2 * positives)
    score = weight * (answers.true_positive - answers.false_negative) - answers.false_positive
    whole = negatives - score  # 2 U = X - A = the negatives
    return np.where(np.isnan(weight), np.nan, ratio(negatives / 2, whole, empty=0.0))


def confusion(
    scores: ArrayLike, labels: ArrayLike, threshold: float, *, weights: ArrayLike | None = None
) -> Confusion:
    """Count answers of the rule "present if score >= threshold".

    Check: scores (.2, .6, .7, .4), labels (0, 0, 1, 1), threshold .5 -> one of each kind:
    every score is .5.

    Args:
        scores: (N,) finite.
        labels: (N,) 0 or 1.
        threshold: Smallest score that is called positive.
        weights: (B, N) how often each study was drawn; None = one draw of every study once.

    Returns:
        Counts, each (B,); B = 1 without weights.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or weights do not fit.
    """
    values, truth = scores_and_labels(scores, labels)
    drawn = np.ones((1, len(values))) if weights is None else weight_rows(weights, len(values))
    return confusion_of_masses(values >= threshold, drawn * truth, drawn * ~truth)


def confusion_of_masses(called: ArrayLike, positive: ArrayLike, negative: ArrayLike) -> Confusion:
    """Count answers where each study counts so much as positive and as negative.

    Args:
        called: (N,) True = called positive.
        positive: (B, N) mass of each study as a positive.
        negative: (B, N) mass of each study as a negative.

    Returns:
        Counts, each (B,).

    Raises:
        ProtocolError: Masses do not fit the answers.
    """
    yes = np.asarray(called, dtype=bool)
    above, below = weight_rows(positive, len(yes)), weight_rows(negative, len(yes))
    return Confusion(
        true_positive=above @ yes,
        false_positive=below @ yes,
        true_negative=below @ ~yes,
        false_negative=above @ ~yes,
    )


def _f1(hit: Floats, wrong: Floats, missed: Floats) -> Floats:
    """2 hit / (2 hit + wrong + missed)."""
    return ratio(2 * hit, 2 * hit + wrong + missed, empty=0.0)
