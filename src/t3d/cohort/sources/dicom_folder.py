"""A tree or archive of DICOM files and a table of reports, paired by identifiers and nothing else.

The table has one row per report. Columns (DICOM's own names are understood too):

    study_uid            StudyInstanceUID
    accession            AccessionNumber
    patient, date        PatientID and StudyDate (20240131 or 2024-01-31); both, or as a check
    findings, impression or report; language; status ("final", "preliminary", "addendum")
    split                train, dev, test or blank; and the names of CT_RATE_18: 0, 1, blank

A row is paired with a study when every key it gives (study_uid; accession; patient with date) that
this tree knows names that one study and nothing that both state differs. What is not that clear is
set aside, row and studies both. Other columns are not read, so that no identifier slips through.

The rows of a study make one report (`text/addenda.py`): a final one replaces preliminary ones,
addenda are added to it, in an order of their own texts and keys, not of the rows. Two different
final reports are ambiguous, and so are two preliminary ones without a final: which counts is not
told. What was replaced and added is counted in the study's facts.

Ids of patients, studies and series are keyed hashes (`pseudonyms.py`). Dates are dropped, ages
above 89 become 90. File names, identifiers and free texts of headers are in no message, log or
record. The text of a report is kept as it stands: names in it are the user's to remove.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from t3d.cohort.delimited import ABSENT_IN_OWN_TABLES, LABEL_VALUES, is_absent, read_delimited
from t3d.cohort.listing import SetAside, Terms
from t3d.cohort.patients import SPLITS
from t3d.cohort.pseudonyms import age_years, open_pseudonyms
from t3d.errors import SourceError, T3DError
from t3d.text.addenda import STATUSES, reports_in_row, resolve_reports
from t3d.text.findings import CT_RATE_18
from t3d.types import Report, Series, Study

_log = logging.getLogger(__name__)

OLDEST_AGE = 90  # years
_CALLED = "the table of reports"
_KEYS = ("study_uid", "accession", "patient", "date")
_TEXTS = ("report", "findings", "impression")
_OTHERS = ("language", "status", "split")
_DICOM_NAMES = {
    "studyinstanceuid": "study_uid",
    "accessionnumber": "accession",
    "patientid": "patient",
    "studydate": "date",
}
_LABELS = {name.casefold(): name for name in CT_RATE_18}
_SEXES = ("F", "M", "O")
_NO_KEY = ("no_identifier", "a row without study_uid, accession, or patient and date")
_NO_STUDY = ("no_study", "a row whose study is not here")
_AMBIGUOUS = ("ambiguous_report", "identifiers of a row name several studies, or contradict")
_Labels = tuple[tuple[str, int | None], ...]
_FACTS = ("PatientSex", "PatientAge", "PatientBirthDate", "StudyDate")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What one row reports, and of whom."""

    keys: Mapping[str, str] = field(repr=False)
    status: str
    reports: tuple[Report, ...]  # parts of its text
    split: str
    labels: _Labels


@dataclass(slots=True, kw_only=True)
class _Exam:
    """One study of the tree before it has an id."""

    uid: str = field(repr=False)
    patient: str = field(repr=False)
    accessions: set[str] = field(repr=False)
    date: str = field(repr=False)
    facts: dict[str, str]
    series: list[Any]  # DicomSeries
    mixed: bool  # its series name different patients
    rows: list[_Row] = field(default_factory=list)
    in_doubt: bool = False  # a row may or may not be its report


