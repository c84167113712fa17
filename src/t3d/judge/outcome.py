"""What a task hands over before anything is written: result, one row a study, draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.scores.bootstrap import Draws, Interval, interval, paired_difference
from t3d.scores.ratio import ratio
from t3d.types import Metric, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Intervals, Protocol

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyTable:
    """One row a study, or a volume; columns as `results.write_results` writes them."""

    study_ids: tuple[str, ...]  # of rows that are volumes: their ids
    patient_ids: tuple[str, ...]
    columns: Mapping[str, Floats]  # name -> (N,), NaN = not stated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """A result with what is needed to write it and to compare it with another one."""

    result: Result
    table: StudyTable
    draws: Mapping[str, Floats]  # metric -> (B,) bootstrap values

    def metric(self, name: str) -> Metric:
        """Find a metric.

        Raises:
            ProtocolError: There is none of that name.
        """
        for metric in self.result.metrics:
            if metric.name == name:
                return metric
        raise ProtocolError(
            f"task {self.result.task}: no metric {name!r}",
            expected=", ".join(m.name for m in self.result.metrics[:6]) + ", ...",
            fix="see result.metrics; a finding with one class only has none",
        )


def difference(first: Outcome, second: Outcome, name: str) -> Metric:
    """How much better `first` is than `second`, on the same draws of patients.

    Args:
        first: One model's outcome.
        second: The other's, same studies, same protocol.
        name: Of a metric with draws in both.

    Returns:
        Metric `name:difference`; chance 0, so an interval without 0 is a difference that
        patients alone do not explain (seeds are not covered).

    Raises:
        ProtocolError: Studies or protocols differ, or the metric is missing in one.
    """
    _same_ground(first, second)
    one, two = first.metric(name), second.metric(name)
    spread = paired_difference(first.draws[name], second.draws[name])
    return Metric(
        name=f"{name}:difference",
        value=one.value - two.value,
        low=spread.low,
        high=spread.high,
        n=one.n,
        unit=one.unit,
        chance=0.0,
    )


def distance_share(
    outcome: Outcome, ceiling: Outcome, name: str, *, base: Outcome | None = None
) -> Metric:
    """Share of the distance between a base and a ceiling that a model covers.

    Formula: (value - base) / (ceiling - base), each from the same draw of patients.
    Check: .8 between .5 and .9 -> .75.

    Args:
        outcome: The model.
        ceiling: The same encoder told the labels.
        name: Of a metric with draws in all.
        base: The model the distance starts from; None = chance of the metric.

    Returns:
        Metric `ceiling_share`; 0 = at the base, 1 = at the ceiling. Draws in which the
        ceiling is not above the base are dropped from the interval. NaN if it is not
        above it in the value itself.

    Raises:
        ProtocolError: Studies or protocols differ, or the metric is missing in one.
    """
    for other in (ceiling, base) if base is not None else (ceiling,):
        _same_ground(outcome, other)
    value, top = outcome.metric(name), ceiling.metric(name)
    start = value.chance if base is None else base.metric(name).value
    low_end = np.float64(start) if base is None else base.draws[name]
    distance = ceiling.draws[name] - low_end
    covered = outcome.draws[name] - low_end
    spread = interval(ratio(covered, distance))
    apart = top.value - start
    return Metric(
        name="ceiling_share",
        value=(value.value - start) / apart if apart > 0 else float("nan"),
        low=spread.low if apart > 0 else float("nan"),
        high=spread.high if apart > 0 else float("nan"),
        n=value.n,
        unit=value.unit,
        chance=0.0 if base is None else float("nan"),
        ceiling=1.0,
    )


def draws_of(patient_ids: Sequence[str], rules: Intervals) -> Draws:
    """Draw what a protocol's intervals resample.

    Args:
        patient_ids: N patients, one a row. Drawing rows looks at their number only, so the order
            of rows must be fixed before.
        rules: Of the protocol.

    Returns:
        The draws; one that takes every row once where nothing is resampled.
    """
    if rules.resample == "patients":
        return Draws.of(patient_ids, num_draws=rules.num_draws, seed=rules.seed)
    if rules.resample == "rows":
        return Draws.of_rows(len(patient_ids), num_draws=rules.num_draws, seed=rules.seed)
    return Draws.disabled(len(patient_ids))


def metric_of(
    name: str,
    value: float,
    spread: Interval,
    n: int,
    *,
    bounds: Mapping[str, float],
    unit: str = "patients",
) -> Metric:
    """Put a value, its interval and its bounds together.

    Args:
        name: Of the metric.
        value: On the studies as they are.
        spread: Its interval.
        n: Patients or rows it rests on.
        bounds: Any of chance, floor, ceiling.
        unit: What was resampled.

    Returns:
        The metric.
    """
    return Metric(
        name=name,
        value=float(value),
        low=spread.low,
        high=spread.high,
        n=n,
        unit=unit,
        chance=float(bounds.get("chance", float("nan"))),
        floor=float(bounds.get("floor", float("nan"))),
        ceiling=float(bounds.get("ceiling", float("nan"))),
    )


def provenance(cohort: Cohort, protocol: Protocol, **more: str) -> dict[str, str]:
    """Say what a result rests on.

    Args:
        cohort: Judged on it.
        protocol: Followed.
        **more: Further entries, such as split names or digests.

    Returns:
        Entries for `Result.provenance`.
    """
    return {
        "cohort": cohort.digest,
        "protocol": protocol.digest(),
        "seed": str(protocol.intervals.seed),
        "num_draws": str(protocol.intervals.num_draws),
        **more,
    }


def _same_ground(first: Outcome, second: Outcome) -> None:
    """Refuse a paired comparison over different studies or protocols."""
    one, two = first.result, second.result
    same_rules = one.provenance.get("protocol") == two.provenance.get("protocol")
    if first.table.study_ids != second.table.study_ids or not same_rules:
        raise ProtocolError(
            "two outcomes over different studies or protocols",
            expected="the same studies in the same order under one protocol",
            fix="judge both models on one cohort and split under one protocol",
        )
