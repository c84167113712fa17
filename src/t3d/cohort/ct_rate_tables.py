"""Names, tables, lists and files of CT-RATE, read without opening a volume."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file
from importlib.resources import files as resources
from math import isfinite
from pathlib import Path

from t3d.cohort.delimited import LABEL_VALUES, read_delimited
from t3d.cohort.listing import SetAside
from t3d.cohort.patients import split_of
from t3d.cohort.sheets import digest_of_rows
from t3d.cohort.stems import NIFTI, stem_of, without_row
from t3d.ct.guard import RefusedGrid
from t3d.errors import SourceError
from t3d.text.findings import CT_RATE_18
from t3d.types import HeaderOverride

_log = logging.getLogger(__name__)

SPLITS = ("train", "valid")
# Patients, studies and volumes of the public tables, as measured; then the studies in which each
# of CT_RATE_18 is positive.
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    split: dict(zip(("patients", "studies", "volumes", *CT_RATE_18), counts, strict=True))
    for split, counts in (
        (
            "train",
            (
                *(20_000, 24_128, 47_149, 2886, 6701, 2586, 1702, 5972, 3426, 6115, 4677),
                *(6170, 10974, 8846, 6447, 2858, 1794, 2496, 4234, 2411, 1902),
            ),
        ),
        (
            "valid",
            (
                *(1_304, 1_564, 3_039, 158, 435, 164, 110, 388, 218, 398, 305),
                *(364, 704, 606, 427, 189, 126, 175, 298, 169, 124),
            ),
        ),
    )
}
ALIASES = {"train": ("train",), "valid": ("validation", "valid")}
ENDINGS = {
    "metadata": ("metadata",),
    "reports": ("reports",),
    "labels": ("predicted_labels", "labels"),
}
_FOLDERS = ("metadata", "radiology_text_reports", "multi_abnormality_labels", "metafiles", "")
_KEY = "VolumeName"
COLUMNS = {
    "metadata": (
        *("Manufacturer", "ConvolutionKernel", "PatientSex", "PatientAge"),
        *("ImagePositionPatient", "ImageOrientationPatient", "XYSpacing", "ZSpacing"),
        "NumberofSlices",
        *("RescaleSlope", "RescaleIntercept"),
    ),
    "reports": ("Findings_EN", "Impressions_EN"),
    "labels": CT_RATE_18,
}
_NAME = re.compile(
    r"(?P<patient>(?P<split>train|valid)_(?P<number>[0-9]+))_(?P<scan>[a-z]+)(?:_(?P<nth>[0-9]+))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A name of CT-RATE, in the order a person counts."""

    split: str
    number: int
    length: int  # letters: "z" comes before "aa"
    scan: str
    nth: int  # which reconstruction, from 1; 0 = the name of a whole study
    patient: str = field(compare=False)
    study: str = field(compare=False)
    volume: str = field(compare=False)

    @staticmethod
    def of(told: str) -> Name | None:
        """Read a name with or without folders and suffix; None = no name of CT-RATE."""
        stem = stem_of(told.strip().strip("\"',"))
        match = _NAME.fullmatch(stem)
        if match is None:
            return None
        patient, scan, nth = match["patient"], match["scan"], match["nth"]
        return Name(
            split=match["split"],
            number=int(match["number"]),
            length=len(scan),
            scan=scan,
            nth=int(nth or 0),
            patient=patient,
            study=f"{patient}_{scan}",
            volume=stem if nth else "",
        )

    def drawn_split(self, *, dev: float, seed: int) -> str:
        """Name our split: valid is test, a seeded share of the train patients is dev."""
        return "test" if self.split == "valid" else split_of(self.patient, dev=dev, seed=seed)


