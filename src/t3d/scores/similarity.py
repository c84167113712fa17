"""Similarities of many rows in bounded memory, the same bits whatever the order of rows.

A dot product summed in another order differs in its last bits, and near a rounding edge that
makes or breaks a tie. Here embeddings are put on a binary grid fine enough that every product
and every partial sum is an exact float64; then no library, block or order changes a number.
Legend: Q first rows, M second rows, D features, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError

Floats = NDArray[np.float64]
Index = NDArray[np.intp]

_BITS = 26  # of a row's length; two rows' products then fit the 53 bits of a float64
_TILE_ROWS = 240  # fewer than 256, so that hits of a column are counted in uint8
_TILE_COLS = 4096
_PAIR_ROWS = 8192  # rows held at once by `blocks`: 32 MB at D = 512


class Similarity(Protocol):
    """A table (Q, M) that is never whole in memory; numbers are for comparison only."""

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, M)."""
        ...

    def tiles(self, num_rows: int, num_cols: int) -> Iterator[tuple[slice, slice, Floats]]:
        """Give all tiles of at most that size; a tile is valid until the next one is asked for."""
        ...

    def blocks(self, rows: Index, cols: Index) -> Floats:
        """Give small tables: rows (G, r), columns (G, c) -> (G, r, c)."""
        ...

    def take(self, rows: Index, cols: Index) -> Similarity:
        """Keep some rows and columns, in the order given."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TableSimilarity:
    """Similarities that somebody has computed."""

    table: Floats  # (Q, M) finite

    @classmethod
    def of(cls, table: ArrayLike, *, decimals: int | None = None) -> TableSimilarity:
        """Take a table.

        Args:
            table: (Q, M) finite.
            decimals: Digits kept before ties are decided; None = all.

        Returns:
            The similarities.

        Raises:
            ProtocolError: It is no table, or an entry is not finite.
        """
        values = np.asarray(table, dtype=np.float64)
        if values.ndim != 2:
            raise ProtocolError(
                f"similarity of shape {values.shape}",
                expected="(queries, candidates)",
                fix="pass one row for each query",
            )
        if not np.isfinite(values).all():
            raise ProtocolError(
                f"{int((~np.isfinite(values)).sum())} similarities are not finite",
                expected="finite numbers",
                fix="find which embedding is not finite",
            )
        return cls(values if decimals is None else np.round(values, decimals))

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, M)."""
        return (len(self.table), self.table.shape[1])

    def tiles(self, num_rows: int, num_cols: int) -> Iterator[tuple[slice, slice, Floats]]:
        """Give all tiles of at most that size."""
        for rows, cols in _corners(self.shape, num_rows, num_cols):
            yield rows, cols, self.table[rows, cols]

    def blocks(self, rows: Index, cols: Index) -> Floats:
        """Give small tables: rows (G, r), columns (G, c) -> (G, r, c)."""
        return self.table[rows[:, :, None], cols[:, None, :]]

    def take(self, rows: Index, cols: Index) -> TableSimilarity:
        """Keep some rows and columns, in the order given."""
        return TableSimilarity(self.table[np.ix_(rows, cols)])


