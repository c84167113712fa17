"""DICOM in: folders of files to one CT stack in HU, with a reason for everything left out."""

from __future__ import annotations

from t3d.ct.dicom.choice import Choice, choose
from t3d.ct.dicom.headers import Frame
from t3d.ct.dicom.listing import DicomSeries, LeftOut, Listing, list_series
from t3d.ct.dicom.series import DicomSlices, open_dicom
from t3d.ct.dicom.stacking import Stack, stack

__all__ = [
    "Choice",
    "DicomSeries",
    "DicomSlices",
    "Frame",
    "LeftOut",
    "Listing",
    "Stack",
    "choose",
    "list_series",
    "open_dicom",
    "stack",
]
