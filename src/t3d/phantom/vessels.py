"""Trees of lung vessels: arrays grown level by level, all branches of a level at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.shapes import At
from t3d.phantom.streams import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.phantom.body import Body
    from t3d.phantom.canvas import Canvas
    from t3d.phantom.shapes import Field

    Points = NDArray[np.float32]

TARGETS = 512  # places in each lung that its tree must reach; a power of 2
CANDIDATES = 4096
TIP_MM = 0.6  # radius of the last branches
MURRAY = 0.36  # radius = tip x (number of tips)^this; Murray's law says 1/3
GOLDEN = 2.39996  # radians; points of a disk that never line up


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Branches of one order: bent tubes from start over middle to end."""

    start: Points  # (K, 3) z y x mm
    middle: Points  # (K, 3)
    end: Points  # (K, 3)
    radius: Points  # (K,) mm at the start


def hilum(body: Body, side: int) -> tuple[float, float, float]:
    """Give where vessels and bronchi enter a lung; side -1 = right, +1 = left."""
    z = 0.535 if side < 0 else 0.55
    return z * body.height, 0.14 * body.cage_y, side * 0.34 * body.cage_x


def grow(seed: int, body: Body) -> list[Level]:
    """Grow a tree in each lung that fills it evenly.

    Each branch serves a set of targets: it runs part of the way to their mean, then the set
    is halved across its longest axis and two branches go on. All branches of an order are
    arrays, so a level costs a few calls.

    Args:
        seed: The patient's seed; the stream is "vessels".
        body: Where the hila lie and how far the lungs reach.

    Returns:
        Levels of 2 x 2, 2 x 4, ... 2 x TARGETS branches, patient's axes.
    """
    rng = stream(seed, "vessels")
    sets = _targets(rng, body)  # (2, TARGETS, 3)
    start = np.array([hilum(body, -1), hilum(body, 1)], np.float32)
    levels = []
    while sets.shape[1] > 1:
        sets = _halve(sets)
        start = np.repeat(start, 2, axis=0)
        count = sets.shape[1]
        middle_of_set = sets.mean(axis=1)
        share = np.float32(1.0 if count == 1 else 0.5)
        end = start + share * (middle_of_set - start)
        bend = rng.standard_normal(end.shape, dtype=np.float32)
        bend *= np.float32(0.10) * np.linalg.norm(end - start, axis=1, keepdims=True)
        radius = TIP_MM * count**MURRAY * (0.85 + 0.3 * rng.random(len(end)))
        levels.append(
            Level(
                start=start,
                middle=np.float32(0.5) * (start + end) + bend,
                end=end,
                radius=radius.astype(np.float32),
            )
        )
        start = end
    return levels


def _targets(rng: np.random.Generator, body: Body) -> Points:
    """Draw places spread evenly over each lung, (2, TARGETS, 3): right, then left."""
    unit = rng.random((CANDIDATES, 3), dtype=np.float32)
    z = unit[:, 0] * np.float32(0.92 * body.height)
    y = (2 * unit[:, 1] - 1) * np.float32(body.cage_y)
    x = (2 * unit[:, 2] - 1) * np.float32(body.cage_x)
    points = np.stack([z, y, x], axis=1)
    inside = body.lung(At(z, y, x)) < -2
    sides = [points[inside & (x < 0)], points[inside & (x > 0)]]
    return np.stack([np.resize(side, (TARGETS, 3)) for side in sides])