@dataclass(frozen=True, slots=True, eq=False)
class RowSimilarity:
    """Dot products of rows on a binary grid, exact in any order of summation."""

    first: NDArray[np.int32]  # (Q, D) multiples of the first grid's step
    second: NDArray[np.int32]  # (M, D)
    unit: float  # of a product of integers; a power of 2
    scale: float | None  # 10**decimals; None = products are compared as they are

    @classmethod
    def of(
        cls, first: ArrayLike, second: ArrayLike, *, decimals: int | None = None
    ) -> RowSimilarity:
        """Take embeddings; rows of unit length give cosines.

        Check: with lengths near 1 the grid is 2^-26, so a cosine moves by about 1e-8.

        Args:
            first: (Q, D) finite.
            second: (M, D) finite.
            decimals: Digits of the similarity kept before ties are decided; None = all.

        Returns:
            The similarities; memory is 4 bytes for each number of both tables.

        Raises:
            ProtocolError: Shapes do not fit, or a row is not finite.
        """
        one, two = np.asarray(first), np.asarray(second)
        if one.ndim != 2 or two.ndim != 2 or one.shape[1] != two.shape[1]:
            raise ProtocolError(
                f"embeddings of shapes {one.shape} and {two.shape}",
                expected="(queries, D) and (candidates, D)",
                fix="pass one row each, from the same model",
            )
        left, left_step = _on_grid(one)
        right, right_step = (left, left_step) if two is one else _on_grid(two)
        scale = None if decimals is None else 10.0**decimals
        return cls(left, right, left_step * right_step, scale)

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, M)."""
        return (len(self.first), len(self.second))

    def tiles(self, num_rows: int, num_cols: int) -> Iterator[tuple[slice, slice, Floats]]:
        """Give all tiles of at most that size; the next one overwrites it."""
        room = np.empty((num_rows, min(num_cols, max(1, len(self.second)))))
        last, right = slice(0, 0), np.empty((0, 0))
        for rows, cols in _corners(self.shape, num_rows, num_cols):
            if cols != last:
                last, right = cols, self.second[cols].T.astype(np.float64)
            left = self.first[rows].astype(np.float64)
            out = room.ravel()[: len(left) * right.shape[1]].reshape(len(left), right.shape[1])
            yield rows, cols, self._rounded(np.matmul(left, right, out=out))

    def blocks(self, rows: Index, cols: Index) -> Floats:
        """Give small tables: rows (G, r), columns (G, c) -> (G, r, c)."""
        left = self.first[rows].astype(np.float64)
        right = self.second[cols].astype(np.float64)
        return self._rounded(np.matmul(left, right.transpose(0, 2, 1)))

    def take(self, rows: Index, cols: Index) -> RowSimilarity:
        """Keep some rows and columns, in the order given."""
        return RowSimilarity(self.first[rows], self.second[cols], self.unit, self.scale)

    def _rounded(self, products: Floats) -> Floats:
        """Round to whole units of the last digit kept, in place."""
        if self.scale is not None:
            np.multiply(products, self.unit * self.scale, out=products)
            np.rint(products, out=products)
        return products


def shared(first: ArrayLike, second: ArrayLike) -> Iterator[tuple[Index, Index]]:
    """Give all pairs (i, j) with first[i] == second[j], as blocks of whole groups.

    Args:
        first: (Q,) keys.
        second: (M,) keys of the same kind.

    Yields:
        Index arrays (G, q) and (G, m): every pair within a line has equal keys. Each pair
        comes once; lines are cut so that a block names at most 8,192 rows.
    """
    one, two = np.asarray(first), np.asarray(second)
    _, codes = np.unique(np.concatenate((one, two)), return_inverse=True)
    num = int(codes.max(initial=-1)) + 1
    sides = [_sorted_groups(part, num) for part in (codes[: len(one)], codes[len(one) :])]
    (order_one, start_one, size_one), (order_two, start_two, size_two) = sides
    both = np.flatnonzero((size_one > 0) & (size_two > 0))
    sizes = np.stack((size_one[both], size_two[both]), axis=1)
    for q, m in np.unique(sizes, axis=0).tolist():
        same = both[(sizes == (q, m)).all(axis=1)]
        wide_one = order_one[start_one[same][:, None] + np.arange(q)]
        wide_two = order_two[start_two[same][:, None] + np.arange(m)]
        for rows, cols in _corners((q, m), 256, 256):
            step = max(1, _PAIR_ROWS // (min(q, 256) + min(m, 256)))
            for at in range(0, len(same), step):
                yield wide_one[at : at + step, rows], wide_two[at : at + step, cols]


def pieces(similarity: Similarity) -> Iterator[tuple[slice, slice, Floats]]:
    """Give tiles of a size that stays in cache (8 MB)."""
    return similarity.tiles(_TILE_ROWS, _TILE_COLS)


def _on_grid(rows: NDArray[np.generic]) -> tuple[NDArray[np.int32], float]:
    """Rows in whole steps of a grid: 2^-26 of the power of 2 nearest to the longest row."""
    step_rows = max(1, (1 << 21) // max(1, rows.shape[1]))  # 16 MB of float64 at once
    cuts = [slice(at, at + step_rows) for at in range(0, len(rows), step_rows)]
    longest = 0.0
    for cut in cuts:
        part = rows[cut].astype(np.float64)
        bad = int((~np.isfinite(part).all(axis=1)).sum())
        if bad:
            raise ProtocolError(
                f"{bad} or more of {len(rows)} embeddings are not finite",
                expected="finite rows",
                fix="find why the model gives none; it is never replaced by 0",
            )
        longest = max(longest, float(np.sqrt((part**2).sum(axis=1)).max()))
    # lengths up to 2^.25 of the power: a product of two rows stays below 2^(52.5) steps
    power = math.ceil(math.log2(longest) - 0.25) if longest > 0 else 0
    step = 2.0 ** (power - _BITS)
    out = np.empty(rows.shape, dtype=np.int32)
    for cut in cuts:
        out[cut] = np.rint(rows[cut].astype(np.float64) / step)
    return out, step


def _corners(shape: tuple[int, int], num_rows: int, num_cols: int) -> Iterator[tuple[slice, slice]]:
    """Tiles of a table, column blocks outside."""
    for col in range(0, shape[1], num_cols):
        for row in range(0, shape[0], num_rows):
            yield (
                slice(row, min(row + num_rows, shape[0])),
                slice(col, min(col + num_cols, shape[1])),
            )


def _sorted_groups(codes: Index, num: int) -> tuple[Index, Index, Index]:
    """Rows ordered by group, where each group begins, and its size."""
    sizes = np.bincount(codes, minlength=num)
    return np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes, sizes
