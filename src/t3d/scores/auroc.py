"""How well scores order studies: area under the ROC curve, and average precision.

Both come twice: for the studies as they are, and for many resamples of them at once, given
how often each study was drawn. Legend: N studies, B draws.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.scores.checks import both_classes, scores_and_labels, weight_rows
from t3d.scores.ratio import ratio

Floats = NDArray[np.float64]

_BLOCK_ELEMENTS = 2_000_000  # numbers held at once: 16 MB a working array


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve; a tied pair counts one half.

    Formula: mean over pairs (positive i, negative j) of [s_i > s_j] + 1/2 [s_i = s_j].
    Check: scores (.1, .4, .35, .8), labels (0, 0, 1, 1) -> 3 of 4 pairs in order = .75.

    Args:
        scores: (N,) finite, larger = more likely present.
        labels: (N,) 0 or 1.

    Returns:
        Between 0 and 1; .5 is chance.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or a class is empty.

    Source:
        Mann-Whitney U over the number of pairs (Hanley and McNeil 1982).
    """
    values, truth = scores_and_labels(scores, labels)
    both_classes(truth)
    return float(auroc_of_masses(values, truth[None], ~truth[None])[0])


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the precision-recall steps; tied scores enter together.

    Formula: sum over distinct scores, from the highest, of (R_k - R_{k-1}) P_k.
    Check: scores (.9, .8, .7), labels (1, 0, 1) -> 1/2 * 1 + 1/2 * 2/3 = .833333.

    Args:
        scores: (N,) finite, larger = more likely present.
        labels: (N,) 0 or 1.

    Returns:
        Between 0 and 1; a constant score gets the share of positives.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or a class is empty.

    Source:
        The step form without interpolation, as scikit-learn defines it.
    """
    values, truth = scores_and_labels(scores, labels)
    both_classes(truth)
    return float(average_precision_draws(values, truth, np.ones((1, len(values))))[0])


def auroc_of_masses(scores: ArrayLike, positive: ArrayLike, negative: ArrayLike) -> Floats:
    """Area under the ROC curve where each study counts so much as positive and as negative.

    Resampled studies and permuted labels are both of this form.

    Args:
        scores: (N,) finite.
        positive: (B, N) mass of each study as a positive.
        negative: (B, N) mass of each study as a negative.

    Returns:
        (B,); NaN where one of the two masses is empty.

    Raises:
        ProtocolError: Masses do not fit the scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    out = np.full(len(np.asarray(positive)), np.nan)
    for block, above, below in _grouped(values, order, positive, negative):
        lower = np.cumsum(below, axis=1) - below
        pairs = above.sum(axis=1) * below.sum(axis=1)
        won = (above * (lower + 0.5 * below)).sum(axis=1)
        out[block] = ratio(won, pairs)
    return out


def average_precision_draws(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> Floats:
    """`average_precision` of every draw, from how often each study was drawn.

    Args:
        scores: (N,) finite.
        labels: (N,) 0 or 1.
        weights: (B, N) counts.

    Returns:
        (B,) values; NaN where a draw holds one class only.

    Raises:
        ProtocolError: As `average_precision` (an empty class gives NaN), or weights do not fit.
    """
    values, truth = scores_and_labels(scores, labels)
    rows = weight_rows(weights, len(values))
    order = np.argsort(-values, kind="stable")
    out = np.full(len(rows), np.nan)
    for block, positive, negative in _grouped(values, order, rows * truth, rows * ~truth):
        found = np.cumsum(positive, axis=1)
        called = found + np.cumsum(negative, axis=1)
        precision = ratio(found, called, empty=0.0)
        total = positive.sum(axis=1)
        area = (positive * precision).sum(axis=1)
        mixed = (total > 0) & (negative.sum(axis=1) > 0)
        out[block] = np.where(mixed, ratio(area, total), np.nan)
    return out


def _grouped(
    values: Floats, order: NDArray[np.intp], positive: ArrayLike, negative: ArrayLike
) -> Iterator[tuple[slice, Floats, Floats]]:
    """Positive and negative mass of every group of ties in order, for blocks of draws."""
    masses = [weight_rows(mass, len(values)) for mass in (positive, negative)]
    if len(order) == 0:
        return
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    step = max(1, _BLOCK_ELEMENTS // len(order))
    for first in range(0, len(masses[0]), step):
        block = slice(first, first + step)
        above, below = (mass[block][:, order] for mass in masses)
        if len(starts) < len(order):  # reduceat is slower than leaving untied rows alone
            above, below = (np.add.reduceat(mass, starts, axis=1) for mass in (above, below))
        yield block, above, below
