"""Reading and writing NIfTI: every type, both byte orders, and every way a file can be broken."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct import nifti
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.errors import GeometryError, T3DError
from t3d.types import HeaderOverride, Zyx

WORLD = np.array([[0, 0, 0.75, -20], [0, 0.75, 0, -15], [2.5, 0, 0, 30], [0, 0, 0, 1.0]])
TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def some_voxels() -> NDArray[np.int16]:
    """A small volume in which no two axes look alike."""
    grid = np.arange(9 * 10 * 11, dtype=np.int16).reshape(9, 10, 11)
    return np.ascontiguousarray(grid % 120)


def ras(matrix: NDArray[np.float64] = WORLD) -> NDArray[np.float64]:
    """The NIfTI affine of an LPS matrix, written out by hand."""
    flat = matrix[:, [2, 1, 0, 3]].copy()
    flat[:2] *= -1
    return flat


def saved(
    path: Path, array_kji: NDArray[np.generic], *, order: str = "<", **fields: object
) -> Path:
    """Write with nibabel, an independent author, then patch header fields."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(array_kji.dtype)
    image = nib.Nifti1Image(array_kji.transpose(), ras(), header)
    image.set_sform(ras(), 1)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def small(tmp_path: Path, name: str = "v.nii") -> bytearray:
    """The bytes of a sound little-endian int16 file."""
    path = tmp_path / name
    nifti.write(path, some_voxels(), WORLD)
    return bytearray(path.read_bytes())


def refused(path: Path) -> str:
    """Read a file that must be refused and give the reason code."""
    with pytest.raises((RefusedFile, RefusedGrid)) as caught:
        nifti.read(path)
    assert caught.value.expected
    assert caught.value.fix
    return caught.value.reason


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_every_type_is_read_in_both_byte_orders(
    tmp_path: Path, dtype: str, order: str, name: str
) -> None:
    voxels = some_voxels()
    path = saved(tmp_path / name, voxels.astype(dtype), order=order)
    volume = nifti.read(path)
    assert volume.volume_id == "v"
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, voxels)
    assert volume.world_from_voxel == pytest.approx(WORLD, abs=1e-4)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(some_voxels().transpose(), ras()), tmp_path / "v.nii.gz")
    assert np.array_equal(nifti.read(tmp_path / "v.nii.gz").voxels, some_voxels())


def test_slope_and_intercept_are_applied_exactly_once(tmp_path: Path) -> None:
    path = tmp_path / "v.nii"
    raw = small(tmp_path)
    struct.pack_into("<2f", raw, 112, 2.5, -1024.0)
    path.write_bytes(raw)
    expected = np.rint(some_voxels() * 2.5 - 1024.0).astype(np.int16)
    assert np.array_equal(nifti.read(path).voxels, expected)


@pytest.mark.parametrize("slope", [0.0, float("nan")])
def test_a_slope_that_means_none_also_drops_the_intercept(tmp_path: Path, slope: float) -> None:
    raw = small(tmp_path)
    struct.pack_into("<2f", raw, 112, slope, 77.0)
    (tmp_path / "v.nii").write_bytes(raw)
    assert np.array_equal(nifti.read(tmp_path / "v.nii").voxels, some_voxels())


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(float("inf"), 0.0), (1e30, 0.0), (-1.0, 0.0), (1.0, float("nan")), (1.0, float("inf"))],
)
def test_a_scale_that_cannot_be_is_refused(tmp_path: Path, slope: float, intercept: float) -> None:
    raw = small(tmp_path)
    struct.pack_into("<2f", raw, 112, slope, intercept)
    (tmp_path / "v.nii").write_bytes(raw)
    assert refused(tmp_path / "v.nii") == "hu_implausible"


