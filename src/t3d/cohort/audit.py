"""Judge a source, a cohort or loose files: the ten checks, one count a reason, one row a file.

1 ids and files, 2 patients and splits, 3 three axes, 4 affine and spacing, 5 HU, 6 length along
z, 7 texts, 8 labels, 9 a repeatable listing, 10 a hash over what was listed. Every scan is opened
in a worker under memory and time ceilings, so a broken file is a row, never a crash.

Source:
    The ten checks and reason codes: our choice, docs/howto/doctor.md.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from t3d.cohort import engine
from t3d.cohort.delimited import is_absent
from t3d.cohort.listing import Source
from t3d.cohort.loose import LooseFiles
from t3d.cohort.preflight import megabytes_of, open_series
from t3d.cohort.schema import compact
from t3d.cohort.sources import DicomFolder, open_source, source_at
from t3d.cohort.store import TABLES_FILE, Cohort
from t3d.ct.limits import MAX_COMPARED
from t3d.errors import SourceError, T3DError
from t3d.types import Report, Series, Study

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from t3d.ct.doctor import Examination

Progress = Callable[[int, int], None]

# Correlation of fingerprints. Copies on the grids of our preparations reach it in 58 of 60 cases
# (benchmarks/doctor.py), `ctclip` aside, which cuts the volume.
SAME_CONTENT = 0.9985
_REASON_OF_SYMPTOM: Mapping[str, str] = {
    "constant": "constant",
    **dict.fromkeys(
        ("scaled", "label_map", "rescaled_twice", "never_rescaled", "window_burnt_in", "not_ct"),
        "hu_implausible",
    ),
    "too_few_slices": "too_small",
    "scout": "too_small",
    "spacing_out_of_range": "bad_affine",
    "no_chest": "no_chest",
}
CHECKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ids are unique; rows have files and files have rows", (
        "duplicate_key", "missing_file", "unlisted_file")),
    ("no patient in two splits", ("split_leak",)),
    ("three axes", ("not_3d",)),
    ("affine finite, spacing 0.2 to 10 mm", ("bad_affine",)),
    ("values are HU", ("hu_implausible", "constant")),
    ("100 to 700 mm along z (a warning)", ("z_extent",)),
    ("texts", ("no_report", "empty_text", "duplicate_text")),
    ("labels are 0, 1 or not stated", ("bad_label",)),
    ("the listing is repeatable", ("listing_changes",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One file, or one thing that has none."""

    volume_id: str
    study_id: str = ""
    split: str = ""
    reasons: tuple[str, ...] = ()  # why a reader would set it aside, or what to know
    message: str = ""  # of a refusal, or what the reasons rest on
    examination: Examination | None = None  # None = it could not be opened, or needs no opening


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found, independent of the order of rows and workers."""

    subject: str  # "cohort", "files", or the source's kind
    rows: tuple[AuditRow, ...]  # by study and volume
    counts: Mapping[str, int]  # reason -> rows
    symptoms: Mapping[str, int]  # symptom of the doctor -> scans
    num_scans: int
    num_studies: int
    manifest: str  # sha256 over (volume, patient, split, text hash) in order of ids
    notes: tuple[str, ...] = ()  # what could not be checked

    @property
    def sound(self) -> bool:
        """Whether nothing would be set aside and no scan has an error."""
        grave = any(
            row.examination is not None and row.examination.severity == "error" for row in self.rows
        )
        return not grave and not set(self.counts) - _MERE_WARNINGS


_MERE_WARNINGS = {"z_extent", "no_chest", "no_report", "empty_text", "duplicate_text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """One scan to open, in a worker."""

    volume_id: str
    study_id: str
    split: str
    series: Series | None = None
    cohort: Cohort | None = None
    preparation: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of it."""

    examination: Examination | None = None
    reason: str = ""
    message: str = ""


@dataclass(slots=True)
class _Book:
    """Rows as they are found, by (study, volume)."""

    rows: dict[tuple[str, str], AuditRow] = field(default_factory=dict)

    def add(self, study_id: str, volume_id: str, reason: str = "", message: str = "") -> None:
        """Add a reason to a row, which is made where it is missing."""
        key = (study_id, volume_id)
        row = self.rows.get(key) or AuditRow(volume_id=volume_id, study_id=study_id)
        if reason and reason not in row.reasons:
            said = "; ".join(part for part in (row.message, message) if part)
            row = replace(row, reasons=(*row.reasons, reason), message=said)
        self.rows[key] = row


