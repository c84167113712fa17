"""Cohorts of sentences with a depth, and models over them: one that knows, one that is blind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.types import Report, Sentence, Volume, Zyx

CELL_MM = 12.0


@dataclass(frozen=True, kw_only=True)
class PlacedStudy:
    """The fields of a study that the judge reads."""

    study_id: str
    patient_id: str
    split: str
    volume_ids: tuple[str, ...]
    labels: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlacedCohort:
    """Scans of cells of 12 mm; sentences with a depth."""

    rows: tuple[PlacedStudy, ...]
    texts: Mapping[str, Report] = field(default_factory=dict)
    placed: Mapping[str, tuple[Sentence, ...]] = field(default_factory=dict)
    cells: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # volume -> first, last
    digest: str = "d" * 64

    def studies(self, split: str | None = None) -> tuple[PlacedStudy, ...]:
        """Studies of a split."""
        return tuple(row for row in self.rows if split in (None, row.split))

    def report(self, study_id: str) -> Report | None:
        """The report, or None."""
        return self.texts.get(study_id)

    def items(self, study_id: str) -> tuple[Any, ...]:
        """None are known."""
        return ()

    def sentences(self, study_id: str) -> tuple[Sentence, ...]:
        """Sentences with a depth."""
        return self.placed.get(study_id, ())

    def shape(self, volume_id: str, preparation: str | None = None) -> Zyx[int]:
        """One slice a cell."""
        first, last = self.cells[volume_id]
        return Zyx(z=last - first + 1, y=2, x=2)

    def world_from_voxel(
        self, volume_id: str, preparation: str | None = None
    ) -> NDArray[np.float64]:
        """Cell n lies at 12 n mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [CELL_MM, 0, 0]])
        matrix[2, 3] = CELL_MM * self.cells[volume_id][0]
        return matrix

    def volume(self, volume_id: str, preparation: str | None = None) -> Volume:
        """A scan without anything in it; its name says what it is."""
        return Volume(
            volume_id=volume_id,
            voxels=np.zeros(self.shape(volume_id), dtype=np.int16),
            world_from_voxel=self.world_from_voxel(volume_id),
        )

    def turned(self) -> PlacedCohort:
        """The same, everything listed the other way round."""
        return replace(
            self,
            rows=self.rows[::-1],
            placed={study: told[::-1] for study, told in reversed(self.placed.items())},
        )


def written(
    told: Sequence[tuple[str, str, str, tuple[int, int], Sequence[tuple[str, str, float]]]],
) -> PlacedCohort:
    """Make a cohort of (study, patient, split, cells, [(sentence, finding, z in mm)])."""
    rows, texts, placed, cells = [], {}, {}, {}
    for study, patient, split, ends, sentences in told:
        at, parts, marks = 0, [], []
        for text, finding, z in sentences:
            end = at + len(text)
            marks.append(
                Sentence(
                    section="findings",
                    start=at,
                    end=end,
                    finding=finding,
                    z_mm=(z, z - 2.0, z + 2.0),
                )
            )
            parts.append(text)
            at = end + 1
        parts.append("Nothing else.")  # a sentence without a place
        texts[study] = Report(findings=" ".join(parts), impression="")
        placed[study] = tuple(marks)
        volume = f"{study}-v"
        cells[volume] = ends
        rows.append(
            PlacedStudy(study_id=study, patient_id=patient, split=split, volume_ids=(volume,))
        )
    return PlacedCohort(rows=tuple(rows), texts=texts, placed=placed, cells=cells)


def direction(text: str, size: int = 64) -> NDArray[np.float64]:
    """A direction that only this text has."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    row = np.random.default_rng(seed).normal(size=size)
    return np.asarray(row / np.linalg.norm(row))


@dataclass(frozen=True, kw_only=True)
class Knows:
    """Its tokens hold the words of the sentences that lie there."""

    cohort: Any
    noise: float = 0.05

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """A direction a wording."""
        return np.array([direction(text) for text in texts], dtype=np.float32)

    def embed_tokens(self, volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Four tokens a slice, in no order of depth; noise, and what the sentences there say."""
        study = volume.volume_id.removesuffix("-v")
        z = volume.world_from_voxel[2, 3] + volume.world_from_voxel[2, 0] * np.arange(
            len(volume.voxels)
        )
        rows = np.stack([direction(f"{volume.volume_id} {i}") for i in range(len(z))]) * self.noise
        report = self.cohort.report(study)
        for sentence in self.cohort.sentences(study):
            if sentence.z_mm is not None:
                text = report.findings[sentence.start : sentence.end]
                rows[np.argmin(np.abs(z - sentence.z_mm[0]))] += direction(text)
        order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(z)), 4))
        centres = np.stack([z[order], 0 * z[order], 0 * z[order]], axis=1)
        return rows[order].astype(np.float32), centres


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Every place and every text alike."""

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """The same row for all."""
        return np.tile(np.float32((0.6, 0.8)), (len(texts), 1))

    def embed_tokens(self, volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The same token in every slice."""
        z = volume.world_from_voxel[2, 3] + volume.world_from_voxel[2, 0] * np.arange(
            len(volume.voxels)
        )
        centres = np.stack([z, 0 * z, 0 * z], axis=1)
        return np.tile(np.float32((1.0, 0.0)), (len(z), 1)), centres


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points with every sentence "cell N" at cell N of 12 mm."""

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        """The cell that is named."""
        return np.eye(64, dtype=np.float32)[[int(text.split()[1].rstrip(".")) for text in texts]]

    def embed_tokens(self, volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """A direction a cell."""
        first = round(float(volume.world_from_voxel[2, 3]) / CELL_MM)
        number = first + np.arange(len(volume.voxels))
        centres = np.stack([CELL_MM * number, 0.0 * number, 0.0 * number], axis=1)
        return np.eye(64, dtype=np.float32)[number], centres


def drawn(num: int = 30, *, seed: int = 0, splits: Sequence[str] = ("train", "dev", "test")) -> Any:
    """A cohort of three wordings whose usual place differs; every third patient has two studies."""
    rng = np.random.default_rng(seed)
    words = (("There is a nodule.", "Lung nodule", 0.75), ("Effusion.", "Pleural effusion", 0.2))
    told = []
    for split in splits:
        for i in range(num):
            first = int(rng.integers(-10, 10))
            last = first + int(rng.integers(12, 20))
            sentences = []
            for text, finding, usual in words:
                share = float(np.clip(usual + rng.normal(0, 0.15), 0.02, 0.98))
                sentences.append((text, finding, CELL_MM * (first + share * (last - first))))
            patient = f"{split}-{i - 1 if i % 3 == 2 else i:03}"
            told.append((f"{split}{i:03}", patient, split, (first, last), sentences))
    return written(told)
