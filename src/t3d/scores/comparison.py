"""Two models on the same patients, and one model trained several times.

`bootstrap.paired_difference` and `clustered.ClusteredAuroc.difference` give intervals; here are a
test by permutation and the part that seeds have. Legend: N rows, F findings, B draws, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws
from t3d.scores.checks import score_table
from t3d.scores.resample import Resampled, refitted
from t3d.scores.thresholds import Rule, rule_named

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SwapTest:
    """A difference beside those that come up when the two models are exchanged by patient."""

    difference: float
    permuted: Floats  # (B,); NaN where the measure was not defined
    p_value: float  # two-sided; NaN if the difference or every permuted one is not defined


def swap_test(
    models: tuple[ArrayLike, ArrayLike],
    labels: ArrayLike,
    patient_ids: Sequence[str],
    measure: Callable[[Resampled], Floats],
    *,
    num: int,
    seed: int,
    rule: Rule | None = None,
) -> SwapTest:
    """Test whether two models differ, by exchanging their scores for whole patients.

    Formula: p = (1 + number of permuted differences at least as large) / (1 + number of them).
    Check: two equal models -> every difference 0, p 1.

    Args:
        models: Scores of the first and of the second model, (N, F) each.
        labels: (N, F) 1, 0, or -1 = not stated.
        patient_ids: N ids.
        measure: Of the scores of every draw, (B,); such as
            `lambda drawn: mean_over_findings(drawn.auroc)`.
        num: B, how many exchanges.
        seed: Of `numpy.random.default_rng`.
        rule: Fitted after each exchange, on the scores as they are: both models must then score
            on one scale. None = no answers, and each model's scores become ranks before, as
            needed for AUROC and average precision of models with scales of their own.

    Returns:
        The test.

    Raises:
        ProtocolError: Shapes differ, a score is not finite, or a label is not 1, 0 or -1.

    Source:
        Exchange of ranks between paired models: Bandos et al. 2005 (Statistics in Medicine
        24:2873); by whole patients: our choice.
    """
    tables = [score_table(scores, labels) for scores in models]
    if tables[0][0].shape != tables[1][0].shape or len(patient_ids) != len(tables[0][0]):
        raise ProtocolError(
            f"scores {tables[0][0].shape} and {tables[1][0].shape}, {len(patient_ids)} patient ids",
            expected="two models on the same rows",
            fix="judge both on the same studies and findings",
        )
    truth = tables[0][1]
    scores = [values if rule is not None else _ranks(values, truth) for values, _ in tables]
    patients, row_patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
    swapped = np.random.default_rng(seed).integers(0, 2, (num + 1, len(patients)), dtype=np.int32)
    swapped[0] = 0  # as they are
    both = np.concatenate((1 - swapped, swapped), axis=1)
    owner = np.concatenate((row_patient, row_patient + len(patients)))
    stacked = np.concatenate(scores), np.concatenate((truth, truth))
    values = [
        measure(
            refitted(
                *stacked,
                Draws(row_patient=owner, counts=counts, seed=seed),
                rule_named("fixed:0") if rule is None else rule,
            )
        )
        for counts in (both, 1 - both)
    ]
    gap = values[0] - values[1]
    return SwapTest(difference=float(gap[0]), permuted=gap[1:], p_value=_p(gap[0], gap[1:]))


def with_seeds(drawn: ArrayLike, *, seed: int) -> Floats:
    """Draw seeds as well as patients.

    In each draw of patients, S of the S trainings are drawn with replacement and averaged. Their
    distance from the mean over all is stretched by sqrt(S / (S - 1)): drawing from few values
    shows too little of their spread.

    Args:
        drawn: (S, B) of a measure, one row a training, all on the same `Draws`.
        seed: Of `numpy.random.default_rng`.

    Returns:
        (B,) draws of the mean over trainings, for `interval`; subtract those of another model
        (with a seed of its own) for the difference of two recipes.

    Raises:
        ProtocolError: There are fewer than two trainings.

    Source:
        Resampling of crossed factors: Owen 2007 (Annals of Applied Statistics 1:386); the
        stretch: our choice.
    """
    table = _trainings(drawn)
    num = len(table)
    picked = np.random.default_rng(seed).integers(0, num, (num, table.shape[1]))
    mean = table.mean(axis=0)
    again = np.take_along_axis(table, picked, axis=0).mean(axis=0)
    return np.asarray(mean + np.sqrt(num / (num - 1)) * (again - mean))


def variance_split(values: ArrayLike, drawn: ArrayLike) -> tuple[float, float]:
    """Split the variance of a mean over trainings: how much by patients, how much by seeds.

    Check: values (.7, .8) whose draws all equal them: patients 0, seeds .005 / 2 = .0025.

    Args:
        values: (S,) of the trainings on the studies as they are.
        drawn: (S, B) the same in draws of patients.

    Returns:
        Variance by patients (of the mean over trainings, over draws) and by seeds (between
        trainings, over S).

    Raises:
        ProtocolError: There are fewer than two trainings.
    """
    table = _trainings(drawn)
    given = np.asarray(values, dtype=np.float64)
    return float(np.nanvar(table.mean(axis=0), ddof=1)), float(given.var(ddof=1) / len(given))


def _trainings(drawn: ArrayLike) -> Floats:
    """Refuse one training: it says nothing about others."""
    table = np.asarray(drawn, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise ProtocolError(
            f"draws of shape {table.shape}",
            expected="(trainings, draws) of at least two trainings",
            fix="train the recipe with more seeds, or give the interval over patients only",
        )
    return table


def _ranks(values: Floats, truth: NDArray[np.int64]) -> Floats:
    """Mid-ranks of each finding's stated rows as shares, so that scales do not matter."""
    from scipy.stats import rankdata

    ranks = np.zeros_like(values)
    for f in range(values.shape[1]):
        stated = truth[:, f] >= 0
        ranks[stated, f] = rankdata(values[stated, f]) / max(int(stated.sum()), 1)
    return ranks


def _p(difference: float, permuted: Floats) -> float:
    """Share of permuted differences at least as large; sums of equal counts may differ by 1e-12."""
    defined = permuted[np.isfinite(permuted)]
    if not np.isfinite(difference) or not len(defined):
        return float("nan")
    as_large = np.count_nonzero(np.abs(defined) >= abs(difference) - 1e-12)
    return (1 + as_large) / (1 + len(defined))
