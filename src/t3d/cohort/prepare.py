"""Bring studies into a cohort: parallel, resumable, appendable; what fails is set aside.

A study is recorded after its files are synced, so a killed run leaves a sound cohort, and running
again goes on where it stopped and ends with the same digest. A full disk stops the run; it is not
the fault of the study that met it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from t3d.cohort.book import After, Book
from t3d.cohort.engine import seconds_for
from t3d.cohort.listing import Source, roots_of
from t3d.cohort.preflight import Preflight, Standing
from t3d.cohort.shards import checked
from t3d.cohort.todo import Todo, check_listing
from t3d.cohort.work import Task, prepare_study
from t3d.cohort.writer import CohortWriter
from t3d.ct.limits import WORKER_MEMORY_MB
from t3d.errors import RecipeError
from t3d.types import Preparation

_log = logging.getLogger(__name__)

ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSummary:
    """What one run of prepare did."""

    done: int  # studies newly prepared
    skipped: int  # studies that an earlier run had finished or set aside
    failed: Mapping[str, int] = field(default_factory=dict)  # reason -> series or studies
    seconds: float = 0.0
    ahead: Preflight | None = None  # what was estimated before


def prepare(
    source: Source,
    out: str | Path,
    preparation: Preparation,
    *,
    workers: int | None = None,
    progress: Callable[[Standing], None] | None = None,
    retry_failed: bool = False,
    loss_hu: int = 0,
    ignore_disk: bool = False,
    memory_mb: int = WORKER_MEMORY_MB,
    engine: str = "local",
    shard: tuple[int, int] | None = None,
    after: After | None = None,
) -> PrepareSummary:
    """Bring every study of a source into a cohort folder.

    What is there already is left alone, so the call resumes a killed run, appends new studies,
    and adds a second preparation to an existing cohort.

    Args:
        source: Lists studies; listed twice, so its listing must be repeatable.
        out: The cohort folder, made if missing.
        preparation: The target grid.
        workers: Processes of one thread each; None = as many as cores and free memory allow;
            0 = in this process, without ceilings: for files that you trust.
        progress: Called before the first study and after each one.
        retry_failed: Try again what an earlier run set aside.
        loss_hu: Largest error allowed to a stored voxel, HU; 1 = steps of 2 HU, 0 = none.
        ignore_disk: Start even if the disk does not seem to hold the result.
        memory_mb: Ceiling of one worker; a study that needs more is set aside.
        engine: "local" = processes of this machine; "ray" = those of a Ray cluster.
        shard: (number from 1, count): only the patients of this part, into a cohort of its own
            below `out`.shards; `merge` joins them. None = everything.
        after: Called after each study that has records, once they last; see `After`.

    Returns:
        Counts of this run. A study with several series is done when at least one of them is.

    Raises:
        SourceError: A patient is in two splits, or a study id occurs twice with other content.
        StoreError: The cohort is locked, damaged, is another shard, or holds other content under
            the same names; it cannot be written, or the disk is too small.
        RecipeError: No such engine or shard.

    Source:
        Reason codes: our choice (docs/howto/prepare-your-folder.md).
    """
    began = time.monotonic()
    part = None if shard is None else checked(shard)
    folder = Path(out) if part is None else part.folder(out)
    run = _engine_named(engine, folder, source)
    with CohortWriter(folder) as writer:
        listing = tuple(source.studies())
        listed = check_listing(listing, writer)
        writer.be_shard(part)
        writer.add_preparation(preparation, loss_hu=loss_hu)
        writer.set_facts(_facts(source))
        todo = Todo(
            listing=listing,
            writer=writer,
            preparation=preparation,
            root=getattr(source, "root", None),
            loss_hu=loss_hu,
            shard=part,
            retry=retry_failed,
        )
        ahead = todo.look_ahead(workers)
        _log.info("prepare: %s", ahead.line)
        if not ignore_disk:
            ahead.check_disk()
        book = Book(
            writer=writer,
            preparation=preparation.name,
            ahead=ahead,
            total=len(todo.ours),
            progress=progress,
            after=after,
        )
        _work_through(run, source, todo, book, memory_mb=memory_mb)
        if part is not None:
            # What was set aside may have become a study since, of a patient of another shard.
            writer.forget_failures(preparation.name, todo.elsewhere)
            writer.finish_listing(preparation.name, listed)
    return PrepareSummary(
        done=book.done,
        skipped=book.skipped,
        failed=MappingProxyType(dict(sorted(book.failed.items()))),
        seconds=time.monotonic() - began,
        ahead=ahead,
    )


def _work_through(
    run: Callable[..., Generator[Any, None, None]],
    source: Source,
    todo: Todo,
    book: Book,
    *,
    memory_mb: int,
) -> None:
    """Do what is left and record it."""
    for told in todo.told_here(getattr(source, "set_aside", lambda: ())()):
        book.fail(told.key, "", told.reason, told.message, counts_as_study=False)
    book.begin()
    outcomes = run(
        prepare_study,
        todo.tasks(book),
        workers=book.ahead.workers,
        memory_mb=memory_mb,
        seconds=_ceiling_s,
    )
    # Closed at once on the way out, so that no worker writes while the writer tidies up.
    with closing(outcomes):
        for outcome in outcomes:
            book.enter(outcome)


def _engine_named(
    name: str, folder: Path, source: Source
) -> Callable[..., Generator[Any, None, None]]:
    """Give what runs many tasks; Ray is only looked for when it is asked for."""
    if name == "ray":
        from t3d.cohort.engine_ray import Shared
        from t3d.cohort.engine_ray import run as run_on_ray

        return partial(run_on_ray, shared=Shared(folder, roots_of(source)))
    if name == "local":
        from t3d.cohort.engine import run

        return run
    raise RecipeError(f"engine {name!r} is unknown", expected=f"one of {', '.join(ENGINES)}")


def _ceiling_s(task: Task) -> float:
    """Give a study time by the size of its files."""
    return seconds_for(task.megabytes)


def _facts(source: Source) -> dict[str, str]:
    """What the cohort records of its source."""
    terms = source.terms
    return {
        "source_kind": source.kind,
        "licence": terms.licence,
        "citation": terms.citation,
        "synthetic": "true" if terms.synthetic else "false",
    }
