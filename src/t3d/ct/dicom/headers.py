"""One DICOM file's header as frames: what places a plane in space and turns it into HU.

Values are taken, never guessed: what is missing or no number makes a frame's `problem`, and the
series it belongs to is refused by name. Nothing here puts a text of the file into a message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.ct.dicom.files import Source, damage, header_of, quiet
from t3d.ct.dicom.pixels import lossy_note
from t3d.ct.guard import RefusedFile
from t3d.ct.limits import MAX_FRAMES

if TYPE_CHECKING:
    from pydicom import Dataset

UNIT_TOLERANCE = 0.01  # direction vectors written with two decimals are off by 0.005
_DIRECTORY = "1.2.840.10008.1.3.10"
_GROUPS = {  # where an enhanced file keeps what a classic one has at its top
    "PixelSpacing": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "InstanceNumber": "UnassignedPerFrameConvertedAttributesSequence",
}
HEADER_KEYWORDS = (
    "AccessionNumber",
    "AcquisitionNumber",
    "BitsAllocated",
    "Columns",
    "ContrastBolusAgent",
    "ContrastBolusUsageSequence",
    "ConvolutionKernel",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "LossyImageCompression",
    "Manufacturer",
    "Modality",
    "NumberOfFrames",
    "PatientID",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "Rows",
    "SOPClassUID",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
    "StudyInstanceUID",
    "TemporalPositionIdentifier",
)
_HU_TYPES = ("", "HU", "US")  # US = unspecified: what de-identifiers and converters write


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One plane of a file; lengths in mm, LPS."""

    source: Source = field(repr=False, compare=False)
    index: int  # within the file
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None  # between rows, between columns
    position_mm: tuple[float, float, float] | None  # centre of the first pixel
    orientation: tuple[float, ...] | None  # (6,): along a row, along a column
    slope: float
    intercept: float  # HU
    padding: tuple[float, float] | None  # stored values, lowest and highest
    instance: int | None  # InstanceNumber, or the frame's place in a multi-frame file
    acquisition: int | None
    temporal: int | None
    image_type: tuple[str, ...]
    kernel: str
    problem: str = ""  # why this frame cannot be part of a volume; names the attribute
    reason: str = ""  # its reason code
    notes: tuple[str, ...] = ()  # what was missing and taken as usual, or lost before us

    @property
    def file(self) -> Path:
        """The file it lies in."""
        return self.source.file


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One file: whose it is and its frames. The identifiers never leave by repr."""

    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    accession: str = field(repr=False)
    description: str = field(repr=False)  # free text: people write names into it
    series_number: int | None
    manufacturer: str
    modality: str
    sop_class: str
    contrast: bool
    frames: tuple[Frame, ...]


def read_header(path: Path) -> Header:
    """Read one file's header.

    Args:
        path: A DICOM file.

    Returns:
        Identifiers, facts and one frame per plane; frames that lack something say so.

    Raises:
        RefusedFile: Not a DICOM file, or one so damaged that its series is not known.

    Source:
        DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups), C.11.1 (rescale).
    """
    dataset, source = header_of(path, HEADER_KEYWORDS)
    with quiet():
        try:
            return _header(dataset, source)
        except damage() as error:
            raise RefusedFile(
                f"a file's header is damaged ({type(error).__name__})",
                expected="a DICOM file",
                fix="copy or export the file again",
            ) from None


class _Scopes:
    """Looks an attribute up in a frame's functional groups, then at the top of the file."""

    def __init__(self, top: Dataset, groups: Sequence[Dataset]) -> None:
        self.top = top
        self.groups = groups
        self.problem = ""
        self.reason = ""

    def value(self, keyword: str) -> Any:
        """Give an attribute's value; None where it is absent or empty."""
        sequence = _GROUPS.get(keyword, "")
        for group in self.groups:
            items = group.get(sequence) if sequence else None
            found = items[0].get(keyword) if items else None
            if found is not None:
                return found
        found = self.top.get(keyword)
        return None if found is None or found == "" else found

    def numbers(self, keyword: str, count: int, reason: str = "") -> tuple[float, ...] | None:
        """Give finite numbers; None and, where a reason code is given, a problem otherwise."""
        told = "is missing"
        try:
            value = self.value(keyword)
            if value is not None:
                told = f"is not {count} finite number{'s' if count > 1 else ''}"
                several = not isinstance(value, (str, bytes)) and hasattr(value, "__len__")
                numbers = tuple(float(v) for v in (value if several else (value,)))
                if len(numbers) == count and all(math.isfinite(n) for n in numbers):
                    return numbers
        except damage():
            told = "is no number"
        self.note(f"{keyword} {told}" if reason else "", reason)
        return None

    def note(self, problem: str, reason: str) -> None:
        """Keep the first problem."""
        if problem and not self.problem:
            self.problem, self.reason = problem, reason

    def number(self, keyword: str, reason: str = "") -> float | None:
        """Give one finite number."""
        found = self.numbers(keyword, 1, reason)
        return found[0] if found else None

    def whole(self, keyword: str, reason: str = "") -> int | None:
        """Give one whole number."""
        found = self.number(keyword, reason)
        return int(found) if found is not None and found.is_integer() else None

    def text(self, keyword: str) -> str:
        """Give a text, several values joined by a backslash; "" = absent."""
        value = self.value(keyword)
        if value is None:
            return ""
        several = not isinstance(value, (str, bytes)) and hasattr(value, "__len__")
        return "\\".join(str(v).strip() for v in (value if several else (value,)))


