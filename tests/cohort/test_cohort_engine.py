"""Workers: outcomes, deaths, laziness. `eval` is the task: a builtin that a worker can import."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest

from t3d.cohort.engine import Done, Lost, run
from t3d.errors import StoreError

DIE = "__import__('os')._exit(3)"


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
    assert [type(o).__name__ for o in outcomes] == ["Done", "Lost", "Done"]
    assert "ZeroDivisionError" in capfd.readouterr().err  # the traceback is for a person


def test_workers_that_only_die_stop_the_run_with_a_reason() -> None:
    with pytest.raises(StoreError, match="died in a row"):
        list(run(eval, [DIE] * 20, workers=1))


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
