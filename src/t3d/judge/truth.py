"""What is known about the studies of a split: labels, and how large a finding is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.types import Item

FORMS = ("all", "large", "small")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """Labels of N studies for F findings."""

    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    findings: tuple[str, ...]
    labels: NDArray[np.int8]  # (N, F) 1, 0, -1 = not stated
    large: NDArray[np.int8]  # (N, F) of positives: 1 large, 0 small only, -1 = size not known

    def of_form(self, form: str) -> NDArray[np.int8]:
        """Labels when only one form counts as positive.

        Args:
            form: "all", "large" (large positives against studies without the finding, small
                ones left out) or "small" (likewise).

        Returns:
            (N, F) 1, 0, -1 = left out.
        """
        if form == "all":
            return self.labels
        wanted = 1 if form == "large" else 0
        other = (self.labels == 1) & (self.large != wanted)
        return np.where(other, np.int8(-1), self.labels)

    def permuted(self, order: NDArray[np.intp]) -> Truth:
        """The truth with row i replaced by row `order[i]`; ids stay."""
        return Truth(
            study_ids=self.study_ids,
            patient_ids=self.patient_ids,
            findings=self.findings,
            labels=self.labels[order],
            large=self.large[order],
        )


def truth_of(cohort: Cohort, split: str, findings: Sequence[str]) -> Truth:
    """Read labels and sizes of a split.

    Args:
        cohort: An open cohort.
        split: Its name.
        findings: Columns wanted; a study that does not state one gets -1.

    Returns:
        The truth, rows in the cohort's order. A finding is large in a study if any of its
        items is.

    Raises:
        ProtocolError: The split is empty.
    """
    studies = cohort.studies(split)
    if not studies:
        raise ProtocolError(
            f"split {split!r} has no studies",
            expected="a split of the cohort",
            fix="name another split, or prepare the cohort with one",
        )
    labels = np.array([_row(study.labels, findings) for study in studies], dtype=np.int8)
    sizes = [_sizes(cohort.items(study.study_id)) for study in studies]
    large = np.array([_row(size, findings) for size in sizes], dtype=np.int8)
    return Truth(
        study_ids=tuple(study.study_id for study in studies),
        patient_ids=tuple(study.patient_id for study in studies),
        findings=tuple(findings),
        labels=labels,
        large=np.where(labels == 1, large, np.int8(-1)),
    )


def _row(values: Mapping[str, int | None], findings: Sequence[str]) -> list[int]:
    """Values in the order of findings, -1 where there is none."""
    return [-1 if (value := values.get(name)) is None else int(value) for name in findings]


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    """1 for each finding with a large item, 0 for one with small items only."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.finding] = max(sizes.get(item.finding, 0), int(item.large))
    return sizes
