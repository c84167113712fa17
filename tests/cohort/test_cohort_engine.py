"""Workers: outcomes, deaths, ceilings. `eval` is the task: a builtin that a worker can import."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from t3d.cohort import engine
from t3d.cohort.engine import Done, Lost, guarded, run
from t3d.ct.guard import RefusedFile, RefusedGrid
from t3d.errors import StoreError

ROOT = Path(__file__).resolve().parents[2]
DIE = "__import__('os')._exit(3)"
KILL = "__import__('os').kill(__import__('os').getpid(), 9)"
RAISE = "(_ for _ in ()).throw(__import__('t3d.ct.guard', fromlist=['x']).{kind}({args}))"


@pytest.mark.parametrize("workers", [0, 2])
def test_every_task_has_one_outcome(workers: int) -> None:
    found = {o.task: o.value for o in run(math.factorial, range(30), workers=workers)}  # type: ignore[union-attr]
    assert found == {n: math.factorial(n) for n in range(30)}


def test_a_dead_worker_costs_its_own_task_and_nothing_else() -> None:
    tasks = [f"{n} * 2" for n in range(12)]
    tasks.insert(5, DIE)
    outcomes = list(run(eval, tasks, workers=2))
    lost = [o for o in outcomes if isinstance(o, Lost)]
    assert [(o.task, o.exit_code) for o in lost] == [(DIE, 3)]
    assert sorted(o.value for o in outcomes if isinstance(o, Done)) == [2 * n for n in range(12)]


@pytest.mark.filterwarnings("default")
def test_an_exception_that_a_function_lets_through_is_a_lost_task(
    capfd: pytest.CaptureFixture[str],
) -> None:
    outcomes = list(run(eval, ["1 + 1", "1 / 0", "2 + 2"], workers=1))
    assert sorted(type(o).__name__ for o in outcomes) == ["Done", "Done", "Lost"]
    assert "ZeroDivisionError" in capfd.readouterr().err  # the traceback is for a person


def test_a_task_whose_worker_was_killed_from_outside_is_tried_again(tmp_path: Path) -> None:
    mark = str(tmp_path / "been here")
    first_time = f"__import__('os').path.exists({mark!r}) or (open({mark!r}, 'w'), {KILL})"
    outcomes = list(run(eval, ["1", first_time, "3"], workers=1))
    assert {o.task: o.value for o in outcomes if isinstance(o, Done)} == {
        "1": 1,
        first_time: True,
        "3": 3,
    }
    assert len(outcomes) == 3


def test_a_task_that_always_ends_its_worker_is_tried_a_few_times_only(tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")
    (outcome,) = run(eval, [f"(open({marks!r}, 'a').write('x'), {KILL})"], workers=1)
    assert isinstance(outcome, Lost)
    assert (outcome.exit_code, outcome.reason) == (-signal.SIGKILL, "worker_died")
    assert "memory is short" in outcome.message
    assert Path(marks).read_text() == "x" * engine.TRIES


def test_a_task_over_the_memory_ceiling_says_so_and_the_next_one_is_done() -> None:
    for hungry in ("len(bytearray(1 << 30))", "__import__('numpy').ones(1 << 27)[0]"):
        tasks = ["1", hungry, "3"]
        outcomes = {o.task: o for o in run(eval, tasks, workers=1, memory_mb=400)}
        lost = outcomes[hungry]
        assert isinstance(lost, Lost)
        assert (lost.reason, "400 MB" in lost.message) == ("out_of_memory", True)
        assert all(isinstance(outcomes[task], Done) for task in ("1", "3"))
    # Not a matter of the task: with room it is done.
    (done,) = run(eval, ["len(bytearray(1 << 29))"], workers=1, memory_mb=1000)
    assert done == Done("len(bytearray(1 << 29))", 1 << 29)


@pytest.mark.parametrize("hang", ["__import__('time').sleep(99)", "any(iter(int, 1))", "STOP"])
def test_a_task_over_its_time_is_ended_and_the_others_are_done(hang: str) -> None:
    stop = "__import__('os').kill(__import__('os').getpid(), 19)"  # SIGSTOP: no alarm is heard
    hang = hang.replace("STOP", stop)
    seconds = {"1": 60.0, hang: 0.4, "3": 60.0}
    outcomes = {o.task: o for o in run(eval, list(seconds), workers=1, seconds=seconds.get)}  # type: ignore[arg-type]
    lost = outcomes[hang]
    assert isinstance(lost, Lost)
    assert lost.reason == "out_of_time"
    assert [o.value for t, o in outcomes.items() if isinstance(o, Done)] == [1, 3]
    assert len(outcomes) == 3


def test_time_that_the_parent_spends_elsewhere_or_stopped_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost_s = [0.0]
    real = engine.wait

    def stopped(pipes: list[object], timeout: float) -> object:
        lost_s[0] += 1000.0  # Ctrl-Z while waiting
        return real(pipes, timeout)  # type: ignore[arg-type]

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + lost_s[0])
    monkeypatch.setattr(engine, "time", clock)
    monkeypatch.setattr(engine, "wait", stopped)
    found = []
    for outcome in run(eval, ["1", "2", "3", "4"], workers=1, seconds=60.0):
        lost_s[0] += 1000.0  # a slow consumer
        found.append(outcome)
    assert [o.value for o in found if isinstance(o, Done)] == [1, 2, 3, 4]


def test_large_tasks_and_answers_do_not_block_each_other() -> None:
    large = [f"len({'x' * 3_000_000!r}) * 'y'", f"{'z' * 3_000_000!r} * 2"] * 3
    outcomes = list(run(eval, large, workers=2))
    assert (
        sorted(len(o.value) for o in outcomes if isinstance(o, Done))
        == [3_000_000] * 3 + [6_000_000] * 3
    )


def test_workers_that_cannot_start_stop_the_run_with_a_reason(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Known here and not in a worker, as a function of an unguarded script is.
    made = ModuleType("made_here")
    exec("def nothing(task): return task", made.__dict__)
    monkeypatch.setitem(sys.modules, "made_here", made)
    with pytest.raises(StoreError, match="died before their first task"):
        list(run(made.nothing, range(20), workers=2))
    assert "made_here" in capfd.readouterr().err


def test_tasks_that_only_end_their_workers_stop_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_LOST_IN_A_ROW", 2)
    monkeypatch.setattr(engine, "TRIES", 1)
    outcomes = run(eval, [DIE] * 20, workers=1)
    assert isinstance(next(outcomes), Lost)
    assert isinstance(next(outcomes), Lost)
    with pytest.raises(StoreError, match="2 tasks in a row"):
        next(outcomes)


def test_a_guarded_call_gives_its_value() -> None:
    assert guarded(math.factorial, 20) == math.factorial(20)


def test_a_guarded_call_raises_what_the_function_raised_or_a_refusal() -> None:
    with pytest.raises(RefusedGrid, match="too thin") as caught:
        guarded(eval, RAISE.format(kind="RefusedGrid", args="'too thin', reason='too_small'"))
    assert caught.value.reason == "too_small"
    with pytest.raises(RefusedFile, match=r"\(ZeroDivisionError at <string>:1\)") as refused:
        guarded(eval, "1 / 0")
    assert refused.value.reason == "unreadable"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (DIE, "worker_died"),
        ("__import__('os').abort()", "worker_died"),
        ("len(bytearray(1 << 30))", "out_of_memory"),
        ("__import__('time').sleep(99)", "out_of_time"),
    ],
)
def test_a_guarded_call_survives_whatever_the_function_does(task: str, reason: str) -> None:
    with pytest.raises(RefusedFile) as caught:
        guarded(eval, task, memory_mb=500, seconds=1.5)
    assert caught.value.reason == reason
    assert caught.value.fix


def test_a_worker_leaves_no_core_file_and_has_its_ceiling() -> None:
    ask = "[__import__('resource').getrlimit(n)[0] for n in (2, 4)]"  # RLIMIT_DATA, RLIMIT_CORE
    (outcome,) = run(eval, [ask], workers=1, memory_mb=777)
    assert outcome == Done(ask, [777 << 20, 0])


ORPHANS = """
import os, sys
from t3d.cohort.engine import run

