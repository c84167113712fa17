"""Reading a cohort: errors, damage, threads and processes."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.cohort import shelf
from t3d.cohort.engine import Done, run
from t3d.cohort.prepare import prepare
from t3d.cohort.schema import preparation_from_json, preparation_json
from t3d.cohort.shelf import (
    coarse,
    pack,
    publish,
    read_array,
    read_box,
    stage,
    write_file,
)
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.ct.limits import MAX_LOSS_HU
from t3d.ct.preparations import PREPARATIONS
from t3d.errors import StoreError
from t3d.types import Preparation, Zyx

MakeFolder = Callable[..., Path]


@pytest.fixture
def cohort(make_folder: MakeFolder, tmp_path: Path, tiny: Preparation) -> Cohort:
    """Six prepared studies."""
    prepare(Folder(make_folder(6)), tmp_path / "c", tiny, workers=0)
    return Cohort.open(tmp_path / "c")


def test_a_folder_without_tables_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no cohort"):
        Cohort.open(tmp_path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "cohort.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        Cohort.open(tmp_path)


def test_studies_are_ordered_and_chosen_by_split(cohort: Cohort) -> None:
    assert [r.study_id for r in cohort.studies()] == [f"p000{n}" for n in range(6)]
    assert [r.study_id for r in cohort.studies("dev")] == ["p0001", "p0004"]
    assert cohort.studies("") == ()


def test_counts_are_those_of_the_tables(cohort: Cohort) -> None:
    counts = cohort.counts
    assert (counts["study"], counts["volume"], counts["label"]) == (6, 6, 12)
    assert counts["failure"] == 0


def test_a_study_without_a_report_has_none(cohort: Cohort) -> None:
    assert cohort.report("nobody") is None
    assert cohort.sentences("nobody") == ()


def test_an_unknown_volume_or_preparation_is_named(cohort: Cohort) -> None:
    with pytest.raises(StoreError, match="volume nobody"):
        cohort.volume("nobody")
    with pytest.raises(StoreError, match="no preparation 'huge'"):
        cohort.volume("p0000", "huge")


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (Zyx(-1, 0, 0), Zyx(2, 2, 2)),
        (Zyx(0, 0, 0), Zyx(9, 2, 2)),
        (Zyx(3, 0, 0), Zyx(3, 2, 2)),
        (Zyx(0, 5, 0), Zyx(2, 4, 2)),
    ],
)
def test_a_box_outside_the_volume_is_an_error(
    cohort: Cohort, low: Zyx[int], high: Zyx[int]
) -> None:
    with pytest.raises(StoreError, match="leaves the volume"):
        cohort.crop("p0000", low, high)


def test_a_cohort_pickles_as_its_path(cohort: Cohort) -> None:
    again = pickle.loads(pickle.dumps(cohort))
    assert again.path == cohort.path
    assert again.digest == cohort.digest


def test_threads_and_processes_read_the_same(cohort: Cohort) -> None:
    ids = [r.volume_ids[0] for r in cohort.studies()]
    alone = [cohort.volume(i).voxels for i in ids]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: cohort.volume(i).voxels, ids * 5))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 5, found, strict=True))
    other = {
        o.task: o.value.voxels for o in run(cohort.volume, ids, workers=2) if isinstance(o, Done)
    }
    assert all(np.array_equal(other[i], a) for i, a in zip(ids, alone, strict=True))


def test_verify_names_what_is_lost_changed_or_not_recorded(cohort: Cohort) -> None:
    assert cohort.verify() == ()
    volumes = cohort.path / "volumes" / "tiny"
    (volumes / "p0001.b2nd").unlink()
    changed = bytearray((volumes / "p0002.b2nd").read_bytes())
    changed[-1] ^= 255
    (volumes / "p0002.b2nd").write_bytes(changed)
    (cohort.path / "masks" / "tiny" / "p0003.body.b2nd").unlink()
    (volumes / "stranger.b2nd").write_bytes(b"")
    assert cohort.verify() == (
        "masks/tiny/p0003.body.b2nd: lost",
        "volumes/tiny/p0001.b2nd: lost",
        "volumes/tiny/p0002.b2nd: changed since it was written",
        "volumes/tiny/stranger.b2nd: not recorded",
    )


def test_reading_a_lost_or_damaged_file_is_an_error_that_names_it(cohort: Cohort) -> None:
    volumes = cohort.path / "volumes" / "tiny"
    (volumes / "p0001.b2nd").unlink()
    (volumes / "p0002.b2nd").write_bytes(b"no array")
    with pytest.raises(StoreError, match=r"p0001\.b2nd.* gone"):
        cohort.volume("p0001")
    with pytest.raises(StoreError, match=r"p0002\.b2nd.* damaged"):
        cohort.volume("p0002")


def test_the_digest_changes_with_a_voxel_a_word_or_a_split(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    from made_folder import WORLD, body, rows_of, write_table
    from t3d.ct import nifti

    def digest(root: Path, name: str) -> str:
        prepare(Folder(root), tmp_path / name, tiny, workers=0)
        return Cohort.open(tmp_path / name).digest

    root = make_folder(2)
    seen = {digest(root, "plain"), digest(root, "again")}
    assert len(seen) == 1
    rows = rows_of(root)
    write_table(root, [{**rows[0], "impression": "A word."}, rows[1]])
    seen.add(digest(root, "word"))
    write_table(root, [{**rows[0], "split": "test"}, rows[1]])
    seen.add(digest(root, "split"))
    write_table(root, rows)
    voxels = body(0)
    voxels[5, 8, 8] += 100
    nifti.write(root / "volumes" / "p0000.nii.gz", voxels, WORLD)
    seen.add(digest(root, "voxel"))
    assert len(seen) == 4


@pytest.mark.parametrize("preparation", PREPARATIONS, ids=lambda p: p.name)
def test_a_preparation_survives_its_json(preparation: Preparation) -> None:
    assert preparation_from_json(preparation_json(preparation)) == preparation


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(0, 2**32 - 1), st.booleans())
def test_any_shape_is_shelved_and_read_back(
    shape: tuple[int, int, int], seed: int, labels: bool
) -> None:
    import tempfile

    rng = np.random.default_rng(seed)
    dtype = np.uint8 if labels else np.int16
    array = rng.integers(0, 200, shape).astype(dtype)
    low = Zyx(*(int(rng.integers(0, n)) for n in shape))
    high = Zyx(*(int(rng.integers(a + 1, n + 1)) for a, n in zip(low, shape, strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.b2nd"
        write_file(path, pack(array, {"steps": "[]"}))
        assert [p.name for p in path.parent.iterdir()] == ["a.b2nd"]
        assert np.array_equal(read_array(path), array)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert np.array_equal(read_box(path, low, high), array[box])


@pytest.mark.parametrize(
    ("value", "loss_hu", "kept"),
    [(1, 1, 0), (3, 1, 4), (-5, 1, -4), (2, 1, 2), (5, 2, 4), (6, 2, 8), (-6, 2, -8), (7, 3, 6)],
)
def test_a_value_is_rounded_to_the_next_step(value: int, loss_hu: int, kept: int) -> None:
    array = np.array([[[-1000, value, 1000]]], dtype=np.int16)
    assert coarse(array, loss_hu).tolist() == [[[-1000, kept, 1000]]]


def slow_coarse(array: np.ndarray, loss_hu: int) -> list[int]:
    """From the definition: the nearest multiple, of two equally near the even one."""
    low, high = int(array.min()), int(array.max())
    step = 2 * loss_hu
    return [min(max(step * round(int(v) / step), low), high) for v in array.ravel()]


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=60), st.integers(1, MAX_LOSS_HU))
def test_rounding_is_its_definition_and_keeps_its_bound(values: list[int], loss_hu: int) -> None:
    array = np.array(values, dtype=np.int16).reshape(1, 1, -1)
    kept = coarse(array, loss_hu)
    assert kept.dtype == np.int16
    assert kept.ravel().tolist() == slow_coarse(array, loss_hu)
    assert np.abs(kept.astype(int) - array).max() <= loss_hu


def test_what_breaks_the_bound_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(-500, 500, dtype=np.int16).reshape(10, 10, 10)
    read = blosc2.ndarray_from_cframe(pack(array, {}, loss_hu=1))[...]
    assert np.abs(read.astype(int) - array).max() == 1
    for off in (2, -2):

        def careless(array: np.ndarray, loss_hu: int, off: int = off) -> np.ndarray:
            return array + np.int16(off)

        monkeypatch.setattr(shelf, "coarse", careless)
        with pytest.raises(StoreError, match="a packed volume is off by 2 HU"):
            pack(array, {}, loss_hu=1)


def test_steps_of_two_hu_make_a_noisy_volume_smaller() -> None:
    noise = np.random.default_rng(0).normal(40, 18, (64, 64, 64)).astype(np.int16)
    assert len(pack(noise, {}, loss_hu=1)) < 0.9 * len(pack(noise, {}))


@pytest.mark.parametrize("loss_hu", [-1, MAX_LOSS_HU + 1])
def test_a_loss_outside_the_limits_is_refused(loss_hu: int) -> None:
    with pytest.raises(StoreError, match="was asked for"):
        pack(np.zeros((2, 2, 2), np.int16), {}, loss_hu=loss_hu)


def test_a_staged_file_is_no_file_of_the_cohort_until_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "volumes" / "tiny" / "a.b.b2nd"
    staged, sha256 = stage(path, b"voxels")
    assert (path.exists(), staged.parent) == (False, path.parent)
    assert publish(staged) == path
    assert path.read_bytes() == b"voxels"
    assert sha256 == hashlib.sha256(b"voxels").hexdigest()
    assert not staged.exists()


def test_packing_twice_gives_the_same_bytes() -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (40, 70, 66)).astype(np.int16)
    assert pack(array, {"a": "1", "b": "2"}) == pack(array, {"b": "2", "a": "1"})


def test_opening_a_cohort_imports_no_numpy_and_no_blosc(cohort: Cohort) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from t3d.cohort.store import Cohort; "
        f"Cohort.open({str(cohort.path)!r}).studies(); "
        "print(sorted({'numpy', 'blosc2', 'torch'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root / "src")},
    )
    assert told.stdout.strip() == "[]"
