"""The one way in: find out what a file is by its first bytes, and open it as slices.

Names and endings are never believed: a gzip may be called .nii, a DICOM file anything at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from t3d.ct import gzipped
from t3d.ct.guard import RefusedFile, missing_file
from t3d.ct.itk import open_itk
from t3d.ct.nifti import open_nifti
from t3d.ct.npz import is_npz, open_npz
from t3d.ct.slices import Slices, read_whole
from t3d.types import HeaderOverride, Volume

_FIRST_BYTES = 1024
_NIFTI_SIZES = (348, 540)
_SCAN_ENDINGS = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06")  # zip; one without entries
_LOOKS = (  # what files that are no scans begin with, in lower case
    (b"<!doctype html", "an HTML page (an error page saved under the scan's name)"),
    (b"<html", "an HTML page (an error page saved under the scan's name)"),
    (b"<?xml", "an XML file"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself"),
    (b"/annex/objects/", "a git-annex pointer instead of the file itself"),
    (b"../.git/annex/", "a git-annex pointer instead of the file itself"),
    (b"\x89png", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"gif8", "a GIF picture"),
    (b"ii*\0", "a TIFF picture"),
    (b"mm\0*", "a TIFF picture"),
    (b"%pdf", "a PDF document"),
    (b"\x89hdf", "an HDF5 file"),
    (b"\x93numpy", "a NumPy array"),
    (b"bzh", "a bzip2 archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"rar!", "a RAR archive"),
    (b"\xfd7zxz", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"matlab 5.0", "a MATLAB file"),
    (b"{", "a JSON file"),
)


@contextmanager
def open_scan(
    files: Sequence[Path],
    *,
    name: str = "",
    override: HeaderOverride | None = None,
    gaps: str = "refuse",
    kernel: str = "",
    phase: str = "",
    series_number: int | None = None,
) -> Iterator[Slices]:
    """Open the files of one series, whatever their format, and stand before the first voxel.

    Args:
        files: One file (NIfTI, NRRD, MetaImage, DICOM, zip or tar of DICOM), one folder, a
            NIfTI pair, or the many files of one DICOM series.
        name: Pseudonymous id that replaces the file's own name everywhere; "" = file name.
        override: What a table says where the header lies; NIfTI only.
        gaps: DICOM only: what uneven slices lead to, "refuse" or "interpolate".
        kernel: DICOM only: the reconstruction wanted; "" = our rule.
        phase: DICOM only: the phase wanted; "" = our rule.
        series_number: DICOM only: the series wanted; None = our rule.

    Raises:
        RefusedFile: Missing, damaged, of no known format, or a format whose extra is missing.
        RefusedGrid: Readable, but not one 3-D CT volume with a place in space.
    """
    paths = [Path(file) for file in files]
    what = name or (_stem(paths[0]) if len(paths) == 1 else "a series")
    kind, path = _sorted_out(paths, what)
    if override is not None and kind not in ("nifti", "npz"):
        raise RefusedFile(
            f"{what}: a table's header values meet a file that is not NIfTI",
            expected="a HeaderOverride for NIfTI only",
            fix="leave the override out: the file's own header is used",
        )
    with ExitStack() as stack:
        if kind == "nifti":
            yield stack.enter_context(open_nifti(path, override, name=name))
        elif kind == "npz":
            yield stack.enter_context(open_npz(path, override, name=what))
        elif kind == "itk":
            yield stack.enter_context(open_itk(path, name=what))
        else:
            from t3d.ct.dicom import open_dicom
            from t3d.ct.dicom.archive import dicom_files

            # A folder or file may be called by the patient's name: it names nothing here.
            what = name or "scan"
            opened = open_dicom(
                stack.enter_context(dicom_files(paths if len(paths) > 1 else path, name=what)),
                name=what,
                gaps=gaps,
                kernel=kernel,
                phase=phase,
                series_number=series_number,
            )
            yield stack.enter_context(opened)


def read(path: str | Path, override: HeaderOverride | None = None) -> Volume:
    """Read a whole CT at its own grid: int16 HU, axes to Superior, Posterior, Left.

    Args:
        path: A file, a folder or an archive, as `open_scan` takes them.
        override: What a table says where the header lies; NIfTI only.

    Raises:
        RefusedFile: Missing, damaged, or of no known format.
        RefusedGrid: Not one CT volume with a place in space.
    """
    with open_scan((Path(path),), override=override) as slices:
        return read_whole(slices)


def kind_of(path: Path) -> str:
    """Say what a file is by its first bytes: "nifti", "itk", "dicom", "archive" or "" = none.

    Args:
        path: An existing file.

    Source:
        NIfTI-1 and -2 headers; DICOM PS3.10 section 7.1, also without its preamble, which real
        archives leave out; NRRD format; MetaIO documentation; zip and tar.
    """
    start = _first_bytes(path)
    return _kind_of_bytes(_unpacked(path) if start.startswith(gzipped.MAGIC) else start)


def _kind_of_bytes(start: bytes) -> str:
    """Say what the (unpacked) first bytes belong to."""
    sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")}
    if start[344:347] in (b"n+1", b"ni1") or sizes & set(_NIFTI_SIZES):
        return "nifti"
    if start[128:132] == b"DICM" or start[:2] in (b"\2\0", b"\x08\0"):
        return "dicom"
    if start.startswith(b"NRRD") or _is_metaimage(start):
        return "itk"
    if is_npz(start):
        return "npz"
    return "archive" if start.startswith(_ARCHIVES) or start[257:262] == b"ustar" else ""


def _is_metaimage(start: bytes) -> bool:
    """Recognise the `Name = value` lines of a MetaImage."""
    words = start.split(b"=", 1)[0].strip()
    return b"=" in start and words in (b"ObjectType", b"NDims", b"Comment", b"ObjectSubType")


def looks_like(path: Path) -> str:
    """Say in words what a file of no known format begins with; quotes none of its text."""
    start = _first_bytes(path)
    lowered = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "nothing: the file has 0 bytes"
    told = next((words for magic, words in _LOOKS if lowered.startswith(magic)), "")
    if told:
        return told
    if not start.strip(b"\0"):
        return "zeros only"
    if start.startswith(gzipped.MAGIC):
        return "a gzip stream without a scan inside"
    if all(byte in b"\t\r\n\x1b" or byte >= 32 for byte in start):
        return "text"
    return "bytes of no format known here"


def _sorted_out(paths: Sequence[Path], what: str) -> tuple[str, Path]:
    """Find the kind of a series and the file to open (DICOM: any of them)."""
    if len(paths) == 1:
        return _single(paths[0], what)
    headers = [p for p in paths if p.suffix == ".hdr" or p.name.endswith(".hdr.gz")]
    if len(paths) == 2 and len(headers) == 1:
        return _single(headers[0], what)
    if any(path.is_file() and kind_of(path) == "dicom" for path in paths):
        return "dicom", paths[0]
    raise RefusedFile(
        f"{what}: {len(paths)} files, none of them DICOM",
        expected="one file, or the files of one DICOM series",
        fix="give each volume as a series of its own",
    )


def _single(path: Path, what: str) -> tuple[str, Path]:
    """Find the kind of one file or folder."""
    if path.is_dir():
        scans = _volume_files_in(path)
        if len(scans) > 1:
            raise RefusedFile(
                f"{what}: a folder with {len(scans)} volume files and no DICOM",
                expected="one volume, or the DICOM files of one study",
                fix="give one of its files",
            )
        return _single(scans[0], what) if scans else ("dicom", path)
    if not path.is_file():
        raise missing_file(what, "a file or a folder")
    beside = path.with_name(path.name.replace(".img", ".hdr"))
    if ".img" in path.suffixes and beside.is_file():  # voxels of a pair have no first bytes
        path = beside
    kind = kind_of(path)
    if not kind:
        raise RefusedFile(
            f"{what}: looks like {looks_like(path)}",
            expected="NIfTI, DICOM, NRRD or MetaImage, or a zip or tar of DICOM files",
            fix="check what was downloaded or exported, and fetch the file again",
        )
    return ("dicom" if kind == "archive" else kind), path


def _volume_files_in(folder: Path) -> list[Path]:
    """List the NIfTI, NRRD and MetaImage files of a folder that holds no DICOM beside them."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    scans = [path for path in files if path.name.lower().endswith(_SCAN_ENDINGS)]
    others = (path for path in files if path not in scans)
    return [] if any(kind_of(path) == "dicom" for path in others) else scans


def _first_bytes(path: Path) -> bytes:
    """Read the beginning of a file."""
    with open(path, "rb") as stream:
        return stream.read(_FIRST_BYTES)


def _unpacked(path: Path) -> bytes:
    """Read the beginning of a gzip's content; a damaged one is said to be NIfTI, which tells."""
    with open(path, "rb") as raw:
        try:
            with gzipped.open_packed(raw) as stream:
                return cast(bytes, stream.read(_FIRST_BYTES))
        except gzipped.damage():
            return b"\0" * 344 + b"n+1\0"


def _stem(path: Path) -> str:
    """Name a file in messages: up to its first dot, where its ending is one of a scan."""
    return path.name.split(".")[0] if path.name.lower().endswith(_SCAN_ENDINGS) else "scan"
