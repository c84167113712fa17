"""Many tasks over a few worker processes; one bad task costs that task and nothing else.

Workers are spawned (not forked) with one thread each, under a memory ceiling; each task has a
time ceiling, held by the parent. A task whose worker breaks a ceiling comes back as `Lost` with
its reason; one whose worker merely died is tried again first, because a kill from outside says
nothing about the task. What else a dead worker held goes back in the queue. At most two tasks a
worker are in flight, so the task list may be an endless generator.

The memory ceiling is RLIMIT_DATA, not RLIMIT_AS: it counts what a decoder can fill (heap and
private writable mappings, touched or not), while an address space also counts libraries and
stacks that are only reserved (650 MB of them with SimpleITK before the first voxel).

This module imports no numpy: thread limits must be in the environment before a worker does.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import struct
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from t3d.ct.limits import (
    MAX_LOST_IN_A_ROW,
    START_SECONDS,
    TASK_SECONDS,
    TASK_SECONDS_PER_MB,
    WORKER_MEMORY_MB,
)
from t3d.errors import StoreError, T3DError

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

TaskT = TypeVar("TaskT")
ValueT = TypeVar("ValueT")

READING_ERRORS: tuple[type[Exception], ...] = (
    T3DError,
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    AttributeError,
    TypeError,
    struct.error,
    zlib.error,
)
"""What a reader, ours or a library's, may raise over a broken file."""

_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
_IN_FLIGHT = 2  # one at work, one waiting, so that a worker never idles for the parent
_AHEAD_BYTES = 32 << 10  # a waiting task must fit into the pipe, or parent and worker lock up
LOST = ("worker_died", "out_of_memory", "out_of_time")
TRIES = 3  # of a task whose worker died without a reason of its own
_MAX_START_FAILURES = 3  # in a row: the fault is not in the tasks
_LISTEN_S = 1.0  # at a time; what a wait takes longer (Ctrl-Z, a sleeping machine) is not counted
_GRACE_S = 10.0  # from a closed pipe to the end of its process
_OUT_OF_MEMORY_CODE = 86  # exit code of a worker that met its memory ceiling
_READY = b"ready"


@dataclass(frozen=True, slots=True)
class Done(Generic[TaskT, ValueT]):
    """A task and what its function returned."""

    task: TaskT
    value: ValueT


@dataclass(frozen=True, slots=True)
class Lost(Generic[TaskT]):
    """A task that ended its worker."""

    task: TaskT
    exit_code: int  # negative: killed by that signal
    reason: str = "worker_died"  # one of LOST
    message: str = ""  # for a person; names no file


@dataclass(slots=True)
class _Held:
    """A task on its way."""

    task: Any
    seconds: float
    packed: bytes
    sent: bool = False
    deaths: int = 0


@dataclass(slots=True)
class _Worker:
    """One process, its pipe, and the tasks it holds, oldest first."""

    process: SpawnProcess
    pipe: Connection
    deadline: float  # on the pool's own clock
    held: deque[_Held] = field(default_factory=deque)
    ready: bool = False


