"""Depth curves: how near a sentence is to each depth of its scan, and what a curve then says.

Legend: S snippets, Z depth cells, L tokens, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.embeddings import Rows, unit_rows
from t3d.judge.snippets import Snippets, unplaced_of
from t3d.scores.depth import densest_interval, depth_mass, flat_p, peak_to_spread
from t3d.scores.places import DepthGrid

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.types import Volume

Floats = NDArray[np.float64]

TEMPERATURES = tuple(np.geomspace(0.001, 1.0, 31).tolist())  # tried on dev
UNFITTED = 0.07  # where neither dev nor the model says one
MIN_NULL = 20  # curves that point nowhere; with fewer, white noise stands in
LEVELS = (0.5, 0.9)


class TokenModel(Protocol):
    """A model that says where in a scan its features lie.

    `embed_snippets(texts)` is asked instead of `embed_text` where a model has it, and
    `embed_volume_tokens(cohort, volume_ids)` for many volumes at once.
    """

    def embed_tokens(self, volume: Volume) -> tuple[Rows, Floats]:
        """Embed places: (L, D), and their centres (L, 3) as (z, y, x), LPS mm."""
        ...

    def embed_text(self, texts: list[str]) -> Rows:
        """Embed sentences in the same space: (N, D)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planes:
    """Depth cells of the scans of some snippets, and the snippets' own directions."""

    snippets: Snippets
    grid: DepthGrid  # (S, Z) cells from the lowest up
    scan: NDArray[np.intp]  # (S,) which of `vectors` each snippet's scan is
    vectors: tuple[Floats, ...]  # (Z, D) unit length, one a scan
    text: Floats  # (S, D) unit length
    num_left_out: int = 0  # snippets of scans with fewer than two cells

    def curves(self, order: NDArray[np.intp] | None = None) -> Floats:
        """Cosines of each snippet with the cells of its scan.

        Args:
            order: (S,) snippet i takes the words of snippet `order[i]`; None = its own.

        Returns:
            (S, Z), NaN where there is no cell.
        """
        text = self.text if order is None else self.text[order]
        out = np.full(self.grid.valid.shape, np.nan)
        for number, vectors in enumerate(self.vectors):
            rows = np.flatnonzero(self.scan == number)
            out[rows, : len(vectors)] = text[rows] @ vectors.T
        return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What curves say beside their peak."""

    mass: Floats  # (S, Z) sums to 1
    intervals_mm: tuple[Floats, ...]  # one (S, 2) a level of LEVELS
    flat_p: Floats  # (S,) above scores.depth.FLAT_ABOVE: "cannot be localized"
    temperature: float
    facts: dict[str, str]  # where temperature and null come from


Cells = Mapping[str, tuple[Floats, Floats]]  # volume -> (Z, D) unit length, (Z,) mm rising


def cells_of(model: Any, cohort: Cohort, volume_ids: Sequence[str]) -> Cells:
    """Embed the depths of scans.

    A depth cell is all tokens whose centres have one z (to .001 mm); it is their mean.

    Args:
        model: A `TokenModel`.
        cohort: With the scans.
        volume_ids: Which; each is embedded once.

    Returns:
        Direction and depth of each cell.

    Raises:
        ProtocolError: Tokens and centres do not fit, or an embedding has no direction.
    """
    names = sorted(set(volume_ids))
    told = _tokens(model, cohort, names) if names else ()
    return {name: _cells(name, *held) for name, held in zip(names, told, strict=True)}


def planes_of(model: Any, cells: Cells, snippets: Snippets) -> Planes | None:
    """Put snippets beside the depths of their scans.

    Args:
        model: A `TokenModel`; embeds the snippets.
        cells: From `cells_of`, of all their scans.
        snippets: Of one split.

    Returns:
        The planes; None = no snippet is left.

    Raises:
        ProtocolError: An embedding has no direction.
    """
    names = sorted(set(snippets.volume_ids))
    kept = [name for name in names if len(cells[name][1]) > 1]
    rows = [i for i, name in enumerate(snippets.volume_ids) if name in set(kept)]
    if not rows:
        return None
    some = snippets.taken(rows)
    number = {name: i for i, name in enumerate(kept)}
    centres = np.full((len(rows), max(len(cells[name][1]) for name in kept)), np.nan)
    for row, name in zip(centres, some.volume_ids, strict=True):
        row[: len(cells[name][1])] = cells[name][1]
    return Planes(
        snippets=some,
        grid=DepthGrid.of(centres, np.isfinite(centres)),
        scan=np.array([number[name] for name in some.volume_ids], dtype=np.intp),
        vectors=tuple(cells[name][0] for name in kept),
        text=text_rows(model, some.texts),
        num_left_out=len(snippets) - len(rows),
    )


def text_rows(model: Any, texts: Sequence[str]) -> Floats:
    """Embed sentences in the space of a model's places, each wording once.

    Args:
        model: As for `planes_of`.
        texts: S sentences.

    Returns:
        (S, D) unit length.

    Raises:
        ProtocolError: An embedding has no direction.
    """
    distinct = sorted(set(texts))
    embed = getattr(model, "embed_snippets", model.embed_text)
    numbers = [f"number {i}" for i in range(len(distinct))]  # words stay out of messages
    rows = unit_rows(embed(distinct), numbers, what="sentence").astype(np.float64)
    row_of = {text: i for i, text in enumerate(distinct)}
    return rows[[row_of[text] for text in texts]]


def read(model: Any, cohort: Cohort, planes: Planes, dev: Snippets, *, split: str) -> Reading:
    """Turn curves into intervals, and say which are flat; both are set up on dev.

    The temperature is the one of `TEMPERATURES` under which the true cells of dev are likeliest.
    Flat is what stands out no more than curves of dev sentences that have no place.

    Args:
        model: As for `planes_of`.
        cohort: With dev.
        planes: Of the evaluated split.
        dev: Snippets of dev.
        split: Name of dev.

    Returns:
        The reading.

    Raises:
        ProtocolError: As `cells_of`.
    """
    free = unplaced_of(cohort, split, preparation=preparation_of(model))
    cells = cells_of(model, cohort, (*dev.volume_ids, *free.volume_ids))
    temperature, told = _temperature(model, planes_of(model, cells, dev))
    nowhere = planes_of(model, cells, free)
    curves, null = planes.curves(), None
    if nowhere is not None and len(nowhere.snippets) >= MIN_NULL:
        null = peak_to_spread(nowhere.curves(), nowhere.grid)
    mass = depth_mass(curves, planes.grid, temperature=temperature)
    return Reading(
        mass=mass,
        intervals_mm=tuple(densest_interval(mass, planes.grid, level) for level in LEVELS),
        flat_p=flat_p(curves, planes.grid, null=null),
        temperature=temperature,
        facts={
            "temperature": f"{temperature:.4g}: {told}",
            "flat_null": "white noise" if null is None else f"{len(null)} {split} sentences",
        },
    )


def preparation_of(model: Any) -> str | None:
    """Name the preparation that a model reads; None = it does not say."""
    return getattr(getattr(model, "preparation", None), "name", None)


def _tokens(model: Any, cohort: Cohort, names: Sequence[str]) -> Sequence[tuple[Rows, Floats]]:
    """Tokens and centres of volumes, many at once where a model can."""
    many = getattr(model, "embed_volume_tokens", None)
    if many is not None:
        found: Sequence[tuple[Rows, Floats]] = many(cohort, names)
        return found
    preparation = preparation_of(model)
    return [model.embed_tokens(cohort.volume(name, preparation)) for name in names]


def _cells(name: str, tokens: Rows, centres_mm: Floats) -> tuple[Floats, Floats]:
    """Mean token of each depth (Z, D), unit length, and the depths (Z,), rising."""
    values, centres = np.asarray(tokens, dtype=np.float64), np.asarray(centres_mm)
    if values.ndim != 2 or centres.shape != (len(values), 3) or not np.isfinite(centres).all():
        raise ProtocolError(
            f"volume {name}: tokens of shape {values.shape}, centres of shape {centres.shape}",
            expected="(L, D) and (L, 3), centres finite",
            fix="give one centre (z, y, x) in LPS mm for each token",
        )
    depths, which = np.unique(np.round(centres[:, 0], 3), return_inverse=True)
    total = np.zeros((len(depths), values.shape[1]))
    np.add.at(total, which, values)
    means = total / np.bincount(which)[:, None]
    return unit_rows(means, [name] * len(depths), what="depth").astype(np.float64), depths


def _temperature(model: Any, dev: Planes | None) -> tuple[float, str]:
    """A temperature and where it comes from."""
    if dev is not None:
        cell = dev.grid.cells_of(dev.snippets.z_mm[:, 0])
        rows = np.flatnonzero(cell >= 0)
        curves = dev.curves()
        tried = [
            depth_mass(curves, dev.grid, temperature=t)[rows, cell[rows]] for t in TEMPERATURES
        ]
        likely = [float(np.sort(np.log(np.maximum(p, 1e-12))).sum()) for p in tried]
        return TEMPERATURES[int(np.argmax(likely))], f"fitted on {len(rows)} dev sentences"
    scale = getattr(model, "logit_scale", None)
    return (UNFITTED, "our choice") if scale is None else (1.0 / float(scale), "the model's own")
