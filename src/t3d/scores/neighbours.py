"""Which volumes a volume finds: three measures that are all published as "MAP@K".

They differ in the pool, in what counts as relevant, and in the denominator; each difference is a
visible field of `NeighbourRules`. Legend: N volumes, Q queries, M pool, F findings, K length of
the list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.ratio import ratio
from t3d.scores.retrieval import exact_mean
from t3d.scores.similarity import RowSimilarity, Similarity

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]

_BLOCK_ELEMENTS = 2_000_000  # similarities held at once: 16 MB a working array


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourRules:
    """How a list of nearest volumes becomes a number."""

    name: str
    source: str
    ks: tuple[int, ...]
    queries: Literal["all", "labelled"]  # labelled = at least one finding
    pool: Literal["all", "labelled"]
    left_out: Literal["nobody", "self", "study", "patient"]  # of a query's pool
    relevance: Literal["jaccard", "same_labels", "shared_label"]
    value: Literal["mean", "ap"]  # of relevance over the list, or of precision at each hit
    ap_over: Literal["k", "positives"] = "k"  # positives: min(number of them, K)
    skip_without_positive: bool = False  # such queries are no queries
    running: bool = False  # the value at a K is the mean over this and all smaller ks
    self_at_end: bool = False  # left out candidates stand behind all others, and count
    ties: Literal["lowest_index", "expected"] = "expected"

    def __post_init__(self) -> None:
        problems = []
        if not self.ks or min(self.ks) < 1 or list(self.ks) != sorted(self.ks):
            problems.append(f"ks {self.ks} are not rising numbers above 0")
        if self.value == "ap" and self.relevance == "jaccard":
            problems.append("average precision of a graded relevance")
        if self.relevance == "jaccard" and self.pool == "all":
            problems.append("the Jaccard index of two volumes without findings is 0 / 0")
        if self.self_at_end and self.ties == "expected":
            problems.append("self_at_end repeats a published bug, which has no expected ties")
        if problems:
            raise ProtocolError(
                f"rules {self.name!r}: " + "; ".join(problems),
                expected="rules that fit together",
                fix="correct the fields named above",
            )


_CTCLIP = "ibrahimethemhamamci/CT-CLIP a2a155c, volume_to_volume_new.py"
CTCLIP_AS_RELEASED = NeighbourRules(
    name="ctclip_v2v_asreleased",
    source=_CTCLIP,
    ks=(1, 5, 10, 50),
    queries="all",
    pool="labelled",
    left_out="nobody",
    relevance="jaccard",
    value="mean",
    running=True,
    ties="lowest_index",
)
"""Finds itself first, and prints a mean over all smaller K."""

CTCLIP = NeighbourRules(
    name="ctclip_v2v",
    source=f"{_CTCLIP}; self and siblings left out, one number for each K: our choice",
    ks=(1, 5, 10, 50),
    queries="labelled",
    pool="labelled",
    left_out="study",
    relevance="jaccard",
    value="mean",
)

SPECTRE = NeighbourRules(
    name="spectre_v2v",
    source="cclaess/SPECTRE 9260676, retrieval_ct_rate.py (its sort is unstable; ours is not)",
    ks=(1, 5, 10, 50),
    queries="all",
    pool="all",
    left_out="self",
    relevance="same_labels",
    value="ap",
    ap_over="positives",
    skip_without_positive=True,
    ties="lowest_index",
)

RADFINDER = NeighbourRules(
    name="radfinder_v2v",
    source="lmb-freiburg/radfinder 7c6ab92, tasks/volume_retrieval_task.py",
    ks=(5, 10, 50),
    queries="labelled",
    pool="labelled",
    left_out="self",
    relevance="shared_label",
    value="ap",
    ties="lowest_index",
)

RADFINDER_AS_RELEASED = NeighbourRules(
    name="radfinder_v2v_asreleased",
    source="lmb-freiburg/radfinder 7c6ab92, tasks/volume_retrieval_task.py",
    ks=(5, 10, 50),
    queries="labelled",
    pool="labelled",
    left_out="self",
    relevance="shared_label",
    value="ap",
    self_at_end=True,
    ties="lowest_index",
)
"""With K above the number of others a volume finds itself at the end of its own list."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neighbours:
    """One value for each volume and K; resample with `Draws.mean` of a column."""

    ks: tuple[int, ...]
    values: Floats  # (N, len(ks)); NaN = is no query
    tied: Flags  # (N,) a tie inside or at the end of the list leaves its order open
    num_pool: int  # volumes a query could find, itself included

    @property
    def num_queries(self) -> int:
        """Volumes that have a value."""
        return int(np.isfinite(self.values[:, 0]).sum())

    def mean(self) -> tuple[float, ...]:
        """Mean over queries for each K; the order of volumes does not change a bit of it."""
        return tuple(exact_mean(column) for column in self.values.T)