def test_an_override_replaces_scale_spacing_and_affine(tmp_path: Path) -> None:
    nifti.write(tmp_path / "v.nii", some_voxels(), WORLD)
    told = HeaderOverride(slope=2.0, intercept=-10.0, spacing_mm=Zyx(z=3.0, y=0.5, x=0.6))
    volume = nifti.read(tmp_path / "v.nii", told)
    assert np.array_equal(volume.voxels, some_voxels() * 2 - 10)
    assert volume.world_from_voxel[[2, 1, 0], [0, 1, 2]] == pytest.approx([3.0, 0.5, 0.6])
    placed = HeaderOverride(
        affine=((-1, 0, 0, 5), (0, -1, 0, 6), (0, 0, 1, 7), (0, 0, 0, 1))  # RAS from (i, j, k)
    )
    moved = nifti.read(tmp_path / "v.nii", placed).world_from_voxel
    assert moved.tolist() == [[0, 0, 1, -5], [0, 1, 0, -6], [1, 0, 0, 7], [0, 0, 0, 1]]


def test_trailing_axes_of_length_one_are_dropped_and_longer_ones_refused(tmp_path: Path) -> None:
    voxels = some_voxels().transpose()
    nib.save(nib.Nifti1Image(voxels[..., None, None], ras()), tmp_path / "ok.nii.gz")
    assert np.array_equal(nifti.read(tmp_path / "ok.nii.gz").voxels, some_voxels())
    nib.save(nib.Nifti1Image(np.stack([voxels, voxels], -1), ras()), tmp_path / "two.nii.gz")
    assert refused(tmp_path / "two.nii.gz") == "not_3d"


@pytest.mark.parametrize("dim", [(2, 9, 10), (3, 9, 0, 10), (3, 9, -4, 10), (0,), (9, 1, 1, 1)])
def test_a_shape_that_is_no_volume_is_refused(tmp_path: Path, dim: tuple[int, ...]) -> None:
    raw = small(tmp_path)
    struct.pack_into("<8h", raw, 40, *(*dim, *(1,) * (8 - len(dim))))
    (tmp_path / "v.nii").write_bytes(raw)
    assert refused(tmp_path / "v.nii") == "not_3d"


