"""Stored values of one DICOM frame: length checked, decoded, masked, with the sign they have.

Nothing a file says about its pixels is believed before something else agrees: the length of the
data with rows, columns and bits; the codec's own frame header with all three (`codecs.py`); bits
above BitsStored with being empty, the sign extended, or an overlay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.dicom.codecs import CODECS, Decoded, Layout, damaged, decode, lowered
from t3d.ct.dicom.files import DAMAGE, quiet
from t3d.ct.guard import RefusedFile
from t3d.ct.limits import MAX_PLANE_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset

CLEARED = "cleared bits above BitsStored (an overlay)"
READ_UNSIGNED = "read pixels flagged as signed as unsigned"

AIR_LOW_HU = -1100.0  # no tissue is darker; noise in air may go a little below -1024
PADDING_SHARE = 0.01  # a single value over this share of a plane is a fill, not anatomy
CONTINUED_SHARE = 0.1  # see `_continues`; measured 0.4 on a CT, 0.0 on overlays

_NATIVE = {  # transfer syntax -> byte order of the pixels
    "1.2.840.10008.1.2": "<",
    "1.2.840.10008.1.2.1": "<",
    "1.2.840.10008.1.2.1.99": "<",  # deflated: inflated by pydicom when the file is read
    "1.2.840.10008.1.2.2": ">",
}


@dataclass(frozen=True, slots=True)
class Plane:
    """The stored values of one frame."""

    values: NDArray[Any]  # (rows, columns) int16 or uint16
    notes: tuple[str, ...]  # what was repaired, for `Volume.steps`


@quiet()
def described_plane(dataset: Dataset, index: int = 0, *, what: str = "a DICOM file") -> Plane:
    """Give the stored values of one frame, before slope and intercept.

    MONOCHROME1 is a matter of display: values are never inverted. Bits above BitsStored are
    cleared where they hold an overlay, declared or not; where they continue the picture, the
    file is refused. Pixels flagged as signed whose sign was never extended are read unsigned
    where the signed reading would be darker than air.

    Args:
        dataset: A data set with PixelData, as pydicom reads it.
        index: Frame number from 0.
        what: Names the file in messages; a pseudonymous id.

    Returns:
        The values, int16, or uint16 where values above 32767 occur, perhaps a read-only view of
        the data set's own bytes; and what the header had wrong. A declared PixelPaddingValue
        that lies outside BitsStored is kept as it was written.

    Raises:
        RefusedFile: `unreadable` (not pixels of one kind, too short, too long, damaged),
            `transfer_syntax` (unknown, or another than the data), `missing_extra` (the codec is
            not installed), `not_ct` (colour, floating point, bit-packed).

    Source:
        DICOM PS3.3 C.7.6.3, PS3.5 8 and annex A. What is believed when the header contradicts
        the pixels: our choice, argued at each place.
    """
    layout = _layout(dataset, what)
    if not 0 <= index < layout.frames:
        raise IndexError(f"frame {index} of {layout.frames}")
    uid = _syntax(dataset, what)
    if uid in _NATIVE:
        words = _native(dataset, index, layout, _NATIVE[uid])
        decoded = Decoded(lowered(words, layout), layout.stored)
    else:
        decoded = decode(uid, _frame(dataset, index, layout), layout)
    bits = layout.stored if decoded.signed else min(layout.stored, decoded.precision)
    words = decoded.words.astype(np.uint16, copy=False)  # a copy would cost more than the rest
    if layout.signed or decoded.signed:
        container = 8 * decoded.words.dtype.itemsize
        plane = _signed(words, bits, dataset, index, container=container, what=what)
    else:
        plane = _unsigned(words, bits, dataset, what)
    return Plane(plane.values.reshape(layout.rows, layout.columns), plane.notes)


def lossy_note(dataset: Dataset) -> str:
    """Say how the pixels were compressed with loss, for `Volume.steps`; "" = they were not.

    The transfer syntax decides, and (0028,2110), which also tells of a loss before this copy.
    """
    named = CODECS.get(_stated_syntax(dataset))
    flag = str(dataset.get("LossyImageCompression", "")).strip()
    if named is not None and named.lossy == "always":
        return f"lossy source: {named.name}"
    if named is not None and named.lossy == "possible" and flag != "00":
        return f"lossy source: {named.name}"
    return "lossy source: compressed with loss before this copy" if flag == "01" else ""


# ---- what the header says ------------------------------------------------------------------


def _whole(dataset: Dataset, keyword: str, what: str, default: int | None = None) -> int:
    """Read one whole number from the header."""
    try:
        value = dataset.get(keyword)
        if value is None and default is not None:
            return default
        return int(value)
    except DAMAGE:
        raise RefusedFile(
            f"{what}: {keyword} is missing or no whole number",
            expected="one whole number",
            fix="export the file again",
        ) from None


def _layout(dataset: Dataset, what: str) -> Layout:
    """Read and check rows, columns, frames and bits."""
    _check_kind(dataset, what)
    stored = _whole(dataset, "BitsStored", what)
    layout = Layout(
        rows=_whole(dataset, "Rows", what),
        columns=_whole(dataset, "Columns", what),
        frames=_whole(dataset, "NumberOfFrames", what, 1),
        allocated=_whole(dataset, "BitsAllocated", what),
        stored=stored,
        high=_whole(dataset, "HighBit", what, stored - 1),
        signed=_whole(dataset, "PixelRepresentation", what) == 1,
        what=what,
    )
    if not (layout.rows > 0 and layout.columns > 0 and layout.plane <= MAX_PLANE_PIXELS):
        raise RefusedFile(
            f"{what}: {layout.rows} rows x {layout.columns} columns",
            expected=f"1 to {MAX_PLANE_PIXELS} pixels a frame",
            fix="export the file again",
        )
    fits = 1 <= layout.stored <= layout.high + 1 <= layout.allocated
    if layout.allocated not in (8, 16) or not fits or layout.frames < 1:
        raise RefusedFile(
            f"{what}: {layout.allocated} bits allocated, {layout.stored} stored, highest bit "
            f"{layout.high}, {layout.frames} frames",
            expected="8 or 16 bits allocated, stored bits within them, at least one frame",
            fix="leave this file out (masks are bit-packed), or export it again",
            reason="not_ct" if layout.allocated not in (8, 16) else "unreadable",
        )
    return layout


def _check_kind(dataset: Dataset, what: str) -> None:
    """Refuse what has no pixels, colours, or floating point numbers."""
    kind = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    samples = _whole(dataset, "SamplesPerPixel", what, 1)
    if "PixelData" not in dataset:
        floating = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        raise RefusedFile(
            f"{what}: " + ("floating point pixels" if floating else "no PixelData"),
            expected="integer PixelData",
            fix="leave this file out, or export it again",
            reason="not_ct" if floating else "unreadable",
        )
    if samples != 1 or kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedFile(
            f"{what}: {samples} samples a pixel, not a grey image",
            expected="one sample, MONOCHROME1 or MONOCHROME2",
            fix="leave this file out: it is a picture of a screen or a colour map",
            reason="not_ct",
        )


def _stated_syntax(dataset: Dataset) -> str:
    """Give the transfer syntax that the file states; "" = none."""
    return str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "") or "")


def _syntax(dataset: Dataset, what: str) -> str:
    """Give the transfer syntax, and refuse one that is unknown or contradicts the data."""
    uid = _stated_syntax(dataset)
    packed = bool(dataset["PixelData"].is_undefined_length)
    if not uid and not packed:
        # Without a statement pydicom has found the byte order itself, or could not have read.
        little = dataset.original_encoding[1]
        return "1.2.840.10008.1.2.2" if little is False else "1.2.840.10008.1.2.1"
    if uid not in _NATIVE and uid not in CODECS:
        raise RefusedFile(
            f"{what}: transfer syntax {_shown_syntax(uid)} is not known here",
            expected="uncompressed, deflated, RLE, JPEG, JPEG-LS, JPEG 2000 or HTJ2K",
            fix="export the file uncompressed (Explicit VR Little Endian)",
            reason="transfer_syntax",
        )
    if packed != (uid in CODECS):
        raise RefusedFile(
            f"{what}: the transfer syntax says {'un' * (uid in _NATIVE)}compressed, the pixels "
            f"are {'un' * (not packed)}compressed",
            expected="both alike",
            fix="export the file again",
            reason="transfer_syntax",
        )
    return uid


def _shown_syntax(uid: str) -> str:
    """Name a transfer syntax; whatever is no UID of the standard could name anything."""
    standard = uid.startswith("1.2.840.10008.1.2") and len(uid) <= 32
    return uid if standard and uid.replace(".", "").isdigit() else "(private or missing)"


# ---- from bytes to words -------------------------------------------------------------------


def _native(dataset: Dataset, index: int, layout: Layout, order: str) -> NDArray[Any]:
    """View one frame of uncompressed pixels."""
    data = dataset.PixelData
    size = layout.plane * layout.allocated // 8
    expected = size * layout.frames
    # Bytes behind the last frame are padding of an exporter; room for another frame is not.
    if not expected <= len(data) < expected + size:
        raise RefusedFile(
            f"{layout.what}: {len(data)} bytes of pixels",
            expected=f"{expected} for {layout.frames} x {layout.rows} x {layout.columns} pixels "
            f"of {layout.allocated} bits, and less than one frame of padding",
            fix="export the file again: it is cut off, or its header is wrong",
        )
    if layout.allocated == 16:
        return np.frombuffer(data, f"{order}u2", layout.plane, index * size)
    if order == ">" and dataset["PixelData"].VR == "OW":  # bytes lie swapped in 16-bit words
        whole = len(data) // 2
        data = np.frombuffer(data, np.uint16, whole).byteswap().tobytes() + data[2 * whole :]
    return np.frombuffer(data, np.uint8, layout.plane, index * size)


def _frame(dataset: Dataset, index: int, layout: Layout) -> bytes:
    """Cut one compressed frame out of the data."""
    from pydicom.encaps import get_frame

    table = None
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        table = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    try:
        return bytes(
            get_frame(
                dataset.PixelData, index, number_of_frames=layout.frames, extended_offsets=table
            )
        )
    except DAMAGE:
        raise damaged(layout, "cannot be cut into frames") from None


# ---- from words to values ------------------------------------------------------------------


def _unsigned(words: NDArray[np.uint16], bits: int, dataset: Dataset, what: str) -> Plane:
    """Clear what lies above the stored bits; int16 wherever that holds the values."""
    highest, notes = int(words.max()), list[str]()
    if highest >> bits:
        padding = words == _padding_word(dataset)
        words = _without_overlays(words, bits, dataset)
        low = words & ((1 << bits) - 1)
        _check_cleared(low, words, bits, what)
        words = np.where(padding, words, low).astype(np.uint16)
        highest = int(words.max())
        notes.append(CLEARED)
    return Plane(words.view(np.int16) if highest < 1 << 15 else words, tuple(notes))


def _signed(
    words: NDArray[np.uint16],
    bits: int,
    dataset: Dataset,
    index: int,
    *,
    container: int,
    what: str,
) -> Plane:
    """Give each value the sign it has, where BitsStored and the flag may both be wrong."""
    if container == 8:
        words = words.astype(np.uint8).view(np.int8).astype(np.int16).view(np.uint16)
    half = 1 << (bits - 1)
    values = words.view(np.int16)
    if bits == 16 or (-half <= int(values.min()) and int(values.max()) < half):
        return Plane(values, ())  # every sign reaches the top of its word
    written, padding, notes = values, words == _padding_word(dataset), []
    words = _without_overlays(words, bits, dataset)
    low = words & ((1 << bits) - 1)
    values = np.where(low >= half, low.astype(np.int32) - 2 * half, low).astype(np.int16)
    # Below zero by its own top bit, but the sign was not written into the bits above.
    open_sign = (low >= half) & (words == low)
    if not (open_sign | (values == written) | padding).all():
        _check_cleared(low, words, bits, what)
        notes.append(CLEARED)
    if open_sign.any() and _is_unsigned(low, open_sign, bits, dataset, index):
        values[open_sign] = low[open_sign].view(np.int16)
        notes.append(READ_UNSIGNED)
    return Plane(np.where(padding, written, values), tuple(notes))


def _is_unsigned(
    low: NDArray[Any], open_sign: NDArray[np.bool_], bits: int, dataset: Dataset, index: int
) -> bool:
    """Decide what pixels are whose flag says signed and whose upper bits say unsigned.

    Read signed they must be possible: not darker than air, or a fill. A writer that flags
    12-bit unsigned values as signed (bone above 2047, intercept -1024) fails this, one that
    stores HU in 12 bits and cuts the sign off (air -1000, intercept 0) passes.
    """
    doubtful = low[open_sign]
    rescale = _rescale(dataset, index)
    if rescale is None:
        return False  # no way to HU: such a file is refused elsewhere, whatever is said here
    slope, intercept = rescale
    hu = slope * (doubtful.astype(np.float64) - (1 << bits)) + intercept
    first = int(doubtful[0])
    one_value = bool((doubtful == first).all())
    declared = _padding_word(dataset) in (first, (first - (1 << bits)) & 0xFFFF)
    if one_value and (declared or doubtful.size >= PADDING_SHARE * low.size):
        return False
    return bool(np.mean(hu < AIR_LOW_HU) > 0.5)


def _without_overlays(words: NDArray[np.uint16], bits: int, dataset: Dataset) -> NDArray[np.uint16]:
    """Clear the bits in which overlays are declared to lie, group 6000 and on."""
    for group in range(0x6000, 0x6020, 2):
        element = dataset.get((group, 0x0102))
        if element is not None and element.value and bits <= int(element.value) < 16:
            words = words & np.uint16(0xFFFF ^ (1 << int(element.value)))
    return words


def _check_cleared(low: NDArray[Any], words: NDArray[Any], bits: int, what: str) -> None:
    """Refuse where the bits above BitsStored belong to the picture."""
    if _continues(low, words, bits):
        raise RefusedFile(
            f"{what}: BitsStored says {bits}, but the bits above continue the picture",
            expected="values within BitsStored, and overlays or nothing above them",
            fix="export the file again with the true BitsStored",
        )


def _continues(low: NDArray[Any], words: NDArray[Any], bits: int) -> bool:
    """Say whether upper and lower bits are one number.

    Where one number crosses a multiple of 2^bits, the upper part changes by one and the whole
    by little. An overlay changes the whole by at least 2^bits less what lies below. So: of the
    neighbours (along the flat array) whose upper parts differ, how many are near each other?
    """
    whole = words.astype(np.int64)
    step = np.abs(np.diff(whole))
    crossing = np.diff(whole >> bits) != 0
    if not crossing.any():
        return bool(((whole >> bits) != 0).all() and low.size > 1)
    return bool(np.mean(step[crossing] < 1 << (bits - 1)) > CONTINUED_SHARE)


def _padding_word(dataset: Dataset) -> int:
    """Give the declared padding value as 16 bits; -1 = none."""
    try:
        value = dataset.get("PixelPaddingValue")
        return -1 if value is None else int(value) & 0xFFFF
    except DAMAGE:
        return -1


def _rescale(dataset: Dataset, index: int) -> tuple[float, float] | None:
    """Find slope and intercept at the top or in the functional groups."""
    places = [dataset]
    for keyword, row in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", index),
    ):
        groups = dataset.get(keyword) or []
        if row < len(groups):
            places += list(groups[row].get("PixelValueTransformationSequence") or [])
    for place in places:
        try:
            return float(place.get("RescaleSlope", 1)), float(place["RescaleIntercept"].value)
        except DAMAGE:
            continue
    return None