def neighbours(
    similarity: Similarity,
    labels: ArrayLike,
    rules: NeighbourRules,
    *,
    siblings: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Neighbours:
    """Judge the nearest volumes of every volume.

    Average precision at K is the sum over hits in the list of the precision there, over K or
    over min(number of relevant ones, K). Under "expected" ties stand in every order with equal
    probability, and the expected value is given in closed form.
    Check: similarities of (1, 0), (.8, .6), (0, 1), (-1, 0), labels 110, 100, 000, 011, K = 1, 2,
    3: as released .75, .625, .546296; labelled, self left out, K = 1, 2: .333333, .277778.

    Args:
        similarity: (N, N), rows and columns the same volumes.
        labels: (N, F) 0 or 1.
        rules: What counts.
        siblings: (N,) equal = same study (or patient); needed where rules leave siblings out.
        names: (N,) distinct; tied volumes are listed by name, else by row. No difference under
            "expected".

    Returns:
        Values in the order of rows. Memory is eight blocks of 16 MB beside the similarity
        and what `take` copies of it.

    Raises:
        ProtocolError: Shapes do not fit, a label is neither 0 nor 1, siblings are not given, or
            there is no query.

    Source:
        Expected average precision under ties: McSherry and Najork, ECIR 2008.
    """
    table = _labels(labels, similarity.shape)
    by_sibling = rules.left_out in ("study", "patient")
    if by_sibling and siblings is None:
        raise ProtocolError(
            f"rules {rules.name!r} leave siblings out, but no siblings are given",
            expected="a study (or patient) for each volume",
            fix="pass `siblings`",
        )
    bars = np.asarray(siblings) if by_sibling else np.arange(len(table))
    order = np.arange(len(table)) if names is None else np.argsort(np.asarray(names), kind="stable")
    labelled: Flags = np.asarray(table.any(axis=1))
    queries = np.flatnonzero(labelled) if rules.queries == "labelled" else np.arange(len(table))
    pool = order[labelled[order]] if rules.pool == "labelled" else order
    values = np.full((len(table), len(rules.ks)), np.nan)
    tied = np.zeros(len(table), dtype=bool)
    taken = similarity.take(queries, pool)
    step = max(1, _BLOCK_ELEMENTS // max(1, len(pool)))
    for rows, _, scores in taken.tiles(step, max(1, len(pool))):
        mine = queries[rows]
        seen = np.ones(scores.shape, dtype=bool)
        if rules.left_out != "nobody":
            seen = bars[mine][:, None] != bars[pool][None, :]
        gain = _relevance(table[mine], table[pool], rules.relevance)
        values[mine], tied[mine] = _values(np.where(seen, scores, -np.inf), gain, rules)
    if not np.isfinite(values).any():
        raise ProtocolError(
            f"none of {len(table)} volumes is a query under {rules.name!r}",
            expected="volumes with findings, and others that share them",
            fix="check the labels",
        )
    return Neighbours(ks=rules.ks, values=values, tied=tied, num_pool=len(pool))


def blind_neighbours(
    labels: ArrayLike, rules: NeighbourRules, *, siblings: ArrayLike | None = None
) -> Neighbours:
    """What a model gets that finds all volumes equally near, ties as expected order.

    Args:
        labels: (N, F) 0 or 1.
        rules: What counts; a published tie rule is replaced by "expected".
        siblings: As for `neighbours`.

    Returns:
        Values in the order of rows: exactly chance. Where the rules keep a volume in its own
        pool this is chance for a list in random order; a model that gives equal volumes equal
        embeddings finds itself first, whatever else it knows.
    """
    num = len(np.asarray(labels))
    fair = replace(rules, ties="expected", self_at_end=False)
    nothing = np.zeros((num, 1))
    return neighbours(RowSimilarity.of(nothing, nothing), labels, fair, siblings=siblings)


class _List(NamedTuple):
    """The first K of each query's pool; positions of equal score form a group."""

    cols: Index  # (B, K) candidates
    start: Index  # (B, K) first position of the group
    inside: Index  # (B, K) members of the group among the K
    size: Index  # (B, K) members of the group in the whole pool
    level: Flags  # (B, M) candidates that tie with the last position


def _values(scores: Floats, gain: _Gains, rules: NeighbourRules) -> tuple[Floats, Flags]:
    """One value for each query and K, and whether a tie leaves the list open."""
    given = np.isfinite(scores)
    relevant = gain.amount if rules.self_at_end else np.where(given, gain.amount, 0)
    num = np.full(len(scores), scores.shape[1]) if rules.self_at_end else given.sum(axis=1)
    longest = min(max(rules.ks), scores.shape[1])
    listed = _listed(scores, longest)
    position = np.arange(longest)
    found = np.take_along_axis(relevant, listed.cols, axis=1)
    reached = np.pad(np.cumsum(found, axis=1), ((0, 0), (1, 0)))  # whole numbers: exact sums
    start, size, here = np.broadcast_to(position, found.shape), np.ones_like(found), found
    if rules.ties == "expected":
        start, size = listed.start, listed.size
        ends = np.take_along_axis(reached, start + listed.inside, axis=1)
        here = ends - np.take_along_axis(reached, start, axis=1)
        last = start + listed.inside == longest  # this group may go on below the list
        here = np.where(last, np.where(listed.level, relevant, 0).sum(axis=1)[:, None], here)
    share = here / gain.unit / size
    if rules.value == "ap":
        earlier = np.take_along_axis(reached, start, axis=1)
        among = (position - start) * (here - 1) / np.maximum(size - 1, 1)
        share *= (earlier + 1 + among) / (position + 1)
    total = np.cumsum(share, axis=1)
    positives = np.count_nonzero(relevant, axis=1)
    columns = [total[:, min(k, longest) - 1] / _over(k, num, positives, rules) for k in rules.ks]
    values = np.stack(columns, axis=1)
    if rules.skip_without_positive:
        values[positives == 0] = np.nan
    if rules.running:
        values = np.cumsum(values, axis=1) / np.arange(1, len(rules.ks) + 1)
    tied = (listed.size > 1) & (position < num[:, None])
    return values, np.asarray(tied.any(axis=1))


def _over(k: int, num: Index, positives: Index, rules: NeighbourRules) -> Index:
    """What the sum over the list is divided by; at least 1, the sum is 0 then."""
    if rules.value == "mean":
        return np.maximum(np.minimum(num, k), 1)
    if rules.ap_over == "positives":
        return np.maximum(np.minimum(positives, k), 1)
    return np.full_like(num, k)


def _listed(scores: Floats, longest: int) -> _List:
    """Sort the first `longest` of each row by score, ties by column."""
    at = scores.shape[1] - longest
    last = np.partition(scores, at, axis=1)[:, at, None]
    above, level = scores > last, scores == last
    room = longest - above.sum(axis=1, keepdims=True)
    num_level = level.sum(axis=1, keepdims=True)
    keep = above | level
    full = np.flatnonzero(num_level > room)  # more ties than places: the first ones stay
    keep[full] = above[full] | (level[full] & (np.cumsum(level[full], axis=1) <= room[full]))
    cols = (np.flatnonzero(keep) % scores.shape[1]).reshape(len(scores), longest)
    order = np.argsort(-np.take_along_axis(scores, cols, axis=1), axis=1, kind="stable")
    cols = np.take_along_axis(cols, order, axis=1)
    ordered = np.take_along_axis(scores, cols, axis=1)
    edge = np.ones((len(scores), 1), dtype=bool)
    changes = ordered[:, 1:] != ordered[:, :-1]
    position = np.arange(longest)
    start = np.maximum.accumulate(np.where(np.hstack((edge, changes)), position, 0), axis=1)
    ends = np.where(np.hstack((changes, edge)), position, longest)
    end = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    inside = end - start + 1
    size = np.where(ordered == last, num_level, inside)
    return _List(cols=cols, start=start, inside=inside, size=size, level=level)


class _Gains(NamedTuple):
    """Relevance in whole units, so that sums do not depend on their order."""

    amount: NDArray[np.int64]  # (B, M)
    unit: int  # worth 1


def _relevance(first: Flags, second: Flags, kind: str) -> _Gains:
    """Relevance of volumes (M, F) for volumes (B, F)."""
    one, two = first.astype(np.float64), second.astype(np.float64)
    common = one @ two.T
    sizes = one.sum(axis=1)[:, None], two.sum(axis=1)[None, :]
    if kind == "jaccard":
        # exact while all unions divide the unit (up to 31 findings), else off by 3e-14
        unit = min(math.lcm(*range(1, first.shape[1] + 1)), 1 << 44)
        index = ratio(common, sizes[0] + sizes[1] - common, empty=0.0)
        return _Gains(amount=np.rint(index * unit).astype(np.int64), unit=unit)
    if kind == "same_labels":
        return _Gains(amount=((common == sizes[0]) & (common == sizes[1])).astype(np.int64), unit=1)
    return _Gains(amount=(common > 0).astype(np.int64), unit=1)


def _labels(labels: ArrayLike, shape: tuple[int, int]) -> Flags:
    """Labels as bool, after a look at values and shape."""
    table = np.asarray(labels)
    if table.ndim != 2 or shape != (len(table), len(table)):
        raise ProtocolError(
            f"labels of shape {table.shape} beside similarities {shape}",
            expected="(N, F) beside (N, N)",
            fix="pass one row of labels for each volume",
        )
    if not np.isin(table, (0, 1)).all():
        raise ProtocolError(
            f"labels hold {sorted(set(np.unique(table).tolist()) - {0, 1})}",
            expected="0 or 1",
            fix="leave volumes that do not state a finding out, and count them",
        )
    return table.astype(bool)
