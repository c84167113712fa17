"""Classification in every draw of a bootstrap, with the threshold fitted anew in each of them.

One walk down the ordered scores of a finding serves all draws at once: beside each study stands
the vector of how often each draw took its patient. All numbers added are counts, exact in
float64, so that nothing depends on the order of rows or on the size of a block.
Legend: N rows, P patients, F findings, B draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.checks import score_table
from t3d.scores.confusion import Confusion
from t3d.scores.thresholds import GRID, Rule, grid_cell, nearest_corner

Floats = NDArray[np.float64]

_BLOCK_BYTES = 24 << 20  # of the counts of one block of draws
_BLOCK_DRAWS = 2048  # a vector over them is 16 KB: all vectors of the walk stay in cache


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampled:
    """Scores of every draw and finding; NaN where a draw holds one class of it only."""

    auroc: Floats  # (B, F)
    average_precision: Floats  # (B, F)
    thresholds: Floats  # (B, F)
    answers: Confusion  # counts, each (B, F)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A group of tied scores that holds a positive; numbers are patients of rows."""

    score: float
    between: Sequence[int]  # negatives between the group above and this one
    hits: Sequence[int]
    tied: Sequence[int]  # negatives within


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Finding:
    """One finding's stated rows, ordered once."""

    scores: Floats  # (M,) descending
    truth: NDArray[np.bool_]  # (M,)
    patient: NDArray[np.intp]  # (M,)
    held: Floats  # (2, P) positives and negatives of each patient
    steps: tuple[_Step, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class _Column:
    """What one finding and one block of draws give, each (block,)."""

    auroc: Floats
    precision: Floats
    threshold: Floats
    hit: Floats
    wrong: Floats


def refitted(scores: ArrayLike, labels: ArrayLike, draws: Draws, rule: Rule) -> Resampled:
    """Score every draw, each with the thresholds that the rule finds in that draw.

    Check: with `Draws.disabled(8)` and the vector of `fit_threshold` -> AUROC .8125, threshold
    .80, one positive of two called for each of the four.

    Args:
        scores: (N, F) finite.
        labels: (N, F) 1, 0, or -1 = not stated: left out of that finding.
        draws: Of the same rows.
        rule: From `thresholds.rule_named`.

    Returns:
        The scores, B x F.

    Raises:
        ProtocolError: Shapes differ, a score is not finite, a label is not 1, 0 or -1, or the
            grid meets a score outside 0..1.

    Cost:
        18 findings x 3,039 rows x 10,000 draws: docs/results/evaluate.json.
    """
    values, truth = _table(scores, labels, draws)
    fixed = np.full(values.shape[1], rule.value) if rule.is_fixed else None
    return _resample(values, truth, draws, rule, fixed)


def judged_at(
    scores: ArrayLike,
    labels: ArrayLike,
    draws: Draws,
    thresholds: ArrayLike,
    *,
    strict: bool = False,
) -> Resampled:
    """Score every draw under thresholds that were found elsewhere, such as on dev.

    Args:
        scores: (N, F) finite.
        labels: (N, F) 1, 0, or -1 = not stated.
        draws: Of the same rows.
        thresholds: (F,) the same in every draw, or (B, F), such as `refitted(...).thresholds`
            of as many draws of the development patients. NaN = none could be fitted: no answers.
        strict: True: present if score > threshold; False: if score >= threshold.

    Returns:
        The scores, B x F.

    Raises:
        ProtocolError: As `refitted`, or thresholds of another shape.
    """
    values, truth = _table(scores, labels, draws)
    given = np.asarray(thresholds, dtype=np.float64)
    if given.shape not in ((values.shape[1],), (len(draws.counts), values.shape[1])):
        raise ProtocolError(
            f"thresholds of shape {given.shape}",
            expected=f"({values.shape[1]},) or ({len(draws.counts)}, {values.shape[1]})",
            fix="fit them with as many draws, for the same findings",
        )
    return _resample(values, truth, draws, Rule(name="given", strict=strict), given)


def _table(scores: ArrayLike, labels: ArrayLike, draws: Draws) -> tuple[Floats, NDArray[np.int64]]:
    """Refuse what has no score."""
    values, truth = score_table(scores, labels)
    if len(values) != len(draws.row_patient):
        raise ProtocolError(
            f"{len(values)} rows beside draws of {len(draws.row_patient)}",
            expected="draws of the same rows",
            fix="make the draws from the patient ids of these rows, in the same order",
        )
    return values, truth


def _resample(
    values: Floats, truth: NDArray[np.int64], draws: Draws, rule: Rule, given: Floats | None
) -> Resampled:
    """Go through blocks of draws, finding by finding."""
    findings = [_ordered(s, y, draws) for s, y in zip(values.T, truth.T, strict=True)]
    shape = (len(draws.counts), len(findings))
    auroc, precision, thresholds, hit, wrong = (np.full(shape, np.nan) for _ in range(5))
    totals = np.full((2, *shape), np.nan)
    for block, taken in _blocks(draws):
        for f, finding in enumerate(findings):
            sides = finding.held @ taken
            here = None if given is None else np.broadcast_to(given, shape)[block, f]
            column = _column(finding, taken, sides, rule, here)
            both = (sides > 0).all(axis=0)
            auroc[block, f] = np.where(both, column.auroc, np.nan)
            precision[block, f] = np.where(both, column.precision, np.nan)
            # a threshold from elsewhere answers draws of one class too; `Confusion` says what of it
            known = ~np.isnan(column.threshold) & (both if given is None else True)
            totals[:, block, f] = np.where(known, sides, np.nan)
            for out, found in (
                (thresholds, column.threshold),
                (hit, column.hit),
                (wrong, column.wrong),
            ):
                out[block, f] = np.where(known, found, np.nan)
    answers = Confusion(
        true_positive=hit,
        false_positive=wrong,
        true_negative=totals[1] - wrong,
        false_negative=totals[0] - hit,
    )
    return Resampled(
        auroc=auroc, average_precision=precision, thresholds=thresholds, answers=answers
    )


def _blocks(draws: Draws) -> Iterator[tuple[slice, Floats]]:
    """Blocks of draws: (P, block) how often each patient was taken."""
    step = min(_BLOCK_DRAWS, max(64, _BLOCK_BYTES // (8 * draws.num_patients)))
    for first in range(0, len(draws.counts), step):
        block = slice(first, min(first + step, len(draws.counts)))
        yield block, np.ascontiguousarray(draws.counts[block].T, dtype=np.float64)


def _ordered(scores: Floats, labels: NDArray[np.int64], draws: Draws) -> _Finding:
    """Order the stated rows of a finding, highest score first, and find its steps."""
    stated = np.flatnonzero(labels >= 0)
    rows = stated[np.argsort(-scores[stated], kind="stable")]
    values, truth, patient = scores[rows], labels[rows] == 1, draws.row_patient[rows]
    steps: list[_Step] = []
    between: list[int] = []
    told = zip(values.tolist(), truth.tolist(), patient.tolist(), strict=True)
    for score, group in groupby(told, key=itemgetter(0)):
        sides: tuple[list[int], list[int]] = ([], [])
        for _, yes, owner in group:
            sides[yes].append(owner)
        if sides[1]:
            steps.append(_Step(score=score, between=between, hits=sides[1], tied=sides[0]))
            between = []
        else:
            between += sides[0]
    held = np.stack(
        [np.bincount(patient[y], minlength=draws.num_patients) for y in (truth, ~truth)]
    )
    return _Finding(
        scores=values,
        truth=truth,
        patient=patient,
        held=held.astype(np.float64),
        steps=tuple(steps),
    )


def _column(
    finding: _Finding, taken: Floats, sides: Floats, rule: Rule, given: Floats | None
) -> _Column:
    """Walk down one finding; thresholds by score are found on the way."""
    column = _walk(finding, taken, sides, rule)
    if given is not None:
        column.threshold = given
        column.hit, column.wrong = _called(finding, taken, given, strict=rule.strict)
    elif rule.grid:
        _fit_grid(column, finding, taken)
    return column


def _walk(finding: _Finding, taken: Floats, sides: Floats, rule: Rule) -> _Column:
    """AUROC, average precision and the best score as threshold, for one block of draws."""
    positives, negatives = np.maximum(sides, 1.0)  # draws of one class are dropped by the caller
    hit, wrong, won, area = np.zeros((4, taken.shape[1]))
    best = np.full(taken.shape[1], rule.floor)
    at, hit_at, wrong_at = np.full((3, taken.shape[1]), np.nan)
    for step in finding.steps:
        for row in step.between:
            wrong += taken[row]
        gained = _sum(taken, step.hits)
        hit += gained
        if step.tied:
            level = _sum(taken, step.tied)
            wrong += level
            won += gained * (0.5 * level)
        won += gained * (sides[1] - wrong)
        area += gained * (hit / np.maximum(hit + wrong, 1.0))
        if rule.gain is not None:
            gain = rule.gain(hit, wrong, positives, negatives)
            # a score whose positives were not drawn is no candidate in that draw
            better = np.flatnonzero((gain > best) & (gained > 0))
            best[better] = gain[better]
            at[better], hit_at[better], wrong_at[better] = step.score, hit[better], wrong[better]
    column = _Column(
        auroc=won / (positives * negatives),
        precision=area / positives,
        threshold=at,
        hit=hit_at,
        wrong=wrong_at,
    )
    if rule.gain is not None:
        _fall_back(column, finding, taken, rule)
    return column


def _fall_back(column: _Column, finding: _Finding, taken: Floats, rule: Rule) -> None:
    """Set what the rule says where no score was a candidate."""
    none = np.isnan(column.threshold)
    if none.any() and len(finding.scores):
        value = rule.fallback(finding.scores)
        column.threshold[none] = value
        hit, wrong = _called(finding, taken[:, none], np.full(none.sum(), value), strict=False)
        column.hit[none], column.wrong[none] = hit, wrong


def _fit_grid(column: _Column, finding: _Finding, taken: Floats) -> None:
    """Set the grid's threshold and its calls."""
    cell = grid_cell(finding.scores)
    mass = np.zeros((2, len(GRID) + 1, taken.shape[1]))
    for c, yes, row in zip(
        cell.tolist(), finding.truth.tolist(), finding.patient.tolist(), strict=True
    ):
        mass[0 if yes else 1, c] += taken[row]
    with np.errstate(invalid="ignore"):  # 0 / 0 in draws of one class, dropped by the caller
        pick, (column.hit, column.wrong) = nearest_corner(mass[0], mass[1])
    column.threshold = GRID[pick]


def _called(
    finding: _Finding, taken: Floats, thresholds: Floats, *, strict: bool
) -> tuple[Floats, Floats]:
    """Hits and false calls under one threshold a draw."""
    compare = np.less if strict else np.less_equal
    if len(thresholds) and (thresholds == thresholds[0]).all():
        called = compare(thresholds[0], finding.scores)
        sides = finding.truth & called, ~finding.truth & called
        num = len(taken)
        held = np.stack([np.bincount(finding.patient[side], minlength=num) for side in sides])
        hit, wrong = held.astype(np.float64) @ taken
        return hit, wrong
    hit, wrong = np.zeros((2, taken.shape[1]))
    lowest = thresholds.min(initial=np.inf, where=~np.isnan(thresholds))
    for score, yes, row in zip(
        finding.scores.tolist(), finding.truth.tolist(), finding.patient.tolist(), strict=True
    ):
        if score < lowest:
            break
        side = hit if yes else wrong
        side += taken[row] * compare(thresholds, score)
    return hit, wrong


def _sum(taken: Floats, rows: Sequence[int]) -> Floats:
    """Sum of the vectors of some rows."""
    if len(rows) == 1:
        return np.asarray(taken[rows[0]])
    return np.asarray(taken[list(rows)].sum(axis=0))
