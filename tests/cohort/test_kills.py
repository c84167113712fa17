"""Killed workers, killed parents, full and read-only disks, damaged files: nothing lost.

Disks are filled in three ways, none of which needs rights: RLIMIT_FSIZE (a file may not grow, a
real error of the system), SQLite's own limit of pages (its real "disk is full"), and a
monkeypatched fsync that raises ENOSPC.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from t3d.cohort import shelf
from t3d.cohort.prepare import PrepareSummary, prepare
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.errors import StoreError
from t3d.types import Preparation, Zyx

MakeFolder = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]

# Prepares, and at given numbers of studies sends SIGKILL to a worker or to itself.
RUN = """
import json, multiprocessing, os, signal, sys
from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.types import Preparation, Zyx

def main(source, out, size, kills):
    def tell(standing):
        while kills and standing.worked >= kills[0][0]:
            number, whom = kills.pop(0)
            workers = sorted(child.pid for child in multiprocessing.active_children())
            pid = os.getpid() if whom == "parent" else workers[number % len(workers)]
            print("killed", whom, flush=True)
            os.kill(pid, signal.SIGKILL)

    made = prepare(
        Folder(source), out, Preparation(name="tiny", size_vox=Zyx(*size)), workers=2, progress=tell
    )
    print(json.dumps([made.done, made.skipped, dict(made.failed)]), flush=True)

