"""Directions and sizes read from bodies: all flips of phantoms and of real scans, and crops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct import anatomy
from t3d.ct.anatomy import Anatomy, read_anatomy
from t3d.ct.door import read
from t3d.ct.survey import survey
from t3d.phantom.canvas import LEFT_LUNG, RIGHT_LUNG
from t3d.phantom.patient import Phantom, patient
from t3d.phantom.presets import DEMO, STANDARD
from t3d.types import Volume

FLIPS = tuple(itertools.product((1, -1), repeat=3))  # z, y, x
SINGLE = tuple(flip for flip in FLIPS if sum(flip) >= 1)  # none, or one axis
SEEDS = (2, 7)
HERNIAS = (16, 52, 90, 112)  # gas behind the heart, which a cut scan may take for trachea


@cache
def made(seed: int) -> Phantom:
    """One phantom, both presets in turn."""
    return patient(seed, preset=STANDARD if seed % 2 else DEMO)


@cache
def cells_of(seed: int) -> Volume:
    """The cells of one phantom, from which all its turned copies are made."""
    return survey(made(seed).volume).cells


def with_voxels(volume: Volume, voxels: NDArray[np.int16]) -> Volume:
    """Other voxels under the same affine: what a turned file claims."""
    return Volume(
        volume_id=volume.volume_id,
        voxels=np.ascontiguousarray(voxels),
        world_from_voxel=volume.world_from_voxel,
    )


def turned(volume: Volume, flip: tuple[int, int, int]) -> Volume:
    """Reverse some axes of the voxels; the affine says nothing of it."""
    z, y, x = flip
    return with_voxels(volume, volume.voxels[::z, ::y, ::x])


def look(cells: Volume) -> Anatomy:
    """Read the anatomy of some cells; there must be a body."""
    found = read_anatomy(cells, np.zeros(cells.voxels.shape[1:], dtype=bool))
    assert found is not None
    return found


def verdicts(cells: Volume) -> list[str]:
    """head-foot, front-back, left-right."""
    return [d.verdict for d in look(cells).directions]


# ---- directions ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_flip_of_a_phantom_is_seen_on_its_axis_and_on_no_other(seed: int) -> None:
    volume = cells_of(seed)
    for flip in FLIPS:
        expected = ["flipped" if sign < 0 else "fits" for sign in flip]
        assert verdicts(turned(volume, flip)) == expected


@pytest.mark.slow
def test_of_200_phantoms_in_8_flips_none_is_called_turned_that_is_not() -> None:
    """The rates of docs/howto/doctor.md."""
    told = {"fits": 0, "flipped": 0, "cannot tell": 0}
    for seed in range(200):
        cells = survey(patient(seed, preset=STANDARD if seed % 2 else DEMO).volume).cells
        for flip in FLIPS:
            found = verdicts(turned(cells, flip))
            for sign, verdict in zip(flip, found, strict=True):
                wrong = "flipped" if sign > 0 else "fits"
                assert verdict != wrong, (seed, flip)
                told[verdict] += 1
    assert told["cannot tell"] <= 0.05 * sum(told.values())


@pytest.mark.parametrize("seed", HERNIAS)
@pytest.mark.parametrize("share", [0.5, 0.6])
def test_the_lower_part_of_a_chest_is_never_called_turned(seed: int, share: float) -> None:
    volume = cells_of(seed)
    part = with_voxels(volume, volume.voxels[: int(share * len(volume.voxels))])
    assert "flipped" not in verdicts(part)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_a_chest_cut_on_both_sides_is_never_called_turned(seed: int, share: float) -> None:
    volume = cells_of(seed)
    lost = int(share * volume.voxels.shape[2])
    found = look(with_voxels(volume, volume.voxels[..., lost:-lost]))
    assert "flipped" not in [d.verdict for d in found.directions]
    assert {"left", "right"} <= set(found.cut)
    assert found.lung_ml > 0.5 * (1 - 2 * share) * look(volume).lung_ml  # cut open, still lung


@pytest.mark.parametrize("seed", SEEDS)
def test_turning_an_axis_changes_the_sign_of_its_evidence_only(seed: int) -> None:
    volume = cells_of(seed)
    intact = [d.score for d in look(volume).directions]
    for axis in range(3):
        flip = [1, 1, 1]
        flip[axis] = -1
        now = [d.score for d in look(turned(volume, (flip[0], flip[1], flip[2]))).directions]
        expected = [-s if n == axis else s for n, s in enumerate(intact)]
        assert now == pytest.approx(expected, abs=0.5)


REAL = {  # what each axis can tell: head-foot, front-back, left-right
    "dicom/chest_lungpetctdx_A0002/series3_B40f_deflated": (True, True, False),  # a tumour
    "dicom/abdomen_totalseg_j2k": (False, True, True),  # 40 mm: no lung, no pelvis
    "nifti/ct/torso_3mm_int32.nii.gz": (True, True, True),
    "nifti/ct/abdomen_3mm_int16.nii.gz": (False, True, True),
    "nifti/ct/aorta_1p5mm_LPS.nii.gz": (False, False, False),  # a crop without outline
    "nrrd/CTChest4.nrrd": (True, True, True),
}


SLOW = pytest.param(  # 64 slices of JPEG 2000
    "dicom/chest_lungpetctdx_A0001/series3_B_j2k", (True, True, True), marks=pytest.mark.slow
)


@pytest.mark.real
@pytest.mark.parametrize(("name", "tells"), [*REAL.items(), SLOW])
def test_a_turned_axis_of_a_real_scan_is_seen_or_left_open(
    real_data: Path, name: str, tells: tuple[bool, bool, bool]
) -> None:
    if name.startswith("dicom"):
        pytest.importorskip("pydicom")
    if name.startswith("nrrd"):
        pytest.importorskip("SimpleITK")
    volume = survey(read(real_data / name)).cells
    for flip in SINGLE:
        expected = [
            ("flipped" if sign < 0 else "fits") if tell else "cannot tell"
            for sign, tell in zip(flip, tells, strict=True)
        ]
        assert verdicts(turned(volume, flip)) == expected


@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in REAL if name.startswith("nifti")])
def test_no_part_of_a_real_scan_is_called_turned(real_data: Path, name: str) -> None:
    volume = survey(read(real_data / name)).cells
    depth = len(volume.voxels)
    for low, high in ((0.0, 0.5), (0.25, 0.75), (0.5, 1.0)):
        part = volume.voxels[int(low * depth) : int(high * depth)]
        assert "flipped" not in verdicts(with_voxels(volume, part))


# ---- sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_lungs_and_table_are_those_of_the_phantom(seed: int) -> None:
    phantom = made(seed)
    found = look(cells_of(seed))
    lungs = (phantom.organ == RIGHT_LUNG) | (phantom.organ == LEFT_LUNG)
    pitch = np.linalg.norm(phantom.volume.world_from_voxel[:3, :3], axis=0)
    assert found.lung_ml == pytest.approx(float(lungs.sum() * pitch.prod() / 1000), rel=0.2)
    z = np.flatnonzero(lungs.sum(axis=(1, 2)) * pitch[1] * pitch[2] > 1500)  # 15 cm2
    assert found.lung_height_mm == pytest.approx((np.ptp(z) + 1) * pitch[0], abs=2 * pitch[0])
    assert found.lungs_whole
    assert found.cut == ()
    assert found.table == ("back" if phantom.facts["table"] == "yes" else "")


def test_width_and_depth_are_those_of_the_dense_voxels() -> None:
    seed = next(n for n in range(1, 40, 2) if made(n).facts["table"] == "no")
    volume, found = made(seed).volume, look(cells_of(seed))
    pitch = np.linalg.norm(volume.world_from_voxel[:3, :3], axis=0)
    for axis, measured in ((2, found.width_mm), (1, found.depth_mm)):
        spans = []
        for plane in volume.voxels:
            dense = [
                k for k in range(plane.shape[axis - 1]) if (plane.take(k, axis - 1) > -350).any()
            ]
            spans.append(dense[-1] - dense[0] + 1)
        assert measured == pytest.approx(
            np.percentile(spans, 95) * pitch[axis], abs=2 * pitch[axis]
        )


def test_a_table_is_named_by_the_claimed_side() -> None:
    seed = next(n for n in range(1, 40, 2) if made(n).facts["table"] == "yes")
    assert look(cells_of(seed)).table == "back"
    assert look(turned(cells_of(seed), (1, -1, 1))).table == "front"


@pytest.mark.parametrize(("side", "axis", "keep"), [
    ("right", 2, slice(25, None)), ("left", 2, slice(None, -25)), ("front", 1, slice(35, None)),
])  # fmt: skip
def test_a_cut_side_is_named(side: str, axis: int, keep: slice) -> None:
    volume = cells_of(7)
    part = volume.voxels[(slice(None),) * axis + (keep,)]
    assert look(with_voxels(volume, part)).cut == (side,)


def test_the_circle_of_the_field_cuts_as_a_side_does() -> None:
    volume = cells_of(7)
    rows, columns = volume.voxels.shape[1:]
    y, x = np.mgrid[-1 : 1 : 1j * rows, -1 : 1 : 1j * columns]
    outside = np.hypot(y, x) > 0.6
    voxels = volume.voxels.copy()
    voxels[:, outside] = -1024
    found = read_anatomy(with_voxels(volume, voxels), outside)
    assert found is not None
    assert {"left", "right"} <= set(found.cut)


def test_air_alone_has_no_body() -> None:
    seen = survey(with_voxels(made(7).volume, np.full((20, 60, 60), -1000, dtype=np.int16)))
    assert read_anatomy(seen.cells, np.zeros((60, 60), dtype=bool)) is None


# ---- parts ---------------------------------------------------------------------------------


def test_a_span_reaches_from_the_first_to_the_last_true_cell() -> None:
    rng = np.random.default_rng(0)
    plane = rng.random((9, 12)) < 0.2
    slow = np.zeros_like(plane)
    for row, filled in zip(plane, slow, strict=True):
        true = [x for x, value in enumerate(row) if value]
        for x in range(len(row)):
            filled[x] = bool(true) and true[0] <= x <= true[-1]
    assert np.array_equal(anatomy._spans(plane), slow)


def test_a_plane_is_filled_where_it_is_closed_or_ends_the_volume() -> None:
    ring = ["......", ".####.", ".#..#.", ".#..#.", ".####.", "......"]
    cut = ["......", "####..", "...#..", "...#..", "####..", "......"]  # open to the left side
    open_ = ["......", ".####.", ".#..#.", ".#....", ".####.", "......"]
    solid = np.array([[[c == "#" for c in row] for row in plane] for plane in (ring, cut, open_)])
    filled = solid.copy()
    filled[0, 2:4, 2:4] = True
    filled[1, 2:4, 0:3] = True
    assert np.array_equal(anatomy._filled(solid), filled)


def test_a_log_ratio_by_hand() -> None:
    assert anatomy._log_ratio(7, 3) == pytest.approx(1.0)  # log2(8 / 4)
    assert anatomy._log_ratio(0, 1000) == -2.0  # held


def spots(*per_slice: list[tuple[float, float]]) -> list[NDArray[np.float64]]:
    return [np.array(one, dtype=float).reshape(-1, 2) for one in per_slice]


def followed() -> Iterator[tuple[list[NDArray[np.float64]], int, int]]:
    yield spots([(0, 0)], [(3, 4)], [(6, 8)]), 1, 3
    yield spots([(0, 0)], [], [(3, 4)]), 1, 3  # a gap of one is bridged
    yield spots([(0, 0)], [], [], [(3, 4)]), 1, 1
    yield spots([(0, 0)], [(20, 0)], [(20, 0)]), 1, 1  # another spot
    yield spots([], [(0, 0)]), 1, 0


@pytest.mark.parametrize(("found", "bridged", "length"), list(followed()))
def test_a_spot_is_followed_as_long_as_it_stays(
    found: list[NDArray[np.float64]], bridged: int, length: int
) -> None:
    assert anatomy._followed(found, bridged) == length
