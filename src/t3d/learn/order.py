"""Which studies a step takes: a function of (seed, stage, step), the same on every process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from t3d.learn.recipe import Member

EPOCH, ROUND = 1, 3  # streams of random numbers
GOLDEN = (5**0.5 - 1) / 2  # its multiples fill the unit interval evenly

Rows = NDArray[np.int64]


class Order:
    """The order of studies of one stage, in epochs of whole batches.

    Where all members weigh the same, an epoch is a new order of all studies; the rest that does
    not fill a batch is left out of that epoch.

    Else each member gives its studies in an endless series of shuffled rounds, and an epoch takes
    from each the next ones, as many as its share of weight x studies comes to, rounded up or down
    so that the mean is the share.

    Args:
        members: Member of each study, "" = of none.
        told: Weights; a member that is not named weighs 1.
        batch_size: Studies of a batch, at most all there are.
        seed: Of the recipe.
        stage: Its number.

    Check: 2 batches of 5, shares 1/4 and 3/4: epoch 0 takes 2 and 8, epoch 1 takes 3 and 7.
    """

    def __init__(
        self,
        members: Sequence[str],
        told: Mapping[str, Member],
        *,
        batch_size: int,
        seed: int,
        stage: int,
    ) -> None:
        self.num, self.batch_size = len(members), batch_size
        self.key = (seed, stage)
        self.per_epoch = max(self.num // batch_size, 1)  # batches
        names = sorted(set(members))
        weights = np.array([told.get(name, Member()).weight for name in names])
        self.weighted = bool((weights != weights[0]).any())
        self.groups = [np.flatnonzero(np.array(members) == name) for name in names]
        parts = weights / weights.max() * [len(group) for group in self.groups]
        self.edges = np.cumsum(parts / parts.sum()) * self.per_epoch * batch_size
        self.edges[-1] = self.per_epoch * batch_size  # not a rounding error less

    def rows(self, step: int) -> Rows:
        """Give the studies of a step, counted from 0, as their places in the corpus."""
        epoch, place = divmod(step, self.per_epoch)
        seed, stage = self.key
        rng = np.random.default_rng([seed, EPOCH, stage, epoch])
        taken = slice(place * self.batch_size, (place + 1) * self.batch_size)
        if not self.weighted:
            every: Rows = rng.permutation(self.num)
            return every[taken]
        counts = self._counts(np.array([epoch]))[0]
        before = self._counts(np.arange(epoch)).sum(axis=0)
        order = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        rows = np.empty(self.batch_size, dtype=np.int64)
        for member, group in enumerate(self.groups):
            here = order[taken] == member
            first = before[member] + (order[: taken.start] == member).sum()
            rows[here] = self._given(member, group, first + np.arange(here.sum()))
        return rows

    def _counts(self, epochs: Rows) -> Rows:
        """Say how many studies each of these epochs takes of each member."""
        shift = (epochs + 0.5) * GOLDEN % 1.0
        upper = np.floor(self.edges + shift[:, None]).astype(np.int64)
        counts: Rows = np.diff(upper, axis=1, prepend=0)
        return counts

    def _given(self, member: int, group: Rows, numbers: Rows) -> Rows:
        """Give what a member gives as its n-th studies, counted from 0 over all rounds."""
        seed, stage = self.key
        given = np.empty_like(numbers)
        rounds, places = np.divmod(numbers, len(group))
        for number in np.unique(rounds):
            rng = np.random.default_rng([seed, ROUND, stage, member, int(number)])
            chosen = rounds == number
            given[chosen] = rng.permutation(group)[places[chosen]]
        return given
