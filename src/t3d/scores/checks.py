"""What every score asks of its input: finite scores, labels 0 or 1, both of them present."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError


def scores_and_labels(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Check a pair of one-dimensional arrays and give them back as float64 and bool.

    Args:
        scores: (N,) finite numbers; larger means more likely present.
        labels: (N,) 0 or 1; leave studies that do not state the finding out before.

    Returns:
        Scores (N,) float64 and labels (N,) bool.

    Raises:
        ProtocolError: Shapes differ, a score is not finite, or a label is neither 0 nor 1.
    """
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ProtocolError(
            f"scores of shape {values.shape} beside labels of shape {truth.shape}",
            expected="two arrays (N,), one label for each score",
            fix="pass one finding at a time, rows in the same order",
        )
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ProtocolError(
            f"{bad} of {len(values)} scores are not finite",
            expected="a finite score for every study",
            fix="find why the model gives none; a missing score is never replaced by 0",
        )
    if not np.isin(truth, (0, 1)).all():
        raise ProtocolError(
            f"labels hold {sorted(set(np.unique(truth).tolist()) - {0, 1})}",
            expected="0 or 1",
            fix="leave studies that do not state the finding out, and count them",
        )
    return values, truth.astype(bool)


def score_table(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Check scores and labels of several findings at once.

    Args:
        scores: (N, F) finite.
        labels: (N, F) 1, 0, or -1 = not stated.

    Returns:
        Scores (N, F) float64 and labels (N, F).

    Raises:
        ProtocolError: Shapes differ, a score is not finite, or a label is not 1, 0 or -1.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape != truth.shape:
        raise ProtocolError(
            f"scores of shape {values.shape} beside labels of shape {truth.shape}",
            expected="two tables (N, F), one label for each score",
            fix="one row a study, one column a finding, in the same order",
        )
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ProtocolError(
            f"{bad} of {values.size} scores are not finite",
            expected="a finite score for every study and finding",
            fix="find why the model gives none, or fill them with missing.worst_case",
        )
    if not np.isin(truth, (-1, 0, 1)).all():
        raise ProtocolError(
            f"labels hold {sorted(set(np.unique(truth).tolist()) - {-1, 0, 1})}",
            expected="1, 0, or -1 = not stated",
            fix="read labels with t3d.cohort.labels",
        )
    return values, truth.astype(np.int64)


def both_classes(labels: NDArray[np.bool_]) -> None:
    """Refuse labels that are all positive or all negative.

    Args:
        labels: (N,) bool.

    Raises:
        ProtocolError: One of the two classes is empty.
    """
    positive = int(np.count_nonzero(labels))
    if positive in (0, len(labels)):
        raise ProtocolError(
            f"{positive} positive and {len(labels) - positive} negative studies",
            expected="at least one of each",
            fix="leave this finding out, and name it beside the mean over the others",
        )


def weight_rows(weights: ArrayLike, num_rows: int) -> NDArray[np.float64]:
    """Check the weights of resampled rows.

    Args:
        weights: (B, N), how often each row was drawn in each of B draws.
        num_rows: N.

    Returns:
        (B, N) float64.

    Raises:
        ProtocolError: Shape is not (B, N), or a weight is negative or not finite.
    """
    rows = np.asarray(weights, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != num_rows:
        raise ProtocolError(
            f"weights of shape {rows.shape} beside {num_rows} rows",
            expected=f"(draws, {num_rows})",
            fix="make them with Draws.weights for the same rows",
        )
    if not np.isfinite(rows).all() or (rows < 0).any():
        raise ProtocolError(
            "weights below 0 or not finite",
            expected="counts of how often a row was drawn",
            fix="make them with Draws.weights",
        )
    return rows