def available_cores() -> int:
    """Count the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seconds_for(megabytes: float) -> float:
    """Give the time ceiling of a task that reads so many MB."""
    return TASK_SECONDS + TASK_SECONDS_PER_MB * megabytes


def run(
    function: Callable[[TaskT], ValueT],
    tasks: Iterable[TaskT],
    *,
    workers: int,
    memory_mb: int = WORKER_MEMORY_MB,
    seconds: Callable[[TaskT], float] | float = TASK_SECONDS,
) -> Generator[Done[TaskT, ValueT] | Lost[TaskT], None, None]:
    """Apply a function to every task and yield outcomes as they come, in any order.

    Args:
        function: Importable by name; returns what can be pickled. An exception that it lets
            through ends its worker and, when that happens again, makes the task `Lost`.
        tasks: Consumed lazily.
        workers: Processes; 0 = in this process, without ceilings, where an exception passes
            through.
        memory_mb: Ceiling of one worker (RLIMIT_DATA; not enforced on macOS).
        seconds: Ceiling of one task, wall clock, as a number or by task (`seconds_for`).

    Raises:
        StoreError: Workers do not start, or end one task after the other.
    """
    if workers < 1:
        for task in tasks:
            yield Done(task, function(task))
        return
    ceiling = seconds if callable(seconds) else partial(_same, float(seconds))
    pool = Pool(function, memory_mb=memory_mb, seconds=ceiling, tries=TRIES)
    try:
        yield from pool.outcomes(iter(tasks), workers)
    finally:
        pool.stop()


def guarded(
    function: Callable[[TaskT], ValueT],
    task: TaskT,
    *,
    memory_mb: int = WORKER_MEMORY_MB,
    seconds: float = TASK_SECONDS,
) -> ValueT:
    """Call a function on one task in a process of its own, for a file that nobody vouches for.

    A script that calls this must do so under `if __name__ == "__main__":`.

    Args:
        function: Importable by name; what it returns is pickled.
        task: Pickled.
        memory_mb: Ceiling of the process.
        seconds: Ceiling of the call, wall clock.

    Raises:
        RefusedFile: `worker_died`, `out_of_memory`, `out_of_time`, or an error of a library
            (`unreadable`).
        T3DError: What the function raised.
    """
    from t3d.ct.guard import RefusedFile

    call = partial(_caught, function)
    pool = Pool(call, memory_mb=memory_mb, seconds=partial(_same, seconds), tries=1)
    try:
        (outcome,) = pool.outcomes(iter((task,)), 1)
    finally:
        pool.stop()
    if isinstance(outcome, Lost):
        raise RefusedFile(
            f"while this file was read, {outcome.message}",
            expected="a CT that can be read within the limits",
            fix="leave it out; if you trust it, raise the limit",
            reason=outcome.reason,
        )
    value, error = outcome.value
    if error is not None:
        raise error
    return cast(ValueT, value)


def _same(value: float, _: object) -> float:
    """Give one ceiling for every task."""
    return value


def _caught(function: Callable[[Any], Any], task: Any) -> tuple[Any, T3DError | None]:
    """Give a value, or the error to raise in the parent; memory has an exit code of its own."""
    from t3d.ct.guard import RefusedFile, reason_of

    try:
        return function(task), None
    except MemoryError:
        raise
    except READING_ERRORS as error:
        if isinstance(error, T3DError):
            return None, error
        told = f"the file cannot be read ({named(error)})"
        return None, RefusedFile(told, expected="a complete CT", reason=reason_of(error))


def named(error: BaseException) -> str:
    """Name a library's error and its place; its text may quote the file, so it stays here."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in place)
    return type(error).__name__ + where


