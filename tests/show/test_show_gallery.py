"""The docs' phantom gallery: complete, small, and honest about what is real."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from t3d.text.findings import CT_RATE_18

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "gallery"


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "tools" / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_gallery_has_a_picture_of_every_finding_and_stays_small(
    gallery: ModuleType,
) -> None:
    text = (GALLERY / "index.md").read_text()
    linked = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert all(alt and (GALLERY / name).is_file() for alt, name in linked)
    names = {name for _, name in linked}
    assert {gallery.file_name(f) for f in CT_RATE_18} <= names
    pictures = list(GALLERY.glob("*.jpg"))
    assert {p.name for p in pictures} == names
    assert sum(p.stat().st_size for p in pictures) < gallery.MAX_BYTES
    assert all(p.read_bytes()[:3] == b"\xff\xd8\xff" for p in pictures)


def test_the_page_says_what_is_synthetic_and_credits_what_is_real(gallery: ModuleType) -> None:
    text = gallery.page(real=True)
    assert text.index("Synthetic phantoms; not clinical.") < text.index("## A real chest CT")
    assert "CC BY 4.0" in text
    assert "10.7937/TCIA.2020.NNC20461" in text
    assert "was not at hand" in gallery.page(real=False)
    assert "real.jpg" not in gallery.page(real=False)


@pytest.mark.parametrize("finding", ["Lung nodule", "Cardiomegaly"])
def test_the_patients_have_the_finding_by_themselves_a_large_and_a_small_one_first(
    gallery: ModuleType, finding: str
) -> None:
    seeds = gallery.seeds_of(finding)
    plans = [gallery.plan(seed) for seed in seeds]
    assert len(set(seeds)) == 3
    assert all(p.labels[finding] == 1 for p in plans)
    sizes = [p.large[finding] for p in plans[:2]]
    assert sizes == ([True, False] if finding == "Lung nodule" else [True, True])


def test_a_pair_differs_where_the_finding_is_and_hardly_elsewhere(gallery: ModuleType) -> None:
    seed = gallery.seeds_of("Lung nodule")[0]
    pair = gallery.pair_of(seed, "Lung nodule")
    having, without = (p.volume.voxels[1].astype(int) for p in pair.fine)
    mask = pair.fine[0].masks["Lung nodule"][1]
    assert mask.any()
    assert (having - without)[mask].mean() > 300
    assert abs((having - without)[~mask]).mean() < 5
    assert pair.demo[1].labels["Lung nodule"] == 0


def test_a_missing_real_ct_is_said_and_does_not_stop_the_drawing(
    gallery: ModuleType, tmp_path: Path
) -> None:
    total = gallery.draw(tmp_path / "out", tmp_path / "nothing", [])
    assert total == 0
    assert "was not at hand" in (tmp_path / "out" / "index.md").read_text()


@pytest.mark.slow
@pytest.mark.real
def test_the_real_ct_is_read_upright_with_its_spacing(gallery: ModuleType, real_data: Path) -> None:
    volume = gallery.read_real(real_data / gallery.REAL_SERIES)
    assert volume.voxels.shape == (64, 512, 512)
    assert gallery.spacing_mm(volume.world_from_voxel) == pytest.approx(
        (5.0, 0.8418, 0.8418), abs=1e-4
    )
    assert (gallery.depth_of(volume, 0), gallery.depth_of(volume, 63)) == pytest.approx(
        (-439.0, -124.0)
    )
    picture = gallery.real_picture(volume)
    assert picture[:3] == b"\xff\xd8\xff"
    assert len(picture) < 200_000
