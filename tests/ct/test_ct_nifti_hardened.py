"""NIfTI from strangers: pairs, extensions, intents, contradictions, what is recorded of them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from t3d.ct import nifti, nifti_header
from t3d.ct.geometry import ras_from_ijk
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.limits import MAX_TRAILING_BYTES

WORLD = np.array([[0, 0, 0.7, -10], [0, 0.8, 0, -20], [2.5, 0, 0, 30], [0, 0, 0, 1.0]])
RAS = np.array([[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])


def some_voxels() -> NDArray[np.int16]:
    """(Z, Y, X) = (9, 10, 11), every voxel another value."""
    return np.arange(990, dtype=np.int16).reshape(9, 10, 11)


def plain(tmp_path: Path) -> bytearray:
    """The bytes of a good .nii file."""
    nifti.write(tmp_path / "good.nii", some_voxels(), WORLD)
    return bytearray((tmp_path / "good.nii").read_bytes())


def put(path: Path, content: bytes | bytearray) -> Path:
    path.write_bytes(content)
    return path


def pair(folder: Path, header: str, image: str) -> None:
    """Write a .hdr and an .img with nibabel; names that end in .gz are packed."""
    made = nib.Nifti1Pair(some_voxels().transpose(), RAS)
    nib.save(made, folder / "pair.hdr")
    for plain_name, name in (("pair.hdr", header), ("pair.img", image)):
        content = (folder / plain_name).read_bytes()
        (folder / plain_name).unlink()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


# ---- pairs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "image"),
    [("s.hdr", "s.img"), ("s.hdr.gz", "s.img.gz"), ("s.hdr", "s.img.gz"), ("s.hdr.gz", "s.img")],
)
def test_a_pair_is_opened_by_its_header(tmp_path: Path, header: str, image: str) -> None:
    pair(tmp_path, header, image)
    volume = nifti.read(tmp_path / header)
    assert volume.volume_id == "s"
    assert np.array_equal(volume.voxels, some_voxels())
    assert volume.world_from_voxel == pytest.approx(WORLD, abs=1e-4)


def test_a_pair_is_opened_by_its_image_too(tmp_path: Path) -> None:
    pair(tmp_path, "s.hdr", "s.img")
    assert np.array_equal(nifti.read(tmp_path / "s.img").voxels, some_voxels())


def test_both_files_of_a_pair_are_checked(tmp_path: Path) -> None:
    pair(tmp_path, "s.hdr", "s.img")
    image = (tmp_path / "s.img").read_bytes()
    put(tmp_path / "s.img", image[:-1])
    with pytest.raises(RefusedFile, match=r"1979 bytes on disk for 1980"):
        nifti.read(tmp_path / "s.hdr")
    put(tmp_path / "s.img", gzip.compress(image)[:-4])
    with pytest.raises(RefusedFile, match="damaged"):
        nifti.read(tmp_path / "s.hdr")
    (tmp_path / "s.img").unlink()
    with pytest.raises(RefusedFile, match="second file"):
        nifti.read(tmp_path / "s.hdr")


# ---- extensions ------------------------------------------------------------------------------


def with_extensions(raw: bytes, offset: int, *sizes: int, order: str = "<") -> bytes:
    """Put extensions that claim these sizes between header and voxels."""
    head = bytearray(raw[:352])
    struct.pack_into("<f", head, 108, float(offset))
    head[348] = 1
    body = b"".join(
        struct.pack(f"{order}2i", size, 6) + b"\1" * max(0, min(size, 4096) - 8) for size in sizes
    )
    return bytes(head) + body.ljust(offset - 352, b"\0")[: offset - 352] + raw[352:]


@pytest.mark.parametrize("sizes", [(16,), (32, 16), (4096,), (16, 16, 0)])
def test_extensions_are_passed_over(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    content = with_extensions(bytes(plain(tmp_path)), 352 + 4096, *sizes)
    for name, packed in (("e.nii", content), ("e.nii.gz", gzip.compress(content))):
        path = put(tmp_path / name, packed)
        assert np.array_equal(nifti.read(path).voxels, some_voxels())


@pytest.mark.parametrize("sizes", [(48,), (16, 32), (2**31 - 16,), (4,), (-16,)])
def test_an_extension_that_reaches_past_the_first_voxel_is_refused(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    content = with_extensions(bytes(plain(tmp_path)), 352 + 32, *sizes)
    with pytest.raises(RefusedFile, match=f"extension of {sizes[-1]} bytes"):
        nifti.read(put(tmp_path / "e.nii", content))


# ---- intents ---------------------------------------------------------------------------------


def test_a_label_map_by_its_intent_is_no_ct_but_a_label_map(tmp_path: Path) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 68, 1002)
    nifti.write(tmp_path / "l.nii", (some_voxels() % 3).astype(np.uint8), WORLD)
    label = bytearray((tmp_path / "l.nii").read_bytes())
    struct.pack_into("<h", label, 68, 1002)
    with pytest.raises(RefusedGrid, match="1002 says a label map") as caught:
        nifti.read(put(tmp_path / "v.nii", raw))
    assert caught.value.reason == "hu_implausible"
    labels, _ = nifti.read_label(put(tmp_path / "l.nii", label))
    assert np.array_equal(labels, some_voxels() % 3)


@pytest.mark.parametrize(
    ("code", "word", "reason"),
    [
        (3006, "CIFTI", "not_3d"),
        (2001, "time series", "not_3d"),
        (3, "statistical", "hu_implausible"),
        (1007, "vector", "hu_implausible"),
        (2003, "colours", "hu_implausible"),
    ],
)
def test_what_the_header_itself_calls_no_density_is_refused(
    tmp_path: Path, code: int, word: str, reason: str
) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 68, code)
    with pytest.raises(RefusedGrid, match=word) as caught:
        nifti.read(put(tmp_path / "v.nii", raw))
    assert caught.value.reason == reason
    with pytest.raises(RefusedGrid, match=word):
        nifti.read_label(tmp_path / "v.nii")


@pytest.mark.parametrize("code", [0, 1001, 1011, 77])
def test_intents_that_say_nothing_are_no_reason_to_refuse(tmp_path: Path, code: int) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 68, code)
    assert np.array_equal(nifti.read(put(tmp_path / "v.nii", raw)).voxels, some_voxels())


# ---- geometry that contradicts itself ------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        (0.0,) * 12,
        (-0.7, 0, 0, 10, 0, -0.8, 0, 20, 0, 0, 0, 30),  # an axis without length
        (-0.7, 0, 0, 10, 0, -0.8, -0.8, 20, 0, 0, 0, 30),  # three axes in one plane
    ],
)
def test_an_sform_that_spans_no_space_gives_way_to_the_qform(
    tmp_path: Path, rows: tuple[float, ...]
) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<12f", raw, 280, *rows)
    volume = nifti.read(put(tmp_path / "v.nii", raw))
    assert volume.world_from_voxel == pytest.approx(WORLD, abs=1e-4)
    assert "the sform spans no space, the qform is used" in volume.steps
    struct.pack_into("<h", raw, 252, 0)
    with pytest.raises(RefusedGrid):
        nifti.read(put(tmp_path / "v.nii", raw))


@pytest.mark.parametrize(("qfac", "mirrored"), [(0.0, False), (1.0, False), (-1.0, True)])
def test_only_the_sign_of_pixdim_0_mirrors(tmp_path: Path, qfac: float, mirrored: bool) -> None:
    """NIfTI-1 standard, method 2: the third column is multiplied by qfac, 0 counts as 1."""
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 254, 0)
    struct.pack_into("<4f", raw, 76, qfac, -0.7, 0.8, 2.5)
    struct.pack_into("<6f", raw, 256, 0.0, 0.0, 1.0, 10.0, 20.0, 30.0)
    volume = nifti.read(put(tmp_path / "v.nii", raw))
    assert volume.world_from_voxel[2, 0] == pytest.approx(2.5)
    assert volume.world_from_voxel[2, 3] == pytest.approx(30 - 8 * 2.5 if mirrored else 30)
    expected = some_voxels()[::-1] if mirrored else some_voxels()
    assert np.array_equal(volume.voxels, expected)
    assert "pixdim -0.7 taken for its absolute value" in volume.steps


def test_a_pitch_or_place_that_contradicts_the_sform_is_told(tmp_path: Path) -> None:
    raw = plain(tmp_path)
    assert nifti.read(put(tmp_path / "v.nii", raw)).steps == ("read NIfTI int16 LPS",)
    moved = raw.copy()
    struct.pack_into("<f", moved, 268, 12.0)  # qoffset_x: 2 mm off
    told = nifti.read(put(tmp_path / "v.nii", moved)).steps
    assert told[1:] == ("the qform places the voxels elsewhere, the sform is used",)
    struct.pack_into("<3f", raw, 80, 1.0, 1.0, 1.0)
    told = nifti.read(put(tmp_path / "v.nii", raw)).steps
    assert told[1:] == ("pixdim says 1 x 1 x 1 mm, the sform 0.7 x 0.8 x 2.5 mm is used",)


# ---- what lies behind, how it is packed ------------------------------------------------------


def test_bytes_behind_the_voxels_are_counted(tmp_path: Path) -> None:
    raw = bytes(plain(tmp_path))
    for name, content in (
        ("v.nii", raw + b"1234567"),
        ("v.nii.gz", gzip.compress(raw + b"1234567")),
    ):
        steps = nifti.read(put(tmp_path / name, content)).steps
        assert steps[1:] == ("7 bytes after the last voxel left out (220 a slice)",)


def test_too_many_bytes_behind_the_voxels_are_refused_without_being_kept(tmp_path: Path) -> None:
    content = gzip.compress(bytes(plain(tmp_path)) + bytes(MAX_TRAILING_BYTES + 1), 1)
    with pytest.raises(RefusedFile, match="after the last voxel"):
        nifti.read(put(tmp_path / "v.nii.gz", content))


def test_garbage_behind_the_stream_is_counted(tmp_path: Path) -> None:
    content = gzip.compress(bytes(plain(tmp_path))) + b"garbage"
    assert nifti.read(put(tmp_path / "v.nii.gz", content)).steps[1:] == (
        "7 bytes after the gzip stream left out",
    )


def test_a_name_that_lies_about_packing_is_told(tmp_path: Path) -> None:
    raw = bytes(plain(tmp_path))
    assert "not packed" in nifti.read(put(tmp_path / "v.nii.gz", raw)).steps[1]
    assert nifti.read(put(tmp_path / "v.nii", gzip.compress(raw))).steps[1].startswith("packed")


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    voxels = some_voxels().astype(np.float32)
    voxels[0, 0, :3] = (np.nan, np.inf, -np.inf)
    nib.save(nib.Nifti1Image(voxels.transpose(), RAS), tmp_path / "v.nii.gz")
    volume = nifti.read(tmp_path / "v.nii.gz")
    assert volume.voxels[0, 0, :4].tolist() == [-1024, 32767, -32768, 3]
    assert "3 voxels are not finite" in volume.steps


def test_a_label_map_may_pack_better_than_any_ct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t3d.ct.guard.BOMB_BYTES", 1 << 16)
    nifti.write(tmp_path / "l.nii.gz", np.zeros((64, 64, 64), np.uint8), WORLD)
    with pytest.raises(RefusedFile, match="bytes on disk"):
        nifti.read(tmp_path / "l.nii.gz")
    labels, _ = nifti.read_label(tmp_path / "l.nii.gz")
    assert labels.shape == (64, 64, 64)


@pytest.mark.parametrize("bits", [0, 64])
def test_bitpix_is_not_believed(tmp_path: Path, bits: int) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 72, bits)
    volume = nifti.read(put(tmp_path / "v.nii", raw))
    assert np.array_equal(volume.voxels, some_voxels())
    assert volume.steps[1] == f"bitpix says {bits}, the datatype 16"


# ---- the record, held against nibabel --------------------------------------------------------

HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
PARTS = {  # what is one field here and several in nibabel
    "quatern": ("quatern_b", "quatern_c", "quatern_d"),
    "qoffset": ("qoffset_x", "qoffset_y", "qoffset_z"),
    "srow": ("srow_x", "srow_y", "srow_z"),
}


@pytest.mark.parametrize("size", HEADERS)
@pytest.mark.parametrize("sign", ["<", ">"])
def test_fields_lie_where_nibabel_has_them(size: int, sign: str) -> None:
    theirs = HEADERS[size](endianness=sign).structarr.dtype
    ours = nifti_header._record(size, sign)
    assert theirs.itemsize == ours.itemsize == size
    for name in ours.names or ():
        dtype, place = ours.fields[name][:2]  # type: ignore[index]
        parts = PARTS.get(name, (name,))
        assert theirs.fields[parts[0]][1] == place
        assert sum(theirs[part].itemsize for part in parts) >= dtype.itemsize
        if name not in ("magic", "xyzt_units"):  # 8 letters there; a byte without sign here
            assert all(theirs[part].base == dtype.base for part in parts)


def test_types_have_the_codes_of_nibabel() -> None:
    from nibabel.nifti1 import data_type_codes

    for code, kind in nifti_header._DTYPES.items():
        assert np.dtype(data_type_codes.dtype[code]) == np.dtype(kind)
    known = {code for code in data_type_codes.value_set() if isinstance(code, int)}
    assert known <= {*nifti_header._DTYPES, *nifti_header._NO_DENSITY, 255}  # 255: "all", no type


@given(
    st.sampled_from(["<", ">"]),
    st.sampled_from([348, 540]),
    st.tuples(*[st.floats(-1, 1, width=32)] * 3),
    st.tuples(*[st.floats(0.25, 10, width=32)] * 3),
    st.sampled_from([-1.0, 1.0]),
)
def test_the_qform_is_that_of_nibabel(
    sign: str,
    size: int,
    quatern: tuple[float, float, float],
    pitch: tuple[float, float, float],
    qfac: float,
) -> None:
    length = max(1.0, float(np.linalg.norm(quatern)) * 1.001)  # a rotation's is at most 1
    header = HEADERS[size](endianness=sign)
    header.set_data_shape((9, 10, 11))
    header["magic"] = b"n+1" if size == 348 else b"n+2"
    header["qform_code"] = 1
    header["pixdim"][:4] = (qfac, *pitch)
    for name, value in zip(PARTS["quatern"], quatern, strict=True):
        header[name] = value / length
    for name, value in zip(PARTS["qoffset"], (10.0, -20.0, 30.0), strict=True):
        header[name] = value
    ours = nifti_header.read_header(header.binaryblock, name="v")
    assert ras_from_ijk(ours.world_from_file) == pytest.approx(header.get_qform(), abs=1e-4)
    assert ours.shape_kji == (11, 10, 9)


def test_the_quaternion_of_the_docstring(tmp_path: Path) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 254, 0)
    struct.pack_into("<4f", raw, 76, 1.0, 2.0, 3.0, 4.0)
    struct.pack_into("<6f", raw, 256, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    with nifti.open_nifti(put(tmp_path / "v.nii", raw)) as file:
        matrix = ras_from_ijk(file.world_from_file)
    assert matrix[:3, :3].tolist() == [[-2, 0, 0], [0, -3, 0], [0, 0, 4]]


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path: Path) -> None:
    raw = plain(tmp_path)
    struct.pack_into("<h", raw, 254, 0)
    struct.pack_into("<3f", raw, 256, 0.9, 0.9, 0.0)
    with pytest.raises(RefusedGrid, match="quaternion"):
        nifti.read(put(tmp_path / "v.nii", raw))
