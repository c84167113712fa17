"""A cohort of reports without any voxels, made below a test's own folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from t3d.cohort.writer import CohortWriter
from t3d.types import Report, Study

REPORTS: Mapping[str, Sequence[Report]] = {
    "s1": [Report(findings="Small left pleural effusion. No nodule.", impression="Effusion.")],
    "s2": [Report(findings="Kein Pleuraerguss. Rundherd rechts.", language="de")],
    "s3": [Report(findings="The heart is enlarged.")],
    "s4": [],
    "s5": [Report(findings="Pas d'\u00e9panchement.", language="fr")],
    "s6": [Report()],
}
LABELS: Mapping[str, Mapping[str, int | None]] = {
    "s1": {"Pleural effusion": 1, "Lung nodule": 0},
    "s2": {"Pleural effusion": 1, "Lung nodule": None},
    "s3": {"Pleural effusion": 0, "Lung nodule": 0},
}


def write_cohort(
    path: Path,
    reports: Mapping[str, Sequence[Report]] = REPORTS,
    labels: Mapping[str, Mapping[str, int | None]] = LABELS,
) -> Path:
    """Write one study a report list; the patient of s1 is patient-s1."""
    with CohortWriter(path) as writer:
        for key, told in reports.items():
            study = Study(
                study_id=key,
                patient_id=f"patient-{key}",
                series=(),
                reports=tuple(told),
                labels=labels.get(key, {}),
            )
            writer.record(study, "none", [])
    return path
