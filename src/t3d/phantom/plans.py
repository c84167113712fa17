"""A finding before it is painted: its item, its stage, and how to paint it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.body import LOBES, Body
from t3d.phantom.noise import SmoothNoise, draw_local_noise, draw_noise
from t3d.phantom.shapes import At, ellipsoid
from t3d.phantom.streams import uniform

if TYPE_CHECKING:
    from t3d.phantom.canvas import Mark, Window
    from t3d.phantom.grids import Frame
    from t3d.phantom.scene import Scene
    from t3d.phantom.shapes import Field
    from t3d.types import Item

Point = tuple[float, float, float]  # z, y, x in mm, patient's axes

MAX_HEART = 1.5
"""Places are kept clear of the largest heart, so that they do not depend on cardiomegaly."""

CANDIDATES = 600

POSE_MM = 18.0
"""How far turning, shift and sway of the pose move a place of the lungs."""


class Stage(IntEnum):
    """When a finding is painted; nothing lies over metal."""

    UNDER = 0  # lung textures: vessels stay visible on them
    OVER = 1  # dense parts of the lung
    FLUID = 2  # pleural effusion
    SAC = 3  # round the heart, before the heart
    MIDLINE = 4  # after the heart, before vessels and airway
    CALCIUM = 5
    METAL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One item and the function that paints it; all its random numbers are drawn already."""

    item: Item
    stage: Stage
    paint: Callable[[Scene], list[Mark]]
    count: int = 1
    extra: Mapping[str, float] = field(default_factory=dict)
    alter: Mapping[str, float] = field(default_factory=dict)  # fields of Body, by factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a planner reads; `body` is the patient without any finding."""

    rng: np.random.Generator
    large: bool
    body: Body
    frame: Frame
    contrast: bool

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between two."""
        return uniform(self.rng, low, high)

    def sized(self, large: tuple[float, float], small: tuple[float, float]) -> float:
        """Draw from the range of the form that this patient has."""
        return self.uniform(*(large if self.large else small))

    def count(self, large: tuple[int, int], small: tuple[int, int]) -> int:
        """Draw a whole number, both ends included."""
        low, high = large if self.large else small
        return int(self.rng.integers(low, high + 1))

    def chance(self, share: float) -> bool:
        """Say yes with a probability."""
        return bool(self.rng.random() < share)

    def pick(self, names: Sequence[str], count: int = 1) -> list[str]:
        """Choose different names."""
        return [names[int(k)] for k in self.rng.permutation(len(names))[:count]]

    def noise(self, length_mm: float) -> SmoothNoise:
        """Draw a smooth field over the whole patient."""
        return draw_noise(self.rng, self.frame, length_mm)

    def noise_around(self, centre: Point, reach_mm: float, length_mm: float) -> SmoothNoise:
        """Draw a smooth field round a place; the pose moves it by up to POSE_MM."""
        return draw_local_noise(self.rng, centre, (reach_mm + POSE_MM,) * 3, length_mm)


def point_at(point: Sequence[float] | Field) -> At:
    """Give one place as coordinates."""
    z, y, x = (np.array([v], np.float32) for v in point)
    return At(z, y, x)


def side_of(lobe: str) -> str:
    """Give the side of a lobe's name."""
    return "right" if lobe.startswith("R") else "left"


def place_in_lung(
    draw: Draw,
    *,
    depth_mm: float,
    lobes: Sequence[str] = LOBES,
    z_share: tuple[float, float] = (0.0, 1.0),
) -> tuple[Point, str]:
    """Draw a place inside the lungs.

    The first of 600 candidates wins that lies in an allowed lobe, between two heights and
    deep enough; where none does, the deepest one of the allowed lobes.

    Args:
        draw: Random numbers and the body.
        depth_mm: Least distance from chest wall, diaphragm, midline and the largest heart.
        lobes: Allowed lobes; one of them is drawn first, so that small lobes count.
        z_share: Lowest and highest z as shares of the patient's height.

    Returns:
        z, y, x in mm and the lobe's name.
    """
    body = draw.body
    lobe = draw.pick(lobes)[0]
    unit = draw.rng.random((CANDIDATES, 3), dtype=np.float32)
    span = z_share[1] - z_share[0]
    z = (np.float32(z_share[0]) + np.float32(span) * unit[:, 0]) * np.float32(body.height)
    y = (2 * unit[:, 1] - 1) * np.float32(body.cage_y)
    x = unit[:, 2] * np.float32(body.cage_x) * (-1 if side_of(lobe) == "right" else 1)
    at = At(z, y, x)
    big = replace(body, heart=MAX_HEART)
    heart = ellipsoid(at, big.heart_centre, big.heart_radii, big.heart_turn)
    depth = np.minimum(-body.lung(at), heart)
    depth = np.where(body.lobe(at) == LOBES.index(lobe), depth, depth - np.float32(1000))
    deep = np.flatnonzero(depth >= depth_mm)
    k = int(deep[0]) if len(deep) else int(np.argmax(depth))
    return (float(z[k]), float(y[k]), float(x[k])), lobe


def in_lobe(scene: Scene, window: Window, lobe: str) -> Field:
    """Give 1 where a window lies in a lobe and inside the lungs, else 0, times the cover."""
    at = scene.canvas.at(window)
    inside: Field = scene.lung[window] * (scene.body.lobe(at) == LOBES.index(lobe))
    return inside
