"""Volume to volume: do the scans nearest to a scan show the same findings?

Three published measures and ours; the words "MAP@K" stand for all four. Rows are volumes where the
protocol's retrieval is of volumes or where it has none, else first reconstructions.
Legend: N rows, F findings, K length of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.data.classes import class_list
from t3d.judge.embeddings import Embeddings, JudgedModel, embed_split
from t3d.judge.outcome import Outcome, StudyTable, draws_of, metric_of, provenance
from t3d.judge.results import finish
from t3d.judge.truth import Truth, truth_of
from t3d.scores.bootstrap import interval
from t3d.scores.neighbours import NeighbourRules, blind_neighbours, neighbours
from t3d.scores.ratio import ratio
from t3d.scores.retrieval import exact_mean
from t3d.scores.similarity import RowSimilarity, Similarity, TableSimilarity
from t3d.text.findings import CT_RATE_18
from t3d.types import Metric, Result

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol

Floats = NDArray[np.float64]

NUM_RANDOM = 10  # random embeddings that the floor is the mean of
RANDOM_DIM = 32
MAX_TABLE = 8192  # rows up to which floor and ceiling are computed


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    test: str = "test",
    findings: Sequence[str] | None = None,
    out: Path | None = None,
) -> Result:
    """Judge a model by the labels of the nearest other scans; see `measure`.

    Args:
        model: Embeds studies, and volumes where the protocol counts them.
        cohort: With labels.
        protocol: Rules.
        test: Split that is scored; it is its own pool.
        findings: Columns that labels are compared in; None = those the protocol scores.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result.

    Raises:
        ProtocolError: As `measure`, or an embedding cannot be used.
    """
    volumes = by_volume(protocol)
    embedded = embed_split(model, cohort, test, volumes=volumes)
    outcome = measure(cohort, protocol, embedded=embedded, split=test, findings=findings)
    return finish(outcome, out)


def by_volume(protocol: Protocol) -> bool:
    """Say whether every reconstruction is a row."""
    return protocol.retrieval is None or protocol.retrieval.pool == "volume"


def measure(
    cohort: Cohort,
    protocol: Protocol,
    *,
    embedded: Embeddings,
    split: str = "test",
    findings: Sequence[str] | None = None,
) -> Outcome:
    """Judge embeddings that were made before.

    Metrics by name: `v2v_map@K`, the value of the protocol's rule. Where a volume is either
    relevant or not and the rule is average precision also `v2v_precision@K` and `v2v_recall@K`
    (share of all relevant volumes that are among the first K). `chance` is a list in random
    order, `floor` random embeddings (which find themselves where the rule leaves them in),
    `ceiling` a model that knows the labels; the last two up to 8,192 rows.

    Args:
        cohort: They are of it.
        protocol: Rules.
        embedded: From `embed_split`, rows as `by_volume` says.
        split: Its name.
        findings: As for `run`.

    Returns:
        The outcome; columns `v2v_map@K`.

    Raises:
        ProtocolError: The protocol has no rules for it, no row states all findings, or no row is
            a query.
    """
    rules: NeighbourRules = protocol.part("neighbours")
    asked = tuple(findings) if findings is not None else _scored(protocol)
    truth = truth_of(cohort, split, asked)
    rows, taken, excluded = _rows(embedded, truth, volumes=by_volume(protocol))
    labels = np.asarray(truth.labels[taken], dtype=np.int64)
    names = [(embedded.volume_ids or embedded.study_ids)[i] for i in rows]
    patients = [embedded.patient_ids[i] for i in rows]
    siblings = patients if rules.left_out == "patient" else [embedded.study_ids[i] for i in rows]
    image = embedded.image[rows]
    game = _Game(rules=rules, labels=labels, siblings=siblings, names=names)
    found = game.values(RowSimilarity.of(image, image, decimals=protocol.score_decimals))
    known = np.isfinite(next(iter(found.values())))
    draws = draws_of([p for p, k in zip(patients, known, strict=True) if k], protocol.intervals)
    bounds = game.bounds(seed=protocol.seed)
    metrics: list[Metric] = []
    drawn: dict[str, Floats] = {}
    for name, values in found.items():
        drawn[name] = draws.mean(values[known])
        spread = interval(drawn[name], rule=protocol.intervals.percentiles)
        value = exact_mean(values)
        metrics.append(metric_of(name, value, spread, draws.num_patients, bounds=bounds[name]))
    result = Result(
        task="neighbours",
        protocol=protocol.name,
        metrics=tuple(metrics),
        counts={
            "rows": len(rows),
            "queries": int(known.sum()),
            "pool": game.num_pool,
            "findings": len(asked),
        },
        excluded=excluded,
        provenance=provenance(cohort, protocol, test=split),
    )
    columns = {name: values for name, values in found.items() if name.startswith("v2v_map")}
    table = StudyTable(study_ids=tuple(names), patient_ids=tuple(patients), columns=columns)
    return Outcome(result=result, table=table, draws=drawn)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Game:
    """Rows, their labels and who is left out for whom."""

    rules: NeighbourRules
    labels: NDArray[np.int64]  # (N, F) 0 or 1
    siblings: Sequence[str]  # (N,)
    names: Sequence[str]  # (N,)

    @property
    def num_pool(self) -> int:
        """Rows that somebody could find."""
        pool = self.labels.any(axis=1) if self.rules.pool == "labelled" else self.labels[:, 0] >= 0
        return int(pool.sum())

    @property
    def binary(self) -> bool:
        """Whether precision and recall mean anything."""
        return self.rules.value == "ap"

    def values(self, similarity: Similarity) -> dict[str, Floats]:
        """Every measure of every row; NaN = is no query."""
        found = self._run(similarity, self.rules)
        out = {f"v2v_map@{k}": found[k] for k in self.rules.ks}
        if self.binary:
            shares = self._run(similarity, self._precision)
            out |= self._shares(shares)
        return out

    def bounds(self, *, seed: int) -> dict[str, dict[str, float]]:
        """Chance, floor and ceiling of every measure."""
        blind = self._blind(self.rules)
        chance = {f"v2v_map@{k}": blind[k] for k in self.rules.ks}
        if self.binary:
            chance |= self._shares(self._blind(self._precision))
        bounds = {name: {"chance": exact_mean(values)} for name, values in chance.items()}
        if len(self.labels) > MAX_TABLE:
            return bounds
        rng = np.random.default_rng(seed)
        guessed = []
        for _ in range(NUM_RANDOM):
            rows = rng.standard_normal((len(self.labels), RANDOM_DIM))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            guessed.append(self.values(RowSimilarity.of(rows, rows)))
        best = self.values(TableSimilarity.of(_alike(self.labels)))
        for name, told in bounds.items():
            told["floor"] = float(np.mean([exact_mean(guess[name]) for guess in guessed]))
            told["ceiling"] = exact_mean(best[name])
        return bounds

    @property
    def _precision(self) -> NeighbourRules:
        """The same lists, judged by the share of relevant volumes in them."""
        return replace(self.rules, value="mean", self_at_end=False)

    def _run(self, similarity: Similarity, rules: NeighbourRules) -> dict[int, Floats]:
        """Values of a rule by K."""
        found = neighbours(
            similarity, self.labels, rules, siblings=np.asarray(self.siblings), names=self.names
        )
        return dict(zip(rules.ks, found.values.T, strict=True))

    def _blind(self, rules: NeighbourRules) -> dict[int, Floats]:
        """Values of a list in random order by K."""
        found = blind_neighbours(self.labels, rules, siblings=np.asarray(self.siblings))
        return dict(zip(rules.ks, found.values.T, strict=True))

    def _shares(self, precision: Mapping[int, Floats]) -> dict[str, Floats]:
        """Precision and recall: a list in random order has as many relevant ones as its pool."""
        num = self._num_offered()
        k_one = self.rules.ks[0]
        relevant = np.rint(self._blind(self._precision)[k_one] * num)
        out = {f"v2v_precision@{k}": values for k, values in precision.items()}
        for k, values in precision.items():
            out[f"v2v_recall@{k}"] = ratio(values * np.minimum(num, k), relevant)
        return out

    def _num_offered(self) -> NDArray[np.int64]:
        """(N,) rows each query could find."""
        pool = np.ones(len(self.labels), dtype=np.int64)
        if self.rules.pool == "labelled":
            pool = self.labels.max(axis=1, initial=0)
        if self.rules.left_out == "nobody":
            return np.full_like(pool, pool.sum())
        if self.rules.left_out == "self":
            return np.asarray(pool.sum() - pool)
        _, group = np.unique(np.asarray(self.siblings), return_inverse=True)
        held = np.zeros(int(group.max(initial=0)) + 1, dtype=np.int64)
        np.add.at(held, group, pool)
        return np.asarray(pool.sum() - held[group])


def _scored(protocol: Protocol) -> tuple[str, ...]:
    """Findings that labels are compared in."""
    rules = protocol.classification
    return class_list(rules.scored) if rules is not None and rules.scored else CT_RATE_18


def _rows(
    embedded: Embeddings, truth: Truth, *, volumes: bool
) -> tuple[list[int], list[int], dict[str, int]]:
    """Rows in the order of their ids that state every finding, and their rows of the truth."""
    if volumes and not embedded.volume_ids and any(len(v) > 1 for v in truth.volumes):
        raise ProtocolError(
            "embeddings of studies for a protocol of volumes",
            expected="a row for every reconstruction",
            fix="give the model `embed_volumes` or `embed_volume`, or name another protocol",
        )
    names = embedded.volume_ids or embedded.study_ids
    order = embedded.order or (0,) * len(names)
    place = {study: i for i, study in enumerate(truth.study_ids)}
    stated = truth.labels.min(axis=1, initial=1) >= 0
    rows: list[int] = []
    seen: set[str] = set()
    silent = 0
    for i in sorted(range(len(names)), key=lambda i: (embedded.study_ids[i], order[i], names[i])):
        study = embedded.study_ids[i]
        if not volumes and study in seen:
            continue
        seen.add(study)
        if stated[place[study]]:
            rows.append(i)
        else:
            silent += 1
    if not rows:
        raise ProtocolError(
            f"none of {silent} rows states all {len(truth.findings)} findings",
            expected="rows with 0 or 1 for every finding",
            fix="name the findings that the labels state",
        )
    taken = [place[embedded.study_ids[i]] for i in rows]
    return rows, taken, {"a finding is not stated": silent} if silent else {}


def _alike(labels: NDArray[np.int64]) -> Floats:
    """(N, N) Jaccard index of labels; two rows without findings are alike."""
    given = labels.astype(np.float64)
    common, size = given @ given.T, given.sum(axis=1)
    return ratio(common, size[:, None] + size[None, :] - common, empty=1.0)
