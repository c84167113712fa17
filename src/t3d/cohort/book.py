"""What a run of prepare writes down: outcomes recorded and counted, and who is told of them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from t3d.cohort import engine
from t3d.cohort.preflight import Preflight, Standing
from t3d.cohort.schema import Failure
from t3d.cohort.work import Answer, Task
from t3d.cohort.writer import CohortWriter
from t3d.types import Series, Study

_log = logging.getLogger(__name__)

After = Callable[[Study, tuple[Series, ...]], None]
"""Told of each study once, after the commit, with those of its series that are on record; also of
studies that an earlier run recorded."""


@dataclass(slots=True, kw_only=True)
class Book:
    """Counts and records outcomes."""

    writer: CohortWriter
    preparation: str
    ahead: Preflight
    total: int  # studies that are listed
    progress: Callable[[Standing], None] | None = None
    after: After | None = None
    done: int = 0
    skipped: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    _finished: int = 0
    _worked: int = 0
    _megabytes: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Start the clock and tell what lies ahead."""
        self._began = time.monotonic()
        self._tell()

    def skip(self, study: Study, recorded: Sequence[Series]) -> None:
        """Count a study that an earlier run dealt with."""
        self.skipped += 1
        self._hand_on(study, recorded)
        self._tick()

    def fail(
        self,
        study_id: str,
        volume_id: str,
        reason: str,
        message: str,
        *,
        counts_as_study: bool = True,
    ) -> None:
        """Set something aside."""
        self.failed[reason] += 1
        _log.warning("study %s set aside: %s: %s", study_id, reason, message)
        self.writer.record_failure(
            Failure(
                study_id=study_id,
                volume_id=volume_id,
                preparation=self.preparation,
                reason=reason,
                message=message,
            )
        )
        if counts_as_study and not volume_id:
            self._tick()

    def enter(self, outcome: engine.Done[Task, Answer] | engine.Lost[Task]) -> None:
        """Record what a worker did.

        Raises:
            StoreError: The cohort cannot be written.
        """
        task = outcome.task
        study = task.study
        self._worked += 1
        self._megabytes += task.megabytes
        if isinstance(outcome, engine.Lost):
            self.fail(study.study_id, "", outcome.reason, f"{outcome.message}, on this study")
            return
        answer = outcome.value
        if answer.stopped is not None:
            raise answer.stopped
        if answer.volumes:
            self.done += 1
            self.writer.record(study, self.preparation, answer.volumes)
        for volume_id, reason, message in answer.failures:
            self.fail(study.study_id, volume_id, reason, message)
        made = {volume.volume_id for volume in answer.volumes}
        new = tuple(series for series in task.series if series.series_id in made)
        self._hand_on(study, (*task.recorded, *new))
        self._tick()

    def _hand_on(self, study: Study, recorded: Sequence[Series]) -> None:
        """Tell of a study whose records last from now on."""
        if self.after is not None and recorded:
            self.writer.commit()
            self.after(study, tuple(recorded))

    def _tick(self) -> None:
        """Count a study that is dealt with."""
        self._finished += 1
        self._tell()

    def _tell(self) -> None:
        """Tell how far we are."""
        if self.progress is not None:
            self.progress(
                Standing(
                    done=self._finished,
                    total=self.total,
                    failed=self.failed.total(),
                    worked=self._worked,
                    megabytes=self._megabytes,
                    total_megabytes=self.ahead.source_mb,
                    seconds=time.monotonic() - self._began,
                    ahead=self.ahead,
                )
            )