class Tables:
    """What the tables of one split say, by volume."""

    def __init__(self, root: Path, split: str) -> None:
        self.names: dict[str, Name] = {}
        self.torn: set[str] = set()  # volumes with two different rows in one table
        self.labels_facts: dict[str, str] = {}
        self.metadata = self._of(root, "metadata", split)
        self.reports = self._of(root, "reports", split)
        self.labels = self._of(root, "labels", split)

    def _of(self, root: Path, kind: str, split: str) -> dict[str, Mapping[str, str]]:
        """Read one table; {} where there is none."""
        path = table_of(root, kind, split)
        rows: dict[str, Mapping[str, str]] = {}
        if path is None:
            return rows
        columns = COLUMNS[kind]
        needs = (_KEY, *(columns if kind != "metadata" else ()))
        for line, told in read_delimited(path, needs=needs):
            name = Name.of(told[_KEY])
            if name is None or not name.volume or name.split != split:
                raise SourceError(
                    f"{path.name} line {line}: {_KEY} is no volume of {split}",
                    expected=f"{split}_<number>_<letters>_<number>.nii.gz",
                    fix="check which table this is",
                )
            row = {column: told[column] for column in columns if column in told}
            self.names[name.volume] = name
            if rows.setdefault(name.volume, row) != row:
                self.torn.add(name.volume)
            if kind == "labels" and not set(row.values()) <= set(LABEL_VALUES):
                raise SourceError(
                    f"{path.name} line {line}: a label is neither 0, 1 nor blank",
                    expected="0, 1 or blank",
                    fix="get the table again",
                )
        if kind == "labels":
            digest = digest_of_rows({key: r for key, r in rows.items() if key not in self.torn})
            self.labels_facts = {"labels_file": path.name, "labels_sha256": digest}
        return rows

    def by_study(self) -> dict[str, list[Name]]:
        """Group the volumes, in the order a person counts."""
        grouped: dict[str, list[Name]] = defaultdict(list)
        for name in sorted(self.names.values()):
            grouped[name.study].append(name)
        return grouped

    def counts(self) -> dict[str, int]:
        """Count patients, studies, volumes, and studies positive for each finding."""
        names = self.names.values()
        positive = Counter(
            finding
            for members in self.by_study().values()
            for finding, value in set().union(*self.labels_of(members))
            if value == 1
        )
        return {
            "patients": len({name.patient for name in names}),
            "studies": len({name.study for name in names}),
            "volumes": len(names),
            **{finding: positive[finding] for finding in CT_RATE_18},
        }

    def labels_of(self, names: Iterable[Name]) -> set[tuple[tuple[str, int | None], ...]]:
        """Give the different labels that the volumes of a study have."""
        rows = (self.labels[name.volume] for name in names if name.volume in self.labels)
        return {tuple((f, LABEL_VALUES[row[f].strip()]) for f in CT_RATE_18) for row in rows}


class Files:
    """Which volumes lie on disk, and where."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fixed: dict[str, Path] = {}  # v2
        self.plain: dict[str, Path] = {}  # v1
        self.names: dict[str, Name] = {}
        self.problems: list[SetAside] = []
        for folder in (f"{split}{end}" for split in SPLITS for end in ("_fixed", "")):
            held = self.fixed if folder.endswith("_fixed") else self.plain
            for path in sorted((root / folder).rglob("*.nii*")):
                if path.name.endswith(NIFTI) and not path.name.startswith("."):
                    self._add(path, folder, held)

    def _add(self, path: Path, folder: str, held: dict[str, Path]) -> None:
        """Note one file, or why it is none of CT-RATE's."""
        name = Name.of(path.name)
        if name is None or not name.volume:
            message = f"a file in {folder}/ whose name is none of CT-RATE's"
            key = path.relative_to(self.root).as_posix()
            self.problems.append(SetAside(key=key, reason="unlisted_file", message=message))
        elif name.volume in held:
            message = f"a second file of this name below {folder}/; the first by path is used"
            key = path.relative_to(self.root).as_posix()
            self.problems.append(SetAside(key=key, reason="duplicate_key", message=message))
        else:
            held[name.volume] = path
            self.names[name.volume] = name

    def without_row(self, split: str, known: Mapping[str, Name]) -> list[SetAside]:
        """List files of a split that no table names."""
        there = (volume for volume, name in self.names.items() if name.split == split)
        return without_row(there, known)

    def find(self, name: Name, *, hu: str) -> tuple[Path, bool]:
        """Say where a volume lies or should lie, and whether its header is to be believed."""
        fixed, plain = self.fixed.get(name.volume), self.plain.get(name.volume)
        path = plain or fixed if hu == "table" else fixed or plain
        if path is None:
            folder = name.split if hu == "table" else f"{name.split}_fixed"
            place = Path(folder, name.patient, name.study, f"{name.volume}.nii.gz")
            return self.root / place, hu != "table"
        return path, (path is fixed if hu == "auto" else hu == "header")


def table_of(root: Path, kind: str, split: str) -> Path | None:
    """Find a table under either of its names, in the data's folders or beside them."""
    names = [f"{a}_{e}.csv" for a in ALIASES[split] for e in ENDINGS[kind]]
    return _only_one([root / folder / name for folder in _FOLDERS for name in names])


def _only_one(places: Iterable[Path]) -> Path | None:
    """Take the file that is there; several must be the same, byte for byte."""
    found = [path for path in dict.fromkeys(places) if path.is_file()]
    if len(found) > 1 and len({path.read_bytes() for path in found}) > 1:
        raise SourceError(
            f"{' and '.join(sorted(path.name for path in found))} differ",
            expected="one table, or copies of it",
            fix="remove the one that is not meant",
        )
    return found[0] if found else None


def known_bad() -> Mapping[str, SetAside]:
    """Read the shipped list of volumes that others found broken."""
    with as_file(resources("t3d.cohort") / "data" / "ct_rate_known_bad.csv") as path:
        rows = [row for _, row in read_delimited(path, needs=("volume", "reason", "told_by"))]
    return {
        row["volume"]: SetAside(
            key=row["volume"],
            reason=row["reason"],
            message=f"known to be broken, as told by {row['told_by']}",
        )
        for row in rows
    }