class DicomFolder:
    """DICOM files with reports as a source.

    Args:
        root: A folder with any subfolders, a DICOMDIR, or a zip or tar of such, listed once. An
            archive is unpacked for as long as this object lives; `close` or `with` end that sooner.
        reports: A CSV as the module's docstring describes; None = no reports.
        key: The key file of the pseudonyms; None = `~/.config/t3d/key`, made if missing.
        kernel: See `t3d.ct.dicom.choose`; one series is taken per study.
        phase: See `t3d.ct.dicom.choose`.
        gaps: What uneven slices lead to: "refuse" or "interpolate".

    Raises:
        SourceError: No such folder or table, or a key that others may read.

    Example:
        >>> source = DicomFolder("export", reports="reports.csv")  # doctest: +SKIP
    """

    kind = "dicom_folder"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a path may be such a tree: any folder or archive may."""
        return root.exists()

    # No attribute `root`: paths of such a tree hold identifiers and are recorded nowhere.

    def __init__(
        self,
        root: str | Path,
        *,
        reports: str | Path | None = None,
        key: str | Path | None = None,
        kernel: str = "",
        phase: str = "",
        gaps: str = "refuse",
    ) -> None:
        self._root = Path(root)
        self._reports = None if reports is None else Path(reports)
        if not self._root.exists() or (self._reports and not self._reports.is_file()):
            what = _CALLED if self._root.exists() else "the folder or archive"
            raise SourceError(f"{what} is missing", expected="a path that exists", fix="check it")
        self._pseudonyms = open_pseudonyms(key)
        self._kernel = kernel
        self._phase = phase
        self._options = {"gaps": gaps, "kernel": kernel, "phase": phase}
        self._held = ExitStack()
        self._told: tuple[tuple[Study, ...], tuple[SetAside, ...]] | None = None

    def __enter__(self) -> DicomFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was unpacked of an archive."""
        self._held.close()
        self._told = None

    @property
    def terms(self) -> Terms:
        """Nobody but the owner can say."""
        return Terms(licence="not stated; patients' data, not for sharing")

    def studies(self) -> Iterator[Study]:
        """List the studies of which a CT series can be taken, in order of their ids.

        Raises:
            RefusedFile: Nothing to read, an unsafe archive, or pydicom is missing.
            SourceError: The table of reports cannot be read.
        """
        yield from self._listed()[0]

    def set_aside(self) -> tuple[SetAside, ...]:
        """List series not taken, rows and studies that do not pair, and files that are no DICOM."""
        return self._listed()[1]

    # ---- listing -----------------------------------------------------------------------------

    def _listed(self) -> tuple[tuple[Study, ...], tuple[SetAside, ...]]:
        """Read headers and table once: of a large tree that takes minutes."""
        if self._told is None:
            self._told = self._read()
        return self._told

    def _read(self) -> tuple[tuple[Study, ...], tuple[SetAside, ...]]:
        """Read headers and table."""
        from t3d.ct.dicom import list_series
        from t3d.ct.dicom.archive import dicom_files

        files = self._held.enter_context(dicom_files(self._root, name="the source"))
        for reason, count in files.left_out.items():
            _log.info("passed over: %d x %s", count, reason)
        listing = list_series(files)
        problems = [
            SetAside(
                key=f"files_{number}",
                reason=left.reason,
                message=f"{left.count} file(s): {left.message}",
            )
            for number, left in enumerate(listing.left_out, start=1)
        ]
        exams = _exams(listing.series)
        rows = [] if self._reports is None else _rows(self._reports)
        for row, reason, message in _pair(rows, exams):
            key = self._pseudonyms.of("row", *(row.keys[k] for k in _KEYS), repr(row.reports))
            problems.append(SetAside(key=key, reason=reason, message=message))
        studies = []
        for exam in exams:
            study, less = self._study(exam)
            studies += [study] if study else []
            problems += less
        lonely = sum(not exam.patient and not exam.mixed for exam in exams)
        if lonely:
            _log.warning("%d studies name no patient: each counts as a patient", lonely)
        studies.sort(key=lambda study: study.study_id)
        return tuple(studies), _with_keys_of_their_own(problems)

    def _study(self, exam: _Exam) -> tuple[Study | None, list[SetAside]]:
        """Choose the series of one study and put it together."""
        from t3d.ct.dicom import Listing, choose
        from t3d.ct.dicom.listing import kept_out

        study_id = self._pseudonyms.of("study", exam.uid)
        against = _against(exam)
        if against:
            return None, [SetAside(key=study_id, reason=against[0], message=against[1])]
        try:
            listing = Listing(series=tuple(exam.series), left_out=())
            choice = choose(listing, kernel=self._kernel, phase=self._phase)
        except T3DError as refusal:
            reason = getattr(refusal, "reason", "unreadable")
            return None, [SetAside(key=study_id, reason=reason, message=refusal.found)]
        problems = [
            SetAside(
                key=self._series_id(other.series),
                reason="not_ct" if kept_out(other.series) else "not_chosen",
                message=f"{other.series.label}: {other.reason}",
            )
            for other in choice.others
        ]
        labels, split = next(iter(_said(exam.rows)), ((), ""))
        told = resolve_reports([report for row in exam.rows for report in row.reports])
        return (
            Study(
                study_id=study_id,
                patient_id=self._pseudonyms.of("patient", exam.patient or exam.uid),
                series=(self._series(choice.series, _could_be_cited(choice)),),
                reports=(told.report,) if told.report.findings or told.report.impression else (),
                labels=dict(labels),
                facts={**exam.facts, **told.facts},
                split=split,
            ),
            problems,
        )

    def _series(self, series: Any, num_cited: int) -> Series:
        """Give one series its id, its files and what a cohort may know of it."""
        number = series.series_number
        facts = {
            "kernel": series.kernel,
            "manufacturer": series.manufacturer,
            "phase": series.phase or ("contrast" if series.contrast else ""),
            "series_number": "" if number is None else str(number),
            "axial_series": str(num_cited),
        }
        return Series(
            series_id=self._series_id(series),
            files=tuple(dict.fromkeys(frame.file for frame in series.frames)),
            facts={name: value for name, value in facts.items() if value},
            options={name: value for name, value in self._options.items() if value},
        )

    def _series_id(self, series: Any) -> str:
        """Hash what makes one series: an identifier may cover several kernels and phases."""
        return self._pseudonyms.of("series", series.series_uid, series.kernel, series.phase)