def audit(
    subject: Source | Cohort | Sequence[Path],
    *,
    workers: int | None = None,
    keep: int = 24,
    progress: Progress | None = None,
) -> Audit:
    """Run the ten checks and examine every scan.

    Args:
        subject: A source, an open cohort, or files that belong to no table.
        workers: Processes of one thread each; None = one per core; 0 = in this process, for
            files that are trusted.
        keep: Scans, the gravest first, that keep their pictures; the others lose them.
        progress: Called with (scans examined, scans in all).

    Returns:
        One row a file in order of ids, and counts. Two runs give the same, whatever the order
        of rows in the source.

    Raises:
        SourceError: The source cannot be listed at all.
        StoreError: The cohort's tables cannot be read.
    """
    book = _Book()
    if isinstance(subject, Cohort):
        kind, listing, scans = "cohort", _cohort_studies(subject), _cohort_scans(subject, book)
    else:
        source = LooseFiles(subject) if isinstance(subject, Sequence) else subject
        kind, listing = source.kind, tuple(source.studies())
        scans = _source_scans(listing)
        for told in getattr(source, "set_aside", lambda: ())():
            book.add(told.key, told.key, told.reason, told.message)
        loose = isinstance(source, LooseFiles)  # DICOM headers would all be read twice
        if not loose and _manifest(listing) != _manifest(tuple(source.studies())):
            book.add("", "", "listing_changes", "listed twice, the source gives two answers")
    for scan in scans:
        book.add(scan.study_id, scan.volume_id)
        row = book.rows[scan.study_id, scan.volume_id]
        book.rows[scan.study_id, scan.volume_id] = replace(row, split=scan.split)
    _check_listing(listing, book, texts=kind != "files")
    if not scans and not book.rows:
        raise SourceError(
            "nothing to examine: no scan was found",
            expected="NIfTI, NRRD, MetaImage or DICOM files, zipped or not",
            fix="check the path",
        )
    cores = engine.available_cores() if workers is None else workers
    notes = _examine_all(scans, book, workers=min(cores, len(scans)), keep=keep, progress=progress)
    rows = tuple(book.rows[key] for key in sorted(book.rows))
    return Audit(
        subject=kind,
        rows=rows,
        counts=_counted(reason for row in rows for reason in row.reasons),
        symptoms=_counted(
            f.code for row in rows if row.examination for f in row.examination.findings
        ),
        num_scans=len(scans),
        num_studies=len({study.study_id for study in listing}),
        manifest=_manifest(listing),
        notes=notes,
    )


def subject_at(path: str | Path) -> Source | Cohort | tuple[Path, ...]:
    """Find out what a path is: a cohort, a source by what lies there, or loose files.

    Args:
        path: A cohort's folder, a folder with `studies.csv`, a corpus in its own layout, any
            other folder, or a file.

    Returns:
        What `audit` takes; what only `dicom_folder` would take is loose files, since that source
        lists one series of each study and makes a key for its ids.

    Raises:
        SourceError: Nothing is there.
    """
    path = Path(path)
    if (path / TABLES_FILE).is_file():
        return Cohort.open(path)
    if not path.exists():
        raise SourceError(
            f"{path.name}: no such file or folder",
            expected="a scan, a folder of scans, a source or a cohort",
            fix="check the path",
        )
    made = source_at(path)
    return (path,) if made is None or made is DicomFolder else open_source(path, made.kind)


# ---- what there is -------------------------------------------------------------------------


def _source_scans(listing: Sequence[Study]) -> tuple[_Scan, ...]:
    """Every series of every study."""
    return tuple(
        _Scan(volume_id=one.series_id, study_id=study.study_id, split=study.split, series=one)
        for study in listing
        for one in study.series
    )


def _cohort_studies(cohort: Cohort) -> tuple[Study, ...]:
    """Studies as a source would list them, their volumes as series without files."""
    return tuple(
        Study(
            study_id=row.study_id,
            patient_id=row.patient_id,
            series=tuple(Series(series_id=v, files=()) for v in row.volume_ids),
            reports=cohort.reports(row.study_id),
            labels=row.labels,
            split=row.split,
        )
        for row in cohort.studies()
    )


