"""Tasks; a new one is one file with `run(model, cohort, protocol, ...)` and a name in `TASKS`."""

from __future__ import annotations

from collections.abc import Callable

from t3d.judge.tasks import (
    calibration,
    localization,
    neighbours,
    pools,
    probe,
    retrieval,
    supervised,
    zero_shot,
)
from t3d.types import Result

TASKS: tuple[Callable[..., Result | tuple[Result, ...]], ...] = (
    zero_shot.run,
    retrieval.run,
    neighbours.run,
    pools.run,
    localization.run,
    supervised.run,
    probe.run,
    calibration.run,
)
"""Every task that ships; the module's name is the task's name. `probe` gives a result a share."""
