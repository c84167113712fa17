"""Headers: what is taken from a file, what makes a frame unfit, and what never leaves it."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from made_series import COLUMNS, FIRST, ROWS, SECRETS, made_slice, stored_of, stored_plane, write
from pydicom import Dataset, dcmread
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from t3d.ct.dicom import files, list_series
from t3d.ct.dicom.headers import Header, read_header
from t3d.ct.guard import RefusedFile


def header(folder: Path, dataset: Dataset) -> Header:
    (path,) = write(folder, [dataset])
    return read_header(path)


def enhanced(count: int = 4) -> Dataset:
    """Make an enhanced file: spacing and orientation shared, position and rescale per frame."""
    dataset = made_slice(
        0,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        ConvolutionKernel=None,
        NumberOfFrames=count,
    )
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.7]
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.CTReconstructionSequence = Sequence([Dataset()])
    shared.CTReconstructionSequence[0].ConvolutionKernel = "Br40"
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in range(count):
        one = Dataset()
        one.PlanePositionSequence = Sequence([Dataset()])
        one.PlanePositionSequence[0].ImagePositionPatient = [-10, -20, 30 - 2 * k]  # head to feet
        one.PixelValueTransformationSequence = Sequence([Dataset()])
        one.PixelValueTransformationSequence[0].RescaleSlope = 1
        one.PixelValueTransformationSequence[0].RescaleIntercept = -1024 - k
        one.PixelValueTransformationSequence[0].RescaleType = "HU"
        one.CTImageFrameTypeSequence = Sequence([Dataset()])
        one.CTImageFrameTypeSequence[0].FrameType = ["ORIGINAL", "PRIMARY", "AXIAL", "NONE"]
        frames.append(one)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    dataset.PixelData = b"".join(stored_of(k).tobytes() for k in range(count))
    return dataset


def test_a_classic_file_gives_one_frame_with_its_place_size_and_rescale(tmp_path: Path) -> None:
    found = header(tmp_path, made_slice(2))
    (frame,) = found.frames
    assert (found.modality, found.manufacturer, found.series_number) == ("CT", "MAKER", 3)
    assert (frame.rows, frame.columns, frame.instance) == (ROWS, COLUMNS, 3)
    assert frame.position_mm == (FIRST[0], FIRST[1], FIRST[2] + 4.0)
    assert frame.orientation == (1, 0, 0, 0, 1, 0)
    assert frame.pixel_spacing_mm == (0.5, 0.7)
    assert (frame.slope, frame.intercept, frame.kernel) == (1.0, -1024.0, "B40f")
    assert (frame.problem, frame.notes) == ("", ())


def test_an_enhanced_file_gives_one_frame_per_plane_from_its_functional_groups(
    tmp_path: Path,
) -> None:
    frames = header(tmp_path, enhanced()).frames
    assert [frame.problem for frame in frames] == [""] * 4
    assert [frame.position_mm for frame in frames] == [(-10, -20, 30 - 2 * k) for k in range(4)]
    assert [frame.intercept for frame in frames] == [-1024, -1025, -1026, -1027]
    assert {frame.pixel_spacing_mm for frame in frames} == {(0.5, 0.7)}
    assert {(frame.kernel, frame.image_type[2]) for frame in frames} == {("Br40", "AXIAL")}
    assert [frame.instance for frame in frames] == [1, 2, 3, 4]  # frames are what viewers number


def test_frames_that_disagree_with_their_groups_are_a_problem(tmp_path: Path) -> None:
    dataset = enhanced()
    dataset.NumberOfFrames = 5
    (frame,) = header(tmp_path, dataset).frames
    assert frame.problem == "NumberOfFrames and the functional groups do not agree"
    assert frame.reason == "unreadable"


def test_identifiers_enter_no_repr(tmp_path: Path) -> None:
    found = header(tmp_path, made_slice(0))
    assert found.patient_id == SECRETS["PatientID"]
    assert found.accession == SECRETS["AccessionNumber"]
    shown = repr(found) + repr(found.frames[0]) + repr(found.frames[0].source)
    for secret in (*SECRETS.values(), found.series_uid, found.study_uid, str(tmp_path)):
        assert secret not in shown


def test_the_header_is_read_up_to_the_pixels_and_the_pixels_from_there_on(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [made_slice(4)])
    source = read_header(path).frames[0].source
    assert source.start is not None
    assert path.read_bytes()[source.start :][:4] == b"\xe0\x7f\x10\x00"
    assert "PixelData" not in source.kept
    assert (stored_plane(files.pixels_of(source), 0) == stored_of(4)).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_pixels_are_the_same_whatever_the_encoding_of_the_header(
    syntax: Any, tmp_path: Path
) -> None:
    dataset = made_slice(4)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    source = read_header(tmp_path / "a").frames[0].source
    assert (stored_plane(files.pixels_of(source), 0) == stored_of(4)).all()


@pytest.mark.parametrize(
    ("keyword", "value", "problem", "reason"),
    [
        ("Rows", None, "Rows is missing", "unreadable"),
        ("BitsAllocated", None, "BitsAllocated is missing", "unreadable"),
        ("PixelRepresentation", None, "PixelRepresentation is missing", "unreadable"),
        ("PixelSpacing", None, "PixelSpacing is missing", "bad_affine"),
        ("PixelSpacing", [0, 0.5], "PixelSpacing is 0 x 0.5 mm", "bad_affine"),
        ("PixelSpacing", [0.5], "PixelSpacing is not 2 finite numbers", "bad_affine"),
        ("ImagePositionPatient", None, "ImagePositionPatient is missing", "bad_affine"),
        ("ImagePositionPatient", [1, 2], "ImagePositionPatient is not 3 finite", "bad_affine"),
        ("ImageOrientationPatient", None, "ImageOrientationPatient is missing", "bad_affine"),
        ("ImageOrientationPatient", [2, 0, 0, 0, 2, 0], "lengths 2.000 and 2.000", "bad_affine"),
        ("ImageOrientationPatient", [1, 0, 0, 0.6, 0.8, 0], "product 0.600", "bad_affine"),
        ("RescaleIntercept", None, "RescaleIntercept is missing", "hu_implausible"),
        ("RescaleSlope", 0, "RescaleSlope is 0", "hu_implausible"),
        ("RescaleSlope", -1, "RescaleSlope is -1", "hu_implausible"),
        ("RescaleType", "Z_EFF", "RescaleType is not HU", "hu_implausible"),
    ],
)
def test_what_is_missing_or_no_number_is_named(
    keyword: str, value: Any, problem: str, reason: str, tmp_path: Path
) -> None:
    (frame,) = header(tmp_path, made_slice(0, **{keyword: value})).frames
    assert problem in frame.problem
    assert frame.reason == reason


def test_a_text_where_a_number_belongs_is_a_problem_and_is_not_quoted(tmp_path: Path) -> None:
    dataset = made_slice(0)
    dataset[0x00281052] = DataElement(0x00281052, "LO", "Jane Doe")
    (frame,) = header(tmp_path, dataset).frames
    assert frame.problem == "RescaleIntercept is no number"


def test_a_missing_slope_is_taken_as_one_and_said(tmp_path: Path) -> None:
    (frame,) = header(tmp_path, made_slice(0, RescaleSlope=None)).frames
    assert (frame.slope, frame.problem) == (1.0, "")
    assert frame.notes == ("RescaleSlope missing, taken as 1",)


@pytest.mark.parametrize(
    ("signed", "vr", "value", "limit", "expected"),
    [
        (1, "US", 63536, None, (-2000.0, -2000.0)),  # the wrong VR for a negative number
        (1, "SS", -2000, None, (-2000.0, -2000.0)),
        (0, "SS", -2000, None, (63536.0, 63536.0)),
        (0, "US", 0, None, (0.0, 0.0)),
        (1, "SS", -2000, -1900, (-2000.0, -1900.0)),
        (1, "SS", -1900, -2000, (-2000.0, -1900.0)),
    ],
)
def test_padding_has_the_sign_of_the_pixels(
    signed: int, vr: str, value: int, limit: int | None, expected: Any, tmp_path: Path
) -> None:
    dataset = made_slice(0, PixelRepresentation=signed)
    dataset[0x00280120] = DataElement(0x00280120, vr, value)
    if limit is not None:
        dataset[0x00280121] = DataElement(0x00280121, vr, limit)
    assert header(tmp_path, dataset).frames[0].padding == expected


def test_a_file_without_preamble_is_read_and_said(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [made_slice(3)])
    path.write_bytes(path.read_bytes()[132:])
    (frame,) = read_header(path).frames
    assert "file without its preamble" in frame.notes
    assert (stored_plane(files.pixels_of(frame.source), 0) == stored_of(3)).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable"),
        (b"this is text", "not_dicom"),
        (b"X" * 128 + b"DCIM" + b"\x02\0\0\0", "not_dicom"),
        (b"\0" * 128 + b"DICM" + b"1.2.840.10008.1.2.1.99", "unreadable"),
    ],
)
def test_what_is_no_dicom_file_says_so_without_its_name(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "Doe_Jane.dcm"
    path.write_bytes(content)
    with pytest.raises(RefusedFile) as refusal:
        read_header(path)
    assert refusal.value.reason == reason
    assert "Doe" not in str(refusal.value)


def test_a_dicomdir_is_no_image(real_data: Path) -> None:
    with pytest.raises(RefusedFile, match="DICOMDIR") as refusal:
        read_header(real_data / "dicom" / "tiny_dicomdir" / "DICOMDIR")
    assert refusal.value.reason == "not_dicom"


def test_a_deflated_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = made_slice(0)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "bomb"
    dataset.save_as(path, enforce_file_format=True)
    whole = path.read_bytes()
    start = whole.index(b"1.2.840.10008.1.2.1.99")
    packed = next(i for i in range(start, len(whole)) if _inflates(whole[i:]))
    body = zlib.decompressobj(-15).decompress(whole[packed:])
    bomb = zlib.compressobj(wbits=-15)
    path.write_bytes(whole[:packed] + bomb.compress(body + bytes(8 << 20)) + bomb.flush())
    assert path.stat().st_size < 64 << 10
    monkeypatch.setattr(files, "MAX_INFLATED_BYTES", 4 << 20)
    monkeypatch.setattr("pydicom.filereader.zlib.decompress", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(RefusedFile, match="unpacks to more than 4 MiB"):
        read_header(path)


def _inflates(data: bytes) -> bool:
    """Say whether bytes are a whole raw deflate stream of a data set."""
    try:
        return zlib.decompressobj(-15).decompress(data)[:1] == b"\x08"
    except zlib.error:
        return False


def test_without_pydicom_the_message_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path, [made_slice(0)])
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(RefusedFile, match=r"pip install 't3d\[dicom\]'"):
        list_series(paths)


def test_one_go_and_two_goes_read_the_same(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [made_slice(1)])
    whole = files.read_dataset(path, ("PatientID", "PixelData"), pixels=True)
    assert whole.PatientID == SECRETS["PatientID"]
    assert whole.PixelData == dcmread(path).PixelData
    assert "Modality" not in whole


def test_the_real_enhanced_files_have_their_place_in_the_functional_groups(
    real_data: Path,
) -> None:
    folder = real_data / "dicom" / "multiframe"
    colour = read_header(folder / "eCT_Supplemental.dcm").frames
    assert [frame.position_mm for frame in colour] == [(99.5, -301.5, -159), (99.5, -301.5, -149)]
    assert {(f.intercept, f.pixel_spacing_mm) for f in colour} == {(-1024, (0.388672, 0.388672))}
    legacy = read_header(folder / "legacy_converted_mf_3x24x38.dcm").frames
    assert {(frame.rows, frame.columns) for frame in legacy} == {(38, 24)}
    assert [frame.position_mm[2] for frame in legacy if frame.position_mm] == [
        -177.75,
        -175.25,
        -172.75,
    ]
