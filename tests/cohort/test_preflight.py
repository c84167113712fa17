"""Before the work: workers by memory, room on the disk, and rates that count what they say."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from made_folder import WORLD
from t3d.cohort import preflight
from t3d.cohort.preflight import (
    MB,
    Preflight,
    Standing,
    duration,
    free_memory_mb,
    look_ahead,
    megabytes_of,
    pool_size,
)
from t3d.cohort.prepare import prepare
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.ct import nifti
from t3d.ct.door import open_scan
from t3d.errors import StoreError
from t3d.show.terminal import Progress
from t3d.types import Preparation, Series, Zyx

MakeFolder = Callable[..., Path]
AHEAD = Preflight(
    studies=10,
    source_mb=700.0,
    workers=2,
    need_mb=200.0,
    free_mb=8000.0,
    stored_mb=50.0,
    disk_free_mb=1500.0,
    seconds=95.0,
)


@pytest.mark.parametrize(
    ("cores", "free_mb", "need_mb", "workers"),
    [(8, 4000, 1000, 3), (2, 4000, 1000, 2), (8, 100, 1000, 1), (64, 64_000, 200, 64)],
)
def test_as_many_workers_as_cores_and_memory_allow(
    cores: int, free_mb: float, need_mb: float, workers: int
) -> None:
    assert pool_size(cores, free_mb, need_mb) == workers


def write_group(folder: Path, told: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in told.items():
        (folder / name).write_text(text)


def test_a_control_group_leaves_its_limit_less_what_cannot_be_dropped(tmp_path: Path) -> None:
    for name, limit, used in (("a", "3000000000", "900000000"), ("", "max", "5")):
        files = {"memory.max": limit, "memory.current": used, "memory.stat": "inactive_file 4\n"}
        write_group(tmp_path / "v2" / name, files)
    (tmp_path / "of_me").write_text("0::/a\n")
    found = list(preflight._left_in_groups(tmp_path / "of_me", tmp_path / "v2"))
    assert found == [pytest.approx((3_000_000_000 - 900_000_000 + 4) / MB)]
    files = {"memory.limit_in_bytes": "2000000000", "memory.usage_in_bytes": "1500000000"}
    files["memory.stat"] = "cache 7\ntotal_inactive_file 500000000\n"
    write_group(tmp_path / "v1" / "memory" / "job", files)
    (tmp_path / "of_me").write_text("7:pids:/x\n4:memory:/job\n")
    assert list(preflight._left_in_groups(tmp_path / "of_me", tmp_path / "v1")) == [1000.0]
    assert list(preflight._left_in_groups(tmp_path / "none", tmp_path)) == []


def test_free_memory_is_that_of_this_machine() -> None:
    told = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) for line in told if line.startswith("MemTotal"))
    assert 0 < free_memory_mb() <= total * 1024 / MB


def test_sizes_of_many_files_are_judged_by_a_few_of_them(tmp_path: Path) -> None:
    files = []
    for number in range(40):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(b"x" * 1000)
    series = Series(series_id="s", files=tuple(files))
    assert megabytes_of([series]) == pytest.approx(40_000 / MB)
    gone = Series(series_id="g", files=(tmp_path / "gone",))
    assert megabytes_of([gone, series]) == pytest.approx(40_000 / MB)


def scan(path: Path, shape: tuple[int, int, int], tilt: float = 0.0) -> Series:
    world = WORLD.copy()
    world[1, 0] = 6.0 * tilt  # slices drift along y, as under a tilted gantry
    nifti.write(path, np.zeros(shape, np.int16), world)
    return Series(series_id=path.name, files=(path,))


def test_memory_and_disk_follow_from_headers_and_the_preparation(tmp_path: Path) -> None:
    small = Preparation(name="small", size_vox=Zyx(z=10, y=20, x=30))
    large = dataclasses.replace(small, size_vox=Zyx(z=100, y=200, x=300))
    one = scan(tmp_path / "a.nii", (40, 64, 80))
    two = (scan(tmp_path / "b.nii", (40, 64, 80)), one)

    def ahead(series: tuple[Series, ...], preparation: Preparation) -> Preflight:
        return look_ahead(
            [series], [megabytes_of(series)], preparation, tmp_path / "not" / "yet", workers=0
        )

    told = ahead((one,), small)
    expected = 60 * 64 * 80 + 8 * 6000  # planes and output, bytes
    assert told.need_mb == pytest.approx(preflight.WORKER_BASE_MB + expected / MB)
    assert told.stored_mb == pytest.approx(2 * 6000 * preflight.STORED_SHARE / MB)
    assert told.source_mb == pytest.approx((40 * 64 * 80 * 2 + 352) / MB)
    assert told.disk_free_mb == pytest.approx(shutil.disk_usage(tmp_path).free / MB, rel=0.05)
    assert ahead((one,), large).need_mb == pytest.approx(told.need_mb + 8 * 5.994)
    assert ahead(two, small).stored_mb == pytest.approx(2 * told.stored_mb)
    masked = dataclasses.replace(one, masks={"lung": one.files[0]})
    assert ahead((masked,), small).need_mb > told.need_mb
    tilted = ahead((scan(tmp_path / "t.nii", (40, 64, 80), tilt=0.3),), small)
    assert tilted.need_mb >= told.need_mb + 5 * 40 * 64 * 80 / MB


def test_the_largest_need_of_a_sample_counts_and_unreadable_files_do_not(tmp_path: Path) -> None:
    tiny = Preparation(name="tiny", size_vox=Zyx(z=8, y=8, x=8))
    todo = [(scan(tmp_path / f"{n}.nii", (10, 16, 16)),) for n in range(60)]
    todo[37] = (scan(tmp_path / "large.nii", (10, 160, 160)),)
    (tmp_path / "1.nii").write_bytes(b"no scan" * 100_000)
    sizes = [megabytes_of(series) for series in todo]
    told = look_ahead(todo, sizes, tiny, tmp_path, workers=0)
    assert told.need_mb == pytest.approx(preflight.WORKER_BASE_MB + (60 * 160**2 + 8 * 512) / MB)


def test_the_time_of_decoding_is_measured_on_some_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    @contextmanager
    def slow(series: Series) -> Iterator[object]:
        with open_scan(series.files, name=series.series_id) as file:
            real = file.slabs

            def slabs(count: int) -> Iterator[object]:
                for first, stored in real(count):
                    clock[0] += 100.0 if first == 0 else 0.5 * len(stored)  # imports; decoding
                    yield first, stored

            vars(file)["slabs"] = slabs
            yield file

    monkeypatch.setattr(preflight, "open_series", slow)
    monkeypatch.setattr(preflight, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    tiny = Preparation(name="tiny", size_vox=Zyx(z=8, y=8, x=8))
    todo = [(scan(tmp_path / f"{n}.nii", (40, 16, 16)),) for n in range(3)]
    sizes = [megabytes_of(series) for series in todo]
    told = look_ahead(todo, sizes, tiny, tmp_path, workers=0)
    assert told.seconds == pytest.approx(3 * (40 * 0.5 + 0.02), rel=1e-3)


def test_headers_are_opened_in_a_worker_and_not_here(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened_here(_: Series) -> None:
        raise AssertionError("untrusted bytes in the parent")

    monkeypatch.setattr(preflight, "open_series", opened_here)
    monkeypatch.setattr("t3d.cohort.work.open_series", opened_here)
    seen: list[Standing] = []
    made = prepare(Folder(make_folder(2)), tmp_path / "c", tiny, workers=1, progress=seen.append)
    assert made.done == 2
    assert seen[0].ahead.need_mb > preflight.WORKER_BASE_MB


def test_a_series_is_opened_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def open_scan(files: tuple[Path, ...], **given: object) -> str:
        asked.update(given, files=files)
        return "opened"

    monkeypatch.setattr("t3d.ct.door.open_scan", open_scan)
    series = Series(series_id="s", files=(Path("a"),))
    assert preflight.open_series(series) == "opened"
    assert asked == {"files": (Path("a"),), "name": "s", "override": None}
    preflight.open_series(dataclasses.replace(series, options={"gaps": "interpolate"}))
    assert asked["gaps"] == "interpolate"


def test_a_disk_that_is_too_small_is_refused_before_any_work(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(3)
    small = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(preflight, "shutil", small)
    with pytest.raises(StoreError, match="3 studies would take about") as caught:
        prepare(Folder(root), tmp_path / "c", tiny, workers=0)
    assert "ignore_disk" in caught.value.fix
    assert Cohort.open(tmp_path / "c").studies() == ()
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0, ignore_disk=True).done == 3
    # Nothing left to do needs no room.
    assert prepare(Folder(root), tmp_path / "c", tiny, workers=0).skipped == 3


def test_the_line_says_what_the_run_will_need() -> None:
    assert AHEAD.line == (
        "10 studies, 700 MB: about 2 min on 2 cores; memory 200 MB a worker of 8.0 GB free; "
        "disk 50 MB of 1.5 GB free"
    )
    assert dataclasses.replace(AHEAD, studies=0).line == "nothing left to do"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (36_000, "10.0 h")]
)
def test_times_are_told_in_the_unit_a_person_would_use(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_rates_count_only_what_this_run_worked_on() -> None:
    standing = Standing(
        done=105,  # a hundred were there already
        total=110,
        failed=1,
        worked=5,
        megabytes=50.0,
        total_megabytes=100.0,
        seconds=10.0,
        ahead=AHEAD,
    )
    assert (standing.studies_per_s, standing.mb_per_s) == (0.5, 5.0)
    assert standing.remaining_s == 10.0
    assert standing.note == "5.0 MB/s, 1 set aside, 10 s left"
    before = dataclasses.replace(standing, worked=0, megabytes=0.0, seconds=0.0, failed=0)
    assert (before.studies_per_s, before.mb_per_s) == (0.0, 0.0)
    assert before.remaining_s == AHEAD.seconds


def test_progress_counts_every_study_once_and_ends_at_the_total(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(5)
    prepare(Folder(make_folder(2, name="part")), tmp_path / "c", tiny, workers=0)
    (root / "volumes" / "p0003.nii.gz").write_bytes(b"broken")
    seen: list[Standing] = []
    prepare(Folder(root), tmp_path / "c", tiny, workers=0, progress=seen.append)
    assert [s.done for s in seen] == [0, 1, 2, 3, 4, 5]
    assert [s.worked for s in seen] == [0, 0, 0, 1, 2, 3]
    last = seen[-1]
    assert (last.total, last.failed, last.ahead.studies) == (5, 1, 3)
    assert last.megabytes == pytest.approx(last.total_megabytes)
    paths = [root / "volumes" / f"p000{n}.nii.gz" for n in (2, 3, 4)]
    assert last.megabytes == pytest.approx(sum(p.stat().st_size for p in paths) / MB)


def shown(told: list[tuple[object, ...]]) -> str:
    """What a bar writes where there is no terminal."""
    progress = Progress("prepare")
    text = io.StringIO()
    progress.board.console = Console(file=text, width=200)
    progress.board.live = False
    with progress:
        for arguments in told:
            progress.update(*arguments)  # type: ignore[arg-type]
    return text.getvalue()


def test_a_bar_tells_what_lies_ahead_once_and_then_rates_and_time_left() -> None:
    start = Standing(
        done=0,
        total=2,
        failed=0,
        worked=0,
        megabytes=0.0,
        total_megabytes=8.0,
        seconds=0.0,
        ahead=AHEAD,
    )
    end = dataclasses.replace(start, done=2, worked=2, megabytes=8.0, seconds=4.0, failed=1)
    lines = shown([(start,), (end,)]).splitlines()
    assert lines[0] == f"{'prepare':16} {AHEAD.line}"
    assert "0/2" in lines[1]
    assert "95 s" not in lines[1]
    assert lines[1].endswith("2 min left")
    assert lines[2].endswith("0.5 studies/s 2.0 MB/s, 1 set aside")
    assert len(lines) == 3


def test_a_bar_still_takes_two_numbers() -> None:
    assert shown([(1, 3), (3, 3)]).count("/3") == 2
