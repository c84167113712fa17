"""Charts of the evaluation page: ROC, reliability, and strips along the depth of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.scores.auroc import auroc
from t3d.show.cases import Scores
from t3d.show.charts import Curve, LineChart, Mark, line_chart

Floats = NDArray[np.float64]

NUM_SHOWN = 3  # findings drawn open: the best, the middle and the worst one
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 332, 8, 62  # px, plot area of a strip 340 x 96
# it holds both axes to 0..1
_DIAGONAL = Curve(name="by chance", steps=(0.0, 1.0), values=(0.0, 1.0), colour=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A depth curve in pixels: truth, guess, and the two intervals."""

    title: str
    alt: str
    path: str
    truth: tuple[float, float, float]  # centre, left, width
    guess: float
    wide: tuple[float, float]  # left, width of the 90 % interval
    narrow: tuple[float, float]  # of the 50 % interval
    ticks: tuple[Mark, ...]
    note: str


def roc_points(scores: Floats, labels: Floats) -> tuple[list[float], list[float]]:
    """False and true positive rates at every threshold; corners only.

    Check: scores 3, 2, 1 with labels 1, 0, 1: (0, 0), (0, .5), (1, .5), (1, 1).

    Args:
        scores: (N,), larger = more likely present.
        labels: (N,) 1 or 0, both there.

    Returns:
        Rates from (0, 0) to (1, 1).
    """
    order = np.argsort(-scores, kind="stable")
    ordered, truth = scores[order], labels[order] == 1
    last = np.append(ordered[1:] != ordered[:-1], True)
    up = np.concatenate(([0], np.cumsum(truth)[last]))
    right = np.concatenate(([0], np.cumsum(~truth)[last]))
    turn = np.diff(up[:-1]) * np.diff(right[1:]) != np.diff(up[1:]) * np.diff(right[:-1])
    kept = np.concatenate(([True], turn, [True]))
    return (right[kept] / right[-1]).tolist(), (up[kept] / up[-1]).tolist()


def roc_charts(scores: Scores, column: str) -> list[LineChart]:
    """One ROC a finding, the best first.

    Args:
        scores: From `per_study.csv`.
        column: Which scores.

    Returns:
        Charts of findings with both classes.
    """
    found = []
    for finding, values in scores.scores.get(column, {}).items():
        labels = scores.labels.get(finding, np.full(len(values), np.nan))
        known = np.isfinite(labels) & np.isfinite(values)
        truth = labels[known]
        if {0.0, 1.0} <= set(truth.tolist()):
            area = auroc(values[known], truth.astype(np.int8))
            found.append((area, finding, roc_points(values[known], truth)))
    found.sort(key=lambda row: (-row[0], row[1]))
    charts = []
    for area, finding, (steps, rates) in found:
        curve = Curve(name=finding, steps=steps, values=rates, colour=2)
        title = f"{finding}: {area:.3f}"
        charts.append(line_chart(title, [_DIAGONAL, curve], over="1 - specificity"))
    return [chart for chart in charts if chart is not None]


def reliability_charts(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[LineChart]:
    """One reliability diagram a finding: what was predicted against what was there.

    Args:
        curves: Finding -> cells, as `reliability.json` has them.

    Returns:
        Charts with the observed share and its Wilson interval, the largest error first.
    """
    found = []
    for finding, cells in curves.items():
        held = sorted((c for c in cells if c["num"]), key=lambda c: c["predicted"])
        if not held:
            continue
        total = sum(c["num"] for c in held)
        error = sum(c["num"] * abs(c["observed"] - c["predicted"]) for c in held) / total
        steps = [c["predicted"] for c in held]
        rows = [
            Curve(name="low", steps=steps, values=[c["wilson"][0] for c in held], colour=0),
            Curve(name="high", steps=steps, values=[c["wilson"][1] for c in held], colour=0),
            Curve(name="observed", steps=steps, values=[c["observed"] for c in held], colour=2),
        ]
        diagonal = replace(_DIAGONAL, name="calibrated")
        chart = line_chart(f"{finding}: error {error:.3f}", [diagonal, *rows], over="predicted")
        if chart is not None:
            found.append((error, finding, chart))
    return [chart for _, _, chart in sorted(found, key=lambda row: (-row[0], row[1]))]


def spread_out(charts: Sequence[LineChart]) -> tuple[list[LineChart], list[LineChart]]:
    """The first, the middle and the last, and the rest."""
    if len(charts) <= NUM_SHOWN:
        return list(charts), []
    open_ones = {0, len(charts) // 2, len(charts) - 1}
    return (
        [c for k, c in enumerate(charts) if k in open_ones],
        [c for k, c in enumerate(charts) if k not in open_ones],
    )


def strips(rows: Sequence[Mapping[str, Any]], num: int) -> list[tuple[Mapping[str, Any], Strip]]:
    """Draw sentences from the nearest guess to the furthest one, spread evenly.

    Args:
        rows: As `localization.json` has them.
        num: At most so many.

    Returns:
        Rows and their strips.
    """
    order = sorted(rows, key=lambda r: (abs(r["guess_mm"] - r["z_mm"][0]), r["study_id"], r["key"]))
    picked = np.unique(np.linspace(0, len(order) - 1, min(num, len(order))).round().astype(int))
    return [(order[k], _strip(order[k])) for k in picked.tolist()]


def _strip(row: Mapping[str, Any]) -> Strip:
    """One curve over the depth of its scan, feet on the left."""
    places, curve = np.asarray(row["centres_mm"]), np.asarray(row["curve"])
    cell = float(np.median(np.abs(np.diff(places))))
    low, high = float(places.min()) - cell / 2, float(places.max()) + cell / 2

    def at(z_mm: float) -> float:
        inside = min(max((z_mm - low) / (high - low), 0.0), 1.0)
        return round(_LEFT + inside * (_RIGHT - _LEFT), 1)

    spread = float(np.ptp(curve)) or 1.0
    heights = _BOTTOM - (curve - curve.min()) / spread * (_BOTTOM - _TOP)
    points = [f"{at(z):g},{y:.1f}" for z, y in zip(places.tolist(), heights.tolist(), strict=True)]
    error = row["guess_mm"] - row["z_mm"][0]
    flat = "; cannot be localized: flat" if row["flat_p"] > 0.05 else ""
    title = f"{row['finding'] or 'sentence'}, {row['study_id']}: {error:+.0f} mm"
    alt = f"{title}; truth {row['z_mm'][0]:.0f} mm, guess {row['guess_mm']:.0f} mm{flat}"
    centre, first, last = row["z_mm"]
    return Strip(
        title=title,
        alt=alt,
        path="M" + "L".join(points),
        truth=(at(centre), at(first), max(1.5, round(at(last) - at(first), 1))),
        guess=at(row["guess_mm"]),
        wide=_band(at, row["interval_90_mm"]),
        narrow=_band(at, row["interval_50_mm"]),
        ticks=tuple(Mark(at=at(z), text=f"{z:.0f}") for z in np.linspace(low, high, 5)[1:-1]),
        note=flat.removeprefix("; "),
    )


def _band(at: Any, ends: Sequence[float]) -> tuple[float, float]:
    """Left end and width of an interval."""
    left, right = at(ends[0]), at(ends[1])
    return left, round(right - left, 1)