def _cohort_scans(cohort: Cohort, book: _Book) -> tuple[_Scan, ...]:
    """Prepared volumes, each in its finest preparation; hashes and failures go in the book."""
    for problem in cohort.verify():
        where, _, what = problem.partition(": ")
        reason = {"lost": "missing_file", "not recorded": "unlisted_file"}.get(what, "damaged")
        book.add("", where, reason, problem)
    for failure in cohort.failures():
        key = failure.volume_id or failure.study_id
        book.add(failure.study_id, key, failure.reason, failure.message)
    scans = []
    sizes = {name: dict(_sizes(cohort, name)) for name in cohort.preparations}
    for study in cohort.studies():
        for volume_id in study.volume_ids:
            name = max(sizes, key=lambda n: (sizes[n].get(volume_id, 0), n))
            scans.append(
                _Scan(
                    volume_id=volume_id,
                    study_id=study.study_id,
                    split=study.split,
                    cohort=cohort,
                    preparation=name,
                )
            )
    return tuple(scans)


def _sizes(cohort: Cohort, preparation: str) -> Iterator[tuple[str, int]]:
    """Voxels of each volume of a preparation."""
    for volume_id in cohort.sources(preparation):
        z, y, x = cohort.shape(volume_id, preparation)
        yield volume_id, z * y * x


# ---- checks of the listing -----------------------------------------------------------------


def _check_listing(listing: Sequence[Study], book: _Book, *, texts: bool) -> None:
    """Checks 1, 2, 7 and 8: what needs no voxels."""
    studies: Counter[str] = Counter(study.study_id for study in listing)
    series: Counter[str] = Counter(one.series_id for study in listing for one in study.series)
    splits: dict[str, set[str]] = defaultdict(set)
    same_text: dict[str, list[Study]] = defaultdict(list)
    for study in listing:
        splits[study.patient_id].add(study.split)
        for report in study.reports:
            same_text[_text_hash((report,))].append(study)
    for study in listing:
        for reason, message in _study_problems(study, texts=texts):
            _mark(book, study, reason, message)
        if studies[study.study_id] > 1 or any(series[s.series_id] > 1 for s in study.series):
            _mark(book, study, "duplicate_key", "its id is listed more than once")
        if len(splits[study.patient_id]) > 1:
            _mark(book, study, "split_leak", "its patient is also in another split")
    for digest, members in same_text.items():
        patients = {study.patient_id for study in members}
        if digest and len(patients) > 1:
            across = " in several splits" if len({s.split for s in members}) > 1 else ""
            for study in members:
                message = f"{len(patients)} patients share its text{across}"
                _mark(book, study, "duplicate_text", message)


def _mark(book: _Book, study: Study, reason: str, message: str) -> None:
    """Give a reason to all scans of a study."""
    for one in study.series:
        book.add(study.study_id, one.series_id, reason, message)


