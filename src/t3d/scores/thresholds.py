"""Thresholds chosen on a development set: never on the studies that are scored with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.scores.checks import both_classes, scores_and_labels

_Counts = NDArray[np.int64]


def youden_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Score at which sensitivity + specificity is largest; the highest of several.

    Candidates are the scores themselves ("present if score >= threshold"), so the result is
    finite even for a score that says nothing: then it calls everything positive.

    Check: scores (.10, .40, .35, .80, .65, .20, .55, .90), labels (0, 0, 1, 1, 0, 0, 1, 1)
    -> .80: sensitivity .5, specificity 1.

    Args:
        scores: (N,) finite, of the development set.
        labels: (N,) 0 or 1.

    Returns:
        The threshold.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or a class is empty.

    Source:
        Youden 1950. Ties to the highest threshold: our choice.
    """
    values, truth = scores_and_labels(scores, labels)
    both_classes(truth)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    # in whole numbers (times positives * negatives), so that equal values are equal
    return _best(values, truth, lambda hit, wrong: hit * negatives - wrong * positives)


def f1_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Score at which binary F1 is largest; the highest of several.

    Check: scores (.9, .8, .7), labels (1, 0, 1): F1 is .667, .5, .8 -> .7.

    Args:
        scores: (N,) finite, of the development set.
        labels: (N,) 0 or 1.

    Returns:
        The threshold.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or a class is empty.

    Source:
        Ties to the highest threshold: our choice.
    """
    values, truth = scores_and_labels(scores, labels)
    both_classes(truth)
    positives = int(truth.sum())
    # F1 = 2 hit / (hit + wrong + positives); equal fractions divide to equal floats
    return _best(values, truth, lambda hit, wrong: 2 * hit / (hit + wrong + positives))


def _best(
    values: NDArray[np.float64],
    truth: NDArray[np.bool_],
    gain: Callable[[_Counts, _Counts], NDArray[np.generic]],
) -> float:
    """Highest distinct score with the largest gain(hits, false calls)."""
    order = np.argsort(-values, kind="stable")
    ordered, hits = values[order], np.cumsum(truth[order], dtype=np.int64)
    wrong = np.arange(1, len(ordered) + 1, dtype=np.int64) - hits
    last = np.flatnonzero(np.concatenate((ordered[1:] != ordered[:-1], [True])))
    return float(ordered[last[np.argmax(gain(hits[last], wrong[last]))]])
