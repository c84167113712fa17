"""NIfTI files in and out, streamed; the header (`nifti_header.py`) is checked before it is trusted.

Nothing is allocated from a number in a header before it was held against the file. gzip is
recognised by its first bytes, not by the name. Axes are turned once, here: files are RAS
(i, j, k), everything else in this package is LPS (z, y, x).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from t3d.ct import gzipped
from t3d.ct.geometry import (
    Matrix,
    Orientation,
    check_matrix,
    file_view,
    letters,
    nearest_axes,
    ras_from_ijk,
    turn_upright,
)
from t3d.ct.guard import RefusedFile, RefusedGrid, check_bytes, missing_file
from t3d.ct.intensity import Rescale
from t3d.ct.limits import MAX_TRAILING_BYTES, MAX_VOXELS
from t3d.ct.nifti_header import NiftiHeader, header_bytes, read_header
from t3d.ct.slices import PIECE_BYTES, is_upright, oriented_grid, read_whole, slices_a_piece
from t3d.errors import GeometryError
from t3d.types import HeaderOverride, Volume

_PAIR = {".hdr": ".img", ".hdr.gz": ".img.gz"}
_SUFFIXES = (".nii.gz", ".nii", *_PAIR, *_PAIR.values())


class NiftiFile:
    """One open NIfTI file: a checked header and its slices in file order, read once."""

    def __init__(self, stream: IO[bytes], header: NiftiHeader, *, name: str) -> None:
        self.header = header
        self.name = name
        self.world_from_file = header.world_from_file
        self.shape_kji = header.shape_kji
        self.rescale = header.rescale
        orientation, tilt = nearest_axes(header.world_from_file)
        self.orientation: Orientation = orientation
        self.tilt_degrees = tilt
        self.instances: tuple[tuple[int, float], ...] = ()
        self._stream = stream
        self._notes = list(header.notes)
        self._not_finite = 0

    @property
    def steps(self) -> tuple[str, ...]:
        """What reading did and what it did not believe, for `Volume.steps`.

        Complete once the last slab was read: what lies behind the voxels is known then.
        """
        kind = self.header.dtype.newbyteorder("=").name
        scale = self.rescale
        told = f"read NIfTI {kind} {letters(self.orientation)}"
        if (scale.slope, scale.intercept) != (1.0, 0.0):
            told += f", slope {scale.slope:.6g} intercept {scale.intercept:.6g}"
        return (told, *self._notes)

    def slabs(self, num_slices: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (first slice, slices) along the slowest axis until the end of the file.

        The array is a reused buffer (S, J, I) in native byte order: use it before the next one.
        The end of the stream is checked after the last slab.

        Raises:
            RefusedFile: The file ends early or is damaged.
        """
        depth, rows, columns = self.shape_kji
        num_slices = max(1, min(num_slices, depth))
        buffer = np.empty((num_slices, rows, columns), dtype=self.header.dtype)
        flat = memoryview(cast(Any, buffer.reshape(-1).view(np.uint8)))
        swapped = not self.header.dtype.isnative
        native = np.empty(buffer.shape, self.header.dtype.newbyteorder("=")) if swapped else buffer
        for first in range(0, depth, num_slices):
            count = min(num_slices, depth - first)
            self._fill(flat[: count * self.header.plane_bytes])
            if swapped:
                native[:count] = buffer[:count]
            if native.dtype.kind == "f":
                self._not_finite += native[:count].size - np.isfinite(native[:count]).sum()
            yield first, native[:count]
        self._finish()

    def _fill(self, target: memoryview) -> None:
        """Read exactly as many bytes as the target holds."""
        done = 0
        while done < len(target):
            with reading(self.name):
                got = cast(Any, self._stream).readinto(target[done : done + PIECE_BYTES])
            if not got:
                raise RefusedFile(
                    f"{self.name}: the file ends before its last voxel",
                    expected=f"{self.header.total_bytes} bytes of voxels",
                    fix="copy or download the file again",
                )
            done += got

    def _finish(self) -> None:
        """Read on to the end, so that a gzip checksum is really compared; note what was there."""
        piece = bytearray(1 << 16)
        behind = 0
        with reading(self.name):
            while got := cast(Any, self._stream).readinto(piece):
                behind += got
                if behind > MAX_TRAILING_BYTES:
                    raise RefusedFile(
                        f"{self.name}: more than {MAX_TRAILING_BYTES} bytes after the last voxel",
                        expected="a file as long as its header says",
                        fix="export the file again: its header is not that of its content",
                    )
        garbage = getattr(self._stream, "garbage_bytes", 0)
        for count, what in (
            (behind, f"bytes after the last voxel left out ({self.header.plane_bytes} a slice)"),
            (garbage, "bytes after the gzip stream left out"),
            (int(self._not_finite), "voxels are not finite"),
        ):
            if count:
                self._notes.append(f"{count} {what}")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a decompressor raises into a refusal."""
    try:
        yield
    except gzipped.damage() as error:
        raise RefusedFile(
            f"{name}: the compressed stream is damaged ({type(error).__name__})",
            expected="a complete gzip stream with the right checksum",
            fix="copy or download the file again",
        ) from error


@contextmanager
def open_nifti(
    path: str | Path,
    override: HeaderOverride | None = None,
    *,
    labels: bool = False,
    name: str = "",
) -> Iterator[NiftiFile]:
    """Open a .nii, .nii.gz or .hdr/.img file, check its header, stand before its first voxel.

    Args:
        path: The file; of a pair either one.
        override: What a table says where the header lies.
        labels: The file is meant as a label map, which is refused as a CT where the header's
            intent code names it, and may pack better than any CT.
        name: Pseudonymous id for messages and the volume; "" = the file's own name.

    Raises:
        RefusedFile: Missing, empty, cut off, damaged, or no NIfTI at all.
        RefusedGrid: Not 3-D, not a density, or without a place in space.
    """
    path = _swapped(Path(path), {image: header for header, image in _PAIR.items()})
    name = name or volume_id_of(path)
    with ExitStack() as stack:
        stream, stored = open_stream(path, name, stack)
        with reading(name):
            start = read_exactly(stream, 352)
            start += read_exactly(stream, header_bytes(start) - len(start))
        header = read_header(start, name=name, override=override, labels=labels)
        here = len(start)
        if header.detached:
            stream, stored = open_stream(_image_of(path, name), name, stack)
            here = 0
        packed = isinstance(stream, gzipped.Unpacked)
        notes = header.notes
        if packed != path.name.endswith(".gz") and not header.detached:
            notes += (f"{'packed' if packed else 'not packed'}, other than its name says",)
        _check_size(header, stored, name=name, packed=packed, labels=labels)
        with reading(name):
            if here and start[-4]:
                here += _pass_extensions(stream, start, header.offset_bytes, name)
            skip(stream, header.offset_bytes - here)
        yield NiftiFile(stream, replace(header, notes=notes), name=name)


def open_stream(path: Path, name: str, stack: ExitStack) -> tuple[IO[bytes], int]:
    """Open a file, unpacked where its first bytes are gzip's; give the bytes on disk too."""
    if not path.is_file():
        raise missing_file(name, "a .nii, .nii.gz or .hdr/.img file")
    raw: IO[bytes] = stack.enter_context(path.open("rb"))
    packed = raw.read(2) == gzipped.MAGIC
    raw.seek(0)
    stream = stack.enter_context(gzipped.open_packed(raw)) if packed else raw
    return cast(IO[bytes], stream), path.stat().st_size


