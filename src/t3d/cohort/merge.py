"""Join the shards of a cohort: everything is checked before anything is written.

Volumes get a second name (a hard link), so merging takes no disk where shards and cohort share one;
each file is read and held against its sha256. Merged shards have the digest of one run over
everything. A merge that was killed goes on when run again, and one into a cohort that is there adds
to it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from t3d.cohort.shards import LISTED, SHARD, Shard, parse_shard
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter, locked
from t3d.errors import SourceError, StoreError
from t3d.types import Preparation


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """What one merge did."""

    shards: int
    studies: int  # with records, in all shards
    new: int  # of them and of what was set aside: brought by this run
    failed: Mapping[str, int] = field(default_factory=dict)  # reason -> set aside, in all shards
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One shard, as it was read before merging."""

    shard: Shard
    cohort: Cohort
    facts: Mapping[str, str]  # without those of the shard itself
    listed: Mapping[str, str]  # preparation -> digest of the listing, where it came to its end
    preparations: Mapping[str, tuple[Preparation, int]]  # with the loss in HU
    patients: Mapping[str, tuple[str, str]]  # study -> patient, split
    failed: tuple[tuple[str, str], ...]  # key, reason

    @property
    def keys(self) -> tuple[str, ...]:
        """Studies, and what was set aside."""
        return tuple(sorted({*self.patients, *(key for key, _ in self.failed)}))


def merge(
    shards: Sequence[str | Path],
    out: str | Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> MergeSummary:
    """Join the shards of one source into a cohort.

    Args:
        shards: Their folders, all of them, in any order (`shards_of`).
        out: The cohort, made if missing.
        progress: Called with (studies dealt with, of so many).

    Returns:
        Counts. The shards stay as they are and may be removed.

    Raises:
        StoreError: A shard is missing, not finished, of another count, source or preparation, or
            being written; two shards, or a shard and the cohort, contradict each other; a file is
            lost or damaged.
        SourceError: A patient is in two splits.

    Source:
        Our choice (docs/howto/scale.md).
    """
    began = time.monotonic()
    parts = sorted(map(_read, shards), key=lambda part: part.shard)
    _check_complete(parts)
    _check_alike(parts)
    _check_apart(parts)
    total, finished, new = sum(len(part.keys) for part in parts), 0, 0
    with CohortWriter(out) as writer:
        writer.be_shard(None)
        _check_splits(parts, writer)
        writer.agree_on(parts[0].facts)
        for preparation, loss_hu in parts[0].preparations.values():
            writer.add_preparation(preparation, loss_hu=loss_hu)
        for part in parts:
            with locked(part.cohort.path):
                for key in part.keys:
                    rows = part.cohort.rows(key)
                    new += writer.adopt(key, rows, part.preparations, part.cohort.path)
                    finished += 1
                    if progress is not None:
                        progress(finished, total)
            part.cohort.close()
    failed = Counter(reason for part in parts for _, reason in part.failed)
    return MergeSummary(
        shards=len(parts),
        studies=sum(len(part.patients) for part in parts),
        new=new,
        failed=MappingProxyType(dict(sorted(failed.items()))),
        seconds=time.monotonic() - began,
    )


def _read(path: str | Path) -> _Part:
    """Read of one shard what has to be checked."""
    cohort = Cohort.open(path)
    facts = dict(cohort.facts)
    told = facts.pop(SHARD, None)
    if told is None:
        raise StoreError(
            f"cohort {cohort.path.name} is no shard",
            expected="folders that `t3d prepare --shard I/N` wrote",
            fix="leave it out",
        )
    listed = {key[len(LISTED) :]: facts.pop(key) for key in tuple(facts) if key.startswith(LISTED)}
    files = {one: cohort.path / "preparations" / f"{one}.json" for one in cohort.preparations}
    losses = {
        one: json.loads(file.read_text("utf-8")).get("loss_hu", 0) for one, file in files.items()
    }
    part = _Part(
        shard=parse_shard(told),
        cohort=cohort,
        facts=facts,
        listed=listed,
        preparations={one: (made, losses[one]) for one, made in cohort.preparations.items()},
        patients={row.study_id: (row.patient_id, row.split) for row in cohort.studies()},
        failed=tuple((failure.study_id, failure.reason) for failure in cohort.failures()),
    )
    cohort.close()  # many shards are read before the first is merged
    return part


def _check_complete(parts: Sequence[_Part]) -> None:
    """Refuse where shards are missing, given twice, of another count, or not finished."""
    if not parts:
        raise StoreError(
            "no shards to merge",
            expected="COHORT.shards/001-of-016 and so on",
            fix="prepare them first: t3d prepare SOURCE COHORT --shard 1/16",
        )
    numbers = Counter(part.shard for part in parts)
    counts = sorted({shard.of for shard in numbers})
    if len(counts) > 1:
        raise StoreError(
            f"shards of {' and of '.join(map(str, counts))}",
            expected="one number of shards",
            fix="remove the folders of the other",
        )
    missing = [n for n in range(1, counts[0] + 1) if Shard(n, counts[0]) not in numbers]
    unfinished = [
        f"{part.shard} ({name})"
        for part in parts
        for name in part.preparations
        if name not in part.listed
    ]
    for what, found in (
        ("there twice", [str(shard) for shard, times in numbers.items() if times > 1]),
        ("missing", [str(Shard(n, counts[0])) for n in missing]),
        ("not finished", unfinished),
    ):
        if found:
            raise StoreError(
                f"shard{'s' * (len(found) > 1)} {what}: {', '.join(found)}",
                expected=f"{counts[0]} finished shards, each once",
                fix="prepare what is missing; a shard that was killed goes on when run again",
            )


def _check_alike(parts: Sequence[_Part]) -> None:
    """Refuse where a shard was made of another source, or in another way, than the first."""
    first = parts[0]
    for part in parts[1:]:
        for what, differs in _differences(first, part):
            if differs:
                raise StoreError(
                    f"shard {part.shard} has {what} than shard {first.shard}: {', '.join(differs)}",
                    expected="shards of one source, prepared and labelled alike",
                    fix="run the shards that are behind again: they go on where they were",
                )


def _differences(one: _Part, other: _Part) -> Iterator[tuple[str, list[str]]]:
    """Yield what may not differ, and where it does."""
    for what, here, there in (
        ("other preparations", one.preparations, other.preparations),
        ("another listing", one.listed, other.listed),
        ("other facts", one.facts, other.facts),
    ):
        names = sorted({*here, *there})
        yield what, [name for name in names if here.get(name) != there.get(name)]


def _check_apart(parts: Sequence[_Part]) -> None:
    """Refuse where two shards speak of one study."""
    owner: dict[str, Shard] = {}
    for part in parts:
        for key in part.keys:
            if owner.setdefault(key, part.shard) != part.shard:
                raise StoreError(
                    f"study {key} is in shard {owner[key]} and in shard {part.shard}",
                    expected="each study in one shard",
                    fix="prepare both anew, from one source whose patient ids do not change",
                )


def _check_splits(parts: Sequence[_Part], writer: CohortWriter) -> None:
    """Refuse where a patient is in another split here than there."""
    known = writer.known_studies()
    split_of = {patient: split for patient, split, _ in known.values()}
    told = [pair for part in parts for pair in part.patients.values()]
    leaks = sum(split_of.setdefault(patient, split) != split for patient, split in told)
    if leaks:
        raise SourceError(
            f"split_leak: {leaks} studies belong to a patient who is also in another split",
            expected="each patient in one split",
            fix="merge into a new folder",
        )
