"""A scan at a glance: three planes with the letters of their sides, and a histogram of its HU.

The planes are plain grey pictures; letters, the bar and the histogram are drawn by the template
as SVG in millimetres, so that they are read by a test and by a screen reader too.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from t3d.ct.doctor import HISTOGRAM_BINS, HISTOGRAM_HU, HU_CODES
from t3d.show.figures import Window, data_uri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from t3d.ct.doctor import Examination, Plane

OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
WORDS = {"L": "left", "R": "right", "P": "back", "A": "front", "S": "head", "I": "feet"}
WIDE = Window(name="-1000 to 400 HU", low_hu=-1000.0, high_hu=400.0)  # lung and tissue alike
MAX_PIXELS = 240  # along a side; a wider plane is thinned out
CHART = (330.0, 150.0)  # width and height of the histogram, in units of its viewBox


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The name of one side of a picture and where it stands, in mm from the upper left corner."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One plane as the template draws it; lengths in mm."""

    uri: str
    width: float
    height: float
    frame: float  # height of the whole drawing: a thin stack stands in a wider one
    size: float  # of the letters
    letters: tuple[Letter, ...]  # left, right, top, bottom
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Bars as one SVG path; heights follow the square root, so that bone is seen beside air."""

    path: str
    ticks: tuple[tuple[float, str], ...]  # where, and which HU
    alt: str


def views(examination: Examination) -> tuple[View, ...]:
    """Draw the planes an examination kept.

    Args:
        examination: Of one scan; without planes where an audit dropped them.

    Returns:
        Axial as seen from the feet, coronal and sagittal with the head on top; one scale.
    """
    window = _window(examination)
    widest = max((_extent(plane)[0] for plane in examination.planes), default=0.0)
    return tuple(_view(plane, window, 0.07 * widest) for plane in examination.planes)


def _window(examination: Examination) -> Window:
    """A fixed window for HU; all there is for numbers that are none."""
    if not any(f.code in HU_CODES for f in examination.findings) or not examination.planes:
        return WIDE
    values = np.concatenate([plane.hu.ravel() for plane in examination.planes])
    low, high = float(values.min()), float(values.max())
    name = f"all values, {low:.0f} to {high:.0f}"
    return Window(name=name, low_hu=low, high_hu=max(high, low + 1))


def _extent(plane: Plane) -> tuple[float, float]:
    """Width and height in mm."""
    rows, columns = plane.hu.shape
    return columns * plane.pixel_mm[1], rows * plane.pixel_mm[0]


def _view(plane: Plane, window: Window, size: float) -> View:
    """One plane: picture, letters, words."""
    width, height = _extent(plane)
    frame = max(height, 4.0 * size)
    middle = 0.36 * size  # from a letter's base line to its middle
    right, bottom = plane.across, plane.down
    left, top = OPPOSITE[right], OPPOSITE[bottom]
    letters = (
        Letter(text=left, x=0.7 * size, y=frame / 2 + middle),
        Letter(text=right, x=width - 0.7 * size, y=frame / 2 + middle),
        Letter(text=top, x=width / 2, y=1.0 * size),
        Letter(text=bottom, x=width / 2, y=frame - 0.3 * size),
    )
    sides = f"{WORDS[left]} on the left, {WORDS[right]} on the right, {WORDS[top]} on top"
    return View(
        uri=data_uri(_png(_grey(plane.hu, window))),
        width=width,
        height=height,
        frame=frame,
        size=size,
        letters=letters,
        alt=f"{plane.kind} slice, {sides}",
        caption=f"{plane.kind}, {width:.0f} x {height:.0f} mm, {window.name}",
    )


def _grey(hu: NDArray[np.int16], window: Window) -> NDArray[np.uint8]:
    """Values as 8-bit grey, thinned out where there are too many."""
    step = tuple(-(-n // MAX_PIXELS) for n in hu.shape)
    share = (hu[:: step[0], :: step[1]] - window.low_hu) / (window.high_hu - window.low_hu)
    grey: NDArray[np.uint8] = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return grey


def _png(grey: NDArray[np.uint8]) -> bytes:
    """Encode (rows, columns) as a PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(grey).save(out, format="PNG", optimize=True)
    return out.getvalue()


def histogram(examination: Examination) -> Histogram:
    """Draw how often each HU occurs among the voxels looked at.

    Args:
        examination: Of one scan.

    Returns:
        Bars from -1104 to 1504 HU; the first and the last hold what lies beyond.
    """
    counts = np.sqrt(np.array(examination.histogram, dtype=np.float64))
    heights = counts / max(counts.max(), 1.0) * (CHART[1] - 30)
    width = CHART[0] / HISTOGRAM_BINS
    base = CHART[1] - 20
    bars = [
        f"M{k * width:.1f},{base:.0f}v{-height:.1f}h{width:.1f}v{height:.1f}z"
        for k, height in enumerate(heights)
        if height >= 0.1
    ]
    low, high = HISTOGRAM_HU
    ticks = tuple(
        ((hu - low) / (high - low) * CHART[0], f"{hu:.0f}") for hu in (-1000, -500, 0, 500, 1000)
    )
    return Histogram(path="".join(bars), ticks=ticks, alt="histogram of HU, square root of counts")
