"""Findings of the heart and of arteries: size, fluid round it, calcium."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import Mark
from t3d.phantom.chest import aorta_line, heart_cover
from t3d.phantom.plans import Draw, Planned, Stage
from t3d.phantom.shapes import ellipsoid, opacity
from t3d.types import Item

if TYPE_CHECKING:
    from t3d.phantom.body import Body
    from t3d.phantom.plans import Point
    from t3d.phantom.scene import Scene

CORONARIES = {  # directions from the heart's middle in its own axes (z, y, x), start to end
    "LAD": ((0.75, -0.55, 0.20), (-0.35, -0.85, 0.45)),
    "LCX": ((0.70, -0.15, 0.55), (0.05, 0.45, 0.90)),
    "RCA": ((0.60, -0.60, -0.40), (-0.45, -0.35, -0.85)),
}


def plan_cardiomegaly(draw: Draw) -> list[Planned]:
    """Plan a heart of 1.28 to 1.5 times the size; its mask is the whole heart."""
    scale = draw.uniform(1.28, 1.5)
    grown = replace(draw.body, heart=scale)
    ratio = grown.cardiothoracic_ratio

    def paint(scene: Scene) -> list[Mark]:
        mark = heart_cover(scene)  # the heart itself is painted with the anatomy
        return [] if mark is None else [mark]

    item = Item(finding="Cardiomegaly", large=True, size_mm=ratio * 2 * draw.body.cage_x)
    return [
        Planned(
            item=item,
            stage=Stage.SAC,
            paint=paint,
            extra={"cardiothoracic_ratio": ratio},
            alter={"heart": scale / draw.body.heart},
        )
    ]


def plan_pericardial(draw: Draw) -> list[Planned]:
    """Plan a layer of fluid round the heart."""
    thickness, hu = draw.sized((13, 20), (6, 9)), draw.uniform(2, 18)

    def paint(scene: Scene) -> list[Mark]:
        outer, heart = heart_cover(scene, thickness), heart_cover(scene)
        if outer is None:
            return []
        scene.canvas.paint(outer.opacity, hu, outer.window, organ=0)
        rim = np.zeros(scene.canvas.hu.shape, np.float32)
        rim[outer.window] = outer.opacity
        if heart is not None:
            rim[heart.window] -= heart.opacity
        return [Mark(window=outer.window, opacity=np.maximum(rim[outer.window], 0))]

    item = Item(finding="Pericardial effusion", large=draw.large, size_mm=thickness)
    return [Planned(item=item, stage=Stage.SAC, paint=paint)]


def paint_spots(
    scene: Scene, centres: Sequence[Point], radii: Sequence[float], hu: float
) -> list[Mark]:
    """Paint small balls of one HU."""
    canvas, marks = scene.canvas, []
    for centre, radius in zip(centres, radii, strict=True):
        window = canvas.around(centre, (radius, radius, radius))
        if window is None:
            continue
        cover = opacity(ellipsoid(canvas.at(window), centre, (radius,) * 3), canvas.width)
        canvas.paint(cover, hu, window)
        marks.append(Mark(window=window, opacity=cover))
    return marks


def plan_coronary(draw: Draw) -> list[Planned]:
    """Plan calcium along one or two coronary arteries; one item a vessel."""
    count = draw.count((9, 15), (2, 4))
    vessels = draw.pick(tuple(CORONARIES), 2 if draw.large else 1)
    share = [count - count // 2, count // 2] if draw.large else [count]
    hu = draw.uniform(450, 950)
    return [_coronary(draw, *pair, hu) for pair in zip(vessels, share, strict=True)]


def _coronary(draw: Draw, vessel: str, count: int, hu: float) -> Planned:
    """Plan the spots of one vessel."""
    along = [draw.uniform(0.02, 0.75) for _ in range(count)]
    radii = [draw.sized((2.4, 3.8), (1.8, 2.7)) for _ in range(count)]

    def paint(scene: Scene) -> list[Mark]:
        spots = [on_heart(scene.body, vessel, t) for t in along]
        return paint_spots(scene, spots, radii, hu)

    item = Item(
        finding="Coronary artery wall calcification",
        large=draw.large,
        place=vessel,
        size_mm=2 * max(radii),
    )
    return Planned(item=item, stage=Stage.CALCIUM, paint=paint, count=count)


def on_heart(body: Body, vessel: str, share: float) -> Point:
    """Give a point of a coronary artery on the heart's surface.

    Args:
        body: Size, place and turn of the heart.
        vessel: A key of CORONARIES.
        share: 0 at the aorta, 1 at the far end.
    """
    start, end = (np.array(v) for v in CORONARIES[vessel])
    way = start + share * (end - start)
    local = 0.99 * way / np.linalg.norm(way) * np.array(body.heart_radii)
    c, s = np.cos(body.heart_turn), np.sin(body.heart_turn)
    offset = local[0], c * local[1] + s * local[2], c * local[2] - s * local[1]
    z, y, x = (float(a + b) for a, b in zip(body.heart_centre, offset, strict=True))
    return z, y, x


def plan_arterial(draw: Draw) -> list[Planned]:
    """Plan calcium on the wall of the aorta, its arch or all of it."""
    count = draw.count((12, 25), (3, 5))
    arch = draw.chance(0.5)
    hu = draw.uniform(500, 1000)
    radii = [draw.sized((2.8, 4.6), (2.0, 3.0)) for _ in range(count)]
    places = [(draw.uniform(*((0.30, 0.56) if arch else (0.25, 0.85))),
               draw.uniform(0, 2 * np.pi)) for _ in range(count)]  # fmt: skip

    def paint(scene: Scene) -> list[Mark]:
        spots = [on_aorta(scene.body, share, angle) for share, angle in places]
        return paint_spots(scene, spots, radii, hu)

    item = Item(
        finding="Arterial wall calcification",
        large=draw.large,
        place="aortic arch" if arch else "thoracic aorta",
        size_mm=2 * max(radii),
    )
    return [Planned(item=item, stage=Stage.CALCIUM, paint=paint, count=count)]


def on_aorta(body: Body, share: float, angle: float) -> Point:
    """Give a point of the aorta's wall.

    Args:
        body: Course and radius of the aorta.
        share: 0 at the heart, 1 at the lower edge of the box, by length.
        angle: Round the middle line, radians.
    """
    line = np.array(aorta_line(body))
    legs = np.diff(line, axis=0)
    length = np.linalg.norm(legs, axis=1)
    reached = np.concatenate([[0.0], np.cumsum(length)])
    at = share * reached[-1]
    k = min(int(np.searchsorted(reached, at, side="right")) - 1, len(legs) - 1)
    middle = line[k] + legs[k] * ((at - reached[k]) / length[k])
    along = legs[k] / length[k]
    first = np.cross(along, (0.0, 0.6, 0.8))
    first /= np.linalg.norm(first)
    second = np.cross(along, first)
    point = middle + body.aorta * (np.cos(angle) * first + np.sin(angle) * second)
    return float(point[0]), float(point[1]), float(point[2])
