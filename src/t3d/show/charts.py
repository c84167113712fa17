"""Line and dot charts as plain coordinates; the templates draw them as SVG.

SVG in the page keeps text as text, follows light and dark, and needs no file and no script.
Pixels: x runs right, y runs down; every chart is 340 wide so that a phone shows it at full size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 340
HEIGHT = 200
LEFT, RIGHT, TOP, BOTTOM = 46, 330, 12, 170  # px, plot area of a line chart
DOT_LEFT, DOT_RIGHT = 132, 286  # px, track of a dot chart
DOT_ROW = 24  # px
DOT_TOP = 30  # px, room for the guides' names
MAX_POINTS = 160  # a longer curve is drawn as means over equal shares of its points


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Values over steps, before they are placed."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: int = 2  # index of the page's palette


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A placed curve."""

    name: str
    colour: int
    path: str  # SVG path data
    last: tuple[float, float]  # px


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A tick or guide: where it stands (px) and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Everything the template needs to draw one chart."""

    title: str
    alt: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    over: str  # what x counts
    guides: tuple[Mark, ...] = ()  # horizontal: chance
    stages: tuple[Mark, ...] = ()  # vertical: where a stage begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One estimate: its name, value and interval."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    colour: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedDot:
    """A dot in pixels; `value` is None where nothing was measured."""

    name: str
    text: str  # value and interval, for the chart's words
    short: str  # the value alone, for the chart
    colour: int
    y: float
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DotChart:
    """Everything the template needs to draw estimates with intervals."""

    title: str
    alt: str
    dots: tuple[PlacedDot, ...]
    guides: tuple[Mark, ...]
    ticks: tuple[Mark, ...]
    height: float


def thin(
    steps: Sequence[float], values: Sequence[float], count: int
) -> tuple[list[float], list[float]]:
    """Replace a long curve by means over `count` shares of its points.

    Formula: share k holds points floor(k n / count) .. floor((k + 1) n / count) - 1.
    Check: values 1 2 3 4 with count 2 -> 1.5 3.5. Points that are not finite are left out first.

    Args:
        steps: Where the values stand.
        values: The same number of values.
        count: At most this many points come back.

    Returns:
        Steps and values, each a list.
    """
    pairs = [(s, v) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    if len(pairs) <= count:
        return [s for s, _ in pairs], [v for _, v in pairs]
    n = len(pairs)
    shares = [pairs[k * n // count : (k + 1) * n // count] for k in range(count)]
    return (
        [sum(s for s, _ in share) / len(share) for share in shares],
        [sum(v for _, v in share) / len(share) for share in shares],
    )


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers inside [low, high], 1, 2 or 5 times a power of ten apart.

    Check: nice_ticks(0, 1) -> 0, 0.2, 0.4, 0.6, 0.8, 1.0; nice_ticks(3, 97) -> 20, 40, 60, 80.

    Args:
        low: Lower end.
        high: Upper end, above `low`.
        about: Roughly how many gaps.

    Returns:
        Ticks in rising order.
    """
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    gap = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * 0.75)
    first, last = math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9)
    return [k * gap for k in range(first, last + 1)]


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    guides: Sequence[tuple[str, float]] = (),
    stage_starts: Sequence[float] = (),
    over: str = "steps",
) -> LineChart | None:
    """Place curves over training steps.

    Args:
        title: What the values are.
        curves: Curves; those without a finite value are left out.
        guides: Named horizontal levels, such as chance.
        stage_starts: Steps at which a new stage begins.
        over: What x counts.

    Returns:
        The chart, or None where no curve has a value.
    """
    thinned = [(c, *thin(c.steps, c.values, MAX_POINTS)) for c in curves]
    drawn = [(c, steps, values) for c, steps, values in thinned if values]
    if not drawn:
        return None
    levels = [(name, level) for name, level in guides if math.isfinite(level)]
    x_low, x_high = _span([0.0, *(s for _, steps, _ in drawn for s in steps)])
    y_low, y_high = _span([v for _, _, vs in drawn for v in vs] + [v for _, v in levels])
    x_of = _Scale(x_low, x_high, LEFT, RIGHT)
    y_of = _Scale(y_low, y_high, BOTTOM, TOP)
    inside = [s for s in stage_starts if x_low < s < x_high]
    return LineChart(
        title=title,
        alt=f"{title} over {over}: {_alt(drawn, levels)}",
        lines=tuple(_line(c, steps, values, x_of, y_of) for c, steps, values in drawn),
        x_ticks=tuple(Mark(at=x_of(t), text=f"{t:g}") for t in nice_ticks(x_low, x_high)),
        y_ticks=tuple(Mark(at=y_of(t), text=f"{t:.4g}") for t in nice_ticks(y_low, y_high)),
        over=over,
        guides=tuple(Mark(at=y_of(v), text=f"{name} {v:.3g}") for name, v in levels),
        stages=tuple(Mark(at=x_of(s), text="stage") for s in inside),
    )


