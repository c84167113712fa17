"""What is known about the studies of a split: labels, and how large a finding is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.data.classes import MAPPINGS

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.types import Item

FORMS = ("all", "large", "small")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """Labels of N rows for F findings; a row is a study, or one of its volumes."""

    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    findings: tuple[str, ...]
    labels: NDArray[np.int8]  # (N, F) 1, 0, -1 = not stated
    large: NDArray[np.int8]  # (N, F) of positives: 1 large, 0 small only, -1 = size not known
    volume_ids: tuple[str, ...] = ()  # (N,) of each row; () = rows are studies
    volumes: tuple[tuple[str, ...], ...] = ()  # (N,) reconstructions a study has; () = not known

    @property
    def row_ids(self) -> tuple[str, ...]:
        """What a row is called: its volume, or its study."""
        return self.volume_ids or self.study_ids

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
        return replace(self, labels=self.labels[order], large=self.large[order])

    def taken(self, rows: Sequence[int], *, volume_ids: Sequence[str] = ()) -> Truth:
        """The truth of some rows, in the order asked; rows may repeat.

        Args:
            rows: Row numbers.
            volume_ids: What each row is now called; () = by its study.
        """
        index = np.asarray(rows, dtype=np.intp)
        return Truth(
            study_ids=tuple(self.study_ids[i] for i in rows),
            patient_ids=tuple(self.patient_ids[i] for i in rows),
            findings=self.findings,
            labels=self.labels[index],
            large=self.large[index],
            volume_ids=tuple(volume_ids),
        )


def truth_of(cohort: Cohort, split: str, findings: Sequence[str], *, mapping: str = "") -> Truth:
    """Read labels and sizes of a split.

    Args:
        cohort: An open cohort.
        split: Its name.
        findings: Columns wanted; a study that does not state one gets -1.
        mapping: How the cohort's own labels become the findings, by its name in
            `data.classes.MAPPINGS`; "" = they have these names.

    Returns:
        The truth, rows in the cohort's order. A finding is large in a study if any of its
        items is.

    Raises:
        ProtocolError: The split is empty, the mapping is unknown, or no study has any of the
            labels that it reads.
    """
    studies = cohort.studies(split)
    if not studies:
        raise ProtocolError(
            f"split {split!r} has no studies",
            expected="a split of the cohort",
            fix="name another split, or prepare the cohort with one",
        )
    told = [study.labels for study in studies]
    if mapping:
        told = [mapped(labels, mapping) for labels in told]
        if not any(told):
            raise ProtocolError(
                f"no study of split {split!r} has a label that mapping {mapping!r} reads",
                expected="the corpus's own labels beside the 18 names of CT-RATE",
                fix="prepare the cohort from the corpus this mapping is for",
            )
    sizes = [_sizes(cohort.items(study.study_id)) for study in studies]
    labels = np.array([_row(row, findings) for row in told], dtype=np.int8)
    large = np.array([_row(size, findings) for size in sizes], dtype=np.int8)
    return Truth(
        study_ids=tuple(study.study_id for study in studies),
        patient_ids=tuple(study.patient_id for study in studies),
        findings=tuple(findings),
        labels=labels,
        large=np.where(labels == 1, large, np.int8(-1)),
        volumes=tuple(tuple(study.volume_ids) for study in studies),
    )


def mapped(own: Mapping[str, int | None], mapping: str) -> dict[str, int | None]:
    """Make findings of a corpus's own labels: 1 if any is 1, 0 if all are 0, else not stated.

    Args:
        own: Labels by the corpus's own names.
        mapping: Name in `data.classes.MAPPINGS`.

    Returns:
        The findings that the mapping can say something about.

    Raises:
        ProtocolError: There is no such mapping.
    """
    if mapping not in MAPPINGS:
        raise ProtocolError(f"mapping {mapping!r} is unknown", expected=", ".join(MAPPINGS))
    found: dict[str, int | None] = {}
    for finding, names in MAPPINGS[mapping].items():
        if any(name in own for name in names):
            values = {own.get(name) for name in names}
            found[finding] = 1 if 1 in values else None if None in values else 0
    return found


def _row(values: Mapping[str, int | None], findings: Sequence[str]) -> list[int]:
    """Values in the order of findings, -1 where there is none."""
    return [-1 if (value := values.get(name)) is None else int(value) for name in findings]


def _sizes(items: Sequence[Item]) -> dict[str, int]:
    """1 for each finding with a large item, 0 for one with small items only."""
    sizes: dict[str, int] = {}
    for item in items:
        sizes[item.finding] = max(sizes.get(item.finding, 0), int(item.large))
    return sizes