def _could_be_cited(choice: Any) -> int:
    """Count the series that "image 38" without a series may mean: CT slices, derived ones too."""
    from t3d.ct.dicom.listing import DERIVED, kept_out

    return 1 + sum(kept_out(other.series) in ("", DERIVED) for other in choice.others)


def _with_keys_of_their_own(problems: Iterable[SetAside]) -> tuple[SetAside, ...]:
    """Number those that would share a key: a cohort records one reason under each."""
    seen: Counter[str] = Counter()
    told = []
    for problem in sorted(problems, key=lambda p: (p.key, p.reason, p.message)):
        seen[problem.key] += 1
        nth = seen[problem.key]
        told.append(problem if nth == 1 else replace(problem, key=f"{problem.key}_{nth}"))
    return tuple(told)


def _exams(several: Iterable[Any]) -> list[_Exam]:
    """Group series by study; one that names none is a study of its own."""
    grouped: dict[str, list[Any]] = defaultdict(list)
    for series in several:
        grouped[series.study_uid.strip() or f"series {series.series_uid}"].append(series)
    return [_exam(uid, grouped[uid]) for uid in sorted(grouped)]


def _exam(uid: str, series: list[Any]) -> _Exam:
    """Put together what the headers of one study say."""
    patients = {one.patient_id.strip() for one in series}
    told = _header_facts(series[0].frames[0].file)
    facts = {"sex": told["PatientSex"] if told["PatientSex"] in _SEXES else "", "age": _age(told)}
    return _Exam(
        uid=uid,
        patient=patients.pop() if len(patients) == 1 else "",
        accessions={one.accession.strip() for one in series} - {""},
        date=told["StudyDate"],
        facts={name: value for name, value in facts.items() if value},
        series=series,
        mixed=bool(patients),
    )


def _header_facts(file: Path) -> dict[str, str]:
    """Read what one header says of the patient."""
    from t3d.ct.dicom.files import damage, quiet, read_dataset

    dataset = read_dataset(file, _FACTS, pixels=False)
    told = {}
    with quiet():
        for name in _FACTS:
            try:
                told[name] = str(dataset.get(name) or "").strip()
            except damage():
                told[name] = ""
    return told


def _age(told: Mapping[str, str]) -> str:
    """Give the age in whole years, from the dates where it is not stated."""
    born, seen = told["PatientBirthDate"], told["StudyDate"]
    if not told["PatientAge"] and all(len(d) == 8 and d.isdigit() for d in (born, seen)):
        years = (int(seen) - int(born)) // 10_000  # dates as numbers differ by 10,000 a year
        return age_years(str(max(0, years)), oldest=OLDEST_AGE)
    return age_years(told["PatientAge"], oldest=OLDEST_AGE)


# ---- reports -------------------------------------------------------------------------------


def _rows(path: Path) -> list[_Row]:
    """Read the table of reports; equal rows are one, and the order of rows does not matter."""
    rows: dict[str, _Row] = {}
    lost = 0
    for line, told in read_delimited(path, called=_CALLED):
        values = _known_columns(told)
        row = _row(values, line)
        rows.setdefault(repr((sorted(row.keys.items()), row)), row)
        lost += not row.reports and any(values.get(name) for name in _TEXTS)
    if lost:
        _log.warning("%d rows have a text, but nothing under findings or impression", lost)
    return [rows[key] for key in sorted(rows)]


def _known_columns(told: Mapping[str, str]) -> dict[str, str]:
    """Take the columns that are known, by our names."""
    known = {}
    for column, value in told.items():
        folded = column.casefold()
        name = _DICOM_NAMES.get(folded, _LABELS.get(folded, folded))
        if name in known:
            raise SourceError(
                f"{_CALLED}: two columns mean {name}",
                expected="each column once",
                fix="remove one of them",
            )
        if name in (*_KEYS, *_TEXTS, *_OTHERS) or name in CT_RATE_18:
            known[name] = value.strip()
    return known


