"""Real files: geometry as two independent readers see it, tissue values as the index says."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from t3d.ct import nifti
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.regrid import regrid, regrid_label
from t3d.types import Preparation, Zyx

CT_FILES = (
    "abdomen_3mm_int16",
    "abdomen_3mm_label",
    "aorta_1p5mm_LPS",
    "aorta_1p5mm_label_T12",
    "aorta_1p5mm_label_aorta",
    "aorta_1p5mm_label_empty",
    "aorta_1p5mm_label_heart_OTHER_GRID",
    "aorta_1p5mm_label_true_false_lumen",
    "torso_3mm_int32",
    "torso_3mm_label",
)
REFUSED = {
    "analyze.hdr": "unreadable",
    "complex64.nii.gz": "unreadable",
    "ct_perfusion_rgb.nii.gz": "unreadable",
    "example4d.nii.gz": "not_3d",
    "example_nifti2.nii.gz": "not_3d",  # four axes: the version is not the trouble
    "functional.nii": "not_3d",
    "nifti1.hdr": "unreadable",
    "nifti2.hdr": "unreadable",
    "rgba.nii.gz": "unreadable",
    "row_major.dconn.nii": "not_3d",
}
READ = {  # (z, y, x) of the upright volume
    "anatomical.nii": (25, 41, 33),
    "ct_head_shear_uint8_scaled.nii.gz": (82, 422, 306),
    "float64_aniso.nii.gz": (20, 32, 65),
    "reoriented_anat_moved.nii": (22, 26, 21),
    "standard.nii.gz": (7, 5, 4),
}
ORGANS = [  # CT, label map, label, voxels of the label (None = not in the index), median HU
    ("torso_3mm_int32", "torso_3mm_label", 5, None, 46),
    ("torso_3mm_int32", "torso_3mm_label", 1, None, 35),
    ("torso_3mm_int32", "torso_3mm_label", 52, None, 41),
    ("torso_3mm_int32", "torso_3mm_label", 11, None, -771),
    ("abdomen_3mm_int16", "abdomen_3mm_label", 5, 38634, 46),
    ("abdomen_3mm_int16", "abdomen_3mm_label", 1, None, 35),
    ("aorta_1p5mm_LPS", "aorta_1p5mm_label_aorta", 1, 72810, 354),
    ("aorta_1p5mm_LPS", "aorta_1p5mm_label_true_false_lumen", 1, None, 471),
    ("aorta_1p5mm_LPS", "aorta_1p5mm_label_true_false_lumen", 2, None, 230),
    ("aorta_1p5mm_LPS", "aorta_1p5mm_label_T12", 1, 9617, None),
]


def ct_path(real_data: Path, name: str) -> Path:
    """Say where a CT or its label map lies."""
    return real_data / "nifti" / "ct" / f"{name}.nii.gz"


@pytest.mark.real
@pytest.mark.parametrize("name", CT_FILES)
def test_geometry_and_values_equal_those_of_nibabel(real_data: Path, name: str) -> None:
    path = ct_path(real_data, name)
    volume = nifti.read(path)
    image = nib.as_closest_canonical(nib.load(path))  # R, A, S
    values = np.asanyarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
    assert np.array_equal(volume.voxels, np.rint(values).astype(np.int16))
    columns, rows, depth = image.shape
    for z, y, x in ((0, 0, 0), (depth - 1, rows - 1, columns - 1), (3, 5, 7)):
        r, a, s, _ = image.affine @ (columns - 1 - x, rows - 1 - y, z, 1)
        place = (volume.world_from_voxel @ [z, y, x, 1])[:3]
        assert place == pytest.approx((-r, -a, s), abs=1e-3)


@pytest.mark.real
@pytest.mark.parametrize("name", CT_FILES)
def test_geometry_equals_that_of_simpleitk(real_data: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.DICOMOrient(sitk.ReadImage(str(ct_path(real_data, name))), "LPS")
    volume = nifti.read(ct_path(real_data, name))
    assert volume.voxels.shape == image.GetSize()[::-1]
    for z, y, x in ((0, 0, 0), tuple(n - 1 for n in volume.voxels.shape)):
        place = image.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
        assert (volume.world_from_voxel @ [z, y, x, 1])[:3] == pytest.approx(place, abs=1e-3)
    stored = sitk.GetArrayFromImage(image)
    assert np.array_equal(volume.voxels, np.rint(stored).astype(np.int16))


@pytest.mark.real
@pytest.mark.parametrize(("ct", "label", "number", "count", "median"), ORGANS)
def test_organs_have_the_values_of_the_index(
    real_data: Path, ct: str, label: str, number: int, count: int | None, median: int | None
) -> None:
    volume = nifti.read(ct_path(real_data, ct))
    labels, matrix = nifti.read_label(ct_path(real_data, label))
    assert matrix == pytest.approx(volume.world_from_voxel, abs=1e-3)
    chosen = volume.voxels[labels == number]
    if count is not None:
        assert chosen.size == count
    if median is not None:
        assert np.median(chosen) == pytest.approx(median, abs=1)


@pytest.mark.real
def test_organs_keep_their_values_on_a_prepared_grid(real_data: Path) -> None:
    preparation = Preparation(name="p", size_vox=Zyx(z=64, y=96, x=96))
    with nifti.open_nifti(ct_path(real_data, "torso_3mm_int32")) as file:
        volume = regrid(file, preparation, check=True)
        labels = regrid_label(ct_path(real_data, "torso_3mm_label"), preparation, like=file)
    for number, median in ((5, 46), (1, 35), (52, 41)):
        assert np.median(volume.voxels[labels == number]) == pytest.approx(median, abs=6)


@pytest.mark.real
def test_a_label_map_of_another_scan_is_refused(real_data: Path) -> None:
    preparation = Preparation(name="p", size_vox=Zyx(z=32, y=32, x=32))
    other = ct_path(real_data, "aorta_1p5mm_label_heart_OTHER_GRID")
    with (
        nifti.open_nifti(ct_path(real_data, "aorta_1p5mm_LPS")) as file,
        pytest.raises(RefusedGrid, match="another grid"),
    ):
        regrid_label(other, preparation, like=file)


@pytest.mark.real
@pytest.mark.parametrize("order", ["AIL", "ARS", "IPR", "LPI", "PLS"])
def test_six_storage_orders_are_one_image(real_data: Path, order: str) -> None:
    reference = nifti.read(real_data / "nifti" / "orient" / "RAS.nii.gz")
    volume = nifti.read(real_data / "nifti" / "orient" / f"{order}.nii.gz")
    assert np.array_equal(volume.voxels, reference.voxels)
    assert volume.world_from_voxel == pytest.approx(reference.world_from_voxel, abs=1e-3)


@pytest.mark.real
def test_every_odd_file_is_refused_or_read_as_listed(real_data: Path) -> None:
    found = {p.name for p in (real_data / "nifti" / "odd").iterdir()}
    assert found == set(REFUSED) | set(READ)


@pytest.mark.real
@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_an_odd_file_is_refused_with_its_reason(real_data: Path, name: str, reason: str) -> None:
    with pytest.raises((RefusedFile, RefusedGrid)) as caught:
        nifti.read(real_data / "nifti" / "odd" / name)
    assert caught.value.reason == reason


@pytest.mark.real
@pytest.mark.parametrize(("name", "shape"), READ.items())
def test_an_odd_file_is_read(real_data: Path, name: str, shape: tuple[int, int, int]) -> None:
    path = real_data / "nifti" / "odd" / name
    volume = nifti.read(path)
    assert volume.voxels.shape == shape
    if "turned upright" not in " ".join(volume.steps):
        values = np.asanyarray(nib.as_closest_canonical(nib.load(path)).dataobj)
        turned = values.reshape(values.shape[:3]).transpose(2, 1, 0)[:, ::-1, ::-1]
        assert np.array_equal(volume.voxels, np.rint(turned.astype(np.float64)).astype(np.int16))


@pytest.mark.real
def test_the_sheared_head_is_where_its_affine_says(real_data: Path) -> None:
    path = real_data / "nifti" / "odd" / "ct_head_shear_uint8_scaled.nii.gz"
    volume = nifti.read(path)
    image = nib.load(path)
    stored = np.asanyarray(image.dataobj)
    rng = np.random.default_rng(0)
    back = np.linalg.inv(volume.world_from_voxel)
    apart = []
    for i, j, k in rng.integers((60, 80, 8), (240, 340, 46), (400, 3)):
        r, a, s, _ = image.affine @ (i, j, k, 1)
        z, y, x = np.rint((back @ (-r, -a, s, 1))[:3]).astype(int)
        box = volume.voxels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
        apart.append(max(0.0, box.min() - stored[i, j, k], stored[i, j, k] - box.max()))
    assert np.median(apart) == 0
    assert np.mean(np.array(apart) < 40) > 0.9
