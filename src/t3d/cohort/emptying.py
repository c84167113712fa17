"""Delete the files of a source whose volumes are safely in a cohort: corpora larger than the disk.

A scan's file goes when its record is committed in every preparation that the cohort holds, what was
stored has been read back and is what was recorded, and the file is still the one that was prepared.
It must be listed for one series only and lie below the source's root after every link is resolved.
Tables, masks, files that nobody lists and files of series that failed stay.

A later run must list what is gone as it did before, or the cohort would change: that holds for
sources whose tables are the manifest. Others are refused, or must be forced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from t3d.cohort.listing import Source, members_of, roots_of
from t3d.cohort.shelf import mask_path, read_array, volume_path
from t3d.cohort.store import TABLES_FILE, Cohort
from t3d.cohort.work import source_of
from t3d.errors import SourceError, StoreError
from t3d.types import Series, Study

_log = logging.getLogger(__name__)

MANIFEST = (
    *("ct_rate", "inspect", "bimcv_r", "merlin", "rad_chestct", "rexgrounding", "amos", "msd"),
)
"""Sources that list a volume whether or not its file is there (tests/cohort/test_emptying.py)."""

_NEVER = {
    "dicom_folder": "its studies are read from the files themselves: of a study whose chosen "
    "series is gone, another would be taken",
}
_OWN = ("folder", "files")  # the user's own data
REASONS = {
    "not_recorded": "not prepared yet, or not in every preparation of the cohort",
    "damaged_store": "what was stored is lost or not what was recorded",
    "changed": "not the file that was prepared",
    "shared": "listed for several series",
    "outside": "not below the source's folder once links are resolved",
    "not_permitted": "the system does not let us delete it",
}


class Size(NamedTuple):
    """How much."""

    files: int
    bytes: int


_NOTHING = Size(0, 0)


@dataclass(frozen=True, slots=True)
class _Record:
    """One volume in one preparation, as it was recorded."""

    preparation: str
    source: dict[str, str]  # file and fingerprint
    stored: tuple[tuple[Path, str], ...]  # volume and masks with their sha256
    shape: tuple[int, ...]  # of each (Z, Y, X)


@dataclass(slots=True)
class Emptier:
    """Deletes; give one as `after` to `prepare`, with the same source and cohort.

    Args:
        source: Its listing says which files are volumes.
        cohort: The folder that is written: of a shard its own (`Shard.folder`).
        force: Also the user's own data, and sources that are not known to list what is gone.

    Raises:
        SourceError: The source's listing cannot do without its files, or it was not forced.

    Source:
        Our choice (docs/howto/scale.md).
    """

    source: Source
    cohort: Path
    force: bool = False
    deleted: Size = _NOTHING
    kept: Counter[str] = field(default_factory=Counter)  # reason -> files of recorded series
    _listing: tuple[Study, ...] = field(init=False)
    _roots: tuple[Path, ...] = field(init=False)
    _listed: Counter[Path] = field(init=False)  # resolved file -> series that list it

    def __post_init__(self) -> None:
        self._listing = tuple(self.source.studies())
        _check_source(self.source, self._listing, force=self.force)
        self._roots = tuple(root.resolve() for root in roots_of(self.source))
        self._listed = Counter(
            file.resolve() for study in self._listing for one in study.series for file in one.files
        )

    def __call__(self, study: Study, series: Sequence[Series]) -> None:
        """Delete the files of a study's recorded series, where all conditions hold."""
        for one in series:
            if not any(file.exists() for file in one.files):
                continue
            reason = self._against(study, one)
            for file in one.files:
                if reason:
                    self._keep(reason)
                else:
                    self._delete(file)

    def survey(self) -> dict[str, Size]:
        """Say what is there, and delete nothing.

        Returns:
            By reason why files stay, "" = they would be deleted now: how many, and their size.
            `not_recorded` may go when what is listed has been prepared.
        """
        found: dict[str, Size] = {}
        for study in self._listing:
            for one in study.series:
                sizes = [file.stat().st_size for file in one.files if file.exists()]
                if sizes:
                    reason = self._against(study, one)
                    files, total = found.get(reason, _NOTHING)
                    found[reason] = Size(files + len(sizes), total + sum(sizes))
        return dict(sorted(found.items()))

    def _against(self, study: Study, series: Series) -> str:
        """Say why the files of one series stay; "" = nothing speaks for it."""
        real = [file.resolve() for file in series.files]
        if not all(any(file.is_relative_to(root) for root in self._roots) for file in real):
            return "outside"
        if any(self._listed[file] != 1 for file in real):
            return "shared"
        records = self._records(study.study_id, series.series_id)
        if not records:
            return "not_recorded"
        if any(record.source != self._now(series) for record in records):
            return "changed"
        return "" if all(map(_reads_back, records)) else "damaged_store"

    def _records(self, study_id: str, volume_id: str) -> list[_Record]:
        """Read what is committed of a volume; [] = a preparation of the cohort lacks it."""
        if not (self.cohort / TABLES_FILE).is_file():
            return []
        with closing(Cohort.open(self.cohort)) as cohort:  # not the writer: only what lasts is seen
            rows = cohort.rows(study_id).get("volume", ())
            found = [_record(self.cohort, *row) for row in rows if row[0] == volume_id]
            whole = {record.preparation for record in found} == set(cohort.preparations)
        return found if whole else []

    def _now(self, series: Series) -> dict[str, str]:
        """Give file and fingerprint as they would be recorded now; {} = they cannot be read."""
        try:
            return source_of(series.files, getattr(self.source, "root", None))
        except OSError:
            return {}

    def _delete(self, file: Path) -> None:
        """Delete one file, and the link that leads to it."""
        try:
            real = file.resolve(strict=True)
            size = real.stat().st_size
            real.unlink()
            if file.is_symlink():
                file.unlink()
        except OSError:
            self._keep("not_permitted")
            return
        self.deleted = Size(self.deleted.files + 1, self.deleted.bytes + size)

    def _keep(self, reason: str) -> None:
        """Count a file that stays; say once for each reason."""
        if reason not in self.kept:
            _log.warning("source files are kept: %s", REASONS[reason])
        self.kept[reason] += 1


