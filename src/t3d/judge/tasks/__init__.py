"""Tasks; a new one is one file with `run(model, cohort, protocol, ...)` and a name in `TASKS`."""

from __future__ import annotations

from collections.abc import Callable

from t3d.judge.tasks import retrieval, supervised, zero_shot
from t3d.types import Result

TASKS: tuple[Callable[..., Result], ...] = (zero_shot.run, retrieval.run, supervised.run)
"""Every task that ships; the module's name is the task's name."""
