"""Stored values of DICOM frames: every transfer syntax, every depth, every lie about both."""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_series import stored_plane
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame

from t3d.ct.dicom import pixels
from t3d.ct.dicom.pixels import described_plane, lossy_note
from t3d.ct.guard import RefusedFile

EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG_LOSSLESS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
SYNTAXES = {  # file -> largest error in HU against ts1 (INDEX.md of the data), lossy
    "LittleEndianImplicit_ts0": (0, False),
    "BigEndianExplicit_ts2": (0, False),
    "DeflatedExplicitVRLittleEndian_ts1.99": (0, False),
    "RLELossless_ts5": (0, False),
    "JPEGProcess14_ts4.57": (0, False),
    "JPEGProcess14SV1_ts4.70": (0, False),
    "JPEGLSLossless_ts4.80": (0, False),
    "JPEG2000LosslessOnly_ts4.90": (0, False),
    "HTJ2KLossless_ts4.201": (0, False),
    "JPEGLSLossy_ts4.81": (1, True),
    "JPEG2000_ts4.91": (5, True),
    "JPEGProcess2_4_ts4.51": (36, True),
    "JPEGProcess6_8_ts4.53": (36, True),
    "JPEGProcess10_12_ts4.55": (36, True),
    "JPEGProcess1_ts4.50": (65, True),
}


def hu_of(dataset: pydicom.Dataset) -> NDArray[np.float64]:
    plane = stored_plane(dataset).astype(np.float64)
    return plane * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def syntax_file(real_data: Path, name: str) -> pydicom.Dataset:
    return pydicom.dcmread(real_data / "dicom" / "one_slice_many_syntaxes" / f"{name}.dcm")


def made(words: Any, bits: int = 12, *, signed: int = 0, **told: Any) -> pydicom.Dataset:
    """A data set with these 16-bit words as its pixels."""
    words = np.atleast_2d(np.asarray(words)).astype(np.int64) & 0xFFFF
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
    dataset.Rows, dataset.Columns = words.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = 16
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = signed
    dataset.RescaleSlope = "1"
    dataset.RescaleIntercept = "-1024"
    dataset.PixelData = words.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in told.items():
        setattr(dataset, keyword, value)
    return dataset


def packed(dataset: pydicom.Dataset, syntax: str, *frames: bytes) -> pydicom.Dataset:
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.PixelData = encapsulate(list(frames))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def rle_of(words: NDArray[np.uint16]) -> bytes:
    """RLE by its definition, without runs: literal pieces of up to 128 bytes."""
    segments = []
    for plane in ((words >> 8).astype(np.uint8).tobytes(), words.astype(np.uint8).tobytes()):
        pieces = (plane[i : i + 128] for i in range(0, len(plane), 128))
        segment = b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
        segments.append(segment + b"\x80" * (len(segment) % 2))  # 0x80: no operation
    starts = [2, 64, 64 + len(segments[0]), *[0] * 13]
    return np.array(starts, "<u4").tobytes() + b"".join(segments)


# ---- transfer syntaxes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", SYNTAXES)
def test_every_transfer_syntax_gives_the_slice_of_the_uncompressed_one(
    real_data: Path, name: str
) -> None:
    expected = hu_of(syntax_file(real_data, "LittleEndianExplicit_ts1"))
    dataset = syntax_file(real_data, name)
    error = np.abs(hu_of(dataset) - expected).max()
    limit, lossy = SYNTAXES[name]
    assert expected.max() == 1378.0
    assert error <= limit
    assert error > 0 if lossy else error == 0
    assert bool(lossy_note(dataset)) is lossy


def test_what_pydicom_decodes_right_we_decode_alike(real_data: Path) -> None:
    names = ("JPEGLSLossless_ts4.80", "JPEG2000_ts4.91", "RLELossless_ts5", "JPEGProcess1_ts4.50")
    for name in names:
        dataset = syntax_file(real_data, name)
        np.testing.assert_array_equal(stored_plane(dataset), dataset.pixel_array)


