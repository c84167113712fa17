"""gzip streams: isal where it is installed, the standard library at half the speed otherwise.

A stream is read to its end so that every member's checksum is compared. Bytes behind the last
complete member that are no gzip at all (a padded download) are left out and counted; a member
that is cut off or damaged is an error.
"""

from __future__ import annotations

import io
import os
import zlib
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, cast

from t3d.ct.limits import BOMB_BYTES, BOMB_RATIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20


def _isal(part: str) -> ModuleType | None:
    """Import one of isal's modules, or say that it is not there."""
    from importlib import import_module

    try:
        return import_module(f"isal.{part}")
    except ImportError:
        return None


def open_packed(raw: IO[bytes]) -> Unpacked:
    """Open the decompressed side of a gzip stream; closing it leaves `raw` open.

    Args:
        raw: Seekable, at its start.

    Reading raises one of `damage()` where the stream is cut off or damaged.
    """
    return Unpacked(raw)


class Unpacked(io.RawIOBase):
    """The decompressed side of a gzip stream, read once from front to back."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self.garbage_bytes = 0  # behind the last member; known once the end was read
        self._raw = raw
        self._inner = _gunzip(raw)
        self._given = 0

    def readable(self) -> bool:
        """Say yes, as `io` asks."""
        return True

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Fill the target as far as one read does; 0 at the end.

        A damaged end is looked at again, member by member: what lies behind the last complete
        member and is no gzip is not the stream's, and is left out.
        """
        try:
            got = cast(Any, self._inner).readinto(target)
        except damage():
            end = _end_of_members(self._raw)
            if self.garbage_bytes or end is None:
                raise
            self.garbage_bytes = self._raw.seek(0, os.SEEK_END) - end
            self._inner = self._again(end)
            got = cast(Any, self._inner).readinto(target)
        self._given += got
        return int(got)

    def _again(self, end: int) -> IO[bytes]:
        """Open the stream as if the file ended there, and move to where we were."""
        inner = _gunzip(cast(IO[bytes], io.BufferedReader(_Head(self._raw, end))))
        left = self._given
        while left:
            left -= len(inner.read(min(left, _PIECE)))
        return inner


class _Head(io.RawIOBase):
    """The first bytes of a file, as if nothing followed."""

    def __init__(self, raw: IO[bytes], end: int) -> None:
        super().__init__()
        raw.seek(0)
        self._raw, self._left = raw, end

    def readable(self) -> bool:
        """Say yes, as `io` asks."""
        return True

    def readinto(self, target: WriteableBuffer, /) -> int:
        """Read no further than the end."""
        view = memoryview(target).cast("B")
        piece = self._raw.read(min(len(view), self._left))
        view[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)


def _gunzip(raw: IO[bytes]) -> IO[bytes]:
    """Open the fastest decompressor there is."""
    igzip: Any = _isal("igzip")
    if igzip is not None:
        return cast(IO[bytes], igzip.open(raw, "rb"))
    import gzip

    return cast(IO[bytes], gzip.open(raw, "rb"))


def _end_of_members(raw: IO[bytes]) -> int | None:
    """Find the byte where complete members end and something else begins; None = damage.

    zlib compares checksum and length of each member itself.
    """
    size = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    allowed = max(BOMB_BYTES, size * BOMB_RATIO)
    end, piece = 0, raw.read(_PIECE)
    while piece.startswith(MAGIC):
        member = zlib.decompressobj(31)
        while piece and not member.eof:
            try:
                allowed -= len(member.decompress(piece, _PIECE))
            except zlib.error:
                return None
            piece = member.unconsumed_tail or (b"" if member.eof else raw.read(_PIECE))
        if not member.eof or allowed < 0:
            return None
        end = raw.tell() - len(member.unused_data)
        piece = member.unused_data
        if len(piece) < len(MAGIC):
            piece += raw.read(_PIECE)
    return end or None


def damage() -> tuple[type[Exception], ...]:
    """What reading a damaged stream raises."""
    isal_zlib: Any = _isal("isal_zlib")
    plain = (EOFError, OSError, zlib.error)
    return plain if isal_zlib is None else (*plain, isal_zlib.error)


def pack(content: bytes) -> bytes:
    """Compress at level 1; no time and no file name inside, so equal input gives equal bytes."""
    isal_zlib: Any = _isal("isal_zlib")
    if isal_zlib is not None:
        return bytes(isal_zlib.compress(content, 1, 31))
    squeezer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return squeezer.compress(content) + squeezer.flush()
