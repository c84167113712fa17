"""Agreement with other people's libraries: MONAI, torch, SimpleITK, scipy, CT-CLIP's loader."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct import nifti
from t3d.ct.preparations import named_preparation
from t3d.ct.regrid import plan_grid, regrid, stream
from t3d.ct.slices import HeldSlices
from t3d.types import Preparation, Volume, Zyx
from test_ct_regrid import chest

SHAPE = (37, 45, 52)
SPACING, SIZE = Zyx(z=4.0, y=1.0, x=1.3), Zyx(z=24, y=33, x=50)


def exact(volume: Volume, preparation: Preparation) -> NDArray[np.float32]:
    """Our values before they are rounded."""
    z, y, x = volume.voxels.shape
    plan = plan_grid((z, y, x), volume.world_from_voxel, preparation)
    out = np.empty(plan.shape, dtype=np.float32)
    stream(HeldSlices(volume), plan, preparation.store_clip_hu, into=out)
    return out


def clipped(volume: Volume, preparation: Preparation) -> NDArray[np.float64]:
    """The input as every reference gets it."""
    return np.clip(volume.voxels, *preparation.store_clip_hu).astype(np.float64)


def save_as(path: Path, volume: Volume, order: str) -> Path:
    """Write a NIfTI file with the axes stored in another order."""
    nifti.write(path, volume.voxels, volume.world_from_voxel)
    image = nib.load(path)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(order)
    )
    nib.save(image.as_reoriented(turn), path)
    return path


def interpolated(
    values: NDArray[np.float64], size: tuple[int, ...], **more: object
) -> NDArray[np.float64]:
    """torch's `interpolate` in float64."""
    import torch
    from torch.nn import functional as F

    given = torch.from_numpy(values)[None, None]
    more = {"mode": "trilinear", "align_corners": False, **more}
    return F.interpolate(given, size=size, **more)[0, 0].numpy()


