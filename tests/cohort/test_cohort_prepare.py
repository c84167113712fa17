"""Preparing: same digest whatever happened on the way, every failure counted with its reason."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from made_folder import WORLD, body, rows_of, write_table
from t3d.cohort import engine, records, work
from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.ct import nifti
from t3d.ct.door import open_scan
from t3d.ct.regrid import regrid
from t3d.ct.slices import Slices
from t3d.errors import SourceError, StoreError
from t3d.types import Preparation, Series, Zyx

MakeFolder = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]


def test_a_prepared_study_can_be_read_back_whole(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(4)
    summary = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert (summary.done, summary.skipped, dict(summary.failed)) == (4, 0, {})
    cohort = Cohort.open(tmp_path / "c")
    study = next(Folder(root).studies())
    (row,) = (r for r in cohort.studies("train") if r.study_id == "p0000")
    assert row.volume_ids == ("p0000",)
    assert (row.patient_id, row.split) == ("patient0", "train")
    assert row.labels == dict(study.labels)
    assert row.facts == {"sex": "F"}
    assert cohort.report("p0000") == study.reports[0]
    assert cohort.sentences("p0000") == study.sentences
    assert cohort.items("p0000") == study.items
    expected = regrid(root / "volumes" / "p0000.nii.gz", tiny)
    volume = cohort.volume("p0000")
    assert np.array_equal(volume.voxels, expected.voxels)
    assert np.array_equal(volume.world_from_voxel, expected.world_from_voxel)
    assert np.array_equal(cohort.world_from_voxel("p0000"), expected.world_from_voxel)
    assert volume.steps == expected.steps
    low, high = Zyx(z=2, y=0, x=3), Zyx(z=5, y=9, x=10)
    assert np.array_equal(cohort.crop("p0000", low, high), volume.voxels[2:5, 0:9, 3:10])
    mask = cohort.mask("p0000", "body")
    assert mask is not None
    assert mask.shape == volume.voxels.shape
    assert mask.dtype == np.uint8
    # Inside the body the CT is near 40 HU, outside it is air: both came the same way.
    assert np.median(volume.voxels[mask == 1]) > 0
    assert cohort.mask("p0000", "liver") is None
    assert cohort.facts["licence"] == "CC0"
    assert cohort.facts["synthetic"] == "true"
    assert cohort.sources()["p0000"]["file"] == "volumes/p0000.nii.gz"
    assert cohort.preparations == {"tiny": tiny}
    assert cohort.verify() == ()


def test_workers_and_batches_change_nothing(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(9)
    told: list[tuple[int, int]] = []
    prepare(Folder(root), tmp_path / "one", tiny, workers=0)
    summary = prepare(
        Folder(root),
        tmp_path / "two",
        tiny,
        workers=2,
        progress=lambda standing: told.append((standing.done, standing.total)),
    )
    assert summary.done == 9
    assert told == [(n, 9) for n in range(10)]
    assert Cohort.open(tmp_path / "one").digest == Cohort.open(tmp_path / "two").digest


def test_a_second_run_has_nothing_to_do(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    digest = Cohort.open(tmp_path / "c").digest
    files = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "c" / "volumes").rglob("*"))
    summary = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert (summary.done, summary.skipped) == (0, 3)
    assert Cohort.open(tmp_path / "c").digest == digest
    assert files == sorted(
        (p, p.stat().st_mtime_ns) for p in (tmp_path / "c" / "volumes").rglob("*")
    )


def test_new_studies_are_appended_and_the_digest_is_that_of_one_run(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    prepare(Folder(root), tmp_path / "grown", tiny, workers=0)
    make_folder(2, first=3)
    summary = prepare(Folder(root), tmp_path / "grown", tiny, workers=0)
    assert (summary.done, summary.skipped) == (2, 3)
    prepare(Folder(root), tmp_path / "once", tiny, workers=0)
    assert Cohort.open(tmp_path / "grown").digest == Cohort.open(tmp_path / "once").digest


def test_a_cohort_holds_several_preparations(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    flat = Preparation(name="flat", size_vox=Zyx(z=3, y=9, x=10), filter="linear")
    for preparation in (tiny, flat):
        assert prepare(Folder(root), tmp_path / "c", preparation, workers=0).done == 2
    cohort = Cohort.open(tmp_path / "c")
    assert sorted(cohort.preparations) == ["flat", "tiny"]
    assert cohort.volume("p0000", "flat").voxels.shape == (3, 9, 10)
    assert cohort.volume("p0000", "tiny").voxels.shape == (8, 9, 10)
    with pytest.raises(StoreError, match="no preparation named") as caught:
        cohort.volume("p0000")
    assert "flat, tiny" in str(caught.value)
    assert cohort.studies()[0].volume_ids == ("p0000",)
    assert cohort.counts["report"] == 2
    with pytest.raises(StoreError, match="other settings"):
        prepare(Folder(root), tmp_path / "c", dataclasses.replace(flat, filter="area"), workers=0)


def test_each_failed_study_is_set_aside_with_its_reason(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(9)
    volumes = root / "volumes"
    (volumes / "p0000.nii.gz").unlink()
    (volumes / "p0001.nii.gz").write_bytes(b"<!doctype html>")
    (volumes / "p0002.nii.gz").write_bytes((volumes / "p0002.nii.gz").read_bytes()[:-9])
    nifti.write(volumes / "p0003.nii.gz", np.full((12, 18, 16), -1000, np.int16), WORLD)
    nifti.write(volumes / "p0004.nii.gz", body(4) + np.int16(1024), WORLD)
    nifti.write(volumes / "p0005.nii.gz", body(5)[:3], WORLD)
    nifti.write(root / "masks" / "p0006_body.nii.gz", np.zeros((12, 18, 15), np.uint8), WORLD)
    (volumes / "extra.nii.gz").write_bytes(b"")
    summary = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    expected = {
        "bad_affine": 1,
        "constant": 1,
        "hu_implausible": 1,
        "missing_file": 1,
        "too_small": 1,
        "unlisted_file": 1,
        "unreadable": 2,
    }
    assert dict(summary.failed) == expected
    assert summary.done == 2
    cohort = Cohort.open(tmp_path / "c")
    assert {f.study_id: f.reason for f in cohort.failures()} == {
        "extra": "unlisted_file",
        "p0000": "missing_file",
        "p0001": "unreadable",
        "p0002": "unreadable",
        "p0003": "constant",
        "p0004": "hu_implausible",
        "p0005": "too_small",
        "p0006": "bad_affine",
    }
    told = " ".join(f.message for f in cohort.failures())
    assert str(tmp_path) not in told
    assert "patient" not in told
    assert [r.study_id for r in cohort.studies()] == ["p0007", "p0008"]
    assert cohort.verify() == ()
    again = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert (again.done, again.skipped) == (0, 9)


def test_a_study_that_the_mended_table_lists_is_prepared_without_being_asked_for_again(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root, out = make_folder(3), tmp_path / "c"
    rows = rows_of(root)
    write_table(root, rows[:2])
    assert prepare(Folder(root), out, tiny, workers=0).failed == {"unlisted_file": 1}
    assert [one.study_id for one in Cohort.open(out).failures()] == ["p0002"]
    write_table(root, rows)
    again = prepare(Folder(root), out, tiny, workers=0)
    assert (again.done, again.skipped, dict(again.failed)) == (1, 2, {})
    prepare(Folder(root), tmp_path / "once", tiny, workers=0)
    assert Cohort.open(out).digest == Cohort.open(tmp_path / "once").digest


def test_a_mended_study_whose_file_is_broken_is_set_aside_for_that_reason_alone(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root, out = make_folder(2), tmp_path / "c"
    rows = rows_of(root)
    volume = root / "volumes" / "p0001.nii.gz"
    volume.write_bytes(volume.read_bytes()[:-9])
    write_table(root, rows[:1])
    prepare(Folder(root), out, tiny, workers=0)
    write_table(root, rows)
    assert prepare(Folder(root), out, tiny, workers=0).failed == {"unreadable": 1}
    assert [one.reason for one in Cohort.open(out).failures()] == ["unreadable"]
    assert prepare(Folder(root), out, tiny, workers=0).failed == {}


def test_what_failed_is_tried_again_when_asked(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    held = (root / "volumes" / "p0001.nii.gz").read_bytes()
    (root / "volumes" / "p0001.nii.gz").write_bytes(held[:-9])
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).failed == {"unreadable": 1}
    (root / "volumes" / "p0001.nii.gz").write_bytes(held)
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).done == 0
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0, retry_failed=True).done == 1
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.failures() == ()
    prepare(Folder(root), tmp_path / "once", tiny, workers=0)
    assert cohort.digest == Cohort.open(tmp_path / "once").digest


def test_a_file_that_was_missing_is_prepared_as_soon_as_it_is_there(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    held = (root / "volumes" / "p0001.nii.gz").read_bytes()
    (root / "volumes" / "p0001.nii.gz").unlink()
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).failed == {"missing_file": 1}
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).skipped == 2
    (root / "volumes" / "p0001.nii.gz").write_bytes(held)
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).done == 1
    prepare(Folder(root), tmp_path / "once", tiny, workers=0)
    assert Cohort.open(tmp_path / "c").digest == Cohort.open(tmp_path / "once").digest


def test_one_good_series_saves_a_study_and_the_other_is_told(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    rows = rows_of(root)
    shared = {k: rows[1][k] for k in ("patient", "split", "Lung nodule", "Pleural effusion")}
    write_table(root, [{**r, **shared, "study": "s"} for r in rows])
    (root / "volumes" / "p0000.nii.gz").write_bytes(b"broken")
    summary = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert (summary.done, dict(summary.failed)) == (1, {"unreadable": 1})
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.studies()[0].volume_ids == ("p0001",)
    (failure,) = cohort.failures()
    assert (failure.study_id, failure.volume_id) == ("s", "p0000")


class Bomb(str):
    """Ends the process that unpickles it, as running out of memory would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (3,)


