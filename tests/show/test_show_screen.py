"""The picture of `t3d screen`."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import fabricated
from t3d.show import screen
from t3d.show.screen import screen_picture

DOMAIN = "inside (0.8 of the threshold)"


def test_each_slice_is_drawn_once_beside_the_scores_it_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    depths: list[float] = []

    def watch(axes: object, tile: screen.Tile, *, smooth: bool = False) -> None:
        titles.append(tile.title)
        depths.append(tile.cut.at_mm)

    monkeypatch.setattr(screen, "draw", watch)
    words: list[str] = []
    monkeypatch.setattr(screen, "_words", lambda axes, text: words.append(text))
    findings = [
        ("Lung nodule", 0.83, -121.0),
        ("Emphysema", -0.1, math.nan),
        ("Consolidation", -0.2, -119.0),
        ("Cardiomegaly", -0.3, -150.0),
    ]
    screen_picture(fabricated.chest(), findings, tmp_path / "p.png", DOMAIN)
    # Slices are 9 mm apart: -121 and -119 are both nearest to slice 20 at -120.
    assert titles[2::2] == [
        "1. z -120 mm, lung",
        "2. z -147 mm, lung",
        "3. no supporting slice, lung",
    ]
    assert words[1:] == [
        "0.830  Lung nodule\n-0.200  Consolidation",
        "-0.300  Cardiomegaly",
        "-0.100  Emphysema",
    ]
    assert depths[2:4] == [-120.0, -120.0]
    assert depths[6] == -165.0  # slice 15, the middle one


def test_the_words_beside_it_name_scan_domain_and_what_is_left_out() -> None:
    text = screen._text(fabricated.chest("scan7"), 2, "out of domain: too small")
    assert "Scan scan7" in text
    assert "Domain: out of domain: too small" in text
    assert "2 more slices are not drawn." in text
    assert "not for clinical use" in text.replace("\n", " ")


@pytest.mark.parametrize("count", [0, 1, 9])
def test_the_picture_grows_by_a_row_a_slice_and_stops_at_six(tmp_path: Path, count: int) -> None:
    findings = [(f"finding {k}", 0.5, -100.0 - 12 * k) for k in range(count)]
    path = screen_picture(fabricated.chest(), findings, tmp_path / "new" / "p.png", DOMAIN)
    picture = np.asarray(imread(io.BytesIO(path.read_bytes())))
    rows = 1 + min(count, 6)
    assert picture.shape[0] / picture.shape[1] == pytest.approx(rows * 2.4 / 8.4, rel=0.01)
    assert picture[..., :3].std() > 0.1
