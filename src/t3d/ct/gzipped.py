"""gzip streams: isal where it is installed, the standard library at half the speed otherwise."""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import IO, Any, cast


def _isal(part: str) -> ModuleType | None:
    """Import one of isal's modules, or say that it is not there."""
    from importlib import import_module

    try:
        return import_module(f"isal.{part}")
    except ImportError:
        return None


def open_packed(raw: IO[bytes]) -> IO[bytes]:
    """Open the decompressed side of a gzip stream; closing it leaves `raw` open.

    Reading raises one of `damage()` where the stream is cut off or damaged.
    """
    igzip: Any = _isal("igzip")
    if igzip is not None:
        return cast(IO[bytes], igzip.open(raw, "rb"))
    import gzip

    return cast(IO[bytes], gzip.open(raw, "rb"))


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
