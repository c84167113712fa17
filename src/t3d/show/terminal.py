"""What a person sees in the terminal: bars with rate and time left, tables of figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from t3d.cohort.preflight import Standing

PLAIN_WIDTH = 120  # columns of a table written to a file
PLAIN_EVERY_S = 10.0  # a line at most this often where there is no terminal


class Board:
    """Bars of several tasks at once; plain lines where output is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr)
        self.live = self.console.is_terminal and not quiet
        self.quiet = quiet
        self._bars = Bars(
            TextColumn("{task.description:16}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.live,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def __enter__(self) -> Board:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def announce(self, name: str, line: str) -> None:
        """Write one line above the bars."""
        if not self.quiet:
            text = f"{name:16} {line}"
            self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def update(self, name: str, done: int, total: int, note: str = "", *, rate: str = "") -> None:
        """Show how far a task is; `note` stands behind its bar, and its rate, if it knows one."""
        now = time.monotonic()
        spent = now - self._begun.setdefault(name, now)
        if not rate and spent > 1.0 and done:
            rate = f"{done / spent:.1f}/s"
        shown = f"{rate} {note}".strip()
        if self.live:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, note=shown)
            self._bars.update(self._tasks[name], completed=done, total=total, note=shown)
        elif not self.quiet and (done == total or now - self._said.get(name, -1e9) > PLAIN_EVERY_S):
            self._said[name] = now
            line = f"{name:16} {done}/{total} {spent:6.0f} s  {shown}".rstrip()
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)


class Progress:
    """One bar, as a callback (done, total) or (standing)."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self.name = name
        self.board = Board(quiet=quiet)
        self._announced = False

    def __enter__(self) -> Progress:
        self.board.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.board.__exit__(kind, error, trace)

    def update(self, told: int | Standing, total: int = 0) -> None:
        """Show how far the task is; before its first step, what lies ahead of it."""
        if isinstance(told, int):
            self.board.update(self.name, told, total)
            return
        if not self._announced:
            self._announced = True
            self.board.announce(self.name, told.ahead.line)
        rate = f"{told.studies_per_s:.1f} studies/s" if told.worked else ""
        self.board.update(self.name, told.done, told.total, told.note, rate=rate)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others are figures."""
    made = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        first = number == 0
        made.add_column(column, justify="left" if first else "right", no_wrap=first)
    for row in rows:
        made.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(made)


def say(text: str) -> None:
    """Print one line."""
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
