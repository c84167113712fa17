"""Exact dot products: against whole-number arithmetic, in any order."""

from __future__ import annotations

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.scores.similarity import RowSimilarity, Similarity, TableSimilarity, pieces, shared

Floats = np.ndarray


def unit(rng: np.random.Generator, num: int, dims: int) -> Floats:
    rows = rng.standard_normal((num, dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def whole(similarity: Similarity) -> Floats:
    out = np.full(similarity.shape, np.nan)
    for rows, cols, tile in pieces(similarity):
        out[rows, cols] = tile
    return out


def test_products_are_the_exact_sums_of_whole_numbers() -> None:
    rng = np.random.default_rng(0)
    first, second = unit(rng, 7, 512), unit(rng, 9, 512)
    table = whole(RowSimilarity.of(first, second))
    grid = [[[round(float(x) * 2**26) for x in row] for row in rows] for rows in (first, second)]
    for i, row in enumerate(grid[0]):
        for j, other in enumerate(grid[1]):
            assert int(table[i, j]) == sum(a * b for a, b in zip(row, other, strict=True))
    np.testing.assert_allclose(
        table / 2**52, first.astype(float) @ second.astype(float).T, atol=1e-7
    )


def test_neither_the_order_of_rows_nor_of_features_changes_a_bit() -> None:
    rng = np.random.default_rng(1)
    first, second = unit(rng, 300, 96), unit(rng, 260, 96)
    table = whole(RowSimilarity.of(first, second, decimals=6))
    rows, cols, features = (rng.permutation(n) for n in (300, 260, 96))
    moved = RowSimilarity.of(first[rows][:, features], second[cols][:, features], decimals=6)
    assert (whole(moved) == table[np.ix_(rows, cols)]).all()


def test_blocks_and_tiles_hold_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    both: tuple[Similarity, ...] = (
        RowSimilarity.of(unit(rng, 250, 33), unit(rng, 40, 33)),
        TableSimilarity.of(rng.random((250, 40)), decimals=2),
    )
    rows, cols = rng.integers(0, 250, (5, 3)), rng.integers(0, 40, (5, 4))
    for similarity in both:
        table = whole(similarity)
        blocks = similarity.blocks(rows, cols)
        assert blocks.shape == (5, 3, 4)
        for g in range(5):
            assert (blocks[g] == table[np.ix_(rows[g], cols[g])]).all()
        part = similarity.take(rows[0], cols[0])
        assert (whole(part) == table[np.ix_(rows[0], cols[0])]).all()


def test_rounding_to_decimals_makes_the_ties_of_rounded_cosines() -> None:
    rng = np.random.default_rng(3)
    first, second = unit(rng, 60, 8), unit(rng, 50, 8)
    table = whole(RowSimilarity.of(first, second, decimals=2))
    np.testing.assert_array_equal(table, np.rint(100 * (first.astype(float) @ second.T)))


def test_every_pair_with_equal_keys_comes_once() -> None:
    rng = np.random.default_rng(4)
    cases = [(rng.integers(0, 5, 30), rng.integers(0, 6, 25)) for _ in range(20)]
    cases += [(np.zeros(300, int), np.zeros(270, int)), (np.array(["a", "b"]), np.array(["b"]))]
    for first, second in cases:
        pairs: list[tuple[int, int]] = []
        for rows, cols in shared(first, second):
            for group_rows, group_cols in zip(rows.tolist(), cols.tolist(), strict=True):
                pairs += [(i, j) for i in group_rows for j in group_cols]
        wanted = {tuple(p) for p in np.argwhere(first[:, None] == second[None, :]).tolist()}
        assert len(pairs) == len(wanted)
        assert set(pairs) == wanted


def test_rows_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ProtocolError, match="1 or more of 2 embeddings are not finite"):
        RowSimilarity.of([[0.0, 1.0], [np.nan, 1.0]], [[1.0, 0.0]])
    with pytest.raises(ProtocolError, match="shapes"):
        RowSimilarity.of(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ProtocolError, match="similarity of shape"):
        TableSimilarity.of([1.0, 2.0])
