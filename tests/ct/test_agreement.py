"""Our voxels and geometry are those of SimpleITK, nibabel and dcm2niix on every intact series.

Where they differ, the difference is named here and argued; nothing is left out in silence.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from t3d.ct.door import open_scan, read
from t3d.types import Volume

sitk = pytest.importorskip("SimpleITK")

# What the folder has; the slow ones are JPEG 2000, 25 ms a slice in every decoder.
SLOW = pytest.mark.slow
SERIES = [
    pytest.param("chest_lungpetctdx_A0001/series3_B_j2k", marks=SLOW),
    "chest_lungpetctdx_A0001/series2_L_2slices",
    "chest_lungpetctdx_A0002/series3_B40f_deflated",
    "chest_3slice_with_seg",
    pytest.param("abdomen_totalseg_j2k", marks=SLOW),
    "multiframe/legacy_converted_mf_3x24x38.dcm",
    "tiny_dicomdir/98892001/CT5N",
]
# Not intact, so no reader is a truth: head_ge_tilt_uneven_jls, missing_slice_ge_4 (uneven gaps),
# same_position_2, tiny_dicomdir/77654033/CT2 (a gap of 202.5 mm); see test_index_rows.py.
NIFTI = [f"ct/{name}.nii.gz" for name in ("torso_3mm_int32", "abdomen_3mm_int16")]
NIFTI += ["ct/aorta_1p5mm_LPS.nii.gz"]
NIFTI += [f"orient/{name}.nii.gz" for name in ("AIL", "ARS", "IPR", "LPI", "PLS", "RAS")]
NIFTI += ["odd/anatomical.nii", "odd/reoriented_anat_moved.nii", "odd/standard.nii.gz"]


def hu(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round as we do: half to even."""
    return np.rint(values.astype(np.float64)).astype(np.int16)


def equal(ours: Volume, theirs: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    """Hold voxels against voxels, and every corner in mm."""
    voxels, matrix = theirs
    assert np.array_equal(ours.voxels, hu(voxels))
    last = np.array(voxels.shape) - 1
    for corner in np.ndindex(2, 2, 2):
        index = [*(np.array(corner) * last), 1]
        # 1e-3 mm: NIfTI headers hold float32, DICOM positions 16 characters.
        assert (ours.world_from_voxel @ index)[:3] == pytest.approx((matrix @ index)[:3], abs=1e-3)


def of_simpleitk(image: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Turn an image to (z, y, x) S P L, with its matrix to LPS."""
    image = sitk.DICOMOrient(image, "LPS")
    matrix = np.eye(4)
    columns = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, :3], matrix[:3, 3] = columns[:, ::-1], image.GetOrigin()
    return sitk.GetArrayFromImage(image), matrix


def of_nibabel(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Turn a NIfTI file to (z, y, x) S P L, with its matrix to LPS."""
    image: Any = nib.load(path)
    wanted = nib.orientations.axcodes2ornt("LPS")
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
    )
    matrix = np.diag([-1.0, -1, 1, 1]) @ turned.affine
    values = np.asanyarray(turned.dataobj)
    return values.reshape(values.shape[:3]).transpose(2, 1, 0), matrix[:, [2, 1, 0, 3]]


def read_series_with_simpleitk(path: Path) -> Any:
    """Read a DICOM folder or file as its users do."""
    if path.is_file():
        return sitk.ReadImage(str(path))
    return sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))


@pytest.mark.real
@pytest.mark.parametrize("name", SERIES)
def test_dicom_agrees_with_simpleitk(real_data: Path, name: str) -> None:
    path = real_data / "dicom" / name
    voxels, matrix = of_simpleitk(read_series_with_simpleitk(path))
    # Padding (-3024 outside the circle of the 3-slice chest) becomes air here, on purpose: it is
    # no density and would bleed into the body when mixed. Nowhere else is it touched.
    padded = int((voxels < -1024).sum())
    assert (padded > 0) == (name == "chest_3slice_with_seg")
    equal(read(path), (np.maximum(voxels.astype(np.int32), -1024), matrix))