def dot_chart(
    title: str,
    dots: Sequence[Dot],
    *,
    span: tuple[float, float],
    guides: Sequence[tuple[str, float]] = (),
) -> DotChart:
    """Place estimates with their intervals on one track.

    Args:
        title: What is measured.
        dots: One row each, in this order; a value that is not finite is "not measured".
        span: Ends of the track; values beyond are drawn at its ends.
        guides: Named levels: chance, ceiling.

    Returns:
        The chart.
    """
    x_of = _Scale(*span, DOT_LEFT, DOT_RIGHT)
    placed = tuple(_placed(dot, DOT_TOP + DOT_ROW * (k + 0.5), x_of) for k, dot in enumerate(dots))
    levels = [(name, v) for name, v in guides if math.isfinite(v)]
    words = [f"{p.name} {p.text}" for p in placed] + [f"{n} {v:.2f}" for n, v in levels]
    return DotChart(
        title=title,
        alt=f"{title}: {'; '.join(words)}",
        dots=placed,
        guides=tuple(Mark(at=x_of(v), text=name) for name, v in levels),
        ticks=tuple(Mark(at=x_of(t), text=f"{t:.1f}") for t in nice_ticks(*span)),
        height=DOT_TOP + DOT_ROW * len(dots) + 26,
    )


class _Scale:
    """A straight map from values to pixels, held inside the plot."""

    def __init__(self, low: float, high: float, low_px: float, high_px: float) -> None:
        self.low, self.per_unit = low, (high_px - low_px) / (high - low)
        self.low_px, self.high_px = low_px, high_px

    def __call__(self, value: float) -> float:
        at = self.low_px + (value - self.low) * self.per_unit
        inner, outer = sorted((self.low_px, self.high_px))
        return round(min(max(at, inner), outer), 1)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, widened where they are the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _line(
    curve: Curve, steps: Sequence[float], values: Sequence[float], x_of: _Scale, y_of: _Scale
) -> Line:
    """SVG path data of one curve."""
    points = [(x_of(s), y_of(v)) for s, v in zip(steps, values, strict=True)]
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y in points)
    return Line(name=curve.name, colour=curve.colour, path=path, last=points[-1])


def _placed(dot: Dot, y: float, x_of: _Scale) -> PlacedDot:
    """One row of a dot chart in pixels."""
    known = math.isfinite(dot.value)
    both = known and math.isfinite(dot.low) and math.isfinite(dot.high)
    text = f"{dot.value:.3f}" if known else "not measured"
    if both:
        text += f" [{dot.low:.3f}, {dot.high:.3f}]"
    return PlacedDot(
        name=dot.name,
        text=text,
        short=f"{dot.value:.3f}" if known else "not measured",
        colour=dot.colour,
        y=y,
        value=x_of(dot.value) if known else None,
        low=x_of(dot.low) if both else None,
        high=x_of(dot.high) if both else None,
    )


def _alt(
    drawn: Sequence[tuple[Curve, list[float], list[float]]],
    levels: Sequence[tuple[str, float]],
) -> str:
    """The chart in words."""
    parts = [
        f"{c.name} from {vs[0]:.3g} at {ss[0]:.0f} to {vs[-1]:.3g} at {ss[-1]:.0f}"
        for c, ss, vs in drawn
    ]
    parts += [f"{name} {level:.3g}" for name, level in levels]
    return "; ".join(parts)
