"""Shards: which patients each holds, where it lies, what it refuses."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_folder import rows_of, write_table
from t3d.cohort.listing import SetAside
from t3d.cohort.prepare import prepare
from t3d.cohort.shards import Shard, parse_shard, shards_folder, shards_of
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.errors import RecipeError, SourceError, StoreError
from t3d.types import Preparation, Series, Study

MakeFolder = Callable[..., Path]


def slow_number(patient_id: str, count: int) -> int:
    """From the definition: the first 16 hexadecimal digits of the hash, as a number."""
    drawn = 0
    for digit in sha256(patient_id.encode()).hexdigest()[:16]:
        drawn = 16 * drawn + "0123456789abcdef".index(digit)
    return drawn % count + 1


@given(st.text(), st.integers(1, 2000))
def test_a_patient_is_in_exactly_the_shard_that_the_hash_says(patient: str, count: int) -> None:
    number = slow_number(patient, count)
    assert Shard(number, count).holds(patient)
    others = {1, count, number % count + 1} - {number}
    assert not any(Shard(other, count).holds(patient) for other in others)


def test_the_patient_train_1_is_in_the_seventh_of_sixteen() -> None:
    held = [n for n in range(1, 17) if Shard(n, 16).holds("train_1")]
    assert held == [7]


def test_shards_are_of_about_one_size() -> None:
    sizes = Counter(slow_number(f"train_{n}", 16) for n in range(20_000))
    assert min(sizes.values()) > 1250 - 6 * 35  # six standard deviations of a fair draw
    assert max(sizes.values()) < 1250 + 6 * 35


@pytest.mark.parametrize("told", ["", "3", "3/", "/4", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(told: str) -> None:
    with pytest.raises(RecipeError, match="shard"):
        parse_shard(told)


def test_a_shard_lies_beside_its_cohort_under_its_number(tmp_path: Path) -> None:
    assert parse_shard("3/16") == (3, 16)
    cohort = tmp_path / "ct.rate"
    assert Shard(3, 16).folder(cohort) == tmp_path / "ct.rate.shards" / "003-of-016"
    assert Shard(7, 2000).folder(f"{cohort}/").name == "0007-of-2000"
    assert shards_folder(".").name == f"{Path.cwd().name}.shards"
    assert shards_of(cohort) == ()


def test_every_study_is_in_one_shard_and_a_patient_in_one_of_them(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(12)
    rows = rows_of(root)
    for row in rows[6:]:  # the second half are later studies of the first six patients
        first = rows[rows.index(row) - 6]
        row |= {"patient": first["patient"], "split": first["split"]}
    write_table(root, rows)
    for number in (2, 3, 1):
        made = prepare(Folder(root), tmp_path / "c", tiny, workers=0, shard=(number, 3))
        assert made.ahead is not None
        assert made.ahead.line.startswith(f"shard {number}/3: {made.done} studies, ")
    shards = [Cohort.open(path) for path in shards_of(tmp_path / "c")]
    assert [shard.path.name for shard in shards] == ["001-of-003", "002-of-003", "003-of-003"]
    assert not (tmp_path / "c").exists()
    studies = [row.study_id for shard in shards for row in shard.studies()]
    assert sorted(studies) == [f"p{n:04d}" for n in range(12)]
    patients = [{row.patient_id for row in shard.studies()} for shard in shards]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 6
    assert all(shard.verify() == () for shard in shards)


def test_progress_counts_the_studies_of_the_shard(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(8))
    ours = sum(Shard(1, 2).holds(study.patient_id) for study in source.studies())
    told: list[tuple[int, int]] = []
    made = prepare(
        source,
        tmp_path / "c",
        tiny,
        workers=0,
        shard=(1, 2),
        progress=lambda standing: told.append((standing.done, standing.total)),
    )
    assert 0 < ours < 8
    assert made.done == ours
    assert told == [(n, ours) for n in range(ours + 1)]


def test_a_listing_that_one_run_refuses_is_refused_by_every_shard(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(4)
    rows = rows_of(root)
    write_table(root, [*rows[:3], {**rows[3], "patient": "patient1"}])
    for number in (1, 2, 3):
        with pytest.raises(SourceError, match="split_leak"):
            prepare(Folder(root), tmp_path / "c", tiny, workers=0, shard=(number, 3))


class Disputed(Folder):
    """Studies of two patients claim one volume each time."""

    def studies(self):  # type: ignore[no-untyped-def]
        for study in super().studies():
            yield dataclasses.replace(
                study, study_id=f"{study.study_id}b", patient_id=f"{study.patient_id}b"
            )
            yield study


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_disputed_volume_goes_to_one_study_whatever_the_shards(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, count: int
) -> None:
    source = Disputed(make_folder(5))
    failed = Counter[str]()
    for number in range(1, count + 1):
        shard = (number, count)
        failed += Counter(prepare(source, tmp_path / "c", tiny, workers=0, shard=shard).failed)
    assert failed == {"duplicate_key": 5}
    shards = [Cohort.open(path) for path in shards_of(tmp_path / "c")]
    assert sorted(f.study_id for s in shards for f in s.failures()) == [
        f"p000{n}b" for n in range(5)
    ]


class Odd(Folder):
    """A source that sets things aside which belong to no study."""

    def set_aside(self) -> tuple[SetAside, ...]:
        return tuple(
            SetAside(key=key, reason="not_chosen", message="a localizer")
            for key in ("file1", "file2", "file3", "file4")
        )


def test_what_the_source_sets_aside_is_told_in_one_shard(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Odd(make_folder(3))
    for number in range(1, 4):
        prepare(source, tmp_path / "c", tiny, workers=0, shard=(number, 3))
    told = [f.study_id for path in shards_of(tmp_path / "c") for f in Cohort.open(path).failures()]
    assert sorted(told) == ["file1", "file2", "file3", "file4"]


def test_a_folder_is_one_shard_or_none_for_good(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(6))
    prepare(source, tmp_path / "c", tiny, workers=0, shard=(1, 2))
    (folder,) = shards_of(tmp_path / "c")
    with pytest.raises(StoreError, match="is shard 1/2"):
        prepare(source, folder, tiny, workers=0)
    folder.rename(Shard(2, 2).folder(tmp_path / "c"))
    with pytest.raises(StoreError, match="is shard 1/2"):
        prepare(source, tmp_path / "c", tiny, workers=0, shard=(2, 2))
    prepare(source, tmp_path / "whole", tiny, workers=0)
    Shard(1, 2).folder(tmp_path / "d").parent.mkdir()
    (tmp_path / "whole").rename(Shard(1, 2).folder(tmp_path / "d"))
    with pytest.raises(StoreError, match="is no shard"):
        prepare(source, tmp_path / "d", tiny, workers=0, shard=(1, 2))


def test_two_jobs_of_one_shard_do_not_write_at_once(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    source = Folder(make_folder(2))

    def again(_: object) -> None:
        with pytest.raises(StoreError, match="another process"):
            prepare(source, tmp_path / "c", tiny, workers=0, shard=(1, 1))
        told.append(True)

    told: list[bool] = []
    prepare(source, tmp_path / "c", tiny, workers=0, shard=(1, 1), progress=again)
    assert told


def test_an_engine_that_nobody_knows_is_refused(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    with pytest.raises(RecipeError, match="'dask' is unknown"):
        prepare(Folder(make_folder(1)), tmp_path / "c", tiny, workers=0, engine="dask")
    assert not (tmp_path / "c").exists()


def test_each_study_is_handed_on_once_its_records_last(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(4)
    rows = rows_of(root)
    shared = {k: rows[1][k] for k in ("patient", "split", "Lung nodule", "Pleural effusion")}
    write_table(root, [{**r, **shared, "study": "s"} for r in rows[:2]] + rows[2:])
    held = (root / "volumes" / "p0000.nii.gz").read_bytes()
    (root / "volumes" / "p0000.nii.gz").write_bytes(b"broken")
    (root / "volumes" / "p0002.nii.gz").write_bytes(b"broken")
    told: dict[str, list[str]] = {}

    def after(study: Study, recorded: tuple[Series, ...]) -> None:
        # Another connection sees the records: they are committed.
        cohort = Cohort.open(tmp_path / "c")
        (row,) = (row for row in cohort.studies() if row.study_id == study.study_id)
        told[study.study_id] = [series.series_id for series in recorded]
        assert set(told[study.study_id]) <= set(row.volume_ids)
        cohort.close()

    prepare(Folder(root), tmp_path / "c", tiny, workers=0, after=after)
    assert told == {"p0003": ["p0003"], "s": ["p0001"]}
    (root / "volumes" / "p0000.nii.gz").write_bytes(held)
    told.clear()
    prepare(Folder(root), tmp_path / "c", tiny, workers=0, after=after)
    assert told == {"p0003": ["p0003"], "s": ["p0001"]}  # of an earlier run
    told.clear()
    prepare(Folder(root), tmp_path / "c", tiny, workers=0, after=after, retry_failed=True)
    assert told == {"p0003": ["p0003"], "s": ["p0001", "p0000"]}
