"""A CT as one array in an .npz file (Rad-ChestCT), streamed; its place in space must be told.

An .npz is a zip of .npy arrays and says nothing of millimetres or sides, so it opens only with a
`HeaderOverride` that does. Nothing in it is unpickled, and nothing is allocated from a number in
a header before it was held against the file.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from t3d.ct.geometry import Matrix, Orientation, check_matrix, letters, nearest_axes, reverse_axes
from t3d.ct.guard import RefusedFile, RefusedGrid, missing_file
from t3d.ct.intensity import Rescale
from t3d.ct.limits import BOMB_BYTES, BOMB_RATIO, MAX_DEFLATE_RATIO, MAX_VOXELS
from t3d.types import HeaderOverride

ARRAY = "ct"
_ENTRY = 30  # bytes of a zip entry before its name
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


def is_npz(start: bytes) -> bool:
    """Say whether the first bytes of a file are those of a zip whose first entry is an array.

    Args:
        start: At least the first 100 bytes.
    """
    length = int.from_bytes(start[26:28], "little")
    return start[:4] == b"PK\x03\x04" and start[_ENTRY : _ENTRY + length].endswith(b".npy")


class NpzFile:
    """One open array in file order: its slices, read once."""

    def __init__(
        self,
        stream: IO[bytes],
        dtype: np.dtype[Any],
        shape_kji: tuple[int, int, int],
        world_from_file: Matrix,
        *,
        name: str,
        rescale: Rescale,
    ) -> None:
        self.name = name
        self.shape_kji = shape_kji
        self.world_from_file = world_from_file
        orientation, tilt = nearest_axes(world_from_file)
        self.orientation: Orientation = orientation
        self.tilt_degrees = tilt
        self.rescale = rescale
        self.instances: tuple[tuple[int, float], ...] = ()
        native = dtype.newbyteorder("=").name
        self.steps: tuple[str, ...] = (
            f"read NPZ {native} {letters(orientation)}, place in space by table",
        )
        self._stream = stream
        self._dtype = dtype

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first slice, slices (S, J, I)) along the slowest axis, in native byte order.

        Raises:
            RefusedFile: The array ends early, goes on too long, or its checksum is wrong.
        """
        depth, rows, columns = self.shape_kji
        plane_bytes = rows * columns * self._dtype.itemsize
        for first in range(0, depth, num_slices):
            count = min(num_slices, depth - first)
            content = bytearray(count * plane_bytes)
            view = memoryview(content)
            with _reading(self.name):
                while view:
                    got = cast(Any, self._stream).readinto(view)
                    if not got:
                        raise EOFError
                    view = view[got:]
            slab = np.frombuffer(content, dtype=self._dtype).reshape(count, rows, columns)
            yield first, slab.astype(self._dtype.newbyteorder("="), copy=False)
        with _reading(self.name):
            if self._stream.read(1):  # zipfile compares the checksum where the entry ends
                raise EOFError


@contextmanager
def open_npz(
    path: str | Path, override: HeaderOverride | None, *, name: str = ""
) -> Iterator[NpzFile]:
    """Open the array `ct` of an .npz file and stand before its first voxel.

    Args:
        path: The file.
        override: Must state `affine`: from array index to RAS mm, where (i, j, k) are the last,
            middle and first axis of the array. Slope and intercept default to 1 and 0.
        name: Pseudonymous id for messages; "" = the file name without its ending.

    Raises:
        RefusedFile: Missing, damaged, without that array, or one that needs unpickling.
        RefusedGrid: Not 3-D, too large, or without a place in space.

    Source:
        numpy.lib.format, NEP 1.
    """
    path = Path(path)
    name = name or path.name.removesuffix(".npz")
    if override is None or override.affine is None:
        raise RefusedGrid(
            f"{name}: an .npz array, which says nothing of millimetres and sides",
            expected="a source that states them (rad_chestct does)",
            fix="open it through its source, or save it as NIfTI with its affine",
        )
    if not path.is_file():
        raise missing_file(name, f"an .npz file with an array '{ARRAY}'")
    with ExitStack() as stack:
        with _reading(name):
            archive = stack.enter_context(zipfile.ZipFile(path))
            entry = _entry(archive, name)
            stream = stack.enter_context(archive.open(entry))
            shape, fortran, dtype = _read_header(stream)
        _check(shape, dtype, entry, name)
        matrix = reverse_axes(np.array(override.affine, dtype=np.float64))
        check_matrix(matrix, what=name)
        a, b, c = shape
        if fortran:  # the first axis of the array is the fastest in the file
            a, b, c = c, b, a
            matrix = matrix[:, [2, 1, 0, 3]]
        slope = 1.0 if override.slope is None else override.slope
        rescale = Rescale(slope, override.intercept or 0.0)
        yield NpzFile(stream, dtype, (a, b, c), matrix, name=name, rescale=rescale)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what zip and numpy raise over damage into a refusal."""
    try:
        yield
    except (*_DAMAGE, ValueError, SyntaxError, tokenize.TokenError) as error:
        raise RefusedFile(
            f"{name}: the .npz file is damaged ({type(error).__name__})",
            expected=f"a complete file with the plain array '{ARRAY}'",
            fix="copy or download the file again",
        ) from error


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Find the array in the archive."""
    for entry in archive.infolist():
        if entry.filename == f"{ARRAY}.npy":
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError
            return entry
    raise RefusedFile(
        f"{name}: none of its {len(archive.infolist())} arrays is called '{ARRAY}'",
        expected=f"an array '{ARRAY}'",
        fix="leave this file out, or save the volume under that name",
    )


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type; numpy evaluates literals only and bounds the length."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError("version")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    return (read or np.lib.format.read_array_header_2_0)(stream)


def _check(shape: tuple[int, ...], dtype: np.dtype[Any], entry: zipfile.ZipInfo, name: str) -> None:
    """Hold what the header promises against the file before anything is allocated."""
    if dtype.kind not in "iuf" or dtype.hasobject:
        raise RefusedFile(
            f"{name}: the array '{ARRAY}' does not hold plain numbers",
            expected="int16 HU",
            fix="leave this file out",
        )
    if len(shape) != 3:
        raise RefusedGrid(
            f"{name}: an array with {len(shape)} axes",
            expected="3 axes",
            fix="leave this file out, or save one volume a file",
            reason="not_3d",
        )
    voxels = float(np.prod(np.array(shape, dtype=np.float64)))
    if voxels > MAX_VOXELS or voxels < 1:
        raise RefusedGrid(
            f"{name}: the header promises {shape} voxels",
            expected=f"1 to {MAX_VOXELS}",
            fix="leave this file out",
            reason="unreadable" if voxels else "too_small",
        )
    need, packed = voxels * dtype.itemsize, max(1, entry.compress_size)
    bomb = need > BOMB_BYTES and need > packed * BOMB_RATIO
    if need > entry.file_size or need > packed * MAX_DEFLATE_RATIO or bomb:
        raise RefusedFile(
            f"{name}: {entry.compress_size} bytes on disk for {need:.0f} bytes of volume",
            expected="a file as long as its header says",
            fix="copy or download the file again",
        )