if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
"""


def run_and_kill(
    source: Path, out: Path, size: Sequence[int], kills: Sequence[tuple[int, str]], script: Path
) -> tuple[int, list[str]]:
    """Run once; give the exit code and what was said."""
    script.write_text(RUN)
    told = [json.dumps(value) for value in (str(source), str(out), list(size), list(kills))]
    done = subprocess.run(
        [sys.executable, str(script), *told],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=1200,
    )
    return done.returncode, done.stdout.splitlines()


def prepare_under_fire(
    source: Path, out: Path, size: Sequence[int], rounds: Sequence[Sequence[tuple[int, str]]]
) -> int:
    """Run until a run comes to its end; give how many signals were sent."""
    sent = 0
    for number, kills in enumerate(rounds):
        code, lines = run_and_kill(source, out, size, kills, out.with_suffix(".py"))
        sent += sum(line.startswith("killed") for line in lines)
        last = number == len(rounds) - 1
        assert code == (0 if last else -signal.SIGKILL)
    done, skipped, failed = json.loads(lines[-1])
    assert failed == {}
    assert skipped > 0 or len(rounds) <= 2  # earlier runs got somewhere
    assert done > 0
    return sent


def assert_same(found: Path, expected: Path, count: int) -> None:
    """Compare a cohort that went through something with one that did not."""
    cohort, whole = Cohort.open(found), Cohort.open(expected)
    assert cohort.failures() == ()
    assert len(cohort.studies()) == len({row.study_id for row in cohort.studies()}) == count
    assert cohort.counts == whole.counts
    assert cohort.counts["volume"] == count
    assert cohort.verify() == ()
    assert sorted(files_of(found)) == sorted(files_of(expected))
    assert cohort.digest == whole.digest


def files_of(cohort: Path) -> Iterator[tuple[str, bytes]]:
    """Every volume and mask file, byte by byte."""
    for folder in ("volumes", "masks"):
        for path in (cohort / folder).rglob("*.*"):
            yield path.relative_to(cohort).as_posix(), path.read_bytes()


def test_three_kills_lose_nothing_and_repeat_nothing(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(30)
    rounds = [[(4, "worker"), (12, "parent")], [(8, "worker")]]
    assert prepare_under_fire(root, tmp_path / "killed", (8, 9, 10), rounds) == 3
    prepare(Folder(root), tmp_path / "whole", tiny, workers=0)
    assert_same(tmp_path / "killed", tmp_path / "whole", 30)


@pytest.mark.slow
def test_twenty_kills_among_two_thousand_phantoms_lose_nothing(tmp_path: Path) -> None:
    from t3d.phantom.layouts import write_folder
    from t3d.phantom.presets import DEMO

    write_folder(
        tmp_path / "source", DEMO, train=1600, dev=200, test=200, workers=2, masks=("test",)
    )
    # Fifteen workers and five parents; a batch of 256 studies is committed before each parent.
    fire = [(60, "worker"), (130, "worker"), (210, "worker"), (300, "parent")]
    rounds = [fire, fire, fire, fire, fire, []]
    assert prepare_under_fire(tmp_path / "source", tmp_path / "killed", (8, 16, 16), rounds) == 20
    tiny = Preparation(name="tiny", size_vox=Zyx(8, 16, 16))
    prepare(Folder(tmp_path / "source"), tmp_path / "whole", tiny, workers=2)
    assert_same(tmp_path / "killed", tmp_path / "whole", 2000)


def test_what_a_dead_worker_had_staged_is_tidied_up(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    stray = tmp_path / "c" / "volumes" / "tiny" / "p0001.b2nd.4242.tmp"

    def left_by_another(standing: object) -> None:
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_bytes(b"half")

    prepare(Folder(root), tmp_path / "c", tiny, workers=0, progress=left_by_another)
    assert not stray.exists()
    assert Cohort.open(tmp_path / "c").verify() == ()


@contextmanager
def files_no_larger_than(num_bytes: int) -> Iterator[None]:
    """Let no file of this process or its children grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def room_then_whole(root: Path, out: Path, preparation: Preparation, whole: Path) -> PrepareSummary:
    """Run again with room on the disk, and once elsewhere for comparison."""
    prepare(Folder(root), whole, preparation, workers=0)
    return prepare(Folder(root), out, preparation, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_cannot_be_written_stops_the_run_and_is_no_fault_of_the_study(
    make_folder: MakeFolder, tmp_path: Path, workers: int
) -> None:
    root = make_folder(4)
    large = Preparation(name="large", size_vox=Zyx(z=64, y=96, x=96))  # packed: over 300 kB
    with (
        files_no_larger_than(200 << 10),
        pytest.raises(StoreError, match=r"p000\d\.b2nd cannot be written: File too large"),
    ):
        prepare(Folder(root), tmp_path / "c", large, workers=workers)
    assert Cohort.open(tmp_path / "c").failures() == ()
    assert Cohort.open(tmp_path / "c").verify() == ()
    made = room_then_whole(root, tmp_path / "c", large, tmp_path / "whole")
    assert (made.done, made.skipped) == (4, 0)
    assert_same(tmp_path / "c", tmp_path / "whole", 4)


def test_a_disk_that_fills_up_half_way_keeps_what_was_done(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(5)
    real, syncs = os.fsync, [0]

    def full(handle: int) -> None:
        syncs[0] += 1
        if syncs[0] == 6:  # the preparation, then two files a study: in the third study
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(shelf.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    monkeypatch.undo()
    assert "goes on where it was" in caught.value.fix
    cohort = Cohort.open(tmp_path / "c")
    assert [row.study_id for row in cohort.studies()] == ["p0000", "p0001"]
    assert (cohort.failures(), cohort.verify()) == ((), ())
    cohort.close()
    made = room_then_whole(root, tmp_path / "c", tiny, tmp_path / "whole")
    assert (made.done, made.skipped) == (3, 2)
    assert_same(tmp_path / "c", tmp_path / "whole", 5)


def test_tables_that_cannot_grow_are_an_error_and_running_again_goes_on(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(30)
    prepare(Folder(make_folder(1, name="first")), tmp_path / "c", tiny, workers=0)
    real = CohortWriter._set_up

    def narrow(writer: CohortWriter) -> None:
        real(writer)
        (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
        writer._connection.execute(f"PRAGMA max_page_count = {pages + 3}")

    monkeypatch.setattr(CohortWriter, "_set_up", narrow)
    with pytest.raises(StoreError, match=r"tables cannot be written \(database or disk is full\)"):
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    monkeypatch.undo()
    assert Cohort.open(tmp_path / "c").verify() == ()
    made = room_then_whole(root, tmp_path / "c", tiny, tmp_path / "whole")
    assert made.done > 0
    assert_same(tmp_path / "c", tmp_path / "whole", 30)


@contextmanager
def nobody_may_write(folder: Path) -> Iterator[None]:
    """Take away the right to write: by the folder's mode, and for root by being nobody."""
    mode, root = folder.stat().st_mode, os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


def test_a_target_that_may_not_be_written_is_an_error_and_stays_as_it_was(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(2)
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    digest = Cohort.open(tmp_path / "c").digest
    for target in (tmp_path / "c", tmp_path / "new"):
        source = Folder(root)
        place = target if target.exists() else tmp_path
        with nobody_may_write(place), pytest.raises(StoreError, match="cannot be written") as told:
            prepare(source, target, tiny, workers=0)
        assert "Permission denied" in str(told.value)
    assert not (tmp_path / "new").exists()
    assert Cohort.open(tmp_path / "c").digest == digest


def test_a_cohort_on_a_disk_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("t3d.cohort.writer.fcntl.flock", no_locks)
    with pytest.raises(StoreError, match="cannot be locked: No locks available"):
        CohortWriter(tmp_path / "c").__enter__()


def test_a_truncated_volume_is_an_error_that_costs_nothing_else(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(3)
    prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    cohort = Cohort.open(tmp_path / "c")
    digest = cohort.digest
    path = shelf.volume_path(cohort.path, "tiny", "p0001")
    whole = path.read_bytes()
    for kept in {0, 1, 8, 40, 100, 200, *range(0, len(whole), 97), len(whole) - 1}:
        path.write_bytes(whole[:kept])
        with pytest.raises(StoreError, match=r"p0001\.b2nd of preparation tiny is damaged"):
            cohort.volume("p0001")
        with pytest.raises(StoreError, match="damaged"):
            cohort.crop("p0001", Zyx(0, 0, 0), Zyx(2, 2, 2))
    assert cohort.verify() == ("volumes/tiny/p0001.b2nd: changed since it was written",)
    assert cohort.volume("p0002").voxels.shape == (8, 9, 10)
    path.unlink()  # what the error says
    made = prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert (made.done, made.skipped) == (1, 2)
    assert (cohort.verify(), cohort.digest) == ((), digest)


def test_a_header_that_promises_another_array_is_damage(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    import numpy as np

    prepare(Folder(make_folder(1)), tmp_path / "c", tiny, workers=0)
    cohort = Cohort.open(tmp_path / "c")
    path = shelf.volume_path(cohort.path, "tiny", "p0000")
    path.write_bytes(shelf.pack(np.zeros((9, 9, 10), np.int16), {}))
    with pytest.raises(StoreError, match="damaged"):
        cohort.volume("p0000")
