"""The sizes of one patient and the surfaces that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.shapes import EPSILON, At, blend
from t3d.phantom.streams import stream, uniform

if TYPE_CHECKING:
    from t3d.phantom.grids import Frame
    from t3d.phantom.shapes import Field

LOBES = ("RUL", "RML", "RLL", "LUL", "LLL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How the patient lies: turned about z, shifted, and bent along z."""

    shift_y: float  # mm
    shift_x: float
    sway_y: float  # mm, amplitude of one sine wave over the height
    sway_x: float
    phase: float  # radians
    turn: float  # radians about z


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """Sizes in mm in the patient's axes: z up from the box's edge, y back and x left of 0."""

    height: float  # of the box
    half_width: float  # of the body below the shoulders
    half_depth: float
    fat: float  # under the skin
    cage_x: float  # half width of the inner chest wall
    cage_y: float
    cage_low: float  # z below which the cage no longer widens
    apex: float  # z of the top of the lungs
    dome_right: float  # height of the diaphragm over its edge
    dome_left: float
    heart: float  # scale, about 1
    heart_turn: float  # radians
    aorta: float  # radius
    trunk: float  # radius of the pulmonary trunk
    trachea: float  # radius of the air
    wall: float  # thickness of the airway's wall
    rib_pitch: float
    rib_phase: float  # share of a pitch
    vertebra: float  # pitch of the spine
    vertebra_phase: float
    scapulae: bool
    breasts: bool

    def cage_scale(self, z: Field) -> Field:
        """Give the cage's width at a height as a share of its largest: sqrt(1 - t^3.2)."""
        share = (z - np.float32(self.cage_low)) / np.float32(self.apex - self.cage_low)
        power: Field = np.clip(share, 0, 1) ** np.float32(3.2)
        out: Field = np.sqrt(np.maximum(1 - power, np.float32(4e-4)))
        return out

    def cage_depth(self, z: Field) -> Field:
        """Give the cage's half depth at a height, mm: it narrows less than the width."""
        out: Field = self.cage_scale(z) * np.float32(0.65 * self.cage_y)
        out += np.float32(0.35 * self.cage_y)
        return out

    def cage(self, at: At) -> Field:
        """Give the distance to the inner chest wall along the ray from the midline, mm."""
        a = np.float32(1 / self.cage_x) / self.cage_scale(at.z)
        b = 1 / self.cage_depth(at.z)
        x2, y2 = at.x * at.x, at.y * at.y
        out: Field = np.sqrt(x2 + y2)
        x2 *= a * a
        y2 *= b * b
        x2 += y2
        f = np.sqrt(x2, out=x2)
        f += np.float32(EPSILON)
        out *= np.subtract(1, np.divide(1, f, out=f), out=f)
        np.maximum(out, at.z - np.float32(self.apex), out=out)
        return out

    def dome(self, at: At) -> Field:
        """Give the z of the diaphragm: one paraboloid a side, the right one higher."""
        x = np.abs(at.x)
        x -= np.float32(0.48 * self.cage_x)
        x *= np.float32(1 / (0.62 * self.cage_x))
        x *= x
        y = at.y * np.float32(1 / self.cage_y)
        y += np.float32(0.12)
        y *= y
        x += y
        out: Field = np.subtract(1, x, out=x)
        np.maximum(out, np.float32(-0.6), out=out)
        out *= np.float32(self.dome_right) + blend(at.x, -8.0, 8.0) * np.float32(
            self.dome_left - self.dome_right
        )
        out += np.float32(self.dome_base)
        return out

    @property
    def dome_base(self) -> float:
        """Height of the diaphragm's edge, mm."""
        return 0.075 * self.height

    def mediastinum(self, at: At) -> Field:
        """Give the distance to the midline tissue: wide at the arch, narrow in front, mm."""
        arch = (at.z * np.float32(1 / self.height) - np.float32(0.60)) * np.float32(1 / 0.17)
        half = np.float32(0.10) + np.float32(0.15) / (1 + arch * arch)
        front = blend(at.y, -0.95 * self.cage_y, -0.35 * self.cage_y)
        half = half * np.float32(self.cage_x) * (np.float32(0.22) + np.float32(0.78) * front)
        wing = np.abs(at.x - np.float32(0.03 * self.cage_x)) - half
        spine_y = at.y - np.float32(0.74 * self.cage_y)
        out: Field = np.minimum(wing, np.sqrt(at.x * at.x + spine_y * spine_y) - np.float32(25))
        return out

    def lung(self, at: At) -> Field:
        """Give the distance to the lungs: cage less diaphragm less midline, mm."""
        above = np.maximum(self.cage(at), -self.rise(at))
        return np.maximum(above, -self.mediastinum(at))

    def rise(self, at: At) -> Field:
        """Give the distance above the diaphragm (negative below); 0.8: it slopes, mm."""
        return (at.z - self.dome(at)) * np.float32(0.8)

    def fissure(self, y: Field) -> Field:
        """Give the z of the oblique fissure: high at the back, low in front."""
        slope = np.float32(0.22 * self.height / self.cage_y)
        return np.float32(0.42 * self.height) + y * slope

    def lobe(self, at: At) -> Field:
        """Give the index into LOBES at each place (inside or outside the lungs)."""
        lower = at.z < self.fissure(at.y)
        right = np.where(lower, 2, np.where(at.z < 0.46 * self.height, 1, 0))
        return np.where(at.x < 0, right, np.where(lower, 4, 3))

    @property
    def heart_centre(self) -> tuple[float, float, float]:
        """Middle of the heart, z y x in mm; a large heart grows to the left."""
        grown = max(self.heart - 1.0, 0.0)
        x = (0.15 + 0.20 * grown) * self.cage_x
        return (0.355 + 0.03 * grown) * self.height, -0.17 * self.cage_y, x

    @property
    def heart_radii(self) -> tuple[float, float, float]:
        """Half axes of the heart, z y x in mm before turning."""
        s = self.heart
        return 0.155 * self.height * s, 0.43 * self.cage_y * min(s, 1.3), 0.42 * self.cage_x * s

    @property
    def cardiothoracic_ratio(self) -> float:
        """Give the heart's width over the cage's: sqrt((a cos)^2 + (b sin)^2) / A."""
        _, b, a = self.heart_radii
        c, s = np.cos(self.heart_turn), np.sin(self.heart_turn)
        return float(np.hypot(a * c, b * s) / self.cage_x)


