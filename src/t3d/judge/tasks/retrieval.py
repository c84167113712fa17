"""Retrieval both ways: the image of a report, and the report of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.embeddings import Embeddings, JudgedModel, cosines, embed_split
from t3d.judge.outcome import Outcome, StudyTable, metric_of, provenance
from t3d.judge.results import finish
from t3d.scores.bootstrap import Draws, interval, permutations
from t3d.scores.retrieval import Ranks, ranks
from t3d.types import Metric, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DIRECTIONS = ("t2i", "i2t")


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Judge a model by finding the other half of a pair.

    Args:
        model: Embeds studies and reports.
        cohort: With reports.
        protocol: Rules.
        test: Split that is scored; the whole split is the pool.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result. Metrics by name: `t2i_r@K` and `i2t_r@K` (a study with an identical
        report counts as right), `..._strict` (only the own study does), `..._medr` (median
        expected rank, 1 = best), `..._mrr`, and `permuted_...` (pairs broken).

    Raises:
        ProtocolError: The split is empty or holds fewer than two reports, or an embedding
            cannot be used.
    """
    embedded = embed_split(model, cohort, test)
    return finish(measure(cohort, protocol, embedded=embedded, split=test), out)


def measure(
    cohort: Cohort, protocol: Protocol, *, embedded: Embeddings, split: str = "test"
) -> Outcome:
    """Judge embeddings that were made before.

    Args:
        cohort: They are of it.
        protocol: Rules.
        embedded: From `embed_split`.
        split: Its name.

    Returns:
        The outcome; columns `rank:t2i` and `rank:i2t` hold expected ranks, 1 = best.

    Raises:
        ProtocolError: Fewer than two studies have a report.
    """
    asked = np.flatnonzero(embedded.has_report)
    if len(asked) < 2:
        raise ProtocolError(
            f"{len(asked)} of {len(embedded.study_ids)} studies have a report",
            expected="at least two",
            fix="evaluate retrieval on a split with reports",
        )
    ids = [embedded.patient_ids[i] for i in asked]
    draws = Draws.of(ids, num_draws=protocol.num_draws, seed=protocol.seed)
    orders = permutations(ids, num=protocol.num_permutations, seed=protocol.seed)
    metrics: list[Metric] = []
    drawn: dict[str, Floats] = {}
    counts = {"studies": len(embedded.study_ids), "queries": len(asked)}
    columns: dict[str, Floats] = {}
    for direction in DIRECTIONS:
        game = _game(embedded, asked, direction, decimals=protocol.score_decimals)
        for metric, values in _judge(game, protocol, draws):
            metrics.append(metric)
            drawn[metric.name] = values
        metrics += _permuted(game, protocol, orders, draws.num_patients)
        places = game.ranks()
        counts[f"candidates:{direction}"] = game.similarity.shape[1]
        counts[f"tied_queries:{direction}"] = int((places.tied > places.right).sum())
        columns[f"rank:{direction}"] = _spread(places.expected() + 1, asked, embedded)
    result = Result(
        task="retrieval",
        protocol=protocol.name,
        metrics=tuple(metrics),
        counts=counts,
        excluded={"no report": len(embedded.study_ids) - len(asked)},
        provenance=provenance(cohort, protocol, test=split),
    )
    table = StudyTable(
        study_ids=embedded.study_ids, patient_ids=embedded.patient_ids, columns=columns
    )
    return Outcome(result=result, table=table, draws=drawn)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Game:
    """Queries, candidates, and which of them belong together."""

    direction: str
    similarity: Floats  # (Q, M)
    asked: Ints  # (Q,) group each query asks for: identical reports share one
    offered: Ints  # (M,)
    own: Ints  # (Q,) column of the query's own study

    def ranks(self, order: NDArray[np.intp] | None = None) -> Ranks:
        """Study-level ranks; `order` hands every query another one's pair."""
        asked = self.asked if order is None else self.asked[order]
        return ranks(self.similarity, asked, self.offered)

    def strict(self, similarity: Floats | None = None) -> Ranks:
        """Ranks when only the own study is right."""
        table = self.similarity if similarity is None else similarity
        return ranks(table, self.own, np.arange(table.shape[1]))

    def perfect(self) -> Floats:
        """Similarity of a model that tells everything apart but identical reports."""
        same: Floats = (self.asked[:, None] == self.offered[None, :]).astype(np.float64)
        return same