@pytest.mark.parametrize("suffix", ["201", "202", "203"])
def test_htj2k_is_decoded_under_each_of_its_names(real_data: Path, suffix: str) -> None:
    dataset = syntax_file(real_data, "HTJ2KLossless_ts4.201")
    expected = syntax_file(real_data, "LittleEndianExplicit_ts1").pixel_array
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(f"1.2.840.10008.1.2.4.{suffix}")
    np.testing.assert_array_equal(stored_plane(dataset), expected)
    assert lossy_note(dataset) == ("lossy source: HTJ2K" if suffix == "203" else "")


def test_a_loss_before_this_copy_is_noted_and_a_denied_one_is_not() -> None:
    assert lossy_note(made([1], LossyImageCompression="01")).startswith("lossy source")
    assert lossy_note(made([1], LossyImageCompression="00")) == ""
    assert lossy_note(made([1])) == ""
    lossless = packed(made([1], LossyImageCompression="00"), "1.2.840.10008.1.2.4.91", b"12")
    assert lossy_note(lossless) == ""


@pytest.mark.parametrize(
    ("syntax", "module", "package"),
    [
        (RLE, "rle.rle", "pylibjpeg-rle"),
        (JPEG_LOSSLESS, "gdcm", "python-gdcm"),
        (JPEG_LS, "jpeg_ls", "pyjpegls"),
        (JPEG_2000, "openjpeg", "pylibjpeg-openjpeg"),
    ],
)
def test_a_missing_codec_is_named_with_the_command_that_installs_it(
    real_data: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder = real_data / "dicom" / "one_slice_many_syntaxes"
    files = (pydicom.dcmread(path) for path in sorted(folder.iterdir()))
    dataset = next(d for d in files if d.file_meta.TransferSyntaxUID == syntax)
    with pytest.raises(RefusedFile, match=package) as caught:
        stored_plane(dataset)
    assert caught.value.reason == "missing_extra"
    assert "pip install 't3d[dicom]'" in caught.value.fix


def test_an_unknown_transfer_syntax_is_named_and_a_private_one_is_not_quoted() -> None:
    dataset = made([1])
    for uid, shown in (("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.100"), ("1.9.7", "priv")):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
        with pytest.raises(RefusedFile, match=shown) as caught:
            stored_plane(dataset)
        assert caught.value.reason == "transfer_syntax"
        assert "1.9.7" not in str(caught.value)


def test_pixels_that_are_not_packed_as_the_syntax_says_are_refused() -> None:
    plain = made([1, 2])
    plain.file_meta.TransferSyntaxUID = pydicom.uid.UID(RLE)
    with pytest.raises(RefusedFile, match="says compressed, the pixels are uncompressed"):
        stored_plane(plain)
    hidden = packed(made([1, 2]), EXPLICIT, b"12345678")
    with pytest.raises(RefusedFile, match="says uncompressed, the pixels are compressed"):
        stored_plane(hidden)


def test_without_a_stated_syntax_plain_pixels_are_read_as_they_lie() -> None:
    dataset = made([258, 2])
    del dataset.file_meta.TransferSyntaxUID
    assert stored_plane(dataset).tolist() == [[258, 2]]
    dataset.set_original_encoding(False, False)
    assert stored_plane(dataset).tolist() == [[513, 512]]


# ---- frames that say or hold something else ------------------------------------------------

LOSSLESS = [name for name in SYNTAXES if name.split("_ts")[1] in ("5", "4.57", "4.70", "4.80")]
LOSSLESS += ["JPEG2000LosslessOnly_ts4.90", "HTJ2KLossless_ts4.201"]


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_frame_of_another_size_than_the_header_says_is_refused(
    real_data: Path, name: str
) -> None:
    for rows, columns in ((511, 512), (512, 513), (256, 1024)):
        dataset = syntax_file(real_data, name)
        dataset.Rows, dataset.Columns = rows, columns
        if rows * columns == 512 * 512 and name.startswith("RLE"):
            continue  # RLE knows no rows: 256 x 1024 is what it says
        with pytest.raises(RefusedFile) as caught:
            stored_plane(dataset)
        assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_frame_that_is_cut_off_is_refused(real_data: Path, name: str) -> None:
    dataset = syntax_file(real_data, name)
    frame = bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))
    for length in (len(frame) // 2, len(frame) - 100, 200, 10, 2):
        cut = packed(dataset, dataset.file_meta.TransferSyntaxUID, frame[:length])
        with pytest.raises(RefusedFile):
            stored_plane(cut)


@pytest.mark.parametrize("name", LOSSLESS)
def test_mutated_frames_are_planes_or_refused(real_data: Path, name: str) -> None:
    dataset = syntax_file(real_data, name)
    frame = bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))
    rng = random.Random(8)
    refused = 0
    for _ in range(40):
        bad = bytearray(frame)
        for _ in range(rng.choice((1, 3, 20))):
            bad[rng.randrange(rng.choice((64, 300)))] = rng.randrange(256)
        try:
            plane = stored_plane(packed(dataset, dataset.file_meta.TransferSyntaxUID, bytes(bad)))
        except RefusedFile:
            refused += 1
        else:
            assert plane.shape == (512, 512)
    assert refused > 5


