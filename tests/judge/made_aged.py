"""A cohort in memory whose findings depend on the patient's age and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.schema import StudyRow, VolumeRecord
from t3d.judge.units import ScoreTable
from t3d.types import Item, Report

FINDINGS = (
    *("Lung nodule", "Pleural effusion", "Cardiomegaly", "Emphysema"),
    "Arterial wall calcification",
)


@dataclass(frozen=True, kw_only=True)
class AgedCohort:
    """Answers as a cohort does."""

    rows: tuple[StudyRow, ...]
    records: Mapping[str, tuple[VolumeRecord, ...]]
    texts: Mapping[str, Report] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=lambda: {"source_kind": "ct_rate"})
    digest: str = "a" * 64

    def studies(self, split: str | None = None) -> tuple[StudyRow, ...]:
        return tuple(row for row in self.rows if split in (None, row.split))

    def volumes(self, study_id: str) -> tuple[VolumeRecord, ...]:
        return self.records[study_id]

    def report(self, study_id: str) -> Report | None:
        return self.texts.get(study_id)

    def items(self, study_id: str) -> tuple[Item, ...]:
        return ()


def record(volume_id: str, facts: Mapping[str, str], *, slices: int = 100) -> VolumeRecord:
    """A prepared volume of 2 x 1 x 1 mm."""
    matrix = (
        (0.0, 0.0, 1.0, 0.0),
        (0.0, 1.0, 0.0, 0.0),
        (2.0, 0.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 1.0),
    )
    return VolumeRecord(
        volume_id=volume_id,
        sha256="0" * 64,
        shape=(slices, 50, 50),
        world_from_voxel=matrix,
        steps=(),
        facts=facts,
    )


def aged(
    sizes: Mapping[str, int], *, seed: int = 0, facts: bool = True, reports: bool = True
) -> AgedCohort:
    """Draw patients: every third has two studies, every second study two volumes.

    Finding f is there with probability 1 / (1 + exp(-(age - 60 - f) / 8)), given the age alone.
    """
    rng = np.random.default_rng(seed)
    rows, records, texts = [], {}, {}
    for split, size in sizes.items():
        for i in range(size):
            patient = f"{split}-{i - 1 if i % 3 == 2 else i:05}"
            if i % 3 != 2:
                age, sex = int(rng.integers(25, 90)), ("F", "M")[int(rng.integers(2))]
            odds = (age - 60 - np.arange(len(FINDINGS))) / 8
            drawn = rng.random(len(FINDINGS)) < 1 / (1 + np.exp(-odds))
            study = f"{split}{i:05}"
            names = tuple(f"{study}_{k}" for k in range(1 + i % 2))
            scanner = {"manufacturer": "AB"[i % 2], "kernel": "YA" if i % 4 else "B"}
            held = scanner | {"num_slices": str(100 + i % 7), "z_mm": "1.5"} if facts else {}
            records[study] = tuple(record(name, held) for name in names)
            if reports:
                texts[study] = Report(findings="Normal." if i % 4 == 0 else f"Case {study}.")
            rows.append(
                StudyRow(
                    study_id=study,
                    patient_id=patient,
                    split=split,
                    volume_ids=names,
                    labels={name: int(v) for name, v in zip(FINDINGS, drawn, strict=True)},
                    facts={"age": str(age), "sex": sex} if facts else {},
                )
            )
    return AgedCohort(rows=tuple(rows), records=records, texts=texts)


Score = Callable[[StudyRow, str], float]


def table_of(cohort: AgedCohort, split: str, score: Score) -> ScoreTable:
    """Score every volume of a split: `score(study, finding)`."""
    places = [(s, v, k) for s in cohort.studies(split) for k, v in enumerate(s.volume_ids)]
    scores: NDArray[np.float64] = np.array([[score(s, f) for f in FINDINGS] for s, _, _ in places])
    return ScoreTable(
        findings=FINDINGS,
        volume_ids=tuple(v for _, v, _ in places),
        study_ids=tuple(s.study_id for s, _, _ in places),
        order=tuple(k for _, _, k in places),
        scores=scores,
    )


def noise(study: StudyRow, finding: str, seed: int = 0) -> float:
    """A number of this study and finding, between 0 and 1."""
    return np.random.default_rng([seed, *f"{study.study_id}{finding}".encode()]).random()


def oracle(study: StudyRow, finding: str) -> float:
    """Knows, but is not sure: right by .5 with noise of .4."""
    return 0.5 * (study.labels[finding] or 0) + 0.4 * noise(study, finding)


def of_age(study: StudyRow, finding: str) -> float:
    """Knows the age only."""
    return int(study.facts["age"]) / 100
