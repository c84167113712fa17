"""Rad-ChestCT as it lies on a user's disk: arrays without reports, labels by finding and place.

    ROOT/npz/{trn,val,tst}<5 digits>.npz                              one array `ct` each
    ROOT/{imgtrain,imgvalid,imgtest}_Abnormality_and_Location_Labels.csv
    ROOT/Summary_3630.csv          NoteAcc_DEID, MRN_DEID, Set_Assigned, Subset_Assigned

Study = volume = `NoteAcc_DEID` = the file's stem; patient = `MRN_DEID`. Files hold HU clipped to
-1000..1000 at 0.8 mm, axes running inferior, posterior, left, and no affine: it is stated here.
A label of a scan is the largest over the 52 places. Facts: docs/howto/rad-chestct.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3d.cohort.delimited import LABEL_VALUES, read_delimited
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import without_leaks
from t3d.cohort.sheets import digest_of_rows
from t3d.cohort.stems import files_by_stem, without_row
from t3d.errors import SourceError
from t3d.text.findings import CT_RATE_18
from t3d.types import HeaderOverride, Series, Study

_log = logging.getLogger(__name__)

SPACING_MM = 0.8
# RAS from (i, j, k): the array's first axis runs to inferior, its second to posterior, its third
# to left. Where in the scanner it stood is not told: the origin is the first voxel.
AFFINE = (
    (-SPACING_MM, 0.0, 0.0, 0.0),
    (0.0, -SPACING_MM, 0.0, 0.0),
    (0.0, 0.0, -SPACING_MM, 0.0),
    (0.0, 0.0, 0.0, 1.0),
)
_KEY, _PATIENT, _SUBSET = "NoteAcc_DEID", "MRN_DEID", "Subset_Assigned"
_SETS = {"imgtrain": "train", "imgvalid": "dev", "imgtest": "test"}
_ENDINGS = (".npz",)
_SAME = {
    "Cardiomegaly": ("cardiomegaly",),
    "Pericardial effusion": ("pericardial_effusion",),
    "Hiatal hernia": ("hernia",),
    "Lymphadenopathy": ("lymphadenopathy",),
    "Emphysema": ("emphysema",),
    "Atelectasis": ("atelectasis",),
    "Lung nodule": ("nodule", "nodulegr1cm"),
    "Pleural effusion": ("pleural_effusion",),
    "Peribronchial thickening": ("bronchial_wall_thickening",),
    "Consolidation": ("consolidation",),
    "Interlobular septal thickening": ("septal_thickening",),
}
_DEVICES = (
    *("catheter_or_port", "tracheal_tube", "chest_tube", "breast_implant", "pacemaker_or_defib"),
    *("stent", "clip", "staple", "gi_tube", "hardware", "suture"),
)
MAPPINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "standard": {
        **_SAME,
        "Medical material": _DEVICES,
        "Arterial wall calcification": ("calcification",),
        "Coronary artery wall calcification": ("calcification",),
        "Lung opacity": ("opacity",),
        "Pulmonary fibrotic sequela": ("scarring",),
        "Bronchiectasis": ("bronchiectasis",),
    },
    "extended": {
        **_SAME,
        "Medical material": (*_DEVICES, "heart_valve_replacement", "cabg", "sternotomy"),
        "Arterial wall calcification": ("atherosclerosis",),
        "Coronary artery wall calcification": ("coronary_artery_disease",),
        "Lung opacity": ("opacity", "groundglass", "infiltrate", "airspace_disease"),
        "Pulmonary fibrotic sequela": (
            *("scarring", "fibrosis", "reticulation", "honeycombing", "interstitial_lung_disease"),
        ),
        "Mosaic attenuation pattern": ("air_trapping",),
        "Bronchiectasis": ("bronchiectasis", "bronchiolectasis"),
    },
}
"""From the 18 names of CT-RATE to Rad-ChestCT's own. "standard" has no mosaic pattern."""

