"""Which training patients a recipe or a probe may read the labels of, the same for every model.

Patients stand in the order of a seeded hash of their id, so that a small share lies inside every
larger one, whatever is trained on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t3d.errors import RecipeError

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Studies whose labels may be read."""

    study_ids: tuple[str, ...]  # in the cohort's order
    num_patients: int
    num_added: int  # of them, patients beyond the share, taken for a finding's sake


def labelled_studies(
    cohort: Cohort, findings: Sequence[str], *, share: float, seed: int, split: str = "train"
) -> Labelled:
    """Choose a share of a split's patients.

    The first `round(share x P)` of P patients in the order of their hashes, at least one. For each
    finding the first patient who has it and the first who has it not are taken too, so that every
    finding known in the split has both classes: a small share therefore holds somewhat more
    patients than it says. Whoever is in a share is in every larger one of the same seed.

    Args:
        cohort: An open cohort.
        findings: Names whose labels are learnt.
        share: Above 0, at most 1.
        seed: Of the hash.
        split: Name of the split.

    Returns:
        The studies of those patients that have a prepared volume.

    Raises:
        RecipeError: The share is not within 0..1, or no study has a volume.

    Source:
        Shares of 1, 10 and 100 %: the usual protocol of probes; the rule for rare findings: ours.
    """
    rows = [row for row in cohort.studies(split) if row.volume_ids]
    if not 0 < share <= 1 or not rows:
        raise RecipeError(
            f"a share of {share:g} of the labels of {len(rows)} studies with a volume",
            expected="a share above 0, at most 1, of at least one study",
            fix="--labels 0.01, 0.1 or 1; t3d info COHORT counts studies by split",
        )
    of_patient: dict[str, list[Mapping[str, int | None]]] = {}
    for row in rows:
        of_patient.setdefault(row.patient_id, []).append(row.labels)
    order = sorted(of_patient, key=lambda patient: _place(patient, seed))
    chosen = set(order[: max(1, round(share * len(order)))])
    in_share = len(chosen)
    for finding in findings:
        for value in (1, 0):
            having = (p for p in order if any(told.get(finding) == value for told in of_patient[p]))
            chosen |= {patient for patient in [next(having, None)] if patient is not None}
    return Labelled(
        study_ids=tuple(row.study_id for row in rows if row.patient_id in chosen),
        num_patients=len(chosen),
        num_added=len(chosen) - in_share,
    )


def _place(patient: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()