def draw_pose(seed: int) -> Pose:
    """Draw how a patient lies."""
    rng = stream(seed, "pose")
    return Pose(
        shift_y=uniform(rng, -4, 4),
        shift_x=uniform(rng, -4, 4),
        sway_y=uniform(rng, -4, 4),
        sway_x=uniform(rng, -5, 5),
        phase=uniform(rng, 0, 6.28),
        turn=uniform(rng, -0.07, 0.07),
    )


def draw_body(seed: int, frame: Frame, *, female: bool) -> Body:
    """Draw the sizes of a patient without findings.

    Args:
        seed: The patient's seed.
        frame: The box that the body fills; its height and width set the scale.
        female: Whether the chest carries breasts.

    Returns:
        A body; findings that change it (a large heart, flat domes) replace fields.
    """
    rng, organs = stream(seed, "body"), stream(seed, "organs")
    height, width = frame.extent_mm.z, frame.extent_mm.x
    half_width = uniform(rng, 0.405, 0.465) * width
    half_depth = uniform(rng, 0.66, 0.74) * half_width
    fat = uniform(rng, 4, 20) * half_width / 150
    dome = uniform(rng, 0.13, 0.19) * height
    return Body(
        height=height,
        half_width=half_width,
        half_depth=half_depth,
        fat=fat,
        cage_x=half_width - fat - 16,
        cage_y=half_depth - 0.8 * fat - 15,
        cage_low=uniform(rng, 0.10, 0.15) * height,
        apex=uniform(rng, 0.88, 0.94) * height,
        dome_right=dome * (1 + uniform(rng, 0.10, 0.22)),
        dome_left=dome,
        heart=uniform(organs, 0.90, 1.08),
        heart_turn=uniform(organs, 0.35, 0.70),
        aorta=uniform(organs, 11, 15),
        trunk=uniform(organs, 10, 13),
        trachea=uniform(organs, 7.5, 10),
        wall=uniform(organs, 1.0, 1.6),
        rib_pitch=uniform(rng, 22, 27),
        rib_phase=uniform(rng, 0, 1),
        vertebra=uniform(rng, 26, 31),
        vertebra_phase=uniform(rng, 0, 1),
        scapulae=uniform(rng, 0, 1) < 0.85,
        breasts=female,
    )
