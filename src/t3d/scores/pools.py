"""Recall in small random pools: as published, by repeated partition, and exactly.

A pool of n holds the right candidate and n - 1 others. Published code shuffles all studies, cuts
them into disjoint pools and repeats; its interval is the spread over partitions, which says how
many repeats were made, not how many patients there are. The mean over all partitions has a closed
form from the ranks in the full set. Legend: N pairs, n pool, K length of the list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.scores.retrieval import Ranks, TieRule
from t3d.scores.similarity import Similarity

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    """How studies are dealt into pools."""

    name: str
    source: str
    short_pool: Literal["keep", "drop"]  # what remains when N is no multiple of n
    sizes: tuple[int, ...] = (32, 64, 128)
    ks: tuple[int, ...] = (1, 8)
    num_repeats: int = 100
    seed: int = 42  # of default_rng; the same permutations serve every size
    ties: TieRule = "expected"


SPECTRE_POOLS = PoolRules(
    name="spectre_pools",
    source="cclaess/SPECTRE 9260676, eval/retrieval_merlin.py (its sort is unstable; ours is not)",
    short_pool="keep",
    ties="lowest_index",
)

RADFINDER_POOLS = PoolRules(
    name="radfinder_pools",
    source="lmb-freiburg/radfinder 7c6ab92, tasks/pool_retrieval_task.py (as above)",
    short_pool="drop",
    ties="lowest_index",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partitions:
    """Recall of every repeat."""

    recall: Floats  # (sizes, ks, repeats)

    def mean(self) -> Floats:
        """(sizes, ks) mean over repeats, the published value."""
        return np.asarray(self.recall.mean(axis=2))

    def spread(self) -> Floats:
        """(2, sizes, ks) percentiles 2.5 and 97.5 over partitions: no sampling error."""
        return np.asarray(np.percentile(self.recall, [2.5, 97.5], axis=2))


def partitions(similarity: Similarity, rules: PoolRules) -> Partitions:
    """Deal pairs into disjoint pools, again and again.

    Check: images eye(5), texts (.9 .1 0 0 0), (.6 .5 0 0 0), (0 0 1 0 0), (0 0 0 .2 .3),
    (0 0 0 0 1), pools of 2, K = 1, 3 repeats: short pool kept 1, 1, .8; dropped 1, 1, .75.

    Args:
        similarity: (N, N), row i and column i a pair; rows ask.
        rules: Sizes, repeats, seed.

    Returns:
        Recall by size, K and repeat. Only the pools are ever computed.

    Raises:
        ProtocolError: The table is not square, or smaller than a pool.
    """
    num = similarity.shape[0]
    if similarity.shape != (num, num) or num < max(rules.sizes):
        raise ProtocolError(
            f"similarity {similarity.shape} for pools of {max(rules.sizes)}",
            expected="(N, N) with at least one whole pool",
            fix="pass pairs in the same order, or smaller pools",
        )
    recall = np.empty((len(rules.sizes), len(rules.ks), rules.num_repeats))
    rng = np.random.default_rng(rules.seed)
    for repeat in range(rules.num_repeats):
        order = rng.permutation(num)
        for s, size in enumerate(rules.sizes):
            whole = num - num % size
            parts = [order[:whole].reshape(-1, size)]
            if rules.short_pool == "keep" and whole < num:
                parts.append(order[None, whole:])
            dealt = [_ranks(similarity, pools) for pools in parts]
            for j, k in enumerate(rules.ks):
                credit = np.concatenate([ranks.credit(k, ties=rules.ties) for ranks in dealt])
                recall[s, j, repeat] = credit.mean()
    return Partitions(recall=recall)


def expected_in_pools(
    ranks: Ranks, num: int, *, size: int, k: int, short_pool: Literal["keep", "drop"] = "drop"
) -> Floats:
    """Credit of each query in the mean over all partitions, ties as expected rank.

    Formula: P(X < K), X hypergeometric: of the n - 1 others in the pool, how many are among the
    `above` of N - 1 that score higher; with ties the mean over the places they cover.
    Check: N = 5, one of four others scores higher, n = 2, K = 1 -> 3/4; two of them tied and
    none higher -> (1 + 3/4 + 1/2) / 3.

    Args:
        ranks: Strict ranks in the full set of N candidates: one right candidate each.
        num: N.
        size: n.
        k: K.
        short_pool: "keep": N mod n queries of a partition stand in a smaller pool.

    Returns:
        (Q,) between 0 and 1; the mean is R@K, and `Draws.mean` gives its clustered interval.

    Raises:
        ProtocolError: A query has several right candidates, or N is smaller than a pool.
    """
    if not (ranks.right == 1).all() or not 1 <= size <= num:
        raise ProtocolError(
            f"{int((ranks.right != 1).sum())} queries with several right candidates, pools of "
            f"{size} out of {num}",
            expected="one right candidate each, pools no larger than the set",
            fix="pass strict ranks",
        )
    credit = _in_pool(ranks, num, size, k)
    rest = num % size
    if short_pool == "keep" and rest:
        credit += (_in_pool(ranks, num, rest, k) - credit) * (rest / num)
    return credit


def _in_pool(ranks: Ranks, num: int, size: int, k: int) -> Floats:
    """Chance that fewer than k of size - 1 others score higher."""
    reached = _fewer(np.arange(num), num - 1, size - 1, k)  # by number above
    if (ranks.tied == 1).all():
        return np.asarray(reached[ranks.above])
    summed = np.concatenate(([0.0], np.cumsum(reached)))
    spread = (summed[ranks.above + ranks.tied] - summed[ranks.above]) / ranks.tied
    return np.where(ranks.tied == 1, reached[ranks.above], spread)


def _fewer(marked: Index, num: int, drawn: int, k: int) -> Floats:
    """P(X < k), X how many of `marked` among `num` are in `drawn` draws; products keep digits."""
    out = np.zeros(len(marked))
    for j in range(min(k, drawn + 1)):
        share = np.full(len(marked), float(math.comb(drawn, j)))
        for i in range(drawn):  # the first j draws are marked ones, the others are not
            left = marked - i if i < j else num - marked - (i - j)
            share *= np.maximum(left, 0) / (num - i)
        out += share
    return out


def _ranks(similarity: Similarity, pools: Index) -> Ranks:
    """Ranks within pools (P, n), pool after pool."""
    num, size = pools.shape
    step = max(1, 8192 // size)
    counts = np.empty((3, num, size), dtype=np.int64)
    for at in range(0, num, step):
        some = slice(at, at + step)
        scores = similarity.blocks(pools[some], pools[some])
        right = np.diagonal(scores, axis1=1, axis2=2)[:, :, None]
        level = scores == right
        counts[0, some] = (scores > right).sum(axis=2)
        counts[1, some] = level.sum(axis=2)
        counts[2, some] = np.tril(level, -1).sum(axis=2)
    above, tied, before = counts.reshape(3, -1)
    return Ranks(above=above, tied=tied, right=np.ones_like(above), before=before)
