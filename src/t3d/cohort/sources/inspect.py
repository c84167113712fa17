"""INSPECT (CT pulmonary angiograms) as it lies on a user's disk: the new tables or the older ones.

    ROOT/[full/]CTPA/PE<hex>.nii.gz
    ROOT/[full/]{impressions,labels,splits,study_mapping}_<YYYYMMDD>.tsv     newest date wins
    ROOT/[full/]Final_{metadata,splits*,labels*,Impressions}.csv (.xlsx), cohort_*_anon.csv   older

Study = `impression_id`, volume = `image_id` = the file's stem, patient = `person_id`. Reports are
impressions only. `valid` is our dev. Dates are not read. Facts: docs/howto/inspect.md.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3d.cohort.delimited import is_absent
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import without_leaks
from t3d.cohort.sheets import SHEET_ENDINGS, digest_of_rows, read_sheet
from t3d.cohort.stems import files_by_stem, stem_of, without_row
from t3d.errors import SourceError
from t3d.text.boilerplate import without_marks
from t3d.types import Report, Series, Study

_log = logging.getLogger(__name__)

LABELS = (
    *("pe_positive_nlp", "pe_positive", "pe_acute", "pe_subsegmentalonly"),
    *("1_month_mortality", "6_month_mortality", "12_month_mortality"),
    *("1_month_readmission", "6_month_readmission", "12_month_readmission", "12_month_PH"),
)
_VALUES: Mapping[str, int | None] = {
    **{"true": 1, "false": 0},
    **{"censored": None, "censor": None, "": None},
}
_SPLITS = {"train": "train", "valid": "dev", "test": "test"}
_TABLES = {  # kind -> how its file may be called, the newer release first
    "mapping": ("study_mapping_*", "Final_metadata*"),
    "impressions": ("impressions_*", "Final_Impressions*"),
    "labels": ("labels_*", "Final_labels*"),
    "splits": ("splits_*", "Final_splits*"),
    "master": ("cohort_*_master_file_anon*",),
}
_PATIENTS = ("person_id", "PatientID", "patient_id")
_TEXTS = ("impressions", "Impressions_EN", "impression")
_HEADING = re.compile(r"\A\s*IMPRESSIONS?\s*:\s*", re.IGNORECASE)


class Inspect(ReadAtOnce):
    """INSPECT as a source.

    Args:
        root: The folder that holds the tables and `CTPA/`, or the one above (`full/`).
        splits: Which of INSPECT's splits to list, by its own names. A patient in two of them is
            told apart before.

    Raises:
        SourceError: No table below `root`, or a split that does not exist.

    Source:
        arXiv:2311.10798; tables and names: code of lmb-freiburg/radfinder, som-shahlab/
        INSPECT_public and cclaess/SPECTRE.

    Example:
        >>> source = Inspect("inspect", splits=("train",))  # doctest: +SKIP
    """

    kind = "inspect"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way, by its tables of impressions."""
        return any(_newest(below, "impressions") for below in (root / "full", root))

    def __init__(self, root: str | Path, *, splits: Sequence[str] = tuple(_SPLITS)) -> None:
        self.root = Path(root)
        if _newest(self.root / "full", "impressions"):
            self.root = self.root / "full"
        strange = sorted(set(splits) - set(_SPLITS))
        if strange:
            raise SourceError(
                f"Inspect: splits {', '.join(map(repr, strange))}", expected=", ".join(_SPLITS)
            )
        self.splits = tuple(_SPLITS[split] for split in _SPLITS if split in splits)
        if len(self.splits) == len(_SPLITS):
            self.splits += ("",)  # studies whose split no table tells
        if not self.fits(self.root):
            raise SourceError(
                f"no table of impressions below {self.root.name or 'the folder'}",
                expected="impressions_<date>.tsv, or Final_Impressions.csv or .xlsx",
                fix="give the folder that holds CTPA/ and the tables, or the one above `full`",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="Stanford AIMI data use agreement, non-commercial; accepted at the download",
            citation="Huang et al., INSPECT, arXiv:2311.10798",
        )

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of their ids."""
        files, twice = files_by_stem((self.root / "CTPA").rglob("*"))
        tables = _Tables(self.root, {*files, *(problem.key for problem in twice)})
        problems = [*twice, *tables.problems]
        problems += without_row((*files, *(p.key for p in twice)), tables.images)
        spoilt = {problem.key for problem in problems}
        studies = []
        for study_id in sorted(set(tables.members) - spoilt):
            images = [i for i in sorted(tables.members[study_id]) if i not in spoilt]
            if images:
                studies.append(self._study(study_id, images, tables, files))
        kept, leaks = without_leaks(studies)
        if any(study.patient_id == study.study_id for study in kept):
            _log.warning("no column names the patient of some studies: each is one of its own")
        listed = [study for study in kept if study.split in self.splits]
        return listed, tuple(sorted([*problems, *leaks], key=lambda p: (p.key, p.reason)))

    def _study(
        self, study_id: str, images: Sequence[str], tables: _Tables, files: Mapping[str, Path]
    ) -> Study:
        """Put one study together."""
        told = tables.of(study_id)
        text = impression_of(told.get("text", ""))
        labels = {name: _VALUES[told[name].casefold()] for name in LABELS if name in told}
        return Study(
            study_id=study_id,
            patient_id=told.get("patient", "") or study_id,
            series=tuple(
                Series(
                    series_id=image,
                    files=(files.get(image, self.root / "CTPA" / f"{image}.nii.gz"),),
                    facts={"hu_source": "header"},
                )
                for image in images
            ),
            reports=(Report(impression=text),) if text else (),
            labels=labels,
            facts=tables.labels_facts if labels else {},
            split=_SPLITS.get(told.get("split", ""), ""),
        )


def impression_of(text: str) -> str:
    """Give an impression without its heading, marks of de-identification and boilerplate.

    It is one section by the corpus's own word, so no heading is looked for inside it: in capitals,
    "CHEST:" or "COMPARISON:" before a colon would cut it in pieces.

    Check: "IMPRESSION: 1. NEW SINCE <TIMEX3>XX/XX</TIMEX3>." -> "1. NEW SINCE [date]."
    """
    text = without_marks(_HEADING.sub("", text, count=1)).strip()
    return "" if is_absent(text) else text


@dataclass(frozen=True, slots=True)
class _Table:
    """One table: its rows by whatever its key column holds."""

    by_image: bool  # keys are stems of files, else impression ids
    rows: Mapping[str, Mapping[str, str]]


class _Tables:
    """What the tables say, by study."""

    def __init__(self, root: Path, on_disk: set[str]) -> None:
        self.members: dict[str, list[str]] = defaultdict(list)  # study -> images
        self.problems: list[SetAside] = []
        self.labels_facts: dict[str, str] = {}
        self._root = root
        self._patients: dict[str, str] = {}
        mapping = _newest(root, "mapping")
        if mapping is not None:
            self._map(list(read_sheet(mapping, needs=("image_id",))))
        self.images = {image for images in self.members.values() for image in images}
        self._told: dict[str, _Table] = {}
        for kind in ("impressions", "labels", "splits"):
            self._told[kind] = self._table(kind, self.images or on_disk)
        if mapping is None:
            self._map([(0, {"image_id": key}) for key in self._told["impressions"].rows])
            self.images = set(self._told["impressions"].rows)
        self._split_of_patient = self._master()
        if not self._told["impressions"].by_image:
            message = "an impression that no table gives an image"
            for key in sorted(set(self._told["impressions"].rows) - set(self.members)):
                told = SetAside(key=key, reason="missing_file", message=message)
                self.problems.append(told)

    def of(self, study_id: str) -> dict[str, str]:
        """Give text, split, patient and labels of a study."""
        told = {"patient": self._patients.get(study_id, "")}
        for table in self._told.values():
            keys = sorted(self.members[study_id]) if table.by_image else [study_id]
            for key in keys:
                for name, value in table.rows.get(key, {}).items():
                    told.setdefault(name, value)
        if not told.get("split"):
            told["split"] = self._split_of_patient.get(told["patient"], "")
        return told

    def _map(self, rows: Iterable[tuple[int, Mapping[str, str]]]) -> None:
        """Read which image belongs to which impression and patient."""
        owners: dict[str, set[str]] = defaultdict(set)
        patients: dict[str, set[str]] = defaultdict(set)
        for _, row in rows:
            image = stem_of(row["image_id"])
            study = stem_of(row.get("impression_id", "")) or image
            if image:
                owners[image].add(study)
                patients[study] |= {row[n].strip() for n in _PATIENTS if row.get(n, "").strip()}
        for image, studies in sorted(owners.items()):
            for study in sorted(studies):
                self.members[study].append(image)
            if len(studies) > 1:
                self._put_aside(image, "one image belongs to several impressions")
        for study, several in sorted(patients.items()):
            if len(several) > 1:
                self._put_aside(study, "its rows name different patients")
            self._patients.update(dict.fromkeys([study], min(several, default="")))

    def _put_aside(self, key: str, message: str) -> None:
        """Note what contradicts itself."""
        self.problems.append(SetAside(key=key, reason="duplicate_key", message=message))

    def _table(self, kind: str, images: set[str]) -> _Table:
        """Read one table; two different rows of one key put its study aside."""
        path = _newest(self._root, kind)
        rows: dict[str, Mapping[str, str]] = {}
        if path is None:
            return _Table(by_image=False, rows=rows)
        torn: set[str] = set()
        for line, row in read_sheet(path):
            key = stem_of(row.get("impression_id", "") or row.get("image_id", ""))
            kept = _kept(kind, row, f"{path.name} line {line}")
            if key and rows.setdefault(key, kept) != kept:
                torn.add(key)
        if kind == "labels":
            digest = digest_of_rows({key: row for key, row in rows.items() if key not in torn})
            self.labels_facts = {"labels_file": path.name, "labels_sha256": digest}
        by_image = len(images & set(rows)) > len(set(self.members) & set(rows))
        if by_image:  # the images of one study may not tell different things
            for study, members in self.members.items():
                several = [rows[image] for image in members if image in rows]
                torn |= {study} if any(row != several[0] for row in several) else set()
        for key in sorted(torn):
            self._put_aside(key, f"two different rows of the {kind} name it")
        return _Table(by_image=by_image, rows=rows)

    def _master(self) -> Mapping[str, str]:
        """Read the older table that gives each patient a split."""
        path = _newest(self._root, "master")
        if path is None:
            return {}
        found: dict[str, str] = {}
        for line, row in read_sheet(path, needs=("PatientID",)):
            patient, split = (
                row["PatientID"].strip(),
                _kept("splits", row, f"{path.name} line {line}"),
            )
            known = (found.get(patient, "train"), split["split"])
            found[patient] = max(known, key=tuple(_SPLITS).index)  # test over valid over train
        return found


def _kept(kind: str, row: Mapping[str, str], place: str) -> dict[str, str]:
    """Keep of a row what is meant to be kept, checked."""
    if kind == "impressions":
        column = next((name for name in _TEXTS if name in row), None)
        if column is None:
            raise SourceError(f"{place}: no column of texts", expected=" or ".join(_TEXTS))
        return {"text": row[column].strip()}
    if kind == "splits":
        split = row.get("split", "").strip().casefold()
        if split not in _SPLITS:
            raise SourceError(f"{place}: no split of INSPECT", expected=", ".join(_SPLITS))
        return {"split": split}
    values = {name: row[name].strip() for name in LABELS if name in row}
    strange = [name for name, value in values.items() if value.casefold() not in _VALUES]
    if strange:
        raise SourceError(
            f"{place}: {', '.join(strange)} is none of the values known",
            expected="TRUE, FALSE, Censored or blank",
            fix="get the table again",
        )
    return values


def _newest(root: Path, kind: str) -> Path | None:
    """Find a table: the newer release before the older, the latest date in its name."""
    for pattern in _TABLES[kind]:
        found = [p for p in root.glob(pattern) if p.suffix in SHEET_ENDINGS]
        if found:
            return max(found, key=lambda p: (re.findall(r"[0-9]{8}", p.stem)[-1:], p.name))
    return None
