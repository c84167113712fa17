"""Where a patient is painted: HU, organ codes and coordinates that lie as the patient lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom.shapes import At, opacity, segment
from t3d.types import Zyx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.phantom.body import Pose
    from t3d.phantom.grids import Frame, Grid
    from t3d.phantom.noise import SmoothNoise
    from t3d.phantom.shapes import Field

Window = tuple[slice, slice, slice]
Point = Sequence[float]  # z, y, x in mm, patient's axes

AIR_HU = -1000.0
FAR_MM = 1e3

RIGHT_LUNG, LEFT_LUNG, HEART, AORTA, AIRWAY, LIVER, SPLEEN, VERTEBRAE = range(1, 9)
OTHER_ORGAN = 9
"""Painted but without a code of its own; becomes 0 when the patient is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A piece of the mask of one item: how far each voxel of a window is covered."""

    window: Window
    opacity: Field  # shape of the window


class Canvas:
    """The arrays of one patient on one grid, (z, y, x), and ways to paint into them."""

    __slots__ = ("_turn", "axes", "frame", "hu", "low", "organ", "pitch", "pose", "width", "x",
                 "y", "z")  # fmt: skip

    def __init__(self, frame: Frame, grid: Grid, pose: Pose) -> None:
        self.frame = frame
        self.pose = pose
        self.pitch = grid.spacing_mm
        self.low = frame.lows_mm(grid)
        self.width = sum(grid.spacing_mm) / 3  # the w of every opacity, mm
        self.axes = frame.axes_mm(grid)
        self._turn = (np.float32(cos(pose.turn)), np.float32(sin(pose.turn)))
        z, y, x = self.axes
        self.z = z.reshape(-1, 1, 1)
        wave = np.sin(self.z * np.float32(2 * pi / frame.extent_mm.z) + np.float32(pose.phase))
        y = y.reshape(1, -1, 1) - (np.float32(pose.shift_y) + np.float32(pose.sway_y) * wave)
        x = x.reshape(1, 1, -1) - (np.float32(pose.shift_x) + np.float32(pose.sway_x) * wave)
        c, s = self._turn
        self.x: Field = c * x + s * y
        self.y: Field = c * y - s * x
        self.hu: Field = np.full(tuple(grid.shape), AIR_HU, np.float32)
        self.organ: NDArray[np.uint8] = np.zeros(tuple(grid.shape), np.uint8)

    @property
    def everywhere(self) -> At:
        """Coordinates of the whole canvas."""
        return At(self.z, self.y, self.x)

    def at(self, window: Window) -> At:
        """Give the coordinates of a window."""
        return At(self.z[window[0]], self.y[window], self.x[window])

    def noise(self, field: SmoothNoise, window: Window | None = None) -> Field:
        """Evaluate a field, on a window or everywhere."""
        if window is None:
            return field.sample(self.axes)
        return field.sample([axis[part] for axis, part in zip(self.axes, window, strict=True)])

    def window(self, low: Point, high: Point) -> Window | None:
        """Give the slices that hold a box of the patient's axes; None = it is outside."""
        pad = 0.5 * self.width + 0.5
        half_y = 0.5 * (high[1] - low[1]) + pad
        half_x = 0.5 * (high[2] - low[2]) + pad
        middle = Zyx(*(0.5 * (a + b) for a, b in zip(low, high, strict=True)))
        half_z = 0.5 * (high[0] - low[0]) + pad
        y, x = self._scanner(middle)
        c, s = (abs(float(v)) for v in self._turn)
        drift = 2 * pi / self.frame.extent_mm.z * half_z  # largest change of the sway's sine
        reach_y = s * half_x + c * half_y + abs(self.pose.sway_y) * drift
        reach_x = c * half_x + s * half_y + abs(self.pose.sway_x) * drift
        parts = []
        reach = (half_z, reach_y, reach_x)
        for axis, (at, span) in enumerate(zip((middle.z, y, x), reach, strict=True)):
            first = (at - span - self.low[axis]) / self.pitch[axis]
            last = (at + span - self.low[axis]) / self.pitch[axis]
            count = self.hu.shape[axis]
            start, stop = max(0, int(np.ceil(first))), min(count, int(np.floor(last)) + 1)
            if start >= stop:
                return None
            parts.append(slice(start, stop))
        return parts[0], parts[1], parts[2]

    def around(self, centre: Point, radii: Point) -> Window | None:
        """Give the slices that hold centre +- radii."""
        low = [c - r for c, r in zip(centre, radii, strict=True)]
        return self.window(low, [c + r for c, r in zip(centre, radii, strict=True)])

    def _scanner(self, point: Point) -> tuple[float, float]:
        """Give y and x of a point in the scanner's axes."""
        c, s = (float(v) for v in self._turn)
        wave = sin(point[0] * 2 * pi / self.frame.extent_mm.z + self.pose.phase)
        y = c * point[1] + s * point[2] + self.pose.shift_y + self.pose.sway_y * wave
        x = c * point[2] - s * point[1] + self.pose.shift_x + self.pose.sway_x * wave
        return y, x

    def voxel(self, point: Point) -> tuple[float, float, float]:
        """Give the fractional array index of a point of the patient's axes."""
        y, x = self._scanner(point)
        parts = zip((point[0], y, x), self.low, self.pitch, strict=True)
        z_vox, y_vox, x_vox = ((at - low) / pitch for at, low, pitch in parts)
        return z_vox, y_vox, x_vox

    def voxels(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give fractional array indices of many points, (N, 3) z y x."""
        c, s = self._turn
        wave = np.sin(points[:, 0] * np.float32(2 * pi / self.frame.extent_mm.z)
                      + np.float32(self.pose.phase))  # fmt: skip
        y = c * points[:, 1] + s * points[:, 2]
        x = c * points[:, 2] - s * points[:, 1]
        out = np.empty_like(points)
        pose, low, pitch = self.pose, self.low, self.pitch
        out[:, 0] = (points[:, 0] - low.z) / pitch.z
        out[:, 1] = (y + (pose.shift_y - low.y) + pose.sway_y * wave) / pitch.y
        out[:, 2] = (x + (pose.shift_x - low.x) + pose.sway_x * wave) / pitch.x
        return out

    def paint(
        self, cover: Field, hu: float | Field, window: Window | None = None, *, organ: int = -1
    ) -> None:
        """Blend towards a HU by an opacity; where it exceeds 1/2 the organ code changes.

        Args:
            cover: Opacity 0..1 of the window's shape.
            hu: One value, or an array of that shape.
            window: Where; None = everywhere.
            organ: New code; negative keeps what is underneath (lesions).
        """
        view = self.hu if window is None else self.hu[window]
        step = (np.float32(hu) if isinstance(hu, float) else hu) - view
        step *= cover
        view += step
        if organ >= 0:
            codes = self.organ if window is None else self.organ[window]
            codes[cover > 0.5] = organ

    def tube(
        self, points: Sequence[Point], radii: float | Sequence[float]
    ) -> tuple[Window, Field] | None:
        """Give the window and the distance of a tube along a line of points, mm."""
        r = [radii] * len(points) if isinstance(radii, float) else list(radii)
        reach = max(r)
        columns = list(zip(*points, strict=True))
        low = [min(c) - reach for c in columns]
        window = self.window(low, [max(c) + reach for c in columns])
        if window is None:
            return None
        at = self.at(window)
        shape = tuple(part.stop - part.start for part in window)
        if len(points) == 2:
            return window, segment(at, points[0], points[1], (r[0], r[1]))
        distance: Field = np.full(shape, FAR_MM, np.float32)
        for k in range(len(points) - 1):
            ends = list(zip(points[k], points[k + 1], strict=True))
            part = self.window([min(e) - reach for e in ends], [max(e) + reach for e in ends])
            if part is None:
                continue
            own = segment(self.at(part), points[k], points[k + 1], (r[k], r[k + 1]))
            inner = tuple(slice(p.start - w.start, p.stop - w.start)
                          for p, w in zip(part, window, strict=True))  # fmt: skip
            np.minimum(distance[inner], own, out=distance[inner])
        return window, distance

    def paint_tube(
        self, points: Sequence[Point], radii: float | Sequence[float], hu: float, *, organ: int = -1
    ) -> list[Mark]:
        """Paint a tube of one HU and give its mark (none where it misses the grid)."""
        found = self.tube(points, radii)
        if found is None:
            return []
        window, distance = found
        cover = opacity(distance, self.width)
        self.paint(cover, hu, window, organ=organ)
        return [Mark(window=window, opacity=cover)]
