"""Audits: counts against a table written by hand, copies, hashes, orders, dead workers, names."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from made_folder import WORLD, body, rows_of, write_table
from t3d.cohort import audit as module
from t3d.cohort.audit import Audit, audit, subject_at
from t3d.cohort.engine import Done, Lost
from t3d.cohort.loose import LooseFiles
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.folder import Folder
from t3d.cohort.store import Cohort
from t3d.ct import nifti
from t3d.ct.regrid import regrid
from t3d.errors import SourceError
from t3d.phantom.patient import patient
from t3d.types import Preparation, Report, Series, Study, Zyx

Maker = Callable[..., Path]


def look(subject: Any, *, workers: int = 0) -> Audit:
    """Audit in this process: these files are ours."""
    return audit(subject, workers=workers)


def reasons(found: Audit) -> dict[str, tuple[str, ...]]:
    """Reasons by volume, without what every tiny scan of these tests has."""
    usual = {"z_extent", "no_chest"}
    told = {row.volume_id: tuple(r for r in row.reasons if r not in usual) for row in found.rows}
    return {key: value for key, value in told.items() if value}


def plain(found: Audit) -> dict[str, Any]:
    """Everything but pictures, comparable."""
    return {
        "counts": dict(found.counts),
        "symptoms": dict(found.symptoms),
        "manifest": found.manifest,
        "rows": [
            (r.volume_id, r.study_id, r.split, r.reasons, r.message, r.examination is None)
            for r in found.rows
        ],
    }


def own(number: int) -> NDArray[np.int16]:
    """The cylinder of `body` with a hole of its own place; without it all would be copies."""
    voxels = body(number)
    z, y, x = number % 2, number // 2 % 2, number // 4 % 2
    voxels[2 + 4 * z : 6 + 4 * z, 4 + 5 * y : 8 + 5 * y, 3 + 5 * x : 7 + 5 * x] -= 800
    return voxels


@pytest.fixture
def make_own(make_folder: Maker) -> Maker:
    """A fabricated folder of scans that differ in shape."""

    def make(count: int) -> Path:
        root = make_folder(count)
        for number in range(count):
            nifti.write(root / "volumes" / f"p{number:04d}.nii.gz", own(number), WORLD)
        return root

    return make


# ---- a folder with one of everything -------------------------------------------------------


@pytest.fixture
def ill(make_own: Maker) -> Path:
    """Eight studies, most of them with something wrong."""
    root = make_own(8)
    rows = rows_of(root)
    for number, row in enumerate(rows):
        row["findings"] = f"Text {number}."
        row["impression"] = ""
    rows[1]["findings"] = "text  0."  # p0001 says what p0000 says, in another split
    rows[2]["findings"] = "Not given."
    rows[3]["findings"] = ""
    rows[5]["patient"] = rows[4]["patient"]  # p0004 is dev, p0005 test
    write_table(root, rows)
    for jsonl in ("positions.jsonl", "items.jsonl"):
        (root / jsonl).unlink()
    volumes = root / "volumes"
    (volumes / "p0006.nii.gz").unlink()
    nifti.write(volumes / "p0007.nii.gz", own(7) + np.int16(1024), WORLD)
    nifti.write(volumes / "p0100.nii.gz", body(100), WORLD)
    return root


EXPECTED = {
    "p0000": ("duplicate_text",),
    "p0001": ("duplicate_text",),
    "p0002": ("empty_text",),
    "p0003": ("no_report",),
    "p0004": ("split_leak",),
    "p0005": ("split_leak",),
    "p0006": ("missing_file",),
    "p0007": ("hu_implausible",),
    "p0100": ("unlisted_file",),
}


def test_one_count_a_reason_and_one_row_a_file(ill: Path) -> None:
    found = look(Folder(ill))
    assert reasons(found) == EXPECTED
    assert {k: v for k, v in found.counts.items() if k not in ("z_extent", "no_chest")} == {
        "duplicate_text": 2,
        "empty_text": 1,
        "hu_implausible": 1,
        "missing_file": 1,
        "no_report": 1,
        "split_leak": 2,
        "unlisted_file": 1,
    }
    assert [row.volume_id for row in found.rows] == sorted(EXPECTED)
    assert (found.num_scans, found.num_studies) == (8, 8)
    assert not found.sound


def test_the_order_of_rows_and_the_number_of_workers_change_nothing(ill: Path) -> None:
    first = plain(look(Folder(ill)))
    rows = rows_of(ill)
    random.Random(0).shuffle(rows)
    write_table(ill, rows)
    assert plain(look(Folder(ill), workers=2)) == first


def test_the_manifest_hash_is_over_volume_patient_split_and_text(make_folder: Maker) -> None:
    root = make_folder(2)
    lines = []
    for study in Folder(root).studies():
        report = study.reports[0]
        told = json.dumps(
            [[report.findings.lower(), report.impression.lower()]], separators=(",", ":")
        )
        text = hashlib.sha256(told.encode()).hexdigest()
        line = [study.series[0].series_id, study.patient_id, study.split, text]
        lines.append(json.dumps(line, separators=(",", ":")))
    expected = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    assert look(Folder(root)).manifest == expected
    rows = rows_of(root)
    rows[0]["split"] = "test"
    write_table(root, rows)
    assert look(Folder(root)).manifest != expected


class Listed:
    """A source of given studies."""

    kind = "listed"

    def __init__(self, *answers: tuple[Study, ...]) -> None:
        self.answers = list(answers)

    @property
    def terms(self) -> Any:
        return LooseFiles(()).terms

    def studies(self) -> Iterator[Study]:
        yield from self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def study(key: str, path: Path, **told: Any) -> Study:
    series = (Series(series_id=key, files=(path,)),)
    return Study(study_id=key, patient_id=key, series=series, reports=(Report(findings=key),),
                 **told)  # fmt: skip


def test_ids_labels_and_a_listing_that_changes_are_checked(make_folder: Maker) -> None:
    path = make_folder(1) / "volumes" / "p0000.nii.gz"
    twice = study("a", path)
    odd = study("b", path, labels={"Atelectasis": 2, "Emphysema": None})
    first = (twice, twice, odd)
    found = look(Listed(first, (twice, odd)))
    assert found.counts["duplicate_key"] == 1
    assert found.counts["bad_label"] == 1
    assert found.counts["listing_changes"] == 1
    message = next(row.message for row in found.rows if row.volume_id == "b")
    assert "Atelectasis" in message
    assert "Emphysema" not in message


# ---- copies --------------------------------------------------------------------------------


def test_a_copy_under_another_name_is_found_and_leaks_across_splits(tmp_path: Path) -> None:
    volumes = [patient(seed).volume for seed in range(3)]
    near = regrid(volumes[0], Preparation(name="p", size_vox=Zyx(z=40, y=50, x=50)))
    paths = []
    for name, volume in zip("abcd", (*volumes, near), strict=True):
        paths.append(tmp_path / f"{name}.nii.gz")
        nifti.write(paths[-1], volume.voxels, volume.world_from_voxel)
    shutil.copy(paths[1], tmp_path / "e.nii.gz")
    paths.append(tmp_path / "e.nii.gz")
    splits = ("train", "train", "dev", "test", "train")
    listing = tuple(study(p.name[0], p, split=s) for p, s in zip(paths, splits, strict=True))
    assert reasons(look(Listed(listing))) == {
        "a": ("duplicate_scan", "split_leak"),
        "b": ("duplicate_scan",),
        "d": ("duplicate_scan", "split_leak"),
        "e": ("duplicate_scan",),
    }


def test_two_reconstructions_of_one_study_are_no_copies(tmp_path: Path) -> None:
    volume = patient(0).volume
    series = []
    for name in "ab":
        path = tmp_path / f"{name}.nii.gz"
        nifti.write(path, volume.voxels, volume.world_from_voxel)
        series.append(Series(series_id=name, files=(path,)))
    one = Study(study_id="s", patient_id="p", series=tuple(series), reports=(Report(findings="x"),))
    assert reasons(look(Listed((one,)))) == {}


# ---- cohorts -------------------------------------------------------------------------------


def test_every_hash_and_failure_of_a_cohort_is_told(make_own: Maker, tmp_path: Path) -> None:
    root = make_own(6)
    (root / "volumes" / "p0005.nii.gz").write_bytes(b"no scan")
    grid = Preparation(name="grid", size_vox=Zyx(z=12, y=18, x=16))
    prepare(Folder(root), tmp_path / "cohort", grid, workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    assert reasons(look(cohort)) == {"p0005": ("unreadable",)}
    files = tmp_path / "cohort" / "volumes" / "grid"
    (files / "p0000.b2nd").unlink()
    held = bytearray((files / "p0001.b2nd").read_bytes())
    held[-40] ^= 1
    (files / "p0001.b2nd").write_bytes(held)
    shutil.copy(files / "p0002.b2nd", files / "p0009.b2nd")
    found = reasons(look(cohort))
    assert found["volumes/grid/p0000.b2nd"] == ("missing_file",)
    assert found["volumes/grid/p0001.b2nd"] == ("damaged",)
    assert found["volumes/grid/p0009.b2nd"] == ("unlisted_file",)
    assert not {"p0002", "p0003", "p0004"} & set(found)


def test_a_path_is_a_cohort_a_source_or_files(make_folder: Maker, tmp_path: Path) -> None:
    root = make_folder(2)
    grid = Preparation(name="grid", size_vox=Zyx(z=12, y=18, x=16))
    prepare(Folder(root), tmp_path / "cohort", grid, workers=0)
    assert isinstance(subject_at(tmp_path / "cohort"), Cohort)
    assert isinstance(subject_at(root), Folder)
    assert subject_at(root / "volumes") == (root / "volumes",)
    with pytest.raises(SourceError, match="no such file"):
        subject_at(tmp_path / "nothing")


# ---- loose files ---------------------------------------------------------------------------


def test_loose_files_are_scans_when_they_say_so_or_look_so(tmp_path: Path) -> None:
    for place in ("", "b"):
        (tmp_path / place).mkdir(exist_ok=True)
        nifti.write(tmp_path / place / "one.nii.gz", own(len(place)), WORLD)
    (tmp_path / "broken.nii.gz").write_bytes(b"<html>not found</html>")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.nii.gz").write_bytes(b"")
    found = look((tmp_path,))
    assert [row.volume_id for row in found.rows] == ["broken", "one", "one-0002"]
    assert reasons(found) == {"broken": ("unreadable",)}
    assert not set(found.counts) & {"no_report", "empty_text"}


def test_a_folder_without_scans_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="no scan was found"):
        look((tmp_path,))


@pytest.mark.real
def test_dicom_files_are_grouped_and_their_identifiers_stay_inside(real_data: Path) -> None:
    pytest.importorskip("pydicom")
    folder = real_data / "dicom" / "chest_lungpetctdx_A0002"
    found = look((folder,))
    assert [row.volume_id for row in found.rows] == ["scan-0001", "scan-0002"]
    assert sorted(reasons(found).values()) == [("too_small",)]  # one slice of the other kernel
    told = json.dumps(plain(found)) + repr([dict(r.examination.facts) for r in found.rows
                                            if r.examination])  # fmt: skip
    for secret in ("A0002", "Lung_Dx", "1.3.6.1", "lungpetctdx", str(real_data)):
        assert secret not in told


# ---- workers -------------------------------------------------------------------------------


def test_a_dead_worker_is_the_reason_of_its_file_only(
    make_own: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(function: Any, tasks: Any, **_: Any) -> Iterator[Any]:
        for task in tasks:
            if task.volume_id == "p0001":
                yield Lost(task, -9, "out_of_memory", "the worker process needed more than 1 MB")
            else:
                yield Done(task, function(task))

    monkeypatch.setattr(module.engine, "run", run)
    found = look(Folder(make_own(3)))
    assert reasons(found) == {"p0001": ("out_of_memory",)}
    assert next(r for r in found.rows if r.volume_id == "p0001").examination is None


def test_only_the_gravest_keep_their_pictures_whatever_the_order(tmp_path: Path) -> None:
    volume = patient(0).volume
    for name, voxels in (
        ("a", volume.voxels),
        ("b", volume.voxels[::-1]),
        ("c", volume.voxels[:, ::-1]),
        ("d", volume.voxels[..., 4:]),
    ):
        nifti.write(tmp_path / f"{name}.nii.gz", np.ascontiguousarray(voxels),
                    volume.world_from_voxel)  # fmt: skip
    paths = sorted(tmp_path.iterdir())
    for order in (paths, paths[::-1]):
        found = audit(order, workers=0, keep=2)
        kept = [r.volume_id for r in found.rows if r.examination and r.examination.planes]
        assert kept == ["b", "c"]


def test_progress_is_told_for_every_scan(make_folder: Maker) -> None:
    told: list[tuple[int, int]] = []
    audit(
        Folder(make_folder(3)), workers=0, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
