"""Findings of the bronchi: thick walls and wide tubes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import Mark
from t3d.phantom.chest import airway_lines
from t3d.phantom.plans import Draw, Planned, Stage, in_lobe, place_in_lung, side_of
from t3d.phantom.shapes import opacity
from t3d.phantom.vessels import hilum
from t3d.types import Item

if TYPE_CHECKING:
    from t3d.phantom.plans import Point
    from t3d.phantom.scene import Scene

WALL_HU = 30.0
LUMEN_HU = -990.0
BRONCHIECTASIS_WALL_MM = 2.8


def paint_pipe(
    scene: Scene, line: list[Point], lumen: tuple[float, float], wall_mm: float, lobe: str = ""
) -> list[Mark]:
    """Paint a tube of wall round a tube of air, inside the lungs.

    Args:
        scene: Where.
        line: From the hilum outwards, patient's axes.
        lumen: Radius at the first and the last point, mm.
        wall_mm: Thickness of the wall.
        lobe: Where it must end; "" = it may cross fissures.

    Returns:
        The mark of wall and air together; empty where it misses the grid.
    """
    canvas = scene.canvas
    steps = np.linspace(lumen[0], lumen[1], len(line))
    found = canvas.tube(line, [float(r) + wall_mm for r in steps])
    if found is None:
        return []
    window, distance = found
    inside = in_lobe(scene, window, lobe) if lobe else scene.lung[window]
    cover = opacity(distance, canvas.width) * inside
    canvas.paint(cover, WALL_HU, window)
    air = opacity(distance + np.float32(wall_mm), canvas.width) * inside
    canvas.paint(air, LUMEN_HU, window)
    return [Mark(window=window, opacity=cover)]


def plan_peribronchial(draw: Draw) -> list[Planned]:
    """Plan thick walls round the second-order bronchi, which reach further out."""
    wall = draw.sized((4.0, 5.5), (2.5, 3.5))
    longer = draw.uniform(1.15, 1.45)

    def paint(scene: Scene) -> list[Mark]:
        marks = []
        for (start, end), radius in airway_lines(scene.body)[1]:
            z, y, x = (s + longer * (e - s) for s, e in zip(start, end, strict=True))
            marks += paint_pipe(scene, [start, (z, y, x)], (radius, 0.6 * radius), wall)
        return marks

    item = Item(
        finding="Peribronchial thickening",
        large=draw.large,
        side="bilateral",
        size_mm=wall,
    )
    return [Planned(item=item, stage=Stage.OVER, paint=paint)]


def plan_bronchiectasis(draw: Draw) -> list[Planned]:
    """Plan a sheaf of wide bronchi in one lobe, mostly a lower one."""
    count = draw.count((6, 9), (3, 4))
    low = draw.chance(0.7)
    lobes = ("RLL", "LLL") if low else ("RUL", "RML", "LUL")
    radius = draw.sized((4.5, 7.0), (3.0, 4.2))
    centre, lobe = place_in_lung(draw, depth_mm=16.0, lobes=lobes)
    root = hilum(draw.body, -1 if side_of(lobe) == "right" else 1)
    tubes = [_tube(draw, centre, root, radius) for _ in range(count)]

    def paint(scene: Scene) -> list[Mark]:
        marks = []
        for line, lumen in tubes:
            marks += paint_pipe(scene, line, (lumen, 0.9 * lumen), BRONCHIECTASIS_WALL_MM, lobe)
        return marks

    item = Item(
        finding="Bronchiectasis",
        large=draw.large,
        side=side_of(lobe),
        place=lobe,
        size_mm=2 * radius,
        kind="cylindrical",
    )
    return [Planned(item=item, stage=Stage.OVER, paint=paint, count=count)]


def _tube(draw: Draw, centre: Point, root: Point, radius: float) -> tuple[list[Point], float]:
    """Plan one tube near a centre that points away from the hilum."""
    away = np.subtract(centre, root)
    away = away / (np.linalg.norm(away) + 1e-6) + 0.45 * draw.rng.standard_normal(3)
    away = away / np.linalg.norm(away)
    half = 0.5 * draw.uniform(24, 40)
    middle = np.add(centre, draw.rng.standard_normal(3) * (13, 11, 10))
    bend = draw.rng.standard_normal(3) * 3
    points = [middle - half * away, middle + bend, middle + half * away]
    line = [(float(p[0]), float(p[1]), float(p[2])) for p in points]
    return line, radius * draw.uniform(0.85, 1.0)
