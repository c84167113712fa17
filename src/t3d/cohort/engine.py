"""Many tasks over a few worker processes; one bad task costs that task and nothing else.

Workers are spawned (not forked) with one thread each. A task in flight when its worker dies
comes back as `Lost`; a new worker takes the next one. At most two tasks per worker are in
flight, so the task list may be an endless generator.

This module imports no numpy: thread limits must be in the environment before a worker does.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from t3d.errors import StoreError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

TaskT = TypeVar("TaskT")
ValueT = TypeVar("ValueT")

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
_IN_FLIGHT = 2  # one at work, one waiting, so that a worker never idles for the parent
_MAX_DEATHS_IN_A_ROW = 8  # no result between them: the fault is not in the tasks


@dataclass(frozen=True, slots=True)
class Done(Generic[TaskT, ValueT]):
    """A task and what its function returned."""

    task: TaskT
    value: ValueT


@dataclass(frozen=True, slots=True)
class Lost(Generic[TaskT]):
    """A task whose worker died under it."""

    task: TaskT
    exit_code: int  # negative: killed by that signal (-9: often out of memory)


@dataclass(slots=True)
class _Worker:
    """One process, its pipe, and the tasks it holds, oldest first."""

    process: SpawnProcess
    pipe: Connection
    held: deque[Any] = field(default_factory=deque)


def available_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    function: Callable[[TaskT], ValueT], tasks: Iterable[TaskT], *, workers: int
) -> Generator[Done[TaskT, ValueT] | Lost[TaskT], None, None]:
    """Apply a function to every task and yield outcomes as they come, in any order.

    Args:
        function: Importable by name; returns what can be pickled. An exception that it lets
            through ends its worker and makes the task `Lost`.
        tasks: Consumed lazily.
        workers: Processes; 0 = in this process, where an exception passes through.

    Raises:
        StoreError: Workers die again and again without one result.
    """
    if workers < 1:
        for task in tasks:
            yield Done(task, function(task))
        return
    pool = _Pool(function, workers)
    try:
        yield from pool.outcomes(deque(), iter(tasks))
    finally:
        pool.stop()


class _Pool:
    """The workers and who holds what."""

    def __init__(self, function: Callable[[Any], Any], workers: int) -> None:
        self._function = function
        self._workers = [self._start() for _ in range(workers)]
        self._deaths = 0

    def _start(self) -> _Worker:
        """Spawn one worker with one thread."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        with _one_thread():
            process = context.Process(
                target=_work, args=(theirs, self._function), daemon=True, name="t3d-worker"
            )
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def outcomes(
        self, again: deque[Any], tasks: Iterator[Any]
    ) -> Iterator[Done[Any, Any] | Lost[Any]]:
        """Feed and listen until every task has an outcome."""
        for worker in self._workers:
            self._feed(worker, again, tasks)
        while any(worker.held for worker in self._workers):
            pipes = {
                worker.pipe: place for place, worker in enumerate(self._workers) if worker.held
            }
            for pipe in wait(list(pipes)):
                place = pipes[pipe]  # type: ignore[index]
                outcome = self._hear(place, again)
                self._feed(self._workers[place], again, tasks)
                if outcome is not None:
                    yield outcome
            for worker in self._workers:
                if not worker.held and again:
                    self._feed(worker, again, tasks)

    def _feed(self, worker: _Worker, again: deque[Any], tasks: Iterator[Any]) -> None:
        """Top a worker up to its share."""
        while len(worker.held) < _IN_FLIGHT:
            if again:
                task = again.popleft()
            else:
                try:
                    task = next(tasks)
                except StopIteration:
                    return
            worker.held.append(task)
            try:
                worker.pipe.send(task)
            except (BrokenPipeError, ConnectionResetError):
                return  # its death is heard next

    def _hear(self, place: int, again: deque[Any]) -> Done[Any, Any] | Lost[Any] | None:
        """Take one answer, or bury a dead worker and start another in its place."""
        worker = self._workers[place]
        try:
            value = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._bury(place, again)
        self._deaths = 0
        return Done(worker.held.popleft(), value)

    def _bury(self, place: int, again: deque[Any]) -> Lost[Any]:
        """The oldest task it held is lost, the others go back in the queue."""
        worker = self._workers[place]
        worker.process.join()
        worker.pipe.close()
        self._deaths += 1
        code = worker.process.exitcode or 0
        if self._deaths >= _MAX_DEATHS_IN_A_ROW:
            raise StoreError(
                f"{self._deaths} worker processes died in a row, the last with code {code}",
                expected="at least one result between deaths",
                fix="see the tracebacks above; a script that starts workers must do so under "
                "`if __name__ == '__main__':`; or use workers=0 to see the error itself",
            )
        lost = Lost(worker.held.popleft(), code)
        again.extend(worker.held)
        self._workers[place] = self._start()
        return lost

    def stop(self) -> None:
        """End all workers; what they were doing is not recorded and will be done again."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            if worker.held:
                worker.process.terminate()
            worker.process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let a process start with one thread per library, and put our own settings back."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Live in a worker: answer tasks until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    while True:
        try:
            task = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        answer = function(task)
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
