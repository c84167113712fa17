"""One DICOM file, read in two goes: what stands before the pixels, and later the pixels.

The second go begins where the first one stopped, so a header is parsed once. Nothing a file holds
enters a message, and pydicom's own warnings and errors, which quote values, are not passed on.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.limits import MAX_INFLATED_BYTES

if TYPE_CHECKING:
    from pydicom import Dataset

Refusal = TypeVar("Refusal", bound=RefusedFile | RefusedGrid)

_PIECE_BYTES = 1 << 20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 4096  # where the transfer syntax of every real file stands
_GROUP_LENGTH = struct.Struct("<HH2sHI")  # of group 2: tag, VR, length, value
_META_TAG = (2, 0, b"UL", 4)
_PIXEL_DATA = 0x7FE00010
_BARE_STARTS = (b"\x02\0", b"\x08\0")  # group 2 or 8 at once: a file without its preamble
# What reading damaged bytes raises; MemoryError stays the worker's business. See `damage`.
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    ArithmeticError,
    RecursionError,
    AssertionError,
    struct.error,
    zlib.error,
)
_WITH_PIXELS = ("DoubleFloatPixelData", "FloatPixelData", "PixelData")
KEPT: tuple[str | int, ...] = (  # what decoding needs beside the pixels
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "HighBit",
    "LossyImageCompression",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "PixelPaddingValue",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "SharedFunctionalGroupsSequence",
    *((0x6000 + group << 16) + 0x0102 for group in range(0, 32, 2)),  # OverlayBitPosition
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file's pixels lie and what is needed to decode them."""

    file: Path = field(repr=False)  # file names hold identifiers
    start: int | None  # byte of the pixel element; None = deflated, no place in the file
    kept: Dataset = field(repr=False)


def load_pydicom() -> Any:
    """Import pydicom.

    Raises:
        RefusedFile: `missing_extra`.
    """
    try:
        import pydicom
    except ImportError:
        raise RefusedFile(
            "a DICOM file needs pydicom, which is not installed",
            expected="the extra 'dicom'",
            fix="pip install 't3d[dicom]'",
            reason="missing_extra",
        ) from None
    return pydicom


def damage() -> tuple[type[Exception], ...]:
    """Give what reading damaged bytes raises, pydicom's own errors among them."""
    errors = load_pydicom().errors
    return (*DAMAGE, errors.InvalidDicomError, errors.BytesLengthException)


def header_of(path: Path, keywords: Sequence[str]) -> tuple[Dataset, Source]:
    """Read the named attributes that stand before the pixels.

    Values stay raw until they are asked for; ask inside `quiet`: pydicom's warnings quote them.

    Args:
        path: A DICOM file, with or without its preamble.
        keywords: Attributes wanted.

    Returns:
        The attributes found, and what `pixels_of` needs later.

    Raises:
        RefusedFile: `missing_file`, `not_dicom`, `missing_extra`, or `unreadable` where the file
            is empty, damaged, or unpacks beyond MAX_INFLATED_BYTES.
    """
    pydicom = load_pydicom()
    with _reading(), open(path, "rb") as file:
        dataset, deflated = _read(file, (*keywords, *KEPT), pixels=False)
        start = None if deflated else file.tell()
        wanted = {pydicom.tag.Tag(keyword) for keyword in KEPT}
        kept = pydicom.Dataset({tag: raw for tag, raw in dataset.items() if tag in wanted})
        _carry_over(dataset, kept)
    return dataset, Source(path, start, kept)


def pixels_of(source: Source) -> Dataset:
    """Read a file's pixels, as `pixels.described_plane` takes them.

    Raises:
        RefusedFile: `missing_file`, or `unreadable`.
    """
    if source.start is None:
        return read_dataset(source.file, (*KEPT, *_WITH_PIXELS), pixels=True)
    pydicom = load_pydicom()
    with _reading(), open(source.file, "rb") as file:
        file.seek(source.start)
        found = pydicom.filereader.read_dataset(
            file,
            *source.kept.original_encoding,
            stop_when=lambda tag, _vr, _length: tag > _PIXEL_DATA,
        )
        dataset: Dataset = pydicom.Dataset({**dict(source.kept.items()), **dict(found.items())})
        _carry_over(source.kept, dataset)
    return dataset


