"""What can go wrong, as a tree.

    T3DError
    |-- SourceError       a folder, table or report that cannot be listed or read
    |-- GeometryError     a grid that is missing, broken or not what was promised
    |-- StoreError        a cohort that is locked, damaged or lacks what was asked for
    |-- RecipeError       a recipe or setting that cannot be run (all problems at once)
    |-- CheckpointError   a checkpoint that is incomplete, damaged or does not fit
    `-- ProtocolError     a measurement that its protocol does not allow

Every message says what was found, what was expected and how to fix it, and names the
object by the cohort's pseudonymous id. Patient ids, names and DICOM UIDs never enter one.
"""

from __future__ import annotations


class T3DError(Exception):
    """Base of every error a user can cause: `found`, then `expected`, then `fix`."""

    def __init__(self, found: str, *, expected: str = "", fix: str = "") -> None:
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(found, expected, fix)

    def __str__(self) -> str:
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.found, self.expected, self.fix)


def _rebuild(kind: type[T3DError], found: str, expected: str, fix: str) -> T3DError:
    """Make the error again in another process (keyword arguments do not pickle by default)."""
    return kind(found, expected=expected, fix=fix)


class SourceError(T3DError):
    """A folder, table or report that cannot be listed or read."""


class GeometryError(T3DError):
    """A grid that is missing, broken or not what was promised."""


class StoreError(T3DError):
    """A cohort that is locked, damaged or lacks what was asked for."""


class RecipeError(T3DError):
    """A recipe or setting that cannot be run."""


class CheckpointError(T3DError):
    """A checkpoint that is incomplete, damaged or does not fit."""


class ProtocolError(T3DError):
    """A measurement that its protocol does not allow."""


class T3DWarning(UserWarning):
    """A setting that was ignored or had no effect."""