def _header(dataset: Dataset, source: Source) -> Header:
    """Make the header of a data set."""
    top = _Scopes(dataset, ())
    meta: Any = getattr(dataset, "file_meta", {})
    if str(meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
        raise RefusedFile("a file is a DICOMDIR, no image", reason="not_dicom")
    agent = bool(top.text("ContrastBolusAgent")) or bool(dataset.get("ContrastBolusUsageSequence"))
    series = top.text("SeriesInstanceUID")
    frame_of_reference = top.text("FrameOfReferenceUID")
    frames = tuple(_frames(dataset, source))
    if not series and frame_of_reference:
        # De-identifiers empty it. A mixture under it shows as repeated or uneven positions.
        series = frame_of_reference
        told = "SeriesInstanceUID missing, grouped by frame of reference"
        frames = tuple(replace(frame, notes=(*frame.notes, told)) for frame in frames)
    return Header(
        patient_id=top.text("PatientID"),
        study_uid=top.text("StudyInstanceUID"),
        series_uid=series,
        accession=top.text("AccessionNumber"),
        description=top.text("SeriesDescription"),
        series_number=top.whole("SeriesNumber"),
        manufacturer=plain(top.text("Manufacturer")),
        modality=plain(top.text("Modality")),
        sop_class=top.text("SOPClassUID"),
        contrast=agent,
        frames=frames,
    )


def _frames(dataset: Dataset, source: Source) -> list[Frame]:
    """List the frames of a file."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    top = _Scopes(dataset, ())
    count = top.whole("NumberOfFrames", "unreadable") if "NumberOfFrames" in dataset else 1
    if count is None or not 1 <= count <= MAX_FRAMES or (per_frame and len(per_frame) != count):
        top.note("NumberOfFrames and the functional groups do not agree", "unreadable")
        return [_frame(top, source, 0, None)]
    if not per_frame and not shared:
        single = count == 1
        number = top.whole("InstanceNumber")
        return [_frame(top, source, i, number if single else i + 1) for i in range(count)]
    frames = []
    for index in range(count):
        scopes = _Scopes(dataset, [*per_frame[index : index + 1], *shared])
        frames.append(_frame(scopes, source, index, index + 1))
    return frames


def _frame(scopes: _Scopes, source: Source, index: int, instance: int | None) -> Frame:
    """Make one frame; the first thing that is wrong becomes its problem."""
    rows, columns = (scopes.whole(k, "unreadable") or 0 for k in ("Rows", "Columns"))
    for keyword in ("BitsAllocated", "PixelRepresentation"):
        scopes.whole(keyword, "unreadable")
    spacing = scopes.numbers("PixelSpacing", 2, "bad_affine")
    position = scopes.numbers("ImagePositionPatient", 3, "bad_affine")
    orientation = scopes.numbers("ImageOrientationPatient", 6, "bad_affine")
    scopes.note(_misplaced(rows, columns, spacing, orientation), "bad_affine")
    slope, intercept, assumed = _rescale(scopes)
    inverted = scopes.text("PhotometricInterpretation") == "MONOCHROME1"
    notes = (
        assumed,
        lossy_note(scopes.top),
        "MONOCHROME1: a matter of display, HU not inverted" if inverted else "",
        "" if getattr(scopes.top, "preamble", None) else "file without its preamble",
    )
    return Frame(
        source=source,
        index=index,
        rows=rows,
        columns=columns,
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=orientation,
        slope=slope,
        intercept=intercept,
        padding=_padding(scopes),
        instance=instance,
        acquisition=scopes.whole("FrameAcquisitionNumber") or scopes.whole("AcquisitionNumber"),
        temporal=scopes.whole("TemporalPositionIndex")
        or scopes.whole("TemporalPositionIdentifier"),
        image_type=tuple(
            plain(v) for v in (scopes.text("FrameType") or scopes.text("ImageType")).split("\\")
        ),
        kernel=plain(scopes.text("ConvolutionKernel").split("\\")[0]),
        problem=scopes.problem,
        reason=scopes.reason,
        notes=tuple(note for note in notes if note),
    )


def _rescale(scopes: _Scopes) -> tuple[float, float, str]:
    """Give slope and intercept, and what was assumed; HU cannot be made without an intercept."""
    intercept = scopes.number("RescaleIntercept", "hu_implausible")
    stated = scopes.value("RescaleSlope") is not None
    slope = scopes.number("RescaleSlope", "hu_implausible") if stated else 1.0
    unit = plain(scopes.text("RescaleType")).upper()
    if slope is not None and slope <= 0.0:
        scopes.note(f"RescaleSlope is {slope:.6g}", "hu_implausible")
    scopes.note("" if unit in _HU_TYPES else "RescaleType is not HU", "hu_implausible")
    return slope or 1.0, intercept or 0.0, "" if stated else "RescaleSlope missing, taken as 1"


def _misplaced(
    rows: int,
    columns: int,
    spacing: tuple[float, ...] | None,
    orientation: tuple[float, ...] | None,
) -> str:
    """Say why these numbers place no plane in space; "" = they do, or are missing."""
    if min(rows, columns) < 1:
        return f"Rows x Columns are {rows} x {columns}"
    if spacing and min(spacing) <= 0.0:
        return f"PixelSpacing is {spacing[0]:.6g} x {spacing[1]:.6g} mm"
    if orientation is None:
        return ""
    row, column = orientation[:3], orientation[3:]
    lengths = (math.hypot(*row), math.hypot(*column))
    product = sum(a * b for a, b in zip(row, column, strict=True))
    if max(abs(n - 1.0) for n in lengths) > UNIT_TOLERANCE or abs(product) > UNIT_TOLERANCE:
        return (
            f"ImageOrientationPatient has lengths {lengths[0]:.3f} and {lengths[1]:.3f} and "
            f"product {product:.3f} instead of 1, 1 and 0"
        )
    return ""


def _padding(scopes: _Scopes) -> tuple[float, float] | None:
    """Give the stored values that mean "outside", with the sign the pixels have."""
    ends = [scopes.whole("PixelPaddingValue"), scopes.whole("PixelPaddingRangeLimit")]
    if ends[0] is None:
        return None
    bits = scopes.whole("BitsAllocated") or 16
    signed = scopes.whole("PixelRepresentation") == 1
    turned = []
    for end in (e for e in ends if e is not None):
        # The attribute is often written with the other sign's VR: 63536 for -2000.
        if signed and end >= 1 << (bits - 1):
            end -= 1 << bits
        elif not signed and end < 0:
            end += 1 << bits
        turned.append(float(end))
    return min(turned), max(turned)


def plain(text: str) -> str:
    """Cut a code down to what may be shown: 32 printable ASCII characters."""
    return "".join(c for c in text.strip() if c.isascii() and c.isprintable())[:32]
