"""One patient: repeatable, a twin away from itself, the same on every grid, true to its labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from t3d.ct import nifti
from t3d.errors import RecipeError
from t3d.phantom.body import LOBES
from t3d.phantom.canvas import Canvas
from t3d.phantom.chain import Kernel, scan, smooth
from t3d.phantom.grids import Grid
from t3d.phantom.items import PlacedItem
from t3d.phantom.patient import Phantom, patient, plan
from t3d.phantom.plans import point_at
from t3d.phantom.presets import DEMO, STANDARD
from t3d.text.findings import CT_RATE_18
from t3d.types import Zyx

NOTHING = dict.fromkeys(CT_RATE_18, 0)
ALL_LARGE = dataclasses.replace(DEMO, name="large", large_share=1.0)
ALL_SMALL = dataclasses.replace(DEMO, name="small", large_share=0.0)


def same(a: Phantom, b: Phantom) -> bool:
    arrays = zip(
        (a.volume.voxels, a.lesion, a.organ), (b.volume.voxels, b.lesion, b.organ), strict=True
    )
    return all(np.array_equal(x, y) for x, y in arrays) and (
        a.report == b.report and a.items == b.items and a.facts == b.facts
    )


@pytest.fixture(scope="module")
def healthy() -> list[Phantom]:
    return [patient(seed, switch=NOTHING, clean=True) for seed in range(8)]


def test_the_same_arguments_give_the_same_patient() -> None:
    assert same(patient(8), patient(8))


def test_another_seed_gives_another_patient() -> None:
    assert not np.array_equal(patient(8).volume.voxels, patient(9).volume.voxels)


def test_a_volume_is_int16_hu_within_the_range_of_a_scanner() -> None:
    made = patient(2)
    assert made.volume.voxels.dtype == np.int16
    assert made.volume.voxels.shape == (32, 64, 64)
    assert made.volume.voxels.min() >= -1024
    assert made.volume.voxels.max() <= 3071
    assert made.lesion.dtype == made.organ.dtype == np.uint8
    assert set(np.unique(made.organ)) == set(range(9))


def test_the_standard_preset_varies_its_shape() -> None:
    shapes = {plan(seed, preset=STANDARD).grid.shape for seed in range(12)}
    assert len(shapes) > 8
    assert all(44 <= s.z <= 56 and 90 <= s.y == s.x <= 104 for s in shapes)


def test_everything_is_painted_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    paint = Canvas.paint

    def watch(self: Canvas, cover: np.ndarray, hu: object, *rest: object, **more: object) -> None:
        seen.add(cover.dtype)
        if isinstance(hu, np.ndarray):
            seen.add(hu.dtype)
        paint(self, cover, hu, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Canvas, "paint", watch)
    for preset in (ALL_LARGE, ALL_SMALL):
        for seed in range(1):
            patient(seed, preset=preset, switch=dict.fromkeys(CT_RATE_18, 1))
    assert seen == {np.dtype(np.float32)}


# ---- twins -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", [ALL_LARGE, ALL_SMALL], ids=["large", "small"])
@pytest.mark.parametrize("finding", CT_RATE_18)
def test_a_finding_changes_the_voxels_of_its_mask(
    finding: str, preset: object, healthy: list[Phantom]
) -> None:
    for seed in (0, 1):
        twin = healthy[seed]
        made = patient(seed, preset=preset, switch={**NOTHING, finding: 1}, clean=True)  # type: ignore[arg-type]
        change = np.abs(made.volume.voxels.astype(int) - twin.volume.voxels)
        inside = made.masks[finding]
        assert inside.any()
        assert np.median(change[inside]) >= 20  # HU
        assert change[inside].mean() > 5 * change[~inside].mean()


def test_cardiomegaly_replaces_what_lay_beside_the_normal_heart(healthy: list[Phantom]) -> None:
    for seed, twin in enumerate(healthy[:4]):
        made = patient(seed, switch={**NOTHING, "Cardiomegaly": 1}, clean=True)
        rim = (made.organ == 3) & (twin.organ != 3)
        assert rim.sum() > 0.3 * (twin.organ == 3).sum()
        change = np.abs(made.volume.voxels.astype(int) - twin.volume.voxels)
        assert np.median(change[rim]) > 100
        assert made.items[0].extra["cardiothoracic_ratio"] > 0.47


def test_a_nodule_switched_on_changes_nothing_outside_its_mask_but_the_report() -> None:
    for seed in range(3):
        off = patient(seed, switch={"Lung nodule": 0})
        on = patient(seed, switch={"Lung nodule": 1})
        place = np.argwhere(on.masks["Lung nodule"])
        near = np.zeros(on.lesion.shape, bool)
        for z, y, x in place:  # blur and partial voxels reach three voxels far
            near[max(z - 3, 0) : z + 4, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = True
        assert np.array_equal(on.volume.voxels[~near], off.volume.voxels[~near])
        assert np.array_equal(on.organ, off.organ)
        assert on.facts == off.facts
        others = [p for p in on.items if p.item.finding != "Lung nodule"]
        assert tuple(others) == off.items


@pytest.mark.parametrize("finding", CT_RATE_18)
def test_a_switch_moves_no_item_of_another_finding(finding: str) -> None:
    for seed in range(5):
        on = plan(seed, switch={finding: 1})
        off = plan(seed, switch={finding: 0})
        kept = [p.item for p in on.planned if p.item.finding != finding]
        assert kept == [p.item for p in off.planned]
        assert on.facts == off.facts
        assert {n: v for n, v in on.labels.items() if v != off.labels[n]} == {finding: 1}


def test_an_unknown_switch_is_refused() -> None:
    with pytest.raises(RecipeError, match="Bunion"):
        patient(0, switch={"Bunion": 1})


# ---- grids -----------------------------------------------------------------------------------


def test_a_finer_grid_shows_the_same_patient() -> None:
    for seed in (1, 4):
        own = patient(seed, clean=True)
        pitch = plan(seed).grid.spacing_mm
        grid = Grid(
            shape=Zyx(z=64, y=128, x=128),
            spacing_mm=Zyx(z=pitch.z / 2, y=pitch.y / 2, x=pitch.x / 2),
        )
        fine = patient(seed, grid=grid, clean=True)
        blocks = fine.volume.voxels.reshape(32, 2, 64, 2, 64, 2).mean(axis=(1, 3, 5))
        assert np.corrcoef(blocks.ravel(), own.volume.voxels.ravel())[0, 1] > 0.985
        assert fine.report == own.report
        assert fine.items == own.items
        assert fine.labels == own.labels
        low = fine.volume.world_from_voxel @ (-0.5, -0.5, -0.5, 1)
        np.testing.assert_allclose(low, own.volume.world_from_voxel @ (-0.5, -0.5, -0.5, 1))
        for finding, mask in own.masks.items():
            share = fine.masks[finding].sum() / 8 / mask.sum()
            assert 0.15 < share < 2.0, finding


def test_a_slab_is_a_part_of_the_whole() -> None:
    whole_grid = Grid(shape=Zyx(z=64, y=96, x=96), spacing_mm=Zyx(z=4.0, y=3.4, x=3.4))
    whole = patient(6, grid=whole_grid, clean=True)
    x, y, z, _ = whole.volume.world_from_voxel @ (20.0, 30.0, 40.0, 1.0)
    slab = patient(
        6,
        grid=dataclasses.replace(
            whole_grid, shape=Zyx(z=5, y=40, x=50), z_low_mm=z, y_low_mm=y, x_low_mm=x
        ),
        clean=True,
    )
    part = slice(20, 25), slice(30, 70), slice(40, 90)
    difference = np.abs(slab.volume.voxels.astype(int) - whole.volume.voxels[part])
    assert np.quantile(difference, 0.99) <= 1  # float32 rounding
    assert (slab.organ != whole.organ[part]).mean() < 0.002
    assert (slab.lesion != whole.lesion[part]).mean() < 0.002
    assert slab.report == whole.report


def test_a_window_round_a_nodule_holds_it() -> None:
    made = patient(3, switch={**NOTHING, "Lung nodule": 1}, preset=ALL_LARGE)
    index = np.argwhere(made.masks["Lung nodule"]).mean(axis=0)
    x, y, z, _ = made.volume.world_from_voxel @ (*index, 1.0)
    grid = Grid.window(Zyx(z=z, y=y, x=x), Zyx(z=60.0, y=60.0, x=60.0), Zyx(z=1.0, y=1.0, x=1.0))
    fine = patient(3, switch={**NOTHING, "Lung nodule": 1}, preset=ALL_LARGE, grid=grid)
    radius = made.items[0].item.size_mm / 2
    ball = 4 / 3 * np.pi * radius**3
    assert fine.masks["Lung nodule"].sum() == pytest.approx(ball, rel=0.35)


def test_a_window_beside_the_patient_is_air() -> None:
    grid = Grid(
        shape=Zyx(z=3, y=4, x=5), spacing_mm=Zyx(z=1.0, y=1.0, x=1.0),
        z_low_mm=5000.0, y_low_mm=900.0, x_low_mm=900.0,
    )  # fmt: skip
    made = patient(1, grid=grid, clean=True)
    assert (made.volume.voxels == -1000).all()
    assert not made.lesion.any()


# ---- truth -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some() -> list[Phantom]:
    return [patient(seed) for seed in range(36)]


def test_every_positive_label_has_an_item_a_mask_and_a_place_in_the_lesion_map(
    some: list[Phantom],
) -> None:
    for made in some:
        positive = {name for name, value in made.labels.items() if value}
        assert {p.item.finding for p in made.items} == positive
        assert set(made.masks) == positive
        codes = {CT_RATE_18[code - 1] for code in np.unique(made.lesion) if code}
        assert codes == positive
        assert all(mask.any() for mask in made.masks.values())
        assert all(p.item.large == made.large[p.item.finding] for p in made.items)


def test_the_depth_of_items_is_that_of_their_masks(some: list[Phantom]) -> None:
    for made in some:
        for finding, mask in made.masks.items():
            held = np.flatnonzero(mask.any(axis=(1, 2)))
            z = [float((made.volume.world_from_voxel @ (k, 0, 0, 1))[2]) for k in held]
            items = [p for p in made.items if p.item.finding == finding]
            assert min(p.z_mm[1] for p in items) == pytest.approx(z[0], abs=1e-3)
            assert max(p.z_mm[2] for p in items) == pytest.approx(z[-1], abs=1e-3)
            assert all(p.z_mm[1] <= p.z_mm[0] <= p.z_mm[2] for p in items)


def test_sentences_carry_the_depth_of_their_finding(some: list[Phantom]) -> None:
    for made in some:
        spoken = {s.finding for s in made.report.sentences if s.z_mm is not None}
        assert spoken == {name for name, value in made.labels.items() if value}


def lies_in(made: Phantom, placed: PlacedItem) -> bool:
    """Whether the mask of a one-item finding lies in the lobe that the item names."""
    drawn = plan(made.seed)
    canvas = Canvas(drawn.frame, drawn.grid, drawn.pose)
    lobes = drawn.body.lobe(canvas.everywhere)
    values = lobes[made.masks[placed.item.finding]]
    return bool(np.median(values == LOBES.index(placed.item.place)))


def test_lung_items_lie_in_the_lobe_they_name(some: list[Phantom]) -> None:
    checked = 0
    for made in some:
        for placed in made.items:
            alone = sum(p.item.finding == placed.item.finding for p in made.items) == 1
            if alone and placed.item.place in LOBES:
                assert lies_in(made, placed), placed
                checked += 1
    assert checked > 25


def test_sides_of_items_are_sides_of_the_patient(some: list[Phantom]) -> None:
    checked = 0
    for made in some:
        for placed in made.items:
            item = placed.item
            alone = sum(p.item.finding == item.finding for p in made.items) == 1
            if alone and item.side in ("left", "right") and item.finding != "Medical material":
                index = np.argwhere(made.masks[item.finding]).mean(axis=0)
                left = float((made.volume.world_from_voxel @ (*index, 1.0))[0])
                assert (left > 0) == (item.side == "left"), item
                checked += 1
    assert checked > 30


def test_large_items_are_larger_than_small_ones() -> None:
    checked = 0
    for finding in CT_RATE_18:
        sizes = {}
        for preset in (ALL_LARGE, ALL_SMALL):
            drawn = [plan(s, preset=preset, switch={**NOTHING, finding: 1}) for s in range(6)]
            sizes[preset.name] = [p.item.size_mm for d in drawn for p in d.planned]
        if max(sizes["small"]) > 0 and sizes["large"] != sizes["small"]:
            if finding not in ("Atelectasis", "Medical material"):
                assert min(sizes["large"]) > 0.93 * max(sizes["small"]), finding
            assert np.median(sizes["large"]) > np.median(sizes["small"])
            checked += 1
    assert checked >= 12


# ---- plausibility ----------------------------------------------------------------------------


def test_tissues_have_their_hu_on_clean_patients(healthy: list[Phantom]) -> None:
    contrast = set()
    for made in healthy:
        hu, organ = made.volume.voxels, made.organ
        blood = 130.0 if made.facts["contrast"] == "yes" else 35.0
        contrast.add(made.facts["contrast"])
        assert -900 < np.median(hu[(organ == 1) | (organ == 2)]) < -780
        assert 45 < np.median(hu[organ == 6]) < 125
        assert 30 < np.median(hu[organ == 7]) < 120
        assert blood - 5 <= np.median(hu[organ == 4]) <= blood + 100
        assert np.median(hu[organ == 5]) < -600
        assert np.median(hu[organ == 8]) > 100
    assert contrast == {"yes", "no"}


def test_fat_under_the_skin_has_the_hu_of_fat() -> None:
    checked = 0
    for seed in range(12):
        drawn = plan(seed, switch=NOTHING)
        body, pose = drawn.body, drawn.pose
        if body.fat < 10:
            continue
        grid = Grid(
            shape=Zyx(z=3, y=220, x=220), spacing_mm=Zyx(z=2.0, y=1.5, x=1.5),
            z_low_mm=drawn.frame.z_world_mm + 0.3 * body.height,
        )  # fmt: skip
        made = patient(seed, switch=NOTHING, grid=grid, clean=True)
        canvas = Canvas(drawn.frame, grid, pose)
        away = np.abs(canvas.x) - 0.5 * (body.half_width + body.cage_x + 14)
        rim = (np.abs(canvas.y) < 10) & (np.abs(away) < 2.5)
        assert rim.sum() > 50
        assert -120 <= np.median(made.volume.voxels[rim]) <= -85
        checked += 1
    assert checked >= 4


def test_the_heart_lies_left_and_the_liver_right_of_the_midline(healthy: list[Phantom]) -> None:
    for made in healthy:
        world = made.volume.world_from_voxel
        for code, left in ((3, True), (6, False), (7, True), (1, False), (2, True)):
            index = np.argwhere(made.organ == code).mean(axis=0)
            assert (float((world @ (*index, 1.0))[0]) > 0) == left, code


def test_domes_are_flatter_with_emphysema_and_the_holes_show_apart_from_that(
    healthy: list[Phantom],
) -> None:
    for seed in range(4):
        made = patient(seed, switch={**NOTHING, "Emphysema": 1}, clean=True)
        assert plan(seed, switch={**NOTHING, "Emphysema": 1}).body.dome_left < (
            plan(seed, switch=NOTHING).body.dome_left
        )
        high = made.masks["Emphysema"].copy()
        high[:16] = False  # far above both domes
        difference = made.volume.voxels.astype(int) - healthy[seed].volume.voxels
        assert np.median(difference[high]) < -50


def test_a_left_pacemaker_and_the_liver_keep_their_sides_through_nifti(tmp_path: Path) -> None:
    for seed in range(40):
        made = patient(seed, preset=ALL_LARGE, switch={**NOTHING, "Medical material": 1})
        if (made.items[0].item.kind, made.items[0].item.side) == ("pacemaker", "left"):
            break
    path = tmp_path / "left.nii.gz"
    nifti.write(path, made.volume.voxels, made.volume.world_from_voxel)
    image = nib.load(path)  # another reader: axes to Right, Anterior, Superior
    ijk = np.argwhere(np.asarray(image.dataobj) > 2000)
    ras = nib.affines.apply_affine(image.affine, ijk).mean(axis=0)
    assert ras[0] < -30  # left
    assert ras[1] > 30  # in front
    assert ras[2] > nib.affines.apply_affine(image.affine, [0, 0, 16])[2]  # upper half
    again = nifti.read(path)
    np.testing.assert_array_equal(again.voxels, made.volume.voxels)
    np.testing.assert_allclose(
        again.world_from_voxel, made.volume.world_from_voxel, rtol=1e-6, atol=1e-4
    )
    organ = tmp_path / "organ.nii.gz"
    nifti.write(organ, made.organ, made.volume.world_from_voxel)
    labels = nib.load(organ)
    liver = nib.affines.apply_affine(
        labels.affine, np.argwhere(np.asarray(labels.dataobj) == 6)
    ).mean(axis=0)
    assert liver[0] > 20  # right


def test_the_fissure_puts_the_back_of_the_lung_into_the_lower_lobe() -> None:
    body = plan(0, switch=NOTHING).body
    middle = 0.45 * body.height
    names = {}
    for name, y, x in (("back", 0.8, -0.5), ("front", -0.8, -0.5), ("left front", -0.8, 0.5)):
        at = point_at((middle, y * body.cage_y, x * body.cage_x))
        names[name] = LOBES[int(body.lobe(at)[0])]
    assert names == {"back": "RLL", "front": "RML", "left front": "LUL"}


# ---- the scanner -----------------------------------------------------------------------------


def test_blur_spreads_a_voxel_by_the_wanted_variance_and_keeps_its_sum() -> None:
    for sigma in (0.4, 0.7):
        line = np.zeros((1, 1, 41), np.float32)
        line[0, 0, 20] = 1
        out = smooth(line, sigma, (2,))[0, 0]
        place = np.arange(41) - 20
        assert out.sum() == pytest.approx(1.0, abs=1e-6)
        assert (out * place**2).sum() == pytest.approx(sigma**2, abs=1e-6)
    assert smooth(line * 0 + 5, 0.7, (2,)) == pytest.approx(5.0)
    line[0, 0, 20] = 1
    assert smooth(line, 0.4, (2,))[0, 0, 19:22] == pytest.approx([0.08, 0.84, 0.08], abs=1e-6)


@pytest.mark.parametrize("name", ["sharp", "soft"])
def test_noise_has_the_kernel_s_strength_in_tissue_and_less_in_air(name: str) -> None:
    kernel = Kernel(name=name, blur_vox=0.3, noise_hu=12.0)
    tissue = scan(np.full((12, 60, 60), 40.0, np.float32), 3, kernel)
    air = scan(np.full((12, 60, 60), -1000.0, np.float32), 3, kernel)
    assert tissue.std() == pytest.approx(12.0, rel=0.05)
    assert tissue.mean() == pytest.approx(40.0, abs=0.5)
    assert air.std() < 0.45 * tissue.std()


def test_values_beyond_the_scanner_are_clipped_and_rounded() -> None:
    hu = np.array([[[-2000.0, 0.4, 0.6, 9000.0]]], np.float32)
    assert scan(hu, 0, None).ravel().tolist() == [-1024, 0, 1, 3071]
