"""What is gained when a model may leave its least sure answers to a person.

Answers are taken from the surest to the least sure; the risk at a coverage is the share of wrong
ones among those taken. Equally sure answers stand in every order alike.
Legend: N rows, B draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.checks import scores_and_labels
from t3d.scores.ratio import ratio

Floats = NDArray[np.float64]

_BLOCK_ELEMENTS = 2_000_000


class Abstention(NamedTuple):
    """Each (B,); NaN in a draw without rows."""

    area: Floats  # mean risk over all coverages (AURC); at chance the error rate
    excess: Floats  # area minus that of a perfect order of the same answers
    error_rate: Floats  # risk at full coverage


def abstention(confidence: ArrayLike, wrong: ArrayLike, draws: Draws) -> Abstention:
    """Area under the risk-coverage curve.

    Formula: mean over k = 1 .. N of (expected wrong answers among the k surest) / k.
    Check: confidence (.9, .8, .7), wrong (0, 1, 0): (0 + 1/2 + 1/3) / 3 = .277778; the perfect
    order has (0 + 0 + 1/3) / 3 = .111111: excess .166667.

    Args:
        confidence: (N,) finite, larger = surer; such as the distance from the threshold.
        wrong: (N,) 1 = the answer is wrong.
        draws: Of the same rows.

    Returns:
        Area, excess and error rate of every draw.

    Raises:
        ProtocolError: A confidence is not finite, or `wrong` is not 0 or 1.

    Source:
        Geifman and El-Yaniv 2017; excess: Geifman et al. 2019. Ties by expectation: our choice.
    """
    missed, starts, owner = _ordered(confidence, wrong, draws)
    area, best, rate = np.full((3, len(draws.counts)), np.nan)
    step = max(1, _BLOCK_ELEMENTS // max(len(owner), 1))
    for first in range(0, len(area), step):
        block = slice(first, first + step)
        rows = draws.counts[block][:, owner].astype(np.float64)
        groups = np.add.reduceat(rows, starts, axis=1)
        errors = np.add.reduceat(rows * missed, starts, axis=1)
        up_to = np.cumsum(groups, axis=1)
        before = up_to - groups
        harmonic = np.concatenate(([0.0], np.cumsum(1 / np.arange(1, up_to.max() + 1))))
        at, total = up_to.astype(np.intp), up_to[:, -1]
        share = ratio(errors, groups, empty=0.0)
        grown = harmonic[at] - harmonic[before.astype(np.intp)]
        # within a group the k-th answer is wrong with the group's share
        risks = errors + (np.cumsum(errors, axis=1) - errors - before * share) * grown
        area[block] = ratio(risks.sum(axis=1), total)
        failed = errors.sum(axis=1)
        right = total - failed
        late = harmonic[total.astype(np.intp)] - harmonic[right.astype(np.intp)]
        best[block] = ratio(failed - right * late, total)
        rate[block] = ratio(failed, total)
    return Abstention(area=area, excess=area - best, error_rate=rate)


def risk_at(confidence: ArrayLike, wrong: ArrayLike, draws: Draws, coverage: float) -> Floats:
    """Share of wrong answers among the surest.

    Args:
        confidence: (N,) finite, larger = surer.
        wrong: (N,) 1 = the answer is wrong.
        draws: Of the same rows.
        coverage: Share of answers that are taken, above 0; rounded up to whole answers.

    Returns:
        (B,) risks; NaN in a draw without rows.

    Raises:
        ProtocolError: As `abstention`, or the coverage is not within 0..1.
    """
    if not 0 < coverage <= 1:
        raise ProtocolError(
            f"coverage {coverage}", expected="above 0, at most 1", fix="give it as a share"
        )
    missed, starts, owner = _ordered(confidence, wrong, draws)
    rows = draws.counts[:, owner].astype(np.float64)
    groups = np.add.reduceat(rows, starts, axis=1)
    errors = np.add.reduceat(rows * missed, starts, axis=1)
    up_to = np.cumsum(groups, axis=1)
    wanted = np.ceil(coverage * up_to[:, -1:] - 1e-9)
    part = np.clip(ratio(wanted - (up_to - groups), groups, empty=0.0), 0.0, 1.0)
    return ratio((errors * part).sum(axis=1), wanted[:, 0])


def _ordered(
    confidence: ArrayLike, wrong: ArrayLike, draws: Draws
) -> tuple[Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Wrong answers, starts of groups of equal confidence, and patients; surest first."""
    values, failed = scores_and_labels(confidence, wrong)
    if not len(values) or len(values) != len(draws.row_patient):
        raise ProtocolError(
            f"{len(values)} answers beside draws of {len(draws.row_patient)} rows",
            expected="draws of the same rows, at least one",
            fix="make the draws from the patient ids of these rows, in the same order",
        )
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return failed[order].astype(np.float64), starts, draws.row_patient[order]
