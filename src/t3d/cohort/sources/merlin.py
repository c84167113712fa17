"""Merlin's abdominal CTs as they lie on a user's disk.

    ROOT/[merlinabdominalctdataset/]merlin_data/**/<study id>.nii.gz    or .nii
    reports_final.xlsx                        study id, Findings, Split, few-shot flag (or a .csv)
    metadata.csv                              optional: study id, Age, Gender, contrast, phase, ...
    zero_shot_findings_disease_cls.csv        optional: study id, 30 findings: 1, 0, -1

Study = volume = `study id` = the file's stem. The column `Findings` holds the whole report. No
table is known to name patients: a study is then a patient of its own, with a warning.
Facts of the layout: docs/howto/merlin.md.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from t3d.cohort.delimited import SIGNED_LABEL_VALUES, is_absent
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import without_leaks
from t3d.cohort.pseudonyms import age_years
from t3d.cohort.sheets import digest_of_rows, read_sheet
from t3d.cohort.stems import files_by_stem, stem_of, without_row
from t3d.errors import SourceError
from t3d.text.addenda import ResolvedReport, read_report
from t3d.text.sections import find_sections
from t3d.types import Report, Series, Study

_log = logging.getLogger(__name__)

_FOLDER = "merlinabdominalctdataset"
_REPORTS = ("reports_final.xlsx", "reports_final.csv")
_METADATA, _LABELS = "metadata.csv", "zero_shot_findings_disease_cls.csv"
_KEY = "study id"
_SPLITS = {"train": "train", "val": "dev", "test": "test", "": ""}
_PATIENTS = ("patientid", "personid", "subjectid", "patientmrn")  # letters only, lower case


class Merlin(ReadAtOnce):
    """Merlin's abdominal CTs as a source.

    Args:
        root: The folder that holds `merlin_data/` and the tables, or the one above
            (`merlinabdominalctdataset/`).

    Raises:
        SourceError: No `reports_final.xlsx` below `root`.

    Source:
        arXiv:2406.06512; tables: documentation of StanfordMIMI/Merlin.

    Example:
        >>> source = Merlin("merlin")  # doctest: +SKIP
    """

    kind = "merlin"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way, by its table of reports."""
        return any((root / f / name).is_file() for f in (_FOLDER, "") for name in _REPORTS)

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if (self.root / _FOLDER).is_dir():
            self.root = self.root / _FOLDER
        if not self.fits(self.root):
            raise SourceError(
                f"no {_REPORTS[0]} in {self.root.name or 'the folder'}",
                expected="the folder that holds it and merlin_data/",
                fix=f"give the folder {_FOLDER}, or the one above",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="Stanford AIMI data use agreement, non-commercial; accepted at the download",
            citation="Blankemeier et al., Merlin, arXiv:2406.06512",
        )

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of their ids."""
        files, twice = files_by_stem((self.root / "merlin_data").rglob("*"))
        tables = _Tables(self.root)
        message = "two different rows of a table name this study"
        problems = [
            SetAside(key=k, reason="duplicate_key", message=message) for k in sorted(tables.torn)
        ]
        problems += [*twice, *without_row((*files, *(p.key for p in twice)), tables.reports)]
        spoilt = tables.torn | {problem.key for problem in twice}
        studies = [
            self._study(key, tables, files) for key in sorted(tables.reports) if key not in spoilt
        ]
        if studies and not any(tables.patients.values()):
            _log.warning("no table names patients: each study is taken for a patient of its own")
        kept, leaks = without_leaks(studies)
        return kept, tuple(sorted([*problems, *leaks], key=lambda p: (p.key, p.reason)))

    def _study(self, key: str, tables: _Tables, files: Mapping[str, Path]) -> Study:
        """Put one study together."""
        row = tables.reports[key]
        told, found_by = split_report(row["Findings"])
        report = told.report
        known = tables.metadata.get(key, {})
        facts = {
            "sex": {"male": "M", "female": "F"}.get(known.get("gender", "").casefold(), ""),
            "age": age_years(known.get("age", "").removesuffix(".0")),
            "few_shot": row["Few Shot"],
            "impression_by": found_by,
            **told.facts,
            **(tables.labels_facts if key in tables.labels else {}),
        }
        series_facts = {
            "hu_source": "header",
            **{name: known.get(name, "") for name in ("manufacturer", "contrast", "phase")},
        }
        series = Series(
            series_id=key,
            files=(files.get(key, self.root / "merlin_data" / f"{key}.nii.gz"),),
            facts={name: value for name, value in series_facts.items() if value},
        )
        return Study(
            study_id=key,
            patient_id=tables.patients.get(key, "") or key,
            series=(series,),
            reports=(report,) if report.findings or report.impression else (),
            labels=tables.labels.get(key, {}),
            facts={name: value for name, value in facts.items() if value},
            split=_SPLITS[row["Split"]],
        )


def split_report(text: str) -> tuple[ResolvedReport, str]:
    """Tell findings and impression of a Merlin report apart.

    Returns:
        The report, and by what it was split: "heading" (`IMPRESSION:`, `IMPRESSION(S):`), "list"
        (a numbered list that ends the text), or "" = not split, all of it is findings.

    Check: "FINDINGS: Liver normal. IMPRESSION: 1. No acute disease." -> "Liver normal.",
        "1. No acute disease.", "heading".
    """
    if is_absent(text):
        return ResolvedReport(report=Report()), ""
    # The cell is findings until it says otherwise, so that "Pelvis:" opens no section of its own.
    told = read_report(text, language="en", trailing_list=True, opens="FINDINGS")
    if any(one.kind == "impression" for one in find_sections(text)):
        return told, "heading"
    if not told.report.impression:
        return told, ""
    plain = read_report(text, language="en", opens="FINDINGS")
    return told, "list" if told.report != plain.report else ""


class _Tables:
    """What the tables say, by study."""

    def __init__(self, root: Path) -> None:
        self.torn: set[str] = set()  # studies with two different rows in one table
        self.reports: dict[str, dict[str, str]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.labels: dict[str, dict[str, int | None]] = {}
        self.labels_facts: dict[str, str] = {}
        table = next(root / name for name in _REPORTS if (root / name).is_file())
        for line, row in read_sheet(table, needs=(_KEY, "Findings", "Split")):
            split = row["Split"].strip().casefold()
            if split not in _SPLITS:
                raise SourceError(
                    f"{table.name} line {line}: no split of Merlin",
                    expected="train, val, test or blank",
                    fix="get the table again",
                )
            kept = {
                "Findings": row["Findings"].strip(),
                "Split": split,
                "Few Shot": row.get("Few Shot", "").strip(),
            }
            self._enter(self.reports, stem_of(row[_KEY]), kept)
        self._read_metadata(root / _METADATA)
        self._read_labels(root / _LABELS)
        self.patients = {key: row["patient"] for key, row in self.metadata.items()}

    def _enter(self, rows: dict[str, dict[str, str]], key: str, kept: dict[str, str]) -> None:
        """Note a row; a different one of the same study makes both worthless."""
        if key and rows.setdefault(key, kept) != kept:
            self.torn.add(key)

    def _read_metadata(self, path: Path) -> None:
        """Read the optional table of patients and scans."""
        if not path.is_file():
            return
        for _, row in read_sheet(path, needs=(_KEY,)):
            plain = {re.sub("[^a-z]", "", name.casefold()): v.strip() for name, v in row.items()}
            kept = {
                name: plain.get(name, "")
                for name in ("gender", "age", "manufacturer", "contrast", "phase")
            }
            kept["patient"] = next((plain[n] for n in _PATIENTS if plain.get(n)), "")
            self._enter(self.metadata, stem_of(row[_KEY]), kept)

    def _read_labels(self, path: Path) -> None:
        """Read the optional table of labels; its first column is the study."""
        if not path.is_file():
            return
        for line, row in read_sheet(path):
            key = stem_of(row.pop(_KEY if _KEY in row else next(iter(row))))
            plain = {name: told.strip() for name, told in row.items()}
            strange = [name for name, told in plain.items() if told not in SIGNED_LABEL_VALUES]
            if strange:
                raise SourceError(
                    f"{path.name} line {line}: {', '.join(strange[:3])} is none of 1, 0, -1",
                    expected="1, 0, -1 or blank",
                    fix="get the table again",
                )
            kept = {name: SIGNED_LABEL_VALUES[told] for name, told in plain.items()}
            if self.labels.setdefault(key, kept) != kept:
                self.torn.add(key)
        digest = digest_of_rows({k: row for k, row in self.labels.items() if k not in self.torn})
        self.labels_facts = {"labels_file": path.name, "labels_sha256": digest}
