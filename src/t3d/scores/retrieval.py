"""Where the right answer lands: ranks with ties as expected rank, and what is made of them.

A query may have several right candidates (identical reports, sibling reconstructions); it is
found when any of them is. Tied candidates stand in every order with equal probability, so a
constant similarity gets exactly chance; the tie rules of published code stand beside.
Legend: Q queries, M candidates, K length of the list.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.similarity import Similarity, TableSimilarity, pieces, shared

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]
TieRule = Literal["expected", "lowest_index", "optimistic", "pessimistic", "mid"]

TIED_LIMIT = 0.001  # share of tied queries above which a result is flagged (our choice)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranks:
    """Where each query's best right candidate stands."""

    above: Ints  # (Q,) candidates that score higher
    tied: Ints  # (Q,) candidates with the same score, itself included
    right: Ints  # (Q,) right ones among the tied
    before: Ints  # (Q,) tied ones of a lower index than the first right one: a stable sort's view

    def credit(self, k: int, *, ties: TieRule = "expected") -> Floats:
        """Probability that a right candidate is among the first k.

        With one right candidate it is the share of the tied places inside the first k.
        Check: similarity ((.9, .2, .1), (.5, .5, .4), (.3, .6, .2)), right = own index,
        k = 1 -> (1, .5, 0).

        Args:
            k: Length of the list.
            ties: "expected", or 0 and 1 by one of the places of `place`.

        Returns:
            (Q,) between 0 and 1; the mean is R@k.

        Source:
            Expected-rank rule: our choice. "lowest_index": CT-CLIP's stable sort.
        """
        if ties != "expected":
            return (self.place(ties) < k).astype(np.float64)
        room = np.clip(k - self.above, 0, self.tied)
        missed = _share_without(self.right, room, self.tied)
        # the plain share where it is exact, so that ranks without ties give 0 or 1
        credit: Floats = np.where(self.right == 1, room / self.tied, 1.0 - missed)
        return credit

    def place(self, ties: TieRule = "expected") -> Floats:
        """Rank of the first right candidate, counted from 0, under a tie rule.

        Check: in the example of `credit` optimistic (0, 0, 2), pessimistic (0, 1, 2), mid
        (0, .5, 2).

        Args:
            ties: "expected"; "lowest_index" (a stable sort: depends on the order of
                candidates); "optimistic" (before all ties), "pessimistic" (after all wrong
                ties), "mid" (halfway between these two).

        Returns:
            (Q,).
        """
        wrong = self.tied - self.right
        behind: Mapping[TieRule, Floats | Ints] = {
            "expected": wrong / (self.right + 1.0),
            "lowest_index": self.before,
            "optimistic": np.zeros_like(wrong),
            "pessimistic": wrong,
            "mid": wrong / 2.0,
        }
        return np.asarray(self.above + behind[ties], dtype=np.float64)

    def expected(self) -> Floats:
        """Expected rank of the first right candidate, counted from 0.

        Returns:
            (Q,): above + (tied - right) / (right + 1); with one right candidate the middle
            of its ties.
        """
        return self.place("expected")

    def reciprocal(self) -> Floats:
        """Expected 1 / rank of the first right candidate, counted from 1.

        Check: one right among two tied in front -> (1 + 1/2) / 2 = .75.

        Returns:
            (Q,) between 0 and 1; the mean is MRR.
        """
        kinds = np.stack((self.tied - self.right, self.tied, self.right, self.above), axis=1)
        kinds, which = np.unique(kinds, axis=0, return_inverse=True)
        wrong, tied, right, above = kinds.T
        out = np.zeros(len(kinds))
        before = np.ones(len(kinds))  # probability that all places so far hold wrong ones
        for place in range(int(wrong.max(initial=-1)) + 1):
            some = slice(np.searchsorted(wrong, place), None)  # sorted by `wrong`
            left = tied[some] - place
            out[some] += before[some] * right[some] / left / (above[some] + place + 1.0)
            before[some] *= (wrong[some] - place) / left
        return out[which.ravel()]

    def tied_share(self) -> float:
        """Share of queries whose rank a tie with a wrong candidate leaves open.

        Returns:
            Between 0 and 1; above `TIED_LIMIT` a result depends on its tie rule.
        """
        return float(np.count_nonzero(self.tied > self.right) / len(self.tied))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairing:
    """What is right for whom, and what is left out of a query's pool."""

    queries: ArrayLike  # (Q,) what each query asks for
    candidates: ArrayLike  # (M,) what each candidate is; right = equal
    query_bars: ArrayLike | None = None  # (Q,) e.g. the patient: a wrong candidate with the
    candidate_bars: ArrayLike | None = None  # (M,) same bar is out of this query's pool
    asked: ArrayLike | None = None  # (Q,) True = is a query; None = all are
    backward: bool = False  # queries are the columns of the similarity, candidates its rows


