"""Findings that replace air by soft tissue or fluid: nodules, consolidation, collapse, fluid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import Mark
from t3d.phantom.findings_texture import lump_of, uneven
from t3d.phantom.plans import Draw, Planned, Stage, in_lobe, place_in_lung, side_of
from t3d.phantom.shapes import blend, ellipsoid, opacity
from t3d.types import Item

if TYPE_CHECKING:
    from t3d.phantom.plans import Point
    from t3d.phantom.scene import Scene
    from t3d.phantom.shapes import Field


def plan_nodule(draw: Draw) -> list[Planned]:
    """Plan one large nodule or one to three small ones."""
    count = draw.count((1, 1), (1, 3))
    return [_nodule(draw) for _ in range(count)]


def _nodule(draw: Draw) -> Planned:
    """Plan one nearly round nodule."""
    radius = draw.sized((8, 16), (3.2, 5.5))
    centre, lobe = place_in_lung(draw, depth_mm=1.15 * radius)
    radii = [radius * draw.uniform(0.9, 1.1) for _ in range(3)]
    hu = draw.uniform(20, 60)

    def paint(scene: Scene) -> list[Mark]:
        window = scene.canvas.around(centre, radii)
        if window is None:
            return []
        cover = opacity(ellipsoid(scene.canvas.at(window), centre, radii), scene.canvas.width)
        cover *= scene.lung[window]
        scene.canvas.paint(cover, hu, window)
        return [Mark(window=window, opacity=cover)]

    item = Item(
        finding="Lung nodule",
        large=draw.large,
        side=side_of(lobe),
        place=lobe,
        size_mm=2 * radius,
        kind="solid",
    )
    return Planned(item=item, stage=Stage.OVER, paint=paint)


def plan_consolidation(draw: Draw) -> list[Planned]:
    """Plan one large dense area within a lobe, or one or two small ones."""
    count = draw.count((1, 1), (1, 2))
    return [_consolidation(draw) for _ in range(count)]


def _consolidation(draw: Draw) -> Planned:
    """Plan one dense area crossed by open bronchi."""
    radius = draw.sized((32, 55), (12, 19))
    centre, lobe = place_in_lung(draw, depth_mm=min(0.4 * radius, 14.0))
    field, hu = draw.noise_around(centre, 1.5 * radius, 14.0), draw.uniform(15, 45)
    radii = uneven(draw, radius)
    ends = [_around(draw, centre, 0.8 * radius) for _ in range(4)]

    def paint(scene: Scene) -> list[Mark]:
        canvas = scene.canvas
        lump = lump_of(scene, centre, radii, (field, 0.15 * radius))
        if lump is None:
            return []
        window, distance = lump
        cover = opacity(distance, canvas.width) * in_lobe(scene, window, lobe)
        canvas.paint(cover, hu, window)
        for end in ends:
            found = canvas.tube([centre, end], [2.4, 1.2])
            if found is not None:
                part, far = found
                inside = in_lobe(scene, part, lobe) * (canvas.hu[part] > -300)
                canvas.paint(opacity(far, canvas.width) * inside, -850.0, part)
        return [Mark(window=window, opacity=cover)]

    item = Item(
        finding="Consolidation",
        large=draw.large,
        side=side_of(lobe),
        place=lobe,
        size_mm=2 * radius,
        kind="air bronchograms" if draw.large else "",
    )
    return Planned(item=item, stage=Stage.OVER, paint=paint)


def _around(draw: Draw, centre: Point, reach: float) -> Point:
    """Draw a point on a sphere."""
    step = draw.rng.standard_normal(3)
    step *= reach / np.linalg.norm(step)
    return centre[0] + float(step[0]), centre[1] + float(step[1]), centre[2] + float(step[2])


def plan_atelectasis(draw: Draw) -> list[Planned]:
    """Plan a wedge of collapsed lung on the diaphragm, or a thin oblique plate."""
    return [_wedge(draw) if draw.large else _plate(draw)]


def _wedge(draw: Draw) -> Planned:
    """Plan a layer on the back of a diaphragm, thickest at the chest wall."""
    thickness, hu = draw.uniform(18, 40), draw.uniform(35, 70)
    lobe = draw.pick(("RLL", "LLL"))[0]
    sign = -1 if lobe == "RLL" else 1
    reach = draw.uniform(-0.15, 0.15)  # how far it comes to the front

    def paint(scene: Scene) -> list[Mark]:
        canvas, body = scene.canvas, scene.body
        b, h = body.cage_y, body.height
        window = canvas.window((0.0, reach * b, -body.cage_x), (0.55 * h, b, body.cage_x))
        if window is None:
            return []
        at = canvas.at(window)
        depth = np.float32(thickness) * (np.float32(0.45) + blend(at.y, reach * b, 0.8 * b))
        over = (at.z - body.dome(at) - depth) * np.float32(0.8)
        front = np.float32(reach * b) - at.y
        distance = np.maximum(np.maximum(over, front), at.x * np.float32(-sign))
        cover = opacity(distance, canvas.width) * in_lobe(scene, window, lobe)
        canvas.paint(cover, hu, window)
        return [Mark(window=window, opacity=cover)]

    item = Item(
        finding="Atelectasis",
        large=True,
        side=side_of(lobe),
        place=lobe,
        size_mm=thickness,
        kind="wedge",
    )
    return Planned(item=item, stage=Stage.OVER, paint=paint)


def _plate(draw: Draw) -> Planned:
    """Plan a tilted disk a little above the diaphragm."""
    thickness, hu = draw.uniform(5, 9), draw.uniform(35, 70)
    (z0, y0, x0), lobe = place_in_lung(
        draw, depth_mm=7.0, lobes=("RLL", "LLL", "RML"), z_share=(0.10, 0.36)
    )
    tilt, radius = draw.uniform(-0.5, 0.5), draw.uniform(22, 34)

    def paint(scene: Scene) -> list[Mark]:
        canvas = scene.canvas
        reach = 0.5 * thickness + abs(tilt) * radius + 2
        window = canvas.around((z0, y0, x0), (reach, radius, radius))
        if window is None:
            return []
        at = canvas.at(window)
        y, x = at.y - np.float32(y0), at.x - np.float32(x0)
        across = np.abs(at.z - np.float32(z0) - np.float32(tilt) * y)
        across = across * np.float32((1 + tilt * tilt) ** -0.5) - np.float32(0.5 * thickness)
        distance = np.maximum(across, np.sqrt(y * y + x * x) - np.float32(radius))
        cover = opacity(distance, canvas.width) * in_lobe(scene, window, lobe)
        canvas.paint(cover, hu, window)
        return [Mark(window=window, opacity=cover)]

    item = Item(
        finding="Atelectasis",
        large=False,
        side=side_of(lobe),
        place=lobe,
        size_mm=thickness,
        kind="plate",
    )
    return Planned(item=item, stage=Stage.OVER, paint=paint)


def plan_effusion(draw: Draw) -> list[Planned]:
    """Plan fluid with a level at the back and the bottom of one chest or of both."""
    both = draw.chance(0.4)
    side = "bilateral" if both else draw.pick(("left", "right"))[0]
    depth = draw.sized((30, 62), (9, 17))
    depths = {"left": depth, "right": depth}
    if both:
        depths[draw.pick(("left", "right"))[0]] *= draw.uniform(0.6, 1.0)
    signs = [s for s, name in ((-1, "right"), (1, "left")) if side in (name, "bilateral")]
    deep = {-1: depths["right"], 1: depths["left"]}
    hu, top = draw.uniform(2, 20), draw.uniform(0.32, 0.42)

    def paint(scene: Scene) -> list[Mark]:
        marks = []
        for sign in signs:
            chest = scene.chest
            high = (top + deep[sign] / 260) * scene.body.height  # where fluid meets the wall
            distance = _level(scene, deep[sign], high) - scene.canvas.y[chest]
            distance = np.maximum(distance, scene.canvas.x[chest] * np.float32(-sign))
            cover = opacity(distance, scene.canvas.width) * scene.lung[chest]
            scene.canvas.paint(cover, hu, chest)
            marks.append(Mark(window=chest, opacity=cover))
        return marks

    item = Item(finding="Pleural effusion", large=draw.large, side=side, size_mm=depth, kind="free")
    return [Planned(item=item, stage=Stage.FLUID, paint=paint)]


def _level(scene: Scene, depth_mm: float, high_mm: float) -> Field:
    """Give the y of the fluid's surface by z: near the back at its top, deepest at the base."""
    body, z = scene.body, scene.canvas.z[scene.chest[0]]
    wall = np.float32(0.90) * body.cage_depth(z)  # the back beside the midline
    share = np.clip((np.float32(high_mm) - z) / np.float32(0.30 * body.height), 0, 1)
    out: Field = wall - np.float32(depth_mm) * np.sqrt(share)
    out += np.float32(30) * (share == 0)
    return out
