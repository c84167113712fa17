"""Grids the image encoder eats, read box by box: stem channels or windowed voxels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.store import Cohort
from t3d.errors import StoreError
from t3d.learn import codec
from t3d.learn.recipe import Recipe
from t3d.model.encoders.statstem import StatStem, standardise
from t3d.types import Volume, Zyx

FIT_VOLUMES = 600  # training volumes that a stem's maps are taken from
BODY_HU = -500


class Grids(Protocol):
    """Where views are cut from."""

    @property
    def full_vox(self) -> Zyx[int]:
        """Size of the full grid in cells."""
        ...

    def read(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> NDArray[np.float32]:
        """Give one box, (channels, z, y, x)."""
        ...

    def box_mm(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> NDArray[np.float32]:
        """Give the box's voxel edges, (2, 3) as (z, y, x), LPS mm."""
        ...

    def body_share(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> float:
        """Give the share of a box that is body (above -500 HU)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StemMaps:
    """Mean and deviation of each stem channel at each place over training volumes."""

    mean: NDArray[np.float32]  # (channels, z, y, x)
    sd: NDArray[np.float32]


class Worlds:
    """Index-to-world matrices of a cohort's volumes, read from the table once each."""

    def __init__(self, cohort: Cohort, preparation: str) -> None:
        self.cohort = cohort
        self.preparation = preparation
        self._known: dict[str, NDArray[np.float64]] = {}

    def __getitem__(self, volume_id: str) -> NDArray[np.float64]:
        if volume_id not in self._known:
            self._known[volume_id] = self.cohort.world_from_voxel(volume_id, self.preparation)
        return self._known[volume_id]


class StemGrids:
    """Cached channels of a parameter-free stem, standardised by the maps."""

    def __init__(self, cohort: Cohort, config: StatStem, preparation: str, maps: StemMaps) -> None:
        self.config = config
        self.maps = maps
        self.cohort = cohort
        self.preparation = preparation
        self.worlds = Worlds(cohort, preparation)
        self.cache, self.rows = stem_cache(cohort, config, preparation)

    @property
    def full_vox(self) -> Zyx[int]:
        """Size of the full grid in cells."""
        return self.config.grid

    def read(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> NDArray[np.float32]:
        """Give one box of standardised channels, (channels, z, y, x)."""
        box = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
        raw = self.cache[self.rows[volume_id]][box].astype(np.float32)
        return standardise(raw, self.maps.mean[box], self.maps.sd[box])

    def box_mm(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> NDArray[np.float32]:
        """Give the box's voxel edges, (2, 3) as (z, y, x), LPS mm."""
        return box_edges(self.worlds[volume_id], low, high, self.config.block)

    def body_share(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> float:
        """Give the share of a box that is body (above -500 HU)."""
        corners = [
            Zyx(*(n * c for n, c in zip(corner, self.config.block, strict=True)))
            for corner in (low, high)
        ]
        voxels = self.cohort.crop(volume_id, corners[0], corners[1], self.preparation)
        return float((voxels > BODY_HU).mean())


class VoxelGrids:
    """HU windows of the prepared voxels, scaled to [0, 1]."""

    def __init__(self, cohort: Cohort, recipe: Recipe) -> None:
        size = recipe.preparation.size_vox
        assert size is not None, "a recipe's preparation has a size"
        self.cohort = cohort
        self.recipe = recipe
        self._size = size
        self.worlds = Worlds(cohort, recipe.preparation.name)

    @property
    def full_vox(self) -> Zyx[int]:
        """Size of the full grid in voxels."""
        return self._size

    def read(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> NDArray[np.float32]:
        """Give one box, (windows, z, y, x) in [0, 1]."""
        voxels = self.cohort.crop(volume_id, low, high, self.recipe.preparation.name)
        return windowed(voxels, self.recipe.windows_hu)

    def box_mm(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> NDArray[np.float32]:
        """Give the box's voxel edges, (2, 3) as (z, y, x), LPS mm."""
        return box_edges(self.worlds[volume_id], low, high, Zyx(z=1, y=1, x=1))

    def body_share(self, volume_id: str, low: Zyx[int], high: Zyx[int]) -> float:
        """Give the share of a box that is body (above -500 HU)."""
        voxels = self.cohort.crop(volume_id, low, high, self.recipe.preparation.name)
        return float((voxels > BODY_HU).mean())


def windowed(
    voxels_hu: NDArray[np.int16], windows_hu: Sequence[tuple[int, int]]
) -> NDArray[np.float32]:
    """Scale HU to [0, 1] in each window: (z, y, x) to (windows, z, y, x)."""
    values = voxels_hu.astype(np.float32)
    scaled = [np.clip((values - low) / (high - low), 0.0, 1.0) for low, high in windows_hu]
    return np.stack(scaled).astype(np.float32)


def box_edges(
    world_from_voxel: NDArray[np.float64], low: Zyx[int], high: Zyx[int], cell: Zyx[int]
) -> NDArray[np.float32]:
    """Give a box's low and high edges, (2, 3) as (z, y, x) LPS mm; axes run to S, P, L.

    Check: identity spacing, low 0, high 2, cell 1 -> edges -0.5 and 1.5.
    """
    edges = np.array(
        [[n * c - 0.5 for n, c in zip(corner, cell, strict=True)] for corner in (low, high)]
    )
    world = edges @ world_from_voxel[:3, :3].T + world_from_voxel[:3, 3]  # (L, P, S)
    return world[:, ::-1].astype(np.float32)


def stem_of(volume: Volume, config: StatStem, maps: StemMaps) -> NDArray[np.float32]:
    """Give a prepared volume's standardised channels, (channels, z, y, x)."""
    return standardise(config.stem(volume.voxels), maps.mean, maps.sd)


def stem_cache(
    cohort: Cohort, config: StatStem, preparation: str
) -> tuple[NDArray[np.float16], dict[str, int]]:
    """Compute the stem of every volume once; later calls map the file into memory.

    The file's name holds a digest of the stem, the preparation and the volumes, so a cohort
    that grew gets a new one.

    Returns:
        (volumes, channels, z, y, x) float16, read-only, and each volume's row.
    """
    volume_ids = [row.volume_ids[0] for row in cohort.studies() if row.volume_ids]
    shape = (len(volume_ids), config.num_channels, *config.grid)
    path = cohort.path / "cache" / f"stem-{_stem_key(cohort, config, preparation)}.npy"
    if not path.exists():
        _write_cache(path, shape, cohort, config, preparation, volume_ids)
    cache = np.load(path, mmap_mode="r")
    if cache.shape != shape:
        raise StoreError(
            f"stem cache {path.name}: shape {cache.shape}",
            expected=str(shape),
            fix="delete the cohort's cache folder; it is made again",
        )
    return cache, {volume_id: row for row, volume_id in enumerate(volume_ids)}


def fit_maps(
    cohort: Cohort, config: StatStem, preparation: str, volume_ids: Sequence[str]
) -> StemMaps:
    """Take mean and deviation per place from the first 600 training volumes."""
    cache, rows = stem_cache(cohort, config, preparation)
    total = np.zeros(cache.shape[1:], dtype=np.float64)
    square = np.zeros_like(total)
    chosen = sorted(volume_ids)[:FIT_VOLUMES]
    for volume_id in chosen:
        channels = cache[rows[volume_id]].astype(np.float64)
        total += channels
        square += channels**2
    mean = total / len(chosen)
    variance = np.maximum(square / len(chosen) - mean**2, 0.0)
    return StemMaps(mean=mean.astype(np.float32), sd=np.sqrt(variance).astype(np.float32))


def _stem_key(cohort: Cohort, config: StatStem, preparation: str) -> str:
    settings = codec.digest({"stem": config, "preparation": preparation})
    return hashlib.sha256(f"{settings} {cohort.digest}".encode()).hexdigest()[:16]


def _write_cache(
    path: Path,
    shape: tuple[int, ...],
    cohort: Cohort,
    config: StatStem,
    preparation: str,
    volume_ids: Sequence[str],
) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        for volume_id in volume_ids:
            volume = cohort.volume(volume_id, preparation)
            file.write(config.stem(volume.voxels).astype("<f2").tobytes())
    temporary.replace(path)