def ranks(
    similarity: ArrayLike,
    query_groups: ArrayLike,
    candidate_groups: ArrayLike,
    *,
    query_bars: ArrayLike | None = None,
    candidate_bars: ArrayLike | None = None,
) -> Ranks:
    """Rank candidates for each query.

    Args:
        similarity: (Q, M) finite.
        query_groups: (Q,) what each query asks for.
        candidate_groups: (M,) what each candidate is; right = equal group. Unique groups
            give the strict number, a group a report or a study the study-level one.
        query_bars: (Q,) e.g. patients: wrong candidates with the query's bar are left out.
        candidate_bars: (M,).

    Returns:
        The ranks.

    Raises:
        ProtocolError: Shapes do not fit, a similarity is not finite, or a query has no
            right candidate.
    """
    pairing = Pairing(
        queries=query_groups,
        candidates=candidate_groups,
        query_bars=query_bars,
        candidate_bars=candidate_bars,
    )
    return rank_all(TableSimilarity.of(similarity), [pairing])[0]


def rank_all(similarity: Similarity, pairings: Sequence[Pairing]) -> list[Ranks]:
    """Rank candidates under several pairings, both directions, in one pass of bounded memory.

    Args:
        similarity: (Q, M); `RowSimilarity.of(text, image, decimals=6)` for embeddings.
        pairings: E.g. study-level and strict, forward and backward.

    Returns:
        Ranks for each pairing, one entry for each row that is asked, in order.

    Raises:
        ProtocolError: Shapes do not fit, or an asked row has no right candidate.
    """
    tallies = [_Tally.of(similarity, pairing) for pairing in pairings]
    for rows, cols, tile in pieces(similarity):
        for tally in tallies:
            tally.add(rows, cols, tile)
    return [tally.ranks(similarity) for tally in tallies]


def blind_ranks(pairing: Pairing) -> Ranks:
    """Ranks of a model that gives every candidate the same score.

    Check: 300 candidates, one right: credit(10) = 1 - C(299, 10) / C(300, 10) = 10 / 300.

    Args:
        pairing: As for `rank_all`; `backward` makes no difference.

    Returns:
        Ranks for each asked row: their credit, place and reciprocal are chance.

    Raises:
        ProtocolError: An asked row has no right candidate.
    """
    asked, offered = np.asarray(pairing.queries), np.asarray(pairing.candidates)
    right, barred = np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=np.int64)
    first = np.full(len(asked), len(offered))
    for rows, cols in shared(asked, offered):
        right += np.bincount(rows.ravel(), minlength=len(asked)) * cols.shape[1]
        np.minimum.at(first, rows, cols.min(axis=1, keepdims=True))
    before = first.copy()
    for rows, cols in _pairs(pairing.query_bars, pairing.candidate_bars):
        wrong = asked[rows][:, :, None] != offered[cols][:, None, :]
        np.add.at(barred, rows, wrong.sum(axis=2))
        lower = cols[:, None, :] < first[rows][:, :, None]
        np.subtract.at(before, rows, (wrong & lower).sum(axis=2))
    keep = _asked(pairing, right > 0)
    none = np.zeros(len(right), dtype=np.int64)
    whole = Ranks(above=none, tied=len(offered) - barred, right=right, before=before)
    return _kept(whole, keep)