class Pool:
    """Worker processes and who holds what; `run` for what else is to be known."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        memory_mb: int,
        seconds: Callable[[Any], float],
        tries: int,
    ) -> None:
        self._function = function
        self._memory_mb = memory_mb
        self._seconds = seconds
        self._tries = tries
        self._workers: list[_Worker] = []
        self._again: deque[_Held] = deque()
        self._start_failures = 0
        self._lost_in_a_row = 0
        self._now = 0.0  # seconds spent listening: a stopped parent does not age its tasks

    def _start(self) -> _Worker:
        """Spawn one worker with one thread."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        with _one_thread():
            process = context.Process(
                target=_work,
                args=(theirs, self._function, self._memory_mb),
                daemon=True,
                name="t3d-worker",
            )
            process.start()
        theirs.close()
        return _Worker(process, ours, self._now + START_SECONDS)

    def outcomes(self, tasks: Iterator[Any], workers: int) -> Iterator[Done[Any, Any] | Lost[Any]]:
        """Feed and listen until every task has an outcome; workers stay for the next call."""
        for worker in self._workers:
            self._feed(worker, tasks)
        while len(self._workers) < workers and (held := self._next(tasks)) is not None:
            worker = self._start()
            worker.held.append(held)
            self._workers.append(worker)
        while any(worker.held for worker in self._workers):
            for place, overdue in self._listen():
                outcome = self._bury(place, "out_of_time") if overdue else self._hear(place)
                self._feed(self._workers[place], tasks)
                if outcome is not None:
                    yield outcome

    def _listen(self) -> Iterator[tuple[int, bool]]:
        """Wait for news, or for a ceiling; say which workers have which."""
        pipes = {w.pipe: place for place, w in enumerate(self._workers) if w.held}
        soonest = min(self._workers[place].deadline for place in pipes.values())
        patience = min(_LISTEN_S, max(0.0, soonest - self._now))
        began = time.monotonic()
        told = set(wait(list(pipes), timeout=patience))
        self._now += min(time.monotonic() - began, patience)
        for pipe, place in pipes.items():
            if pipe in told:
                yield place, False
            elif self._workers[place].deadline <= self._now:
                yield place, True

    def _next(self, tasks: Iterator[Any]) -> _Held | None:
        """Take the next task: first those that a dead worker left."""
        if self._again:
            return self._again.popleft()
        for task in tasks:
            seconds = self._seconds(task)
            packed = pickle.dumps((seconds, pickle.dumps(task, protocol=5)), protocol=5)
            return _Held(task, seconds, packed)
        return None

    def _feed(self, worker: _Worker, tasks: Iterator[Any]) -> None:
        """Top a worker up to its share and send what can be sent without waiting for it."""
        while len(worker.held) < _IN_FLIGHT:
            held = self._next(tasks)
            if held is None:
                break
            if not worker.held and worker.ready:
                worker.deadline = self._now + held.seconds
            worker.held.append(held)
        if not worker.ready:
            return
        for place, held in enumerate(worker.held):
            if held.sent or (place and len(held.packed) > _AHEAD_BYTES):
                continue
            held.sent = True
            try:
                worker.pipe.send_bytes(held.packed)
            except OSError:
                return  # its death is heard next

    def _hear(self, place: int) -> Done[Any, Any] | Lost[Any] | None:
        """Take one message, or bury a dead worker and start another in its place."""
        worker = self._workers[place]
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            return self._bury(place)
        done = None
        if worker.ready:
            self._lost_in_a_row = 0
            done = Done(worker.held.popleft().task, pickle.loads(message))
        worker.ready, self._start_failures = True, 0
        if worker.held:
            worker.deadline = self._now + worker.held[0].seconds
        return done

    def _bury(self, place: int, reason: str = "") -> Lost[Any] | None:
        """The oldest task it held is to blame, the others go back in the queue."""
        worker = self._workers[place]
        code = _end(worker, now=bool(reason))
        for held in worker.held:
            held.sent = False
        self._check_deaths(worker, code)
        self._workers[place] = self._start()
        if not worker.ready:
            self._again.extend(worker.held)
            return None
        blamed = worker.held.popleft()
        self._again.extend(worker.held)
        if not reason:
            reason = "out_of_memory" if code == _OUT_OF_MEMORY_CODE else "worker_died"
        blamed.deaths += 1
        if reason == "worker_died" and blamed.deaths < self._tries:
            self._again.appendleft(blamed)
            return None
        self._lost_in_a_row += 1
        return Lost(blamed.task, code, reason, self._told(reason, code, blamed.seconds))

    def _told(self, reason: str, code: int, seconds: float) -> str:
        """Say what happened in words."""
        if reason == "out_of_memory":
            return f"the worker process needed more than {self._memory_mb} MB"
        if reason == "out_of_time":
            return f"the worker process took longer than {seconds:.0f} s"
        often = " (often by the system, when memory is short)" if code == -signal.SIGKILL else ""
        return f"the worker process died with exit code {code}{often}"

    def _check_deaths(self, worker: _Worker, code: int) -> None:
        """Stop where deaths say nothing about single tasks."""
        if not worker.ready:
            self._start_failures += 1
            if self._start_failures >= _MAX_START_FAILURES:
                raise StoreError(
                    f"{self._start_failures} worker processes died before their first task, the "
                    f"last with exit code {code}",
                    expected="workers that start",
                    fix="see the tracebacks above; a script that starts workers must do so under "
                    "`if __name__ == '__main__':`; or use workers=0 to see the error itself",
                )
        elif self._lost_in_a_row >= MAX_LOST_IN_A_ROW:
            raise StoreError(
                f"{self._lost_in_a_row} tasks in a row ended their worker processes, the last "
                f"with exit code {code}",
                expected="at least one result between them",
                fix="use workers=0 on a few of them to see the error itself; running again goes on",
            )

    def stop(self) -> None:
        """End all workers; what they were doing is not recorded and will be done again."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            _end(worker, now=bool(worker.held))


def _end(worker: _Worker, *, now: bool) -> int:
    """See a worker out, by force at once or after a while; give its exit code."""
    worker.pipe.close()
    if now:
        worker.process.kill()
    worker.process.join(_GRACE_S)
    if worker.process.exitcode is None:
        worker.process.kill()
        worker.process.join(_GRACE_S)
    return worker.process.exitcode or 0


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


def _work(pipe: Connection, function: Callable[[Any], Any], memory_mb: int) -> None:
    """Live in a worker: answer tasks until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    Thread(target=_die_with_parent, daemon=True).start()
    _set_limits(memory_mb)
    message = _READY
    while True:
        try:
            pipe.send_bytes(message)
            task = pipe.recv_bytes()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        message = _answer(task, function)


def _answer(message: bytes, function: Callable[[Any], Any]) -> bytes:
    """Do one task."""
    try:
        seconds, packed = pickle.loads(message)
        # The parent holds the ceiling; this one is for a worker whose parent has died.
        signal.alarm(math.ceil(seconds) + round(_GRACE_S))
        answer = pickle.dumps(function(pickle.loads(packed)), protocol=5)
        signal.alarm(0)
    except MemoryError:
        os._exit(_OUT_OF_MEMORY_CODE)
    return answer


def _die_with_parent() -> None:
    """Leave no worker behind that writes where another run may be at work already."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _set_limits(memory_mb: int) -> None:
    """Set the memory ceiling; and no core file, since it would hold a patient's voxels."""
    import resource

    for kind, soft in ((resource.RLIMIT_DATA, memory_mb << 20), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft if hard < 0 else min(soft, hard), hard))