def no_chest(root: Path, split: str, tables: Tables) -> set[str]:
    """Read which studies show no chest; volumes and studies, with or without folder and suffix."""
    names = [f"no_chest_{alias}.txt" for alias in ALIASES[split]]
    path = _only_one([root / folder / name for folder in _FOLDERS for name in names])
    if path is None:
        _log.warning("no list no_chest_%s.txt: scans of heads stay in", split)
        return set()
    told: set[str] = set()
    for line, text in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        name = Name.of(text)
        if name is not None:
            told.add(name.study)
        elif text.strip() and text.strip() != _KEY:
            raise SourceError(
                f"{path.name} line {line}: no name of CT-RATE",
                expected=f"{split}_<number>_<letters>, with or without volume, folder and suffix",
                fix="get the list again",
            )
    known = {name.study for name in tables.names.values()}
    if told and not told & known and len(known) >= PUBLISHED[split]["studies"]:
        raise SourceError(
            f"{path.name}: none of its {len(told)} studies is among the {len(known)} of {split}",
            expected="that a list of a full split fits it",
            fix="check which list this is; scans of heads would stay in",
        )
    return told & known


def kernel_of(row: Mapping[str, str]) -> str:
    """Name the kernel: "YA", and "Br40f" of "['Br40f', '3']"."""
    return row.get("ConvolutionKernel", "").strip("[] ").split(",")[0].strip("'\" ")


def grid_told(row: Mapping[str, str]) -> dict[str, str]:
    """Give slices and voxel sizes as the table tells them, without judging: facts for nulls."""
    told = {
        "num_slices": row.get("NumberofSlices", ""),
        "z_mm": row.get("ZSpacing", ""),
        "xy_mm": row.get("XYSpacing", "").strip("[] ").split(",")[0],
    }
    return {name: value.strip() for name, value in told.items()}


def _numbers(told: str, count: int) -> list[float]:
    """Read a list of numbers as the tables write it: "[0.68, 0.68]"."""
    parts = (part.strip(" '\"") for part in re.split(r"[,\\]", told.strip().strip("[]()")))
    values = [float(part) for part in parts if part]
    if len(values) != count or not all(map(isfinite, values)):
        raise ValueError(f"{len(values)} numbers")
    return values


def voxel_mm3(row: Mapping[str, str]) -> float:
    """Give the volume of a voxel; what the table does not say comes last."""
    try:
        row_mm, column_mm = _numbers(row.get("XYSpacing", ""), 2)
        return row_mm * column_mm * _numbers(row.get("ZSpacing", ""), 1)[0]
    except ValueError:
        return float("inf")


def is_axial(row: Mapping[str, str]) -> bool:
    """Say whether rows and columns run along the body's axes, as the table tells."""
    try:
        told = _numbers(row.get("ImageOrientationPatient", ""), 6)
    except ValueError:
        return True  # not stated
    return all(abs(v - w) < 1e-3 for v, w in zip(told, (1, 0, 0, 0, 1, 0), strict=True))


def override_of(row: Mapping[str, str] | None) -> HeaderOverride:
    """Take HU and geometry of a v1 file from its row.

    The first axis of the file runs along the first direction cosine, the second along the second,
    slices along their cross product; XYSpacing is (between rows, between columns).
    """
    if row is None:
        raise RefusedGrid("a v1 file that the metadata table does not name", reason="unlisted_file")
    try:
        slope, intercept = (
            _numbers(row.get(f"Rescale{n}", ""), 1)[0] for n in ("Slope", "Intercept")
        )
    except ValueError:
        found = "the metadata table gives no slope and intercept"
        raise RefusedGrid(found, reason="hu_implausible") from None
    try:
        row_mm, column_mm = _numbers(row.get("XYSpacing", ""), 2)
        (z_mm,) = _numbers(row.get("ZSpacing", ""), 1)
        origin = _numbers(row.get("ImagePositionPatient", ""), 3)
        cosines = _numbers(row.get("ImageOrientationPatient", ""), 6)
    except ValueError:
        found = "the metadata table gives no spacing, position or orientation"
        raise RefusedGrid(found, reason="bad_affine") from None
    u, v = cosines[:3], cosines[3:]
    w = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
    square = all(abs(sum(a * a for a in axis) - 1) < 1e-3 for axis in (u, v, w))
    if not square or min(row_mm, column_mm, z_mm) <= 0:
        raise RefusedGrid("spacing or direction cosines of the metadata table are none")
    lps_to_ras = (-1.0, -1.0, 1.0)
    rows = tuple(
        (s * u[n] * column_mm, s * v[n] * row_mm, s * w[n] * z_mm, s * origin[n])
        for n, s in enumerate(lps_to_ras)
    )
    return HeaderOverride(slope=slope, intercept=intercept, affine=(*rows, (0.0, 0.0, 0.0, 1.0)))