def test_rle_segments_that_end_early_or_lie_nowhere_are_refused() -> None:
    words = np.arange(64, dtype=np.uint16).reshape(8, 8)
    frame = rle_of(words)
    assert stored_plane(packed(made(words), RLE, frame)).tolist() == words.tolist()
    for place, start in ((0, 3), (0, 0), (1, 60), (2, 64), (2, 9999)):
        header = np.frombuffer(frame[:64], "<u4").copy()
        header[place] = start
        with pytest.raises(RefusedFile):
            stored_plane(packed(made(words), RLE, header.tobytes() + frame[64:]))


# ---- length --------------------------------------------------------------------------------


def test_short_pixels_are_refused_and_padding_behind_them_is_not() -> None:
    dataset = made(np.arange(16).reshape(4, 4))
    whole = dataset.PixelData
    for length in (31, 30, 0):
        dataset.PixelData = whole[:length]
        with pytest.raises(RefusedFile, match=f"{length} bytes of pixels") as caught:
            stored_plane(dataset)
        assert "expected: 32 for 1 x 4 x 4 pixels of 16 bits" in str(caught.value)
    dataset.PixelData = whole + bytes(31)
    assert stored_plane(dataset).ravel().tolist() == list(range(16))


def test_room_for_a_whole_further_frame_is_a_header_that_lies() -> None:
    dataset = made(np.arange(16).reshape(4, 4), BitsAllocated=8, BitsStored=8, HighBit=7)
    with pytest.raises(RefusedFile, match="32 bytes of pixels"):
        stored_plane(dataset)


def test_each_frame_of_a_plain_multi_frame_file_is_its_own() -> None:
    dataset = made(np.arange(24).reshape(6, 4), Rows=2, NumberOfFrames="3")
    for index in range(3):
        start = 8 * index
        assert stored_plane(dataset, index).ravel().tolist() == list(range(start, start + 8))
    with pytest.raises(IndexError):
        stored_plane(dataset, 3)


@pytest.mark.parametrize("table", ["basic", "none", "extended"])
def test_each_frame_of_a_packed_multi_frame_file_is_its_own(table: str) -> None:
    words = np.arange(24, dtype=np.uint16).reshape(3, 2, 4)
    frames = [rle_of(plane) for plane in words]
    dataset = packed(made(words[0], NumberOfFrames="3"), RLE, *frames)
    if table == "none":
        dataset.PixelData = encapsulate(frames, has_bot=False)
    elif table == "extended":
        data, offsets, lengths = encapsulate_extended(frames)
        dataset.PixelData = data
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    for index in range(3):
        assert stored_plane(dataset, index).tolist() == words[index].tolist()


