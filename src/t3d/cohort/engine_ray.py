"""Many tasks over the machines of a Ray cluster, with the promises of `engine.py`.

Each Ray actor holds one worker of `engine.py` on the machine where Ray put it, so the ceilings of
memory and time are the same, held beside the worker. The driver feeds at most two tasks an actor.
An actor that dies says nothing about its task: the task is tried again elsewhere, and what else
the actor held goes back in the queue. Ray itself repeats nothing, so nothing is done twice unseen.

The cluster is the one that RAY_ADDRESS names by Ray's own rules (host:port, or `auto` for one that
runs on this machine). Where it is not set, one is started here, reachable from this machine only,
and ended with the run. Ray's usage report and its dashboard page stay off.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from t3d.cohort import engine
from t3d.cohort.engine import Done, Lost, Pool
from t3d.cohort.shelf import writing
from t3d.ct.limits import START_SECONDS, TASK_SECONDS, WORKER_MEMORY_MB
from t3d.errors import StoreError, T3DError

if TYPE_CHECKING:
    from types import ModuleType

TaskT = TypeVar("TaskT")
ValueT = TypeVar("ValueT")

_IN_FLIGHT = 2  # one at work, one waiting in Ray's own queue of the actor
_MAX_START_FAILURES = 3  # in a row, of actors that were never ready
_LISTEN_S = 1.0
_LOOK_S = 5.0  # between two looks at the cluster's head
_GONE_S = 20.0  # without its head: lost. After 60 s Ray would end this whole process
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray prints what its daemons say to our standard output, where a program may read JSON.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # every line
}
_LOCAL = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:/]+):[0-9]+")
_QUIET = {"log_to_driver": False, "configure_logging": False}
_GO_ON = "start the cluster again and run again: it goes on where it was"


class Shared(NamedTuple):
    """What every machine of the cluster must see as this one does."""

    written: Path  # a folder that workers write to, e.g. the cohort
    read: tuple[Path, ...] = ()  # folders of the source


def run(
    function: Callable[[TaskT], ValueT],
    tasks: Iterable[TaskT],
    *,
    workers: int,
    memory_mb: int = WORKER_MEMORY_MB,
    seconds: Callable[[TaskT], float] | float = TASK_SECONDS,
    shared: Shared | None = None,
) -> Generator[Done[TaskT, ValueT] | Lost[TaskT], None, None]:
    """Apply a function to every task on a Ray cluster; outcomes come in any order.

    Args:
        function: Importable by name on every machine; else as for `engine.run`.
        tasks: Consumed lazily.
        workers: Actors of one core each. A cluster with fewer free cores works with as many as it
            has. 0 = in this process, without Ray and without ceilings.
        memory_mb: Ceiling of one worker (RLIMIT_DATA).
        seconds: Ceiling of one task, wall clock, as a number or by task.
        shared: Checked on each machine before it gets a task.

    Raises:
        T3DError: Ray is not installed.
        StoreError: No cluster, or none any more; workers that do not start there; another version
            of t3d, or a folder that is not the same one there.

    Source:
        Ray's rules of address: docs.ray.io, `ray.init`.
    """
    if workers < 1:
        yield from engine.run(function, tasks, workers=0)
        return
    ceiling = seconds if callable(seconds) else partial(_same, float(seconds))
    with _quiet_ray() as ray, _cluster(ray, workers), _token(shared) as token:
        station = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Station)
        hire = partial(station.remote, function, memory_mb, os.getcwd())
        crew = _Crew(ray, hire, ceiling, token)
        try:
            yield from crew.outcomes(iter(tasks), workers)
        finally:
            crew.dismiss()


def _same(value: float, _: object) -> float:
    """Give one ceiling for every task."""
    return value


def _ray() -> ModuleType:
    """Import Ray, or say how to install it."""
    try:
        return import_module("ray")
    except ImportError as error:
        raise T3DError(
            "Ray is not installed here",
            expected="the package ray, for engine 'ray'",
            fix="pip install 't3d[ray]', or use the local engine",
        ) from error


@contextmanager
def _quiet_ray() -> Iterator[ModuleType]:
    """Give Ray, kept from reporting, printing and warning; what the user set stays."""
    ours = {name: told for name, told in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        ray = _ray()  # reads the environment
        log = logging.getLogger("ray")
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            yield ray
        finally:
            log.setLevel(level)
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _cluster(ray: ModuleType, workers: int) -> Iterator[None]:
    """Connect to a cluster, or start one here; one that the caller connected to stays so."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "") or "local"
    ours = dict(_LOCAL, num_cpus=workers) if address == "local" else {}
    heard = signal.getsignal(signal.SIGTERM)
    try:
        if _HOST_PORT.fullmatch(address) and not _answers(address):
            raise ConnectionError  # at once: Ray would try for minutes
        ray.init(address, **ours, **_QUIET)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise StoreError(
            f"no Ray cluster could be reached or started ({type(error).__name__})",
            expected="a cluster at RAY_ADDRESS, or RAY_ADDRESS not set",
            fix="see `ray status`; without RAY_ADDRESS the workers are on this machine",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, heard)  # Ray has put its own in its place


