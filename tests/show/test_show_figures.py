"""Slices: HU become the right grey, sides are where a radiologist expects them, mm are kept."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

import fabricated
from t3d.errors import GeometryError
from t3d.show import figures
from t3d.show.figures import LUNG, SOFT, Slice, Tile, Window, axial, coronal, single
from t3d.types import Volume

WIDE = Window(name="wide", low_hu=-1000.0, high_hu=1000.0)


def marked(z: int, y: int, x: int) -> Volume:
    """Water with a bright block of 4 x 8 x 8 voxels at one place."""
    voxels = np.zeros((16, 40, 40), np.int16)
    voxels[z : z + 4, y : y + 8, x : x + 8] = 1000
    matrix = np.diag([0.0, 0, 0, 1])
    matrix[0, 2], matrix[1, 1], matrix[2, 0] = 2.0, 2.0, 5.0
    matrix[2, 3] = -100.0
    return Volume(volume_id="v", voxels=voxels, world_from_voxel=matrix)


def grey(picture: bytes) -> NDArray[np.float64]:
    return np.asarray(imread(io.BytesIO(picture)))[..., :3].mean(axis=2)


def bright_centre(picture: NDArray[np.float64]) -> tuple[float, float]:
    """Where the bright block lies, as shares of height and width; letters are too thin."""
    rows, columns = np.nonzero(picture > 0.9)
    return float(np.median(rows)) / len(picture), float(np.median(columns)) / picture.shape[1]


@pytest.mark.parametrize(
    ("y", "x", "row", "column"),
    [(2, 2, "top", "left"), (2, 30, "top", "right"), (30, 2, "bottom", "left")],
)
def test_an_axial_slice_has_front_on_top_and_the_patients_right_on_the_left(
    y: int, x: int, row: str, column: str
) -> None:
    down, across = bright_centre(grey(single(Tile(cut=axial(marked(4, y, x), -75.0), window=WIDE))))
    assert (down < 0.4) == (row == "top")
    assert (across < 0.4) == (column == "left")


def test_a_coronal_slice_has_the_head_on_top() -> None:
    high = grey(single(Tile(cut=coronal(marked(11, 16, 16)), window=WIDE)))
    low = grey(single(Tile(cut=coronal(marked(1, 16, 16)), window=WIDE)))
    assert bright_centre(high)[0] < 0.4
    assert bright_centre(low)[0] > 0.6


def test_a_window_maps_its_ends_to_black_and_white_and_its_middle_to_grey() -> None:
    hu = np.repeat(np.array([-2000.0, -1000, 0, 1000, 2000], np.float32), 10)[None].repeat(50, 0)
    cut = Slice(hu=hu, pixel_mm=(1.0, 1.0), at_mm=0.0)
    picture = grey(single(Tile(cut=cut, window=WIDE), pixels=250))
    row = picture[70, 25::50]
    assert row == pytest.approx([0, 0, 0.5, 1, 1], abs=0.02)


def test_windows_have_the_usual_level_and_width() -> None:
    assert ((LUNG.low_hu + LUNG.high_hu) / 2, LUNG.high_hu - LUNG.low_hu) == (-600, 1500)
    assert ((SOFT.low_hu + SOFT.high_hu) / 2, SOFT.high_hu - SOFT.low_hu) == (40, 400)


def test_the_picture_keeps_millimetres_not_voxels() -> None:
    cut = Slice(hu=np.zeros((10, 40), np.float32), pixel_mm=(9.0, 3.0), at_mm=0.0)
    height, width = grey(single(Tile(cut=cut, window=WIDE), pixels=240)).shape
    assert height / width == pytest.approx(90 / 120, abs=0.01)


def test_depths_and_slices_are_inverse_and_held_inside() -> None:
    volume = marked(0, 0, 0)
    assert [figures.index_at(volume, figures.depth_of(volume, k)) for k in range(16)] == list(
        range(16)
    )
    assert figures.depth_of(volume, 3) == -85.0
    assert figures.index_at(volume, -97.6) == 0
    assert figures.index_at(volume, -97.4) == 1
    assert figures.index_at(volume, -900.0) == 0
    assert figures.index_at(volume, 900.0) == 15


def test_a_slab_is_the_mean_of_the_slices_around_it() -> None:
    volume = marked(4, 0, 0)  # bright in slices 4 to 7, 5 mm apart; slice 5 lies at -75 mm
    corner = [float(axial(volume, -75.0, slab_mm=mm).hu[0, 0]) for mm in (0, 9, 10, 20)]
    assert corner == pytest.approx([1000, 1000, 1000, 800])  # 5; 5; 4 to 6; 3 to 7


def test_the_outline_is_drawn_around_the_mask_and_only_there() -> None:
    volume = fabricated.chest()
    z_mm = figures.depth_of(volume, 20)
    plain = single(Tile(cut=axial(volume, z_mm), window=LUNG))
    outlined = single(Tile(cut=axial(volume, z_mm, mask=fabricated.lesion()), window=LUNG))
    first, second = (np.asarray(imread(io.BytesIO(p)))[..., :3] for p in (plain, outlined))
    rows, columns = np.nonzero(np.abs(first - second).max(axis=2) > 0.1)
    pixel = 280 / 64
    assert np.median(columns) == pytest.approx(45.5 * pixel, abs=4)
    assert np.median(rows) == pytest.approx(30.5 * pixel, abs=4)
    assert columns.min() > 36 * pixel
    assert columns.max() < 55 * pixel


def test_a_mask_of_another_grid_is_refused() -> None:
    with pytest.raises(GeometryError, match="mask of shape"):
        axial(fabricated.chest(), 0.0, mask=np.zeros((1, 2, 3), np.uint8))


def test_the_same_tile_gives_the_same_bytes() -> None:
    tile = Tile(cut=axial(fabricated.chest(), -120.0), window=SOFT)
    assert single(tile) == single(tile)


def test_a_mosaic_has_a_place_for_every_tile_and_leaves_gaps_black() -> None:
    tile = Tile(cut=axial(fabricated.chest(), -120.0), window=LUNG)
    figure = figures.mosaic([[tile, None], [tile, tile]], tile_inches=1.0)
    assert len(figure.axes) == 3
    picture = grey(figures.encode(figure, dpi=100))
    height, width = picture.shape
    assert picture[: height // 2 - 4, width // 2 + 4 :].max() == 0
    assert picture[height // 2 :, width // 2 + 4 :].max() > 0.5


def test_a_data_uri_carries_the_picture() -> None:
    assert figures.data_uri(b"abc") == "data:image/png;base64,YWJj"