def test_fewer_packed_frames_than_promised_are_refused() -> None:
    words = np.arange(8, dtype=np.uint16).reshape(2, 4)
    dataset = packed(made(words, NumberOfFrames="3"), RLE, rle_of(words), rle_of(words))
    with pytest.raises(RefusedFile):
        stored_plane(dataset, 2)


def test_a_plane_beyond_the_limit_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(RefusedFile, match=str(pixels.MAX_PLANE_PIXELS)):
        stored_plane(made([1], Rows=65535, Columns=65535))


# ---- depth and sign ------------------------------------------------------------------------


def twin_signed(word: int, bits: int) -> int:
    """Two's complement of the lowest bits, bit by bit."""
    value = 0
    for bit in range(bits - 1):
        value += ((word >> bit) & 1) << bit
    return value - (((word >> (bits - 1)) & 1) << (bits - 1))


@given(st.integers(2, 16), st.data())
def test_signed_values_come_back_at_every_depth(bits: int, data: Any) -> None:
    half = 1 << (bits - 1)
    values = data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=12))
    plane = stored_plane(made(values, bits, signed=1))
    assert plane.tolist() == [[twin_signed(v & 0xFFFF, bits) for v in values]] == [values]
    assert plane.dtype == np.int16


@given(st.integers(1, 16), st.data())
def test_unsigned_values_come_back_at_every_depth(bits: int, data: Any) -> None:
    values = data.draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=12))
    plane = stored_plane(made(values, bits))
    assert plane.tolist() == [values]
    assert plane.dtype == (np.uint16 if max(values) > 32767 else np.int16)


@given(st.integers(12, 15), st.data())
def test_hu_whose_sign_was_cut_off_come_back(bits: int, data: Any) -> None:
    """Intercept 0 and values of a CT: read unsigned they would lie above 3096."""
    values = data.draw(st.lists(st.integers(-1024, 1500), min_size=1, max_size=12))
    words = [v & ((1 << bits) - 1) for v in values]
    plane = stored_plane(made(words, bits, signed=1, RescaleIntercept="0"))
    assert plane.tolist() == [values]


def test_unsigned_values_flagged_as_signed_are_read_unsigned() -> None:
    """2572 is 1548 HU; as a signed 12-bit number it is -1524, which is -2548 HU: no tissue."""
    words = [[0, 24, 1070, 2047], [2048, 2572, 4095, 1000]]
    assert twin_signed(2572, 12) == -1524
    assert stored_plane(made(words, signed=1)).tolist() == words


def test_the_sign_of_a_fill_is_believed_although_it_is_darker_than_air() -> None:
    words = np.full((10, 10), 1070)
    words[:2] = -2000 & 0xFFF  # 2096: -3024 HU if signed, 1072 HU if not
    plane = stored_plane(made(words, signed=1))
    assert (plane[:2] == -2000).all()
    assert (plane[2:] == 1070).all()
    one = np.full((20, 20), 1070)
    one[0, 0] = 2096
    assert stored_plane(made(one, signed=1))[0, 0] == 2096  # one bone pixel is no fill
    assert stored_plane(made(one, signed=1, PixelPaddingValue=63536))[0, 0] == -2000


def test_padding_beside_unsigned_values_flagged_as_signed_keeps_its_sign() -> None:
    words = [[-2000, 2572, 2573, 1070]]
    assert stored_plane(made(words, signed=1)).tolist() == words


def test_overlays_above_the_stored_bits_are_cleared_declared_or_not() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2600, (32, 32))
    words = values | (rng.integers(0, 2, (32, 32)) << 15)
    assert stored_plane(made(words)).tolist() == values.tolist()
    touching = values | (rng.integers(0, 2, (32, 32)) << 12)
    dataset = made(touching)
    dataset.add_new((0x6000, 0x0102), "US", 12)
    assert stored_plane(dataset).tolist() == values.tolist()


