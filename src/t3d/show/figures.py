"""Pictures of CT slices: HU windows, millimetres kept, sides named.

Drawn by matplotlib's Agg canvas through Figure objects, so no global plotting state is touched
and no display is needed. Letters: an axial slice shows the patient's right side on the left, as
seen from the feet (R L), front on top (A P); a coronal one has the head on top (S I).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from t3d.ct.geometry import spacing_mm
from t3d.errors import GeometryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patheffects import AbstractPathEffect
    from numpy.typing import NDArray

    from t3d.types import Volume

INK = "#f2f2f2"
GAP_INCHES = 0.04  # between the tiles of a mosaic
TITLE_INCHES = 0.26  # above a row with titles
CONTOUR = "#ffb000"
LETTERS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A range of HU shown from black to white."""

    name: str
    low_hu: float
    high_hu: float


LUNG = Window(name="lung", low_hu=-1350.0, high_hu=150.0)  # level -600, width 1500
SOFT = Window(name="soft tissue", low_hu=-160.0, high_hu=240.0)  # level 40, width 400
BONE = Window(name="bone", low_hu=-450.0, high_hu=1050.0)  # level 300, width 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One plane cut from a volume, rows running down the picture."""

    hu: NDArray[np.float32]  # (rows, columns)
    pixel_mm: tuple[float, float]  # row pitch, column pitch
    at_mm: float  # LPS world coordinate of the plane: z if axial, y if coronal
    plane: str = "axial"
    mask: NDArray[np.bool_] | None = None  # same shape: what is outlined


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A slice under a window with its title."""

    cut: Slice
    window: Window
    title: str = ""


def depth_of(volume: Volume, index: float) -> float:
    """LPS z in mm of an axial slice, at the middle of the volume."""
    shape = volume.voxels.shape
    voxel = np.array([index, (shape[1] - 1) / 2, (shape[2] - 1) / 2, 1.0])
    return float((volume.world_from_voxel @ voxel)[2])


def index_at(volume: Volume, z_mm: float) -> int:
    """The axial slice whose centre is nearest to a depth.

    Args:
        volume: Axes run to Superior, Posterior, Left.
        z_mm: LPS z in mm; outside the volume the nearest end is taken.

    Returns:
        An index along z.
    """
    pitch = spacing_mm(volume.world_from_voxel).z
    nearest = float(np.rint((z_mm - depth_of(volume, 0.0)) / pitch))
    return int(min(max(nearest, 0.0), volume.voxels.shape[0] - 1.0))


def axial(
    volume: Volume, z_mm: float, *, slab_mm: float = 0.0, mask: NDArray[np.generic] | None = None
) -> Slice:
    """Cut an axial slice, or the mean of a thin slab around it.

    Args:
        volume: int16 HU, axes (z, y, x).
        z_mm: LPS z of the plane.
        slab_mm: Thickness that is averaged; 0 takes one slice.
        mask: Same shape as the volume; non-zero voxels of the plane are outlined.

    Returns:
        The cut; its depth is that of the slice taken, which is the nearest one.

    Raises:
        GeometryError: The mask has another shape.
    """
    _check(volume, mask)
    k = index_at(volume, z_mm)
    pitch = spacing_mm(volume.world_from_voxel)
    half = int(slab_mm / pitch.z / 2)
    low, high = max(k - half, 0), min(k + half, volume.voxels.shape[0] - 1)
    hu = volume.voxels[low : high + 1].mean(axis=0, dtype=np.float32)
    return Slice(
        hu=hu,
        pixel_mm=(pitch.y, pitch.x),
        at_mm=depth_of(volume, k),
        mask=None if mask is None else mask[k] != 0,
    )


def coronal(volume: Volume, *, share: float = 0.5) -> Slice:
    """Cut a coronal slice, head on top.

    Args:
        volume: int16 HU, axes (z, y, x).
        share: Where: 0 is the front, 1 the back.

    Returns:
        The cut.
    """
    shape = volume.voxels.shape
    j = min(int(share * shape[1]), shape[1] - 1)
    pitch = spacing_mm(volume.world_from_voxel)
    centre = np.array([(shape[0] - 1) / 2, j, (shape[2] - 1) / 2, 1.0])
    return Slice(
        hu=volume.voxels[::-1, j].astype(np.float32),
        pixel_mm=(pitch.z, pitch.x),
        at_mm=float((volume.world_from_voxel @ centre)[1]),
        plane="coronal",
    )


def draw(axes: Axes, tile: Tile, *, smooth: bool = False) -> None:
    """Draw a slice into matplotlib axes with letters and a 50 mm bar.

    Args:
        axes: Where to draw.
        tile: Slice, window and title.
        smooth: Interpolate between voxels; False shows the voxels as they are.
    """
    cut = tile.cut
    rows, columns = cut.hu.shape
    height, width = rows * cut.pixel_mm[0], columns * cut.pixel_mm[1]
    axes.imshow(
        cut.hu,
        cmap="gray",
        vmin=tile.window.low_hu,
        vmax=tile.window.high_hu,
        extent=(0.0, width, height, 0.0),
        interpolation="bilinear" if smooth else "nearest",
        aspect="equal",
    )
    if cut.mask is not None and cut.mask.any():
        x = (np.arange(columns) + 0.5) * cut.pixel_mm[1]
        y = (np.arange(rows) + 0.5) * cut.pixel_mm[0]
        axes.contour(x, y, cut.mask.astype(float), levels=[0.5], colors=CONTOUR, linewidths=1.0)
    axes.set_axis_off()
    _letters(axes, cut.plane)
    _bar(axes, width, height)
    if tile.title:
        axes.set_title(tile.title, color=INK, fontsize=8, pad=3)


def mosaic(
    rows: Sequence[Sequence[Tile | None]], *, tile_inches: float = 2.2, smooth: bool = False
) -> Figure:
    """Lay tiles out in rows on black.

    Args:
        rows: Rows of tiles; None leaves a place empty. Rows may differ in length.
        tile_inches: Width and height of a place.
        smooth: As in `draw`.

    Returns:
        A figure; `encode` turns it into bytes.
    """
    columns = max((len(row) for row in rows), default=1)
    heads = [TITLE_INCHES if any(t and t.title for t in row) else GAP_INCHES for row in rows]
    wide = columns * (tile_inches + GAP_INCHES) + GAP_INCHES
    high = sum(heads) + len(rows) * tile_inches + GAP_INCHES
    figure = Figure(figsize=(wide, high), facecolor="black")
    side = (tile_inches / wide, tile_inches / high)
    for r, row in enumerate(rows):
        bottom = high - sum(heads[: r + 1]) - (r + 1) * tile_inches
        for c, tile in enumerate(row):
            if tile is not None:
                left = GAP_INCHES + c * (tile_inches + GAP_INCHES)
                place = (left / wide, bottom / high, *side)
                draw(figure.add_axes(place), tile, smooth=smooth)
    return figure


def single(tile: Tile, *, pixels: int = 280, smooth: bool = False) -> bytes:
    """One tile without margins as a PNG.

    Args:
        tile: Slice, window; the title is left to the page.
        pixels: Width of the picture; the height follows from the millimetres.
        smooth: As in `draw`.

    Returns:
        PNG bytes.
    """
    rows, columns = tile.cut.hu.shape
    ratio = rows * tile.cut.pixel_mm[0] / (columns * tile.cut.pixel_mm[1])
    figure = Figure(figsize=(pixels / 100, pixels * ratio / 100), dpi=100, facecolor="black")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    draw(axes, Tile(cut=tile.cut, window=tile.window), smooth=smooth)
    return encode(figure, dpi=100)


def encode(figure: Figure, *, dpi: int = 100, kind: str = "png", quality: int = 80) -> bytes:
    """Render a figure.

    Args:
        figure: A matplotlib figure.
        dpi: Pixels an inch.
        kind: "png" or "jpeg".
        quality: Of a JPEG, 1 to 95.

    Returns:
        The picture's bytes, without a date, so that the same figure gives the same bytes.
    """
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    face = figure.get_facecolor()
    if kind == "jpeg":
        figure.savefig(out, format="jpeg", dpi=dpi, facecolor=face, pil_kwargs={"quality": quality})
    else:
        figure.savefig(out, format="png", dpi=dpi, facecolor=face, metadata={"Software": None})
    return out.getvalue()


def data_uri(picture: bytes, kind: str = "png") -> str:
    """Put a picture into a string that a page can carry.

    Args:
        picture: Bytes of a file.
        kind: Its image type.

    Returns:
        "data:image/png;base64,...".
    """
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _check(volume: Volume, mask: NDArray[np.generic] | None) -> None:
    """A mask must lie on the volume's grid."""
    if mask is not None and mask.shape != volume.voxels.shape:
        raise GeometryError(
            f"volume {volume.volume_id}: mask of shape {mask.shape}",
            expected=f"the volume's shape {volume.voxels.shape}",
            fix="use the mask of the same preparation",
        )


def _letters(axes: Axes, plane: str) -> None:
    """Name the four sides."""
    left, right, top, bottom = LETTERS[plane]
    sides = ((0.03, 0.5, left), (0.97, 0.5, right), (0.5, 0.96, top), (0.5, 0.04, bottom))
    for x, y, text in sides:
        axes.text(
            x,
            y,
            text,
            transform=axes.transAxes,
            color=INK,
            fontsize=8,
            ha="center",
            va="center",
            path_effects=_edge(),
        )


def _bar(axes: Axes, width: float, height: float) -> None:
    """A bar of 50 mm, where the picture is wide enough for one."""
    if width < 100:
        return
    x, y = width * 0.95, height * 0.95
    axes.plot(
        [x - 50, x],
        [y, y],
        color=INK,
        linewidth=1.5,
        solid_capstyle="butt",
        path_effects=_edge(),
    )
    axes.text(
        x - 25,
        y - height * 0.02,
        "50 mm",
        color=INK,
        fontsize=6,
        ha="center",
        va="bottom",
        path_effects=_edge(),
    )


def _edge() -> list[AbstractPathEffect]:
    """A dark rim, so that marks are seen on bright ground too."""
    return [withStroke(linewidth=2.2, foreground="#202020")]
