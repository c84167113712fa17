"""The streamed regridding against a slow twin written from the definition, and against MONAI."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct import nifti
from t3d.ct import regrid as module
from t3d.ct.guard import RefusedGrid
from t3d.ct.regrid import regrid, regrid_label
from t3d.errors import GeometryError
from t3d.types import Preparation, Volume, Zyx

PITCH = (2.5, 0.7, 0.9)
SHAPE = (13, 17, 15)
SPACINGS = [None, Zyx(z=4.0, y=1.5, x=0.6)]
SIZES = [None, Zyx(z=8, y=9, x=21)]


def chest(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """Asymmetric values over the whole range, with padding far below it."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(-1000, 1500, shape).astype(np.int16)
    voxels[:, :2, :3] = -8192
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = PITCH
    matrix[:, 3] = (-55.0, 12.5, 300.25, 1.0)
    return Volume(volume_id="v", voxels=voxels, world_from_voxel=matrix)


# ---------------------------------------------------------------- the slow twin, float64 loops
def twin_mix(values: list[float], source: list[float]) -> list[float]:
    """Linear interpolation of one line, border repeated."""
    out = []
    for s in source:
        s = min(max(s, 0.0), len(values) - 1.0)
        left = math.floor(s)
        right = min(left + 1, len(values) - 1)
        out.append(values[left] * (1 - (s - left)) + values[right] * (s - left))
    return out


def twin_area(values: list[float], m: int, r: float) -> list[float]:
    """Mean over the interval each output voxel covers; linear where it covers less than one."""
    if r <= 1:
        return twin_mix(values, [(j + 0.5) * r - 0.5 for j in range(m)])
    out = []
    for j in range(m):
        total = weight = 0.0
        for k in range(int(j * r), min(math.ceil((j + 1) * r), len(values))):
            part = min((j + 1) * r, k + 1.0) - max(j * r, float(k))
            total += part * values[k]
            weight += part
        out.append(total / weight if weight else values[-1])
    return out


def twin_line(values: list[float], axis: int, preparation: Preparation) -> list[float]:
    """One line through spacing step, then resize or crop and pad."""
    backwards = preparation.filter == "monai" and axis > 0
    line = values[::-1] if backwards else list(values)
    if preparation.spacing_mm is not None:
        r = preparation.spacing_mm[axis] / PITCH[axis]
        if preparation.filter == "monai":
            line = twin_mix(line, [j * r for j in range(round((len(line) - 1) / r + 1))])
        else:
            m = max(1, round(len(line) / r))
            half = [(j + 0.5) * r - 0.5 for j in range(m)]
            line = twin_area(line, m, r) if preparation.filter == "area" else twin_mix(line, half)
    if preparation.size_vox is not None:
        size, n = preparation.size_vox[axis], len(line)
        if preparation.fit == "resize":
            r = n / size
            half = [(j + 0.5) * r - 0.5 for j in range(size)]
            area = preparation.filter == "area"
            line = twin_area(line, size, r) if area else twin_mix(line, half)
        elif n > size:
            start = n // 2 - size // 2 if preparation.filter == "monai" else (n - size) // 2
            line = line[start : start + size]
        else:
            air = float(preparation.store_clip_hu[0])
            before = (size - n) // 2
            line = [air] * before + line + [air] * (size - n - before)
    return line[::-1] if backwards else line


def twin(volume: Volume, preparation: Preparation) -> NDArray[np.float64]:
    """Axis after axis, every line a plain list. (Padding last: it commutes with the others.)"""
    low, high = preparation.store_clip_hu
    out = np.clip(volume.voxels.astype(np.float64), low, high)
    for axis in range(3):
        out = np.apply_along_axis(
            lambda line, a=axis: np.array(twin_line(line.tolist(), a, preparation)), axis, out
        )
    return out


def preparations() -> list[Preparation]:
    """Each filter with each fit, spacing and size."""
    return [
        Preparation(name="p", spacing_mm=spacing, size_vox=size, fit=fit, filter=kind)
        for kind, fit, spacing, size in itertools.product(
            ("area", "linear", "monai"), ("resize", "pad_crop"), SPACINGS, SIZES
        )
    ]


@pytest.mark.parametrize(
    "preparation", preparations(), ids=lambda p: f"{p.filter}-{p.fit}-{p.spacing_mm}-{p.size_vox}"
)
def test_each_filter_and_fit_equals_its_slow_twin(preparation: Preparation) -> None:
    volume = chest()
    found = regrid(volume, preparation)
    slow = twin(volume, preparation)
    assert found.voxels.shape == slow.shape
    assert found.voxels.dtype == np.int16
    assert np.abs(found.voxels - slow).max() <= 0.5 + 0.01  # rounded once, float32 inside


