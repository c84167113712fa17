"""Intervals by resampling patients, differences on the same resamples, and chance by permutation.

Studies of one patient are drawn together: siblings are not independent, and an interval that
treats them so is too narrow. One `Draws` is shared by all metrics and all models on the same
patients, so that differences are paired. Legend: N rows (studies), P patients, B draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.ratio import ratio

Rule = Literal["linear", "order_statistic"]

_BLOCK_ELEMENTS = 2_000_000  # numbers drawn at once: 16 MB a working array


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % percentile interval over draws."""

    low: float
    high: float
    num_draws: int  # that gave a number
    num_dropped: int = 0  # where the metric was not defined (one class only)


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Resamples of patients with replacement, fixed by (patients, number, seed)."""

    row_patient: NDArray[np.intp]  # (N,) index of each row's patient in the sorted patient list
    counts: NDArray[np.int32]  # (B, P) how often each patient was drawn
    seed: int

    @classmethod
    def of(cls, patient_ids: Sequence[str], *, num_draws: int, seed: int) -> Draws:
        """Draw patients.

        Args:
            patient_ids: N patient ids, one a row; equal ids are drawn together.
            num_draws: B.
            seed: Of `numpy.random.default_rng`; the draws depend on the sorted list of
                distinct patients only, not on the order of rows.

        Returns:
            The draws.

        Raises:
            ProtocolError: There is no row, or no draw.
        """
        _some(len(patient_ids), num_draws)
        patients, row_patient = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)
        counts = _times_drawn(len(patients), num_draws, seed)
        return cls(row_patient=row_patient, counts=counts, seed=seed)

    @classmethod
    def of_rows(cls, num_rows: int, *, num_draws: int, seed: int) -> Draws:
        """Draw rows as if they were independent, as published rules do.

        Here row i is the i-th number of each draw, so the order of rows matters.

        Args:
            num_rows: N.
            num_draws: B.
            seed: Of `numpy.random.default_rng`; the row numbers are
                `rng.integers(0, N, (B, N))`.

        Returns:
            The draws.

        Raises:
            ProtocolError: There is no row, or no draw.

        Source:
            RadFinder utils/bootstrap.py at 7c6ab92: seed 42, 10,000 draws. INSPECT draws 1,000
            times without a seed.
        """
        _some(num_rows, num_draws)
        counts = _times_drawn(num_rows, num_draws, seed)
        return cls(row_patient=np.arange(num_rows), counts=counts, seed=seed)

    @classmethod
    def disabled(cls, num_rows: int, *, num_draws: int = 1) -> Draws:
        """Take every row once in every draw: with one draw the score itself.

        Args:
            num_rows: N.
            num_draws: B.

        Returns:
            Draws without any spread: intervals of width 0.

        Raises:
            ProtocolError: There is no row, or no draw.

        Source:
            CT-CLIP scripts/bootstrap_values.py at a2a155c, 1,000 draws, resampling disabled.
        """
        _some(num_rows, num_draws)
        counts = np.ones((num_draws, num_rows), dtype=np.int32)
        return cls(row_patient=np.arange(num_rows), counts=counts, seed=-1)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(B, N) how often each row was drawn."""
        return self.counts[:, self.row_patient].astype(np.float64)

    @property
    def num_patients(self) -> int:
        """P."""
        return int(self.counts.shape[1])

    def total(self, values: ArrayLike) -> NDArray[np.float64]:
        """Sum of the rows' values in every draw.

        Summed by patient first, in the order of the values, so that the order of rows changes
        nothing, not even the last digit.

        Args:
            values: (N,) or (N, C).

        Returns:
            (B,) or (B, C).
        """
        table = np.asarray(values, dtype=np.float64)
        columns = table.reshape(len(table), -1).T
        held = np.empty((self.num_patients, len(columns)))
        for c, column in enumerate(columns):
            order = np.argsort(column)
            owner = self.row_patient[order]
            held[:, c] = np.bincount(owner, weights=column[order], minlength=len(held))
        out = np.empty((len(self.counts), len(columns)))
        step = max(1, _BLOCK_ELEMENTS // len(held))
        for first in range(0, len(out), step):
            block = slice(first, first + step)
            out[block] = self.counts[block].astype(np.float64) @ held
        return out.reshape(len(out), *table.shape[1:])

    def mean(self, values: ArrayLike) -> NDArray[np.float64]:
        """Mean of one value a row in every draw.

        Args:
            values: (N,); NaN rows are left out.

        Returns:
            (B,); NaN where a draw holds no row with a value.
        """
        rows = np.asarray(values, dtype=np.float64)
        given = np.isfinite(rows)
        summed = self.total(np.stack([np.where(given, rows, 0.0), given], axis=1))
        return ratio(summed[:, 0], summed[:, 1])

    def median(self, values: ArrayLike) -> NDArray[np.float64]:
        """Median of one value a row in every draw (mean of the two middle ones if even).

        Args:
            values: (N,); NaN rows are left out.

        Returns:
            (B,); NaN where a draw holds no row with a value.
        """
        rows = np.asarray(values, dtype=np.float64)
        keep = np.flatnonzero(np.isfinite(rows))
        order = keep[np.argsort(rows[keep], kind="stable")]
        reached = np.cumsum(self.weights[:, order], axis=1)
        out = np.full(len(reached), np.nan)
        if not len(order):
            return out
        total = reached[:, -1]
        some = total > 0
        lower, upper = (total - 1) // 2 + 1, total // 2 + 1  # 1-based middle positions
        first = np.argmax(reached >= lower[:, None], axis=1)
        second = np.argmax(reached >= upper[:, None], axis=1)
        middle = (rows[order[first]] + rows[order[second]]) / 2
        out[some] = middle[some]
        return out


def interval(draws: ArrayLike, *, rule: Rule = "linear") -> Interval:
    """95 % percentile interval of a metric's draws.

    Check: on 1/1000 .. 1000/1000 `linear` gives .025975 and .975025, `order_statistic`
    the 25th and 975th value, .025 and .975.

    Args:
        draws: (B,) values; NaN = not defined in that draw, dropped and counted.
        rule: "linear" as numpy.percentile; "order_statistic" takes element int(q n) - 1 of
            the sorted values, as CT-CLIP's `compute_cis` does.

    Returns:
        The interval; NaN bounds if no draw gave a number.

    Source:
        Percentile bootstrap, Efron 1979.
    """
    values = np.asarray(draws, dtype=np.float64)
    good = np.sort(values[np.isfinite(values)])
    dropped = len(values) - len(good)
    if not len(good):
        return Interval(low=float("nan"), high=float("nan"), num_draws=0, num_dropped=dropped)
    if rule == "linear":
        low, high = np.percentile(good, [2.5, 97.5])
    else:
        low, high = (good[max(int(q * len(good)) - 1, 0)] for q in (0.025, 0.975))
    return Interval(low=float(low), high=float(high), num_draws=len(good), num_dropped=dropped)


def paired_difference(first: ArrayLike, second: ArrayLike) -> Interval:
    """Interval of `first - second` when both were computed on the same draws.

    Args:
        first: (B,) draws of one model's metric.
        second: (B,) of the other's, from the same `Draws`.

    Returns:
        The interval of the difference; it excludes 0 where patients alone do not explain it.

    Raises:
        ProtocolError: The two have different numbers of draws.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape:
        raise ProtocolError(
            f"{one.shape} draws beside {two.shape}",
            expected="the same draws for both models",
            fix="judge both on the same studies under the same protocol",
        )
    return interval(one - two)


def permutations(patient_ids: Sequence[str], *, num: int, seed: int) -> NDArray[np.intp]:
    """Ways to hand one patient's truth to another.

    A patient's rows move together, and only between patients with the same number of rows,
    so that what siblings share stays shared.

    Args:
        patient_ids: N patient ids, one a row.
        num: How many permutations.
        seed: Of `numpy.random.default_rng`.

    Returns:
        (num, N): row i takes the truth of row `result[k, i]`.
    """
    ids = np.asarray(patient_ids, dtype=str)
    _, row_patient = np.unique(ids, return_inverse=True)
    rows_of: list[NDArray[np.intp]] = _rows_by_patient(row_patient)
    by_size: dict[int, list[int]] = {}
    for patient, rows in enumerate(rows_of):
        by_size.setdefault(len(rows), []).append(patient)
    rng = np.random.default_rng(seed)
    out = np.empty((num, len(ids)), dtype=np.intp)
    for k in range(num):
        for size in sorted(by_size):
            table = np.array([rows_of[p] for p in by_size[size]])  # (patients, size)
            out[k, table] = table[rng.permutation(len(table))]
    return out


def mean_over_findings(drawn: ArrayLike, *, drop_draws: bool = False) -> NDArray[np.float64]:
    """Macro mean in every draw.

    Args:
        drawn: (B, F) values of each finding; NaN = not defined in that draw.
        drop_draws: False: mean over the findings defined in the draw. True: a draw in which any
            finding is not defined gives NaN, so that every draw is a mean of the same findings.

    Returns:
        (B,) means.
    """
    table = np.asarray(drawn, dtype=np.float64)
    if drop_draws:
        return np.asarray(table.mean(axis=1))
    given = np.isfinite(table)
    return ratio(np.where(given, table, 0.0).sum(axis=1), given.sum(axis=1))


def _some(num_rows: int, num_draws: int) -> None:
    """Refuse no rows or no draws."""
    if num_rows < 1 or num_draws < 1:
        raise ProtocolError(
            f"{num_draws} draws of {num_rows} rows",
            expected="at least one of each",
            fix="check the split's name and the protocol's num_draws",
        )


def _times_drawn(num: int, num_draws: int, seed: int) -> NDArray[np.int32]:
    """(B, num) how often each of `num` was drawn, from one stream of numbers cut into blocks."""
    rng = np.random.default_rng(seed)
    counts = np.empty((num_draws, num), dtype=np.int32)
    step = max(1, _BLOCK_ELEMENTS // num)
    for first in range(0, num_draws, step):
        block = counts[first : first + step]
        flat = rng.integers(0, num, block.shape) + num * np.arange(len(block))[:, None]
        block[:] = np.bincount(flat.ravel(), minlength=block.size).reshape(block.shape)
    return counts


def _rows_by_patient(row_patient: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Row numbers of every patient."""
    order = np.argsort(row_patient, kind="stable")
    cuts = np.flatnonzero(np.diff(row_patient[order])) + 1
    return list(np.split(order, cuts)) if len(order) else []