def _game(embedded: Embeddings, asked: Ints, direction: str, *, decimals: int) -> _Game:
    """Set up one direction; a report has all studies of the split as its pool."""
    # a study without a report has group -1, which no query asks for
    groups = np.asarray(embedded.report_ids, dtype=np.int64)
    if direction == "t2i":
        table = cosines(embedded.text[asked], embedded.image, decimals=decimals)
        return _Game(
            direction=direction,
            similarity=table,
            asked=groups[asked],
            offered=groups,
            own=asked,
        )
    table = cosines(embedded.image[asked], embedded.text[asked], decimals=decimals)
    return _Game(
        direction=direction,
        similarity=table,
        asked=groups[asked],
        offered=groups[asked],
        own=np.arange(len(asked)),
    )


def _judge(game: _Game, protocol: Protocol, draws: Draws) -> list[tuple[Metric, Floats]]:
    """All metrics of a direction with their draws."""
    blind = np.zeros_like(game.similarity)
    study = (game.ranks(), ranks(blind, game.asked, game.offered), None)
    strict = (game.strict(), game.strict(blind), game.strict(game.perfect()))
    rows: list[tuple[Metric, Floats]] = []
    for suffix, (found, chance, perfect) in (("", study), ("_strict", strict)):
        for k in protocol.ks:
            top = 1.0 if perfect is None else float(perfect.credit(k).mean())
            name = f"{game.direction}_r@{k}{suffix}"
            rows.append(_mean_row(name, draws, (found.credit(k), chance.credit(k)), top))
    found, chance, _ = study
    rows.append(_median_row(f"{game.direction}_medr", draws, found, chance))
    pair = (found.reciprocal(), chance.reciprocal())
    rows.append(_mean_row(f"{game.direction}_mrr", draws, pair, 1.0))
    return rows


def _mean_row(
    name: str, draws: Draws, pair: tuple[Floats, Floats], ceiling: float
) -> tuple[Metric, Floats]:
    """A mean over queries beside what a blind model gets."""
    values, blind = pair
    drawn = draws.mean(values)
    chance = float(blind.mean())
    bounds = {"chance": chance, "floor": chance, "ceiling": ceiling}
    spread = interval(drawn)
    return metric_of(name, values.mean(), spread, draws.num_patients, bounds=bounds), drawn


def _median_row(name: str, draws: Draws, found: Ranks, blind: Ranks) -> tuple[Metric, Floats]:
    """The median expected rank, 1 = best."""
    values = found.expected() + 1
    drawn = draws.median(values)
    chance = float(np.median(blind.expected() + 1))
    bounds = {"chance": chance, "floor": chance, "ceiling": 1.0}
    value = float(np.median(values))
    return metric_of(name, value, interval(drawn), draws.num_patients, bounds=bounds), drawn


def _permuted(
    game: _Game, protocol: Protocol, orders: NDArray[np.intp], num_patients: int
) -> list[Metric]:
    """Study-level R@K when every query asks for another one's pair."""
    broken = [game.ranks(order) for order in orders]
    metrics: list[Metric] = []
    for k in protocol.ks:
        values = np.array([places.credit(k).mean() for places in broken])
        bounds = {
            "chance": float(
                ranks(np.zeros_like(game.similarity), game.asked, game.offered).credit(k).mean()
            )
        }
        name = f"permuted_{game.direction}_r@{k}"
        spread = interval(values)
        metrics.append(metric_of(name, float(values.mean()), spread, num_patients, bounds=bounds))
    return metrics


def _spread(values: Floats, asked: Ints, embedded: Embeddings) -> Floats:
    """One value a study, NaN where it was no query."""
    out = np.full(len(embedded.study_ids), np.nan)
    out[asked] = values
    return out
