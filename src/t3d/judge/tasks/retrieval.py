"""Retrieval both ways: the image of a report, and the report of an image.

Legend: Q queries, M candidates, K length of the list, D features.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.embeddings import (
    Embeddings,
    JudgedModel,
    Rows,
    embed_split,
    rows_of_volumes,
    unit_rows,
    words_of,
)
from t3d.judge.external import bare_id
from t3d.judge.outcome import Outcome, StudyTable, draws_of, metric_of, provenance
from t3d.judge.results import finish
from t3d.scores.bootstrap import Draws, interval, permutations
from t3d.scores.retrieval import (
    TIED_LIMIT,
    Pairing,
    Ranks,
    TieRule,
    blind_ranks,
    median_rank,
    rank_all,
)
from t3d.scores.similarity import RowSimilarity
from t3d.types import Metric, Report, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol, Retrieval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_PERMUTED = 2_000_000_000  # similarities looked at to break pairs; more: fewer permutations

_MARKS = str.maketrans("", "", "\"'()")
_IMPRESSION = re.compile(r"[Ii]mpressions?")


def _joined(report: Report) -> str:
    """CT-CLIP's text."""
    return f"{report.findings}{report.impression}".translate(_MARKS)


def _two_lines(report: Report) -> str:
    """RadFinder's text."""
    return f"Findings: {_IMPRESSION.sub('', report.findings)}\nImpressions: {report.impression}\n"


Wording = Callable[[Report], "str | Report"]
WORDINGS: Mapping[str, Wording] = {
    "as the model reads a report": lambda report: report,
    "findings and impressions as the model reads a report": lambda report: report,
    "findings and impressions joined without a space, quotes and brackets removed": _joined,
    "'Findings: ...' and 'Impressions: ...' on two lines": _two_lines,
    "findings only; of studies with the same findings the first stays": lambda report: replace(
        report, impression=""
    ),
}
"""How a report becomes what a model embeds, by the words of a protocol's `text`.

A text goes through `embed_text`, a report through `embed_reports`."""
FIRST_OF_SAME = "findings only; of studies with the same findings the first stays"


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    test: str = "test",
    lists: Mapping[str, Collection[str]] | None = None,
    out: Path | None = None,
) -> Result:
    """Judge a model by finding the other half of a pair.

    Args:
        model: Embeds studies (for pools of volumes: volumes) and reports.
        cohort: With reports.
        protocol: Rules.
        test: Split that is scored; the pool is made of it.
        lists: Lists that the protocol needs, by name: ids of volumes or studies, endings of files
            are left out.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result; metrics as `measure` names them.

    Raises:
        ProtocolError: The split is empty or holds fewer than two reports, an embedding cannot be
            used, or a list or a row a volume is missing.
    """
    embedded = embed_pairs(model, cohort, protocol, split=test, lists=lists)
    return finish(measure(cohort, protocol, embedded=embedded, split=test), out)


def embed_pairs(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    split: str = "test",
    lists: Mapping[str, Collection[str]] | None = None,
) -> Embeddings:
    """Embed the pool of a protocol and its reports, worded as the protocol does.

    Args:
        model: As for `run`.
        cohort: With reports.
        protocol: Rules.
        split: Its name.
        lists: As for `run`.

    Returns:
        The embeddings; of unit length unless the protocol takes dot products.

    Raises:
        ProtocolError: As `run`.
    """
    rules = protocol.pairs
    given = lists or {}
    protocol.needs_lists(given)
    embedded = embed_split(model, cohort, split, volumes=rules.pool == "volume")
    if rules.similarity == "dot":
        embedded = replace(embedded, image=_raw_images(model, cohort, embedded))
    wording = _wording(rules)
    plain = wording is WORDINGS["as the model reads a report"]
    if not plain or rules.similarity == "dot":
        embedded = replace(embedded, text=_texts(model, cohort, embedded, rules, wording))
    gone = (
        {bare_id(name) for name in given.get("no_chest", ())}
        if "no_chest" in rules.needs
        else set()
    )
    volumes = {s.study_id: s.volume_ids for s in cohort.studies(split)}
    seen: set[str] = set()
    kept = []
    for i, study in enumerate(embedded.study_ids):
        report = cohort.report(study)
        words = "" if report is None else words_of(replace(report, impression=""))
        repeated = rules.text == FIRST_OF_SAME and words in seen
        if not repeated and gone.isdisjoint({study, *volumes[study]}):
            seen.add(words)
            kept.append(i)
    return _taken(embedded, kept)


