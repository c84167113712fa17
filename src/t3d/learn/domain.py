"""Is a scan like the ones a checkpoint was trained on? A rule on coarse image features.

A prepared volume becomes 8 x 8 x 8 block means and deviations of HU clipped to [-1000, 1000].
Principal directions of training volumes give two distances: along the directions
(Mahalanobis) and off them (residual). Each is divided by its limit, the 99 % quantile of
training volumes that the directions were not fitted on (four folds). Two things are checked
beside them: the size in mm, which a grid resized to a fixed shape does not show, and whether
the mirrored scan fits the training scans better than the scan itself. The score is the largest
of these, each divided by its limit, so 1 is the threshold of the whole rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.store import Cohort
from t3d.types import Volume

CELLS = 8  # per axis
NUM_DIRECTIONS = 32
FIT_VOLUMES = 600
FOLDS = 4
QUANTILE = 0.99  # of held-out training volumes; so about 1 % of them exceed each limit
EXTENT_MARGIN = 0.05  # of the largest size seen in training, added at both ends
MIRROR_RATIO = 0.9
"""A scan is called mirrored where its mirror image lies this much nearer to the directions.

Chosen on held-out training phantoms, 40 of them: seen rightly none has a ratio below 1.09, so
mirrored none has one above 1 / 1.09 = 0.92. A scan of another kind fits neither way: about 1.
"""
MIRRORED = ("head to foot", "front to back", "left to right")  # axes z, y, x

Floats = NDArray[np.float32]


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
    row: NDArray[np.float32] = np.concatenate([mean.ravel(), deviation.ravel()]).astype(np.float32)
    return row


def extent_mm(volume: Volume) -> NDArray[np.float32]:
    """Give a volume's size in mm, (z, y, x)."""
    spacing = np.linalg.norm(volume.world_from_voxel[:3, :3], axis=0)
    size: NDArray[np.float32] = (spacing * volume.voxels.shape).astype(np.float32)
    return size


def fit_rule(cohort: Cohort, preparation: str, volume_ids: Sequence[str]) -> DomainRule:
    """Fit the rule on up to 600 training volumes, one of them in memory at a time.

    The directions come from all of them, the limits from distances to the directions of three
    quarters, measured on the fourth.

    Args:
        cohort: Holds the volumes.
        preparation: Name of the grid the model eats.
        volume_ids: Of the training split; the first 600 in order of their ids are taken.

    Returns:
        The rule; with fewer than about 100 volumes its limits are rough.
    """
    rows, sizes = [], []
    for volume_id in sorted(volume_ids)[:FIT_VOLUMES]:
        volume = cohort.volume(volume_id, preparation)
        rows.append(features(volume))
        sizes.append(extent_mm(volume))
    return rule_from(np.stack(rows), np.stack(sizes))


def rule_from(table: Floats, sizes_mm: Floats) -> DomainRule:
    """Fit the rule on the features (N, P) and the sizes (N, 3) of N training volumes."""
    rule = _directions(table, sizes_mm)
    fold = np.arange(len(table)) % min(FOLDS, max(len(table), 1))
    held = []
    for k in range(int(fold.max()) + 1):
        others = table[fold != k] if fold.any() else table
        part = _directions(others, sizes_mm)
        held += [_distances(part, row) for row in table[fold == k]]
    limits = np.maximum(np.quantile(held, QUANTILE, axis=0), 1e-6)
    return replace(rule, limits=limits.astype(np.float32))


def judge(rule: DomainRule, volume: Volume) -> DomainVerdict:
    """Say whether a prepared volume is like the training volumes, and why not."""
    row, size = features(volume), extent_mm(volume)
    found = [
        *_unlike(rule, row),
        *(_mirrored(rule, row, axis) for axis in range(3)),
        *(_size(rule, size, axis) for axis in range(3)),
    ]
    reasons = tuple(reason for ratio, reason in found if ratio > 1.0)
    return DomainVerdict(
        inside=not reasons, score=max(ratio for ratio, _ in found), reasons=reasons
    )


def _unlike(rule: DomainRule, row: Floats) -> list[tuple[float, str]]:
    """Both distances over their limits, with what it means to lie beyond."""
    along, off = _distances(rule, row) / rule.limits
    return [
        (float(along), f"anatomy or density unlike the training scans ({along:.1f} x the limit)"),
        (float(off), f"a pattern no training scan shows ({off:.1f} x the limit)"),
    ]


def _mirrored(rule: DomainRule, row: Floats, axis: int) -> tuple[float, str]:
    """How much nearer than allowed the mirror image lies, with what that means."""
    image = np.flip(row.reshape(2, CELLS, CELLS, CELLS), axis=1 + axis).ravel()
    ratio = _distances(rule, image)[1] / max(_distances(rule, row)[1], 1e-6)
    reason = f"fits the training scans better mirrored {MIRRORED[axis]}: check its orientation"
    return float(MIRROR_RATIO / max(ratio, 1e-6)), reason


def _size(rule: DomainRule, size: Floats, axis: int) -> tuple[float, str]:
    """Distance from the middle of the sizes allowed, 1 at both ends, with the words."""
    low, high = (float(end[axis]) for end in rule.extent_mm)
    ratio = abs(float(size[axis]) - (low + high) / 2) / ((high - low) / 2)
    return ratio, f"{'zyx'[axis]} size {size[axis]:.0f} mm, trained on {low:.0f} to {high:.0f} mm"


def _directions(table: Floats, sizes_mm: Floats) -> DomainRule:
    """Directions and range of sizes, the limits still 1."""
    mean = table.mean(0)
    _, singular, rows = np.linalg.svd(table - mean, full_matrices=False)
    kept = min(NUM_DIRECTIONS, len(rows), max(1, len(table) // 4))
    deviation = singular[:kept] / np.sqrt(max(len(table) - 1, 1))
    low, high = sizes_mm.min(0), sizes_mm.max(0)
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