def test_colours_complex_and_unknown_types_are_refused_by_name(tmp_path: Path) -> None:
    rgb = np.zeros((9, 10, 11), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name, array in (("rgb", rgb), ("complex", np.zeros((9, 10, 11), np.complex64))):
        nib.save(nib.Nifti1Image(array, ras()), tmp_path / f"{name}.nii.gz")
        with pytest.raises(RefusedGrid, match=r"colours|complex"):
            nifti.read(tmp_path / f"{name}.nii.gz")
    for code in (0, 999):
        raw = small(tmp_path)
        struct.pack_into("<h", raw, 70, code)
        (tmp_path / "v.nii").write_bytes(raw)
        with pytest.raises(RefusedGrid, match=f"code {code}"):
            nifti.read(tmp_path / "v.nii")


def test_a_header_without_a_place_in_space_is_refused(tmp_path: Path) -> None:
    raw = small(tmp_path)
    struct.pack_into("<2h", raw, 252, 0, 0)
    (tmp_path / "v.nii").write_bytes(raw)
    assert refused(tmp_path / "v.nii") == "bad_affine"


def test_the_qform_is_used_where_there_is_no_sform(tmp_path: Path) -> None:
    raw = small(tmp_path)
    struct.pack_into("<h", raw, 254, 0)
    (tmp_path / "v.nii").write_bytes(raw)
    assert nifti.read(tmp_path / "v.nii").world_from_voxel == pytest.approx(WORLD, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_sform_is_refused_even_beside_a_whole_qform(tmp_path: Path, value: float) -> None:
    raw = small(tmp_path)
    struct.pack_into("<4f", raw, 280, value, value, value, 0.0)
    (tmp_path / "v.nii").write_bytes(raw)
    assert refused(tmp_path / "v.nii") == "bad_affine"


def test_metres_become_millimetres(tmp_path: Path) -> None:
    raw = small(tmp_path)
    raw[123] = 1
    struct.pack_into("<12f", raw, 280, *(ras()[:3] / 1000).ravel())
    (tmp_path / "v.nii").write_bytes(raw)
    assert nifti.read(tmp_path / "v.nii").world_from_voxel == pytest.approx(WORLD, abs=1e-3)


def test_a_plain_file_that_ends_early_is_refused_before_anything_is_allocated(
    tmp_path: Path,
) -> None:
    raw = small(tmp_path)
    (tmp_path / "cut.nii").write_bytes(raw[:-100])
    assert refused(tmp_path / "cut.nii") == "unreadable"
    struct.pack_into("<8h", raw, 40, 3, 1000, 1000, 500, 1, 1, 1, 1)
    (tmp_path / "lie.nii").write_bytes(raw)
    (tmp_path / "lie2.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    assert refused(tmp_path / "lie.nii") == "unreadable"
    assert refused(tmp_path / "lie2.nii.gz") == "unreadable"
    struct.pack_into("<8h", raw, 40, 3, 32000, 32000, 32000, 1, 1, 1, 1)
    (tmp_path / "huge.nii").write_bytes(raw)
    assert refused(tmp_path / "huge.nii") == "unreadable"


def test_every_damage_of_a_gzip_stream_is_refused(tmp_path: Path) -> None:
    good = gzip.compress(bytes(small(tmp_path)), mtime=0)
    middle = len(good) // 2
    damaged = {
        "cut in the middle": good[:middle],
        "checksum missing": good[:-8],
        "checksum wrong": good[:-8] + bytes(b ^ 255 for b in good[-8:-4]) + good[-4:],
        "cut in the header": good[:60],
        "twice": gzip.compress(good),
        "nothing": gzip.compress(b""),
        "a second member without its end": good + gzip.compress(b"more")[:-6],
        "voxels in a damaged second member": gzip.compress(bytes(small(tmp_path)[:900]))
        + gzip.compress(bytes(small(tmp_path)[900:]))[:-3],
        "header only": gzip.compress(bytes(small(tmp_path)[:352])),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(content)
        assert refused(path) == "unreadable", name


@pytest.mark.parametrize(
    "content", [b"", b"\x5c", b"<!doctype html><title>404</title>" * 20, b"version https://git-lfs"]
)
def test_what_is_no_nifti_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.nii.gz").write_bytes(content)
    assert refused(tmp_path / "v.nii.gz") == "unreadable"


def test_a_missing_file_has_its_own_reason(tmp_path: Path) -> None:
    assert refused(tmp_path / "nobody.nii.gz") == "missing_file"


def test_harmless_oddities_are_read(tmp_path: Path) -> None:
    raw = bytes(small(tmp_path))
    odd = {
        "plain under a gz name.nii.gz": raw,
        "gz under a plain name.nii": gzip.compress(raw),
        "zeros after the stream.nii.gz": gzip.compress(raw) + bytes(512),
        "two members.nii.gz": gzip.compress(raw[:900]) + gzip.compress(raw[900:]),
        "offset 0.nii": raw[:108] + struct.pack("<f", 0.0) + raw[112:],
        "longer than needed.nii": raw + b"\0" * 99,
        "garbage.nii.gz": gzip.compress(raw) + b"not a second member",
        "short garbage.nii.gz": gzip.compress(raw) + b"\x1f",
        "zeros and garbage.nii.gz": gzip.compress(raw) + b"\0\0garbage",
        "two members, garbage.nii.gz": gzip.compress(raw[:900]) + gzip.compress(raw[900:]) + b"no",
    }
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(nifti.read(tmp_path / name).voxels, some_voxels()), name


def test_voxels_may_begin_after_a_long_extension(tmp_path: Path) -> None:
    raw = bytes(small(tmp_path))
    moved = raw[:108] + struct.pack("<f", 4096.0) + raw[112:352] + b"\7" * 3744 + raw[352:]
    for name, content in (("a.nii", moved), ("b.nii.gz", gzip.compress(moved))):
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(nifti.read(tmp_path / name).voxels, some_voxels())


def test_a_file_that_unpacks_like_a_bomb_is_refused_by_its_size(tmp_path: Path) -> None:
    raw = small(tmp_path)[:352]
    struct.pack_into("<8h", raw, 40, 3, 512, 512, 600, 1, 1, 1, 1)
    squeezer = zlib.compressobj(1, zlib.DEFLATED, 31)
    body = squeezer.compress(bytes(raw)) + squeezer.compress(bytes(1 << 20)) + squeezer.flush()
    (tmp_path / "bomb.nii.gz").write_bytes(body + bytes(500_000))
    assert refused(tmp_path / "bomb.nii.gz") == "unreadable"


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_what_is_written_is_read_by_nibabel_at_the_same_place(
    tmp_path: Path, dtype: type, name: str
) -> None:
    nifti.write(tmp_path / name, some_voxels().astype(dtype), WORLD)
    image = nib.load(tmp_path / name)
    assert np.array_equal(np.asanyarray(image.dataobj).transpose(), some_voxels())
    assert image.get_data_dtype() == dtype
    assert image.affine == pytest.approx(ras(), abs=1e-5)
    assert image.get_qform() == pytest.approx(ras(), abs=1e-4)
    assert np.array_equal(nifti.read(tmp_path / name).voxels, some_voxels())


def test_writing_twice_gives_the_same_bytes_without_time_or_name(tmp_path: Path) -> None:
    for name in ("first.nii.gz", "other.nii.gz"):
        nifti.write(tmp_path / name, some_voxels(), WORLD)
    first = (tmp_path / "first.nii.gz").read_bytes()
    assert first == (tmp_path / "other.nii.gz").read_bytes()
    assert first[3:8] == b"\0\0\0\0\0"  # flags (no name), modification time
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.nii.gz", "other.nii.gz"]


def test_a_sheared_matrix_is_written_without_a_false_qform(tmp_path: Path) -> None:
    sheared = WORLD.copy()
    sheared[1, 0] = 0.9
    nifti.write(tmp_path / "v.nii", some_voxels(), sheared)
    image = nib.load(tmp_path / "v.nii")
    assert int(image.header["qform_code"]) == 0
    assert image.affine == pytest.approx(ras(sheared), abs=1e-5)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 4)), np.zeros((4, 4), np.int16)])