def measure(
    cohort: Cohort, protocol: Protocol, *, embedded: Embeddings, split: str = "test"
) -> Outcome:
    """Judge embeddings that were made before.

    Metrics by name, for each direction DIR of the protocol: `DIR_r@K`; where studies with the same
    report and siblings are credited also `DIR_r@K_strict` (only the own row is right), where only
    the own row is credited also `DIR_r@K_study`; `DIR_medr` (1 = best: median expected rank, or
    RadFinder's with `DIR_meanr`), `DIR_mrr`, and `permuted_DIR_r@K` (pairs broken). Where the
    protocol breaks ties by index, rows are in the order of their ids.

    Args:
        cohort: They are of it.
        protocol: Rules.
        embedded: From `embed_pairs`, or `embed_split` where the protocol reads reports as the
            model does.
        split: Its name.

    Returns:
        The outcome; columns `rank:DIR` hold ranks under the protocol's tie rule, 1 = best.

    Raises:
        ProtocolError: Fewer than two studies have a report, or rows are studies where the
            protocol wants volumes.
    """
    rules = protocol.pairs
    given = len(embedded.study_ids)
    embedded = _pool(cohort, embedded, rules, split)
    asked = np.flatnonzero(embedded.has_report)
    if len(asked) < 2:
        raise ProtocolError(
            f"{len(asked)} of {given} studies have a report",
            expected="at least two",
            fix="evaluate retrieval on a split with reports",
        )
    ids = [embedded.patient_ids[i] for i in asked]
    draws = draws_of(ids, protocol.intervals)
    size = len(asked) * len(embedded.study_ids)
    num = max(1, min(protocol.num_permutations, MAX_PERMUTED // size))
    orders = permutations(ids, num=num, seed=protocol.seed)
    sheet = _Sheet(protocol=protocol, draws=draws, embedded=embedded, asked=asked)
    for direction in rules.directions:
        sheet.add(_game(embedded, asked, direction, decimals=protocol.score_decimals), orders)
    if num < protocol.num_permutations:
        sheet.counts["permutations"] = num
    result = Result(
        task="retrieval",
        protocol=protocol.name,
        metrics=tuple(sheet.metrics),
        counts=sheet.counts,
        excluded={"no report": len(embedded.study_ids) - len(asked)},
        provenance=provenance(cohort, protocol, test=split),
    )
    table = StudyTable(
        study_ids=embedded.volume_ids or embedded.study_ids,
        patient_ids=embedded.patient_ids,
        columns=sheet.columns,
    )
    return Outcome(result=result, table=table, draws=sheet.drawn)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Game:
    """Queries, candidates, and which of them belong together."""

    direction: str
    similarity: RowSimilarity  # (Q, M)
    asked: Ints  # (Q,) group each query asks for: identical reports and siblings share one
    offered: Ints  # (M,)
    own: Ints  # (Q,) column of the query's own row

    def study(self, order: NDArray[np.intp] | None = None) -> Pairing:
        """Identical reports and siblings are right; `order` hands a query another one's pair."""
        asked = self.asked if order is None else self.asked[order]
        return Pairing(queries=asked, candidates=self.offered)

    def strict(self, order: NDArray[np.intp] | None = None) -> Pairing:
        """Only the own row is right."""
        own = self.own if order is None else self.own[order]
        return Pairing(queries=own, candidates=np.arange(self.similarity.shape[1]))

    def perfect(self, k: int) -> Floats:
        """(Q,) strict credit of a model that tells everything apart but one group."""
        size = np.bincount(self.offered[self.offered >= 0], minlength=int(self.asked.max()) + 1)
        return np.asarray(np.minimum(1.0, k / size[self.asked]))


def _game(embedded: Embeddings, asked: Ints, direction: str, *, decimals: int | None) -> _Game:
    """Set up one direction; a report has all rows of the pool as its candidates."""
    # a study without a report has group -1, which no query asks for
    groups = np.asarray(embedded.report_ids, dtype=np.int64)
    forward = direction == "t2i"
    first, second = embedded.text[asked], embedded.image
    if not forward:
        first, second = embedded.image[asked], embedded.text[asked]
    return _Game(
        direction=direction,
        similarity=RowSimilarity.of(first, second, decimals=decimals),
        asked=groups[asked],
        offered=groups if forward else groups[asked],
        own=asked if forward else np.arange(len(asked)),
    )


class _Sheet:
    """What one run collects."""

    def __init__(
        self, *, protocol: Protocol, draws: Draws, embedded: Embeddings, asked: Ints
    ) -> None:
        self.protocol = protocol
        self.draws = draws
        self.embedded = embedded
        self.asked = asked
        self.metrics: list[Metric] = []
        self.drawn: dict[str, Floats] = {}
        self.columns: dict[str, Floats] = {}
        self.counts: dict[str, int] = {
            "studies": len(set(embedded.study_ids)),
            "queries": len(asked),
        }
        if embedded.volume_ids:
            self.counts["volumes"] = len(embedded.volume_ids)
        rules = protocol.pairs
        self.ties: TieRule = "lowest_index" if rules.ties == "lowest_index" else "expected"

    def add(self, game: _Game, orders: NDArray[np.intp]) -> None:
        """Note all numbers of a direction."""
        rules, name = self.protocol.pairs, game.direction
        by_study = rules.credit == "study"
        main, beside = game.study, game.strict
        if not by_study:
            main, beside = beside, main
        broken = [main(order) for order in orders]
        found, other, *permuted = rank_all(game.similarity, [main(), beside(), *broken])
        chance, blind = blind_ranks(main()), blind_ranks(beside())
        for k in rules.ks:
            top = 1.0 if by_study else float(game.perfect(k).mean())
            self._mean(f"{name}_r@{k}", found.credit(k, ties=self.ties), chance.credit(k), top)
        for k in rules.ks:
            top = float(game.perfect(k).mean()) if by_study else 1.0
            kind = "strict" if by_study else "study"
            self._mean(
                f"{name}_r@{k}_{kind}", other.credit(k, ties=self.ties), blind.credit(k), top
            )
        self._median(f"{name}_medr", found, chance)
        if rules.median != "none":
            self._mean(f"{name}_mrr", found.reciprocal(), chance.reciprocal(), 1.0)
        for k in rules.ks:
            values = np.array([ranks.credit(k, ties=self.ties).mean() for ranks in permuted])
            bounds = {"chance": float(chance.credit(k).mean())}
            self._note(f"permuted_{name}_r@{k}", values.mean(), values, bounds, keep=False)
        self._count(game, found)

    def _count(self, game: _Game, found: Ranks) -> None:
        """Note candidates, ties and ranks."""
        name = game.direction
        self.counts[f"candidates:{name}"] = game.similarity.shape[1]
        self.counts[f"tied_queries:{name}"] = int((found.tied > found.right).sum())
        if self.ties != "expected" and found.tied_share() > TIED_LIMIT:
            self.counts[f"depends_on_tie_rule:{name}"] = 1
        out = np.full(len(self.embedded.study_ids), np.nan)
        out[self.asked] = found.place(self.ties) + 1
        self.columns[f"rank:{name}"] = out

    def _mean(self, name: str, values: Floats, blind: Floats, ceiling: float) -> None:
        """A mean over queries beside what a blind model gets."""
        chance = float(blind.mean())
        bounds = {"chance": chance, "floor": chance, "ceiling": ceiling}
        self._note(name, values.mean(), self.draws.mean(values), bounds)

    def _median(self, name: str, found: Ranks, blind: Ranks) -> None:
        """The median rank, 1 = best; RadFinder's is rounded down and has the mean rank beside."""
        kind = self.protocol.pairs.median
        if kind == "none":
            return
        if kind == "expected_rank":
            values = found.expected() + 1
            chance = float(np.median(blind.expected() + 1))
            bounds = {"chance": chance, "floor": chance, "ceiling": 1.0}
            self._note(name, float(np.median(values)), self.draws.median(values), bounds)
            return
        places, level = found.place(self.ties), blind.expected()
        chance = median_rank(level)
        bounds = {"chance": chance, "floor": chance, "ceiling": 1.0}
        drawn = np.floor(self.draws.median(places)) + 1  # of two middle ranks the mean: as released
        self._note(name, median_rank(places), drawn, bounds)
        self._mean(name.replace("medr", "meanr"), places + 1, level + 1, 1.0)

    def _note(
        self,
        name: str,
        value: float,
        drawn: Floats,
        bounds: Mapping[str, float],
        *,
        keep: bool = True,
    ) -> None:
        """Add a metric."""
        rules = self.protocol.intervals
        spread = interval(drawn, rule=rules.percentiles)
        num = self.draws.num_patients
        unit = "queries" if rules.resample == "rows" else "patients"
        self.metrics.append(metric_of(name, float(value), spread, num, bounds=bounds, unit=unit))
        if keep:
            self.drawn[name] = drawn


def _pool(cohort: Cohort, embedded: Embeddings, rules: Retrieval, split: str) -> Embeddings:
    """Rows of the pool, in the order of their ids."""
    names = embedded.volume_ids or embedded.study_ids
    order = embedded.order or (0,) * len(names)
    rows = sorted(range(len(names)), key=lambda i: (embedded.study_ids[i], order[i], names[i]))
    if rules.pool != "volume":
        first: dict[str, int] = {}
        for row in rows:
            first.setdefault(embedded.study_ids[row], row)
        rows = list(first.values())
    elif not embedded.volume_ids and any(len(s.volume_ids) > 1 for s in cohort.studies(split)):
        raise ProtocolError(
            "embeddings of studies for a pool of volumes",
            expected="a row for every reconstruction",
            fix="give the model `embed_volumes` or `embed_volume`, or name another protocol",
        )
    return _taken(embedded, rows, volumes=rules.pool == "volume")


def _taken(embedded: Embeddings, rows: Sequence[int], *, volumes: bool = True) -> Embeddings:
    """Some rows, in the order given."""
    named = bool(embedded.volume_ids) and volumes
    return Embeddings(
        study_ids=tuple(embedded.study_ids[i] for i in rows),
        patient_ids=tuple(embedded.patient_ids[i] for i in rows),
        image=embedded.image[list(rows)],
        text=embedded.text[list(rows)],
        report_ids=tuple(embedded.report_ids[i] for i in rows),
        volume_ids=tuple(embedded.volume_ids[i] for i in rows) if named else (),
        order=tuple(embedded.order[i] for i in rows) if named else (),
    )


def _wording(rules: Retrieval) -> Wording:
    """How the protocol words a report."""
    if rules.text not in WORDINGS:
        raise ProtocolError(
            f"text {rules.text!r} has no wording",
            expected="; ".join(WORDINGS),
            fix="name one of them, or add it to WORDINGS",
        )
    return WORDINGS[rules.text]


def _texts(
    model: JudgedModel, cohort: Cohort, embedded: Embeddings, rules: Retrieval, wording: Wording
) -> Rows:
    """Embeddings of the reports as the protocol words them; NaN = no report."""
    studies = list(dict.fromkeys(s for s, has in _with_report(embedded) if has))
    told = [wording(report) for s in studies if (report := cohort.report(s)) is not None]
    texts = [t for t in told if isinstance(t, str)]
    reports = [t for t in told if isinstance(t, Report)]
    rows = np.asarray(model.embed_text(texts) if texts else model.embed_reports(reports))
    unit = unit_rows(rows, studies, what="report")  # looks at them, whatever is compared
    rows = unit if rules.similarity == "cosine" else rows.astype(np.float32)
    place = {study: i for i, study in enumerate(studies)}
    out = np.full_like(embedded.text, np.nan)
    for row, (study, has) in zip(out, _with_report(embedded), strict=True):
        if has:
            row[:] = rows[place[study]]
    return out


def _with_report(embedded: Embeddings) -> list[tuple[str, bool]]:
    """Study of each row, and whether it has a report."""
    return list(zip(embedded.study_ids, embedded.has_report.tolist(), strict=True))


def _raw_images(model: JudgedModel, cohort: Cohort, embedded: Embeddings) -> Rows:
    """Images as the model gives them, of any length."""
    raw = rows_of_volumes(model, cohort, list(embedded.volume_ids)) if embedded.volume_ids else None
    if raw is None:
        raw = model.embed_studies(cohort, list(embedded.study_ids))
    return np.asarray(raw, dtype=np.float32)