@pytest.mark.parametrize("fit", ["resize", "pad_crop"])
def test_monai_mode_equals_monai(fit: str, tmp_path: Path) -> None:
    """Clip right after loading in both; float32 results, MONAI's own default of float64 inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's imports warn of their own
        from monai import transforms as mt

        low, high = -1024.0, 3071.0
        last = {
            "resize": mt.Resize(SIZE[::-1], mode="trilinear"),
            "pad_crop": mt.ResizeWithPadOrCrop(SIZE[::-1], mode="constant", value=low),
        }[fit]
        path = save_as(tmp_path / "las.nii.gz", chest(5, SHAPE), "LAS")
        theirs = mt.Compose(
            [
                mt.LoadImage(image_only=True, dtype=np.float32),
                mt.EnsureChannelFirst(),
                mt.ScaleIntensityRange(low, high, low, high, clip=True),
                mt.Orientation(axcodes="RAS", labels=None),
                mt.Spacing(pixdim=SPACING[::-1], mode="bilinear"),
                last,
            ]
        )(str(path))
    preparation = Preparation(name="p", spacing_mm=SPACING, size_vox=SIZE, fit=fit, filter="monai")
    reference = theirs[0].numpy().transpose(2, 1, 0)[:, ::-1, ::-1]  # R, A, S to S, P, L
    ours = regrid(path, preparation)
    assert np.abs(exact(chest(5, SHAPE), preparation) - reference).max() <= 0.01
    assert np.abs(ours.voxels - reference).max() <= 0.51
    # MONAI's affine after all steps: the corner voxel's place, RAS to LPS.
    r, a, s, _ = theirs.affine.numpy() @ [SIZE.x - 1, SIZE.y - 1, 0, 1]
    assert ours.world_from_voxel[:3, 3] == pytest.approx((-r, -a, s), abs=0.02)


def test_linear_in_two_steps_equals_torch_in_two_steps() -> None:
    preparation = Preparation(name="p", spacing_mm=SPACING, size_vox=SIZE, filter="linear")
    # torch stretches to a whole number of voxels: choose a scan where that is the same.
    volume = chest(5, (40, 50, 52))
    matrix = volume.world_from_voxel.copy()
    matrix[[2, 1, 0], [0, 1, 2]] = (2.0, 0.8, 0.65)
    volume = dataclasses.replace(volume, world_from_voxel=matrix)
    steps = interpolated(interpolated(clipped(volume, preparation), (20, 40, 26)), SIZE)
    assert np.abs(exact(volume, preparation) - steps).max() <= 0.01


def test_triangle_equals_torch_with_antialias() -> None:
    volume = chest(5, (9, 45, 52))
    preparation = Preparation(name="p", size_vox=Zyx(z=9, y=19, x=60), filter="triangle")
    values = clipped(volume, preparation)
    reference = [interpolated(plane, (19, 60), mode="bilinear", antialias=True) for plane in values]
    assert np.abs(exact(volume, preparation) - np.stack(reference)).max() <= 0.01


def test_area_equals_torch_where_voxels_fit_whole() -> None:
    volume = chest(5, (36, 45, 52))
    preparation = Preparation(name="p", size_vox=Zyx(z=12, y=9, x=26), filter="area")
    reference = interpolated(
        clipped(volume, preparation), (12, 9, 26), mode="area", align_corners=None
    )
    assert np.abs(exact(volume, preparation) - reference).max() <= 0.01


def test_linear_equals_scipy_zoom_on_the_same_grid() -> None:
    from scipy import ndimage

    preparation = Preparation(name="p", size_vox=SIZE, filter="linear")
    values = clipped(chest(5, SHAPE), preparation)
    factors = [m / n for m, n in zip(SIZE, values.shape, strict=True)]
    reference = ndimage.zoom(values, factors, order=1, mode="nearest", grid_mode=True)
    assert np.abs(exact(chest(5, SHAPE), preparation) - reference).max() <= 0.01


@pytest.mark.parametrize("size", [None, SIZE])
def test_linear_and_its_affine_equal_simpleitk(size: Zyx[int] | None) -> None:
    """ITK interpolates in world millimetres: equal values mean an equal affine."""
    sitk = pytest.importorskip("SimpleITK")
    volume = chest(5, SHAPE)
    preparation = Preparation(
        name="p", spacing_mm=None if size else SPACING, size_vox=size, filter="linear"
    )
    found = exact(volume, preparation)
    image = sitk.GetImageFromArray(clipped(volume, preparation))
    matrix = regrid(volume, preparation).world_from_voxel
    grids = []
    for world in (volume.world_from_voxel, matrix):
        spacing = np.linalg.norm(world[:3, :3], axis=0)
        direction = (world[:3, :3] / spacing)[:, ::-1]
        grids.append((world[:3, 3].tolist(), spacing[::-1].tolist(), direction.ravel().tolist()))
    origin, spacing_xyz, axes = grids[0]
    image.SetOrigin(origin)
    image.SetSpacing(spacing_xyz)
    image.SetDirection(axes)
    origin, spacing_xyz, axes = grids[1]
    # fmt: off
    reference = sitk.GetArrayFromImage(sitk.Resample(
        image, found.shape[::-1], sitk.Transform(), sitk.sitkLinear, origin, spacing_xyz, axes,
        9999.0, sitk.sitkFloat64))
    # fmt: on
    known = reference != 9999.0  # ITK says nothing further out than half a voxel
    assert known.mean() > 0.9
    assert np.abs(found - reference)[known].max() <= 0.01


def test_ctclip_mode_equals_a_plain_loader_of_that_kind(tmp_path: Path) -> None:
    """What its inference script does, on a file whose axes run to L, P, S as CT-RATE's do."""
    import torch

    volume = chest(5, (41, 47, 52))
    preparation = dataclasses.replace(
        named_preparation("ctclip"),
        spacing_mm=Zyx(z=1.5, y=0.75, x=1.25),  # one axis grows, two shrink
        size_vox=Zyx(z=33, y=60, x=51),  # cut, padded by an odd number, cut
    )
    path = save_as(tmp_path / "v.nii.gz", volume, "LPS")
    image = nib.load(path)
    values = np.clip(image.get_fdata(), -1000, 1000).transpose(2, 1, 0)
    pitch = np.round(np.linalg.norm(image.affine[:3, :3], axis=0), 4)[::-1].tolist()
    size = [
        int(n * (s / t))
        for n, s, t in zip(values.shape, pitch, preparation.spacing_mm or (), strict=True)
    ]
    given = torch.from_numpy(interpolated(values, tuple(size)) / 1000)
    for axis, want in enumerate(preparation.size_vox or ()):
        have = given.shape[axis]
        given = given.narrow(axis, max(0, (have - want) // 2), min(have, want))
        before = max(0, (want - have) // 2)
        pads = [0, 0] * (2 - axis) + [before, max(0, want - have - before)]
        given = torch.nn.functional.pad(given, pads, value=-1.0)
    reference = given.numpy() * 1000
    assert np.abs(regrid(path, preparation).voxels - reference).max() <= 0.51
    assert np.abs(exact(volume, preparation) - reference).max() <= 0.01
