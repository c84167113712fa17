"""One DICOM file: attributes given by keyword, an image packed in a transfer syntax."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t3d.errors import RecipeError, SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
    "big_endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "jpeg_2000": "1.2.840.10008.1.2.4.90",
}
MIN_JPEG_2000_PIXELS = 32

_ENCODERS = {  # module and package
    "rle": ("rle.utils", "pylibjpeg-rle"),
    "jpeg_ls": ("jpeg_ls", "pyjpegls"),
    "jpeg_2000": ("openjpeg.utils", "pylibjpeg-openjpeg"),
}


def save(
    path: Path,
    told: Mapping[str, Any],
    plane: NDArray[Any] | None = None,
    *,
    signed: bool = False,
    syntax: str = "explicit",
) -> None:
    """Write one file, with an image or without.

    Args:
        path: The file; its folder is made where it is missing.
        told: Attributes by DICOM keyword.
        plane: (rows, columns) stored values, 12-bit unsigned or 16-bit signed.
        signed: Which of the two.
        syntax: A name in SYNTAXES.

    Raises:
        SourceError: pydicom or an encoder is not installed.
        RecipeError: The slices are too small for JPEG 2000.
    """
    try:
        import pydicom
        from pydicom.dataset import FileMetaDataset
    except ImportError as error:
        raise _missing("pydicom") from error
    dataset = pydicom.Dataset()
    for keyword, value in told.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(SYNTAXES["explicit"])
    if plane is not None:
        _put_pixels(dataset, plane, signed=signed, syntax=syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _put_pixels(dataset: Dataset, plane: NDArray[Any], *, signed: bool, syntax: str) -> None:
    """Put an image into a data set, packed as the transfer syntax says."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16 if signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(signed)
    dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES[syntax])
    if syntax in _ENCODERS:
        dataset.PixelData = encapsulate([_packed(plane, syntax, dataset.BitsStored)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        return
    dataset.PixelData = plane.astype(">u2" if syntax == "big_endian" else "<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _packed(plane: NDArray[Any], syntax: str, bits: int) -> bytes:
    """Compress one plane without loss."""
    module, package = _ENCODERS[syntax]
    try:
        encoder: Any = import_module(module)
    except ImportError as error:
        raise _missing(package) from error
    if syntax == "jpeg_ls":
        return bytes(encoder.encode_array(plane.view(np.uint16)))
    if syntax == "jpeg_2000":
        if min(plane.shape) < MIN_JPEG_2000_PIXELS:
            raise RecipeError(
                f"slices of {plane.shape[0]} x {plane.shape[1]} pixels as JPEG 2000",
                expected=f"at least {MIN_JPEG_2000_PIXELS} each way: OpenJPEG halves five times",
                fix="choose another transfer syntax for a volume this small",
            )
        return bytes(encoder.encode_array(plane, bits_stored=bits))
    rows, columns = plane.shape
    raw = plane.astype("<u2").tobytes()
    told = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_allocated": 16}
    return bytes(encoder.encode_pixel_data(raw, **told, number_of_frames=1, byteorder="<"))


def _missing(package: str) -> SourceError:
    """Say how to install what is missing."""
    return SourceError(
        f"writing DICOM needs {package}, which is not installed",
        expected="the extra 'dicom'",
        fix="pip install 't3d[dicom]'",
    )