def test_a_worker_that_dies_is_that_studys_failure(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    class Deadly(Folder):
        def studies(self):  # type: ignore[no-untyped-def]
            for study in super().studies():
                if study.study_id == "p0002":
                    (series,) = study.series
                    deadly = dataclasses.replace(series, facts={"kernel": Bomb("B")})
                    study = dataclasses.replace(study, series=(deadly,))
                yield study

    summary = prepare(Deadly(make_folder(6)), tmp_path / "c", tiny, workers=2)
    assert summary.done == 5
    assert dict(summary.failed) == {"worker_died": 1}
    cohort = Cohort.open(tmp_path / "c")
    (failure,) = cohort.failures()
    assert (failure.study_id, failure.reason) == ("p0002", "worker_died")
    assert "exit code 3" in failure.message
    assert cohort.verify() == ()


def write_large_and_empty(path: Path, shape: tuple[int, int, int], world: np.ndarray) -> None:
    """A sound header and a hole of zeros behind it: large to read, nothing on the disk."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape[::-1])
    header.set_sform(np.diag([-1, -1, 1, 1]) @ world[:, [2, 1, 0, 3]], 1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path.write_bytes(header.binaryblock + bytes(4))
    os.truncate(path, 352 + 2 * int(np.prod(shape)))


def test_a_file_over_the_memory_ceiling_is_that_studys_failure(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    (root / "volumes" / "p0001.nii.gz").unlink()
    (root / "masks" / "p0001_body.nii.gz").unlink()
    tilted = WORLD.copy()
    tilted[1, 0] = 2.0  # read whole, to be turned
    write_large_and_empty(root / "volumes" / "p0001.nii", (300, 1024, 1024), tilted)
    summary = prepare(Folder(root), tmp_path / "c", tiny, workers=1, memory_mb=500)
    assert (summary.done, dict(summary.failed)) == (2, {"out_of_memory": 1})
    (failure,) = Cohort.open(tmp_path / "c").failures()
    assert failure.study_id == "p0001"


class Sleeper(str):
    """Hangs the process that unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return time.sleep, (600,)


def test_a_study_that_takes_too_long_is_its_own_failure(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(Folder):
        def studies(self):  # type: ignore[no-untyped-def]
            for study in super().studies():
                if study.study_id == "p0001":
                    (series,) = study.series
                    series = dataclasses.replace(series, facts={"kernel": Sleeper("B")})
                    study = dataclasses.replace(study, series=(series,))
                yield study

    monkeypatch.setattr(engine, "TASK_SECONDS", 3.0)
    summary = prepare(Endless(make_folder(3)), tmp_path / "c", tiny, workers=1)
    assert (summary.done, dict(summary.failed)) == (2, {"out_of_time": 1})
    (failure,) = Cohort.open(tmp_path / "c").failures()
    assert failure.study_id == "p0001"
    assert "3 s" in failure.message


def test_an_error_of_a_library_is_named_by_its_place_and_quotes_nothing(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(series: Series) -> None:
        raise KeyError("Jane Doe, born 1.2.1950")

    monkeypatch.setattr(work, "open_series", broken)
    prepare(Folder(make_folder(1)), tmp_path / "c", tiny, workers=0)
    (failure,) = Cohort.open(tmp_path / "c").failures()
    assert failure.reason == "unreadable"
    assert failure.message.startswith("KeyError at test_cohort_prepare.py:")
    assert "Jane" not in failure.message


@contextmanager
def as_dicom(series: Series) -> Iterator[Slices]:
    """Open a file as if it were a DICOM series: with instance numbers and facts."""
    with open_scan(series.files, name=series.series_id) as file:
        # Number 5 occurs twice: it cites no one place.
        file.instances = ((3, 30.0), (1, 10.0), (5, 50.0), (2, 20.0), (5, 56.0))
        vars(file)["facts"] = {"kernel": "B30f", "phase": "arterial"}
        yield file


def test_slices_and_facts_of_the_opened_series_are_recorded(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(Folder):
        def studies(self):  # type: ignore[no-untyped-def]
            for study in super().studies():
                (series,) = study.series
                series = dataclasses.replace(series, facts={"phase": "portal"})
                yield dataclasses.replace(study, series=(series,))

    root = make_folder(2)
    prepare(Told(root), tmp_path / "plain", tiny, workers=0)
    monkeypatch.setattr(work, "open_series", as_dicom)
    prepare(Told(root), tmp_path / "c", tiny, workers=0)
    flat = Preparation(name="flat", size_vox=Zyx(z=3, y=9, x=10))
    prepare(Told(root), tmp_path / "c", flat, workers=0)  # the same slices a second time
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.slices("p0000") == ((1, 10.0), (2, 20.0), (3, 30.0))
    assert cohort.slices("nobody") == ()
    assert cohort.counts["slice"] == 6
    # Where both speak, the source's word counts: it may have corrected the file.
    assert cohort.volume_facts("p0000", "tiny") == {"kernel": "B30f", "phase": "portal"}
    plain = Cohort.open(tmp_path / "plain")
    assert plain.slices("p0000") == ()
    assert plain.volume_facts("p0000") == {"phase": "portal"}


def test_bounded_loss_keeps_every_voxel_within_its_bound_and_says_so(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    prepare(Folder(root), tmp_path / "exact", tiny, workers=0)
    prepare(Folder(root), tmp_path / "loss", tiny, workers=0, loss_hu=1)
    exact, loss = Cohort.open(tmp_path / "exact"), Cohort.open(tmp_path / "loss")
    for name in ("p0000", "p0001"):
        given, kept = exact.volume(name), loss.volume(name)
        error = np.abs(kept.voxels.astype(int) - given.voxels)
        assert error.max() == 1
        inside = (kept.voxels > given.voxels.min()) & (kept.voxels < given.voxels.max())
        assert np.all(kept.voxels[inside] % 2 == 0)
        assert kept.steps == (*given.steps, "kept in steps of 2 HU, error at most 1 HU")
        mask, same = exact.mask(name, "body"), loss.mask(name, "body")
        assert mask is not None
        assert same is not None
        assert np.array_equal(mask, same)
    assert "loss_hu" not in (tmp_path / "exact" / "preparations" / "tiny.json").read_text()
    assert loss.preparations == {"tiny": tiny}
    for other in (0, 2):
        with pytest.raises(StoreError, match="other settings"):
            prepare(Folder(root), tmp_path / "loss", tiny, workers=0, loss_hu=other)
    with pytest.raises(StoreError, match="other settings"):
        prepare(Folder(root), tmp_path / "exact", tiny, workers=0, loss_hu=1)
    assert prepare(Folder(root), tmp_path / "loss", tiny, workers=0, loss_hu=1).skipped == 2


def test_a_loss_that_is_none_we_allow_stops_the_run_and_sets_nothing_aside(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    with pytest.raises(StoreError, match="an error of 99 HU"):
        prepare(Folder(make_folder(2)), tmp_path / "c", tiny, workers=0, loss_hu=99)
    assert Cohort.open(tmp_path / "c").failures() == ()


def test_a_volume_whose_file_was_lost_is_made_again(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    digest = Cohort.open(tmp_path / "c").digest
    (tmp_path / "c" / "volumes" / "tiny" / "p0000.b2nd").unlink()
    (tmp_path / "c" / "masks" / "tiny" / "p0002.body.b2nd").unlink()
    summary = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert (summary.done, summary.skipped) == (2, 1)
    cohort = Cohort.open(tmp_path / "c")
    assert (cohort.verify(), cohort.digest) == ((), digest)


def test_a_patient_in_two_splits_is_refused_before_any_work(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(4)
    rows = rows_of(root)
    rows[1]["patient"] = rows[0]["patient"]
    write_table(root, rows)
    with pytest.raises(SourceError, match="split_leak: 1 studies") as caught:
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert "patient0" not in str(caught.value)
    assert Cohort.open(tmp_path / "c").studies() == ()


def test_a_patient_in_two_splits_is_refused_across_runs(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    first, second = make_folder(2, name="a"), make_folder(4, name="b")
    prepare(Folder(first), tmp_path / "c", tiny, workers=0)
    rows = rows_of(second)
    write_table(second, [{**rows[3], "patient": "patient1"}])
    (second / "positions.jsonl").unlink()
    (second / "items.jsonl").unlink()
    with pytest.raises(SourceError, match="split_leak"):
        prepare(Folder(second), tmp_path / "c", tiny, workers=0)


def test_a_recorded_study_that_reads_differently_is_refused(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    rows = rows_of(root)
    rows[1]["Lung nodule"] = "0"
    write_table(root, rows)
    with pytest.raises(StoreError, match="1 studies read differently"):
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)


KILLED = """
import signal
import sys
from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.types import Preparation, Zyx

def tell(standing):
    print(standing.done, flush=True)
    if standing.done == 5:
        sys.stdin.readline()  # nobody writes: the run stands here until it is killed

if __name__ == "__main__":
    # Whoever starts the tests in the background leaves SIGINT ignored, and Python keeps it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tiny = Preparation(name="tiny", size_vox=Zyx(z=8, y=9, x=10))
    prepare(Folder(sys.argv[1]), sys.argv[2], tiny, workers=1, progress=tell)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_to_the_same_digest(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, how: signal.Signals
) -> None:
    root = make_folder(40)
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    arguments = [sys.executable, str(script), str(root), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        for _ in range(6):  # five studies are finished, none of them committed yet
            assert run.stdout.readline().strip()
        run.send_signal(how)
        run.wait(timeout=60)
    assert run.returncode != 0
    if how is signal.SIGINT:
        cohort = Cohort.open(tmp_path / "killed")
        assert cohort.verify() == ()
        assert len(cohort.studies()) >= 5
        cohort.close()
    summary = prepare(Folder(root), tmp_path / "killed", tiny, workers=0)
    assert summary.done + summary.skipped == 40
    assert summary.done > 0  # it was killed before its end
    prepare(Folder(root), tmp_path / "whole", tiny, workers=0)
    killed, whole = Cohort.open(tmp_path / "killed"), Cohort.open(tmp_path / "whole")
    assert killed.digest == whole.digest
    assert killed.verify() == ()


def test_an_interrupt_between_two_rows_of_a_study_leaves_no_half_study(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(5)
    real = records.insert_volume
    calls: list[str] = []

    def interrupted(connection: object, study_id: str, *rest: object) -> None:
        calls.append(study_id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(connection, study_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(records, "insert_volume", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    monkeypatch.undo()
    cohort = Cohort.open(tmp_path / "c")
    assert [r.study_id for r in cohort.studies()] == ["p0000", "p0001"]
    assert cohort.counts["report"] == 2
    assert cohort.verify() == ()


def test_a_patient_is_forgotten_with_every_row_and_file(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(5)
    rows = rows_of(root)
    rows[1]["findings"] = rows[1]["findings"].replace("lobe.", "lobe. Secretword.")
    rows[4] |= {"patient": "patient1", "split": rows[1]["split"]}
    write_table(root, rows)
    flat = Preparation(name="flat", size_vox=Zyx(z=3, y=9, x=10))
    for preparation in (tiny, flat):
        prepare(Folder(root), tmp_path / "c", preparation, workers=0)
    (tmp_path / "c" / "cache").mkdir()
    (tmp_path / "c" / "cache" / "stem-of-all.npy").write_bytes(b"features of everybody")
    before = Cohort.open(tmp_path / "c").counts
    with CohortWriter(tmp_path / "c") as writer:
        gone = writer.forget_patient("patient1")
    assert gone.studies == gone.volumes == ("p0001", "p0004")
    assert gone.files == (
        "cache",
        *(f"masks/{p}/{v}.body.b2nd" for p in ("flat", "tiny") for v in gone.volumes),
        *(f"volumes/{p}/{v}.b2nd" for p in ("flat", "tiny") for v in gone.volumes),
    )
    expected = {"report": 2, "label": 4, "sentence": 2, "item": 2, "volume": 4, "study": 2}
    assert gone.rows == expected
    cohort = Cohort.open(tmp_path / "c")
    after = {name: before[name] - expected.get(name, 0) for name in before}
    assert cohort.counts == after
    assert cohort.verify() == ()
    left = b"".join(p.read_bytes() for p in (tmp_path / "c").rglob("*") if p.is_file())
    assert b"patient1" not in left
    assert b"Secretword" not in left
    assert b"patient2" in left
    # What is left is what a cohort made without the patient would be.
    cut = [row for row in rows if row["patient"] != "patient1"]
    write_table(root, cut)
    for name in ("positions.jsonl", "items.jsonl"):
        lines = (root / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if "p0001" not in line and "p0004" not in line]
        (root / name).write_text("".join(kept))
    for name in ("p0001", "p0004"):
        (root / "volumes" / f"{name}.nii.gz").unlink()
        (root / "masks" / f"{name}_body.nii.gz").unlink()
    for preparation in (tiny, flat):
        prepare(Folder(root), tmp_path / "without", preparation, workers=0)
    assert cohort.digest == Cohort.open(tmp_path / "without").digest


def test_slices_and_failures_go_with_the_patient(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(3)
    rows = rows_of(root)
    shared = {k: rows[1][k] for k in ("patient", "split", "Lung nodule", "Pleural effusion")}
    write_table(root, [{**rows[0], **shared, "study": "s"}, {**rows[1], "study": "s"}, rows[2]])
    (root / "volumes" / "p0000.nii.gz").write_bytes(b"broken")
    monkeypatch.setattr(work, "open_series", as_dicom)
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    cohort = Cohort.open(tmp_path / "c")
    assert [f.volume_id for f in cohort.failures()] == ["p0000"]
    with CohortWriter(tmp_path / "c") as writer:
        gone = writer.forget_patient("patient1")
    assert (gone.rows["slice"], gone.rows["failure"]) == (3, 1)
    assert cohort.slices("p0001") == ()
    assert len(cohort.slices("p0002")) == 3
    assert cohort.failures() == ()


def test_a_patient_who_is_not_there_is_an_error_that_does_not_name_him(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    prepare(Folder(make_folder(1)), tmp_path / "c", tiny, workers=0)
    with (
        CohortWriter(tmp_path / "c") as writer,
        pytest.raises(StoreError, match="no study of the patient") as caught,
    ):
        writer.forget_patient("Jane Doe")
    assert "Jane" not in str(caught.value)
    assert len(Cohort.open(tmp_path / "c").studies()) == 1


def test_a_removal_that_was_cut_off_is_finished_by_the_next_writer(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(Folder(make_folder(3)), tmp_path / "c", tiny, workers=0)
    path = tmp_path / "c" / "volumes" / "tiny" / "p0001.b2nd"
    with CohortWriter(tmp_path / "c") as writer:
        monkeypatch.setattr(CohortWriter, "_clean_up", lambda _: None)
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # killed after the rows
        writer.forget_patient("patient1")
    monkeypatch.undo()
    assert path.exists()
    with CohortWriter(tmp_path / "c"):
        pass
    assert not path.exists()
    assert Cohort.open(tmp_path / "c").verify() == ()


def test_only_one_process_writes(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(1)
    with CohortWriter(tmp_path / "c"), pytest.raises(StoreError, match="another process"):
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).done == 1


def test_tables_that_are_none_are_named_and_the_lock_is_given_back(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "cohort.sqlite").write_bytes(b"nothing of the kind" * 100)
    root = make_folder(1)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be opened"):
            prepare(Folder(root), tmp_path / "c", tiny, workers=0)


def test_an_id_with_slashes_stays_inside_its_folder(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    class Odd(Folder):
        def studies(self):  # type: ignore[no-untyped-def]
            for study in super().studies():
                (series,) = study.series
                odd = dataclasses.replace(series, series_id="../../" + series.series_id)
                yield dataclasses.replace(study, series=(odd,))

    prepare(Odd(make_folder(1)), tmp_path / "c", tiny, workers=0)
    files = [p.relative_to(tmp_path / "c") for p in (tmp_path / "c").rglob("*.b2nd")]
    assert [str(f.parent) for f in sorted(files)] == ["masks/tiny", "volumes/tiny"]
    assert Cohort.open(tmp_path / "c").volume("../../p0000").voxels.shape == (8, 9, 10)


def test_a_volume_that_two_studies_claim_goes_to_the_first(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    class Twice(Folder):
        def studies(self):  # type: ignore[no-untyped-def]
            for study in super().studies():
                yield study
                yield dataclasses.replace(study, study_id=study.study_id + "b")

    summary = prepare(Twice(make_folder(1)), tmp_path / "c", tiny, workers=0)
    assert (summary.done, dict(summary.failed)) == (1, {"duplicate_key": 1})


def test_answers_and_tasks_pickle(make_folder: MakeFolder, tmp_path: Path) -> None:
    study = next(Folder(make_folder(1)).studies())
    assert pickle.loads(pickle.dumps(study)) == study
