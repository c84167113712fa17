"""DICOM's codecs, called directly: what a frame says of itself is compared before it is decoded.

A codec allocates by the frame's own header, fills up what is cut off, and hands back what it
likes. So the header is read first, the end marker looked for, and the result measured.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.dicom.files import DAMAGE
from t3d.ct.guard import RefusedFile

_CODEC_DAMAGE: tuple[type[Exception], ...] = (*DAMAGE, RuntimeError)
_SCAN_MARKER = 0xDA
# Start of frame of every JPEG process but tables (C4, CC) and a reserved one (C8); JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_TABLE_MARKERS = {0xC4, 0xCC, 0xDB, 0xDD, 0xF8, _SCAN_MARKER}
_SILENT_MARKERS = {*range(0xE0, 0xF0), 0xFE}  # application data and comments


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the header says about the pixels, checked for sense."""

    rows: int
    columns: int
    frames: int
    allocated: int  # bits
    stored: int  # bits
    high: int  # number of the highest bit
    signed: bool
    what: str

    @property
    def plane(self) -> int:
        """Give the pixels of one frame."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Decoded:
    """One frame as a codec gave it."""

    words: NDArray[Any]  # uint8 or uint16, flat
    precision: int  # bits, by the codec's own header
    signed: bool = False  # the codec itself says so (JPEG 2000)


def decode(uid: str, frame: bytes, layout: Layout) -> Decoded:
    """Decode one frame and measure what came out."""
    codec = CODECS[uid]
    try:
        decoded = codec.decode(frame, layout)
    except _CODEC_DAMAGE:
        raise damaged(layout, f"cannot be decoded as {codec.name}") from None
    if decoded.words.size != layout.plane:
        raise damaged(layout, f"decode to {decoded.words.size} pixels as {codec.name}")
    return decoded


def damaged(layout: Layout, how: str) -> RefusedFile:
    """Make the refusal of a frame that says or holds something else than the header."""
    return RefusedFile(
        f"{layout.what}: the compressed pixels {how}",
        expected=f"{layout.rows} x {layout.columns} pixels of up to {layout.allocated} bits",
        fix="export the file again: it is cut off or damaged",
    )


def lowered(words: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Shift values that sit in the upper bits of their words down to bit 0."""
    shift = layout.high + 1 - layout.stored
    if not shift:
        return words
    if (words & ((1 << shift) - 1)).any():
        raise RefusedFile(
            f"{layout.what}: HighBit {layout.high} with {layout.stored} bits stored, but the "
            "bits below are in use",
            expected="values in the bits that HighBit names",
            fix="export the file again",
        )
    return words >> shift


def _plug_in(module: str, package: str, layout: Layout) -> Any:
    """Import a codec, or name what has to be installed."""
    try:
        return import_module(module)
    except ImportError:
        raise RefusedFile(
            f"{layout.what}: its compression needs {package}, which is not installed",
            expected="the extra 'dicom'",
            fix=f"pip install 't3d[dicom]' (or {package} alone)",
            reason="missing_extra",
        ) from None


def _rle(frame: bytes, layout: Layout) -> Decoded:
    """Decode RLE: one segment for each byte of a word, the high byte first.

    Segment by segment, since the plug-in's decoder of whole frames writes past its end.
    """
    rle = _plug_in("rle.rle", "pylibjpeg-rle", layout)
    count, *starts = struct.unpack_from("<16I", frame)
    if count != layout.allocated // 8:
        raise damaged(layout, f"have {count} RLE segments")
    ends = [*starts[1:count], len(frame)]
    pixels = np.empty((layout.plane, count), np.uint8)
    for byte, (start, end) in enumerate(zip(starts, ends, strict=False), 1):
        if not 64 <= start < end <= len(frame):
            raise damaged(layout, "have an RLE segment without a place")
        raw = rle.decode_segment(frame[start:end])
        if not layout.plane <= len(raw) <= layout.plane + 1:  # a padding byte may follow
            raise damaged(layout, f"decode to {len(raw)} bytes in an RLE segment")
        pixels[:, count - byte] = np.frombuffer(raw, np.uint8, layout.plane)
    words = pixels.reshape(-1).view("<u2" if count == 2 else "u1")
    return Decoded(lowered(words, layout), layout.stored)


def _jpeg(frame: bytes, layout: Layout) -> Decoded:
    """Decode JPEG of any process, lossless or 8 to 12 bits, with GDCM."""
    precision, frame = _checked_jpeg(frame, layout)
    if precision < 8:  # GDCM ends the process over it
        raise damaged(layout, f"say {precision} bits themselves")
    gdcm = _plug_in("gdcm", "python-gdcm", layout)
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    packed = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    packed.SetValue(fragments.__ref__())
    out = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((layout.columns, layout.rows, 1))
    codec.SetPlanarConfiguration(0)
    codec.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    width = 8 if precision <= 8 else 16
    # Always unsigned: what the bits mean is decided below, by more than the codec knows.
    codec.SetPixelFormat(gdcm.PixelFormat(1, width, precision, precision - 1, 0))
    if not codec.Decode(packed, out) or out.IsEmpty():
        raise ValueError("GDCM gave nothing")
    # GDCM hands bytes over as text in which undecodable bytes are surrogates.
    raw = out.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
    return Decoded(np.frombuffer(raw, "<u2" if width == 16 else "u1"), precision)