def test_writing_another_type_or_shape_is_an_error(
    tmp_path: Path, bad: NDArray[np.generic]
) -> None:
    with pytest.raises(GeometryError):
        nifti.write(tmp_path / "v.nii", bad, WORLD)


def test_labels_must_be_labels(tmp_path: Path) -> None:
    nearly = some_voxels().astype(np.float32) * np.float32(0.999999)
    path = saved(tmp_path / "near.nii.gz", nearly)
    labels, _ = nifti.read_label(path)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, some_voxels())
    for name, wrong in (
        ("half", some_voxels() + np.float32(0.5)),
        ("below", some_voxels() - np.int16(1)),
        ("above", some_voxels() + np.int16(200)),
        ("nan", np.full((9, 10, 11), np.nan, np.float32)),
    ):
        with pytest.raises(RefusedGrid, match="no labels"):
            nifti.read_label(saved(tmp_path / f"{name}.nii.gz", wrong))


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.b.nii.gz", "a.b"), ("a.nii", "a"), ("a.gz", "a.gz"), ("v_1.0.nii.gz", "v_1.0")],
)
def test_only_the_suffix_is_cut_from_a_name(name: str, stem: str) -> None:
    assert nifti.volume_id_of(name) == stem


def test_refusals_survive_the_way_between_processes() -> None:
    import pickle

    for error in (RefusedFile("a", reason="missing_file"), RefusedGrid("b", reason="not_3d")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert again.reason == error.reason
        assert str(again) == str(error)
        assert isinstance(again, T3DError)


def test_reading_works_without_isal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from t3d.ct import gzipped

    monkeypatch.setattr(gzipped, "_isal", lambda part: None)
    nifti.write(tmp_path / "v.nii.gz", some_voxels(), WORLD)
    assert np.array_equal(nifti.read(tmp_path / "v.nii.gz").voxels, some_voxels())
    whole = (tmp_path / "v.nii.gz").read_bytes()
    (tmp_path / "v.nii.gz").write_bytes(whole + b"garbage")
    volume = nifti.read(tmp_path / "v.nii.gz")
    assert np.array_equal(volume.voxels, some_voxels())
    assert "7 bytes after the gzip stream left out" in volume.steps
    (tmp_path / "v.nii.gz").write_bytes(whole[:-8])
    assert refused(tmp_path / "v.nii.gz") == "unreadable"
