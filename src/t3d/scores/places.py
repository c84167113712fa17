"""Where along the body a sentence points, and how far off that is.

Depth is cut into cells with centres in mm. A guess is a weight for each cell: one cell where the
curve has one peak, equal shares where peaks tie, all cells alike for the random baseline. An error
is the expected one under these weights, so a constant curve gets exactly what random gets.
Legend: S snippets, Z cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t3d.errors import ProtocolError
from t3d.scores.ratio import ratio

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRules:
    """How an error is counted."""

    name: str
    source: str
    ties: Literal["expected", "first"]  # first: the cell of the lowest index
    cell_mm: float | None = None  # worth of a cell in mm; None = its real spacing
    one_per_scan: bool = False  # only the snippet with the first key (`first_per_scan`)
    within_mm: tuple[float, ...] = (12.0, 24.0)
    within_cells: tuple[int, ...] = (1, 2)


RADFINDER_PLACES = PlaceRules(
    name="radfinder_places",
    source="lmb-freiburg/radfinder 7c6ab92, tasks/localization_task.py",
    ties="first",
    cell_mm=12.0,
    one_per_scan=True,
)
"""Its "12 mm" and "24 mm" are `within_1_cells` and `within_2_cells`."""

PLACES = PlaceRules(name="places", source="our choice: true mm, real spacing", ties="expected")


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthGrid:
    """Cells along depth for each snippet's scan."""

    centres_mm: Floats  # (S, Z) rising or falling along a row; NaN = no such cell
    valid: Flags  # (S, Z) one run of at least two cells a row

    @classmethod
    def of(cls, centres_mm: ArrayLike, valid: ArrayLike | None = None) -> DepthGrid:
        """Take a grid.

        Args:
            centres_mm: (S, Z) centres of cells.
            valid: (S, Z) False = padding; None = all are cells.

        Returns:
            The grid.

        Raises:
            ProtocolError: A row has fewer than two cells, its cells are not one run, or their
                centres neither rise nor fall.
        """
        centres = np.asarray(centres_mm, dtype=np.float64)
        given = np.ones(centres.shape, dtype=bool) if valid is None else np.asarray(valid, bool)
        if centres.ndim != 2 or given.shape != centres.shape:
            raise ProtocolError(
                f"centres of shape {centres.shape}, valid of shape {given.shape}",
                expected="two arrays (S, Z)",
                fix="pad every scan to the same number of cells",
            )
        centres = np.where(given, centres, np.nan)
        gaps = np.diff(centres, axis=1)
        runs = np.count_nonzero(np.diff(np.pad(given, ((0, 0), (1, 1))).astype(int)) == 1, axis=1)
        num_gaps = np.maximum(given.sum(axis=1) - 1, 1)
        steady = ((gaps > 0).sum(axis=1) == num_gaps) | ((gaps < 0).sum(axis=1) == num_gaps)
        bad = (runs != 1) | ~steady
        if bad.any():
            raise ProtocolError(
                f"{int(bad.sum())} of {len(bad)} depth grids cannot be used",
                expected="one run of at least two cells whose centres rise or fall",
                fix="leave these scans out, and count them",
            )
        return cls(centres_mm=centres, valid=given)

    @cached_property
    def edges_mm(self) -> tuple[Floats, Floats]:
        """(S, Z) lower and upper edge of each cell: halfway to its neighbours."""
        half = np.diff(self.centres_mm, axis=1) / 2
        none = np.full((len(half), 1), np.nan)
        back, ahead = np.hstack((none, half)), np.hstack((half, none))
        back, ahead = np.where(np.isnan(back), ahead, back), np.where(np.isnan(ahead), back, ahead)
        ends = self.centres_mm - back, self.centres_mm + ahead
        return np.minimum(*ends), np.maximum(*ends)

    @cached_property
    def ends_mm(self) -> tuple[Floats, Floats]:
        """(S,) lowest and highest edge of each scan."""
        low, high = self.edges_mm
        return np.nanmin(low, axis=1), np.nanmax(high, axis=1)

    @cached_property
    def cell_mm(self) -> Floats:
        """(S,) median distance between neighbouring centres."""
        return np.asarray(np.nanmedian(np.abs(np.diff(self.centres_mm, axis=1)), axis=1))

    def cells_of(self, z_mm: ArrayLike) -> Index:
        """Find the cell that holds a place.

        Check: 16 cells of 12 mm, the first centre at 13.5: 7.4 -> -1, 7.6 -> 0, 19.6 -> 1,
        198 -> 15, 201 -> -1.

        Args:
            z_mm: (S,).

        Returns:
            (S,) cells; the first of two that share an edge, -1 = outside.
        """
        z = np.asarray(z_mm, dtype=np.float64)[:, None]
        low, high = self.edges_mm
        inside = (low <= z) & (z <= high)
        return np.where(inside.any(axis=1), inside.argmax(axis=1), -1)

    def fractions(self, z_mm: ArrayLike) -> Floats:
        """Say where in its scan a place lies: 0 = lowest edge, 1 = highest.

        Args:
            z_mm: (S,).

        Returns:
            (S,). World mm of different patients cannot be averaged; these can.
        """
        low, high = self.ends_mm
        return np.asarray((np.asarray(z_mm, dtype=np.float64) - low) / (high - low))