def read_dataset(path: Path, keywords: Sequence[str | int], *, pixels: bool) -> Dataset:
    """Read the named attributes of one file in one go.

    Args:
        path: A DICOM file, with or without its preamble.
        keywords: Attributes wanted, by keyword or tag.
        pixels: Read on to the pixels and what stands behind them.

    Raises:
        RefusedFile: As `header_of`.
    """
    with _reading(), open(path, "rb") as file:
        dataset, _ = _read(file, keywords, pixels=pixels)
    return dataset


def _read(file: BinaryIO, keywords: Sequence[str | int], *, pixels: bool) -> tuple[Dataset, bool]:
    """Read an open file; say also whether it is deflated."""
    pydicom = load_pydicom()
    bare, deflated = _looked_at(file)
    file.seek(0)
    dataset: Dataset = pydicom.dcmread(
        file, stop_before_pixels=not pixels, specific_tags=list(keywords), force=bare
    )
    return dataset, deflated


def _carry_over(old: Dataset, new: Dataset) -> None:
    """Copy what a data set knows about its encoding."""
    new.file_meta = old.file_meta
    implicit, little = old.original_encoding
    new.set_original_encoding(implicit, little, old.original_character_set)


def named(refusal: Refusal, name: str) -> Refusal:
    """Put a scan's name before what was found.

    Args:
        refusal: A RefusedFile or RefusedGrid.
        name: A pseudonymous id.
    """
    return type(refusal)(
        f"{name}: {refusal.found}",
        expected=refusal.expected,
        fix=refusal.fix,
        reason=refusal.reason,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom still: it warns of odd values, and logs them, by quoting them."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what reading damaged bytes raises into a refusal without the file's texts."""
    try:
        with quiet():
            yield
    except FileNotFoundError:
        raise RefusedFile(
            "a file of the series is missing",
            expected="every file of the list",
            fix="copy the series again",
            reason="missing_file",
        ) from None
    except damage() as error:
        raise RefusedFile(
            f"a file cannot be read ({type(error).__name__})",
            expected="a DICOM file",
            fix="copy or export the file again",
        ) from None


def _looked_at(file: BinaryIO) -> tuple[bool, bool]:
    """Say whether the preamble is missing and whether all is deflated; refuse what is no DICOM."""
    start = file.read(_META_BYTES)
    if start[128:132] == b"DICM":
        deflated = _DEFLATED in start
        if deflated:
            _check_inflated(file, start)
        return False, deflated
    if start[:2] in _BARE_STARTS:
        return True, False
    raise RefusedFile(
        "a file is no DICOM file" if start else "a file is empty",
        expected="'DICM' after 128 bytes, or a data set at once",
        fix="leave it out of the folder" if start else "copy the file again",
        reason="not_dicom" if start else "unreadable",
    )


def _check_inflated(file: BinaryIO, start: bytes) -> None:
    """Refuse a deflated file that unpacks beyond the limit, before pydicom unpacks it whole."""
    *tag, length = _GROUP_LENGTH.unpack_from(start, 132)
    if tuple(tag) != _META_TAG:
        raise ValueError("no group length before a deflated data set")
    file.seek(132 + _GROUP_LENGTH.size + length)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    piece = file.read(_PIECE_BYTES)
    while piece and not inflate.eof:
        total += len(inflate.decompress(piece, _PIECE_BYTES))
        if total > MAX_INFLATED_BYTES:
            raise RefusedFile(
                f"a deflated file unpacks to more than {MAX_INFLATED_BYTES >> 20} MiB",
                expected="a slice or a multi-frame volume",
                fix="leave this file out",
            )
        piece = inflate.unconsumed_tail or file.read(_PIECE_BYTES)
