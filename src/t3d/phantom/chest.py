"""Painters of what lies inside the cage: lungs, heart, vessels, airway, upper abdomen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import (
    AIRWAY,
    AORTA,
    HEART,
    LEFT_LUNG,
    LIVER,
    OTHER_ORGAN,
    RIGHT_LUNG,
    SPLEEN,
    Mark,
)
from t3d.phantom.shapes import ellipsoid, opacity
from t3d.phantom.vessels import hilum

if TYPE_CHECKING:
    from t3d.phantom.body import Body
    from t3d.phantom.scene import Scene
    from t3d.phantom.shapes import Field

    Line = list[tuple[float, float, float]]

SOFT_HU = 35.0
MIDLINE_FAT_HU = -88.0
GAS_HU = -950.0
DIAPHRAGM_HU = 45.0


def paint_lungs(scene: Scene) -> None:
    """Paint both lungs: base value, denser towards the back, two textures."""
    canvas, body, chest = scene.canvas, scene.body, scene.chest
    hu = canvas.noise(scene.textures.coarse, chest) * np.float32(10)
    hu += canvas.noise(scene.textures.fine, chest) * np.float32(12)
    hu += canvas.y[chest] * np.float32(22 / body.cage_y) + np.float32(scene.tissue.lung)
    lung = scene.lung[chest]
    canvas.paint(lung, hu, chest)
    inside = lung > 0.5
    codes = np.where(canvas.x[chest] < 0, RIGHT_LUNG, LEFT_LUNG).astype(np.uint8)
    canvas.organ[chest][inside] = codes[inside]


def paint_abdomen(scene: Scene) -> None:
    """Paint diaphragm, liver, spleen and a stomach whose gas lies in front."""
    canvas, body, tissue = scene.canvas, scene.body, scene.tissue
    h, a, b = body.height, body.cage_x, body.cage_y
    top = 0.10 * h + max(body.dome_right, body.dome_left)
    window = canvas.window((0.0, -b, -a), (top, b, a))
    if window is None:
        return
    at = canvas.at(window)
    rise = scene.rise_mm[window]
    wall = scene.cage_mm[window] + np.float32(1)
    sheet = opacity(np.maximum(np.abs(rise + 1) - 1, wall - 1), canvas.width)
    canvas.paint(sheet * (1 - scene.lung[window]), DIAPHRAGM_HU, window)
    limit = np.maximum(rise + 2, wall)
    right = ellipsoid(at, (0.05 * h, -0.05 * b, -0.42 * a), (0.26 * h, 0.92 * b, 0.60 * a))
    left = ellipsoid(at, (0.11 * h, -0.40 * b, 0.05 * a), (0.12 * h, 0.42 * b, 0.50 * a))
    spleen = ellipsoid(at, (0.11 * h, 0.42 * b, 0.68 * a), (0.11 * h, 0.36 * b, 0.24 * a))
    stomach = ellipsoid(at, (0.12 * h, -0.12 * b, 0.50 * a), (0.11 * h, 0.42 * b, 0.30 * a))
    width = canvas.width
    canvas.paint(opacity(np.maximum(stomach, limit), width), SOFT_HU, window, organ=0)
    content = np.maximum(stomach, limit) + np.float32(3)
    canvas.paint(opacity(content, width), 15.0, window)
    gas = np.maximum(content, at.y + np.float32(0.22 * b))
    canvas.paint(opacity(gas, width), GAS_HU, window)
    liver = np.maximum(np.minimum(right, left), limit)
    canvas.paint(opacity(liver, width), tissue.liver, window, organ=LIVER)
    canvas.paint(opacity(np.maximum(spleen, limit), width), tissue.spleen, window, organ=SPLEEN)


def paint_midline(scene: Scene) -> None:
    """Paint the fat between the lungs, above the diaphragm."""
    canvas, chest = scene.canvas, scene.chest
    inside = np.maximum(scene.cage_mm[chest], -scene.rise_mm[chest])
    cover = opacity(inside, canvas.width) - scene.lung[chest]
    canvas.paint(np.maximum(cover, 0, out=cover), MIDLINE_FAT_HU, chest)


def heart_cover(scene: Scene, grow_mm: float = 0.0) -> Mark | None:
    """Give the opacity of the heart, or of the heart and a layer round it."""
    canvas, body = scene.canvas, scene.body
    centre, radii = body.heart_centre, [r + grow_mm for r in body.heart_radii]
    reach = max(radii[1], radii[2])
    window = canvas.around(centre, (radii[0], reach, reach))
    if window is None:
        return None
    distance = ellipsoid(canvas.at(window), centre, radii, body.heart_turn)
    limit = scene.cage_mm[window] + np.float32(3)  # it does not leave the chest
    return Mark(window=window, opacity=opacity(np.maximum(distance, limit), canvas.width))


def paint_heart(scene: Scene) -> Mark | None:
    """Paint the heart: one value, or muscle round bright chambers where iodine was given."""
    canvas, body, tissue = scene.canvas, scene.body, scene.tissue
    mark = heart_cover(scene)
    if mark is None:
        return None
    canvas.paint(mark.opacity, tissue.heart, mark.window, organ=HEART)
    if tissue.contrast:
        at = canvas.at(mark.window)
        z, y, x = body.heart_centre
        rz, ry, rx = body.heart_radii
        chambers = (  # ventricles left and right, atria left and right: offsets, sizes in radii
            ((-0.15, 0.05, 0.40), (0.55, 0.42, 0.38)),
            ((-0.15, -0.42, -0.12), (0.60, 0.36, 0.48)),
            ((0.40, 0.52, -0.10), (0.42, 0.34, 0.42)),
            ((0.15, -0.10, -0.62), (0.55, 0.48, 0.28)),
        )
        for shift, size in chambers:
            centre = (z + shift[0] * rz, y + shift[1] * ry, x + shift[2] * rx)
            radii = (size[0] * rz, size[1] * ry, size[2] * rx)
            inside = opacity(ellipsoid(at, centre, radii, body.heart_turn), canvas.width)
            canvas.paint(inside * mark.opacity, tissue.blood, mark.window)
    return mark


def aorta_line(body: Body) -> Line:
    """Give the middle of the aorta from the heart over the arch to the abdomen."""
    h, a, b = body.height, body.cage_x, body.cage_y
    return [
        (0.46 * h, -0.12 * b, 0.00 * a),
        (0.58 * h, -0.20 * b, -0.08 * a),
        (0.655 * h, -0.20 * b, -0.04 * a),
        (0.69 * h, -0.08 * b, 0.08 * a),
        (0.70 * h, 0.08 * b, 0.17 * a),
        (0.685 * h, 0.26 * b, 0.24 * a),
        (0.63 * h, 0.40 * b, 0.26 * a),
        (0.50 * h, 0.45 * b, 0.25 * a),
        (0.34 * h, 0.45 * b, 0.23 * a),
        (0.18 * h, 0.42 * b, 0.17 * a),
        (-0.05 * h, 0.38 * b, 0.12 * a),
    ]


def cava_line(body: Body) -> Line:
    """Give the middle of the superior vena cava, from the top to the right atrium."""
    h, a, b = body.height, body.cage_x, body.cage_y
    return [
        (0.84 * h, -0.06 * b, -0.20 * a),
        (0.60 * h, -0.10 * b, -0.24 * a),
        (0.45 * h, -0.12 * b, -0.20 * a),
    ]


def paint_great_vessels(scene: Scene) -> None:
    """Paint veins, pulmonary arteries, arch branches and the aorta."""
    canvas, body, tissue = scene.canvas, scene.body, scene.tissue
    h, a, b = body.height, body.cage_x, body.cage_y
    blood = tissue.blood
    right, left = hilum(body, -1), hilum(body, 1)
    fork = (0.575 * h, -0.02 * b, 0.18 * a)
    tubes: list[tuple[Line, float]] = [
        (cava_line(body), 8.0),
        ([(0.0, 0.12 * b, -0.18 * a), (0.36 * h, -0.05 * b, -0.20 * a)], 10.0),
        ([(0.80 * h, -0.30 * b, 0.28 * a), (0.76 * h, -0.30 * b, 0.0),
          (0.735 * h, -0.10 * b, -0.20 * a)], 6.0),
        ([(0.46 * h, -0.40 * b, 0.16 * a), (0.55 * h, -0.28 * b, 0.20 * a), fork], body.trunk),
        ([fork, (0.57 * h, 0.12 * b, 0.30 * a), left], 0.8 * body.trunk),
        ([fork, (0.56 * h, 0.08 * b, 0.0), (0.55 * h, 0.10 * b, -0.18 * a), right],
         0.75 * body.trunk),
        ([(0.70 * h, -0.08 * b, 0.04 * a), (0.90 * h, -0.05 * b, -0.14 * a)], 5.0),
        ([(0.70 * h, 0.05 * b, 0.14 * a), (0.95 * h, 0.08 * b, 0.13 * a)], 4.5),
        ([(0.70 * h, 0.20 * b, 0.20 * a), (0.93 * h, 0.20 * b, 0.26 * a)], 4.5),
    ]  # fmt: skip
    for side in (right, left):  # veins into the left atrium
        atrium = (0.43 * h, 0.14 * b, 0.08 * a)
        tubes.append(([(side[0] - 0.05 * h, side[1], side[2]), atrium], 6.0))
    for line, radius in tubes:
        canvas.paint_tube(line, radius, blood, organ=OTHER_ORGAN)
    canvas.paint_tube(aorta_line(body), body.aorta, blood + 5, organ=AORTA)


def paint_esophagus(scene: Scene) -> None:
    """Paint the esophagus in front of the spine, in some patients with air in it."""
    canvas, body = scene.canvas, scene.body
    h, a, b = body.height, body.cage_x, body.cage_y
    line = [
        (1.02 * h, 0.34 * b, 0.03 * a),
        (0.60 * h, 0.36 * b, 0.02 * a),
        (0.34 * h, 0.36 * b, 0.05 * a),
        (0.15 * h, 0.25 * b, 0.14 * a),
    ]
    canvas.paint_tube(line, 6.0, SOFT_HU, organ=OTHER_ORGAN)
    if scene.tissue.swallowed_air:
        canvas.paint_tube(line[:3], 2.2, GAS_HU)


def airway_lines(body: Body) -> tuple[list[tuple[Line, float]], list[tuple[Line, float]]]:
    """Give trachea and main bronchi, then three second-order bronchi a side; radii in mm."""
    h, a, b = body.height, body.cage_x, body.cage_y
    carina = (0.605 * h, 0.16 * b, -0.02 * a)
    first = [([(1.03 * h, 0.08 * b, -0.02 * a), carina], body.trachea)]
    second = []
    for side in (-1, 1):
        z, y, x = hilum(body, side)
        first.append(([carina, (z, y + 0.02 * b, 0.85 * x)], 0.68 * body.trachea))
        start = (z, y + 0.02 * b, 0.85 * x)
        ends = (
            (z + 0.14 * h, y + 0.05 * b, 1.35 * x),
            (z - 0.09 * h, y - 0.40 * b, 1.50 * x),
            (z - 0.20 * h, y + 0.30 * b, 1.40 * x),
        )
        for end in ends:
            second.append(([start, end], 0.42 * body.trachea))
    return first, second


def paint_airway(scene: Scene) -> None:
    """Paint walls, then air, of the trachea and two orders of bronchi."""
    canvas, body, tissue = scene.canvas, scene.body, scene.tissue
    first, second = airway_lines(body)
    for line, radius in second + first[::-1]:
        end = 0.6 if (line, radius) in second else 1.0
        radii = [radius + body.wall, end * radius + body.wall]
        found = canvas.tube(line, radii)
        if found is None:
            continue
        window, distance = found
        wall = opacity(distance, canvas.width)
        canvas.paint(wall, tissue.airway_wall, window)
        lumen: Field = opacity(distance + np.float32(body.wall), canvas.width)
        canvas.paint(lumen, -1000.0, window, organ=AIRWAY)