# Of the public tables: scans, patients, and scans positive by the standard mapping.
PUBLISHED = {
    "scans": 3630,
    "patients": 3072,
    "Medical material": 1155,
    "Arterial wall calcification": 2562,
    "Cardiomegaly": 394,
    "Pericardial effusion": 563,
    "Hiatal hernia": 425,
    "Lymphadenopathy": 598,
    "Emphysema": 992,
    "Atelectasis": 1082,
    "Lung nodule": 2874,
    "Lung opacity": 1955,
    "Pulmonary fibrotic sequela": 786,
    "Pleural effusion": 727,
    "Peribronchial thickening": 308,
    "Consolidation": 505,
    "Bronchiectasis": 575,
    "Interlobular septal thickening": 252,
}


@dataclass(frozen=True, slots=True)
class _Labels:
    """What a table says of one scan."""

    split: str
    values: Mapping[str, int | None]
    file: str
    digest: str  # of the table


class RadChestCt(ReadAtOnce):
    """Rad-ChestCT as a source.

    Args:
        root: The folder that holds the tables and `npz/`.
        mapping: How its labels become CT-RATE's 18: "standard" (the literature's), "extended",
            or "none". Its own 84 are always there, under their own names.
        splits: "own" (imgtrain, imgvalid, imgtest are train, dev, test), or "all_test": every
            scan is test, as external evaluation of CT-RATE models takes them.

    Raises:
        SourceError: No table of labels below `root`, or a setting that does not exist.

    Source:
        Layout, geometry and both mappings: code of lmb-freiburg/radfinder. Counts: computed
        from the public tables.

    Example:
        >>> source = RadChestCt("rad-chestct", mapping="extended")  # doctest: +SKIP
    """

    kind = "rad_chestct"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way, by its tables."""
        return any(_table_of(root, name).is_file() for name in _SETS)

    def __init__(self, root: str | Path, *, mapping: str = "standard", splits: str = "own") -> None:
        self.root = Path(root)
        for name, value, allowed in (
            ("mapping", mapping, (*MAPPINGS, "none")),
            ("splits", splits, ("own", "all_test")),
        ):
            if value not in allowed:
                raise SourceError(f"RadChestCt: {name} is {value!r}", expected=", ".join(allowed))
        self.mapping = mapping
        self.splits = splits
        if not self.fits(self.root):
            raise SourceError(
                f"no table of labels in {self.root.name or 'the folder'}",
                expected="imgtrain_Abnormality_and_Location_Labels.csv or its siblings",
                fix="give the folder that holds the tables and npz/",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="as on the record's page (Zenodo 6406114): read it there",
            citation="Draelos et al., Medical Image Analysis 67 (2021) 101857",
        )

    def differences(self) -> tuple[str, ...]:
        """Compare the tables with the public ones, line by line; () = this copy is whole."""
        studies = list(RadChestCt(self.root, mapping="standard").studies())
        counted = Counter(
            name for study in studies for name, value in study.labels.items() if value == 1
        )
        counted["scans"] = len(studies)
        counted["patients"] = len({study.patient_id for study in studies})
        return tuple(
            f"{what}: {counted[what]}, published {published}"
            for what, published in PUBLISHED.items()
            if counted[what] != published
        )

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of their ids."""
        files, twice = files_by_stem((self.root / "npz").rglob("*"), _ENDINGS)
        told, torn = self._labels()
        summary, torn_here = self._summary()
        torn |= torn_here
        problems = list(twice)
        problems += without_row((*files, *(p.key for p in twice)), (*told, *torn))
        message = "two different rows of a table name this scan"
        problems += [SetAside(key=k, reason="duplicate_key", message=message) for k in sorted(torn)]
        spoilt = torn | {problem.key for problem in twice}
        studies = [
            self._study(key, told[key], summary.get(key, {}), files)
            for key in sorted(told)
            if key not in spoilt
        ]
        if studies and not summary:
            _log.warning("no Summary_*.csv: each scan is taken for a patient of its own")
        kept, leaks = without_leaks(studies)
        return kept, tuple(sorted([*problems, *leaks], key=lambda p: (p.key, p.reason)))

    def _labels(self) -> tuple[dict[str, _Labels], set[str]]:
        """Read the tables of labels: by scan, and the scans with two different rows."""
        found: dict[str, _Labels] = {}
        torn: set[str] = set()
        for name, split in _SETS.items():
            path = _table_of(self.root, name)
            if not path.is_file():
                continue
            rows: dict[str, Mapping[str, int | None]] = {}
            findings: tuple[str, ...] = ()  # of each column; the same in every row
            for line, row in read_delimited(path, needs=(_KEY,)):
                key = row.pop(_KEY).strip()
                findings = findings or tuple(column.partition("*")[0] for column in row)
                values = _of_scan(findings, tuple(row.values()), f"{path.name} line {line}")
                if rows.setdefault(key, values) != values or key in found:
                    torn.add(key)
            sound = {key: values for key, values in rows.items() if key not in torn}
            digest = digest_of_rows(sound)
            found |= {key: _Labels(split, rows[key], path.name, digest) for key in rows}
        return found, torn

    def _summary(self) -> tuple[dict[str, Mapping[str, str]], set[str]]:
        """Read whose scan each is: by scan, and the scans with two different rows."""
        found: dict[str, Mapping[str, str]] = {}
        torn: set[str] = set()
        for path in sorted(self.root.glob("Summary_*.csv"))[-1:]:
            for _, row in read_delimited(path, needs=(_KEY, _PATIENT)):
                kept = {name: row.get(name, "").strip() for name in (_PATIENT, _SUBSET)}
                key = row[_KEY].strip()
                if found.setdefault(key, kept) != kept:
                    torn.add(key)
        return found, torn

    def _study(
        self, key: str, told: _Labels, summary: Mapping[str, str], files: Mapping[str, Path]
    ) -> Study:
        """Put one scan together."""
        path = files.get(key, self.root / "npz" / f"{key}.npz")
        series = Series(
            series_id=key,
            files=(path,),
            header=HeaderOverride(affine=AFFINE),
            facts={"hu_source": "npz"},
        )
        facts = {
            "subset": summary.get(_SUBSET, ""),
            "labels_file": told.file,
            "labels_sha256": told.digest,
            "labels_mapping": self.mapping,
        }
        return Study(
            study_id=key,
            patient_id=summary.get(_PATIENT, "") or key,
            series=(series,),
            labels=_mapped(told.values, MAPPINGS.get(self.mapping, {})),
            facts={name: value for name, value in facts.items() if value},
            split="test" if self.splits == "all_test" else told.split,
        )


