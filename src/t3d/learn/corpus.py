"""The reports and labels of a split, in memory and in a fixed order."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.people import MEMBER
from t3d.cohort.store import Cohort
from t3d.errors import RecipeError
from t3d.learn.recipe import Member
from t3d.text.findings import CT_RATE_18
from t3d.text.sections import SECTIONS
from t3d.text.sentences import split_sentences
from t3d.types import Report

log = logging.getLogger(__name__)
Sentences = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """N studies of one split, sorted by study id; everything a loader needs but voxels."""

    study_ids: tuple[str, ...]
    members: tuple[str, ...]  # of the union each study is of; "" = none
    volume_ids: tuple[str, ...]  # the first volume of each study
    findings: tuple[Sentences, ...]
    impression: tuple[Sentences, ...]
    sections: tuple[tuple[str, ...] | None, ...]  # that a report was cut to; None = it was not
    labels: NDArray[np.int64]  # (N, 18): 1, 0, -1 = not stated; columns as CT_RATE_18
    same_report: NDArray[np.int64]  # (N,) equal = identical normalised report

    def __len__(self) -> int:
        return len(self.study_ids)

    def sentences(self, index: int, sections: Sequence[str]) -> Sentences:
        """Give the sentences of the sections named, findings before impression.

        A report that was cut to its member's sections gives those instead.
        """
        wanted = self.sections[index] or sections
        return tuple(
            sentence
            for section in SECTIONS
            if section in wanted
            for sentence in getattr(self, section)[index]
        )


def members_of(cohort: Cohort) -> frozenset[str]:
    """Name the members of the union that a cohort was made of; none where it was made of none."""
    return frozenset(row.facts[MEMBER] for row in cohort.studies() if MEMBER in row.facts)


def read_corpus(
    cohort: Cohort,
    split: str,
    *,
    with_reports: bool,
    members: Mapping[str, Member] | None = None,
    only: Collection[str] | None = None,
    shuffle_seed: int | None = None,
) -> Corpus:
    """Read a split's reports and labels.

    Args:
        cohort: Opened.
        split: "train", "dev" or "test".
        with_reports: Leave out studies without a report, and log how many.
        members: Of a recipe: whose reports are cut to which sections. None = nobody's.
        only: Studies to read; None = all of the split.
        shuffle_seed: Permute the reports between the studies (the control); None = do not.

    Raises:
        RecipeError: No study is left.
    """
    rows = [row for row in cohort.studies(split) if row.volume_ids]
    if only is not None:
        wanted = frozenset(only)
        rows = [row for row in rows if row.study_id in wanted]
    told = members or {}
    cut = [told.get(row.facts.get(MEMBER, ""), Member()).sections for row in rows]
    reports = [_cut(cohort.report(row.study_id), to) for row, to in zip(rows, cut, strict=True)]
    if with_reports:
        kept = [i for i, report in enumerate(reports) if report and _text(report)]
        if len(kept) < len(rows):
            log.warning(
                "%s: %d studies have no report and are left out", split, len(rows) - len(kept)
            )
        rows, reports = [rows[i] for i in kept], [reports[i] for i in kept]
        cut = [cut[i] for i in kept]
    if not rows:
        raise RecipeError(
            f"split '{split}' of the cohort has no study to learn from",
            expected="studies with a prepared volume" + (" and a report" if with_reports else ""),
            fix="t3d info COHORT counts studies by split; check the 'split' column of the source",
        )
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(len(reports))
        reports, cut = [reports[i] for i in order], [cut[i] for i in order]
    texts = [report or Report() for report in reports]
    return Corpus(
        study_ids=tuple(row.study_id for row in rows),
        members=tuple(row.facts.get(MEMBER, "") for row in rows),
        volume_ids=tuple(row.volume_ids[0] for row in rows),
        findings=tuple(sentences_of(report.findings) for report in texts),
        impression=tuple(sentences_of(report.impression) for report in texts),
        sections=tuple(cut),
        labels=np.array([[_label(row.labels.get(name)) for name in CT_RATE_18] for row in rows]),
        same_report=np.array([_identity(report) for report in texts], dtype=np.int64),
    )


def sentences_of(text: str) -> Sentences:
    """Cut a section into sentences without surrounding space."""
    return tuple(text[start:end].strip() for start, end in split_sentences(text))


def _cut(report: Report | None, sections: Sequence[str] | None) -> Report | None:
    """Empty the sections that a member is not to give."""
    if report is None or sections is None:
        return report
    return replace(report, **{name: "" for name in SECTIONS if name not in sections})


def _label(value: int | None) -> int:
    return -1 if value is None else value


def _text(report: Report) -> str:
    return f"{report.findings} {report.impression}".strip()


def _identity(report: Report) -> int:
    normal = " ".join(_text(report).lower().split())
    return int.from_bytes(hashlib.sha256(normal.encode()).digest()[:7], "big")
