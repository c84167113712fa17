"""Is a scan like the ones a checkpoint was trained on? A rule on coarse image features.

A prepared volume becomes 8 x 8 x 8 block means and deviations of HU clipped to [-1000, 1000].
Principal directions of training volumes give two distances: along the directions
(Mahalanobis) and off them (residual). The score is the larger of both, each divided by its
99 % quantile on volumes the directions were not fitted on, so 1 is the threshold. The size of
the scan in mm is checked beside it: a grid resized to a fixed shape does not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.store import Cohort
from t3d.types import Volume

CELLS = 8  # per axis
NUM_DIRECTIONS = 32
FIT_VOLUMES = 600
QUANTILE = 0.99  # of held-out training volumes; so about 1 % of them are called foreign
EXTENT_MARGIN = 0.05  # of the range of sizes seen in training


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRule:
    """The rule and its thresholds."""

    mean: NDArray[np.float32]  # (P,)
    directions: NDArray[np.float32]  # (K, P)
    deviation: NDArray[np.float32]  # (K,)
    limits: NDArray[np.float32]  # (2,) quantile of the distance along and off the directions
    extent_mm: NDArray[np.float32]  # (2, 3) smallest and largest size, (z, y, x)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainVerdict:
    """What the rule says of one scan."""

    inside: bool
    score: float  # 1 = the threshold, more = further away
    reasons: tuple[str, ...]


def features(volume: Volume) -> NDArray[np.float32]:
    """Describe a prepared volume by 8 x 8 x 8 block means, then deviations; (1024,)."""
    values = np.clip(volume.voxels.astype(np.float32) / 1000.0, -1.0, 1.0)
    mean = _block_mean(values)
    square = _block_mean(values * values)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0.0))
    parts = [mean.ravel(), deviation.ravel()]
    row: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return row


def extent_mm(volume: Volume) -> NDArray[np.float32]:
    """Give a volume's size in mm, (z, y, x)."""
    spacing = np.linalg.norm(volume.world_from_voxel[:3, :3], axis=0)
    size: NDArray[np.float32] = (spacing * volume.voxels.shape).astype(np.float32)
    return size


def fit_rule(cohort: Cohort, preparation: str, volume_ids: Sequence[str]) -> DomainRule:
    """Fit the rule on up to 600 training volumes; every fourth only sets the thresholds."""
    chosen = sorted(volume_ids)[:FIT_VOLUMES]
    volumes = [cohort.volume(volume_id, preparation) for volume_id in chosen]
    table = np.stack([features(volume) for volume in volumes])
    extents = np.stack([extent_mm(volume) for volume in volumes])
    held = np.arange(len(table)) % 4 == 3
    held = held if held.any() else np.ones(len(table), dtype=bool)
    rule = _directions(table[~held] if (~held).any() else table, extents)
    distances = np.stack([_distances(rule, row) for row in table[held]])
    limits = np.maximum(np.quantile(distances, QUANTILE, axis=0), 1e-6).astype(np.float32)
    return DomainRule(
        mean=rule.mean,
        directions=rule.directions,
        deviation=rule.deviation,
        limits=limits,
        extent_mm=rule.extent_mm,
    )


def judge(rule: DomainRule, volume: Volume) -> DomainVerdict:
    """Say whether a prepared volume is like the training volumes, and why not."""
    along, off = _distances(rule, features(volume)) / rule.limits
    reasons = []
    if along > 1.0:
        reasons.append(f"anatomy or density unlike the training scans ({along:.1f} x the limit)")
    if off > 1.0:
        reasons.append(f"a pattern no training scan shows ({off:.1f} x the limit)")
    for axis, size, low, high in zip("zyx", extent_mm(volume), *rule.extent_mm, strict=True):
        if not low <= size <= high:
            reasons.append(f"{axis} size {size:.0f} mm, trained on {low:.0f} to {high:.0f} mm")
    return DomainVerdict(inside=not reasons, score=float(max(along, off)), reasons=tuple(reasons))


def _directions(table: NDArray[np.float32], extents: NDArray[np.float32]) -> DomainRule:
    mean = table.mean(0)
    _, singular, rows = np.linalg.svd(table - mean, full_matrices=False)
    kept = min(NUM_DIRECTIONS, len(rows), max(1, len(table) // 4))
    deviation = singular[:kept] / np.sqrt(max(len(table) - 1, 1))
    low, high = extents.min(0), extents.max(0)
    margin = EXTENT_MARGIN * high
    return DomainRule(
        mean=mean,
        directions=rows[:kept],
        deviation=np.maximum(deviation, 1e-6),
        limits=np.ones(2, dtype=np.float32),
        extent_mm=np.stack([low - margin, high + margin]),
    )


def _distances(rule: DomainRule, row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give the distance along and off the directions."""
    centred = row - rule.mean
    along = rule.directions @ centred
    off = centred - along @ rule.directions
    mahalanobis = np.sqrt(np.mean((along / rule.deviation) ** 2))
    return np.array([mahalanobis, np.linalg.norm(off)], dtype=np.float64)


def _block_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average over 8 parts of each axis; parts are as equal as whole voxels allow."""
    for axis in range(3):
        edges = np.linspace(0, values.shape[axis], CELLS + 1).round().astype(int)
        counts = np.maximum(np.diff(edges), 1)
        starts = np.minimum(edges[:-1], values.shape[axis] - 1)
        sums = np.add.reduceat(values, starts, axis=axis)
        per_part = counts.reshape([-1 if i == axis else 1 for i in range(3)])
        values = (sums / per_part).astype(np.float32)
    return values
