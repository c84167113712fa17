"""The specification curve: the same scores under every protocol that they can serve.

Papers rank models by numbers whose rules differ. Here the rules change and the scores stay, and
what is shown is whether the ranking stays too. Legend: M models, P protocols.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from t3d.errors import ProtocolError
from t3d.judge.outcome import Outcome, difference
from t3d.judge.protocol import Intervals, Protocol
from t3d.judge.protocols import PROTOCOLS
from t3d.judge.units import ScoreTable, judge_scores
from t3d.types import Metric

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

Tables = tuple[ScoreTable | None, ScoreTable]

METRICS = ("auroc:macro", "f1_weighted:macro", "accuracy:macro", "balanced_accuracy:macro")
"""What papers of this field rank by."""
NUM_DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """One protocol and what the models get under it."""

    protocol: str
    digest: str
    differs: Mapping[str, str]  # rules that are not the same under all served protocols
    values: Mapping[str, Mapping[str, Metric]]  # model -> metric -> value with interval
    refused: Mapping[str, str]  # model -> why its scores cannot serve here
    counts: Mapping[str, int]  # of the first model that serves: rows, studies, patients


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How alike two protocols rank the models."""

    metric: str
    protocols: tuple[str, str]
    tau: float  # Kendall's tau-b; NaN for fewer than two models, or if one ties them all
    num_models: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversal:
    """Two models that change places from one protocol to another."""

    metric: str
    protocols: tuple[str, str]
    models: tuple[str, str]  # the better one under the first protocol, then the other
    differences: tuple[Metric, Metric]  # first model minus second, under either protocol

    @property
    def certain(self) -> bool:
        """Whether both paired intervals exclude 0; else patients alone may explain the change."""
        return self.differences[0].low > 0 > self.differences[1].high


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """All of it; what a plot needs is in `points`."""

    specifications: tuple[Specification, ...]
    agreements: tuple[Agreement, ...]
    reversals: tuple[Reversal, ...]

    def points(self, metric: str) -> Iterator[tuple[str, str, Metric]]:
        """Give (protocol, model, value), protocols by the mean over models, lowest first."""
        served = [s for s in self.specifications if any(metric in v for v in s.values.values())]

        def middle(one: Specification) -> float:
            return float(np.mean([v[metric].value for v in one.values.values() if metric in v]))

        for one in sorted(served, key=lambda s: (middle(s), s.protocol)):
            for model, values in one.values.items():
                if metric in values:
                    yield one.protocol, model, values[metric]


