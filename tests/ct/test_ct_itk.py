"""NRRD and MetaImage: what ITK reads rightly comes through, what it reads wrong does not."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from t3d.ct import itk
from t3d.ct.door import read
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.itk import open_itk

sitk = pytest.importorskip("SimpleITK")

SHAPE = (9, 10, 12)  # z, y, x
SPACING = (0.75, 1.5, 2.5)  # x, y, z
ORIGIN = (-11.0, 22.0, -33.5)
# A rotation about z by 20 degrees with x and y swapped against each other's sign.
TURN = np.array([[np.cos(0.35), np.sin(0.35), 0], [-np.sin(0.35), np.cos(0.35), 0], [0, 0, -1.0]])


def values(dtype: str = "int16") -> np.ndarray:
    """Voxels whose value says where they are: 100 z + 10 y + x - 1000, wrapped for small types."""
    z, y, x = np.indices(SHAPE)
    told = 100 * z + 10 * y + x - 1000
    return (told % 120 if np.dtype(dtype).itemsize == 1 else told).astype(dtype)


def write(path: Path, array: np.ndarray | None = None, *, packed: bool = False) -> Path:
    """Write through SimpleITK, with a direction that is neither identity nor symmetric."""
    image = sitk.GetImageFromArray(values() if array is None else array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(TURN.ravel().tolist())
    sitk.WriteImage(image, str(path), packed)
    return path


def edited(path: Path, old: bytes, new: bytes) -> Path:
    """Change the header of a written file."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


FORMS = [("a.nrrd", False), ("a.nrrd", True), ("a.nhdr", False), ("a.nhdr", True)]
FORMS += [("a.mha", False), ("a.mha", True), ("a.mhd", False), ("a.mhd", True)]


@pytest.mark.parametrize(("name", "packed"), FORMS)
def test_every_form_gives_the_voxels_and_the_matrix(
    tmp_path: Path, name: str, packed: bool
) -> None:
    path = write(tmp_path / name, packed=packed)
    with open_itk(path) as file:
        assert file.shape_kji == SHAPE
        got = np.concatenate([slab for _, slab in file.slabs(4)])
        assert np.array_equal(got, values())
        for k, j, i in ((0, 0, 0), (8, 9, 11), (3, 1, 7)):
            # From the definition: origin + sum over axes of index * spacing * direction column.
            place = np.array(ORIGIN)
            for axis, index in enumerate((i, j, k)):
                place = place + index * SPACING[axis] * TURN[:, axis]
            assert (file.world_from_file @ (k, j, i, 1))[:3] == pytest.approx(place, abs=1e-9)


@pytest.mark.parametrize("count", [1, 4, 9, 100])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_slabs_say_where_they_begin_and_may_be_changed(
    tmp_path: Path, name: str, count: int
) -> None:
    with open_itk(write(tmp_path / name)) as file:
        seen = 0
        for first, slab in file.slabs(count):
            assert first == seen
            assert np.array_equal(slab, values()[first : first + len(slab)])
            slab[:] = 0
            seen += len(slab)
        assert seen == SHAPE[0]


