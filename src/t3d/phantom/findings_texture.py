"""Findings that change the texture of the lungs and let vessels show through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.body import LOBES
from t3d.phantom.canvas import Mark
from t3d.phantom.plans import Draw, Planned, Stage, place_in_lung, side_of
from t3d.phantom.shapes import blend, ellipsoid, opacity
from t3d.types import Item

if TYPE_CHECKING:
    from t3d.phantom.canvas import Window
    from t3d.phantom.noise import SmoothNoise
    from t3d.phantom.plans import Point
    from t3d.phantom.scene import Scene
    from t3d.phantom.shapes import Field

STEEPNESS = 1.5
"""A smooth field changes by about this much over its length, so (field - t) L / 1.5 is mm."""


def contour(field: Field, length_mm: float, half_mm: float) -> Field:
    """Give the distance to a sheet of some thickness along the zero contour of a field."""
    out: Field = np.abs(field) * np.float32(length_mm / STEEPNESS) - np.float32(half_mm)
    return out


def plan_emphysema(draw: Draw) -> list[Planned]:
    """Plan dark holes in the lungs, in most patients thickest at the top; flatter domes."""
    extent = draw.sized((0.6, 1.0), (0.35, 0.6))
    length = draw.uniform(11, 18)
    field = draw.noise(length)
    upper = draw.chance(0.75)
    hu = draw.uniform(-985, -960)
    threshold = 1.25 - 1.45 * extent

    def paint(scene: Scene) -> list[Mark]:
        canvas, h, chest = scene.canvas, scene.body.height, scene.chest
        lower = 1 - blend(canvas.z[chest[0]], 0.30 * h, 0.62 * h)
        limit = np.float32(threshold) + np.float32(1.2 if upper else 0.0) * lower
        distance = (limit - canvas.noise(field, chest)) * np.float32(length / STEEPNESS)
        cover = opacity(distance, canvas.width) * scene.lung[chest]
        canvas.paint(cover, hu, chest)
        return [Mark(window=chest, opacity=cover)]

    item = Item(
        finding="Emphysema",
        large=draw.large,
        side="bilateral",
        place="upper" if upper else "",
        kind="centrilobular" if length < 14.5 else "bullous",
    )
    flat = {"dome_right": 0.9, "dome_left": 0.9}
    extra = {"extent": extent}
    return [Planned(item=item, stage=Stage.UNDER, paint=paint, extra=extra, alter=flat)]


def plan_mosaic(draw: Draw) -> list[Planned]:
    """Plan patches that are darker or brighter than the rest, over both lungs."""
    field = draw.noise(draw.uniform(24, 36))
    step = draw.uniform(60, 100)

    def paint(scene: Scene) -> list[Mark]:
        canvas, chest = scene.canvas, scene.chest
        sign = np.tanh(canvas.noise(field, chest) * np.float32(3.0))
        lung = scene.lung[chest]
        canvas.paint(lung, canvas.hu[chest] + sign * np.float32(step), chest)
        return [Mark(window=chest, opacity=np.abs(sign) * lung)]

    item = Item(finding="Mosaic attenuation pattern", large=draw.large, side="bilateral")
    return [Planned(item=item, stage=Stage.UNDER, paint=paint, extra={"step_hu": step})]


def plan_septal(draw: Draw) -> list[Planned]:
    """Plan a net of thin sheets: the lower part of the lungs, or a rim at the bases."""
    fields = [(draw.noise(length), length) for length in (draw.uniform(13, 17), 15.0)]
    top = draw.sized((0.50, 0.70), (0.30, 0.38))
    hu = draw.uniform(-60, 20)
    large = draw.large

    def paint(scene: Scene) -> list[Mark]:
        canvas, h, chest = scene.canvas, scene.body.height, scene.chest
        distance = np.minimum(*(contour(canvas.noise(f, chest), n, 1.0) for f, n in fields))
        region = 1 - blend(canvas.z[chest[0]], (top - 0.06) * h, (top + 0.06) * h)
        if not large:
            region = region * blend(scene.cage_mm[chest], -34.0, -22.0)
        cover = opacity(distance, canvas.width) * scene.lung[chest] * region
        canvas.paint(cover, hu, chest)
        return [Mark(window=chest, opacity=cover)]

    item = Item(
        finding="Interlobular septal thickening",
        large=large,
        side="bilateral",
        place="lower" if large else "bases",
        kind="diffuse" if large else "peripheral",
    )
    return [Planned(item=item, stage=Stage.UNDER, paint=paint, extra={"extent": top})]


def plan_opacity(draw: Draw) -> list[Planned]:
    """Plan patches of ground glass with ragged edges."""
    count = draw.count((2, 5), (1, 2))
    return [_opacity(draw) for _ in range(count)]


def _opacity(draw: Draw) -> Planned:
    """Plan one patch."""
    radius = draw.sized((24, 46), (9, 17))
    centre, lobe = place_in_lung(draw, depth_mm=0.45 * radius)
    field, hu = draw.noise_around(centre, 1.6 * radius, 14.0), draw.uniform(-560, -400)
    radii = uneven(draw, radius)

    def paint(scene: Scene) -> list[Mark]:
        ragged = lump_of(scene, centre, radii, (field, 0.30 * radius))
        if ragged is None:
            return []
        window, distance = ragged
        cover = opacity(distance, scene.canvas.width) * scene.lung[window]
        shade = np.float32(hu) + scene.canvas.noise(field, window) * np.float32(25)
        scene.canvas.paint(cover, shade, window)
        return [Mark(window=window, opacity=cover)]

    item = Item(
        finding="Lung opacity",
        large=draw.large,
        side=side_of(lobe),
        place=lobe,
        size_mm=2 * radius,
        kind="ground glass",
    )
    return Planned(item=item, stage=Stage.UNDER, paint=paint)


def plan_fibrotic(draw: Draw) -> list[Planned]:
    """Plan scarred areas: a knot of lines in slightly denser lung, mostly at the top."""
    count = draw.count((2, 3), (1, 1))
    return [_scar(draw) for _ in range(count)]


def _scar(draw: Draw) -> Planned:
    """Plan one scarred area."""
    radius = draw.sized((22, 34), (11, 17))
    apical = draw.chance(0.7)
    heights = (0.62, 0.92) if apical else (0.15, 0.62)
    lobes = ("RUL", "LUL") if apical else LOBES
    centre, lobe = place_in_lung(draw, depth_mm=0.30 * radius, lobes=lobes, z_share=heights)
    field, hu = draw.noise_around(centre, 1.5 * radius, 9.0), draw.uniform(-20, 40)
    radii = uneven(draw, radius)

    def paint(scene: Scene) -> list[Mark]:
        canvas = scene.canvas
        lump = lump_of(scene, centre, radii, (field, 0.12 * radius))
        if lump is None:
            return []
        window, distance = lump
        inside = opacity(distance, canvas.width) * scene.lung[window]
        lines = opacity(contour(canvas.noise(field, window), 9.0, 1.3), canvas.width)
        canvas.paint(np.float32(0.4) * inside, -550.0, window)
        canvas.paint(inside * lines, hu, window)
        return [Mark(window=window, opacity=inside)]

    item = Item(
        finding="Pulmonary fibrotic sequela",
        large=draw.large,
        side=side_of(lobe),
        place=lobe,
        size_mm=2 * radius,
        kind="apical" if apical else "",
    )
    return Planned(item=item, stage=Stage.UNDER, paint=paint)


def uneven(draw: Draw, radius: float) -> Point:
    """Draw half axes whose mean is about a radius."""
    z, y, x = (radius * draw.uniform(0.8, 1.2) for _ in range(3))
    return z, y, x


def lump_of(
    scene: Scene, centre: Point, radii: Point, ragged: tuple[SmoothNoise, float]
) -> tuple[Window, Field] | None:
    """Give the window and distance of an ellipsoid whose surface a field moves by some mm."""
    field, amplitude = ragged
    window = scene.canvas.around(centre, [r + 2 * amplitude for r in radii])
    if window is None:
        return None
    distance = ellipsoid(scene.canvas.at(window), centre, radii)
    distance += scene.canvas.noise(field, window) * np.float32(amplitude)
    return window, distance
