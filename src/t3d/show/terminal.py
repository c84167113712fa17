"""What a person sees in the terminal: bars with rate and time left, tables of figures."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType

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

    def update(self, name: str, done: int, total: int, note: str = "") -> None:
        """Show how far a task is; `note` stands behind its bar."""
        now = time.monotonic()
        self._begun.setdefault(name, now)
        if self.live:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, note=note)
            self._bars.update(self._tasks[name], completed=done, total=total, note=note)
        elif not self.quiet and (done == total or now - self._said.get(name, -1e9) > PLAIN_EVERY_S):
            self._said[name] = now
            spent = now - self._begun[name]
            rate = f"{done / spent:.1f}/s" if spent > 1.0 and done else ""
            line = f"{name:16} {done}/{total} {spent:6.0f} s  {rate} {note}".rstrip()
            self.console.print(line, soft_wrap=True, markup=False, highlight=False)


class Progress:
    """One bar, as a callback (done, total)."""

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        self.name = name
        self.board = Board(quiet=quiet)

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

    def update(self, done: int, total: int) -> None:
        """Show how far the task is."""
        self.board.update(self.name, done, total)


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