def test_a_plain_metaimage_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = []
    plain = itk.ItkFile._read
    monkeypatch.setattr(
        itk.ItkFile, "_read", lambda self, *box: (boxes.append(box), plain(self, *box))[1]
    )
    with open_itk(write(tmp_path / "a.mha")) as file:
        list(file.slabs(4))
    assert boxes == [((0, 0, k), (12, 10, n)) for k, n in ((0, 4), (4, 4), (8, 1))]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_every_number_type_keeps_its_values(tmp_path: Path, name: str, dtype: str) -> None:
    with open_itk(write(tmp_path / name, values(dtype))) as file:
        got = np.concatenate([slab for _, slab in file.slabs(100)])
    assert got.dtype == np.dtype(dtype)
    assert np.array_equal(got, values(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_wide_types_keep_their_values(tmp_path: Path, dtype: str) -> None:
    array = values(dtype) + (0.25 if dtype.startswith("f") else 0)
    with open_itk(write(tmp_path / "a.nrrd", array)) as file:
        got = np.concatenate([slab for _, slab in file.slabs(100)])
    assert np.array_equal(got, array)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_big_endian_voxels_are_turned(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    content = path.read_bytes()
    old, new = (
        (b"endian: little", b"endian: big")
        if name == "a.nrrd"
        else (b"BinaryDataByteOrderMSB = False", b"BinaryDataByteOrderMSB = True")
    )
    header = content[: -values().nbytes].replace(old, new)
    path.write_bytes(header + values().astype(">i2").tobytes())
    with open_itk(path) as file:
        assert np.array_equal(np.concatenate([slab for _, slab in file.slabs(4)]), values())


def test_padding_stays_what_it_is(tmp_path: Path) -> None:
    array = values()
    array[:, :2] = -3024
    assert read(write(tmp_path / "a.nrrd", array)).voxels.min() == -3024


@pytest.mark.parametrize(("space", "signs"), [("RAS", (-1, -1, 1)), ("LAS", (1, -1, 1))])
def test_other_spaces_become_lps(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    long = {"RAS": b"right-anterior-superior", "LAS": b"left-anterior-superior"}[space]
    for name in (long, space.encode()):
        path = edited(write(tmp_path / "a.nrrd"), b"left-posterior-superior", name)
        with open_itk(path) as file:
            place = (file.world_from_file @ (3, 1, 7, 1))[:3]
        lps = np.array(ORIGIN) + TURN @ (np.array((7, 1, 3)) * SPACING)
        assert place == pytest.approx(np.array(signs) * lps, abs=1e-9)


UNKNOWN_SIDES = [
    ("a.nrrd", b"space: left-posterior-superior", b"space: scanner-xyz"),
    ("a.nrrd", b"space: left-posterior-superior", b"space: 3D-right-handed"),
    ("a.nrrd", b"space: left-posterior-superior\n", b"space dimension: 3\n"),
    ("a.mha", b"TransformMatrix", b"TransformMatrux"),
]


@pytest.mark.parametrize(("name", "old", "new"), UNKNOWN_SIDES)
def test_unknown_sides_are_refused_where_itk_would_assume_them(
    tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    path = edited(write(tmp_path / name), old, new)
    assert sitk.ReadImage(str(path)).GetSize() == SHAPE[::-1]  # ITK takes them for LPS
    with pytest.raises(RefusedGrid, match="which way its axes run") as caught, open_itk(path):
        pass
    assert caught.value.reason == "bad_affine"


REFUSED_LINES = [
    ("a.nrrd", b"kinds: domain", b'space units: "um" "um" "um"\nkinds: domain', "not mm"),
    ("a.nrrd", b"kinds: domain", b"Segment0_ID:=Segment_1\nkinds: domain", "segmentation"),
    ("a.nrrd", b"encoding: raw", b"encoding: ascii", "encoding"),
    ("a.nrrd", b"encoding: raw", b"encoding: bzip2", "encoding"),
    ("a.mha", b"BinaryData = True", b"BinaryData = False", "encoding"),
    ("a.mha", b"DimSize", b"ElementToIntensityFunctionSlope = 2\nDimSize", "scales its values"),
    ("a.mha", b"DimSize", b"ElementToIntensityFunctionOffset = x\nDimSize", "scales its values"),
    ("a.mha", b"DimSize", b"Modality = MET_MOD_MR\nDimSize", "MET_MOD_MR"),
]


@pytest.mark.parametrize(("name", "old", "new", "told"), REFUSED_LINES)
def test_a_line_that_makes_it_no_ct_is_refused_by_name(
    tmp_path: Path, name: str, old: bytes, new: bytes, told: str
) -> None:
    path = edited(write(tmp_path / name), old, new)
    with pytest.raises((RefusedFile, RefusedGrid), match=told) as caught, open_itk(path):
        pass
    assert caught.value.expected
    assert caught.value.fix


def test_vector_layers_complex_numbers_and_other_dimensions_are_refused(tmp_path: Path) -> None:
    layers = np.stack([values(), values()], axis=-1)
    image = sitk.GetImageFromArray(layers, isVector=True)
    sitk.WriteImage(image, str(tmp_path / "layers.nrrd"))
    with (
        pytest.raises(RefusedGrid, match="2 numbers per voxel"),
        open_itk(tmp_path / "layers.nrrd"),
    ):
        pass
    sitk.WriteImage(
        sitk.GetImageFromArray(values().astype(np.complex64)), str(tmp_path / "complex.mha")
    )
    with pytest.raises((RefusedFile, RefusedGrid)), open_itk(tmp_path / "complex.mha"):
        pass
    for count in (2, 4):
        image = sitk.GetImageFromArray(np.zeros((3,) * count, np.int16), isVector=False)
        sitk.WriteImage(image, str(tmp_path / "axes.mha"))
        with pytest.raises(RefusedGrid, match=f"{count} axes") as caught:
            list(open_itk(tmp_path / "axes.mha").__enter__().slabs(1))
        assert caught.value.reason == "not_3d"


def damaged(content: bytes, how: str) -> bytes:
    """Damage the voxels of a file in one of four ways."""
    at = len(content) - 60
    return {
        "cut": content[:-200],
        "cut_checksum": content[:-4],
        "flipped": content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :],
        "bad_checksum": content[:-6] + bytes(byte ^ 0x55 for byte in content[-6:]),
    }[how]


@pytest.mark.parametrize("how", ["cut", "cut_checksum", "flipped", "bad_checksum"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_damaged_packed_stream_is_refused(tmp_path: Path, name: str, how: str) -> None:
    noise = np.random.default_rng(0).normal(0, 200, SHAPE).astype(np.int16)
    path = write(tmp_path / name, noise, packed=True)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(RefusedFile) as caught:
        read(path)
    assert caught.value.reason == "unreadable"


def test_itk_itself_reads_a_damaged_metaimage_without_an_error(tmp_path: Path) -> None:
    # Why `_check_stream` exists; the day this fails it can go.
    noise = np.random.default_rng(0).normal(0, 200, SHAPE).astype(np.int16)
    path = write(tmp_path / "a.mha", noise, packed=True)
    path.write_bytes(damaged(path.read_bytes(), "flipped"))
    assert not np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), noise)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nhdr", "a.mhd"])
def test_a_file_shorter_than_its_header_says_is_refused_before_reading(
    tmp_path: Path, name: str
) -> None:
    path = write(tmp_path / name)
    voxels = path.with_name("a.raw") if name in ("a.nhdr", "a.mhd") else path
    voxels.write_bytes(voxels.read_bytes()[:-2])
    with pytest.raises(RefusedFile, match="2158 bytes on disk for 2160 bytes"), open_itk(path):
        pass


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_promises_too_much_is_refused_without_allocating(
    tmp_path: Path, name: str, packed: bool
) -> None:
    for promise in (b"100000 100000 100000", b"3000 300 300", b"0 10 9", b"-12 10 9"):
        path = edited(write(tmp_path / name, packed=packed), b"12 10 9", promise)
        with pytest.raises((RefusedFile, RefusedGrid)), open_itk(path):
            pass


def test_a_packed_metaimage_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mha", packed=True)
    header = path.read_bytes().split(b"LOCAL\n")[0] + b"LOCAL\n"
    path.write_bytes(header + zlib.compress(bytes(1 << 24)))
    with pytest.raises(RefusedFile, match="damaged"), open_itk(path):
        pass


@pytest.mark.parametrize("place", ["../out.raw", "{out}/out.raw", "sub/../../out.raw", "link.raw"])
@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_voxels_outside_the_folder_are_refused(tmp_path: Path, name: str, place: str) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    path = write(folder / name)
    shutil.move(folder / "a.raw", tmp_path / "out.raw")
    (folder / "link.raw").symlink_to(tmp_path / "out.raw")
    edited(path, b"a.raw", place.format(out=tmp_path).encode())
    with pytest.raises(RefusedFile, match="outside its folder"), open_itk(path):
        pass


@pytest.mark.parametrize("place", ["LIST", "a%03d.raw 1 9 1", "LIST 2"])
@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_lists_of_voxel_files_are_refused(tmp_path: Path, name: str, place: str) -> None:
    path = edited(write(tmp_path / name), b"a.raw", place.encode())
    with pytest.raises(RefusedFile, match="lists several files"), open_itk(path):
        pass


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_a_missing_file_of_voxels_is_missing(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(RefusedFile) as caught, open_itk(path):
        pass
    assert caught.value.reason == "missing_file"


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_500_changed_headers_end_with_a_volume_or_a_reason(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(7)
    sound = write(tmp_path / name).read_bytes()
    length = len(sound) - values().nbytes
    path = tmp_path / f"changed{Path(name).suffix}"
    refused = []
    for _ in range(250):
        content = bytearray(sound)
        for place in rng.integers(0, length, int(rng.integers(1, 4))):
            content[place] = int(rng.choice(list(b"0123456789-. \n:=()aeLR")))
        path.write_bytes(content[: int(rng.integers(length // 2, len(content) + 1))])
        try:
            assert read(path).voxels.size <= 4 * values().size
        except (RefusedFile, RefusedGrid) as error:
            refused.append(error)
    assert len(refused) > 150
    assert all(error.expected and error.fix for error in refused)
    assert not any(str(tmp_path) in str(error) for error in refused)


def test_a_header_without_an_end_is_refused(tmp_path: Path) -> None:
    for name, start in (("a.nrrd", b"NRRD0004\n"), ("a.mha", b"ObjectType = Image\n")):
        path = tmp_path / name
        path.write_bytes(start + b"# filler\n" * 200_000)
        with pytest.raises((RefusedFile, RefusedGrid)):
            read(path)


@pytest.mark.real
def test_the_subsampled_chest_has_the_facts_of_the_index(real_data: Path) -> None:
    with open_itk(real_data / "nrrd" / "CTChest4.nrrd") as file:
        assert file.shape_kji == (34, 128, 128)
        assert np.sign(np.diag(file.world_from_file[:3, 2::-1])).tolist() == [-1, -1, 1]
        spacing = np.linalg.norm(file.world_from_file[:3, :3], axis=0)
        assert spacing == pytest.approx((10, 3.04688, 3.04688), abs=1e-5)
        assert file.steps == ("read NRRD int32 RAS",)
        first = next(file.slabs(1))[1]
        assert first.dtype == np.int32
    volume = read(real_data / "nrrd" / "CTChest4.nrrd")
    assert (volume.voxels.min(), volume.voxels.max()) == (-3024, 3070)


@pytest.mark.real
@pytest.mark.parametrize("name", ["Segmentation", "SegmentationOverlapping"])
def test_segmentations_are_refused_as_such(real_data: Path, name: str) -> None:
    with pytest.raises(RefusedGrid, match="a segmentation") as caught:
        read(real_data / "nrrd" / f"{name}.seg.nrrd")
    assert caught.value.reason == "not_ct"
