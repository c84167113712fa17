"""A patient being painted: canvas, sizes, tissue values and the fields that painters share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import FAR_MM
from t3d.phantom.noise import SmoothNoise, draw_noise
from t3d.phantom.shapes import opacity
from t3d.phantom.streams import stream, uniform

if TYPE_CHECKING:
    from t3d.phantom.body import Body
    from t3d.phantom.canvas import Canvas, Window
    from t3d.phantom.grids import Frame
    from t3d.phantom.shapes import Field


WALL_MM = 16.0
"""How far the window `Scene.chest` reaches beyond the cage: ribs and muscle (our choice)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tissue:
    """HU of the tissues of one patient."""

    contrast: bool  # iodine was given
    blood: float
    fat: float
    muscle: float
    heart: float
    liver: float
    spleen: float
    lung: float
    bone: float  # ribs
    spongy: float  # inside of the vertebrae
    airway_wall: float
    swallowed_air: bool  # in the esophagus


def draw_tissue(seed: int, *, contrast: bool) -> Tissue:
    """Draw tissue values; those that iodine changes have a stream of their own.

    Args:
        seed: The patient's seed.
        contrast: Whether iodine was given.
    """
    rng, iodine = stream(seed, "tissue"), stream(seed, "iodine")
    blood = uniform(iodine, 130, 220) if contrast else uniform(iodine, 35, 50)
    liver = uniform(iodine, 95, 120) if contrast else uniform(iodine, 50, 68)
    muscle_of_heart = 95.0 if contrast else blood - uniform(iodine, 10, 25)
    return Tissue(
        contrast=contrast,
        blood=blood,
        fat=uniform(rng, -115, -90),
        muscle=uniform(rng, 40, 60),
        heart=muscle_of_heart,
        liver=liver,
        spleen=liver - uniform(iodine, 5, 15),
        lung=uniform(rng, -875, -815),
        bone=uniform(rng, 330, 450),
        spongy=uniform(rng, 170, 230),
        airway_wall=uniform(rng, 20, 35),
        swallowed_air=uniform(rng, 0, 1) < 0.4,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Textures:
    """The smooth fields that every patient has; streams by name."""

    outline: SmoothNoise  # 70 mm: wobble of the skin, planes between muscles
    coarse: SmoothNoise  # 28 mm: lung
    fine: SmoothNoise  # 14 mm: lung


def draw_textures(seed: int, frame: Frame) -> Textures:
    """Draw the fields of one patient."""
    return Textures(
        outline=draw_noise(stream(seed, "noise/outline"), frame, 70.0),
        coarse=draw_noise(stream(seed, "noise/coarse"), frame, 28.0),
        fine=draw_noise(stream(seed, "noise/fine"), frame, 14.0),
    )


class Scene:
    """What painters read: made once for a patient and a grid.

    The fields hold inside the window `chest`; beyond it cage_mm is far and lung is 0.
    """

    __slots__ = ("body", "cage_mm", "canvas", "chest", "lung", "rise_mm", "textures", "tissue")

    def __init__(self, canvas: Canvas, body: Body, tissue: Tissue, textures: Textures) -> None:
        self.canvas = canvas
        self.body = body
        self.tissue = tissue
        self.textures = textures
        b, a = body.cage_y + WALL_MM, body.cage_x + WALL_MM
        none = (slice(0, 0), slice(0, 0), slice(0, 0))
        self.chest: Window = canvas.window((0.0, -b, -a), (body.height, b, a)) or none
        at, shape = canvas.at(self.chest), canvas.hu.shape
        cage, rise = body.cage(at), body.rise(at)
        inside = np.maximum(cage, -rise)
        inside = np.maximum(inside, -body.mediastinum(at), out=inside)
        self.cage_mm: Field = np.full(shape, FAR_MM, np.float32)  # distance to the chest wall
        self.rise_mm: Field = np.zeros(shape, np.float32)  # distance above the diaphragm
        self.lung: Field = np.zeros(shape, np.float32)  # cover, before anything lies on it
        self.cage_mm[self.chest] = cage
        self.rise_mm[self.chest] = rise
        self.lung[self.chest] = opacity(inside, canvas.width)