def test_repairs_are_said_and_what_is_right_needs_none() -> None:
    assert described_plane(made([[0x8001, 2]])).notes == (pixels.CLEARED,)
    assert described_plane(made([[2572, 2573]], signed=1)).notes == (pixels.READ_UNSIGNED,)
    for good in (made([[1, 4095]]), made([[-2048, 2047]], signed=1), made([[-9, 9]], 16, signed=1)):
        assert described_plane(good).notes == ()
    assert described_plane(made([[-9]], 12, signed=1, RescaleIntercept="0")).notes == ()


def test_a_bit_depth_that_cuts_the_picture_is_refused() -> None:
    ramp = np.add.outer(np.arange(32) * 30, np.arange(32) * 7)
    with pytest.raises(RefusedFile, match="BitsStored says 8"):
        stored_plane(made(ramp, 8))
    with pytest.raises(RefusedFile, match="BitsStored says 8"):
        stored_plane(made(ramp - 700, 8, signed=1))


def test_declared_padding_outside_the_stored_bits_is_kept() -> None:
    words = [[-2000, 12, 4000, -2000]]
    plane = stored_plane(made(words, PixelPaddingValue=63536))
    assert plane.tolist() == [[63536, 12, 4000, 63536]]
    words = [[-3024, 12, 2040, -3024]]
    assert stored_plane(made(words, signed=1, PixelPaddingValue=-3024)).tolist() == words


def test_values_in_the_upper_bits_are_shifted_down() -> None:
    words = [[0x0010, 0xFFF0, 0x4000]]
    assert stored_plane(made(words, HighBit=15)).tolist() == [[1, 4095, 1024]]
    with pytest.raises(RefusedFile, match="the bits below are in use"):
        stored_plane(made([[0x0011]], HighBit=15))


def test_eight_bits_are_read_signed_or_not_in_either_byte_order() -> None:
    told = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "Columns": 4}
    dataset = made([0, 0], PixelData=bytes([1, 200, 255, 7]), **told)
    dataset["PixelData"].VR = "OB"
    assert stored_plane(dataset).tolist() == [[1, 200, 255, 7]]
    dataset.PixelRepresentation = 1
    assert stored_plane(dataset).tolist() == [[1, -56, -1, 7]]
    dataset.PixelRepresentation = 0
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(BIG_ENDIAN)
    assert stored_plane(dataset).tolist() == [[1, 200, 255, 7]]
    dataset["PixelData"].VR = "OW"  # words of two pixels, their bytes swapped
    assert stored_plane(dataset).tolist() == [[200, 1, 7, 255]]


def test_a_code_stream_that_says_signed_is_believed_over_the_flag() -> None:
    from openjpeg.utils import encode_array

    values = np.arange(-1024, 1024, dtype=np.int16).reshape(32, 64)
    for flag in (0, 1):
        dataset = packed(made(values, 16, signed=flag), JPEG_2000, encode_array(values))
        np.testing.assert_array_equal(stored_plane(dataset), values)


def test_monochrome1_is_not_inverted() -> None:
    dataset = made([1, 2, 3], PhotometricInterpretation="MONOCHROME1")
    assert stored_plane(dataset).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "told",
    [
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
        {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
    ],
)
def test_what_is_no_grey_image_of_whole_bytes_is_not_ct(told: dict[str, Any]) -> None:
    with pytest.raises(RefusedFile) as caught:
        stored_plane(made([1, 2], **told))
    assert caught.value.reason == "not_ct"


