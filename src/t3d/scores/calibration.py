"""Whether probabilities mean what they say: Brier score, calibration error, reliability curve.

A probability of .3 is calibrated if three of ten such studies have the finding. Scores become
probabilities by a fit on development studies. Legend: N rows, B draws, C cells of probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, Interval, interval
from t3d.scores.checks import both_classes, scores_and_labels
from t3d.scores.ratio import ratio

Floats = NDArray[np.float64]

_Z = 1.959963984540054  # 97.5 % point of the normal distribution
_NEWTON_STEPS = 100


class Brier(NamedTuple):
    """Score = miscalibration - discrimination + uncertainty; each (B,)."""

    score: Floats
    miscalibration: Floats  # 0: no monotone relabelling of the probabilities does better
    discrimination: Floats  # how much the best relabelling gains over the base rate
    uncertainty: Floats  # of the base rate alone


def brier(probabilities: ArrayLike, labels: ArrayLike, draws: Draws) -> Brier:
    """Mean squared error of probabilities, split without choosing cells.

    Formula: S = mean (p - y)^2; S_C the same for the isotonic regression of y on p, S_R for the
    base rate. Miscalibration S - S_C, discrimination S_R - S_C, uncertainty S_R.
    Check: p (.1, .3, .6, .8), y (0, 1, 0, 1): S .225; isotonic (0, .5, .5, 1) -> S_C .125,
    S_R .25: .1 - .125 + .25.

    Args:
        probabilities: (N,) between 0 and 1.
        labels: (N,) 0 or 1.
        draws: Of the same rows; `Draws.disabled(N)` for the value itself.

    Returns:
        Four arrays (B,). About 0.1 ms a draw.

    Raises:
        ProtocolError: A probability is not finite or outside 0..1, or a label is not 0 or 1.

    Source:
        Dimitriadis, Gneiting and Jordan 2021 (PNAS 118:e2016191118), the CORP decomposition.
    """
    from scipy.optimize import isotonic_regression

    p, y = _probabilities(probabilities, labels)
    levels, group = np.unique(p, return_inverse=True)
    out = np.full((4, len(draws.counts)), np.nan)
    for b, counts in enumerate(draws.counts):
        taken = counts[draws.row_patient]
        rows = np.bincount(group, weights=taken, minlength=len(levels))
        positive = np.bincount(group, weights=taken * y, minlength=len(levels))
        some = rows > 0
        positive, rows, level = positive[some], rows[some], levels[some]
        total = rows.sum()
        if not total:
            continue
        fitted = isotonic_regression(positive / rows, weights=rows).x
        base = positive.sum() / total
        score, best, flat = (
            float((positive * (1 - q) ** 2 + (rows - positive) * q**2).sum() / total)
            for q in (level, fitted, np.full_like(level, base))
        )
        out[:, b] = score, score - best, flat - best, flat
    return Brier(*out)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """A cut of 0..1 into cells, each from its edge up to but without the next one."""

    name: str
    edges: Floats  # (C + 1,)
    closed: bool = True  # p at the last edge belongs to the last cell; False: to none

    def of(self, probabilities: Floats) -> NDArray[np.intp]:
        """(N,) number of the cell; C = in none."""
        cell = np.searchsorted(self.edges, probabilities, side="right") - 1
        if self.closed:
            cell[probabilities == self.edges[-1]] = len(self.edges) - 2
        return np.where(cell < 0, len(self.edges) - 1, cell)


def equal_width(num: int) -> Cells:
    """Cut 0..1 into cells of one width; p = 1 belongs to the last."""
    return Cells(name=f"width:{num}", edges=np.linspace(0, 1, num + 1))


INSPECT_CELLS = Cells(name="inspect", edges=np.linspace(0, 1, 10), closed=False)
"""The nine cells of INSPECT get_model_performance.py at 01f5830: p = 1 falls into none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityCell:
    """One point of a reliability curve."""

    low: float  # edges of the cell
    high: float
    num: int  # rows in it
    predicted: float  # mean probability
    observed: float  # share of positives
    wilson: tuple[float, float]  # 95 %, as if rows were independent
    by_patient: Interval  # 95 % over draws of patients


def calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, draws: Draws, cells: Cells
) -> Floats:
    """Expected calibration error: mean distance of predicted and observed share over cells.

    Formula: sum over cells of |sum of y - sum of p| / N.
    Check: p (.2, .4, 1), y (0, 1, 1), two cells: |1 - .6| / 3 + |1 - 1| / 3 = .133333.
    It is above 0 for finite samples of a calibrated model, and more so in draws of them: its
    percentile interval lies too high.

    Args:
        probabilities: (N,) between 0 and 1.
        labels: (N,) 0 or 1.
        draws: Of the same rows.
        cells: `equal_width(15)` or `INSPECT_CELLS`, the same in every draw.

    Returns:
        (B,) errors.

    Raises:
        ProtocolError: As `brier`.

    Source:
        Naeini et al. 2015 (AAAI), equal width; equal mass: Nguyen and O'Connor 2015 (EMNLP).
    """
    p, y = _probabilities(probabilities, labels)
    cell = cells.of(p)
    num = len(cells.edges) - 1
    inside = cell[:, None] == np.arange(num)
    gaps = draws.total(np.where(inside, (y - p)[:, None], 0.0))
    return ratio(np.abs(gaps).sum(axis=1), draws.total(np.ones(len(p))))


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, draws: Draws, cells: Cells
) -> tuple[ReliabilityCell, ...]:
    """Predicted and observed share by cell.

    Args:
        probabilities: (N,) between 0 and 1.
        labels: (N,) 0 or 1.
        draws: Of the same rows, by patient.
        cells: As in `calibration_error`.

    Returns:
        Cells that hold a study, from low to high.

    Raises:
        ProtocolError: As `brier`.
    """
    p, y = _probabilities(probabilities, labels)
    cell = cells.of(p)
    points = []
    for c in range(len(cells.edges) - 1):
        mine = cell == c
        num, hits = int(mine.sum()), int(y[mine].sum())
        if num:
            observed = draws.mean(np.where(mine, y, np.nan))
            points.append(
                ReliabilityCell(
                    low=float(cells.edges[c]),
                    high=float(cells.edges[c + 1]),
                    num=num,
                    predicted=float(np.sort(p[mine]).mean()),
                    observed=hits / num,
                    wilson=wilson(hits, num),
                    by_patient=interval(observed),
                )
            )
    return tuple(points)


def wilson(hits: int, num: int) -> tuple[float, float]:
    """95 % interval of a share of independent rows.

    Check: 1 of 2 -> (.094531, .905469); 0 of 10 -> (0, .277533).

    Args:
        hits: Rows that count.
        num: All rows, 1 or more.

    Returns:
        Low and high.

    Source:
        Wilson 1927.
    """
    share, z2 = hits / num, _Z**2
    centre = (share + z2 / (2 * num)) / (1 + z2 / num)
    reach = _Z * np.sqrt(share * (1 - share) / num + z2 / (4 * num**2)) / (1 + z2 / num)
    return float(max(0.0, centre - reach)), float(min(1.0, centre + reach))


@dataclass(frozen=True, slots=True, kw_only=True)
class Logistic:
    """Probability = 1 / (1 + exp(-(slope * score + intercept))); 1 / slope is the temperature."""

    slope: float
    intercept: float

    def probability(self, scores: ArrayLike) -> Floats:
        """(N,) probabilities of scores (N,)."""
        from scipy.special import expit

        return np.asarray(expit(self.slope * np.asarray(scores, np.float64) + self.intercept))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Isotonic:
    """A monotone curve, straight between its points and level beyond them."""

    scores: Floats  # (M,) rising
    shares: Floats  # (M,) never falling

    def probability(self, scores: ArrayLike) -> Floats:
        """(N,) probabilities of scores (N,)."""
        return np.interp(np.asarray(scores, np.float64), self.scores, self.shares)