@pytest.mark.parametrize("order", ["RAS", "LPS", "AIL", "SRP", "PSL", "IAR"])
@pytest.mark.parametrize("kind", ["area", "linear", "monai"])
def test_a_file_in_any_storage_order_gives_the_same_volume(
    tmp_path: Path, order: str, kind: str
) -> None:
    volume = chest()
    nifti.write(tmp_path / "lps.nii.gz", volume.voxels, volume.world_from_voxel)
    image = nib.load(tmp_path / "lps.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(order)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "other.nii.gz")
    preparation = Preparation(
        name="p", spacing_mm=SPACINGS[1], size_vox=SIZES[1], fit="pad_crop", filter=kind
    )
    expected = regrid(volume, preparation)
    found = regrid(tmp_path / "other.nii.gz", preparation)
    assert np.abs(found.voxels.astype(int) - expected.voxels).max() <= 1  # order of sums
    assert found.world_from_voxel == pytest.approx(expected.world_from_voxel, abs=1e-3)


@pytest.mark.parametrize("slab_vox", [1, 700, 1 << 20])
def test_the_size_of_a_slab_changes_nothing(monkeypatch: pytest.MonkeyPatch, slab_vox: int) -> None:
    monkeypatch.setattr(module, "_SLAB_VOX", slab_vox)
    volume = chest(3, (40, 17, 15))
    preparation = Preparation(name="p", size_vox=Zyx(z=11, y=9, x=21))
    slow = twin(volume, preparation)
    assert np.abs(regrid(volume, preparation).voxels - slow).max() <= 0.51


def test_an_axis_long_enough_for_blocks_equals_its_slow_twin() -> None:
    volume = chest(4, (3, 150, 140))
    preparation = Preparation(name="p", size_vox=Zyx(z=3, y=40, x=160))
    found = regrid(volume, preparation).voxels
    assert np.abs(found - twin(volume, preparation)).max() <= 0.51


@pytest.mark.parametrize(
    "preparation", preparations(), ids=lambda p: f"{p.filter}-{p.fit}-{p.spacing_mm}-{p.size_vox}"
)
def test_a_ramp_in_mm_is_still_a_ramp_in_mm(preparation: Preparation) -> None:
    base = chest()
    index = np.indices(SHAPE).reshape(3, -1)
    world = base.world_from_voxel @ np.vstack([index, np.ones(index.shape[1])])
    direction = np.array([7.0, 5.0, 3.0])  # HU per mm along L, P, S
    values = (direction @ (world[:3] - world[:3].mean(axis=1, keepdims=True))).reshape(SHAPE)
    ramp = Volume(
        volume_id="v",
        voxels=np.rint(values).astype(np.int16),
        world_from_voxel=base.world_from_voxel,
    )
    found = regrid(ramp, preparation)
    back = np.linalg.inv(base.world_from_voxel) @ found.world_from_voxel
    where = np.indices(found.voxels.shape).reshape(3, -1)
    source = (back @ np.vstack([where, np.ones(where.shape[1])]))[:3]
    # Well inside: every step of a chain repeats the border for half of its own voxel.
    coarse = np.array(
        [1.6 * preparation.spacing_mm[a] / PITCH[a] for a in range(3)]
        if preparation.spacing_mm
        else [2.0] * 3
    )
    limit = np.array(SHAPE)[:, None] - 1 - coarse[:, None]
    inside = ((source >= coarse[:, None]) & (source <= limit)).all(axis=0)
    place = found.world_from_voxel @ np.vstack([where, np.ones(where.shape[1])])
    expected = direction @ (place[:3] - world[:3].mean(axis=1, keepdims=True))
    apart = found.voxels.reshape(-1)[inside] - expected[inside]
    assert inside.any()
    # A mean over parts of voxels is off by up to an eighth of a voxel, to both sides alike.
    eighth = 0.0 if preparation.filter != "area" else 2 * (7.0 * 0.9 + 5.0 * 0.7 + 3.0 * 2.5) / 8
    assert np.abs(apart).max() <= 1.01 + eighth
    assert abs(apart.mean()) <= 0.3


def test_nothing_asked_for_is_the_native_grid_clipped() -> None:
    volume = chest()
    found = regrid(volume, Preparation(name="p"))
    assert np.array_equal(found.voxels, np.clip(volume.voxels, -1024, 3071))
    assert np.array_equal(found.world_from_voxel, volume.world_from_voxel)
    assert volume.voxels.min() == -8192  # the input was not changed


def test_padding_cannot_bleed_into_the_body() -> None:
    voxels = np.full((16, 16, 16), -1000, dtype=np.int16)
    voxels[:, :8] = -8192
    volume = Volume(volume_id="v", voxels=voxels, world_from_voxel=np.eye(4)[[2, 1, 0, 3]])
    found = regrid(volume, Preparation(name="p", size_vox=Zyx(z=16, y=5, x=16)))
    assert found.voxels.min() >= -1024
    assert found.voxels[:, 2].min() >= -1024 + 12 - 1  # the mixed row: half -1024, half -1000


def test_padding_is_the_lower_limit_and_mm_are_kept() -> None:
    volume = chest()
    found = regrid(
        volume,
        Preparation(name="p", size_vox=Zyx(z=19, y=17, x=9), fit="pad_crop"),
    )
    assert (found.voxels[:3] == -1024).all()
    assert (found.voxels[-3:] == -1024).all()
    kept = np.clip(volume.voxels[:, :, 3:12], -1024, 3071)
    assert np.array_equal(found.voxels[3:16], kept)
    shift = volume.world_from_voxel @ [-3, 0, 3, 1]
    assert found.world_from_voxel[:, 3] == pytest.approx(shift)


def test_what_was_done_is_told_in_order(tmp_path: Path) -> None:
    volume = chest()
    nifti.write(tmp_path / "v.nii.gz", volume.voxels, volume.world_from_voxel)
    steps = regrid(tmp_path / "v.nii.gz", Preparation(name="p", size_vox=Zyx(8, 9, 21))).steps
    assert steps == (
        "read NIfTI int16 LPS",
        "clip -1024..3071 HU, area resize 13->8 17->9 15->21 (z y x)",
    )


def test_a_tilted_file_is_turned_first_and_says_so(tmp_path: Path) -> None:
    volume = chest(shape=(20, 20, 20))
    tilted = volume.world_from_voxel.copy()
    tilted[1, 0] = 0.8
    nifti.write(tmp_path / "v.nii.gz", np.clip(volume.voxels, -1000, 1000), tilted)
    found = regrid(tmp_path / "v.nii.gz", Preparation(name="p", size_vox=Zyx(8, 9, 10)))
    assert "turned upright from 17.7 degrees" in found.steps[1]
    assert found.voxels.shape == (8, 9, 10)
    nifti.write(tmp_path / "m.nii.gz", (volume.voxels > 0).astype(np.uint8), tilted)
    with nifti.open_nifti(tmp_path / "v.nii.gz") as like:
        mask = regrid_label(
            tmp_path / "m.nii.gz", Preparation(name="p", size_vox=Zyx(8, 9, 10)), like=like
        )
    assert mask.shape == (8, 9, 10)
    assert set(np.unique(mask).tolist()) == {0, 1}


def test_a_volume_off_its_axes_is_an_error() -> None:
    volume = chest()
    tilted = volume.world_from_voxel.copy()
    tilted[1, 0] = 0.8
    turned = Volume(volume_id="v", voxels=volume.voxels, world_from_voxel=tilted)
    with pytest.raises(GeometryError, match="17"):
        regrid(turned, Preparation(name="p"))


@pytest.mark.parametrize(
    "preparation", preparations(), ids=lambda p: f"{p.filter}-{p.fit}-{p.spacing_mm}-{p.size_vox}"
)
def test_labels_land_where_the_ct_lands(preparation: Preparation) -> None:
    labels = (np.indices(SHAPE).sum(axis=0) % 5).astype(np.uint8)
    held = Volume(
        volume_id="m", voxels=labels.astype(np.int16), world_from_voxel=chest().world_from_voxel
    )
    found = regrid_label(held, preparation, like=chest())
    target = regrid(chest(), preparation)
    assert found.shape == target.voxels.shape
    assert found.dtype == np.uint8
    back = np.linalg.inv(held.world_from_voxel) @ target.world_from_voxel
    padded = preparation.fit == "pad_crop"
    for z, y, x in np.ndindex(*found.shape):  # slow twin: ask the matrices
        source = (back @ [z, y, x, 1])[:3]
        near = [
            min(max(math.floor(s + 0.5 + 1e-9), 0), n - 1)
            for s, n in zip(source, SHAPE, strict=True)
        ]
        ambiguous = any(abs(s + 0.5 - round(s + 0.5)) < 1e-6 for s in source)
        outside = any(s < -0.5 or s > n - 0.5 for s, n in zip(source, SHAPE, strict=True))
        if ambiguous or (padded and outside):
            continue
        assert found[z, y, x] == labels[tuple(near)]


def test_a_mask_of_another_scan_is_refused(tmp_path: Path) -> None:
    volume = chest()
    labels = np.zeros(SHAPE, dtype=np.uint8)
    shifted = volume.world_from_voxel.copy()
    shifted[2, 3] += 30
    nifti.write(tmp_path / "ct.nii.gz", volume.voxels, volume.world_from_voxel)
    nifti.write(tmp_path / "shifted.nii.gz", labels, shifted)
    nifti.write(tmp_path / "short.nii.gz", labels[:, :-3], volume.world_from_voxel)
    preparation = Preparation(name="p", size_vox=Zyx(8, 9, 10))
    for name in ("shifted", "short"):
        with (
            nifti.open_nifti(tmp_path / "ct.nii.gz") as like,
            pytest.raises(RefusedGrid, match="another grid"),
        ):
            regrid_label(tmp_path / f"{name}.nii.gz", preparation, like=like)
        with pytest.raises(RefusedGrid, match="another grid"):
            regrid_label(tmp_path / f"{name}.nii.gz", preparation, like=volume)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((16, 16, 16), -1000), "constant"),
        (np.indices((16, 16, 16)).sum(axis=0) * 20, "hu_implausible"),
        (np.indices((16, 16, 16)).sum(axis=0) - 1000, "hu_implausible"),
    ],
)
def test_values_that_are_no_ct_are_refused_when_asked(
    values: NDArray[np.int64], reason: str
) -> None:
    volume = Volume(
        volume_id="v", voxels=values.astype(np.int16), world_from_voxel=chest().world_from_voxel
    )
    with pytest.raises(RefusedGrid) as caught:
        regrid(volume, Preparation(name="p"), check=True)
    assert caught.value.reason == reason
    regrid(volume, Preparation(name="p"))