def _swapped(path: Path, suffixes: dict[str, str]) -> Path:
    """Put another suffix in place of one of these."""
    for old, new in sorted(suffixes.items(), key=lambda pair: -len(pair[0])):
        if path.name.endswith(old):
            return path.with_name(path.name.removesuffix(old) + new)
    return path


def _image_of(header: Path, name: str) -> Path:
    """Find the voxels of a header that lies apart from them, packed or not."""
    stem = volume_id_of(header)
    for suffix in dict.fromkeys(
        (_swapped(header, _PAIR).name.removeprefix(stem), ".img", ".img.gz")
    ):
        image = header.with_name(stem + suffix)
        if image != header and image.is_file():
            return image
    raise RefusedFile(
        f"{name}: a header whose voxels lie in a second file, which is missing",
        expected=".hdr and .img of one name in one folder",
        fix="put the .img beside it, or convert the pair to one .nii.gz file",
    )


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Read that many bytes, or what there is."""
    content = b""
    while len(content) < count:
        got = stream.read(count - len(content))
        if not got:
            break
        content += got
    return content


def skip(stream: IO[bytes], count: int) -> None:
    """Read past that many bytes, piece by piece."""
    while count > 0:
        got = len(stream.read(min(count, PIECE_BYTES)))
        if not got:
            raise EOFError
        count -= got


def _pass_extensions(stream: IO[bytes], start: bytes, offset: int, name: str) -> int:
    """Read past the header's extensions and give how many bytes they took; nothing is kept.

    An extension that claims to reach past the first voxel contradicts `vox_offset`: one of the
    two is wrong, and voxels would be read from the wrong place.
    """
    order = "little" if int.from_bytes(start[:4], "little") in (348, 540) else "big"
    done, room = 0, offset - len(start)
    while room - done >= 16:
        size = int.from_bytes(read_exactly(stream, 8)[:4], cast(Any, order), signed=True)
        done += 8
        if size == 0:
            break  # padding up to vox_offset
        if size < 8 or done - 8 + size > room:
            raise RefusedFile(
                f"{name}: a header extension of {size} bytes where {room - done + 8} are left",
                expected="extensions that end before the first voxel (vox_offset)",
                fix="export the file again, without extensions",
            )
        skip(stream, size - 8)
        done += size - 8
    return done


def _check_size(header: NiftiHeader, stored: int, *, name: str, packed: bool, labels: bool) -> None:
    """Hold the promised size against the file before anything is allocated."""
    if np.prod(np.array(header.shape_kji, dtype=np.float64)) > MAX_VOXELS:
        raise RefusedGrid(
            f"{name}: the header promises {header.shape_kji} voxels",
            expected=f"at most {MAX_VOXELS}",
            fix="leave this file out",
            reason="unreadable",
        )
    need = header.offset_bytes + header.total_bytes
    check_bytes(need, stored, packed=packed, what=name, labels=labels)


def volume_id_of(path: str | Path) -> str:
    """Strip .nii.gz, .nii or the suffix of a pair from a file name, and nothing else."""
    name = Path(path).name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def read(path: str | Path, override: HeaderOverride | None = None) -> Volume:
    """Read a whole NIfTI CT at its own grid, as `slices.read_whole` does.

    Args:
        path: A .nii, .nii.gz or .hdr/.img file.
        override: What a table says where the header lies.

    Raises:
        RefusedFile: Missing, cut off or damaged.
        RefusedGrid: Not a CT volume with a place in space.
    """
    with open_nifti(path, override) as file:
        return read_whole(file)


def read_label(path: str | Path) -> tuple[NDArray[np.uint8], Matrix]:
    """Read a whole label map at its own grid.

    Returns:
        uint8 labels (Z, Y, X) to S, P, L, and world_from_voxel.

    Raises:
        RefusedGrid: Values that are no labels (fractions, below 0 or above 255).
    """
    with open_nifti(path, labels=True) as file:
        shape, matrix = oriented_grid(file)
        labels = np.empty(shape, dtype=np.uint8)
        target = file_view(labels, file.orientation)
        for first, stored in file.slabs(slices_a_piece(file)):
            target[first : first + len(stored)] = as_labels(stored, file)
        if not is_upright(file):
            labels, matrix = turn_upright(labels, matrix, order=0, outside=0, what=file.name)
    return labels, matrix


def as_labels(stored: NDArray[Any], file: NiftiFile) -> NDArray[np.uint8]:
    """Check that stored values are labels; 0.99999 is taken for 1."""
    plain = file.rescale == Rescale()
    if stored.dtype == np.uint8 and plain:
        return stored
    values = stored.astype(np.float64) * file.rescale.slope + file.rescale.intercept
    whole = np.rint(values)
    if not np.abs(values - whole).max() <= 1e-3 or whole.min() < 0 or whole.max() > 255:
        raise RefusedGrid(
            f"{file.name}: values are no labels (fractions, below 0 or above 255)",
            expected="whole numbers from 0 to 255",
            fix="export the label map again with nearest neighbours",
            reason="unreadable",
        )
    return whole.astype(np.uint8)


def write(path: str | Path, voxels_zyx: NDArray[Any], world_from_voxel: Matrix) -> None:
    """Write a CT or a label map; equal input gives equal bytes.

    gzip level 1 with time 0 and no file name inside, where the name ends in .gz. The file is
    written under a temporary name and renamed.

    Args:
        path: Ends in .nii or .nii.gz.
        voxels_zyx: (Z, Y, X), int16 HU or uint8 labels.
        world_from_voxel: (4, 4), (z, y, x, 1) to LPS mm.

    Raises:
        GeometryError: Another type or shape, or a matrix without a place in space.
    """
    if voxels_zyx.ndim != 3 or voxels_zyx.dtype not in (np.int16, np.uint8):
        raise GeometryError(
            f"cannot write an array of {voxels_zyx.dtype} with {voxels_zyx.ndim} axes",
            expected="int16 HU or uint8 labels (Z, Y, X)",
            fix="round and convert first",
        )
    path = Path(path)
    matrix = np.asarray(world_from_voxel, dtype=np.float64)
    check_matrix(matrix, what=volume_id_of(path))
    content = (
        _header_bytes(voxels_zyx, ras_from_ijk(matrix))
        + np.ascontiguousarray(voxels_zyx, dtype=voxels_zyx.dtype.newbyteorder("<")).tobytes()
    )
    if path.name.endswith(".gz"):
        content = gzipped.pack(content)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _header_bytes(voxels: NDArray[Any], affine_ras: Matrix) -> bytes:
    """Make a NIfTI-1 header with sform, and a qform where the axes are square to each other."""
    from nibabel.nifti1 import Nifti1Header

    make: Any = Nifti1Header
    header = make(endianness="<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape[::-1])
    header.set_xyzt_units("mm")
    header.set_sform(affine_ras, 1)
    header.set_qform(affine_ras, 1, strip_shears=True)
    if not np.allclose(header.get_qform(), affine_ras, atol=1e-3):
        header["qform_code"] = 0
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + b"\0\0\0\0"
