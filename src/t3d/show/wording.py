"""How numbers are written on a page; a number that is missing is said to be missing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from t3d.types import Metric

NOT_MEASURED = "not measured"


def is_measured(metric: Metric) -> bool:
    """Whether a number stands there at all."""
    return math.isfinite(metric.value)


def has_interval(metric: Metric) -> bool:
    """Whether both ends of the 95 % interval are known."""
    return math.isfinite(metric.low) and math.isfinite(metric.high)


def number(value: float, digits: int = 3) -> str:
    """Write a number with a fixed number of decimals, or say that it is missing.

    Args:
        value: Any float; NaN and infinities count as missing.
        digits: Decimals.

    Returns:
        "0.817", or "not measured".
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else NOT_MEASURED


def short(value: float) -> str:
    """Write a number with three significant digits ("0.0003", "256"), or say it is missing."""
    return f"{value:.3g}" if math.isfinite(value) else NOT_MEASURED


def percent(value: float) -> str:
    """Write a share as whole percent ("72 %"), or say that it is missing."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else NOT_MEASURED


def seconds(value: float) -> str:
    """Write a duration in seconds, with minutes beside it from two minutes on."""
    if not math.isfinite(value):
        return NOT_MEASURED
    short = f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{short} ({value / 60:.1f} min)" if value >= 120 else short


def interval(metric: Metric, digits: int = 3) -> str:
    """Write the 95 % interval as "[0.806, 0.830]", or say that there is none."""
    if not is_measured(metric):
        return ""
    if not has_interval(metric):
        return "no interval"
    return f"[{metric.low:.{digits}f}, {metric.high:.{digits}f}]"


def with_interval(metric: Metric, digits: int = 2) -> str:
    """Write a value and its interval for a sentence: "0.82 [0.81, 0.83]"."""
    return f"{number(metric.value, digits)} {interval(metric, digits)}".strip()


def listed(names: list[str]) -> str:
    """Join names for a sentence: "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