def fit_logistic(scores: ArrayLike, labels: ArrayLike) -> Logistic:
    """Fit temperature and bias on development studies.

    The targets are (m + 1) / (m + 2) and 1 / (n + 2) rather than 1 and 0 for m positives and n
    negatives, so that scores which separate the classes get a finite slope. A negative slope is
    given as found: the scores run the wrong way on dev.
    Check: scores (0, 1), labels (0, 1): targets 1/3 and 2/3 -> slope 2 log 2, intercept -log 2.

    Args:
        scores: (N,) finite.
        labels: (N,) 0 or 1.

    Returns:
        The fit; slope 0 for constant scores.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or a class is empty.

    Source:
        Platt 1999.
    """
    values, truth = scores_and_labels(scores, labels)
    both_classes(truth)
    ordered = np.argsort(values, kind="stable")  # sums do not depend on the order of rows
    ordered = ordered[np.lexsort((truth[ordered], values[ordered]))]
    values, truth = values[ordered], truth[ordered]
    centre, width = values.mean(), values.std() or 1.0
    m, n = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (m + 1) / (m + 2), 1 / (n + 2))
    design = np.stack([(values - centre) / width, np.ones(len(values))], axis=1)
    weights = _newton(design, target)
    slope = weights[0] / width
    return Logistic(slope=float(slope), intercept=float(weights[1] - slope * centre))


def fit_isotonic(scores: ArrayLike, labels: ArrayLike) -> Isotonic:
    """Fit a monotone curve on development studies; equal scores get one share.

    Check: scores (1, 2, 3, 4), labels (0, 1, 0, 1) -> shares (0, .5, .5, 1).

    Args:
        scores: (N,) finite.
        labels: (N,) 0 or 1.

    Returns:
        The curve.

    Raises:
        ProtocolError: A score is not finite, a label is not 0 or 1, or a class is empty.

    Source:
        Zadrozny and Elkan 2002; pool adjacent violators of SciPy.
    """
    from scipy.optimize import isotonic_regression

    values, truth = scores_and_labels(scores, labels)
    both_classes(truth)
    levels, group, rows = np.unique(values, return_inverse=True, return_counts=True)
    shares = np.bincount(group, weights=truth) / rows
    fitted = isotonic_regression(shares, weights=rows.astype(np.float64)).x
    return Isotonic(scores=levels, shares=np.asarray(fitted))


def _newton(design: Floats, target: Floats) -> Floats:
    """Logistic regression on soft targets: convex, so Newton's steps are halved until they gain."""
    from scipy.special import expit

    weights = np.zeros(design.shape[1])
    loss = np.inf
    for _ in range(_NEWTON_STEPS):
        logits = design @ weights
        now = float((np.logaddexp(0, logits) - target * logits).sum())
        p = expit(logits)
        if now <= loss + 1e-13 * abs(now):  # near the end the loss is flat in its last digits
            kept, loss = weights, now
            slope = design.T @ (p - target)
            bend = (design * (p * (1 - p))[:, None]).T @ design
            step = np.linalg.lstsq(bend, slope, rcond=None)[0]
        else:
            step = step / 2
        if np.abs(step).max() < 1e-14:
            break
        weights = kept - step
    return kept


def _probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """Refuse what is no probability."""
    p, truth = scores_and_labels(probabilities, labels)
    outside = int(np.count_nonzero((p < 0) | (p > 1)))
    if outside:
        raise ProtocolError(
            f"{outside} of {len(p)} probabilities are below 0 or above 1",
            expected="probabilities",
            fix="make probabilities of the scores with fit_logistic on development studies",
        )
    return p, truth.astype(np.float64)
