"""Painters of the body wall: skin to ribs, spine, breastbone and shoulder blades."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.canvas import VERTEBRAE
from t3d.phantom.shapes import At, box, ellipsoid, opacity, power, superellipse

if TYPE_CHECKING:
    from t3d.phantom.scene import Scene
    from t3d.phantom.shapes import Field

CORTEX_HU, DISC_HU, ARCH_HU = 450.0, 90.0, 330.0
STERNUM_HU, SCAPULA_HU, MARROW_HU = 260.0, 330.0, 120.0
GLAND_HU = 25.0
TABLE_HU = -500.0


def paint_torso(scene: Scene) -> None:
    """Paint skin, fat, muscle, the space inside the cage and the bones round it."""
    canvas, body, tissue = scene.canvas, scene.body, scene.tissue
    at, chest = canvas.everywhere, scene.chest
    noise = canvas.noise(scene.textures.outline)
    x_power, y_power = power(at.x), power(at.y)
    radius = np.sqrt(at.x * at.x + at.y * at.y)
    power_sum = x_power[chest] * np.float32((body.cage_x + 14) ** -2.5)
    power_sum += y_power[chest] * np.float32((body.cage_y + 12) ** -2.5)
    muscle = opacity(superellipse(power_sum, radius[chest]), canvas.width)

    shoulder = np.clip(at.z * np.float32(4 / body.height) - 3, 0, 1)
    x_power /= power(np.float32(body.half_width) * (1 + np.float32(0.10) * shoulder))
    y_power *= np.float32(body.half_depth**-2.5)
    x_power += y_power
    skin = superellipse(x_power, radius)
    skin += noise * np.float32(0.012 * body.half_width)
    canvas.paint(opacity(skin, canvas.width), tissue.fat)
    if body.breasts:
        _paint_breasts(scene)

    planes = np.abs(noise[chest])
    planes *= np.float32(35)
    planes -= np.float32(1.2)
    muscle *= 1 - opacity(planes, canvas.width) * (canvas.z[chest[0]] > 0.5 * body.height)
    canvas.paint(muscle, tissue.muscle, chest)
    canvas.paint(opacity(scene.cage_mm[chest], canvas.width), tissue.fat + 10, chest)
    _paint_ribs(scene)


def _paint_breasts(scene: Scene) -> None:
    """Paint two fatty half ellipsoids with gland tissue in front of the chest."""
    canvas, body = scene.canvas, scene.body
    for side in (-1, 1):
        centre = (0.50 * body.height, -0.93 * body.half_depth, side * 0.50 * body.half_width)
        radii = (0.16 * body.height, 0.24 * body.half_depth, 0.36 * body.half_width)
        window = canvas.around(centre, radii)
        if window is None:
            continue
        at = canvas.at(window)
        canvas.paint(opacity(ellipsoid(at, centre, radii), canvas.width), scene.tissue.fat, window)
        core = ellipsoid(at, centre, [0.6 * r for r in radii])
        gland = opacity(core, canvas.width)
        gland *= canvas.noise(scene.textures.fine, window) > 0
        gland *= scene.cage_mm[window] > 22
        canvas.paint(gland, GLAND_HU, window)


def _paint_ribs(scene: Scene) -> None:
    """Paint slanted stripes of a shell outside the cage, none near the midline."""
    canvas, body, chest = scene.canvas, scene.body, scene.chest
    at = canvas.at(chest)
    shell = np.abs(scene.cage_mm[chest] - np.float32(7)) - np.float32(4.5)
    slant = at.z - np.float32(0.45) * at.y + np.float32(0.10) * np.abs(at.x)
    turn = slant * np.float32(1 / body.rib_pitch) + np.float32(body.rib_phase)
    stripe = np.abs(turn - np.floor(turn) - np.float32(0.5)) * np.float32(body.rib_pitch)
    stripe -= np.float32(0.21 * body.rib_pitch)  # 42 % of a pitch is rib
    midline = np.float32(28) - np.abs(at.x)
    height = at.z - np.float32(body.apex + 8)
    rib = np.maximum(np.maximum(shell, stripe), np.maximum(midline, height))
    canvas.paint(opacity(rib, canvas.width), scene.tissue.bone, chest)
    canvas.paint(opacity(rib + np.float32(2.5), canvas.width), MARROW_HU + 60, chest)


def paint_bones(scene: Scene) -> None:
    """Paint the spine, the breastbone, collar bones and shoulder blades."""
    canvas, body = scene.canvas, scene.body
    _paint_spine(scene)
    low, high = 0.36 * body.height, 0.80 * body.height
    centre = (0.5 * (low + high), -(0.96 * body.cage_y + 5), 0.0)
    halves = (0.5 * (high - low), 5.0, 15.0)
    window = canvas.around(centre, halves)
    if window is not None:
        at = canvas.at(window)
        front = at.y + np.float32(5) + body.cage_depth(at.z)  # it follows the cage
        plate = np.maximum(np.abs(front) - 5, box(at, centre, (halves[0], 60.0, 15.0)))
        canvas.paint(opacity(plate, canvas.width), STERNUM_HU, window)
        canvas.paint(opacity(plate + np.float32(2.5), canvas.width), MARROW_HU, window)
    for side in (-1, 1):
        inner = (0.83 * body.height, -0.62 * body.cage_y, side * 16.0)
        outer = (0.93 * body.height, -0.30 * body.cage_y, side * 1.02 * body.cage_x)
        canvas.paint_tube([inner, outer], 5.0, SCAPULA_HU)
        if body.scapulae:
            _paint_scapula(scene, side)


def _paint_scapula(scene: Scene, side: int) -> None:
    """Paint the blade of one shoulder blade, a thin shell beside the cage, and its ridge."""
    body, canvas = scene.body, scene.canvas
    h, a, b = body.height, body.cage_x, body.cage_y
    centre, radii = (0.76 * h, 0.86 * b, side * 0.80 * a), (0.19 * h, 3.5, 0.36 * a)
    turn = -side * 0.62
    window = canvas.around(centre, (radii[0], radii[2], radii[2]))
    if window is not None:
        blade = ellipsoid(canvas.at(window), centre, radii, turn)
        blade = np.maximum(blade, 15 - scene.cage_mm[window])
        canvas.paint(opacity(blade, canvas.width), SCAPULA_HU, window)
    ridge, top = (0.84 * h, 1.10 * b, side * 0.62 * a), (0.90 * h, 0.62 * b, side * 1.12 * a)
    canvas.paint_tube([ridge, top], [3.0, 6.0], SCAPULA_HU)


def _paint_spine(scene: Scene) -> None:
    """Paint muscle beside the spine, vertebrae with discs, the canal and the arches."""
    canvas, body = scene.canvas, scene.body
    y0 = 0.74 * body.cage_y
    window = canvas.window((0.0, y0 - 24, -32.0), (body.height, y0 + 62, 32.0))
    if window is None:
        return
    at = canvas.at(window)
    width = canvas.width
    y, x2 = at.y - np.float32(y0), at.x * at.x
    radius = np.sqrt(x2 + y * y)
    f = np.sqrt(x2 * np.float32(1 / 19**2) + y * y * np.float32(1 / 16**2)) + np.float32(1e-6)
    bone = radius * (1 - 1 / f)
    turn = at.z * np.float32(1 / body.vertebra) + np.float32(body.vertebra_phase)
    gap = np.abs(turn - np.floor(turn) - np.float32(0.5)) - np.float32(0.41)  # 18 % discs
    disc = opacity(-gap * np.float32(body.vertebra), width)
    canvas.paint(opacity(bone - np.float32(5), width), scene.tissue.muscle, window, organ=0)
    cover = opacity(bone, width)
    canvas.paint(cover, CORTEX_HU, window, organ=VERTEBRAE)
    inner = opacity(np.maximum(bone + np.float32(2), gap * body.vertebra + 2), width)
    canvas.paint(inner, scene.tissue.spongy, window)
    canvas.paint(cover * disc, DISC_HU, window)
    _paint_arch(scene, window, at, y0)


def _paint_arch(scene: Scene, window: tuple[slice, slice, slice], at: At, y0: float) -> None:
    """Paint what lies behind a vertebral body: ring, spinous process, canal."""
    canvas, body = scene.canvas, scene.body
    width = canvas.width
    y = at.y - np.float32(y0 + 24)
    ring = np.abs(np.sqrt(at.x * at.x + y * y) - np.float32(11)) - np.float32(3)
    turn = at.z * np.float32(1 / body.vertebra) + np.float32(body.vertebra_phase)
    beside = np.abs(turn - np.floor(turn) - np.float32(0.5)) * np.float32(body.vertebra)
    back = min(57.0, body.half_depth - body.fat - 7 - y0)  # it ends under the skin
    process = np.maximum(np.abs(at.x) - 3, np.maximum(12 - y, y - np.float32(back - 24)))
    process = np.maximum(process, beside - np.float32(0.3 * body.vertebra))
    wing = np.maximum(np.abs(np.abs(at.x) - np.float32(21)) - 9, np.abs(y + np.float32(1)) - 4)
    wing = np.maximum(wing, beside - np.float32(0.2 * body.vertebra))
    bone: Field = np.minimum(np.minimum(ring, process), wing)
    canvas.paint(opacity(bone, width), ARCH_HU, window)
    canal = np.sqrt(at.x * at.x + y * y) - np.float32(8)
    canvas.paint(opacity(canal, width), 25.0, window, organ=0)


def paint_table(scene: Scene) -> None:
    """Paint a thin curved plate under the patient's back."""
    canvas, body = scene.canvas, scene.body
    y, x = canvas.axes[1].reshape(1, -1, 1), canvas.axes[2].reshape(1, 1, -1)
    sag = y - np.float32(body.half_depth + 16) + x * x * np.float32(1 / 900)
    plate = np.maximum(np.abs(sag) - np.float32(3), np.abs(x) - np.float32(150))
    cover = np.broadcast_to(opacity(plate, canvas.width), canvas.hu.shape)
    canvas.paint(cover * (canvas.hu < -600), TABLE_HU)