def _jpeg_ls(frame: bytes, layout: Layout) -> Decoded:
    """Decode JPEG-LS with CharLS."""
    precision, frame = _checked_jpeg(frame, layout)
    raw, _ = _plug_in("jpeg_ls", "pyjpegls", layout).decode_pixel_data(frame)
    return Decoded(np.frombuffer(raw, "<u2" if precision > 8 else "u1"), precision)


def _jpeg_2000(frame: bytes, layout: Layout) -> Decoded:
    """Decode JPEG 2000 and HTJ2K with OpenJPEG."""
    precision, signed = _check_siz(frame, layout)
    codec = _plug_in("openjpeg", "pylibjpeg-openjpeg", layout)
    raw = codec.decode_pixel_data(frame, version=2)
    words = np.frombuffer(raw, "<u2" if precision > 8 else "u1")
    if signed and precision <= 8:  # the sign fills the wider word, as it does in 16 bits
        words = words.view(np.int8).astype(np.int16).view(np.uint16)
    return Decoded(words, precision, signed)


def _checked_jpeg(frame: bytes, layout: Layout) -> tuple[int, bytes]:
    """Compare JPEG's frame header with DICOM's; give precision and the frame in its plain form.

    Application data and comments go: GDCM ends the whole process over some of them, and none of
    them says anything about one grey sample a pixel.
    """
    precision, at, kept = 0, 2, [frame[:2]]
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        end = at + 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
        if marker in _FRAME_MARKERS:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            _check_said(layout, (rows, columns, components), precision)
        elif marker not in _TABLE_MARKERS and marker not in _SILENT_MARKERS:
            raise damaged(layout, f"have marker {marker:02X} before the scan")
        if marker not in _SILENT_MARKERS:
            kept.append(frame[at:end])
        if marker == _SCAN_MARKER and precision:
            _check_end(frame, layout)
            return precision, b"".join((*kept, frame[end:]))
        at = end
    raise damaged(layout, "have no JPEG frame header")


def _check_siz(frame: bytes, layout: Layout) -> tuple[int, bool]:
    """Read JPEG 2000's image size before a codec allocates by it; give precision and sign."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # behind a JP2 header, where there is one
    if at < 0 or at + 43 > len(frame):
        raise damaged(layout, "have no JPEG 2000 image size")
    x1, y1, x0, y0 = struct.unpack_from(">IIII", frame, at + 8)
    components, depth = struct.unpack_from(">HB", frame, at + 40)
    precision = (depth & 0x7F) + 1
    _check_said(layout, (y1 - y0, x1 - x0, components), precision)
    _check_end(frame, layout)
    return precision, bool(depth & 0x80)


def _check_said(layout: Layout, size: tuple[int, int, int], precision: int) -> None:
    """Refuse a compressed frame that is not the plane the DICOM header promised."""
    if size != (layout.rows, layout.columns, 1) or not 1 <= precision <= 16:
        rows, columns, components = size
        raise damaged(
            layout, f"say {rows} x {columns} x {components} of {precision} bits themselves"
        )


def _check_end(frame: bytes, layout: Layout) -> None:
    """Refuse a frame without its end marker: codecs fill up what is cut off without a word."""
    if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise damaged(layout, "have no end marker")


@dataclass(frozen=True, slots=True)
class _Codec:
    """One way to compress frames."""

    name: str
    decode: Callable[[bytes, Layout], Decoded]
    lossy: str = ""  # "always", "possible" or ""


CODECS = {
    "1.2.840.10008.1.2.5": _Codec("RLE", _rle),
    "1.2.840.10008.1.2.4.50": _Codec("JPEG baseline", _jpeg, "always"),
    "1.2.840.10008.1.2.4.51": _Codec("JPEG extended", _jpeg, "always"),
    "1.2.840.10008.1.2.4.53": _Codec("JPEG spectral selection", _jpeg, "always"),  # retired
    "1.2.840.10008.1.2.4.55": _Codec("JPEG full progression", _jpeg, "always"),  # retired
    "1.2.840.10008.1.2.4.57": _Codec("JPEG lossless", _jpeg),
    "1.2.840.10008.1.2.4.70": _Codec("JPEG lossless", _jpeg),
    "1.2.840.10008.1.2.4.80": _Codec("JPEG-LS lossless", _jpeg_ls),
    "1.2.840.10008.1.2.4.81": _Codec("JPEG-LS near-lossless", _jpeg_ls, "possible"),
    "1.2.840.10008.1.2.4.90": _Codec("JPEG 2000 lossless", _jpeg_2000),
    "1.2.840.10008.1.2.4.91": _Codec("JPEG 2000", _jpeg_2000, "possible"),
    "1.2.840.10008.1.2.4.201": _Codec("HTJ2K lossless", _jpeg_2000),
    "1.2.840.10008.1.2.4.202": _Codec("HTJ2K lossless", _jpeg_2000),
    "1.2.840.10008.1.2.4.203": _Codec("HTJ2K", _jpeg_2000, "possible"),
}
