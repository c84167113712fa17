"""Folders, lists, DICOMDIR, zip and tar: what is read, what is left out, what is refused."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import warnings
import zipfile
from pathlib import Path

import pydicom
import pytest

from t3d.ct.dicom import archive
from t3d.ct.dicom.archive import dicom_files
from t3d.ct.guard import RefusedFile

DICOM = bytes(128) + b"DICM" + b"\2\0\0\0UL\4\0" + bytes(64)
BARE = b"\x08\0\5\0CS\x0a\0ISO_IR 100" + bytes(200)  # a data set without preamble
SECRET = "DOE_JANE_19500101"


def zip_of(
    path: Path, entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in entries:
            out.writestr(name, content)
    return path


def tar_of(path: Path, entries: list[tuple[tarfile.TarInfo | str, bytes]]) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as out:
        for told, content in entries:
            info = tarfile.TarInfo(told) if isinstance(told, str) else told
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    plain = packed.getvalue()
    path.write_bytes(gzip.compress(plain, mtime=0) if path.suffix == ".gz" else plain)
    return path


def rule_of(path: Path) -> str:
    """The rule or the reason an archive is refused for; nothing of its names is said."""
    with pytest.raises(RefusedFile) as caught, dicom_files(path, name="scan 7"):
        pass
    error = caught.value
    assert error.found.startswith("scan 7: ")
    assert SECRET not in str(error)
    if error.reason != "unsafe_archive":
        return error.reason
    return error.found.split("'")[1]


# ---- folders and lists ---------------------------------------------------------------------


def test_a_folder_is_walked_in_order_and_junk_is_counted(tmp_path: Path) -> None:
    for name in ("b/2", "b/1.dcm", "a/c d/3", "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(DICOM)
    for name in ("b/.DS_Store", "Thumbs.db", "__MACOSX/b/1.dcm", ".git/x", "DICOMDIR"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"junk")
    with dicom_files(tmp_path) as files:
        assert [str(p.relative_to(tmp_path)) for p in files] == ["a/c d/3", "b/1.dcm", "b/2", "z"]
        assert files.left_out == {"hidden or system folder": 2, "hidden or system file": 3}
        assert (len(files), files[0], files[-1]) == (4, tmp_path / "a/c d/3", tmp_path / "z")


def test_linked_folders_are_not_entered_and_dangling_links_are_counted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1").write_bytes(DICOM)
    (tmp_path / "in" / "round").symlink_to(tmp_path)
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "in" / "2").symlink_to(tmp_path / "in" / "1")
    with dicom_files(tmp_path / "in") as files:
        assert [p.name for p in files] == ["1", "2"]
        assert files.left_out == {"linked folder": 1, "special file or dangling link": 1}


def test_a_list_may_hold_files_folders_and_archives(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_bytes(DICOM)
    (tmp_path / "2").write_bytes(DICOM)
    packed = zip_of(tmp_path / "3.zip", [("x", DICOM)])
    with dicom_files([tmp_path / "2", tmp_path / "a", packed]) as files:
        assert [p.name for p in files] == ["2", "1", "0001.dcm"]


def test_a_missing_path_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    assert rule_of(tmp_path / SECRET) == "missing_file"
    (tmp_path / "empty").mkdir()
    assert rule_of(tmp_path / "empty") == "not_dicom"


# ---- DICOMDIR ------------------------------------------------------------------------------


def test_a_dicomdir_gives_its_files_that_are_there_and_counts_the_others(real_data: Path) -> None:
    root = real_data / "dicom" / "tiny_dicomdir"
    with dicom_files(root / "DICOMDIR") as files:
        assert len(files) == 12
        assert all(path.is_relative_to(root) for path in files)
        assert files.left_out == {"missing file": 19}
        assert {pydicom.dcmread(p).Modality for p in files} == {"CT", "CR"}
    with dicom_files(root) as walked:
        assert list(walked) == list(files)


def dicomdir(folder: Path, references: list[list[str]]) -> Path:
    index = pydicom.Dataset()
    index.file_meta = pydicom.dataset.FileMetaDataset()
    index.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.1")
    index.SOPClassUID = "1.2.840.10008.1.3.10"
    index.SOPInstanceUID = "2.25.1"
    index.DirectoryRecordSequence = []
    for parts in references:
        record = pydicom.Dataset()
        record.DirectoryRecordType = "IMAGE"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "..", small letters
            record.ReferencedFileID = parts
        index.DirectoryRecordSequence.append(record)
    pydicom.dcmwrite(folder / "DICOMDIR", index, enforce_file_format=True)
    return folder / "DICOMDIR"


def test_a_dicomdir_is_followed_inside_its_own_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(DICOM)
    (folder / "sub" / "im1").write_bytes(DICOM)
    (folder / "link").symlink_to(tmp_path / "outside")
    outside = ["..", "outside"]
    path = dicomdir(folder, [["SUB", "IM1"], outside, ["link"], ["sub", *outside], ["sub", "no"]])
    with dicom_files(path) as files:
        assert [str(p.relative_to(folder.resolve())) for p in files] == ["sub/im1"]
        assert files.left_out == {"reference out of the folder": 3, "missing file": 1}


def test_a_damaged_dicomdir_is_refused(tmp_path: Path) -> None:
    path = dicomdir(tmp_path, [["A"], ["B"]])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RefusedFile), dicom_files(path):
        pass


# ---- archives ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_members_come_out_whole_under_our_names_and_are_gone_afterwards(
    tmp_path: Path, name: str
) -> None:
    entries = [
        (f"./{SECRET}/b.dcm", DICOM + b"b"),
        (f"./{SECRET}/a", BARE),
        ("./__MACOSX/._b.dcm", DICOM),
        ("./notes.txt", b"read me"),
        ("./DICOMDIR", DICOM),
        ("./nothing", b""),
    ]
    path = (zip_of if name == "x.zip" else tar_of)(tmp_path / name, list(entries))
    with dicom_files(path, scratch=tmp_path) as files:
        assert [p.name for p in files] == ["0001.dcm", "0002.dcm"]
        assert [p.read_bytes() for p in files] == [DICOM + b"b", BARE]
        assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
        assert files.left_out == {"hidden, system or index file": 2, "file that is no DICOM": 2}
        kept = files[0]
    assert not kept.parent.exists()


def test_nothing_is_left_behind_when_an_archive_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", [("1", DICOM), ("inner.zip", b"PK\3\4" + bytes(200))])
    with pytest.raises(RefusedFile, match="entry 2"), dicom_files(path, scratch=tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (f"../{SECRET}", "traversal"),
        (f"a\\..\\..\\{SECRET}", "traversal"),
        (f"/{SECRET}", "absolute"),
        (f"\\{SECRET}", "absolute"),
        (f"c:{SECRET}", "drive"),
        (SECRET + "n" * 300, "long name"),
        ("/".join([SECRET] * 300), "long name"),
    ],
)
@pytest.mark.parametrize("kind", ["x.zip", "x.tar.gz"])
def test_a_name_that_leads_out_is_refused_and_not_quoted(
    tmp_path: Path, kind: str, name: str, rule: str
) -> None:
    make = zip_of if kind == "x.zip" else tar_of
    assert rule_of(make(tmp_path / kind, [("ok", DICOM), (name, DICOM)])) == rule


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.FIFOTYPE, "special"),
        (tarfile.CHRTYPE, "special"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes, rule: str) -> None:
    told = tarfile.TarInfo(SECRET)
    told.type, told.linkname = kind, "/etc/passwd"
    assert rule_of(tar_of(tmp_path / "x.tar.gz", [("ok", DICOM), (told, b"")])) == rule


def test_a_name_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    assert rule_of(tar_of(tmp_path / "x.tar", [("1", DICOM), ("1", DICOM)])) == "duplicate"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_in_another_way_than_deflate_is_refused(tmp_path: Path, method: int) -> None:
    assert rule_of(zip_of(tmp_path / "x.zip", [("1", DICOM)], method)) == "method"


@pytest.mark.parametrize(
    "inner", [b"PK\3\4", b"\x1f\x8b\x08", b"BZh9", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ"]
)
def test_an_archive_in_an_archive_is_refused(tmp_path: Path, inner: bytes) -> None:
    entries = [("1", DICOM), ("2", inner + bytes(300))]
    assert rule_of(zip_of(tmp_path / "x.zip", entries)) == "nested"


def test_a_dicom_file_whose_preamble_looks_like_a_zip_is_a_dicom_file(tmp_path: Path) -> None:
    two_faced = b"PK\3\4" + DICOM[4:]
    with dicom_files(zip_of(tmp_path / "x.zip", [("1", two_faced)])) as files:
        assert files[0].read_bytes() == two_faced


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "x.zip", [(str(i), DICOM) for i in range(11)])
    with dicom_files(path) as files:
        assert len(files) == 11
    monkeypatch.setattr(archive, "MAX_ENTRIES", 10)
    assert rule_of(path) == "entries"


def test_bytes_are_counted_while_they_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = [("1", DICOM + bytes(40 << 20))]
    for path in (zip_of(tmp_path / "x.zip", zeros), tar_of(tmp_path / "x.tar.gz", list(zeros))):
        assert rule_of(path) == "ratio"
    plain = tar_of(tmp_path / "x.tar", list(zeros))
    with dicom_files(plain) as files:
        assert files[0].stat().st_size == len(zeros[0][1])
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1 << 20)
    assert rule_of(plain) == "bytes"


def test_many_small_members_are_held_to_the_ratio_together(tmp_path: Path) -> None:
    part = DICOM + bytes(2 << 20)
    assert rule_of(zip_of(tmp_path / "x.zip", [(str(i), part) for i in range(20)])) == "ratio"


def test_endless_headers_of_a_tar_are_refused(tmp_path: Path) -> None:
    told = tarfile.TarInfo("1")
    told.pax_headers = {"comment": "x" * (3 << 20)}
    assert rule_of(tar_of(tmp_path / "x.tar.gz", [("0", DICOM), (told, DICOM)])) == "headers"


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_an_archive_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    noise = bytes((i * 7919) % 251 for i in range(3000))
    entries = [(str(i), DICOM + noise) for i in range(3)]
    whole = (zip_of if name == "x.zip" else tar_of)(tmp_path / name, list(entries)).read_bytes()
    content = len(whole.rstrip(b"\0"))  # a tar may be cut in the zeros behind its last member
    cut = tmp_path / f"cut-{name}"
    for length in {content * k // 12 for k in range(1, 12)} | {content - 1}:
        cut.write_bytes(whole[:length])
        assert rule_of(cut) in ("unreadable", "not_dicom"), length


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_its_end(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar", [(str(i), DICOM) for i in range(3)])
    raw = bytearray(path.read_bytes())
    raw[1024 + 148] ^= 0xFF  # the checksum in the second member's header
    path.write_bytes(bytes(raw))
    with tarfile.open(path, mode="r|") as lenient:
        assert len(list(lenient)) == 1  # tarfile says nothing
    assert rule_of(path) == "unreadable"


def test_a_changed_byte_in_a_tar_gz_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar.gz", [("1", DICOM), ("2", DICOM)])
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(bytes(raw))
    assert rule_of(path) == "unreadable"


def test_a_full_disk_is_no_damage_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_of(tmp_path / "x.zip", [("1", DICOM)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive._Unpacking, "count", full)
    with pytest.raises(OSError, match="No space left"), dicom_files(path):
        pass
