"""Rules that protocols name: how a threshold is chosen, and what a constant answer gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.scores.confusion import MEASURES, confusion
from t3d.scores.thresholds import f1_threshold, youden_threshold

THRESHOLDS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "youden_from_dev": youden_threshold,
    "f1_from_dev": f1_threshold,
}
"""Threshold rules by the name a protocol gives; each sees development studies only."""


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
