"""NRRD and MetaImage files (.nrrd .nhdr .mha .mhd) through SimpleITK, checked before it reads.

SimpleITK parses header and voxels. What it does not check, we do from the header's own lines:
where the voxels lie, whether the file is long enough for them, whether it says which side is
left, and the checksum of packed voxels, which ITK reads as noise where they are damaged.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.ct.geometry import Matrix, Orientation, check_matrix, letters, nearest_axes
from t3d.ct.guard import RefusedFile, RefusedGrid, check_bytes, missing_file
from t3d.ct.intensity import Rescale
from t3d.ct.limits import MAX_HEADER_BYTES, MAX_VOXELS

_PIECE_BYTES = 1 << 20

# The only spaces that ITK turns into LPS; it takes any other name for LPS as well.
_SPACES = (
    *("lps", "ras", "las"),
    *("left-posterior-superior", "right-anterior-superior", "left-anterior-superior"),
)
_TYPES = (
    *("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64"),
    *("Float32", "Float64"),
)


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header's own lines say, and where the voxels lie."""

    kind: str  # "NRRD" or "MetaImage"
    fields: Mapping[str, str]  # names in lower case
    voxels: Path  # file that holds them
    voxel_bytes: int  # of that file, behind the header
    first: int  # where they begin
    packed: bool


class ItkFile:
    """One open NRRD or MetaImage file: checked geometry and its slices in file order."""

    def __init__(self, reader: Any, header: _Header, *, name: str) -> None:
        self.name = name
        i, j, k = reader.GetSize()
        self.shape_kji: tuple[int, int, int] = (k, j, i)
        self.world_from_file = _world_from_file(reader)
        check_matrix(self.world_from_file, what=name)
        orientation, tilt = nearest_axes(self.world_from_file)
        self.orientation: Orientation = orientation
        self.tilt_degrees = tilt
        self.rescale = Rescale()
        self.instances: tuple[tuple[int, float], ...] = ()
        kind = _pixel_type(reader).lower()
        self.steps: tuple[str, ...] = (f"read {header.kind} {kind} {letters(orientation)}",)
        self._reader = reader
        self._streams = header.kind == "MetaImage" and not header.packed

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first slice, slices (S, J, I)) along the slowest axis.

        ITK reads a plain MetaImage piece by piece and everything else whole.

        Raises:
            RefusedFile: The voxels cannot be read.
        """
        depth, rows, columns = self.shape_kji
        piece = num_slices if self._streams else depth
        view_of = _simpleitk().GetArrayViewFromImage
        for start in range(0, depth, piece):
            image = self._read((0, 0, start), (columns, rows, min(piece, depth - start)))
            view: NDArray[Any] = view_of(image)  # lives no longer than its image
            for first in range(0, len(view), num_slices):
                yield start + first, view[first : first + num_slices].copy()

    def _read(self, index: tuple[int, int, int], size: tuple[int, int, int]) -> Any:
        """Read one box, (x, y, z) as ITK counts."""
        self._reader.SetExtractIndex(index)
        self._reader.SetExtractSize(size)
        try:
            return self._reader.Execute()
        except RuntimeError as error:  # its text holds the path: not passed on
            raise RefusedFile(
                f"{self.name}: SimpleITK cannot read the voxels",
                expected="a complete file",
                fix="copy or download the file again",
            ) from error


@contextmanager
def open_itk(path: str | Path, *, name: str = "") -> Iterator[ItkFile]:
    """Open an NRRD or MetaImage file and check it before any voxel is read.

    Args:
        path: The file with the header; its voxels may lie in one other file of its folder.
        name: Pseudonymous id for messages; "" = the file name without its ending.

    Raises:
        RefusedFile: Missing, cut off, damaged, voxels outside the folder, or SimpleITK is
            not installed.
        RefusedGrid: Not one 3-D density, or without a place in space.
    """
    path = Path(path)
    name = name or path.name.split(".")[0]
    header = _read_header(path, name)
    _check_lines(header, name)
    sitk = _simpleitk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO({"NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}[header.kind])
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise RefusedFile(
            f"{name}: SimpleITK cannot read the {header.kind} header",
            expected="a complete header",
            fix="export the file again",
        ) from error
    _check_image(reader, header, name)
    if header.packed:
        _check_stream(header, _promised_bytes(reader), name)
    yield ItkFile(reader, header, name=name)


def _simpleitk() -> ModuleType:
    """Import SimpleITK, or say how to install it."""
    try:
        import SimpleITK
    except ImportError as error:
        raise RefusedFile(
            "NRRD and MetaImage files need SimpleITK",
            expected="the extra 'itk'",
            fix="pip install 't3d[itk]'",
        ) from error
    module: ModuleType = SimpleITK
    return module


def _read_header(path: Path, name: str) -> _Header:
    """Read the header's lines and find the file with the voxels."""
    if not path.is_file():
        raise missing_file(name, "an NRRD or MetaImage file")
    with open(path, "rb") as stream:
        start = stream.read(MAX_HEADER_BYTES)
    kind = "NRRD" if start.startswith(b"NRRD") else "MetaImage"
    fields, end = _nrrd_lines(start) if kind == "NRRD" else _meta_lines(start)
    if kind == "NRRD":
        place = fields.get("data file", fields.get("datafile", ""))
        packed = fields.get("encoding", "").lower() in ("gzip", "gz")
    else:
        place = fields.get("elementdatafile", "")
        packed = fields.get("compresseddata", "").lower() in ("true", "1")
        place = "" if place.upper() == "LOCAL" else place
    voxels = _voxel_file(path, place, name) if place else path
    first = 0 if place else end
    return _Header(kind, fields, voxels, voxels.stat().st_size - first, first, packed)


