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


def test_each_finding_gets_its_slice_score_and_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    depths: list[float] = []

    def watch(axes: object, tile: screen.Tile, *, smooth: bool = False) -> None:
        titles.append(tile.title)
        depths.append(tile.cut.at_mm)

    monkeypatch.setattr(screen, "draw", watch)
    findings = [("Lung nodule", 0.83, -121.0), ("Emphysema", -0.1, math.nan)]
    screen_picture(fabricated.chest(), findings, tmp_path / "p.png", DOMAIN)
    assert titles[2:] == [
        "1. Lung nodule",
        "score 0.830, z -120 mm",
        "2. Emphysema",
        "score -0.100, no supporting slice",
    ]
    assert depths[2:4] == [-120.0, -120.0]  # slice 20, the nearest
    assert depths[4] == -165.0  # slice 15, the middle one


def test_the_words_beside_it_name_scan_domain_and_what_is_left_out() -> None:
    text = screen._text(fabricated.chest("scan7"), 14, 12, "out of domain: too small")
    assert "Scan scan7" in text
    assert "Domain: out of domain: too small" in text
    assert "2 more findings are not drawn." in text
    assert "not for clinical use" in text.replace("\n", " ")


@pytest.mark.parametrize("count", [0, 1, 14])
def test_the_picture_grows_by_a_row_for_two_findings_and_stops_at_twelve(
    tmp_path: Path, count: int
) -> None:
    findings = [(f"finding {k}", 0.5, -100.0) for k in range(count)]
    path = screen_picture(fabricated.chest(), findings, tmp_path / "new" / "p.png", DOMAIN)
    picture = np.asarray(imread(io.BytesIO(path.read_bytes())))
    rows = 1 + math.ceil(min(count, 12) / 2)
    assert picture.shape[0] / picture.shape[1] == pytest.approx(rows * 2.4 / 8.4, rel=0.01)
    assert picture[..., :3].std() > 0.1