def specification_curve(
    cohort: Cohort,
    models: Mapping[str, Tables],
    *,
    protocols: Sequence[Protocol] = PROTOCOLS,
    metrics: Sequence[str] = METRICS,
    splits: tuple[str, str] = ("dev", "test"),
) -> Curve:
    """Judge score tables under every protocol that they can serve.

    Values are each protocol's own. Intervals are ours throughout, by patient and on the same
    draws, with thresholds refitted where they see the evaluated rows, so that differences can be
    compared: most released rules resample rows or nothing.

    Args:
        cohort: An open cohort.
        models: Name -> tables of dev (None = not scored) and of test.
        protocols: Which to try.
        metrics: Names of metrics; one that a protocol does not give is left out there.
        splits: Names of dev and test.

    Returns:
        The curve. A protocol that a table cannot serve says why in `refused`.
    """
    served: list[tuple[Protocol, dict[str, Outcome], dict[str, str]]] = []
    for protocol in protocols:
        outcomes, refused = {}, {}
        for name, tables in models.items():
            try:
                outcomes[name] = _judged(cohort, protocol, tables, name, splits)
            except ProtocolError as error:
                refused[name] = error.found
        served.append((protocol, outcomes, refused))
    differing = _differing([protocol for protocol, outcomes, _ in served if outcomes])
    specifications = tuple(
        Specification(
            protocol=protocol.name,
            digest=protocol.digest(),
            differs={k: v for k, v in protocol.fields() if k in differing},
            values={name: _values(outcome, metrics) for name, outcome in outcomes.items()},
            refused=refused,
            counts=_counts(outcomes),
        )
        for protocol, outcomes, refused in served
    )
    pairs = [
        (metric, one, two)
        for metric in metrics
        for one, two in combinations([(p.name, o) for p, o, _ in served if o], 2)
    ]
    return Curve(
        specifications=specifications,
        agreements=tuple(_agreement(*pair) for pair in pairs if len(_shared(*pair)) > 1),
        reversals=tuple(found for pair in pairs for found in _reversals(*pair)),
    )


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings.

    Check: (1, 2, 3) and (1, 3, 2): two pairs in order, one reversed -> 1/3.

    Args:
        first: M values.
        second: M values of the same models.

    Returns:
        Between -1 and 1; NaN for fewer than two values, or where all of one side are equal.
    """
    from scipy.stats import kendalltau

    if len(first) < 2 or len(set(first)) < 2 or len(set(second)) < 2:
        return float("nan")
    return float(kendalltau(first, second).statistic)


def _judged(
    cohort: Cohort, protocol: Protocol, tables: Tables, name: str, splits: tuple[str, str]
) -> Outcome:
    """One model under one protocol, with intervals by patient."""
    refit = protocol.classes.fitted_on == "evaluated"
    ours = Intervals(
        resample="patients", num_draws=NUM_DRAWS, seed=0, refit=refit, percentiles="linear"
    )
    # chance by permutation is not shown here, and costs most under rules that refit
    rules = replace(protocol, intervals=ours, num_permutations=2)
    return judge_scores(
        cohort,
        rules,
        tables=tables,
        task="specification",
        column=name,
        splits=splits,
        facts={"scores": name},
    )


def _values(outcome: Outcome, metrics: Sequence[str]) -> dict[str, Metric]:
    """Those of the metrics that an outcome has."""
    held = {metric.name: metric for metric in outcome.result.metrics}
    return {name: held[name] for name in metrics if name in held}


def _counts(outcomes: Mapping[str, Outcome]) -> dict[str, int]:
    """What the first outcome was computed on."""
    for outcome in outcomes.values():
        held = outcome.result.counts
        names = ("volumes", "studies", "patients")
        return {name: held[name] for name in names if name in held}
    return {}


def _differing(protocols: Sequence[Protocol]) -> set[str]:
    """Rules of classification that are not the same under all protocols."""
    told: dict[str, set[str]] = {}
    for protocol in protocols:
        for name, value in protocol.fields():
            if name.startswith("classification."):
                told.setdefault(name, set()).add(value)
    return {name for name, values in told.items() if len(values) > 1}


def _shared(
    metric: str, one: tuple[str, Mapping[str, Outcome]], two: tuple[str, Mapping[str, Outcome]]
) -> list[str]:
    """Models that have a metric under both protocols."""
    return [
        name
        for name in one[1]
        if name in two[1] and all(_values(side[1][name], (metric,)) for side in (one, two))
    ]


def _agreement(
    metric: str, one: tuple[str, Mapping[str, Outcome]], two: tuple[str, Mapping[str, Outcome]]
) -> Agreement:
    """Kendall's tau of two protocols."""
    names = _shared(metric, one, two)
    values = [[side[1][name].metric(metric).value for name in names] for side in (one, two)]
    tau = kendall(values[0], values[1])
    return Agreement(metric=metric, protocols=(one[0], two[0]), tau=tau, num_models=len(names))


def _reversals(
    metric: str, one: tuple[str, Mapping[str, Outcome]], two: tuple[str, Mapping[str, Outcome]]
) -> Iterator[Reversal]:
    """Pairs of models that change places."""
    for pair in combinations(_shared(metric, one, two), 2):
        gaps = [difference(side[1][pair[0]], side[1][pair[1]], metric) for side in (one, two)]
        if gaps[0].value * gaps[1].value >= 0:
            continue
        models = pair
        if gaps[0].value < 0:
            models = (pair[1], pair[0])
            gaps = [
                difference(side[1][models[0]], side[1][models[1]], metric) for side in (one, two)
            ]
        yield Reversal(
            metric=metric,
            protocols=(one[0], two[0]),
            models=(models[0], models[1]),
            differences=(gaps[0], gaps[1]),
        )
