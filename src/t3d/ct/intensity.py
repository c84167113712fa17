"""Stored values to HU: slope and intercept exactly once, rounded, never truncated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT16_HU = (-32768, 32767)


def _quiet() -> np.errstate:
    """Let values pass that foreign floats may hold: infinities and not-a-numbers of all kinds."""
    return np.errstate(invalid="ignore", over="ignore")


@dataclass(frozen=True, slots=True)
class Rescale:
    """HU = slope * stored + intercept."""

    slope: float = 1.0
    intercept: float = 0.0  # HU

    def float32(self, stored: NDArray[Any], clip_hu: tuple[int, int]) -> NDArray[np.float32]:
        """Convert to float32 HU, clipped; not-a-number becomes the lower limit.

        Clipping comes before the narrow type, so int32 or float64 values far outside lose
        nothing that could matter. The input may be changed.

        Args:
            stored: Any shape, any integer or float type, native byte order.
            clip_hu: Lowest and highest HU kept.
        """
        low, high = clip_hu
        if stored.dtype == np.int16 and self.slope == 1.0 and float(self.intercept).is_integer():
            shift = int(self.intercept)
            raw_low, raw_high = (int(np.clip(v - shift, *INT16_HU)) for v in clip_hu)
            np.clip(stored, raw_low, raw_high, out=stored)
            out = stored.astype(np.float32)
            if shift:
                out += np.float32(shift)
                # A limit outside int16 could not be held while the values were stored ones.
                np.clip(out, low, high, out=out)
            return out
        with _quiet():
            return self._float32(stored, clip_hu)

    def _float32(self, stored: NDArray[Any], clip_hu: tuple[int, int]) -> NDArray[np.float32]:
        """Convert what is not int16 with a whole shift."""
        low, high = clip_hu
        exact = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
        values: NDArray[Any] = stored.astype(np.float32 if exact else np.float64)
        if self.slope != 1.0:
            np.multiply(values, self.slope, out=values)
        if self.intercept:
            np.add(values, self.intercept, out=values)
        np.clip(values, low, high, out=values)
        if stored.dtype.kind == "f":
            np.nan_to_num(values, copy=False, nan=low)
        return values.astype(np.float32, copy=False)

    def int16(self, stored: NDArray[Any], *, nan_hu: int = -1024) -> NDArray[np.int16]:
        """Convert to int16 HU: round half to even, clip to what int16 can hold.

        Args:
            stored: Any shape, any integer or float type.
            nan_hu: Value for not-a-number.

        Check: slope 7.1098, intercept -1024: stored 10 -> -952.902 -> -953.
        """
        if self.slope == 1.0 and self.intercept == 0.0 and stored.dtype == np.int16:
            return stored
        with _quiet():
            values = stored.astype(np.float64)
            values *= self.slope
            values += self.intercept
        if stored.dtype.kind == "f":
            np.nan_to_num(values, copy=False, nan=nan_hu, posinf=INT16_HU[1], neginf=INT16_HU[0])
        np.rint(values, out=values)
        np.clip(values, *INT16_HU, out=values)
        return values.astype(np.int16)