HANG = "(__import__('sys').stdout.write(str(__import__('os').getpid()) + chr(10)), " \
    "__import__('sys').stdout.flush(), __import__('time').sleep(600))"

if __name__ == "__main__":
    list(run(eval, [HANG] * 2, workers=2))
"""


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        began = time.monotonic()
        # The pipe is also the workers' own: it ends when the last of them does.
        assert parent.stdout.read() == b""
    assert time.monotonic() - began < 30
    assert len(set(pids)) == 2


def test_a_pool_keeps_its_workers_from_call_to_call() -> None:
    pool = engine.Pool(eval, memory_mb=1000, seconds=lambda _: 60.0, tries=1)
    try:
        asked = "__import__('os').getpid()"
        first, second = (next(iter(pool.outcomes(iter([asked]), 1))) for _ in range(2))
        assert isinstance(first, Done)
        assert first == second
        (lost,) = pool.outcomes(iter([KILL]), 1)
        (third,) = pool.outcomes(iter([asked]), 1)
    finally:
        pool.stop()
    assert isinstance(lost, Lost)
    assert isinstance(third, Done)
    assert third.value != first.value


def test_the_task_list_is_consumed_as_workers_ask_for_it() -> None:
    taken = []

    def endless() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    outcomes = run(math.factorial, endless(), workers=1)
    next(outcomes)
    outcomes.close()
    assert len(taken) <= 4


def test_a_worker_has_one_thread_and_our_own_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    ask = "tuple(__import__('os').environ[n] for n in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'))"
    (outcome,) = run(eval, [ask], workers=1)
    assert isinstance(outcome, Done)
    assert outcome.value == ("1", "1")
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
