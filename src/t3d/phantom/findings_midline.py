"""Findings of the mediastinum, and devices: lymph nodes, hiatal hernia, medical material."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import Mark
from t3d.phantom.chest import GAS_HU, cava_line
from t3d.phantom.plans import Draw, Planned, Stage, point_at
from t3d.phantom.shapes import ellipsoid, opacity
from t3d.types import Item

if TYPE_CHECKING:
    from t3d.phantom.body import Body
    from t3d.phantom.plans import Point
    from t3d.phantom.scene import Scene

STATIONS = {  # z of the height, y and x of the cage's half axes
    "right paratracheal": (0.685, -0.02, -0.17),
    "aortopulmonary": (0.625, 0.08, 0.33),
    "subcarinal": (0.545, 0.27, 0.00),
    "prevascular": (0.690, -0.40, 0.10),
    "right hilar": (0.520, 0.20, -0.42),
    "left hilar": (0.520, 0.20, 0.45),
}
LEAD_MM = 1.4
WIRE_MM = 1.2


def plan_nodes(draw: Draw) -> list[Planned]:
    """Plan enlarged lymph nodes at three or four stations, or smaller ones at one or two."""
    count = draw.count((3, 4), (1, 2))
    return [_node(draw, station) for station in draw.pick(tuple(STATIONS), count)]


def _node(draw: Draw, station: str) -> Planned:
    """Plan one node."""
    radius = draw.sized((11, 17), (6, 8))
    hu = draw.uniform(50, 75) + (25 if draw.contrast else 0)
    z, y, x = STATIONS[station]
    h, b, a = draw.body.height, draw.body.cage_y, draw.body.cage_x
    centre = (
        z * h + draw.uniform(-4, 4), y * b + draw.uniform(-3, 3), x * a + draw.uniform(-3, 3)
    )  # fmt: skip
    radii = [radius * draw.uniform(*span) for span in ((1.0, 1.3), (0.85, 1.0), (0.9, 1.1))]

    def paint(scene: Scene) -> list[Mark]:
        return _ball(scene, centre, radii, hu)

    item = Item(
        finding="Lymphadenopathy",
        large=draw.large,
        side=station.split()[0] if station.split()[0] in ("right", "left") else "",
        place=station,
        size_mm=2 * radius,
    )
    return Planned(item=item, stage=Stage.MIDLINE, paint=paint)


def _ball(scene: Scene, centre: Point, radii: list[float], hu: float) -> list[Mark]:
    """Paint an ellipsoid inside the cage."""
    canvas = scene.canvas
    window = canvas.around(centre, radii)
    if window is None:
        return []
    distance = ellipsoid(canvas.at(window), centre, radii)
    cover = opacity(np.maximum(distance, scene.cage_mm[window]), canvas.width)
    canvas.paint(cover, hu, window, organ=0)
    return [Mark(window=window, opacity=cover)]


def plan_hernia(draw: Draw) -> list[Planned]:
    """Plan a part of the stomach behind the heart, mostly with gas in front."""
    radius, hu = draw.sized((24, 34), (12, 17)), draw.uniform(25, 45)
    gas, level = draw.chance(0.75), draw.uniform(0.0, 0.35)
    body = draw.body
    y, x = 0.42 * body.cage_y, draw.uniform(0.0, 0.10) * body.cage_x
    z = float(body.dome(point_at((0.0, y, x)))[0]) + 0.85 * radius
    centre = (z, y, x)
    radii = [radius, 0.85 * radius, radius]

    def paint(scene: Scene) -> list[Mark]:
        marks = _ball(scene, centre, radii, hu)
        if not marks or not gas:
            return marks
        canvas, window = scene.canvas, marks[0].window
        at = canvas.at(window)
        inner = ellipsoid(at, centre, [r - 3 for r in radii])
        front = at.y - np.float32(centre[1] - level * radius)
        canvas.paint(opacity(np.maximum(inner, front), canvas.width), GAS_HU, window)
        return marks

    item = Item(
        finding="Hiatal hernia",
        large=draw.large,
        size_mm=2 * radius,
        kind="with gas" if gas else "",
    )
    return [Planned(item=item, stage=Stage.MIDLINE, paint=paint)]


def plan_material(draw: Draw) -> list[Planned]:
    """Plan a pacemaker or wires of the breastbone; small: a port or a central line."""
    first = draw.chance(0.65 if draw.large else 0.5)
    if draw.large:
        return [_box_and_lead(draw, pacemaker=True) if first else _wires(draw)]
    return [_box_and_lead(draw, pacemaker=False) if first else _line(draw)]


def _chest_front(body: Body, side: int, share: float) -> Point:
    """Give a place under the skin of the upper chest, at a share of the half width."""
    y = -body.half_depth * (1 - share**2.4) ** (1 / 2.4)
    return 0.80 * body.height, y + 0.6 * body.fat + 6, side * share * body.half_width


def _through_cava(body: Body, side: int) -> list[Point]:
    """Give the way of a line: under the collar bone, then down the vena cava."""
    h, a, b = body.height, body.cage_x, body.cage_y
    shoulder = (0.90 * h, -0.45 * b, side * 0.55 * a)
    return [shoulder, (0.83 * h, -0.25 * b, side * 0.18 * a), *cava_line(body)]


def _box_and_lead(draw: Draw, *, pacemaker: bool) -> Planned:
    """Plan a metal box in front of the chest with a line into the heart or a vein."""
    side = 1 if draw.chance(0.8 if pacemaker else 0.25) else -1
    share, hu = draw.uniform(0.50, 0.62), draw.uniform(2300, 2600)
    radii = (22.0, 7.0, 24.0) if pacemaker else (11.0, 6.0, 12.0)
    line_hu = hu if pacemaker else draw.uniform(1100, 1400)
    start = _chest_front(draw.body, side, share)
    way = [start, *_through_cava(draw.body, side)]

    def paint(scene: Scene) -> list[Mark]:
        canvas, body = scene.canvas, scene.body
        z, y, x = body.heart_centre
        tip = (z - 0.45 * body.heart_radii[0], y - 0.3 * body.heart_radii[1], x)
        line = [*way, tip] if pacemaker else way[:-1]
        marks = canvas.paint_tube(line, LEAD_MM, line_hu)
        window = canvas.around(start, radii)
        if window is not None:
            cover = opacity(ellipsoid(canvas.at(window), start, radii), canvas.width)
            canvas.paint(cover, hu, window)
            marks.append(Mark(window=window, opacity=cover))
        return marks

    item = Item(
        finding="Medical material",
        large=pacemaker,
        side="left" if side > 0 else "right",
        place="chest wall",
        size_mm=2 * radii[2],
        kind="pacemaker" if pacemaker else "port",
    )
    return Planned(item=item, stage=Stage.METAL, paint=paint)


def _wires(draw: Draw) -> Planned:
    """Plan loops of wire round the breastbone."""
    count, hu = draw.count((5, 7), (5, 7)), draw.uniform(2300, 2600)

    def paint(scene: Scene) -> list[Mark]:
        marks, body = [], scene.body
        for k in range(count):
            z = (0.40 + 0.36 * k / (count - 1)) * body.height
            y = -float(body.cage_depth(np.array([z], np.float32))[0]) - 11
            points = [(z, y + 12, -9.0), (z, y, -7.0), (z + 2, y - 2, 7.0), (z, y + 12, 9.0)]
            marks += scene.canvas.paint_tube(points, WIRE_MM, hu)
        return marks

    item = Item(finding="Medical material", large=True, place="sternum", kind="sternal wires")
    return Planned(item=item, stage=Stage.METAL, paint=paint, count=count)


def _line(draw: Draw) -> Planned:
    """Plan a central venous line without a box."""
    side = 1 if draw.chance(0.25) else -1
    hu = draw.uniform(1100, 1400)
    way = _through_cava(draw.body, side)[1:]
    neck = (1.02 * draw.body.height, -0.10 * draw.body.cage_y, side * 0.30 * draw.body.cage_x)

    def paint(scene: Scene) -> list[Mark]:
        return scene.canvas.paint_tube([neck, *way[:-1]], LEAD_MM, hu)

    item = Item(
        finding="Medical material",
        large=False,
        side="left" if side > 0 else "right",
        place="superior vena cava",
        kind="central line",
    )
    return Planned(item=item, stage=Stage.METAL, paint=paint)
