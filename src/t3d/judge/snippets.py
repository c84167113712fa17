"""Sentences with a known depth, the scans they speak of, and what words alone say of depth.

World mm of two patients cannot be averaged: lungs lie at another height of the table. A place is
therefore also a fraction of its scan, 0 = lowest edge, 1 = highest, as far as the scan reaches;
it is not a place in the body. Legend: S snippets, T training snippets, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.scores.places import per_scan
from t3d.text.ngrams import ngrams
from t3d.text.sections import SECTIONS
from t3d.text.sentences import split_sentences

if TYPE_CHECKING:
    from t3d.cohort.schema import StudyRow
    from t3d.cohort.store import Cohort
    from t3d.types import Report, Sentence

Floats = NDArray[np.float64]

RIDGE = 1.0  # added to every n-gram's square sum (our choice)
MAX_TERMS = 1000  # n-grams the text prior reads, the most frequent first
NUM_NEAREST = 10  # training snippets whose mean place is taken
_NOWHERE = (float("nan"),) * 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snippets:
    """Sentences of one split, by study and then by place in the report."""

    texts: tuple[str, ...]
    study_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    volume_ids: tuple[str, ...]  # the study's first volume
    findings: tuple[str, ...]  # "" = not stated
    keys: tuple[str, ...]  # names a snippet within its study
    z_mm: Floats  # (S, 3) centre, low, high; LPS
    extent_mm: Floats  # (S, 2) lowest and highest edge of the prepared volume; LPS
    excluded: Mapping[str, int] = field(default_factory=dict)  # reason -> sentences

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def fractions(self) -> Floats:
        """(S,) where in its scan the centre lies: 0 = lowest edge, 1 = highest."""
        low, high = self.extent_mm.T
        return np.asarray((self.z_mm[:, 0] - low) / (high - low))

    def taken(self, rows: Sequence[int] | NDArray[np.intp]) -> Snippets:
        """Keep some rows, in the order given."""
        index = np.asarray(rows, dtype=np.intp)

        def some(column: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(column[i] for i in index)

        return Snippets(
            texts=some(self.texts),
            study_ids=some(self.study_ids),
            patient_ids=some(self.patient_ids),
            volume_ids=some(self.volume_ids),
            findings=some(self.findings),
            keys=some(self.keys),
            z_mm=self.z_mm[index],
            extent_mm=self.extent_mm[index],
            excluded=self.excluded,
        )


def snippets_of(cohort: Cohort, split: str, *, preparation: str | None = None) -> Snippets:
    """Read the sentences of a split whose depth is known: phantoms, citations, lesion masks.

    Args:
        cohort: An open cohort.
        split: Its name.
        preparation: That scans are measured in; None = the cohort's only one.

    Returns:
        The snippets. A study's sentences are looked for in its first volume. `excluded` names
        sentences without a depth, without words, of a study without a report or a volume, and
        with a place outside the volume.
    """
    rows: list[_Row] = []
    excluded: Counter[str] = Counter()
    for study in cohort.studies(split):
        report = cohort.report(study.study_id)
        for sentence in cohort.sentences(study.study_id):
            told = _text(report, sentence)
            if sentence.z_mm is None:
                excluded["no depth"] += 1
            elif not told or not study.volume_ids:
                excluded["no words or no volume"] += 1
            else:
                rows.append(_Row(study, told, sentence))
    return _gathered(cohort, rows, preparation, excluded)


def unplaced_of(cohort: Cohort, split: str, *, preparation: str | None = None) -> Snippets:
    """Read one sentence a study that has no known place: what a curve says of nothing.

    Args:
        cohort: An open cohort.
        split: Its name.
        preparation: As for `snippets_of`.

    Returns:
        The first sentence of each report that overlaps no sentence with a depth; `z_mm` is NaN.
    """
    rows = []
    for study in cohort.studies(split):
        report = cohort.report(study.study_id)
        placed = [s for s in cohort.sentences(study.study_id) if s.z_mm is not None]
        free = next(_free(report, placed), None) if report and study.volume_ids else None
        if free is not None:
            rows.append(_Row(study, _text(report, free), free))
    return _gathered(cohort, rows, preparation, Counter())


def extent_of(
    cohort: Cohort, volume_id: str, preparation: str | None = None
) -> tuple[float, float]:
    """Give the lowest and highest voxel edge of a prepared volume along z, LPS mm.

    Check: 4 slices of 2 mm, the first centre at 10 -> 9, 17.
    """
    matrix = cohort.world_from_voxel(volume_id, preparation)
    num = cohort.shape(volume_id, preparation).z
    ends = [float(matrix[2, 3] + matrix[2, 0] * index) for index in (-0.5, num - 0.5)]
    return min(ends), max(ends)


def mean_place(train: Snippets, test: Snippets) -> Floats:
    """Guess the mean place of all training snippets, (S,) fractions."""
    return np.full(len(test), float(np.sort(train.fractions).mean()))


def finding_place(train: Snippets, test: Snippets) -> Floats:
    """Guess the mean place of the training snippets of the same finding, (S,) fractions.

    A finding that is not stated, or never seen, gets the mean place of all.
    """
    means = dict(zip(sorted(set(train.findings)), _means(train, train.findings), strict=True))
    means.pop("", None)
    overall = mean_place(train, test)
    return np.array([means.get(f, o) for f, o in zip(test.findings, overall, strict=True)])


def words_place(train: Snippets, test: Snippets) -> Floats:
    """Guess from the n-grams of a snippet, (S,) fractions: ridge regression, no image.

    Formula: w = (X' X + I)^-1 X' (y - mean y), X 1 where a snippet holds an n-gram.
    Check: training "left base" at .2 and "apex" at .8 -> "apex" .65, "other" .5.

    Args:
        train: T snippets.
        test: S snippets.

    Returns:
        Fractions within 0 and 1. The n-grams are those of at least two training snippets (all of
        them if there are none), at most `MAX_TERMS`.
    """
    texts, count = np.unique(np.asarray(train.texts, dtype=str), return_counts=True)
    place = _means(train, train.texts)  # equal texts as one row with a weight: no order matters
    held = Counter[str]()
    for text, num in zip(texts.tolist(), count.tolist(), strict=True):
        held.update(dict.fromkeys(ngrams(text), num))
    often = [n for n in held if held[n] > 1] or list(held)
    terms = {n: i for i, n in enumerate(sorted(often, key=lambda n: (-held[n], n))[:MAX_TERMS])}
    seen, asked = _holds(texts.tolist(), terms), _holds(test.texts, terms)
    mean = float((place * count).sum() / count.sum())
    square = seen.T @ (seen * count[:, None]) + RIDGE * np.eye(len(terms))
    weights = np.linalg.solve(square, seen.T @ ((place - mean) * count))
    return np.clip(np.round(mean + asked @ weights, 9), 0.0, 1.0)


def nearest_place(
    train: Snippets, train_rows: NDArray[np.floating], test_rows: NDArray[np.floating]
) -> Floats:
    """Guess from the training snippets whose text embeddings are nearest, (S,) fractions.

    Args:
        train: T snippets.
        train_rows: (T, D) unit length.
        test_rows: (S, D) unit length.

    Returns:
        Mean place of the `NUM_NEAREST` nearest; those tied with the last of them count too.
    """
    similar = np.round(test_rows.astype(np.float64) @ train_rows.astype(np.float64).T, 6)
    at = max(0, len(train) - NUM_NEAREST)
    last = np.partition(similar, at, axis=1)[:, at]
    near = (similar >= last[:, None]).astype(np.float64)
    return np.asarray(np.round((near @ train.fractions) / near.sum(axis=1), 9))


@dataclass(frozen=True, slots=True)
class _Row:
    """A sentence of a study."""

    study: StudyRow
    text: str
    sentence: Sentence


def _gathered(
    cohort: Cohort, rows: Sequence[_Row], preparation: str | None, excluded: Counter[str]
) -> Snippets:
    """Put rows in order and measure their scans; what lies outside its scan is left out."""
    extents: dict[str, tuple[float, float]] = {}
    kept: list[_Row] = []
    for row in sorted(rows, key=lambda r: (r.study.study_id, _key(r.sentence))):
        volume = row.study.volume_ids[0]
        if volume not in extents:
            extents[volume] = extent_of(cohort, volume, preparation)
        low, high = extents[volume]
        place = row.sentence.z_mm
        if place is not None and not low <= place[0] <= high:
            excluded["place outside the prepared volume"] += 1
        else:
            kept.append(row)
    volumes = tuple(row.study.volume_ids[0] for row in kept)
    return Snippets(
        texts=tuple(row.text for row in kept),
        study_ids=tuple(row.study.study_id for row in kept),
        patient_ids=tuple(row.study.patient_id for row in kept),
        volume_ids=volumes,
        findings=tuple(row.sentence.finding for row in kept),
        keys=tuple(_key(row.sentence) for row in kept),
        z_mm=np.array([row.sentence.z_mm or _NOWHERE for row in kept]).reshape(-1, 3),
        extent_mm=np.array([extents[volume] for volume in volumes]).reshape(-1, 2),
        excluded=dict(excluded),
    )


def _text(report: Report | None, sentence: Sentence) -> str:
    """The words of a sentence; "" = none."""
    if report is None or sentence.section not in SECTIONS:
        return ""
    section: str = getattr(report, sentence.section)
    return section[sentence.start : sentence.end].strip()


def _free(report: Report, placed: Sequence[Sentence]) -> Iterator[Sentence]:
    """Sentences of a report that overlap none of those given."""
    from t3d.types import Sentence

    for section in SECTIONS:
        taken = [(s.start, s.end) for s in placed if s.section == section]
        for start, end in split_sentences(getattr(report, section)):
            if all(end <= low or high <= start for low, high in taken):
                yield Sentence(section=section, start=start, end=end)


def _key(sentence: Sentence) -> str:
    """Where a sentence stands, in the order of reading."""
    return f"{sentence.section}:{sentence.start:06}:{sentence.end:06}"


def _means(train: Snippets, groups: Sequence[str]) -> Floats:
    """Mean place of each group, groups in sorted order; rows in any order give the same bits."""
    return per_scan(train.fractions, groups)


def _holds(texts: Sequence[str], terms: Mapping[str, int]) -> Floats:
    """1 where a text holds an n-gram."""
    table = np.zeros((len(texts), len(terms)))
    for row, text in zip(table, texts, strict=True):
        row[[terms[n] for n in ngrams(text) if n in terms]] = 1.0
    return table
