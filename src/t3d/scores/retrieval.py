"""Where the right answer lands: ranks with ties as expected rank, and what is made of them.

A query may have several right candidates (identical reports, sibling reconstructions); it is
found when any of them is. Tied candidates stand in every order with equal probability, so a
constant similarity gets exactly chance. Legend: Q queries, M candidates, K length of the list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from t3d.errors import ProtocolError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranks:
    """Where each query's best right candidate stands."""

    above: NDArray[np.int64]  # (Q,) candidates that score higher
    tied: NDArray[np.int64]  # (Q,) candidates with the same score, itself included
    right: NDArray[np.int64]  # (Q,) right ones among the tied

    def credit(self, k: int) -> Floats:
        """Probability that a right candidate is among the first k.

        With one right candidate it is the share of the tied places inside the first k.
        Check: similarity ((.9, .2, .1), (.5, .5, .4), (.3, .6, .2)), right = own index,
        k = 1 -> (1, .5, 0).

        Args:
            k: Length of the list.

        Returns:
            (Q,) between 0 and 1; the mean is R@k.

        Source:
            Expected-rank rule: our choice.
        """
        room = np.clip(k - self.above, 0, self.tied)
        missed = _share_without(self.tied - self.right, room, self.tied)
        # the plain share where it is exact, so that ranks without ties give 0 or 1
        credit: Floats = np.where(self.right == 1, room / self.tied, 1.0 - missed)
        return credit

    def expected(self) -> Floats:
        """Expected rank of the first right candidate, counted from 0.

        Returns:
            (Q,): above + (tied - right) / (right + 1); with one right candidate the middle
            of its ties.
        """
        wrong = self.tied - self.right
        return np.asarray(self.above + wrong / (self.right + 1.0), dtype=np.float64)

    def reciprocal(self) -> Floats:
        """Expected 1 / rank of the first right candidate, counted from 1.

        Check: one right among two tied in front -> (1 + 1/2) / 2 = .75.

        Returns:
            (Q,) between 0 and 1; the mean is MRR.
        """
        out = np.zeros(len(self.above))
        wrong = self.tied - self.right
        for place in range(int(self.tied.max(initial=0))):
            # the first right one stands at `place`: all before it wrong, then a right one
            before = _share_without(wrong, np.full_like(wrong, place), self.tied)
            here = self.right / np.maximum(self.tied - place, 1)
            out += np.where(place <= wrong, before * here, 0.0) / (self.above + place + 1.0)
        return out


def ranks(similarity: ArrayLike, query_groups: ArrayLike, candidate_groups: ArrayLike) -> Ranks:
    """Rank candidates for each query.

    Args:
        similarity: (Q, M) finite.
        query_groups: (Q,) what each query asks for.
        candidate_groups: (M,) what each candidate is; right = equal group. Unique groups
            give the strict number, a group a report or a study the study-level one.

    Returns:
        The ranks.

    Raises:
        ProtocolError: Shapes do not fit, a similarity is not finite, or a query has no
            right candidate.
    """
    table = np.asarray(similarity, dtype=np.float64)
    asked, offered = np.asarray(query_groups), np.asarray(candidate_groups)
    if table.shape != (len(asked), len(offered)):
        raise ProtocolError(
            f"similarity {table.shape} for {len(asked)} queries, {len(offered)} candidates",
            expected="(queries, candidates)",
            fix="transpose it, or pass one group for every row and column",
        )
    if not np.isfinite(table).all():
        raise ProtocolError(
            f"{int((~np.isfinite(table)).sum())} similarities are not finite",
            expected="finite numbers",
            fix="find which embedding is not finite",
        )
    right = asked[:, None] == offered[None, :]
    if not right.any(axis=1).all():
        raise ProtocolError(
            f"{int((~right.any(axis=1)).sum())} of {len(asked)} queries have no right candidate",
            expected="at least one candidate of each query's group",
            fix="leave these queries out, and count them",
        )
    best = np.where(right, table, -np.inf).max(axis=1, keepdims=True)
    level = table == best
    return Ranks(
        above=(table > best).sum(axis=1),
        tied=level.sum(axis=1),
        right=(level & right).sum(axis=1),
    )


def chance_credit(query_groups: ArrayLike, candidate_groups: ArrayLike, k: int) -> Floats:
    """Credit each query gets when the order of candidates is random.

    Check: 300 candidates, one right, k = 10 -> 10 / 300.

    Args:
        query_groups: (Q,).
        candidate_groups: (M,).
        k: Length of the list.

    Returns:
        (Q,): 1 - C(M - m, k) / C(M, k) with m right candidates.
    """
    asked, offered = np.asarray(query_groups), np.asarray(candidate_groups)
    blind = np.zeros((len(asked), len(offered)))
    return ranks(blind, asked, offered).credit(k)


def _share_without(
    part: NDArray[np.int64], chosen: NDArray[np.int64], whole: NDArray[np.int64]
) -> Floats:
    """C(part, chosen) / C(whole, chosen): no right one among `chosen` of `whole` places."""
    possible = chosen <= part
    safe = np.where(possible, part, chosen)
    log_ratio = (
        gammaln(safe + 1.0)
        - gammaln(safe - chosen + 1.0)
        - gammaln(whole + 1.0)
        + gammaln(whole - chosen + 1.0)
    )
    return np.where(possible, np.exp(log_ratio), 0.0)