def _nrrd_lines(start: bytes) -> tuple[dict[str, str], int]:
    """Read `field: value` and `key:=value` up to the blank line."""
    blank = re.search(rb"\r?\n\r?\n", start)
    end = blank.end() if blank else len(start)
    fields = {}
    for line in start[:end].decode("utf-8", errors="replace").splitlines()[1:]:
        key, _, value = line.partition(":")
        if not line.startswith("#"):
            fields[key.strip().lower()] = value.removeprefix("=").strip()
    return fields, end


def _meta_lines(start: bytes) -> tuple[dict[str, str], int]:
    """Read `Name = value` up to the line that says where the voxels lie."""
    last = re.search(rb"^\s*ElementDataFile\s*=[^\n]*(\n|\Z)", start, flags=re.MULTILINE)
    end = last.end() if last else len(start)
    fields = {}
    for line in start[:end].decode("utf-8", errors="replace").splitlines():
        key, _, value = line.partition("=")
        fields[key.strip().lower()] = value.strip()
    return fields, end


def _voxel_file(path: Path, place: str, name: str) -> Path:
    """Find the one file of voxels; it may not lie outside the header's folder."""
    folder = path.parent.resolve()
    found = (folder / place).resolve()
    if place.upper().startswith("LIST") or "%" in place or "\0" in place:
        raise RefusedFile(
            f"{name}: the header lists several files of voxels",
            expected="voxels in the file itself, or in one file beside it",
            fix="save the volume as one .nrrd or .mha file",
        )
    if not found.is_relative_to(folder):
        raise RefusedFile(
            f"{name}: the header points to voxels outside its folder",
            expected="voxels in the file itself, or in one file beside it",
            fix="save the volume as one .nrrd or .mha file",
        )
    if not found.is_file() or found == path.resolve():
        raise RefusedFile(
            f"{name}: the file of voxels that the header names is missing",
            expected="it beside the header",
            fix="copy both files, or save the volume as one .nrrd or .mha file",
            reason="missing_file",
        )
    return found


def _check_lines(header: _Header, name: str) -> None:
    """Refuse what the lines alone tell: encodings, label maps, unknown sides, other scales."""
    fields = header.fields
    if any(re.fullmatch(r"segment\d+_.*", key) for key in fields):
        raise RefusedGrid(
            f"{name}: a segmentation (its header names segments)",
            expected="a CT",
            fix="give it as a mask of its CT, not as a scan",
            reason="not_ct",
        )
    nrrd = header.kind == "NRRD"
    written = fields.get("encoding" if nrrd else "binarydata", "")
    if written.lower() not in (("raw", "gzip", "gz") if nrrd else ("true", "1")):
        raise RefusedFile(
            f"{name}: voxels are written in an encoding we do not read",
            expected="raw or gzip" if nrrd else "BinaryData = True",
            fix="save the volume again, raw or gzip",
        )
    if not _tells_sides(fields, nrrd=nrrd):
        raise RefusedGrid(
            f"{name}: the header does not say which way its axes run",
            expected="NRRD: space LPS, RAS or LAS and space directions; MetaImage: TransformMatrix",
            fix="export the file again with its orientation",
        )
    _check_scale(fields, name)


