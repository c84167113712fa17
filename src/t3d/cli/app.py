"""The command line itself: exit codes, and what verbs print with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from cyclopts import App

import t3d
from t3d.errors import RecipeError, T3DError

app = App(
    name="t3d",
    help="Learning from 3-D CT and radiology reports. Research software, not for clinical use.",
    version=t3d.__version__,
    help_format="plaintext",  # rich text costs a third of the start-up
)

FAILED, WRONG_USE = 1, 2


def main() -> None:
    """Run the command line; errors of ours are printed without a traceback."""
    try:
        code = app()
    except T3DError as error:
        print_error(f"{type(error).__name__}: {error}")
        sys.exit(WRONG_USE)
    except BrokenPipeError:  # `t3d info limits | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        print_error("stopped; what was finished is kept, the same command continues")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def print_error(text: str) -> None:
    """Write to standard error."""
    sys.stderr.write(text + "\n")


def print_out(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(text + "\n")


def pairs(changes: tuple[str, ...], option: str, example: str) -> dict[str, str]:
    """Split options of the form name=value.

    Raises:
        RecipeError: One of them has no "=".
    """
    found = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"{option} {change}", expected=f"name=value, as {example}")
        found[name] = value
    return found


def lines_of(told: Any, indent: str = "") -> Iterator[str]:
    """Write JSON data as indented lines."""
    if isinstance(told, dict):
        for key, value in told.items():
            if isinstance(value, dict | list) and value:
                yield f"{indent}{key}:"
                yield from lines_of(value, indent + "  ")
            else:
                yield f"{indent}{key}: {value if value != {} and value != [] else '-'}"
    elif isinstance(told, list):
        for value in told:
            if isinstance(value, dict | list):
                yield from lines_of(value, indent + "  ")
            else:
                yield f"{indent}{value}"