def _halve(sets: Points) -> Points:
    """Split each set of places across its longest axis: (K, N, 3) -> (2K, N/2, 3)."""
    count = sets.shape[1]
    rows = np.arange(len(sets))[:, None]
    longest = np.argmax(sets.max(axis=1) - sets.min(axis=1), axis=1)
    key = sets[rows, np.arange(count)[None], longest[:, None]]
    ordered: Points = sets[rows, np.argsort(key, axis=1)]
    return ordered.reshape(2 * len(sets), count // 2, 3)


def splat(canvas: Canvas, levels: list[Level]) -> Field:
    """Give the share of each voxel that vessels fill.

    Every branch becomes points that carry the volume of their piece of the tube
    (pi r^2 ds); each point is shared among the 8 voxels around it. Where voxels are
    finer than the tube, points spread over its cross-section.

    Args:
        canvas: Grid and pose.
        levels: The trees.

    Returns:
        float32 opacity 0..1, (z, y, x).
    """
    shape = canvas.hu.shape
    parts = [_points(canvas, level) for level in levels]
    vox = canvas.voxels(np.concatenate([points for points, _ in parts]))
    volume = np.concatenate([mm3 for _, mm3 in parts])
    inside = np.all((vox > -1) & (vox < np.array(shape, np.float32)), axis=1)
    total = _deposit(shape, vox[inside], volume[inside])
    pitch = canvas.pitch
    total *= np.float32(1 / (pitch.z * pitch.y * pitch.x))
    return np.minimum(total, 1, out=total)


def _points(canvas: Canvas, level: Level) -> tuple[Points, Points]:
    """Sample the branches of a level; the volume of each point, mm^3."""
    fine = float(min(canvas.pitch))
    legs = np.concatenate([level.middle - level.start, level.end - level.middle])
    origin = np.concatenate([level.start, level.middle])
    length = np.linalg.norm(legs, axis=1)
    steps = max(3, int(float(length.mean()) / (0.6 * fine)))
    t = ((np.arange(steps) + 0.5) / steps).astype(np.float32)
    taper = np.concatenate([level.radius, level.radius * np.float32(0.9)])[:, None]
    radius = taper * (1 - np.float32(0.1) * t)  # (2K, steps)
    centre = origin[:, None] + legs[:, None] * t[:, None]
    volume = np.pi * radius**2 * (length[:, None] / steps)
    disk = max(1, int(np.ceil((2.2 * float(level.radius.mean()) / fine) ** 2)))
    if disk == 1:
        return centre.reshape(-1, 3), volume.ravel().astype(np.float32)
    across = _across(legs)  # (2, 2K, 3)
    k = np.arange(disk, dtype=np.float32)
    rho = np.sqrt((k + np.float32(0.5)) / disk)
    u = (rho * np.cos(np.float32(GOLDEN) * k))[:, None, None]
    v = (rho * np.sin(np.float32(GOLDEN) * k))[:, None, None]
    offset = (u * radius)[..., None] * across[0][:, None]  # (disk, 2K, steps, 3)
    offset += (v * radius)[..., None] * across[1][:, None]
    spread = np.broadcast_to(volume / disk, (disk, *volume.shape))
    return (centre + offset).reshape(-1, 3), spread.ravel().astype(np.float32)


def _across(legs: Points) -> Points:
    """Give two unit vectors square to each leg."""
    unit = legs / np.linalg.norm(legs, axis=1, keepdims=True)
    other = np.where(np.abs(unit[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 1.0, 0]])
    first = np.cross(unit, other)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return np.stack([first, np.cross(unit, first)]).astype(np.float32)


def _deposit(shape: tuple[int, ...], vox: Points, volume: Points) -> Field:
    """Share each point among its 8 neighbours (linear weights); outside ones are dropped."""
    padded = tuple(n + 2 for n in shape)  # a rim of one voxel catches what falls outside
    low = np.floor(vox)
    up = vox - low
    index = low.astype(np.intp) + 1
    flat = (index[:, 0] * padded[1] + index[:, 1]) * padded[2] + index[:, 2]
    strides = (padded[1] * padded[2], padded[2], 1)
    places, weights = [flat], [volume]
    for axis, stride in enumerate(strides):
        share = up[:, axis]
        weights = [part for w in weights for part in (w * (1 - share), w * share)]
        places = [part for p in places for part in (p, p + stride)]
    size = padded[0] * padded[1] * padded[2]
    summed = np.bincount(np.concatenate(places), weights=np.concatenate(weights), minlength=size)
    inner: Field = summed.reshape(padded)[1:-1, 1:-1, 1:-1].astype(np.float32)
    return inner
