"""Which published figures may stand beside a result: same protocol, same sample set."""

from __future__ import annotations

from collections.abc import Iterable

from t3d.judge.data.figures import FIGURES, SAMPLES, Figure
from t3d.types import Result


def sample_of(corpus: str, result: Result) -> str:
    """Name the public sample set that a result was computed on, by its counts.

    Args:
        corpus: Kind of the cohort's source, as `cohort.facts["source_kind"]` has it.
        result: Of any task; its counts of volumes (0 = rows are studies) and studies decide.

    Returns:
        The name; "" = none of the sets that figures were published for, such as a part of one.
    """
    for name, kind, counts in SAMPLES:
        if kind == corpus and all(result.counts.get(what, 0) == num for what, num in counts):
            return name
    return ""


def figures_beside(
    corpus: str, result: Result, *, figures: Iterable[Figure] = FIGURES
) -> dict[str, tuple[Figure, ...]]:
    """Give the published figures that a result can be compared with.

    Args:
        corpus: Kind of the cohort's source.
        result: Its protocol must be the figure's to the letter: a variant has none.
        figures: Where to look.

    Returns:
        Metric -> figures, for metrics that the result has. Empty where the sample differs.
    """
    sample = sample_of(corpus, result)
    found: dict[str, tuple[Figure, ...]] = {}
    for metric in result.metrics if sample else ():
        beside = tuple(
            figure
            for figure in figures
            if (figure.metric, figure.protocol, figure.sample)
            == (metric.name, result.protocol, sample)
        )
        if beside:
            found[metric.name] = beside
    return found
