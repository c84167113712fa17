"""Scores that a model did not give: filled only as badly as can be.

No formula of this room takes NaN. A missing score is an error, or, where the user asks for it,
the worst that the model could have said; never 0, never left out in silence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError

Floats = NDArray[np.float64]


def worst_case(
    scores: ArrayLike, labels: ArrayLike, *, bounds: tuple[float, float] | None = None
) -> Floats:
    """Fill missing scores with the worst for the model: positives lowest, negatives highest.

    Check: scores (.2, NaN, .6, NaN), labels (0, 1, 1, 0) -> (.2, -.8, .6, 1.6): no pair that
    holds a missing score is in order. With bounds (0, 1): (.2, 0, .6, 1).

    Args:
        scores: (N, F).
        labels: (N, F) 1, 0, or -1 = not stated (filled too, since no formula looks there).
        bounds: Lowest and highest score there can be, such as (0, 1) for probabilities; a given
            score that lies there ties with the filled one. None = 1 beyond all given ones.

    Returns:
        (N, F) without NaN; a finding without any score gets 0 and 1.

    Raises:
        ProtocolError: Shapes differ.
    """
    values, truth = np.array(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or values.shape != truth.shape:
        raise ProtocolError(
            f"scores of shape {values.shape} beside labels of shape {truth.shape}",
            expected="two tables (N, F)",
            fix="one row a study, one column a finding, in the same order",
        )
    for column, told in zip(values.T, truth.T, strict=True):
        bad = ~np.isfinite(column)
        given = column[~bad] if not bad.all() else np.array([1.0, 0.0])
        low, high = bounds if bounds is not None else (given.min() - 1, given.max() + 1)
        column[bad] = np.where(told[bad] == 1, low, high)
    return values