def _table_of(root: Path, name: str) -> Path:
    """Say where a table of labels lies."""
    return root / f"{name}_Abnormality_and_Location_Labels.csv"


def _of_scan(findings: Sequence[str], told: Sequence[str], place: str) -> dict[str, int | None]:
    """Take the largest value over the places of each finding; blank is less than 0."""
    kinds = {value: value.strip() for value in set(told)}
    if not set(kinds.values()) <= set(LABEL_VALUES):
        raise SourceError(
            f"{place}: a label is neither 0, 1 nor blank",
            expected="0, 1 or blank",
            fix="get the table again",
        )
    # By value, not by cell: 3,630 rows of 4,368 columns hold two different ones.
    meant = {value: LABEL_VALUES[plain] for value, plain in kinds.items()}
    values: dict[str, int | None] = dict.fromkeys(findings)
    for wanted in (0, 1):
        cells = {value for value, label in meant.items() if label == wanted}
        if cells == set(meant):
            values = dict.fromkeys(findings, wanted)
        elif cells:
            named = (f for f, value in zip(findings, told, strict=True) if value in cells)
            values |= dict.fromkeys(named, wanted)
    return values


def _mapped(
    own: Mapping[str, int | None], mapping: Mapping[str, Sequence[str]]
) -> dict[str, int | None]:
    """Add CT-RATE's names: 1 if any of the findings named is there, 0 if all are told absent."""
    labels: dict[str, int | None] = dict(own)
    for name in CT_RATE_18:
        values = {own.get(finding) for finding in mapping.get(name, ())}
        if values:
            labels[name] = 1 if 1 in values else None if None in values else 0
    return labels