def _answers(address: str) -> bool:
    """Try to connect to the head of a cluster, host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTEN_S).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Token:
    """A file in the shared folder that tells whether another machine sees the same one."""

    shared: Shared
    name: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.shared.written / self.name

    def answer(self, seat: str) -> Path:
        """Where a worker's answer lies."""
        return self.path.with_name(f"{self.name}.{seat}")


@contextmanager
def _token(shared: Shared | None) -> Iterator[_Token | None]:
    """Leave a file for the workers to find, and remove it and their answers."""
    if shared is None:
        yield None
        return
    token = _Token(shared, f".seen-{secrets.token_hex(8)}")
    with writing(f"cohort {shared.written.name}"):
        token.path.write_bytes(token.name.encode())
    try:
        yield token
    finally:
        for path in token.path.parent.glob(f"{token.name}*"):
            path.unlink(missing_ok=True)


class Station:
    """Lives in a Ray actor and holds one worker of `engine.py`."""

    def __init__(self, function: Callable[[Any], Any], memory_mb: int, folder: str) -> None:
        import sys

        with suppress(OSError):  # where relative paths begin; whether they lead there is checked
            os.chdir(folder)
        # A spawned process would first import the script that Ray's own worker runs.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self._seconds = 0.0
        self._pool = Pool(
            function, memory_mb=memory_mb, seconds=lambda _: self._seconds, tries=engine.TRIES
        )

    def arrive(self, token: _Token | None, seat: str) -> tuple[str, bool]:
        """Say which version works here, and whether the folders are the same ones."""
        from t3d import __version__

        if token is None:
            return __version__, True
        try:
            seen = token.path.read_bytes() == token.name.encode()
            token.answer(seat).write_bytes(b"seen")
        except OSError:
            return __version__, False
        return __version__, seen and all(path.is_dir() for path in token.shared.read)

    def do(self, task: Any, seconds: float) -> Done[None, Any] | Lost[None] | StoreError:
        """Do one task in the worker."""
        self._seconds = seconds
        try:
            (outcome,) = self._pool.outcomes(iter((task,)), 1)
        except StoreError as error:
            return error
        return replace(outcome, task=None)  # whoever asked has it


@dataclass(slots=True)
class _Held:
    """A task on its way."""

    task: Any
    seconds: float
    answer: Any = None  # Ray's reference to what will come
    deaths: int = 0


@dataclass(slots=True)
class _Seat:
    """One actor and the tasks it holds, oldest first."""

    actor: Any
    name: str
    arrival: Any  # Ray's reference
    ready: bool = False
    held: deque[_Held] = field(default_factory=deque)

    @property
    def next_answer(self) -> Any:
        """What is waited for; None = nothing."""
        if not self.ready:
            return self.arrival
        return self.held[0].answer if self.held else None