def copied(path: Path, folder: Path) -> Path:
    """Copy a series for dcm2niix, which reads whole folders but no deflated files."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir()
    for number, file in enumerate(sorted(path.iterdir()) if path.is_dir() else [path]):
        data = pydicom.dcmread(file)
        if data.file_meta.TransferSyntaxUID.is_deflated:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            data.save_as(folder / f"{number}.dcm")
        else:
            shutil.copy(file, folder / f"{number}.dcm")
    return folder


@pytest.mark.real
@pytest.mark.parametrize("name", SERIES)
def test_dicom_agrees_with_dcm2niix(real_data: Path, tmp_path: Path, name: str) -> None:
    dcm2niix = pytest.importorskip("dcm2niix")
    path = real_data / "dicom" / name
    command = [
        dcm2niix.bin,
        "-z",
        "n",
        "-b",
        "n",
        "-f",
        "out",
        "-o",
        tmp_path,
        copied(path, tmp_path / "in"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    written = sorted(tmp_path.glob("*.nii"))
    assert len(written) == 1
    voxels, matrix = of_nibabel(written[0])
    equal(read(path), (np.maximum(voxels.astype(np.int32), -1024), matrix))


@pytest.mark.real
@pytest.mark.parametrize("name", NIFTI)
def test_nifti_agrees_with_nibabel(real_data: Path, name: str) -> None:
    path = real_data / "nifti" / name
    equal(read(path), of_nibabel(path))


@pytest.mark.real
@pytest.mark.parametrize("name", NIFTI)
def test_nifti_agrees_with_simpleitk(real_data: Path, name: str) -> None:
    path = real_data / "nifti" / name
    equal(read(path), of_simpleitk(sitk.ReadImage(str(path))))


@pytest.mark.real
@pytest.mark.parametrize("name", ["float64_aniso", "ct_head_shear_uint8_scaled"])
def test_oblique_and_sheared_nifti_agree_before_they_are_turned_upright(
    real_data: Path, name: str
) -> None:
    # Upright they are resampled, so voxels cannot be equal; the file's own grid can.
    path = real_data / "nifti" / "odd" / f"{name}.nii.gz"
    image: Any = nib.load(path)
    with open_scan((path,)) as slices:
        assert slices.tilt_degrees > 2
        stored = np.concatenate([slices.rescale.int16(slab) for _, slab in slices.slabs(8)])
    assert np.array_equal(stored, hu(np.asanyarray(image.dataobj).transpose(2, 1, 0)))
    theirs = np.diag([-1.0, -1, 1, 1]) @ image.affine
    assert slices.world_from_file == pytest.approx(theirs[:, [2, 1, 0, 3]], abs=1e-4)


@pytest.mark.real
def test_nrrd_agrees_with_simpleitk(real_data: Path) -> None:
    path = real_data / "nrrd" / "CTChest4.nrrd"
    equal(read(path), of_simpleitk(sitk.ReadImage(str(path))))


@pytest.mark.real
def test_a_tilted_stack_is_where_its_slices_say_and_simpleitk_loses_the_tilt(
    real_data: Path,
) -> None:
    pydicom = pytest.importorskip("pydicom")
    folder = real_data / "dicom" / "head_siemens_tilt_4"
    heads = [pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(folder.iterdir())]
    first, last = (np.array(f(heads, key=lambda h: h.ImagePositionPatient[2]).ImagePositionPatient)
                   for f in (min, max))  # fmt: skip
    with open_scan((folder,)) as slices:
        ends = [(slices.world_from_file @ (k, 0, 0, 1))[:3] for k in (0, 3)]
        stored = np.concatenate([slab.copy() for _, slab in slices.slabs(4)])
    assert sorted(ends, key=lambda p: p[2])[0] == pytest.approx(first, abs=1e-3)
    assert sorted(ends, key=lambda p: p[2])[1] == pytest.approx(last, abs=1e-3)
    image = read_series_with_simpleitk(folder)
    theirs = sitk.GetArrayFromImage(image)
    if ends[0][2] > ends[1][2]:
        stored = stored[::-1]
    assert np.array_equal(stored, theirs) or np.array_equal(stored[::-1], theirs)
    wrong = [np.array(image.TransformIndexToPhysicalPoint((0, 0, k))) for k in (0, 3)]
    assert min(np.linalg.norm(p - last) for p in wrong) > 3  # mm: the shear that ITK drops
