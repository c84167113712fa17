"""Closed form of the AUROC's uncertainty when patients have several studies.

A study's placement is the share of the other class that it lies on the right side of. Placements
are summed by patient, and their spread over patients gives variance and covariance without any
resampling. With one study a patient this is DeLong's form.
Legend: N rows, P patients, K columns (findings, or findings of several models).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.checks import score_table
from t3d.scores.ratio import ratio

Floats = NDArray[np.float64]
Form = Literal["logit", "wald"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its standard error."""

    value: float
    error: float  # NaN where the form gives none: fewer than two patients with one of the classes
    df: float = np.inf  # degrees of freedom of the error; infinite: normal distribution

    def interval(self, form: Form = "logit") -> tuple[float, float]:
        """95 % interval.

        Check: .8 with standard error .05, normal -> wald (.702, .898), logit (.684344, .880669).

        Args:
            form: "logit": made on the log odds and turned back, so it stays within 0 and 1 and
                is longer towards .5; for differences take "wald": value +- q errors. Both with
                the quantile of Student's t: errors from few patients are often too small.

        Returns:
            Low and high; NaN where there is no error. A value of exactly 0 or 1 has the error 0
            and an interval of no width, which says too much: look at the number of patients.

        Source:
            docs/concepts/intervals.md says why "logit" is what a single AUROC gets.
        """
        from scipy.special import ndtri, stdtrit

        quantile = stdtrit(self.df, 0.975) if np.isfinite(self.df) else ndtri(0.975)
        reach = float(quantile) * self.error
        if form == "wald" or not 0 < self.value < 1:
            return float(self.value - reach), float(self.value + reach)
        odds, reach = self.value / (1 - self.value), reach / (self.value * (1 - self.value))
        low, high = odds * np.exp(-reach), odds * np.exp(reach)
        return float(low / (1 + low)), float(1 - 1 / (1 + high))

    @property
    def p_value(self) -> float:
        """Two-sided p of "the value is 0", for differences."""
        from scipy.special import ndtr, stdtr

        if not self.error > 0:
            return 1.0 if self.value == 0 else float("nan")
        away = -abs(self.value) / self.error
        return float(2 * (stdtr(self.df, away) if np.isfinite(self.df) else ndtr(away)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClusteredAuroc:
    """AUROC of K columns with the covariance between them."""

    values: Floats  # (K,); NaN where a class is missing
    covariance: Floats  # (K, K)
    patients: NDArray[np.int64]  # (2, K) patients with a positive, with a negative

    def column(self, k: int) -> Estimate:
        """One column; its degrees of freedom are the patients with the rarer class, less one."""
        return replace(self._weighted(np.eye(len(self.values))[k]), df=self._df(k))

    def mean(self, columns: Sequence[int] | None = None) -> Estimate:
        """Mean over columns (macro), those without a value left out.

        Args:
            columns: Numbers of columns; None = all.

        Returns:
            The mean; NaN if no column has a value. Its error is NaN if that of any column in it
            is: then only draws of patients give an interval.
        """
        return self._weighted(self._mean_of(columns))

    def difference(self, first: Sequence[int], second: Sequence[int]) -> Estimate:
        """Mean over some columns minus mean over others: two models on the same patients.

        Args:
            first: Columns of one model.
            second: Columns of the other one.

        Returns:
            The paired difference; its p-value and its "wald" interval are of use.
        """
        found = self._weighted(self._mean_of(first) - self._mean_of(second))
        single = len(first) == len(second) == 1
        return replace(found, df=min(map(self._df, (*first, *second)))) if single else found

    def _df(self, k: int) -> float:
        """Patients with the rarer class of a column, less one, at least one."""
        return max(float(self.patients[:, k].min()) - 1, 1.0)

    def _mean_of(self, columns: Sequence[int] | None) -> Floats:
        """Weights of a mean over those columns that have a value."""
        picked = np.arange(len(self.values)) if columns is None else np.asarray(columns)
        picked = picked[np.isfinite(self.values[picked])]
        if not len(picked):
            return np.full(len(self.values), np.nan)
        return np.bincount(picked, minlength=len(self.values)) / len(picked)

    def _weighted(self, weights: Floats) -> Estimate:
        """Value and error of a weighted sum of columns."""
        used = np.flatnonzero(weights)
        w = weights[used]
        variance = float(w @ self.covariance[np.ix_(used, used)] @ w)
        error = np.sqrt(max(variance, 0.0)) if np.isfinite(variance) else np.nan
        return Estimate(value=float(w @ self.values[used]), error=float(error))


def clustered_auroc(
    scores: ArrayLike, labels: ArrayLike, patient_ids: Sequence[str]
) -> ClusteredAuroc:
    """AUROC of every column with variances and covariances over patients.

    Formula: theta = mean placement of the positives. With A_p and B_p the sums over patient p of
    (placement - theta) of its positives over m and of its negatives over n: covariance of two
    columns = sum_p of A A' I1/(I1 - 1) + B B' I0/(I0 - 1) + (A B' + B A') I/(I - 1), where I1,
    I0 and I count patients with a positive, with a negative, and all.
    Check: scores (1, 3, 2, 4), labels (0, 0, 1, 1), a patient each: placements of the positives
    (.5, 1), of the negatives (1, .5); theta .75, variance .125/2 + .125/2 = .125. With the rows
    paired into patients (1, 3) and (2, 4): sums 1.5 and 1.5, I1 = I0 = 1: no variance.

    Args:
        scores: (N, K) finite.
        labels: (N, K) 1, 0, or -1 = not stated. Columns of several models repeat them.
        patient_ids: N ids.

    Returns:
        Values and covariance; NaN where a column has one class only, or where only one patient
        holds a class.

    Raises:
        ProtocolError: Shapes differ, a score is not finite, or a label is not 1, 0 or -1.

    Source:
        Obuchowski 1997 (Biometrics 53:567); DeLong et al. 1988 with one row a patient. Between
        columns with different labels: the same sums, our extension (factors I1/(I1 - 1) enter as
        square roots of the two columns' own).

    Cost:
        18 findings x 3,039 rows: docs/results/evaluate.json.
    """
    values, truth = score_table(scores, labels)
    if len(patient_ids) != len(values):
        raise ProtocolError(
            f"{len(patient_ids)} patient ids beside {len(values)} rows",
            expected="one id a row",
            fix="pass the patient of every row",
        )
    number = {patient: p for p, patient in enumerate(sorted(set(patient_ids)))}
    row_patient = np.array([number[patient] for patient in patient_ids], dtype=np.intp)
    num, columns = len(number), values.shape[1]
    theta = np.full(columns, np.nan)
    spread = np.full((2, num, columns), np.nan)
    holders = np.zeros((2, columns), dtype=np.int64)
    for k in range(columns):
        stated = np.flatnonzero(truth[:, k] >= 0)
        order = stated[np.argsort(values[stated, k])]
        present = truth[order, k] == 1
        sizes = np.array([present.sum(), len(present) - present.sum()])
        if not sizes.all():
            continue
        halves = _halves_won(values[order, k], present)
        pairs = int(sizes.prod())
        theta[k] = halves[present].sum() / (2 * pairs)
        for side, rows in enumerate((present, ~present)):
            # whole numbers are summed, so that the order of rows cannot change the last digit
            owner = row_patient[order[rows]]
            held = np.bincount(owner, minlength=num)
            won = np.bincount(owner, weights=halves[rows], minlength=num)
            spread[side, :, k] = won / (2 * pairs) - held * (theta[k] / sizes[side])
            holders[side, k] = np.count_nonzero(held)
    return ClusteredAuroc(
        values=theta, covariance=_covariance(spread, holders, num), patients=holders
    )


def _halves_won(ordered: Floats, present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Halves that each row of rising scores wins over the rows of the other class."""
    cuts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    bounds = np.concatenate(([0], cuts, [len(ordered)]))
    positives = np.concatenate(([0], np.cumsum(present)))[bounds]  # below each bound
    twice = positives[:-1] + positives[1:]
    above = 2 * positives[-1] - twice
    below = bounds[:-1] + bounds[1:] - twice
    length = np.diff(bounds)
    return np.where(present, np.repeat(below, length), np.repeat(above, length))


def _covariance(spread: Floats, holders: NDArray[np.int64], num: int) -> Floats:
    """(K, K) covariance from sums by patient (2, P, K)."""
    scale = np.sqrt(ratio(holders, holders - 1))
    above, below = (spread[side] * scale[side] for side in (0, 1))
    cross = spread[0].T @ spread[1] * (num / (num - 1) if num > 1 else np.nan)
    return np.asarray(above.T @ above + below.T @ below + cross + cross.T)
