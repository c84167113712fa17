"""One finding in every draw or permutation. Legend: N rows, B draws, K permutations, F findings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from t3d.judge.rules import called_by
from t3d.scores.auroc import auroc_of_masses
from t3d.scores.bootstrap import Draws
from t3d.scores.confusion import Confusion, confusion_of_masses
from t3d.scores.thresholds import Rule, fit_threshold

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_BLOCK = 1000  # draws whose masses are held at once
_COUNTS = ("true_positive", "false_positive", "true_negative", "false_negative")


def auroc_drawn(scores: Floats, labels: NDArray[np.int8], draws: Draws) -> Floats:
    """AUROC of every draw.

    Args:
        scores: (N,) finite.
        labels: (N,) 1, 0, -1 = not stated.
        draws: Of the same rows.

    Returns:
        (B,); NaN where a draw holds one class only.
    """
    parts = []
    for first in range(0, len(draws.counts), _BLOCK):
        taken = draws.counts[first : first + _BLOCK, draws.row_patient].astype(np.float64)
        parts.append(auroc_of_masses(scores, taken * (labels == 1), taken * (labels == 0)))
    return np.concatenate(parts)


def answers_drawn(called: Flags, labels: NDArray[np.int8], draws: Draws) -> Confusion:
    """Count answers in every draw.

    Args:
        called: (N,) True = called positive.
        labels: (N,) 1, 0, -1 = not stated.
        draws: Of the same rows.

    Returns:
        Counts, each (B,).
    """

    def counted(rows: Flags) -> Floats:
        """Rows of this kind in every draw; whole numbers, so exact."""
        of_patient = np.bincount(draws.row_patient[rows], minlength=draws.num_patients)
        return (draws.counts @ of_patient).astype(np.float64)

    return Confusion(
        true_positive=counted(called & (labels == 1)),
        false_positive=counted(called & (labels == 0)),
        true_negative=counted(~called & (labels == 0)),
        false_negative=counted(~called & (labels == 1)),
    )


def answers_permuted(
    scores: Floats, moved: NDArray[np.int8], rule: Rule, threshold: float | None
) -> Confusion:
    """Count answers when truth is handed to other patients.

    Args:
        scores: (N,) finite.
        moved: (K, N) labels after each permutation.
        rule: How a threshold is chosen, and which side of it is positive.
        threshold: Chosen elsewhere; None = on the truth at hand, so anew in every permutation.

    Returns:
        Counts, each (K,).
    """
    if threshold is not None:
        return confusion_of_masses(called_by(scores, threshold, rule), moved == 1, moved == 0)
    rows = []
    for labels in moved:
        stated = labels >= 0
        called = called_by(scores, fit_threshold(scores[stated], labels[stated], rule), rule)
        rows.append(confusion_of_masses(called, (labels == 1)[None], (labels == 0)[None]))
    return Confusion(**{n: np.concatenate([getattr(r, n) for r in rows]) for n in _COUNTS})


def one_finding(answers: Confusion, f: int) -> Confusion:
    """Take the counts of one finding, each (B,), from counts (B, F)."""
    return Confusion(**{name: getattr(answers, name)[:, f] for name in _COUNTS})


def side_by_side(rows: Sequence[Confusion]) -> Confusion:
    """Put counts of F findings, each (B,), together to (B, F)."""
    return Confusion(
        **{name: np.stack([getattr(row, name) for row in rows], axis=-1) for name in _COUNTS}
    )
