"""Whatever holds DICOM files, as plain files: folders, lists, DICOMDIR, zip, tar and tar.gz.

Members of an archive go to a temporary folder under names chosen here (0001.dcm, ...); their own
names are checked, never used and never shown, since people put patients' names into them. A
refusal names the rule and the number of the entry. Sizes are counted while bytes arrive: what a
directory says about them may be a lie.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast, overload

from t3d.ct import gzipped
from t3d.ct.guard import RefusedFile
from t3d.ct.limits import (
    FREE_UNPACKED_BYTES,
    MAX_EMPTY_ENTRIES,
    MAX_ENTRIES,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    MAX_TAR_HEADER_BYTES,
    MAX_UNPACKED_BYTES,
    MAX_UNPACKED_RATIO,
)

_PIECE_BYTES = 1 << 20
_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "dicomdir"}
_DICOM_STARTS = (b"\2\0", b"\x08\0", b"\0\2", b"\0\x08")  # a data set without preamble
_ARCHIVE_STARTS = (b"PK\3\4", b"PK\5\6", gzipped.MAGIC, b"BZh", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True)
class DicomFiles(Sequence[Path]):
    """Files that may be DICOM, in a fixed order, and how many others were passed over."""

    paths: tuple[Path, ...]
    left_out: Mapping[str, int]  # reason -> how many

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...

    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        return self.paths[index]


@contextmanager
def dicom_files(
    paths: str | Path | Iterable[Path], *, name: str = "the archive", scratch: Path | None = None
) -> Iterator[DicomFiles]:
    """Give the files behind one path or several; unpacked ones are gone afterwards.

    A folder is walked with all its subfolders, hidden and system files left out. Of a DICOMDIR
    only references that stay in its own folder are followed. Any other file is given as it is.

    Args:
        paths: Folder, DICOMDIR, zip, tar, tar.gz or DICOM file, or several of them.
        name: Names the archive in messages; a pseudonymous id.
        scratch: Where archives are unpacked, into a folder of its own that only this user can
            read; None = the system's place for temporary files.

    Yields:
        The files, sorted by path, members of archives in the archive's order.

    Raises:
        RefusedFile: `missing_file`; `unreadable` (damaged); `unsafe_archive` (a rule is broken:
            traversal, absolute, drive, link, special, long name, duplicate, encrypted, method,
            nested, entries, empty entries, bytes, ratio); `not_dicom` (nothing to read).
    """
    several = (Path(paths),) if isinstance(paths, (str, Path)) else tuple(map(Path, paths))
    left_out: Counter[str] = Counter()
    found: list[Path] = []
    with ExitStack() as stack:
        for path in several:
            kind = _kind(path, name)
            if kind == "folder":
                found += _in_folder(path, left_out)
            elif kind == "dicomdir":
                found += _in_dicomdir(path, name, left_out)
            elif kind == "file":
                found.append(path)
            else:
                made = TemporaryDirectory(prefix="t3d-dicom-", dir=scratch)
                target = Path(stack.enter_context(made))
                found += _unpacked(path, kind, _Unpacking(target, name, path, left_out))
        if not found:
            raise RefusedFile(
                f"{name}: nothing to read; " + (_counted(+left_out) or "it is empty"),
                expected="DICOM files",
                fix="check what was exported",
                reason="not_dicom",
            )
        yield DicomFiles(tuple(found), dict(+left_out))  # + drops zeros


def _counted(left_out: Mapping[str, int]) -> str:
    """Say what was left out."""
    return ", ".join(f"{count} x {reason}" for reason, count in sorted(left_out.items()))


def _kind(path: Path, name: str) -> str:
    """Say what a path is by its first bytes: folder, dicomdir, zip, gzip, tar or file."""
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise RefusedFile(
            f"{name}: a path is neither a file nor a folder",
            expected="a folder, a DICOMDIR, a zip, a tar or DICOM files",
            fix="check the path",
            reason="missing_file",
        )
    with open(path, "rb") as stream:
        start = stream.read(512)
    if start[128:132] == b"DICM":
        return "dicomdir" if path.name.upper() == "DICOMDIR" else "file"
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    if start.startswith(gzipped.MAGIC):
        return "gzip"
    return "tar" if start[257:262] == b"ustar" else "file"


# ---- folders and indexes -------------------------------------------------------------------


def _is_junk(parts: Iterable[str]) -> bool:
    """Say whether a name, or a folder above it, is hidden or a system's own."""
    return any((part.startswith(".") and part != ".") or part.lower() in _JUNK for part in parts)