def _record(cohort: Path, *row: str) -> _Record:
    """Read a row of the table `volume`."""
    key, preparation, _, sha256, shape, _, _, masks, _, source = row
    stored = [(volume_path(cohort, preparation, key), sha256)]
    for name, of_mask in json.loads(masks).items():
        stored.append((mask_path(cohort, preparation, key, name), of_mask))
    return _Record(preparation, json.loads(source), tuple(stored), tuple(json.loads(shape)))


def _reads_back(record: _Record) -> bool:
    """Read what is stored from the disk, not from memory where the system lets us; unpack it."""
    try:
        for path, sha256 in record.stored:
            with open(path, "rb") as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if hashlib.sha256(file.read()).hexdigest() != sha256:
                    return False
            read_array(path, record.shape)  # refuses another shape
    except (OSError, StoreError):
        return False
    return True


def _reads_headers(source: Source) -> bool:
    """Say whether a union, or one in it, chooses by what is in the files."""
    members = getattr(source, "members", {}).values()
    here = getattr(getattr(source, "rules", None), "min_slices", 0) > 0
    return here or any(map(_reads_headers, members))


def _check_source(source: Source, listing: Sequence[Study], *, force: bool) -> None:
    """Refuse what a later run would list otherwise, and ask twice before the user's own data."""
    kinds = {one.kind for one in members_of(source)}
    why = "; ".join(_NEVER[kind] for kind in sorted(kinds & set(_NEVER)))
    if _reads_headers(source):
        why = "it chooses by the headers of the files (min_slices)"
    if kinds & set(_OWN) and any(one.masks for study in listing for one in study.series):
        why = "masks are matched with the volumes that are there"
    if why:
        raise SourceError(
            f"files of the source {source.kind} cannot be deleted while preparing: {why}",
            expected="a source whose tables are the manifest",
            fix="prepare everything, verify the cohort, then delete the files yourself",
        )
    asked = sorted(kinds - set(MANIFEST))
    if asked and not force:
        own = set(asked) <= set(_OWN)
        raise SourceError(
            f"deleting files of the source {', '.join(asked)}: "
            + ("your own data" if own else "it lists what lies on the disk"),
            expected=f"one of {', '.join(MANIFEST)}",
            fix="if there is another copy, say --delete-sources force",
        )
