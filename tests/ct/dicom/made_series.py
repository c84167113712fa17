"""Small DICOM series for tests: every value is known and every attribute can be changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from t3d.ct.dicom.pixels import described_plane

ROWS, COLUMNS = 6, 5
SPACING = (0.5, 0.7)  # between rows, between columns
FIRST = (-10.0, -20.0, 30.0)
PITCH = 2.0
ROOT = "1.2.826.0.1.3680043.8.498."
CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
SECRETS = {
    "PatientName": "Doe^Jane",
    "PatientID": "MRN-4711",
    "AccessionNumber": "ACC-0815",
    "PatientBirthDate": "19500101",
    "InstitutionName": "Some Hospital",
    "SeriesDescription": "Thorax Jane D.",
}
Change = Callable[[Dataset, int], object]


def stored_of(k: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Stored values of slice k: 100 k + 10 row + column, unlike in every voxel."""
    row, column = np.indices((ROWS, COLUMNS))
    return (100 * k + 10 * row + column).astype(np.uint16)


def made_slice(k: int, *, series: str = "1", **values: Any) -> Dataset:
    """Make slice k of a series; keywords set attributes, None deletes one."""
    dataset = Dataset()
    dataset.SOPClassUID = CT_CLASS
    dataset.SOPInstanceUID = f"{ROOT}{series}.{k + 1}"
    dataset.StudyInstanceUID = f"{ROOT}9"
    dataset.SeriesInstanceUID = f"{ROOT}{series}"
    dataset.FrameOfReferenceUID = f"{ROOT}7"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Manufacturer = "MAKER"
    dataset.ConvolutionKernel = "B40f"
    dataset.SeriesNumber = 3
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [FIRST[0], FIRST[1], FIRST[2] + PITCH * k]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = list(SPACING)
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    for keyword, value in SECRETS.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = stored_of(k).tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def made_series(count: int = 10, *, change: Change | None = None, **values: Any) -> list[Dataset]:
    """Make a series of slices from feet to head; `change` gets each slice and its number."""
    slices = [made_slice(k, **values) for k in range(count)]
    for k, dataset in enumerate(slices):
        if change is not None:
            change(dataset, k)
    return slices


def write(folder: Path, *several: Sequence[Dataset]) -> list[Path]:
    """Write series into a folder under names that mix them and say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    slices = [dataset for series in several for dataset in series]
    for number, dataset in enumerate(slices):
        path = folder / f"{(number * 7919) % 1009:04d}"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def moved(dataset: Dataset, *, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
    """Move a slice by some mm."""
    there = [float(v) for v in dataset.ImagePositionPatient]
    dataset.ImagePositionPatient = [there[0] + x, there[1] + y, there[2] + z]


def with_pixels(dataset: Dataset, stored: np.ndarray[Any, Any]) -> Dataset:
    """Give a slice other stored values, int16 or uint16, all 16 bits in use."""
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    return dataset


def stored_plane(dataset: Dataset, index: int = 0, **told: str) -> np.ndarray[Any, Any]:
    """The stored values of one frame alone."""
    return described_plane(dataset, index, **told).values