def _tells_sides(fields: Mapping[str, str], *, nrrd: bool) -> bool:
    """Say whether left and right are known: ITK would assume them."""
    if nrrd:
        return fields.get("space", "").lower() in _SPACES and "space directions" in fields
    return any(key in fields for key in ("transformmatrix", "rotation", "orientation"))


def _check_scale(fields: Mapping[str, str], name: str) -> None:
    """Refuse units other than mm, scales that ITK does not apply, and a named other modality."""
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if units - {"mm", "millimeter", "millimeters", ""}:
        raise RefusedGrid(
            f"{name}: space units are not mm",
            expected='"mm"',
            fix="export the file again in mm",
        )
    slope = fields.get("elementtointensityfunctionslope", "1")
    offset = fields.get("elementtointensityfunctionoffset", "0")
    if _number(slope) != 1.0 or _number(offset) != 0.0:
        raise RefusedGrid(
            f"{name}: the header scales its values, which readers ignore",
            expected="values in HU as stored",
            fix="save the volume again in HU",
            reason="hu_implausible",
        )
    modality = fields.get("modality", "").upper()
    if modality not in ("", "MET_MOD_CT", "MET_MOD_UNKNOWN", "MET_MOD_OTHER"):
        raise RefusedGrid(
            f"{name}: the header says {modality[:12]}",
            expected="MET_MOD_CT",
            fix="leave this file out",
            reason="not_ct",
        )


def _number(text: str) -> float:
    """Read a number; what is none is not-a-number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _pixel_type(reader: Any) -> str:
    """Name the voxel type as SimpleITK does; "" where it is no plain number."""
    sitk = _simpleitk()
    found = reader.GetPixelIDValue()
    return next((kind for kind in _TYPES if found == getattr(sitk, f"sitk{kind}")), "")


def _promised_bytes(reader: Any) -> int:
    """Bytes of all voxels, by the header."""
    itemsize = int(np.dtype(_pixel_type(reader).lower()).itemsize)
    return math.prod(int(n) for n in reader.GetSize()) * itemsize


def _check_image(reader: Any, header: _Header, name: str) -> None:
    """Hold what the header promises against the file before anything is allocated."""
    size = tuple(int(n) for n in reader.GetSize())
    if reader.GetNumberOfComponents() != 1 or not _pixel_type(reader):
        raise RefusedGrid(
            f"{name}: {reader.GetNumberOfComponents()} numbers per voxel, or complex ones",
            expected="one integer or float per voxel (int8 to float64)",
            fix="leave this file out: vectors and layers are no densities",
            reason="unreadable",
        )
    if len(size) != 3:
        raise RefusedGrid(
            f"{name}: {len(size)} axes",
            expected="three",
            fix="split a time series into volumes, or leave this file out",
            reason="not_3d",
        )
    if math.prod(size) > MAX_VOXELS or math.prod(size) < 1:
        raise RefusedGrid(
            f"{name}: the header promises {' x '.join(map(str, size))} voxels",
            expected=f"at most {MAX_VOXELS}",
            fix="leave this file out",
            reason="unreadable",
        )
    check_bytes(_promised_bytes(reader), header.voxel_bytes, packed=header.packed, what=name)


def _check_stream(header: _Header, need: int, name: str) -> None:
    """Unpack once to the checksum: ITK gives noise (MetaImage) or misses a cut end (NRRD)."""
    unpacker = zlib.decompressobj(wbits=47)  # zlib or gzip, by its first bytes
    done = 0
    with open(header.voxels, "rb") as stream:
        stream.seek(header.first)
        piece = b"."
        try:
            while piece and not unpacker.eof and done <= need:
                piece = unpacker.unconsumed_tail or stream.read(_PIECE_BYTES)
                done += len(unpacker.decompress(piece, _PIECE_BYTES))
        except zlib.error:
            done = -1
    if done != need or not unpacker.eof:
        raise RefusedFile(
            f"{name}: the compressed voxels are damaged or too few",
            expected=f"{need} bytes and the right checksum",
            fix="copy or download the file again",
        )


def _world_from_file(reader: Any) -> Matrix:
    """Give (k, j, i, 1) to LPS mm; ITK's axes are (i, j, k) and its world is LPS."""
    columns = np.array(reader.GetDirection()).reshape(3, 3) * np.array(reader.GetSpacing())
    matrix = np.eye(4)
    matrix[:3, :3] = columns[:, ::-1]
    matrix[:3, 3] = reader.GetOrigin()
    matrix[matrix == 0] = 0.0  # no minus zeros: they would print and hash differently
    return matrix