def _in_folder(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Walk a folder; linked folders are not entered, as they may lead anywhere or round."""
    found = []
    for here, folders, files in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(here, name))]
        left_out["linked folder"] += len(linked)
        hidden = [name for name in folders if _is_junk((name,)) and name not in linked]
        left_out["hidden or system folder"] += len(hidden)
        folders[:] = sorted(set(folders) - set(linked) - set(hidden))
        for name in sorted(files):
            path = Path(here, name)
            if _is_junk((name,)):
                left_out["hidden or system file"] += 1
            elif not path.is_file():
                left_out["special file or dangling link"] += 1
            else:
                found.append(path)
    return sorted(found)


def _in_dicomdir(path: Path, name: str, left_out: Counter[str]) -> list[Path]:
    """Follow the references of a DICOMDIR inside its own folder."""
    from t3d.ct.dicom.files import header_of

    root = path.parent.resolve()
    dataset, _ = header_of(path, ("DirectoryRecordSequence",))
    found = set()
    for parts in _references(dataset, name):
        # Media are written in capitals and often mounted, or copied, in small letters.
        tries = [root.joinpath(*parts), root.joinpath(*(part.lower() for part in parts))]
        inside = [p for p in tries if p.resolve().is_relative_to(root) and ".." not in parts]
        there = [p for p in inside if p.is_file()]
        if not inside:
            left_out["reference out of the folder"] += 1
        elif not there:
            left_out["missing file"] += 1
        else:
            found.add(there[0])
    return sorted(found)


def _references(dataset: Any, name: str) -> list[tuple[str, ...]]:
    """List the file references of a DICOMDIR, each as its path's parts."""
    from t3d.ct.dicom.files import DAMAGE, quiet

    try:
        with quiet():
            return _file_ids(dataset)
    except DAMAGE as error:
        raise RefusedFile(
            f"{name}: the DICOMDIR cannot be read ({type(error).__name__})",
            expected="directory records",
            fix="give the folder itself: it is read without its index",
        ) from None


def _file_ids(dataset: Any) -> list[tuple[str, ...]]:
    """Collect the file identifiers of all directory records."""
    listed = []
    for record in dataset.get("DirectoryRecordSequence") or []:
        told = record.get("ReferencedFileID")
        if told:
            parts = [told] if isinstance(told, str) else told
            listed.append(tuple(str(part).strip() for part in parts))
    return listed


# ---- archives ------------------------------------------------------------------------------

_RULES = {
    "traversal": "its name climbs out of the folder",
    "absolute": "its name begins at the root",
    "drive": "its name begins with a drive letter",
    "long name": f"a part of its name is over {MAX_NAME_BYTES} bytes, or all over {MAX_PATH_BYTES}",
    "link": "it is a link",
    "special": "it is a device, a pipe or a sparse file",
    "duplicate": "its name stands there twice",
    "encrypted": "it is encrypted",
    "method": "it is packed by another method than deflate",
    "nested": "it is an archive itself",
    "entries": f"there are more than {MAX_ENTRIES}",
    "empty entries": f"there are more than {MAX_EMPTY_ENTRIES} files of 0 bytes",
    "bytes": f"more than {MAX_UNPACKED_BYTES >> 20} MiB unpacked",
    "ratio": f"it unpacks over {MAX_UNPACKED_RATIO} to 1",
    "headers": f"over {MAX_TAR_HEADER_BYTES >> 20} MiB of headers between two members",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One entry of an archive, of whatever format."""

    number: int  # from 1
    name: str  # as it stands there
    kind: str  # "file", "folder", "link", "special"
    empty: bool  # says its header
    flaw: str  # a rule of its format that it breaks, or ""
    open: Callable[[], IO[bytes]]


class _Unpacking:
    """Writes members under our names and keeps count of what they cost."""

    def __init__(self, target: Path, name: str, archive: Path, left_out: Counter[str]) -> None:
        self.target = target
        self.name = name
        self.left_out = left_out
        self.written: list[Path] = []
        self._packed_bytes = os.path.getsize(archive)
        self._bytes = 0
        self._empty = 0
        self._names: set[str] = set()

    def refused(self, rule: str, number: int) -> RefusedFile:
        """Make the refusal that names a rule and the entry it stopped at."""
        return RefusedFile(
            f"{self.name}: entry {number} breaks the rule '{rule}': {_RULES[rule]}",
            expected="a zip or tar with DICOM files in folders and nothing else",
            fix="unpack it where that is safe, and give the folder",
            reason="unsafe_archive",
        )

    def count(self, size: int, number: int) -> None:
        """Count bytes as they come out."""
        self._bytes += size
        if self._bytes > MAX_UNPACKED_BYTES:
            raise self.refused("bytes", number)
        if self._bytes > max(FREE_UNPACKED_BYTES, MAX_UNPACKED_RATIO * self._packed_bytes):
            raise self.refused("ratio", number)

    def check(self, entry: _Entry) -> None:
        """Hold one entry to every rule that needs no byte of it."""
        self._empty += entry.kind == "file" and entry.empty
        twice = entry.kind == "file" and entry.name in self._names
        self._names.add(entry.name)
        broken = (
            "entries" if entry.number > MAX_ENTRIES else "",
            "empty entries" if self._empty > MAX_EMPTY_ENTRIES else "",
            entry.flaw,
            _broken_by_name(entry.name),
            entry.kind if entry.kind in ("link", "special") else "",
            "duplicate" if twice else "",
        )
        for rule in filter(None, broken):
            raise self.refused(rule, entry.number)

    def unpack(self, entry: _Entry) -> None:
        """Write one file, if it may be DICOM; read it to its end in any case."""
        if entry.kind != "file":
            return
        with entry.open() as stream:
            piece = stream.read(_PIECE_BYTES)
            keep = self._keep(entry, piece)
            path = self.target / f"{len(self.written) + 1:04d}.dcm"
            with open(path if keep else os.devnull, "wb") as out:
                while piece:
                    self.count(len(piece), entry.number)
                    out.write(piece)
                    piece = stream.read(_PIECE_BYTES)
        if keep:
            self.written.append(path)

    def _keep(self, entry: _Entry, start: bytes) -> bool:
        """Say whether a member is worth keeping; count it where not."""
        if _is_junk(part for part in re.split(r"[/\\]", entry.name) if part):
            self.left_out["hidden, system or index file"] += 1
            return False
        if start[128:132] == b"DICM" or (len(start) > 132 and start[:2] in _DICOM_STARTS):
            return True
        if start.startswith(_ARCHIVE_STARTS) or start[257:262] == b"ustar":
            raise self.refused("nested", entry.number)
        self.left_out["file that is no DICOM"] += 1
        return False


def _broken_by_name(name: str) -> str:
    """Name the rule that an entry's name breaks; "" = none."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        return "traversal"
    if name.startswith(("/", "\\")):
        return "absolute"
    if re.match(r"[A-Za-z]:", name):
        return "drive"
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    return "long name" if max(sizes) > MAX_NAME_BYTES or sum(sizes) > MAX_PATH_BYTES else ""


def _unpacked(path: Path, kind: str, unpacking: _Unpacking) -> list[Path]:
    """Unpack an archive, or refuse it whole: half an archive is half a patient."""
    damage: tuple[type[Exception], ...] = (
        *gzipped.damage(),
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        ValueError,
        NotImplementedError,
    )
    try:
        if kind == "zip":
            _unpack_zip(path, unpacking)
        else:
            _unpack_tar(path, kind, unpacking)
    except damage as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk is full, or the file cannot be read
        raise RefusedFile(
            f"{unpacking.name}: the archive is damaged ({type(error).__name__})",
            expected="an archive whose end and checksums are intact",
            fix="copy or download it again",
        ) from None
    return unpacking.written


def _unpack_zip(path: Path, unpacking: _Unpacking) -> None:
    """Check a zip's whole directory, then unpack its members."""
    with zipfile.ZipFile(path) as archive:
        entries = [_zip_entry(archive, *pair) for pair in enumerate(archive.infolist(), 1)]
        for entry in entries:
            unpacking.check(entry)
        for entry in entries:
            unpacking.unpack(entry)


def _zip_entry(archive: zipfile.ZipFile, number: int, info: zipfile.ZipInfo) -> _Entry:
    """Describe one entry of a zip; the name is the one before zipfile tidied it up."""
    mode = stat.S_IFMT(info.external_attr >> 16)
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    flaw = "encrypted" if info.flag_bits & 1 else ""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        flaw = flaw or "method"
    return _Entry(
        number=number,
        name=info.orig_filename,
        kind="folder" if info.is_dir() else kinds.get(mode, "special"),
        empty=not info.file_size,
        flaw=flaw,
        open=lambda: archive.open(info),
    )


class _Tape:
    """The unpacked side of a tar: read once, forwards, its last content remembered."""

    def __init__(self, stream: IO[bytes], unpacking: _Unpacking) -> None:
        self._stream = stream
        self._unpacking = unpacking
        self._read_bytes = 0
        self.header_room: float = MAX_TAR_HEADER_BYTES
        self.number = 0  # of the entry that is being read
        self.content_end = 0  # one past the last byte that is not zero

    def read(self, size: int) -> bytes:
        """Read the next bytes of the tar."""
        piece = self._stream.read(size)
        content = len(piece.rstrip(b"\0"))
        self.content_end = self._read_bytes + content if content else self.content_end
        self._read_bytes += len(piece)
        self.header_room -= len(piece)
        if self.header_room < 0:
            raise self._unpacking.refused("headers", self.number)
        return piece


def _unpack_tar(path: Path, kind: str, unpacking: _Unpacking) -> None:
    """Check and unpack a tar's members in one pass."""
    with ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        unpacked = stack.enter_context(gzipped.open_packed(raw)) if kind == "gzip" else raw
        tape = _Tape(cast(IO[bytes], unpacked), unpacking)
        # Any: `members` is public but in no type description.
        archive: Any = stack.enter_context(tarfile.open(fileobj=cast(Any, tape), mode="r|"))
        while (member := archive.next()) is not None:
            tape.number += 1
            entry = _tar_entry(archive, tape.number, member)
            unpacking.check(entry)
            tape.header_room = float("inf")
            unpacking.unpack(entry)
            tape.header_room = MAX_TAR_HEADER_BYTES
            archive.members.clear()  # it would keep every header
        end = archive.offset
        tape.header_room = float("inf")
        while piece := tape.read(_PIECE_BYTES):  # only at its end is a gzip found damaged
            unpacking.count(len(piece), tape.number)
        # tarfile takes a damaged header for the end without a word.
        if tape.content_end > end:
            raise tarfile.ReadError("content after the end")


def _tar_entry(archive: tarfile.TarFile, number: int, member: tarfile.TarInfo) -> _Entry:
    """Describe one entry of a tar."""
    is_link = member.issym() or member.islnk()
    is_file = member.isfile() and not member.issparse()
    kind = "file" if is_file else "folder" if member.isdir() else "link" if is_link else "special"
    return _Entry(
        number=number,
        name=member.name,
        kind=kind,
        empty=not member.size,
        flaw="",
        open=lambda: cast(IO[bytes], archive.extractfile(member)),
    )
