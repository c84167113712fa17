"""One door: what a file is, is told by its first bytes; what it is not, in words."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from t3d.ct import door, nifti
from t3d.ct.door import kind_of, looks_like, open_scan, read
from t3d.ct.guard import RefusedFile
from t3d.types import HeaderOverride
from test_orientations import ORDERS, check, write_dicom, write_nifti, write_nrrd

STRAIGHT = ORDERS[0]  # i, j, k along L, P, S


def zipped(folder: Path, path: Path) -> Path:
    """Put a folder's files into a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"export/{file.name}")
    return path


def tarred(folder: Path, path: Path) -> Path:
    """Put a folder's files into a .tar.gz."""
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, "export")
    return path


FORMS = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "folder", "a.zip", "a.tgz")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one phantom in every form that the door takes."""
    place = tmp_path_factory.mktemp("made") / "all"
    place.mkdir()
    for name in ("a.nii", "a.nii.gz"):
        write_nifti(place / name, STRAIGHT)
    for name in ("a.nrrd", "a.mha", "a.mhd"):
        write_nrrd(place / name, STRAIGHT)
    write_dicom(place / "folder", STRAIGHT)
    zipped(place / "folder", place / "a.zip")
    tarred(place / "folder", place / "a.tgz")
    return place


@pytest.fixture
def scans(made: Path, tmp_path: Path) -> dict[str, Path]:
    """Give every form by name, in a folder that a test may change."""
    shutil.copytree(made, tmp_path / "scans")
    return {name: tmp_path / "scans" / name for name in FORMS}


def test_every_form_gives_the_same_scan(scans: dict[str, Path]) -> None:
    reference = read(scans["a.nii"])
    check(reference)
    for name, path in scans.items():
        volume = read(path)
        assert np.array_equal(volume.voxels, reference.voxels), name
        assert volume.world_from_voxel == pytest.approx(reference.world_from_voxel, abs=1e-4), name


def test_names_and_endings_are_not_believed(scans: dict[str, Path], tmp_path: Path) -> None:
    reference = read(scans["a.nii"]).voxels
    wrong = {"a.nii": "x.mha", "a.nii.gz": "x.dcm", "a.nrrd": "x.nii", "a.mha": "no_ending"}
    wrong |= {"a.zip": "x.nii.gz", "a.tgz": "x.zip"}
    for name, other in wrong.items():
        copy = tmp_path / "elsewhere" / other
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(scans[name], copy)
        assert np.array_equal(read(copy).voxels, reference), name
        copy.unlink()


def test_the_files_of_a_series_may_come_as_a_list_in_any_order(scans: dict[str, Path]) -> None:
    files = sorted(scans["folder"].iterdir())
    reference = read(scans["a.nii"]).voxels
    for some in (files, files[::-1]):
        with open_scan(some, name="s1") as slices:
            assert slices.name == "s1"
            got = np.concatenate([slab.copy() for _, slab in slices.slabs(5)])
        assert np.array_equal(slices.rescale.int16(got), reference)


@pytest.mark.parametrize("form", ["a.nii", "a.nrrd", "a.mha", "folder", "a.zip"])
def test_the_given_name_replaces_the_files_own(scans: dict[str, Path], form: str) -> None:
    path = scans[form].rename(scans[form].with_name(f"Doe_Jane_{scans[form].name}"))
    with open_scan((path,), name="v0042") as slices:
        assert slices.name == "v0042"
        assert "Doe" not in str(slices.steps)


@pytest.mark.parametrize("form", ["folder", "a.zip"])
def test_folders_and_archives_name_nothing_by_themselves(scans: dict[str, Path], form: str) -> None:
    path = scans[form].rename(scans[form].with_name("Doe_Jane"))
    assert "Doe" not in read(path).volume_id


@pytest.mark.parametrize("name", ["a.nii", "a.nrrd", "a.mha"])
def test_a_folder_with_one_scan_is_that_scan(
    scans: dict[str, Path], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    shutil.copy(scans[name], folder)
    (folder / "notes.txt").write_text("read me")
    check(read(folder))


def test_a_folder_with_dicom_files_is_a_dicom_folder(scans: dict[str, Path]) -> None:
    shutil.copy(scans["a.nii"], scans["folder"] / "overlay.nii")
    volume = read(scans["folder"])
    check(volume)
    assert "NIfTI" not in str(volume.steps)


def test_a_folder_with_two_scans_or_none_is_refused(scans: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "Doe_Jane"
    folder.mkdir()
    with pytest.raises(RefusedFile, match="nothing to read") as caught:
        read(folder)
    assert "Doe" not in str(caught.value)
    shutil.copy(scans["a.nii"], folder)
    shutil.copy(scans["a.nrrd"], folder)
    with pytest.raises(RefusedFile, match="2 volume files and no DICOM") as caught:
        read(folder)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("form", ["hdr", "img", "both", "folder"])
def test_a_nifti_pair_is_found_from_either_file(
    scans: dict[str, Path], tmp_path: Path, form: str
) -> None:
    import nibabel as nib

    folder = tmp_path / "pair"
    folder.mkdir()
    nib.save(nib.Nifti1Pair.from_image(nib.load(scans["a.nii"])), folder / "a.hdr")
    files = {
        "hdr": (folder / "a.hdr",),
        "img": (folder / "a.img",),
        "both": (folder / "a.img", folder / "a.hdr"),
        "folder": (folder,),
    }[form]
    with open_scan(files) as slices:
        got = np.concatenate([slab.copy() for _, slab in slices.slabs(5)])
    assert np.array_equal(got, read(scans["a.nii"]).voxels)


NO_SCANS = [
    (b"", "0 bytes"),
    (b"<!DOCTYPE html><title>404</title>", "HTML page"),
    (b"\n  <html><body>", "HTML page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
    (b"/annex/objects/MD5E-s1--0.nii.gz", "git-annex pointer"),
    (b"\x89PNG\r\n\x1a\n", "PNG picture"),
    (b"\xff\xd8\xff\xe0", "JPEG picture"),
    (b"%PDF-1.7", "PDF document"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"\x93NUMPY\x01\0", "NumPy array"),
    (b'{"error": "not found"}', "JSON file"),
    (b"BZh91AY", "bzip2 archive"),
    (b"Rar!\x1a\x07", "RAR archive"),
    (bytes(4000), "zeros only"),
    (b"Jane Doe, 1950-01-01", "text"),
    (bytes(range(3, 200)), "no format known"),
    (gzip.compress(b"nothing of use", mtime=0), "gzip stream without a scan"),
    (gzip.compress(gzip.compress(bytes(352), mtime=0), mtime=0), "gzip stream without a scan"),
]


@pytest.mark.parametrize(("content", "told"), NO_SCANS, ids=[told for _, told in NO_SCANS])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.dcm", "a"])
def test_what_is_no_scan_is_named_and_not_quoted(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert kind_of(path) == ""
    assert told in looks_like(path)
    with pytest.raises(RefusedFile, match=told) as caught:
        read(path)
    assert caught.value.reason == "unreadable"
    assert "Doe" not in str(caught.value)


def test_a_missing_path_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RefusedFile) as caught:
        read(tmp_path / "nowhere.nii")
    assert caught.value.reason == "missing_file"


def test_several_files_that_are_no_series_are_refused(scans: dict[str, Path]) -> None:
    with (
        pytest.raises(RefusedFile, match="s1: 2 files, none of them DICOM"),
        open_scan((scans["a.nii"], scans["a.nrrd"]), name="s1"),
    ):
        pass


@pytest.mark.parametrize("form", ["a.nrrd", "a.mha", "folder"])
def test_a_table_may_overrule_only_a_nifti_header(scans: dict[str, Path], form: str) -> None:
    override = HeaderOverride(intercept=-1024.0)
    with pytest.raises(RefusedFile, match="not NIfTI"):
        read(scans[form], override)
    plain, moved = read(scans["a.nii"]), read(scans["a.nii"], override)
    assert np.array_equal(moved.voxels, plain.voxels - 1024)


def test_a_dicom_file_without_preamble_is_known(scans: dict[str, Path], tmp_path: Path) -> None:
    file = sorted(scans["folder"].iterdir())[0]
    bare = tmp_path / "bare"
    bare.write_bytes(file.read_bytes()[132:])
    assert kind_of(bare) == kind_of(file) == "dicom"


def test_dicom_settings_reach_the_dicom_door(
    scans: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from t3d.ct import dicom

    seen = {}
    plain = dicom.open_dicom

    def spy(files, **settings):
        seen.update(settings)
        return plain(files, **settings)

    monkeypatch.setattr(dicom, "open_dicom", spy)
    with open_scan((scans["folder"],), name="s1", gaps="interpolate"):
        pass
    assert seen == {
        "name": "s1",
        "gaps": "interpolate",
        "kernel": "",
        "phase": "",
        "series_number": None,
    }


def test_a_missing_simpleitk_names_the_command(
    scans: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(RefusedFile, match=r"pip install 't3d\[itk\]'"):
        read(scans["a.nrrd"])
    assert read(scans["a.nii"]).voxels.size


def test_the_door_reads_only_the_beginning_to_know_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(bytes(1 << 24)))
    asked = []
    plain = door.gzipped.open_packed

    class Counted(io.RawIOBase):
        def __init__(self, stream):
            self._stream = stream

        def read(self, count=-1):
            asked.append(count)
            return self._stream.read(count)

    monkeypatch.setattr(door.gzipped, "open_packed", lambda raw: Counted(plain(raw)))
    assert kind_of(bomb) == ""
    assert asked
    assert max(asked) <= 1024
    assert min(asked) > 0


def test_a_plain_nifti_is_what_the_nifti_door_reads(scans: dict[str, Path]) -> None:
    assert np.array_equal(read(scans["a.nii.gz"]).voxels, nifti.read(scans["a.nii.gz"]).voxels)