def test_a_crop_without_air_is_a_ct() -> None:
    values = (np.indices((16, 16, 16)).sum(axis=0) * 8 - 110).astype(np.int16)  # fat to bone
    volume = Volume(volume_id="v", voxels=values, world_from_voxel=chest().world_from_voxel)
    assert np.array_equal(regrid(volume, Preparation(name="p"), check=True).voxels, values)


def test_a_grid_that_is_no_ct_is_refused_when_asked() -> None:
    with pytest.raises(RefusedGrid) as caught:
        regrid(chest(shape=(5, 40, 40)), Preparation(name="p"), check=True)
    assert caught.value.reason == "too_small"
    wide = chest()
    wide.world_from_voxel[2, 0] = 12.0
    with pytest.raises(RefusedGrid) as caught:
        regrid(wide, Preparation(name="p"), check=True)
    assert caught.value.reason == "bad_affine"


def test_monai_mode_equals_monai(tmp_path: Path) -> None:
    """Independent author: MONAI's own transforms on the same asymmetric file."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's imports warn of their own
        from monai.transforms import (
            Compose,
            EnsureChannelFirst,
            LoadImage,
            Orientation,
            Resize,
            ResizeWithPadOrCrop,
            Spacing,
        )

        volume = chest(5, (37, 45, 52))
        voxels = np.clip(volume.voxels, -1024, 3071)  # MONAI does not clip: same order of steps
        nifti.write(tmp_path / "v.nii.gz", voxels, volume.world_from_voxel)
        image = nib.load(tmp_path / "v.nii.gz")
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("LAS")
        )
        nib.save(image.as_reoriented(turn), tmp_path / "las.nii.gz")
        spacing, size = Zyx(z=4.0, y=1.0, x=1.3), Zyx(z=24, y=33, x=50)
        fits = {
            "resize": Resize(size[::-1], mode="trilinear"),
            "pad_crop": ResizeWithPadOrCrop(size[::-1], mode="constant", value=-1024),
        }
        for fit, last in fits.items():
            theirs = Compose(
                [
                    LoadImage(image_only=True),
                    EnsureChannelFirst(),
                    Orientation(axcodes="RAS", labels=None),
                    Spacing(pixdim=spacing[::-1], mode="bilinear"),
                    last,
                ]
            )(str(tmp_path / "las.nii.gz"))
            ours = regrid(
                tmp_path / "las.nii.gz",
                Preparation(name="p", spacing_mm=spacing, size_vox=size, fit=fit, filter="monai"),
            )
            reference = theirs[0].numpy().transpose(2, 1, 0)[:, ::-1, ::-1]  # R, A, S to S, P, L
            assert np.abs(ours.voxels - reference).max() <= 1.0
            # MONAI's affine after all steps: the corner voxel's place, RAS to LPS.
            r, a, s, _ = theirs.affine.numpy() @ [size.x - 1, size.y - 1, 0, 1]
            assert ours.world_from_voxel[:3, 3] == pytest.approx((-r, -a, s), abs=0.02)
