"""What is known of patients and scanners, one row a volume: age, sex, manufacturer, kernel, grid.

A cohort keeps what its source told: sex and age with the study, the rest with each volume. Here
they stand beside each other as columns, for nulls, strata and matching. Legend: N rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError

if TYPE_CHECKING:
    from t3d.cohort.schema import StudyRow, VolumeRecord
    from t3d.cohort.store import Cohort

Floats = NDArray[np.float64]

WORDS = ("manufacturer", "kernel")
"""Facts of a volume that are words."""
NUMBERS = ("num_slices", "z_mm", "xy_mm", "z_extent_mm", "xy_extent_mm")
"""Facts of a volume that are numbers: the file's slices and voxel sizes as its source told them,
and the size of the prepared grid, which a preparation of fit `resize` leaves as it was."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Facts:
    """Facts of N volumes, or of N studies by their first volume."""

    volume_ids: tuple[str, ...]  # of rows that are studies: their ids
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    order: tuple[int, ...]  # place of the volume within its study, 0 = first
    age_years: Floats  # (N,) NaN = not known
    sex: tuple[str, ...]  # "" = not known
    words: Mapping[str, tuple[str, ...]]  # name -> N words, "" = not known
    numbers: Mapping[str, Floats]  # name -> (N,), NaN = not known

    def __len__(self) -> int:
        return len(self.volume_ids)

    def taken(self, rows: Sequence[int], *, names: Sequence[str] = ()) -> Facts:
        """Take some rows, in the order asked.

        Args:
            rows: Row numbers.
            names: What each is now called; () = as before. Rows with new names are studies.
        """
        index = np.asarray(rows, dtype=np.intp)
        return Facts(
            volume_ids=tuple(names) or tuple(self.volume_ids[i] for i in rows),
            study_ids=tuple(self.study_ids[i] for i in rows),
            patient_ids=tuple(self.patient_ids[i] for i in rows),
            order=(0,) * len(names) or tuple(self.order[i] for i in rows),
            age_years=self.age_years[index],
            sex=tuple(self.sex[i] for i in rows),
            words={k: tuple(told[i] for i in rows) for k, told in self.words.items()},
            numbers={k: told[index] for k, told in self.numbers.items()},
        )

    def of_rows(self, row_ids: Sequence[str]) -> Facts:
        """Take the rows of a result, whether it judged volumes or studies.

        Args:
            row_ids: As `Outcome.table.study_ids` has them.

        Raises:
            ProtocolError: A row is neither a volume nor a study of these facts.
        """
        volumes = {name: i for i, name in enumerate(self.volume_ids)}
        if all(name in volumes for name in row_ids):
            return self.taken([volumes[name] for name in row_ids])
        first: dict[str, int] = {}
        for i in sorted(range(len(self)), key=lambda i: (self.order[i], self.volume_ids[i])):
            first.setdefault(self.study_ids[i], i)
        lacking = [name for name in row_ids if name not in first]
        if lacking:
            raise ProtocolError(
                f"{len(lacking)} of {len(row_ids)} judged rows have no facts, "
                f"the first: {lacking[0]}",
                expected="rows of the split that the facts were read from",
                fix="read the facts of the evaluated split",
            )
        return self.taken([first[name] for name in row_ids], names=row_ids)

    def known(self, name: str) -> NDArray[np.bool_]:
        """(N,) True where "age", "sex", or one of `words` or `numbers` is known."""
        if name == "age":
            return np.isfinite(self.age_years)
        if name in self.numbers:
            return np.isfinite(self.numbers[name])
        told = self.sex if name == "sex" else self.words.get(name, ("",) * len(self))
        return np.array([bool(word) for word in told], dtype=bool)


def facts_of(cohort: Cohort, split: str) -> Facts:
    """Read the facts of a split.

    Args:
        cohort: An open cohort.
        split: Its name.

    Returns:
        One row a volume, in the cohort's order; of a volume with several preparations the first
        by name.
    """
    rows = [
        (study, record, place)
        for study in cohort.studies(split)
        for place, record in enumerate(_once(cohort.volumes(study.study_id)))
    ]
    return Facts(
        volume_ids=tuple(record.volume_id for _, record, _ in rows),
        study_ids=tuple(study.study_id for study, _, _ in rows),
        patient_ids=tuple(study.patient_id for study, _, _ in rows),
        order=tuple(place for _, _, place in rows),
        age_years=np.array([_number(study.facts.get("age")) for study, _, _ in rows]),
        sex=tuple(study.facts.get("sex", "") for study, _, _ in rows),
        words={name: tuple(r.facts.get(name, "") for _, r, _ in rows) for name in WORDS},
        numbers={name: np.array([_measured(r, name) for _, r, _ in rows]) for name in NUMBERS},
    )


def label_facts(cohort: Cohort, split: str) -> dict[str, str]:
    """Say which labels a result rests on: label files by digest, and the labels as they are read.

    Args:
        cohort: An open cohort.
        split: Its name.

    Returns:
        `labels_files`: "name sha256, ..." as the source read them ("" = none is recorded);
        `labels_digest`: sha256 over (study, finding, value) of the split, in order.
    """
    studies = cohort.studies(split)
    return {"labels_files": ", ".join(_files(studies)), "labels_digest": _digest(studies)}


def _files(studies: Sequence[StudyRow]) -> list[str]:
    """Label files with their digests, each once."""
    told = {(s.facts.get("labels_file", ""), s.facts.get("labels_sha256", "")) for s in studies}
    return [f"{name} {digest}" for name, digest in sorted(told) if digest]


def _digest(studies: Sequence[StudyRow]) -> str:
    """Digest of the labels themselves, whoever gave them."""
    told = [[study.study_id, sorted(study.labels.items())] for study in studies]
    return hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()


def _once(records: Sequence[VolumeRecord]) -> list[VolumeRecord]:
    """One record a volume."""
    first: dict[str, VolumeRecord] = {}
    for record in records:
        first.setdefault(record.volume_id, record)
    return list(first.values())


def _measured(record: VolumeRecord, name: str) -> float:
    """A number of a volume: told by the source, or seen on the prepared grid."""
    if not name.endswith("_extent_mm"):
        return _number(record.facts.get(name))
    axis = 0 if name.startswith("z_") else 1
    step = np.linalg.norm(np.asarray(record.world_from_voxel, dtype=np.float64)[:3, axis])
    return float(step * record.shape[axis])


def _number(told: str | None) -> float:
    """A number, NaN for what is none."""
    try:
        value = float(told or "nan")
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")
