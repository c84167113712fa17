"""Three landmarks at known places in mm come back there from every storage order of every format.

The truth is written in mm, never through our own geometry: a marker is an upright box around a
point of the world, and each voxel of each file asks whether its own place lies in it.
"""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from t3d.ct.door import read
from t3d.ct.regrid import regrid
from t3d.types import Preparation, Volume, Zyx

CENTRE = np.array([7.0, -31.0, 412.0])  # of the scan, LPS mm
SIZE_MM = np.array([72.0, 60.0, 54.0])  # from the first to the last voxel's outer edge, L P S
PITCH = (2.0, 1.5, 3.0)  # of the file's axes that run along L, P, S
# name: (offset from the centre in LPS mm, HU). Left, front and top are told apart by value, and
# none lies in the plane or on the axis of another.
MARKERS = {
    "left": ((22.0, 6.0, -6.0), 1000),
    "front": ((-8.0, -18.0, 3.0), 600),
    "top": ((4.0, 9.0, 18.0), 300),
}
HALF_MM = np.array([6.0, 4.5, 6.0])  # half a marker, L P S
AIR = -1000
# Column c of a storage order: file axis c (i, j, k) runs along +-L, +-P or +-S.
ORDERS = [
    np.array([[sign if row == axis else 0 for axis, sign in zip(p, signs, strict=True)]
              for row in range(3)], dtype=float)
    for p in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]  # fmt: skip
PROPER = [order for order in ORDERS if np.linalg.det(order) > 0]


def name_of(order: np.ndarray) -> str:
    """Name a storage order by where its axes run: "LPS", "SAR"."""
    letters = np.array([["R", "L"], ["A", "P"], ["I", "S"]])
    rows = np.abs(order).argmax(axis=0)
    return "".join(letters[row, int(order[row, axis] > 0)] for axis, row in enumerate(rows))


