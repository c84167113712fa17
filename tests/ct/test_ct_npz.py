"""Arrays in .npz files: read as slices with a stated place in space, refused where damaged."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.ct.npz import is_npz, open_npz
from t3d.ct.slices import read_whole
from t3d.types import HeaderOverride, Volume

IPL = HeaderOverride(
    affine=((-0.8, 0, 0, 5.0), (0, -0.8, 0, 6.0), (0, 0, -0.8, 7.0), (0, 0, 0, 1.0))
)
ARRAY = np.random.default_rng(0).integers(-1000, 1001, (9, 10, 11)).astype(np.int16)


def saved(path: Path, **arrays: NDArray[np.generic]) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def read(path: Path, override: HeaderOverride | None = IPL, slices: int = 4) -> Volume:
    with open_npz(path, override, name="v1") as file:
        parts = [slab.copy() for _, slab in file.slabs(slices)]
        assert np.concatenate(parts).shape == file.shape_kji
    with open_npz(path, override, name="v1") as file:
        return read_whole(file)


def entry(path: Path, content: bytes, name: str = "ct.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def npy(header: dict[str, object] | str, body: bytes = b"") -> bytes:
    told = (header if isinstance(header, str) else repr(header)).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(told).to_bytes(2, "little") + told + body


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", "<f4"])
def test_values_and_places_are_those_of_the_array(tmp_path: Path, order: str, dtype: str) -> None:
    held = np.array(ARRAY, dtype=dtype, order=order)  # type: ignore[call-overload]
    volume = read(saved(tmp_path / "a.npz", ct=held))
    # A voxel at a time, from the affine: RAS of (i, j, k), k the array's first axis.
    for k, j, i in ((0, 0, 0), (8, 9, 10), (3, 7, 2)):
        left, posterior, superior = 0.8 * i - 5.0, 0.8 * j - 6.0, 7.0 - 0.8 * k
        index = np.linalg.inv(volume.world_from_voxel) @ (left, posterior, superior, 1.0)
        z, y, x = np.rint(index[:3]).astype(int)
        assert np.allclose(index[:3], (z, y, x))
        assert volume.voxels[z, y, x] == ARRAY[k, j, i]


def test_slope_and_intercept_may_be_stated(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", ct=(ARRAY + 1024).astype(np.uint16))
    told = HeaderOverride(affine=IPL.affine, slope=1.0, intercept=-1024.0)
    assert np.array_equal(np.sort(read(path, told).voxels, axis=None), np.sort(ARRAY, axis=None))


def test_without_a_stated_place_in_space_it_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", ct=ARRAY)
    for told in (None, HeaderOverride(slope=1.0)):
        with pytest.raises(RefusedGrid, match="nothing of millimetres") as caught:
            read(path, told)
        assert caught.value.reason == "bad_affine"


def test_a_flat_affine_is_refused(tmp_path: Path) -> None:
    flat = HeaderOverride(affine=((1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)))
    with pytest.raises(RefusedGrid, match="v1"):
        read(saved(tmp_path / "a.npz", ct=ARRAY), flat)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(RefusedFile) as caught:
        read(tmp_path / "none.npz")
    assert caught.value.reason == "missing_file"


@pytest.mark.parametrize(
    ("shape", "reason"), [((9, 10), "not_3d"), ((9, 10, 11, 2), "not_3d"), ((0, 9, 9), "too_small")]
)
def test_other_axes_are_refused(tmp_path: Path, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(RefusedGrid) as caught:
        read(saved(tmp_path / "a.npz", ct=np.zeros(shape, np.int16)))
    assert caught.value.reason == reason


def test_an_array_of_another_name_is_refused_and_others_beside_it_are_not(tmp_path: Path) -> None:
    with pytest.raises(RefusedFile, match="none of its 1 arrays is called 'ct'"):
        read(saved(tmp_path / "a.npz", volume=ARRAY))
    assert read(saved(tmp_path / "b.npz", other=ARRAY[:1], ct=ARRAY)).voxels.shape == ARRAY.shape


class _Spy:
    """Leaves a trace if it is ever unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    body = pickle.dumps(_Spy(trace))
    header = {"descr": "|O", "fortran_order": False, "shape": (9, 9, 9)}
    with pytest.raises(RefusedFile):
        read(entry(tmp_path / "a.npz", npy(header, body)))
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '<i2', 'fortran_order': False, 'shape': (9, 9, 9)"),
        npy("__import__('os').abort()"),
        npy({"descr": "<i2", "fortran_order": False, "shape": (9, 9, -9)}, b"\0" * 2000),
        npy({"descr": "<i2", "fortran_order": False, "shape": (9, 9, 9)}, b"\0" * 100),
        npy({"descr": "<i2", "fortran_order": False, "shape": (9, 9, 9)}, b"\0" * 9999),
        npy({"descr": "<i2", "fortran_order": False, "shape": (10**9, 10**9, 9)}, b"\0" * 99),
        npy({"descr": "<U9", "fortran_order": False, "shape": (9, 9, 9)}, b"\0" * 99999),
        b"\x93NUMPY\x09\x00" + b"\0" * 99,
    ],
    ids=[
        *("empty", "cut", "no dict", "code", "negative", "short", "long", "huge", "texts"),
        "version",
    ],
)
def test_a_damaged_or_hostile_array_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises((RefusedFile, RefusedGrid), match="v1"):
        read(entry(tmp_path / "a.npz", content))


def test_a_wrong_checksum_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, ct=ARRAY)  # not packed, so that one byte is one voxel's
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(RefusedFile, match="BadZipFile"):
        read(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RefusedFile):
        read(path)


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t3d.ct.npz.BOMB_BYTES", 1000)
    path = saved(tmp_path / "a.npz", ct=np.zeros((100, 100, 100), np.int16))
    with pytest.raises(RefusedFile, match="bytes on disk for 2000000 bytes of volume"):
        read(path)


def test_other_packings_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, ARRAY)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("ct.npy", buffer.getvalue())
    with pytest.raises(RefusedFile, match="NotImplementedError"):
        read(tmp_path / "a.npz")


def test_it_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", ct=ARRAY)
    assert is_npz(path.read_bytes()[:1024])
    other = entry(tmp_path / "b.zip", b"DICM", name="IM0001.dcm")
    assert not is_npz(other.read_bytes()[:1024])
    assert not is_npz(b"")
