"""The picture of `t3d screen`: the slices behind the scores, and which scores they are behind."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredOffsetbox, TextArea, VPacker
from matplotlib.patheffects import withStroke

from t3d.show.figures import CONTOUR, INK, LUNG, SOFT, Tile, axial, coronal, depth_of, draw, encode
from t3d.show.wording import number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from t3d.show.figures import Slice
    from t3d.types import Volume

MAX_SLICES = 6  # a taller picture is not looked at; all scores are in screen.json
COLUMNS = 4  # a slice in two windows, and words over two places
TILE_INCHES = 2.1
PARAGRAPH = "\n\n"
HINT = (
    "Beside each slice: the scores that fall most when the slices around it are hidden. "
    "A hint, not a location."
)
NOTE = "Research software: these scores are not a diagnosis and not for clinical use."


def screen_picture(
    volume: Volume, findings: Sequence[tuple[str, float, float]], out: Path, domain: str
) -> Path:
    """Draw the supporting slices of the findings of one scan, each slice once.

    Args:
        volume: int16 HU, axes (z, y, x) to Superior, Posterior, Left.
        findings: (name, score, LPS z in mm of the supporting slice), in the order to draw; a
            depth of NaN means that none is known. Slices are drawn in the order of their first
            finding, at most 6; the picture says how many are left out.
        out: PNG file to write; its folder is made.
        domain: Whether the scan is in the domain the checkpoint was trained on, in words.

    Returns:
        The file written.
    """
    behind = _by_slice(volume, findings)
    shown = list(behind.items())[:MAX_SLICES]
    rows = 1 + len(shown)
    figure = Figure(figsize=(COLUMNS * TILE_INCHES, rows * (TILE_INCHES + 0.3)), facecolor="black")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.01, wspace=0.03, hspace=0.16)
    for axes in grid.ravel():
        axes.set_axis_off()
    front = coronal(volume)
    for axes, window in zip(grid[0, :2], (LUNG, SOFT), strict=True):
        draw(axes, Tile(cut=front, window=window, title=f"overview, {window.name}"), smooth=True)
        _depth_lines(axes, front, volume, [depth for depth, _ in shown])
    _words(grid[0, 2], _text(volume, len(behind) - len(shown), domain))
    for k, (depth, rows_behind) in enumerate(shown, start=1):
        known = math.isfinite(depth)
        cut = axial(volume, depth if known else _middle(volume))
        place = f"{k}. z {cut.at_mm:.0f} mm" if known else f"{k}. no supporting slice"
        for axes, window in zip(grid[k, :2], (LUNG, SOFT), strict=True):
            title = f"{place}, {window.name}"
            draw(axes, Tile(cut=cut, window=window, title=title), smooth=True)
        told = "\n".join(f"{number(score)}  {name}" for name, score in rows_behind)
        _words(grid[k, 2], told)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encode(figure, dpi=110))
    return out


def _by_slice(
    volume: Volume, findings: Sequence[tuple[str, float, float]]
) -> dict[float, list[tuple[str, float]]]:
    """Gather (name, score) by the slice nearest to its depth; NaN gathers those without one."""
    behind: dict[float, list[tuple[str, float]]] = {}
    nowhere: list[tuple[str, float]] = []
    for name, score, z_mm in findings:
        if math.isfinite(z_mm):
            behind.setdefault(axial(volume, z_mm).at_mm, []).append((name, score))
        else:
            nowhere.append((name, score))
    return behind | ({math.nan: nowhere} if nowhere else {})


def _text(volume: Volume, left_out: int, domain: str) -> str:
    """What stands beside the overview."""
    more = f"{left_out} more slices are not drawn." if left_out > 0 else ""
    parts = (f"Scan {volume.volume_id}", f"Domain: {domain}", HINT, more, NOTE)
    return PARAGRAPH.join(textwrap.fill(part, 44) for part in parts if part)


def _words(axes: Axes, text: str) -> None:
    """Write paragraphs over two empty places; that of a foreign scan stands out."""
    lines: list[Artist] = []
    for part in text.split(PARAGRAPH):
        foreign = part.casefold().startswith("domain: out of domain")
        style = {"color": CONTOUR if foreign else INK, "weight": "bold" if foreign else "normal"}
        lines.append(TextArea(part, textprops={"fontsize": 9, **style}))
    packed = VPacker(children=lines, pad=0, sep=8)
    axes.add_artist(
        AnchoredOffsetbox(
            "upper left",
            child=packed,
            frameon=False,
            bbox_to_anchor=(0.05, 0.97),
            bbox_transform=axes.transAxes,
            pad=0,
            borderpad=0,
        )
    )


def _depth_lines(axes: Axes, front: Slice, volume: Volume, depths_mm: Sequence[float]) -> None:
    """Mark where the supporting slices lie, numbered as they are drawn; the head is on top."""
    rows, columns = front.hu.shape
    height, width = rows * front.pixel_mm[0], columns * front.pixel_mm[1]
    top_mm = depth_of(volume, rows - 0.5)
    places = [(top_mm - z, k) for k, z in enumerate(depths_mm, start=1) if math.isfinite(z)]
    for place, (y, k) in enumerate(sorted(places)):
        y = min(max(y, 0.0), height)
        axes.plot([0, width], [y, y], color=CONTOUR, linewidth=0.7)
        x = width * (0.08 + 0.18 * (place % 3))  # neighbours would write over each other
        side = "top" if y < 0.1 * height else "bottom"  # above the first slices stands the title
        rim = [withStroke(linewidth=2.0, foreground="#202020")]
        axes.text(x, y, str(k), color=CONTOUR, fontsize=7, va=side, path_effects=rim)


def _middle(volume: Volume) -> float:
    """Depth of the middle slice."""
    return depth_of(volume, (volume.voxels.shape[0] - 1) // 2)