def peaks(
    curves: ArrayLike,
    grid: DepthGrid,
    *,
    ties: Literal["expected", "first"] = "expected",
    decimals: int = 6,
) -> Floats:
    """Guess the cell where a curve is highest.

    Args:
        curves: (S, Z) cosines; what lies outside the grid is ignored.
        grid: Cells.
        ties: Equal shares, or the first of the highest cells.
        decimals: Digits kept before ties are decided.

    Returns:
        (S, Z) weights that sum to 1.

    Raises:
        ProtocolError: Shapes differ, or a valid entry is not finite.
    """
    values = np.round(checked_curves(curves, grid), decimals)
    level = values == values.max(axis=1, keepdims=True)
    if ties == "first":
        return _one_cell(level.argmax(axis=1), grid)
    return np.asarray(level / level.sum(axis=1, keepdims=True))


def anywhere(grid: DepthGrid) -> Floats:
    """Guess every cell alike: errors are the expected ones of a uniform guess.

    Check: targets uniform over n cells of 12 mm: n = 16 -> 63.75 mm, 24 -> 95.83.

    Args:
        grid: Cells.

    Returns:
        (S, Z) weights.
    """
    return np.asarray(grid.valid / grid.valid.sum(axis=1, keepdims=True))


def random_cells(grid: DepthGrid, *, seed: int = 42) -> Floats:
    """Guess one cell by RadFinder's generator, a draw for each snippet in order.

    Check: cells 0..11, 0..23, 0..23, 8..31, seed 42 -> 6, 19, 14, 18.

    Args:
        grid: Cells.
        seed: Of `numpy.random.RandomState`.

    Returns:
        (S, Z) weights.
    """
    rng = np.random.RandomState(seed)
    low, high = _ends(grid)
    drawn = [rng.randint(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    return _one_cell(np.array(drawn, dtype=np.intp), grid)


def middle(grid: DepthGrid) -> Floats:
    """Guess the middle cell, the lower of two.

    Check: targets uniform over 16 cells of 12 mm -> 48 mm.

    Args:
        grid: Cells.

    Returns:
        (S, Z) weights.
    """
    low, high = _ends(grid)
    return _one_cell((low + high) // 2, grid)


def at_fractions(fractions: ArrayLike, grid: DepthGrid) -> Floats:
    """Guess a place that something other than the image told.

    Args:
        fractions: One number, e.g. the mean of `DepthGrid.fractions` over training snippets, or
            (S,) from a model of the text alone.
        grid: Cells.

    Returns:
        (S, Z) weights: all on the cell whose centre is nearest.
    """
    low, high = grid.ends_mm
    z = low + np.asarray(fractions, dtype=np.float64) * (high - low)
    return _one_cell(np.nanargmin(np.abs(grid.centres_mm - z[:, None]), axis=1), grid)


def place_errors(
    guess: Floats, grid: DepthGrid, target_mm: ArrayLike, rules: PlaceRules = PLACES
) -> dict[str, Floats]:
    """Say how far guesses are off.

    Check: cells 0..31 of 12 mm, guesses 0, 5, 9, 20, targets in 2, 5, 10, 12 -> mean
    `cell_error_mm` 33, median 18, exact .25, within 1 cell .5, within 2 .75.

    Args:
        guess: (S, Z) weights that sum to 1.
        grid: Cells.
        target_mm: (S,) true places.
        rules: What counts.

    Returns:
        (S,) columns by name: `error_mm` (from the centre of the guessed cell to the place),
        `error_cells`, `cell_error_mm` (cells times a cell's worth), and shares `exact`,
        `within_12_mm`, ..., `within_1_cells`, ... NaN in a row = its place lies outside the grid.
    """
    target = np.asarray(target_mm, dtype=np.float64)
    cell = grid.cells_of(target)
    mm = np.abs(np.where(grid.valid, grid.centres_mm, 0.0) - target[:, None])
    cells = np.abs(np.arange(guess.shape[1]) - cell[:, None]).astype(np.float64)
    worth = grid.cell_mm if rules.cell_mm is None else rules.cell_mm
    columns = {
        "error_mm": _expected(guess, mm),
        "error_cells": (off := _expected(guess, cells)),
        "cell_error_mm": off * worth,
        "exact": _expected(guess, cells == 0),
    }
    columns |= {f"within_{limit:g}_mm": _expected(guess, mm <= limit) for limit in rules.within_mm}
    columns |= {f"within_{n}_cells": _expected(guess, cells <= n) for n in rules.within_cells}
    return {name: np.where(cell >= 0, values, np.nan) for name, values in columns.items()}


def per_scan(values: ArrayLike, scans: Sequence[str]) -> Floats:
    """Average the snippets of each scan.

    Args:
        values: (S,) NaN = no value.
        scans: (S,) scan of each snippet.

    Returns:
        A mean for each scan, scans in sorted order; NaN = no value in it.
    """
    rows = np.asarray(values, dtype=np.float64)
    _, scan = np.unique(np.asarray(scans, dtype=str), return_inverse=True)
    # within a scan by size, so that the order of snippets does not change a bit of the mean
    order = np.lexsort((rows, scan))
    given = order[np.isfinite(rows[order])]
    num = int(scan.max(initial=-1)) + 1
    total = np.bincount(scan[given], weights=rows[given], minlength=num)
    return ratio(total, np.bincount(scan[given], minlength=num))


def first_per_scan(scans: Sequence[str], keys: Sequence[str]) -> Index:
    """Keep one snippet a scan: the one whose key comes first in the alphabet (RadFinder).

    Args:
        scans: (S,).
        keys: (S,) e.g. slice names, distinct within a scan.

    Returns:
        Rows that stay, in their order.
    """
    order = np.lexsort((np.asarray(keys, dtype=str), np.asarray(scans, dtype=str)))
    _, first = np.unique(np.asarray(scans, dtype=str)[order], return_index=True)
    return np.sort(order[first])


def checked_curves(curves: ArrayLike, grid: DepthGrid) -> Floats:
    """Take curves, -inf where there is no cell.

    Args:
        curves: (S, Z).
        grid: Cells.

    Returns:
        (S, Z).

    Raises:
        ProtocolError: Shapes differ, or a valid entry is not finite.
    """
    values = np.asarray(curves, dtype=np.float64)
    if values.shape != grid.valid.shape:
        raise ProtocolError(
            f"curves of shape {values.shape} beside a grid of shape {grid.valid.shape}",
            expected="one value for each cell",
            fix="pad curves as their grid is padded",
        )
    bad = int((grid.valid & ~np.isfinite(values)).any(axis=1).sum())
    if bad:
        raise ProtocolError(
            f"{bad} of {len(values)} depth curves are not finite",
            expected="a finite cosine in every cell",
            fix="find why the model gives none",
        )
    return np.where(grid.valid, values, -np.inf)


def _expected(guess: Floats, values: Floats | Flags) -> Floats:
    """Mean of a value over the cells of a guess."""
    return np.asarray((guess * values).sum(axis=1))


def _one_cell(cells: Index, grid: DepthGrid) -> Floats:
    """All weight on one cell."""
    return np.asarray(cells[:, None] == np.arange(grid.valid.shape[1]), dtype=np.float64)


def _ends(grid: DepthGrid) -> tuple[Index, Index]:
    """First and last cell of each row."""
    last = grid.valid.shape[1] - 1 - grid.valid[:, ::-1].argmax(axis=1)
    return grid.valid.argmax(axis=1), last
