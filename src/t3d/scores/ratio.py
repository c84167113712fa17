"""Division that says what an empty denominator gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ratio(part: ArrayLike, whole: ArrayLike, *, empty: float = float("nan")) -> NDArray[np.float64]:
    """Divide, and give `empty` where the denominator is not above 0.

    Args:
        part: Numerators, any shape.
        whole: Denominators of a shape that fits.
        empty: Result where `whole` <= 0.

    Returns:
        part / whole, float64; NaN where either is NaN.
    """
    over = np.asarray(whole, dtype=np.float64)
    under = np.asarray(part, dtype=np.float64)
    out = np.full(np.broadcast_shapes(under.shape, over.shape), empty)
    np.divide(under, over, out=out, where=~(over <= 0))
    return out
