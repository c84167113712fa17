"""AUROC among patients alike in sex and age: what is left when age alone may not help.

A patient's age ranks many findings well. Here a study with a finding is compared only with
studies without it of the same sex and about the same age.
Legend: N rows, F findings, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.checks import score_table
from t3d.scores.ratio import ratio

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Weighting = Literal["pairs", "cases"]

_BLOCK_DRAWS = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matched:
    """Matched AUROC of each finding with its draws and what could not be compared."""

    values: Floats  # (F,); NaN where no pair matches
    draws: Floats  # (B, F)
    pairs: NDArray[np.int64]  # (F,) matched pairs of rows
    unmatched: NDArray[np.int64]  # (F,) positives without a match, or without age or sex
    unknown: int  # rows without age or sex


def matched_auroc(
    scores: ArrayLike,
    labels: ArrayLike,
    draws: Draws,
    *,
    age_years: ArrayLike,
    sex: Sequence[str],
    width_years: float = 2.0,
    weighting: Weighting = "pairs",
) -> Matched:
    """P(score of a positive > score of a negative) over pairs of one sex and about one age.

    Check: scores (1, 3, 2, 4), labels (0, 0, 1, 1), ages (50, 70, 51, 71), one sex, width 2:
    pairs (2, 1) and (4, 3), both in order -> 1, while the AUROC of all four pairs is .75.

    Args:
        scores: (N, F) finite.
        labels: (N, F) 1, 0, or -1 = not stated.
        draws: Of the same rows, by patient.
        age_years: (N,); NaN = not known.
        sex: N words, compared as they are; "" = not known.
        width_years: Largest difference of age within a pair, 0 or more.
        weighting: "pairs": every matched pair counts alike. "cases": every positive with a
            match counts alike: its share of matched negatives below it, averaged over the
            positives, which is the covariate-adjusted AUC with the window as covariate.

    Returns:
        Values, draws and counts. In a draw a pair counts as often as both of its rows do.

    Raises:
        ProtocolError: Shapes differ, a score is not finite, a label is not 1, 0 or -1, or the
            width is negative.

    Source:
        "cases": Janes and Pepe 2009 (Biometrika 96:371). "pairs" and the window: our choice.
    """
    values, truth = score_table(scores, labels)
    ages, words = np.asarray(age_years, dtype=np.float64), np.asarray(sex, dtype=str)
    _fits(len(values), ages, words, draws, width_years)
    known = np.isfinite(ages) & (words != "")
    # sex first, then age: the matches of a positive are one run of negatives. Patients and scores
    # make the order one of their own, not that of the rows.
    columns = []
    for own, told in zip(values.T, truth.T, strict=True):
        order = np.lexsort((own, draws.row_patient, ages, words))
        order = order[known[order] & (told[order] >= 0)]
        columns.append(_matched(own, told == 1, order, ages, words, width_years=width_years))
    once = Draws.disabled(len(values))
    return Matched(
        values=np.concatenate([c.auroc(once, weighting) for c in columns]),
        draws=np.stack([c.auroc(draws, weighting) for c in columns], axis=1),
        pairs=np.array([c.match.nnz for c in columns], dtype=np.int64),
        unmatched=np.array(
            [
                np.count_nonzero(truth[:, f] == 1) - np.count_nonzero(np.diff(c.match.indptr))
                for f, c in enumerate(columns)
            ],
            dtype=np.int64,
        ),
        unknown=int(np.count_nonzero(~known)),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pairs:
    """The matched pairs of one finding."""

    positive: NDArray[np.intp]  # (M,) rows
    negative: NDArray[np.intp]  # (K,) rows
    match: csr_array  # (M, K) 1 = a pair
    won: csr_array  # (M, K) 1, or one half for equal scores

    def auroc(self, draws: Draws, weighting: Weighting) -> Floats:
        """(B,) matched AUROC of every draw."""
        out = np.full(len(draws.counts), np.nan)
        for first in range(0, len(out), _BLOCK_DRAWS):
            block = slice(first, first + _BLOCK_DRAWS)
            above, below = (
                draws.counts[block][:, draws.row_patient[rows]].T.astype(np.float64)
                for rows in (self.positive, self.negative)
            )
            won, pairs = self.won @ below, self.match @ below
            if weighting == "cases":  # copies of the negatives weigh nothing here, only shares
                won, pairs = ratio(won, pairs, empty=0.0), (pairs > 0).astype(np.float64)
            out[block] = ratio((above * won).sum(axis=0), (above * pairs).sum(axis=0))
        return out


def _fits(
    num: int, ages: Floats, words: NDArray[np.str_], draws: Draws, width_years: float
) -> None:
    """Refuse facts that do not belong to the rows."""
    lengths = (len(ages), len(words), len(draws.row_patient))
    if set(lengths) != {num} or not width_years >= 0:
        raise ProtocolError(
            f"ages, sexes and draws of {lengths} rows beside {num} scores, width {width_years}",
            expected="one of each a row, and a width of 0 years or more",
            fix="pass age, sex and patient of every row in the same order",
        )


def _matched(
    scores: Floats,
    present: NDArray[np.bool_],
    order: NDArray[np.intp],
    ages: Floats,
    words: NDArray[np.str_],
    *,
    width_years: float,
) -> _Pairs:
    """Find all pairs of one finding; `order` has its rows by sex and age."""
    from scipy.sparse import csr_array

    positive, negative = order[present[order]], order[~present[order]]
    first, last = np.zeros((2, len(positive)), dtype=np.intp)
    for word in np.unique(words[positive]):
        mine = words[positive] == word
        theirs = np.flatnonzero(words[negative] == word)
        start = int(theirs[0]) if len(theirs) else 0
        line, at = ages[negative[theirs]], ages[positive[mine]]
        first[mine] = start + np.searchsorted(line, at - width_years, side="left")
        last[mine] = start + np.searchsorted(line, at + width_years, side="right")
    length = last - first
    bounds = np.concatenate(([0], np.cumsum(length)))
    column = np.arange(bounds[-1]) - np.repeat(bounds[:-1] - first, length)
    gap = np.repeat(scores[positive], length) - scores[negative[column]]
    shape = (len(positive), len(negative))
    won = np.where(gap > 0, 1.0, np.where(gap == 0, 0.5, 0.0))
    return _Pairs(
        positive=positive,
        negative=negative,
        match=csr_array((np.ones(len(column)), column, bounds), shape=shape),
        won=csr_array((won, column, bounds), shape=shape),
    )