def _study_problems(study: Study, *, texts: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with one study's report and labels."""
    if texts and not study.reports:
        yield "no_report", "no report"
    elif texts and not any(_text_hash((report,)) for report in study.reports):
        yield "empty_text", "its report has no text, or only a placeholder"
    odd = sorted(name for name, value in study.labels.items() if value not in (0, 1, None))
    if odd:
        yield "bad_label", f"labels other than 0, 1 or not stated: {', '.join(odd)}"


def _told(text: str) -> str:
    """A section without case, spaces and placeholders."""
    return "" if is_absent(text) else " ".join(text.casefold().split())


def _text_hash(reports: Iterable[Report]) -> str:
    """Hash what reports say; "" = nothing."""
    parts = [[_told(report.findings), _told(report.impression)] for report in reports]
    if not any(section for part in parts for section in part):
        return ""
    return hashlib.sha256(compact(parts).encode()).hexdigest()


def _manifest(listing: Sequence[Study]) -> str:
    """Hash (volume, patient, split, text hash) in order of ids."""
    lines = sorted(
        compact([one.series_id, study.patient_id, study.split, _text_hash(study.reports)])
        for study in listing
        for one in study.series
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _counted(names: Iterable[str]) -> Mapping[str, int]:
    """Count names, in their order."""
    return MappingProxyType(dict(sorted(Counter(names).items())))


# ---- scans ---------------------------------------------------------------------------------


def _examine_all(
    scans: Sequence[_Scan], book: _Book, *, workers: int, keep: int, progress: Progress | None
) -> tuple[str, ...]:
    """Examine all scans in workers, keep the gravest pictures, and look for copies."""
    gravest: list[tuple[int, str, tuple[str, str]]] = []
    outcomes = engine.run(_examined, scans, workers=workers, seconds=_seconds)
    for done, outcome in enumerate(outcomes, start=1):
        scan = outcome.task
        if isinstance(outcome, engine.Done):
            answer: _Answer = outcome.value
        else:
            answer = _Answer(None, outcome.reason, outcome.message)
        key = (scan.study_id, scan.volume_id)
        _enter(book, key, answer)
        if answer.examination is not None:
            heapq.heappush(gravest, (*_gravity(answer.examination), key))
            if len(gravest) > keep:
                _, _, lost = heapq.heappop(gravest)
                held = book.rows[lost].examination
                if held is not None:
                    book.rows[lost] = replace(book.rows[lost], examination=replace(held, planes=()))
        if progress is not None:
            progress(done, len(scans))
    return _find_copies(book)


def _gravity(examination: Examination) -> tuple[int, str]:
    """Order by severity, then by id, the same in every run."""
    rank = {"error": 3, "warning": 2, "note": 1}.get(examination.severity, 0)
    return rank, hashlib.sha256(examination.volume_id.encode()).hexdigest()


def _seconds(scan: _Scan) -> float:
    """Time ceiling of a scan."""
    return engine.seconds_for(megabytes_of((scan.series,)) if scan.series else 0.0)


def _examined(scan: _Scan) -> _Answer:
    """Open and examine one scan; runs in a worker."""
    from t3d.ct.doctor import examine
    from t3d.ct.guard import reason_of

    try:
        if scan.cohort is not None:
            return _Answer(examine(scan.cohort.volume(scan.volume_id, scan.preparation)))
        if scan.series is None:
            raise AssertionError(f"scan {scan.volume_id} has neither files nor a cohort")
        with open_series(scan.series) as slices:
            return _Answer(examine(slices))
    except engine.READING_ERRORS as error:
        told = str(error) if isinstance(error, T3DError) else engine.named(error)
        return _Answer(None, reason_of(error), told)


def _enter(book: _Book, key: tuple[str, str], answer: _Answer) -> None:
    """Write an answer into its row."""
    if answer.reason:
        book.add(*key, answer.reason, answer.message)
    if answer.examination is not None:
        for finding in answer.examination.findings:
            reason = _REASON_OF_SYMPTOM.get(finding.code, "")
            if finding.code == "z_extent" or finding.severity == "error":
                reason = reason or finding.code
            if reason:
                book.add(*key, reason, finding.found)
        book.rows[key] = replace(book.rows[key], examination=answer.examination)


def _find_copies(book: _Book) -> tuple[str, ...]:
    """Mark scans of different studies that show the same content."""
    rows = [row for _, row in sorted(book.rows.items()) if row.examination is not None]
    exact: dict[str, list[AuditRow]] = defaultdict(list)
    for row in rows:
        if row.examination is not None:
            exact[row.examination.content].append(row)
    for members in exact.values():
        for row, other in zip(members, members[1:] + members[:1], strict=True):
            _mark_copy(book, row, other, "equal voxel for voxel")
    if len(rows) > MAX_COMPARED:
        told = f"{len(rows)} scans are more than {MAX_COMPARED}: near copies were not looked for"
        return (told,)
    for a, b, likeness in _alike(rows):
        said = f"fingerprints correlate {likeness:.4f}"
        _mark_copy(book, rows[a], rows[b], said)
        _mark_copy(book, rows[b], rows[a], said)
    return ()


def _mark_copy(book: _Book, row: AuditRow, other: AuditRow, how: str) -> None:
    """Say that a row shows what a row of another study shows."""
    if row.study_id == other.study_id:
        return
    key = (row.study_id, row.volume_id)
    if "duplicate_scan" not in book.rows[key].reasons:
        book.add(*key, "duplicate_scan", f"shows what {other.volume_id} shows: {how}")
    if row.split != other.split:
        book.add(*key, "split_leak", "and that is in another split")


def _alike(rows: Sequence[AuditRow]) -> Iterator[tuple[int, int, float]]:
    """Pairs of rows whose fingerprints are nearly equal; blocks keep memory small."""
    import numpy as np

    prints: list[NDArray[float32]] = []
    for row in rows:
        if row.examination is not None:
            held = np.frombuffer(row.examination.fingerprint, dtype=np.float16)
            prints.append(held.astype(np.float32))
    if not prints:
        return
    all_prints = np.stack(prints)
    for low in range(0, len(rows), 512):
        likeness = all_prints[low : low + 512] @ all_prints[low:].T
        for a, b in np.argwhere(likeness > SAME_CONTENT).tolist():
            if b > a:
                yield low + a, low + b, float(likeness[a, b])
