"""The picture of `t3d screen`: for each finding the slice that supports its score most."""

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

MAX_FINDINGS = 12  # a taller picture is not looked at; the scores are in the table beside it
COLUMNS = 4  # two findings a row, each in two windows
TILE_INCHES = 2.1
PARAGRAPH = "\n\n"
NOTE = "Research software: these scores are not a diagnosis and not for clinical use."


def screen_picture(
    volume: Volume, findings: Sequence[tuple[str, float, float]], out: Path, domain: str
) -> Path:
    """Draw the supporting slices of the findings of one scan.

    Args:
        volume: int16 HU, axes (z, y, x) to Superior, Posterior, Left.
        findings: (name, score, LPS z in mm of the supporting slice), in the order to draw; a
            depth of NaN means that none is known. Only the first 12 are drawn; the picture says
            how many are left out.
        out: PNG file to write; its folder is made.
        domain: Whether the scan is in the domain the checkpoint was trained on, in words.

    Returns:
        The file written.
    """
    shown = findings[:MAX_FINDINGS]
    rows = 1 + math.ceil(len(shown) / 2)
    figure = Figure(figsize=(COLUMNS * TILE_INCHES, rows * (TILE_INCHES + 0.3)), facecolor="black")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.01, wspace=0.03, hspace=0.16)
    for axes in grid.ravel():
        axes.set_axis_off()
    front = coronal(volume)
    for axes, window in zip(grid[0, :2], (LUNG, SOFT), strict=True):
        draw(axes, Tile(cut=front, window=window, title=f"overview, {window.name}"), smooth=True)
        _depth_lines(axes, front, volume, shown)
    _words(grid[0, 2], _text(volume, len(findings), len(shown), domain))
    for k, (name, score, z_mm) in enumerate(shown):
        places = grid[1 + k // 2, 2 * (k % 2) : 2 * (k % 2) + 2]
        cut = axial(volume, z_mm if math.isfinite(z_mm) else _middle(volume))
        titles = (f"{k + 1}. {name}", _under(score, z_mm, cut))
        for axes, window, title in zip(places, (LUNG, SOFT), titles, strict=True):
            draw(axes, Tile(cut=cut, window=window, title=title), smooth=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(encode(figure, dpi=110))
    return out


def _under(score: float, z_mm: float, cut: Slice) -> str:
    """Score and depth in words."""
    if not math.isfinite(z_mm):
        return f"score {number(score)}, no supporting slice"
    return f"score {number(score)}, z {cut.at_mm:.0f} mm"


def _text(volume: Volume, total: int, drawn: int, domain: str) -> str:
    """What stands beside the overview."""
    left_out = f"{total - drawn} more findings are not drawn." if total > drawn else ""
    parts = (f"Scan {volume.volume_id}", f"Domain: {domain}", left_out, NOTE)
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


def _depth_lines(
    axes: Axes, front: Slice, volume: Volume, findings: Sequence[tuple[str, float, float]]
) -> None:
    """Mark where the supporting slices lie, one line a depth; the head is on top."""
    rows, columns = front.hu.shape
    height, width = rows * front.pixel_mm[0], columns * front.pixel_mm[1]
    top_mm = depth_of(volume, rows - 0.5)
    numbers: dict[float, list[int]] = {}
    for k, (_, _, z_mm) in enumerate(findings, start=1):
        if math.isfinite(z_mm):
            y = min(max(top_mm - z_mm, 0.0), height)
            numbers.setdefault(y, []).append(k)
    for place, (y, which) in enumerate(sorted(numbers.items())):
        axes.plot([0, width], [y, y], color=CONTOUR, linewidth=0.7)
        x = width * (0.08 + 0.18 * (place % 3))  # neighbours would write over each other
        side = "top" if y < 0.1 * height else "bottom"  # above the first slices stands the title
        rim = [withStroke(linewidth=2.0, foreground="#202020")]
        axes.text(x, y, _runs(which), color=CONTOUR, fontsize=7, va=side, path_effects=rim)


def _runs(numbers: Sequence[int]) -> str:
    """Write rising numbers shortly: 1, 2, 3, 5 becomes "1-3, 5"."""
    parts: list[list[int]] = []
    for k in numbers:
        if parts and k == parts[-1][-1] + 1:
            parts[-1].append(k)
        else:
            parts.append([k])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _middle(volume: Volume) -> float:
    """Depth of the middle slice."""
    return depth_of(volume, (volume.voxels.shape[0] - 1) // 2)
