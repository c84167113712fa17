"""A cohort in memory and three models over it: one that knows, one that is blind, one that guesses.

The report of a study says which findings it has and carries a number of its own, so that an
oracle can be judged by prompts and by retrieval without any learning.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.judge.prompts import PromptSet, templates
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.plain import PLAIN
from t3d.types import Item, Report, Volume

FINDINGS = ("Lung nodule", "Pleural effusion", "Cardiomegaly", "Hiatal hernia")


@dataclass(frozen=True, kw_only=True)
class FakeStudy:
    """The fields of a study that the judge reads."""

    study_id: str
    patient_id: str
    split: str
    volume_ids: tuple[str, ...]
    labels: Mapping[str, int | None]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FakeCohort:
    """Answers as a cohort does, from dictionaries."""

    rows: tuple[FakeStudy, ...]
    texts: Mapping[str, Report]
    found: Mapping[str, tuple[Item, ...]]
    digest: str = "d" * 64

    def studies(self, split: str | None = None) -> tuple[FakeStudy, ...]:
        """Studies of a split, ordered by id."""
        return tuple(row for row in self.rows if split in (None, row.split))

    def report(self, study_id: str) -> Report | None:
        """The report, or None."""
        return self.texts.get(study_id)

    def items(self, study_id: str) -> tuple[Item, ...]:
        """Occurrences of findings."""
        return self.found.get(study_id, ())

    def volume(self, volume_id: str, preparation: str | None = None) -> Volume:
        """Noise with a bright corner where there is a nodule, brighter if large."""
        study = volume_id.removesuffix("-v")
        labels = next(row.labels for row in self.rows if row.study_id == study)
        rng = np.random.default_rng(int(study[1:]))
        voxels = rng.normal(-700, 40, (16, 18, 20))
        if labels["Lung nodule"]:
            voxels[:4, :4, :4] += 250
        return Volume(
            volume_id=volume_id, voxels=voxels.astype(np.int16), world_from_voxel=np.eye(4)
        )


def signature(text: str, size: int = 24) -> NDArray[np.float64]:
    """A direction that only this text has."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=size)


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """Sees the labels and the report: what no model can beat."""

    sign: float = 1.0  # -1 = always says the opposite

    def embed_studies(self, cohort: FakeCohort, study_ids: Sequence[str]) -> NDArray[np.float32]:
        """Labels as signs, then the signature of the own report."""
        labels = {row.study_id: row.labels for row in cohort.rows}
        rows = []
        for study_id in study_ids:
            report = cohort.report(study_id)
            own = signature(study_id if report is None else report.findings)
            signs = [self.sign * (1.0 if labels[study_id][f] else -1.0) for f in FINDINGS]
            rows.append(np.concatenate((signs, own)))
        return scaled(np.array(rows))

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """Plus or minus the axis of the finding that is named."""
        rows = np.zeros((len(texts), len(FINDINGS) + 24))
        for row, text in zip(rows, texts, strict=True):
            named = [f for f, name in enumerate(FINDINGS) if name.lower() in text.lower()]
            row[named] = -1.0 if re.search(r"\bno\b", text.lower()) else 1.0
        return rows.astype(np.float32)

    def embed_reports(self, reports: list[Report]) -> NDArray[np.float32]:
        """The signature of each report."""
        rows = [np.concatenate((np.zeros(4), signature(r.findings))) for r in reports]
        return np.array(rows, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Blind:
    """Gives every study, sentence and report the same embedding, a text another than an image."""

    def embed_studies(self, cohort: FakeCohort, study_ids: Sequence[str]) -> NDArray[np.float32]:
        """The same row for all."""
        return np.tile(np.float32((0.3, 0.2, 0.1)), (len(study_ids), 1))

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """The same row for all."""
        return np.tile(np.float32((0.1, 0.7, 0.2)), (len(texts), 1))

    def embed_reports(self, reports: list[Report]) -> NDArray[np.float32]:
        """The same row for all."""
        return np.tile(np.float32((0.6, 0.1, 0.5)), (len(reports), 1))


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Gives everything an embedding of its own that has nothing to do with what it is."""

    seed: int = 0

    def _rows(self, names: Sequence[str]) -> NDArray[np.float32]:
        """One direction a name."""
        return np.array([signature(f"{self.seed} {name}", 8) for name in names], dtype=np.float32)

    def embed_studies(self, cohort: FakeCohort, study_ids: Sequence[str]) -> NDArray[np.float32]:
        """By id."""
        return self._rows(study_ids)

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """By text."""
        return self._rows(texts)

    def embed_reports(self, reports: list[Report]) -> NDArray[np.float32]:
        """By text."""
        return self._rows([f"report {r.findings}" for r in reports])


def scaled(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Both parts of an embedding at the same length, so that neither hides the other."""
    tail = np.linalg.norm(rows[:, 4:], axis=1, keepdims=True)
    return np.concatenate((rows[:, :4], 2 * rows[:, 4:] / tail), axis=1).astype(np.float32)


def build(
    sizes: Mapping[str, int], *, seed: int = 0, prevalence: float = 0.4, unknown: float = 0.1
) -> FakeCohort:
    """Draw a cohort: every fifth patient has two studies, one pair of reports is identical.

    Cardiomegaly is always large; nobody in the test split has a hiatal hernia; the last test
    study has no report.
    """
    rng = np.random.default_rng(seed)
    rows: list[FakeStudy] = []
    texts: dict[str, Report] = {}
    found: dict[str, tuple[Item, ...]] = {}
    for split, size in sizes.items():
        for i in range(size):
            number = len(rows)
            study_id = f"s{number:04}"
            patient = f"{split}-{i - 1 if i % 5 == 4 else i:04}"
            labels: dict[str, int | None] = {f: int(rng.random() < prevalence) for f in FINDINGS}
            if split == "test":
                labels["Hiatal hernia"] = 0
            found[study_id] = tuple(
                Item(finding=f, large=f == "Cardiomegaly" or rng.random() < 0.5)
                for f, value in labels.items()
                if value
            )
            if rng.random() < unknown:
                labels["Lung nodule"] = None
            text = " ".join(f"{'There is' if v else 'No'} {f}." for f, v in labels.items())
            texts[study_id] = Report(findings=f"{text} Case {number}.", impression="See above.")
            rows.append(
                FakeStudy(
                    study_id=study_id,
                    patient_id=patient,
                    split=split,
                    volume_ids=(f"{study_id}-v",),
                    labels=labels,
                )
            )
    test = [row.study_id for row in rows if row.split == "test"]
    if len(test) > 2:
        texts[test[1]] = replace(texts[test[0]], impression=" see  ABOVE. ")
        del texts[test[-1]]
    return FakeCohort(rows=tuple(rows), texts=texts, found=found)


@pytest.fixture(scope="session")
def cohort() -> FakeCohort:
    """120 train, 60 dev and 90 test studies."""
    return build({"train": 120, "dev": 60, "test": 90})


@pytest.fixture(scope="session")
def make_cohort() -> Callable[..., FakeCohort]:
    """Build another cohort."""
    return build


@pytest.fixture(scope="session")
def findings() -> tuple[str, ...]:
    """Names of the cohort's findings."""
    return FINDINGS


@pytest.fixture(scope="session")
def prompts() -> PromptSet:
    """Templates for the cohort's findings."""
    return templates(FINDINGS)


@pytest.fixture(scope="session")
def quick() -> Protocol:
    """The plain protocol with fewer draws."""
    intervals = replace(PLAIN.intervals, num_draws=200)
    return replace(PLAIN, name="plain_quick", intervals=intervals, num_permutations=40)


@pytest.fixture
def oracle() -> Oracle:
    """A model that knows."""
    return Oracle()


@pytest.fixture
def blind() -> Blind:
    """A model that sees nothing."""
    return Blind()


@pytest.fixture
def guess() -> Guess:
    """A model that guesses."""
    return Guess()
