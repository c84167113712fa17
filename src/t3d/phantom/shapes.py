"""Signed distances in mm (negative inside) and what makes them opacities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]

EPSILON = 1e-6


class At(NamedTuple):
    """Where something is evaluated: three arrays that broadcast, mm in the patient's axes."""

    z: Field
    y: Field
    x: Field


def opacity(distance: Field, width_mm: float) -> Field:
    """Turn a signed distance into the share of a voxel that is covered.

    Formula: clip(1/2 - d / w, 0, 1), w the mean voxel size.
    Check: d = 0 -> 0.5; d = -w/2 -> 1; d = w/4 -> 0.25.
    """
    out: Field = np.multiply(distance, np.float32(-1 / width_mm))
    out += np.float32(0.5)
    return np.clip(out, 0, 1, out=out)


def ellipsoid(at: At, centre: Sequence[float], radii: Sequence[float], turn: float = 0.0) -> Field:
    """Give the approximate distance to an ellipsoid: f (f - 1) / |grad f|, exact for a ball.

    Args:
        at: Where.
        centre: z, y, x in mm.
        radii: Half axes z, y, x in mm, before turning.
        turn: Rotation about z in radians; positive carries x towards y.
    """
    z = at.z - np.float32(centre[0])
    y = at.y - np.float32(centre[1])
    x = at.x - np.float32(centre[2])
    if turn:
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        y, x = c * y - s * x, s * y + c * x
    z2, y2, x2 = z * z, y * y, x * x
    a, b, c2 = (np.float32(1 / (r * r)) for r in radii)
    f = np.sqrt(z2 * a + y2 * b + x2 * c2)
    g = np.sqrt(z2 * (a * a) + y2 * (b * b) + x2 * (c2 * c2))
    out: Field = (f * (f - 1) - np.float32(EPSILON)) / (g + np.float32(EPSILON))
    return out


def segment(
    at: At, start: Sequence[float], end: Sequence[float], radii: tuple[float, float]
) -> Field:
    """Give the distance to a round tube between two points, its radius changing linearly.

    Args:
        at: Where.
        start: z, y, x in mm.
        end: z, y, x in mm.
        radii: At the start and at the end, mm.
    """
    dz, dy, dx = (e - s for s, e in zip(start, end, strict=True))
    length2 = dz * dz + dy * dy + dx * dx + EPSILON
    z = at.z - np.float32(start[0])
    y = at.y - np.float32(start[1])
    x = at.x - np.float32(start[2])
    along = z * np.float32(dz / length2) + y * np.float32(dy / length2)
    t = np.clip(along + x * np.float32(dx / length2), 0, 1)
    z = z - t * np.float32(dz)
    y = y - t * np.float32(dy)
    x = x - t * np.float32(dx)
    out: Field = np.sqrt(z * z + y * y + x * x)
    out -= np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])
    return out


def box(at: At, centre: Sequence[float], halves: Sequence[float]) -> Field:
    """Give the largest distance to the six faces of a box (exact inside and beside a face)."""
    z = np.abs(at.z - np.float32(centre[0])) - np.float32(halves[0])
    y = np.abs(at.y - np.float32(centre[1])) - np.float32(halves[1])
    x = np.abs(at.x - np.float32(centre[2])) - np.float32(halves[2])
    out: Field = np.maximum(np.maximum(z, y), x)
    return out


def power(value: Field) -> Field:
    """Give |v|^2.5 as v^2 sqrt|v|; check: 4 -> 32."""
    out: Field = np.sqrt(np.abs(value))
    out *= value
    out *= value
    return out


def superellipse(power_sum: Field, radius: Field) -> Field:
    """Give the distance to a superellipse of exponent 2.5 along the ray from its axis, mm.

    Formula: r (1 - s^-0.4), where s^-0.4 is taken as (0.7 + 0.3 s) / (0.3 + 0.7 s), equal to
    it at the outline in value, slope and curvature and much faster.

    Args:
        power_sum: s = |x/a|^2.5 + |y/b|^2.5.
        radius: r = sqrt(x^2 + y^2), mm.

    Check: s = 1 -> 0; a = b = 10 at x = 11, y = 0: s = 1.26906 -> 1.0000 (exact: 1).
    """
    low = power_sum * np.float32(0.7)
    low += np.float32(0.3)
    out: Field = power_sum * np.float32(0.3)
    out += np.float32(0.7)
    out /= low
    np.subtract(1, out, out=out)
    out *= radius
    return out


def blend(where: Field, start: float, stop: float) -> Field:
    """Climb smoothly from 0 at `start` to 1 at `stop` (which may lie below `start`)."""
    t = np.clip((where - np.float32(start)) * np.float32(1 / (stop - start)), 0, 1)
    out: Field = t * t * (3 - 2 * t)
    return out