def test_floating_point_pixels_are_not_ct() -> None:
    dataset = made([1, 2])
    del dataset.PixelData
    dataset.FloatPixelData = np.ones(2, np.float32).tobytes()
    with pytest.raises(RefusedFile, match="floating point") as caught:
        stored_plane(dataset)
    assert caught.value.reason == "not_ct"


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"]
)
def test_a_missing_attribute_is_named(keyword: str) -> None:
    dataset = made([1, 2])
    delattr(dataset, keyword)
    with pytest.raises(RefusedFile, match=f"slice 7: {keyword}"):
        stored_plane(dataset, what="slice 7")


# ---- real and malformed files --------------------------------------------------------------


def test_the_odd_files_give_what_the_index_says_or_are_refused(real_data: Path) -> None:
    folder = real_data / "dicom" / "odd"
    read: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what pydicom says while reading is another's matter
            dataset = pydicom.dcmread(path, force=True)
        try:
            plane = stored_plane(dataset)
            read[path.stem] = (plane.shape, int(plane.min()), int(plane.max()))
        except RefusedFile as error:
            read[path.stem] = error.reason
    assert read == {
        "CT_small": ((128, 128), 128, 2191),  # HU -896..1167
        "explicit_VR-UN": ((512, 512), -1024, 1186),
        "bad_sequence": ((512, 512), 13, 2267),
        "MR_truncated": "unreadable",
        "badVR": "unreadable",
        "meta_missing_tsyntax": "unreadable",
        "no_meta": "unreadable",
    }


def test_every_frame_of_the_multi_frame_files_is_what_pydicom_gives(real_data: Path) -> None:
    seen = 0
    for path in sorted((real_data / "dicom" / "multiframe").iterdir()):
        dataset = pydicom.dcmread(path)
        expected = pydicom.pixels.pixel_array(dataset, raw=True)
        for index in range(int(dataset.NumberOfFrames)):
            np.testing.assert_array_equal(stored_plane(dataset, index), expected[index])
            seen += 1
    assert seen == 2 + 3 + 10


def test_masks_and_plans_are_no_planes(real_data: Path) -> None:
    folder = real_data / "dicom"
    reasons = set()
    for name in ("rtdose", "rtplan", "rtstruct", "test-SR"):
        with pytest.raises(RefusedFile) as caught:
            stored_plane(pydicom.dcmread(folder / "not_ct_volume" / f"{name}.dcm", force=True))
        reasons.add((name, caught.value.reason))
    for path in (folder / "chest_3slice_with_seg_SEG").iterdir():
        with pytest.raises(RefusedFile) as caught:
            stored_plane(pydicom.dcmread(path))
        assert caught.value.reason == "not_ct"
    assert ("rtdose", "not_ct") in reasons
    assert ("rtplan", "unreadable") in reasons


@pytest.mark.parametrize(
    "case", ["bits_16_overlay", "signed_flag_flipped", "monochrome1", "pixeldata_long"]
)
def test_repairable_pixels_are_those_of_the_intact_series(malformed: Path, case: str) -> None:
    differ = 0
    for path in sorted((malformed / "dicom" / case).iterdir()):
        good = pydicom.dcmread(malformed / "dicom" / "ok_reference" / path.name)
        bad = pydicom.dcmread(path)
        np.testing.assert_array_equal(stored_plane(bad), good.pixel_array)
        differ += bad != good
    assert differ == (1 if case == "pixeldata_long" else 10)


@pytest.mark.parametrize(
    ("case", "refused"),
    [
        ("bits_stored_8", 10),
        ("bits_allocated_8", 10),
        ("pixeldata_short", 1),
        ("pixeldata_missing", 1),
        ("file_cut", 1),
        ("transfer_syntax_unknown", 10),
        ("no_Rows", 10),
        ("no_BitsAllocated", 10),
        ("no_PixelRepresentation", 10),
    ],
)
def test_broken_pixels_are_refused_slice_by_slice(malformed: Path, case: str, refused: int) -> None:
    count = 0
    for path in sorted((malformed / "dicom" / case).iterdir()):
        try:
            stored_plane(pydicom.dcmread(path))
        except RefusedFile:
            count += 1
    assert count == refused