def grid_of(order: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Give (directions x spacing (3, 3), origin in LPS mm, shape (i, j, k)) of a storage order."""
    rows = np.abs(order).argmax(axis=0)
    pitch = np.array(PITCH)[rows]
    shape = np.rint(SIZE_MM[rows] / pitch).astype(int)
    steps = order * pitch
    origin = CENTRE - steps @ (shape - 1) / 2
    return steps, origin, (int(shape[0]), int(shape[1]), int(shape[2]))


def phantom(order: np.ndarray) -> np.ndarray:
    """Give the voxels (i, j, k) of a storage order, each asked where in the world it lies."""
    steps, origin, shape = grid_of(order)
    places = np.einsum("wa,aijk->wijk", steps, np.indices(shape)) + origin[:, None, None, None]
    voxels = np.full(shape, AIR, dtype=np.int16)
    for offset, value in MARKERS.values():
        apart = np.abs(places - (CENTRE + offset)[:, None, None, None])
        voxels[(apart < HALF_MM[:, None, None, None]).all(axis=0)] = value
    return voxels


def write_nifti(path: Path, order: np.ndarray) -> None:
    """Write with nibabel, RAS."""
    steps, origin, _ = grid_of(order)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    nib.save(nib.Nifti1Image(phantom(order), np.diag([-1.0, -1, 1, 1]) @ affine), path)


def write_nrrd(path: Path, order: np.ndarray) -> None:
    """Write with SimpleITK, LPS."""
    sitk = pytest.importorskip("SimpleITK")
    steps, origin, _ = grid_of(order)
    image = sitk.GetImageFromArray(phantom(order).transpose(2, 1, 0))
    image.SetDirection(order.ravel().tolist())
    image.SetSpacing(np.linalg.norm(steps, axis=0).tolist())
    image.SetOrigin(origin.tolist())
    sitk.WriteImage(image, str(path))


def write_dicom(folder: Path, order: np.ndarray) -> None:
    """Write one file per slice with pydicom; names and instance numbers say nothing of the order.

    `order` has columns i (along a row), j (down the rows), k (through the stack).
    """
    pydicom = pytest.importorskip("pydicom")
    steps, origin, shape = grid_of(order)
    voxels = phantom(order)
    ct_image, explicit = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
    folder.mkdir()
    shuffled = np.random.default_rng(3).permutation(shape[2])
    for k, number in enumerate(shuffled.tolist()):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = explicit
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = ct_image
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.3.4.{k + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3.1", "1.2.3.2"
        data.FrameOfReferenceUID = "1.2.3.3"
        data.PatientID, data.Modality = "phantom", "CT"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.SeriesNumber, data.InstanceNumber = 1, number + 1
        data.ImageOrientationPatient = [*order[:, 0].tolist(), *order[:, 1].tolist()]
        data.ImagePositionPatient = (origin + steps[:, 2] * k).tolist()
        pitch = np.linalg.norm(steps, axis=0)
        data.PixelSpacing = [float(pitch[1]), float(pitch[0])]  # between rows, between columns
        data.SliceThickness = float(pitch[2])
        data.Columns, data.Rows = shape[0], shape[1]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelRepresentation = 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = (voxels[:, :, k].T + 1024).astype("<u2").tobytes()
        data.save_as(folder / f"{number:03d}", enforce_file_format=True)


def found_mm(volume: Volume, name: str, *, exact: bool) -> np.ndarray:
    """Find the centre of mass of one marker in LPS mm.

    Exactly stored voxels are found by their value anywhere. After regridding values mix, so what
    lies in a wide box around the right place is weighed, and nothing may be missing from it.
    """
    offset, value = MARKERS[name]
    indices = np.indices(volume.voxels.shape).reshape(3, -1)
    places = (volume.world_from_voxel @ np.vstack([indices, np.ones(indices.shape[1])]))[:3]
    if exact:
        weight = (volume.voxels.ravel() == value).astype(float)
    else:
        near = np.abs(places - (CENTRE + offset)[:, None]) < HALF_MM[:, None] + 5
        weight = (volume.voxels.ravel().astype(float) - AIR) * near.all(axis=0)
        mass = weight.sum() * abs(np.linalg.det(volume.world_from_voxel[:3, :3]))
        # Linear interpolation keeps the mass of a box only roughly.
        assert mass == pytest.approx((value - AIR) * np.prod(2 * HALF_MM), rel=0.1)
    return np.asarray(places @ weight / weight.sum())


def check(volume: Volume, *, exact: bool = True) -> None:
    """Hold all markers against their places, and their sides against each other."""
    half_voxel = np.linalg.norm(volume.world_from_voxel[:3, :3], axis=0)[::-1] / 2
    found = {name: found_mm(volume, name, exact=exact) for name in MARKERS}
    for name, (offset, _) in MARKERS.items():
        assert (np.abs(found[name] - (CENTRE + offset)) <= half_voxel).all(), name
    # The array itself: z up, y to the back, x to the left.
    at = {name: np.linalg.inv(volume.world_from_voxel) @ [*found[name], 1.0] for name in MARKERS}
    middle = (np.array(volume.voxels.shape) - 1) / 2
    assert at["left"][2] > middle[2] > at["front"][2]
    assert at["front"][1] < middle[1] < at["top"][1]
    assert at["top"][0] > middle[0] > at["left"][0]


def both_ways(path: Path) -> None:
    """Check a file through the door and through regridding to a pitch of its own."""
    volume = read(path)
    check(volume)
    assert volume.voxels.shape == tuple(
        round(SIZE_MM[axis] / PITCH[axis]) for axis in (2, 1, 0)
    )  # z, y, x
    preparation = Preparation(name="p", spacing_mm=Zyx(z=2.5, y=2.0, x=2.25))
    check(regrid(path, preparation), exact=False)


@pytest.mark.parametrize("order", ORDERS, ids=name_of)
def test_landmarks_of_a_nifti_stay_where_they_are(tmp_path: Path, order: np.ndarray) -> None:
    write_nifti(tmp_path / "a.nii", order)
    both_ways(tmp_path / "a.nii")


@pytest.mark.parametrize("order", ORDERS, ids=name_of)
def test_landmarks_of_an_nrrd_stay_where_they_are(tmp_path: Path, order: np.ndarray) -> None:
    write_nrrd(tmp_path / "a.nrrd", order)
    both_ways(tmp_path / "a.nrrd")


@pytest.mark.parametrize("order", PROPER, ids=name_of)
def test_landmarks_of_a_dicom_series_stay_where_they_are(tmp_path: Path, order: np.ndarray) -> None:
    write_dicom(tmp_path / "a", order)
    both_ways(tmp_path / "a")


def test_there_are_48_storage_orders_and_24_without_a_mirror() -> None:
    assert len({name_of(order) for order in ORDERS}) == 48
    assert len({name_of(order) for order in PROPER}) == 24


def test_a_mirrored_volume_fails_the_check(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", ORDERS[0])
    volume = read(tmp_path / "a.nii")
    for axis in range(3):
        mirrored = np.flip(volume.voxels, axis)
        wrong = Volume(volume_id="m", voxels=mirrored, world_from_voxel=volume.world_from_voxel)
        for exact in (True, False):
            with pytest.raises(AssertionError):
                check(wrong, exact=exact)