class _Crew:
    """The actors and who holds what."""

    def __init__(
        self,
        ray: ModuleType,
        hire: Callable[[], Any],
        seconds: Callable[[Any], float],
        token: _Token | None,
    ) -> None:
        self._ray = ray
        self._hire = hire
        self._seconds = seconds
        self._token = token
        self._seats: list[_Seat] = []
        self._queue: deque[_Held] = deque()  # what comes before new tasks
        self._hired = 0
        self._start_failures = 0
        self._head = _Head(ray)
        self._none_since = time.monotonic()  # when there was last somebody to work

    def outcomes(self, tasks: Iterator[Any], workers: int) -> Iterator[Done[Any, Any] | Lost[Any]]:
        """Feed and listen until every task has an outcome."""
        while len(self._seats) < workers and (held := self._next(tasks)) is not None:
            self._queue.append(held)
            self._seats.append(self._seat())
        while self._queue or any(seat.held for seat in self._seats):
            for seat in self._listen():
                outcome = self._hear(seat)
                for other in self._seats:
                    self._feed(other, tasks)
                if outcome is not None:
                    yield outcome

    def dismiss(self) -> None:
        """End all actors; what they were doing is not recorded and will be done again."""
        for seat in self._seats:
            self._end(seat)

    def _seat(self) -> _Seat:
        """Ask for one actor, and for its arrival."""
        self._hired += 1
        actor, name = self._hire(), str(self._hired)
        return _Seat(actor, name, actor.arrive.remote(self._token, name))

    def _next(self, tasks: Iterator[Any]) -> _Held | None:
        """Take a new task."""
        for task in tasks:
            return _Held(task, self._seconds(task))
        return None

    def _feed(self, seat: _Seat, tasks: Iterator[Any]) -> None:
        """Top an actor up to its share; first with what dead ones left."""
        while seat.ready and len(seat.held) < _IN_FLIGHT:
            held = self._queue.popleft() if self._queue else self._next(tasks)
            if held is None:
                return
            held.answer = seat.actor.do.remote(held.task, held.seconds)
            seat.held.append(held)

    def _listen(self) -> list[_Seat]:
        """Wait for news; while there is none, see whether the cluster is there."""
        waited = {s.next_answer: s for s in self._seats if s.next_answer is not None}
        told, _ = self._ray.wait(list(waited), num_returns=1, timeout=_LISTEN_S)
        self._head.look()
        if any(seat.ready for seat in self._seats):
            self._none_since = time.monotonic()
        else:
            self._check_patience(time.monotonic() - self._none_since)
        return [waited[answer] for answer in told]

    def _check_patience(self, alone_s: float) -> None:
        """Stop where no worker comes, or none can."""
        if alone_s > _GONE_S and not any(node["Alive"] for node in self._ray.nodes()):
            raise StoreError(
                "the Ray cluster is gone: none of its machines is alive",
                expected="a cluster that lives as long as the run",
                fix=_GO_ON,
            )
        if alone_s > START_SECONDS:
            raise StoreError(
                f"the Ray cluster gave no worker within {START_SECONDS:.0f} s",
                expected="a machine with a free core",
                fix="see `ray status`: its machines may be busy, gone, or without cores",
            )

    def _hear(self, seat: _Seat) -> Done[Any, Any] | Lost[Any] | None:
        """Take one answer, or replace a dead actor."""
        try:
            answer = self._ray.get(seat.next_answer)
        except self._ray.exceptions.RayError as error:
            return self._bury(seat, error)
        if isinstance(answer, StoreError):
            raise answer
        if seat.ready:
            outcome: Done[Any, Any] | Lost[Any] = replace(answer, task=seat.held.popleft().task)
            return outcome
        self._check_arrival(seat, *answer)
        seat.ready, self._start_failures = True, 0
        return None

    def _check_arrival(self, seat: _Seat, version: str, seen: bool) -> None:
        """Refuse a machine whose volumes would differ, or would be written somewhere else."""
        from t3d import __version__

        if version != __version__:
            raise StoreError(
                f"a machine of the Ray cluster has t3d {version}, this one {__version__}",
                expected="one version everywhere",
                fix="install the same version on all machines",
            )
        if not seen or (self._token and not self._token.answer(seat.name).is_file()):
            raise StoreError(
                "a machine of the Ray cluster does not see the cohort's folder, or the source's, "
                "as this one does",
                expected="both on a file system that all machines share, under the same path",
                fix="move them there, or use shards: each job writes where it runs (--shard I/N)",
            )

    def _bury(self, seat: _Seat, error: Exception) -> Lost[Any] | None:
        """Put the oldest task it held first in the queue, unless that was tried often enough."""
        self._end(seat)
        if not seat.ready:
            self._start_failures += 1
            if self._start_failures >= _MAX_START_FAILURES:
                raise StoreError(
                    f"{self._start_failures} Ray workers ended before their first task, the last "
                    f"with {type(error).__name__}",
                    expected="a cluster whose machines have t3d installed, and stay",
                    fix=f"see `ray status` and Ray's logs; {_GO_ON}",
                ) from error
        left, lost = deque(seat.held), None
        if left:
            left[0].deaths += 1
            if left[0].deaths >= engine.TRIES:
                told = f"the Ray worker died {engine.TRIES} times"
                lost = Lost(left.popleft().task, -9, "worker_died", told)
        self._queue.extendleft(reversed(left))
        self._seats[self._seats.index(seat)] = self._seat()
        return lost

    def _end(self, seat: _Seat) -> None:
        """End an actor if it lives; its worker dies with it."""
        if self._ray.is_initialized():  # else this very call would start another cluster
            with suppress(self._ray.exceptions.RayError, ValueError, RuntimeError):
                self._ray.kill(seat.actor, no_restart=True)


class _Head:
    """The process that knows the cluster; Ray keeps waiting for it, and then ends us."""

    def __init__(self, ray: ModuleType) -> None:
        self._address = ray.get_runtime_context().gcs_address
        self._asked = self._heard = time.monotonic()
        self._within_reach = _answers(self._address)  # a firewall may stand between

    def look(self) -> None:
        """Now and then, see whether it is still there.

        Raises:
            StoreError: It has been silent for too long.
        """
        now = time.monotonic()
        if not self._within_reach or now - self._asked < _LOOK_S:
            return
        rested = now - self._asked > _GONE_S  # we were stopped, or whom we feed was busy
        self._asked = now
        if rested or _answers(self._address):
            self._heard = now
        elif now - self._heard > _GONE_S:
            raise StoreError(
                "the Ray cluster is gone: its head does not answer",
                expected="a cluster that lives as long as the run",
                fix=_GO_ON,
            )