def median_rank(places: ArrayLike, *, middle: Literal["lower", "mean"] = "lower") -> float:
    """RadFinder's MedR: the median place rounded down, plus 1.

    Check: places (0, 3, 12, 0, 60, 7, 1, 200, 5, 9): "lower" 6, "mean" 7.

    Args:
        places: (Q,) counted from 0, from `Ranks.place`.
        middle: For an even number "lower" takes the lower of the two middle places
            (the printed value), "mean" their mean (the value beside the interval).

    Returns:
        MedR, 1 = best.

    Source:
        lmb-freiburg/radfinder, tasks/retrieval_task.py and tasks/bootstrap_retrieval.py.
    """
    ordered = np.sort(np.asarray(places, dtype=np.float64))
    value = ordered[(len(ordered) - 1) // 2] if middle == "lower" else np.median(ordered)
    return math.floor(value) + 1.0


def exact_mean(values: ArrayLike) -> float:
    """Mean of the finite values, correctly rounded, so that their order never changes it.

    Args:
        values: (N,); NaN = no value.

    Returns:
        The mean; NaN where there is no value.
    """
    given = np.asarray(values, dtype=np.float64)
    given = given[np.isfinite(given)]
    return math.fsum(given.tolist()) / len(given) if len(given) else math.nan


@dataclass(slots=True, kw_only=True, eq=False)
class _Tally:
    """Counts of one pairing while tiles pass by."""

    pairing: Pairing
    best: Floats  # (Q,) score of the best right candidate; inf = is no query
    first: Ints  # (Q,) lowest index of a right candidate with that score
    counts: Ranks  # of all rows, filled in place

    @classmethod
    def of(cls, similarity: Similarity, pairing: Pairing) -> _Tally:
        """Find each query's best right candidates."""
        num, num_candidates = _checked(similarity, pairing)
        best, first = np.full(num, -np.inf), np.full(num, num_candidates)
        right = np.zeros(num, dtype=np.int64)
        for rows, _, block in _blocks(similarity, pairing, pairing.queries, pairing.candidates):
            np.maximum.at(best, rows, block.max(axis=2))
        for rows, cols, block in _blocks(similarity, pairing, pairing.queries, pairing.candidates):
            level = block == best[rows][:, :, None]
            np.add.at(right, rows, level.sum(axis=2))
            lowest = np.where(level, cols[:, None, :], num_candidates).min(axis=2)
            np.minimum.at(first, rows, lowest)
        best[~_asked(pairing, np.isfinite(best))] = np.inf
        none = [np.zeros(num, dtype=np.int64) for _ in range(3)]
        counts = Ranks(above=none[0], tied=none[1], right=right, before=none[2])
        return cls(pairing=pairing, best=best, first=first, counts=counts)

    def add(self, rows: slice, cols: slice, tile: Floats) -> None:
        """Count what scores higher, what is tied, and what of that comes first."""
        backward = self.pairing.backward
        mine, theirs = (cols, rows) if backward else (rows, cols)
        best = self.best[mine][None, :] if backward else self.best[mine][:, None]
        self.counts.above[mine] += _hits(tile > best, by_column=backward)
        at = divmod(np.flatnonzero(tile == best), tile.shape[1])
        query, candidate = at[::-1] if backward else at
        query, candidate = query + mine.start, candidate + theirs.start
        self.counts.tied[mine] += np.bincount(query - mine.start, minlength=tile.shape[backward])
        early = query[candidate < self.first[query]] - mine.start
        self.counts.before[mine] += np.bincount(early, minlength=tile.shape[backward])

    def ranks(self, similarity: Similarity) -> Ranks:
        """Take out what is barred, and keep the queries."""
        pairing, counts = self.pairing, self.counts
        asked, offered = np.asarray(pairing.queries), np.asarray(pairing.candidates)
        bars = (pairing.query_bars, pairing.candidate_bars)
        for rows, cols, block in _blocks(similarity, pairing, *bars):
            wrong = asked[rows][:, :, None] != offered[cols][:, None, :]
            best = self.best[rows][:, :, None]
            level = wrong & (block == best)
            early = level & (cols[:, None, :] < self.first[rows][:, :, None])
            np.subtract.at(counts.above, rows, (wrong & (block > best)).sum(axis=2))
            np.subtract.at(counts.tied, rows, level.sum(axis=2))
            np.subtract.at(counts.before, rows, early.sum(axis=2))
        return _kept(counts, np.isfinite(self.best))


def _blocks(
    similarity: Similarity, pairing: Pairing, asked: ArrayLike | None, offered: ArrayLike | None
) -> Iterator[tuple[Index, Index, Floats]]:
    """Scores (G, q, m) of all pairs with equal keys, queries first."""
    for rows, cols in _pairs(asked, offered):
        if pairing.backward:
            yield rows, cols, similarity.blocks(cols, rows).transpose(0, 2, 1)
        else:
            yield rows, cols, similarity.blocks(rows, cols)


def _pairs(asked: ArrayLike | None, offered: ArrayLike | None) -> Iterator[tuple[Index, Index]]:
    """All pairs with equal keys; none where there are no keys."""
    return iter(()) if asked is None or offered is None else shared(asked, offered)


def _checked(similarity: Similarity, pairing: Pairing) -> tuple[int, int]:
    """Number of queries and of candidates, after a look at all shapes."""
    asked, offered = len(np.asarray(pairing.queries)), len(np.asarray(pairing.candidates))
    if similarity.shape != ((offered, asked) if pairing.backward else (asked, offered)):
        raise ProtocolError(
            f"similarity {similarity.shape} for {asked} queries, {offered} candidates",
            expected="(queries, candidates), or the other way round if `backward`",
            fix="transpose it, or pass one group for every row and column",
        )
    return asked, offered


def _asked(pairing: Pairing, found: Flags) -> Flags:
    """Which rows are queries; each must have a right candidate."""
    asked = np.ones(len(found), dtype=bool)
    if pairing.asked is not None:
        asked = np.asarray(pairing.asked, dtype=bool)
    if not found[asked].all():
        raise ProtocolError(
            f"{int((~found[asked]).sum())} of {int(asked.sum())} queries have no right candidate",
            expected="at least one candidate of each query's group",
            fix="leave these queries out, and count them",
        )
    return asked


def _kept(counts: Ranks, keep: Flags) -> Ranks:
    """The rows that are queries."""
    return Ranks(
        above=counts.above[keep],
        tied=counts.tied[keep],
        right=counts.right[keep],
        before=counts.before[keep],
    )


def _hits(mask: Flags, *, by_column: bool) -> Ints:
    """How many are True in each row, or in each column of a tile of fewer than 256 rows."""
    if by_column:
        return np.asarray(mask.view(np.uint8).sum(axis=0, dtype=np.uint8), dtype=np.int64)
    return np.array([np.count_nonzero(row) for row in mask], dtype=np.int64)


def _share_without(right: Ints, chosen: Ints, whole: Ints) -> Floats:
    """No right one among `chosen` of `whole` places: C(whole - right, chosen) / C(whole, chosen).

    The shorter of two equal products: over the places, or over the right ones.
    """
    few, many = (right, chosen) if right.max(initial=0) < chosen.max(initial=0) else (chosen, right)
    out = np.ones(len(whole))
    for i in range(int(few.max(initial=0))):
        some = i < few
        left = np.maximum(whole - i, 1)
        out *= np.where(some, np.maximum(left - many, 0) / left, 1.0)
    return out