def _row(values: Mapping[str, str], line: int) -> _Row:
    """Check one row; messages name line and column, never a value."""
    keys = {name: values.get(name, "") for name in _KEYS}
    keys["date"] = keys["date"].replace("-", "")
    texts = {name: values.get(name, "") for name in _TEXTS}
    status = values.get("status", "").casefold()
    labels = tuple((name, values[name]) for name in CT_RATE_18 if name in values)
    date_is_one = not keys["date"] or (len(keys["date"]) == 8 and keys["date"].isdigit())
    for fine, column, expected in (
        (date_is_one, "date", "20240131 or 2024-01-31"),
        (status in ("", *STATUSES), "status", "final, preliminary, addendum or blank"),
        (values.get("split", "") in SPLITS, "split", "train, dev, test or blank"),
        (all(v in LABEL_VALUES for _, v in labels), "a label", "0, 1 or blank"),
        (not (texts["report"] and texts["findings"]), "report and findings", "one of them"),
    ):
        if not fine:
            raise SourceError(
                f"{_CALLED} line {line}: {column} is not understood",
                expected=expected,
                fix="correct the line",
            )
    texts = {n: "" if is_absent(t, ABSENT_IN_OWN_TABLES) else t for n, t in texts.items()}
    language = values.get("language", "")
    reports = reports_in_row(texts, language=language, status=status or "final")
    own = {report.status for report in reports}  # by its own words
    return _Row(
        keys=keys,
        status=status or (own.pop() if len(own) == 1 else "final"),
        reports=tuple(reports),
        split=values.get("split", ""),
        labels=tuple((name, LABEL_VALUES[value]) for name, value in labels),
    )


def _pair(rows: Sequence[_Row], exams: Sequence[_Exam]) -> Iterator[tuple[_Row, str, str]]:
    """Give each row to the one study it names; yield the others with reason and message."""
    named: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for place, exam in enumerate(exams):
        for key in _keys_of(exam.uid, exam.accessions, exam.patient, exam.date):
            named[key].add(place)
    for row in rows:
        told = row.keys
        keys = _keys_of(told["study_uid"], {told["accession"]}, told["patient"], told["date"])
        groups = [named[key] for key in keys if key in named]
        if not groups:
            yield (row, *(_NO_STUDY if keys else _NO_KEY))
            continue
        fit = {place for place in set.intersection(*groups) if _agree(row, exams[place])}
        if len(fit) == 1:
            exams[fit.pop()].rows.append(row)
            continue
        for place in fit or set.union(*groups):
            exams[place].in_doubt = True
        yield (row, *_AMBIGUOUS)


def _keys_of(uid: str, accessions: Iterable[str], patient: str, date: str) -> list[tuple[str, ...]]:
    """List the keys under which a study may be named; blanks name nothing."""
    keys: list[tuple[str, ...]] = [("study_uid", uid)] if uid else []
    keys += [("accession", accession) for accession in sorted(accessions) if accession]
    return [*keys, ("visit", patient, date)] if patient and date else keys


def _agree(row: _Row, exam: _Exam) -> bool:
    """Say whether nothing that both state differs."""
    pairs = (
        (row.keys["study_uid"], {exam.uid}),
        (row.keys["accession"], exam.accessions),
        (row.keys["patient"], {exam.patient}),
        (row.keys["date"], {exam.date}),
    )
    return all(not told or not held - {""} or told in held for told, held in pairs)


def _said(rows: Sequence[_Row]) -> set[tuple[_Labels, str]]:
    """Give labels and split as told; a row that states neither, as of an addendum, adds nothing."""
    told = [r for r in rows if r.split or any(value is not None for _, value in r.labels)]
    return {(row.labels, row.split) for row in told or rows[:1]}


def _against(exam: _Exam) -> tuple[str, str] | None:
    """Say, as reason and message, why a study cannot be used whatever its series are."""
    if exam.mixed:
        return "mixed_patients", "its series name different patients"
    if exam.in_doubt:
        return _AMBIGUOUS
    texts = {
        status: {row.reports for row in exam.rows if row.reports and row.status == status}
        for status in STATUSES
    }
    if len(texts["final"] or texts["preliminary"]) > 1:
        return "ambiguous_report", "several reports of one status name it"
    if len(_said(exam.rows)) > 1:
        return "duplicate_key", "its rows give different splits or labels"
    return None
