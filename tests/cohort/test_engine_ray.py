"""The Ray engine keeps the promises of the local one. `eval` is the task, as in its tests.

One cluster of two workers serves most tests: starting one takes some seconds.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from t3d.cohort import engine_ray
from t3d.cohort.engine import Done, Lost
from t3d.cohort.engine_ray import Shared, run
from t3d.cohort.merge import merge
from t3d.cohort.preflight import Standing
from t3d.cohort.prepare import prepare
from t3d.cohort.shards import shards_of
from t3d.cohort.sources import Folder
from t3d.cohort.store import Cohort
from t3d.errors import StoreError, T3DError
from t3d.types import Preparation

MakeFolder = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
KILL = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers, found by `run` because this process is connected to them."""
    if find_spec("ray") is None:  # not imported: it reads the environment then
        pytest.skip("the extra `ray` is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)  # never another cluster of this machine
        with engine_ray._quiet_ray() as ray, engine_ray._cluster(ray, 2):
            yield


def first_time(path: Path, then: str) -> str:
    """A task that does something when it is done for the first time, and gives True later."""
    return f"__import__('os').path.exists({str(path)!r}) or (open({str(path)!r}, 'w'), {then})"


def processes(title: str) -> list[int]:
    """Processes of this one's cluster that are called so: of no other one on this machine."""
    parent, called = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            name = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        pid = int(folder.name)
        parent[pid] = int(stat.rpartition(")")[2].split()[1])
        if title in name:
            called.append(pid)

    def ours(pid: int) -> bool:
        while pid in parent and pid != os.getpid():
            pid = parent[pid]
        return pid == os.getpid()

    return sorted(pid for pid in called if ours(pid) and pid != os.getpid())


@pytest.mark.usefixtures("cluster")
def test_every_task_has_one_outcome_and_workers_are_those_of_the_local_engine(
    capfd: pytest.CaptureFixture[str],
) -> None:
    hungry, slow = "len(bytearray(1 << 30))", "__import__('time').sleep(99)"
    tasks = [f"{n} * 2" for n in range(20)] + [hungry, slow]
    seconds = dict.fromkeys(tasks, 60.0) | {slow: 0.5}
    outcomes = list(run(eval, tasks, workers=2, memory_mb=400, seconds=seconds.__getitem__))
    assert sorted(o.value for o in outcomes if isinstance(o, Done)) == [2 * n for n in range(20)]
    lost = {o.task: (o.reason, o.message) for o in outcomes if isinstance(o, Lost)}
    assert {task: reason for task, (reason, _) in lost.items()} == {
        hungry: "out_of_memory",
        slow: "out_of_time",
    }
    assert "400 MB" in lost[hungry][1]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cluster")
def test_tasks_of_a_killed_ray_worker_are_tried_again_and_nothing_is_done_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "been here"
    kill = "__import__('os').kill(__import__('os').getppid(), 9), __import__('time').sleep(99)"
    tasks = [str(n) for n in range(12)]
    tasks.insert(3, first_time(mark, kill))
    outcomes = list(run(eval, tasks, workers=2))
    assert sorted(o.task for o in outcomes) == sorted(tasks)
    assert {o.task: o.value for o in outcomes if isinstance(o, Done)} == {
        **{str(n): n for n in range(12)},
        tasks[3]: True,
    }
    assert mark.exists()
    assert capfd.readouterr().out == ""  # where a program may read JSON


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_task_that_always_ends_its_ray_worker_is_tried_three_times_only(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    kill = "__import__('os').kill(__import__('os').getppid(), 9), __import__('time').sleep(99)"
    task = f"(open({str(marks)!r}, 'a').write('x'), {kill})"
    outcomes = {o.task: o for o in run(eval, [task, "1", "2"], workers=1)}
    lost = outcomes[task]
    assert isinstance(lost, Lost)
    assert (lost.exit_code, lost.reason) == (-signal.SIGKILL, "worker_died")
    assert marks.read_text() == "xxx"
    assert outcomes["2"] == Done("2", 2)


@pytest.mark.usefixtures("cluster")
def test_tasks_are_taken_as_workers_ask_for_them_and_no_actor_stays() -> None:
    taken = []

    def endless() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    outcomes = run(math.factorial, endless(), workers=1)
    next(outcomes)
    outcomes.close()
    assert len(taken) <= 4


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_sees_another_folder_gets_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list(run(eval, ["1"], workers=1, shared=Shared(tmp_path, (tmp_path,))))
    assert done == [Done("1", 1)]
    assert list(tmp_path.iterdir()) == []  # nothing of the check stays
    mark = tmp_path / "done"
    task = f"open({str(mark)!r}, 'w')"
    with pytest.raises(StoreError, match="does not see the cohort's folder") as caught:
        list(run(eval, [task], workers=1, shared=Shared(tmp_path, (tmp_path / "nowhere",))))
    assert "--shard" in caught.value.fix
    real = engine_ray._token

    @contextmanager
    def elsewhere(shared: Shared | None) -> Iterator[Any]:
        with real(shared) as token:
            assert token is not None
            token.path.unlink()  # a worker that sees another folder finds no such file
            yield token

    monkeypatch.setattr(engine_ray, "_token", elsewhere)
    with pytest.raises(StoreError, match="does not see the cohort's folder"):
        list(run(eval, [task], workers=1, shared=Shared(tmp_path)))
    assert not mark.exists()


@pytest.mark.usefixtures("cluster")
def test_a_worker_with_another_version_gets_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t3d.__version__", "0.0.1")  # here, not in the worker
    with pytest.raises(StoreError, match=r"this one 0\.0\.1"):
        list(run(eval, ["1"], workers=1))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_local_sharded_and_ray_under_fire_give_one_digest(
    make_folder: MakeFolder, tmp_path: Path, tiny: Preparation
) -> None:
    root = make_folder(16)
    killed = []

    def fire(standing: Standing) -> None:
        if standing.worked in (4, 9) and len(killed) < standing.worked / 4:
            killed.append(processes("ray::Station")[0])
            os.kill(killed[-1], signal.SIGKILL)

    on_ray = prepare(Folder(root), tmp_path / "ray", tiny, workers=2, engine="ray", progress=fire)
    here = prepare(Folder(root), tmp_path / "local", tiny, workers=0)
    for number in (1, 2, 3):
        prepare(Folder(root), tmp_path / "parts", tiny, workers=0, shard=(number, 3))
    merge(shards_of(tmp_path / "parts"), tmp_path / "parts")
    assert len(set(killed)) == 2
    assert (on_ray.done, dict(on_ray.failed)) == (here.done, {}) == (16, {})
    assert Cohort.open(tmp_path / "ray").verify() == ()
    digests = {Cohort.open(tmp_path / name).digest for name in ("local", "parts", "ray")}
    assert len(digests) == 1
    assert not list((tmp_path / "ray").glob(".seen*"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "auto", "no address"])
def test_a_cluster_that_is_nowhere_is_an_error_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def init(where: str, **settings: object) -> None:
        """As Ray does, but without trying host:port for minutes."""
        asked.append((where, "num_cpus" in settings))
        raise ConnectionError if where == "auto" else ValueError

    monkeypatch.setenv("RAY_ADDRESS", address)
    stub = SimpleNamespace(is_initialized=lambda: False, init=init)
    with pytest.raises(StoreError, match="no Ray cluster"), engine_ray._cluster(stub, 2):  # type: ignore[arg-type]
        pass
    assert asked == ([] if ":" in address else [(address, False)])


def test_zero_workers_need_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(run(math.factorial, [4], workers=0)) == [Done(4, 24)]


def test_without_ray_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(T3DError, match="not installed") as caught:
        list(run(math.factorial, [4], workers=1))
    assert "pip install 't3d[ray]'" in caught.value.fix


def test_nothing_of_ours_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")  # the user's own word
    monkeypatch.delenv("RAY_DEDUP_LOGS_SKIP_REGEX", raising=False)
    with engine_ray._quiet_ray():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
        assert "RAY_DEDUP_LOGS_SKIP_REGEX" in os.environ
    assert "RAY_DEDUP_LOGS_SKIP_REGEX" not in os.environ


# In a process of its own: its cluster is lost, and Ray keeps looking for it.
LOST = """
import os, signal, sys
from test_engine_ray import processes
from t3d.cohort import engine_ray
from t3d.errors import StoreError

if __name__ == "__main__":
    engine_ray._LOOK_S, engine_ray._GONE_S = 0.5, 2.0
    outcomes = engine_ray.run(eval, ["1", *["__import__('time').sleep(1)"] * 200], workers=2)
    next(outcomes)
    (pid,) = processes(sys.argv[1])
    os.kill(pid, signal.SIGKILL)
    try:
        list(outcomes)
    except StoreError as error:
        sys.stdout.write(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "found"),
    [("gcs_server", "its head does not answer"), ("raylet/raylet", "none of its machines")],
)
def test_a_lost_cluster_stops_the_run_with_what_to_do(
    victim: str, found: str, tmp_path: Path
) -> None:
    if find_spec("ray") is None:
        pytest.skip("the extra `ray` is not installed")
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    environment = {name: told for name, told in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = f"{ROOT / 'src'}:{Path(__file__).parent}"
    command = [sys.executable, str(script), victim]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert found in done.stdout, done.stderr
    assert "run again: it goes on" in done.stdout
