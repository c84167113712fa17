"""Embeddings of studies, reports and prompts, and what a model must give to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from t3d.errors import ProtocolError
from t3d.judge.prompts import PromptSet
from t3d.types import Report

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

Rows = NDArray[np.float32]


@runtime_checkable
class JudgedModel(Protocol):
    """What a task asks of a model; rows need not have unit length."""

    def embed_studies(self, cohort: Cohort, study_ids: Sequence[str]) -> Rows:
        """Embed studies: (N, D), row i is `study_ids[i]`."""
        ...

    def embed_text(self, texts: list[str]) -> Rows:
        """Embed single sentences: (N, D)."""
        ...

    def embed_reports(self, reports: list[Report]) -> Rows:
        """Embed whole reports: (N, D)."""
        ...


@runtime_checkable
class ScoringModel(Protocol):
    """A model that was told the findings: one score a study and finding."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of its columns."""
        ...

    def score_studies(self, cohort: Cohort, study_ids: Sequence[str]) -> NDArray[np.float64]:
        """Score studies: (N, F), larger = more likely present."""
        ...


@runtime_checkable
class VolumeModel(Protocol):
    """A model that embeds every reconstruction of a study by itself, many at once."""

    def embed_volumes(self, cohort: Cohort, volume_ids: Sequence[str]) -> Rows:
        """Embed volumes: (N, D), row i is `volume_ids[i]`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings:
    """Unit embeddings of the studies of one split, or of their volumes, in the cohort's order."""

    study_ids: tuple[str, ...]  # of each row; a study stands once a volume where rows are volumes
    patient_ids: tuple[str, ...]
    image: Rows  # (N, D) unit length
    text: Rows  # (N, D) unit length; NaN rows = study without a report
    report_ids: tuple[int, ...]  # equal number = identical normalised report; -1 = none
    volume_ids: tuple[str, ...] = ()  # of each row; () = rows are whole studies
    order: tuple[int, ...] = ()  # place of each volume within its study, 0 = first

    @property
    def has_report(self) -> NDArray[np.bool_]:
        """(N,) True where the study has a report."""
        return np.asarray(self.report_ids) >= 0


def embed_split(
    model: JudgedModel, cohort: Cohort, split: str, *, volumes: bool = False
) -> Embeddings:
    """Embed every study of a split and its report, once.

    Args:
        model: What is judged.
        cohort: An open cohort.
        split: "dev" or "test".
        volumes: Embed every reconstruction. A model does it by `embed_volumes` (many at once) or
            `embed_volume` (one); one that has neither is embedded by study, and its rows say so.

    Returns:
        The embeddings, unit length.

    Raises:
        ProtocolError: The split is empty, or an embedding is not finite or has length 0.
    """
    studies = cohort.studies(split)
    if not studies:
        raise ProtocolError(
            f"split {split!r} has no studies",
            expected="a split of the cohort",
            fix="name another split, or prepare the cohort with one",
        )
    ids = [study.study_id for study in studies]
    reports = [cohort.report(study_id) for study_id in ids]
    present = [i for i, report in enumerate(reports) if report is not None and words_of(report)]
    rows = [(i, v, k) for i, s in enumerate(studies) for k, v in enumerate(s.volume_ids)]
    images = rows_of_volumes(model, cohort, [name for _, name, _ in rows]) if volumes else None
    if images is None:
        rows = [(i, "", 0) for i in range(len(studies))]
        images = model.embed_studies(cohort, list(ids))
    names = [name or ids[i] for i, name, _ in rows]
    image = unit_rows(images, names, what="image")
    text = np.full((len(ids), image.shape[1]), np.nan, dtype=np.float32)
    if present:
        told = model.embed_reports([r for i in present if (r := reports[i]) is not None])
        text[present] = unit_rows(told, [ids[i] for i in present], what="report")
    numbers = report_numbers(reports)
    by_volume = bool(rows[0][1])
    return Embeddings(
        study_ids=tuple(ids[i] for i, _, _ in rows),
        patient_ids=tuple(studies[i].patient_id for i, _, _ in rows),
        image=image,
        text=text[[i for i, _, _ in rows]],
        report_ids=tuple(numbers[i] for i, _, _ in rows),
        volume_ids=tuple(name for _, name, _ in rows) if by_volume else (),
        order=tuple(place for _, _, place in rows) if by_volume else (),
    )


def rows_of_volumes(model: JudgedModel, cohort: Cohort, volume_ids: list[str]) -> Rows | None:
    """Embed volumes as the model can, of any length; None = it cannot."""
    if isinstance(model, VolumeModel):
        return model.embed_volumes(cohort, volume_ids)
    one = getattr(model, "embed_volume", None)
    if one is None:
        return None
    preparation = getattr(getattr(model, "preparation", None), "name", None)
    return np.stack([np.asarray(one(cohort.volume(v, preparation))) for v in volume_ids])


def unit_rows(rows: NDArray[np.floating], names: Sequence[str], *, what: str) -> Rows:
    """Bring rows to unit length.

    Args:
        rows: (N, D).
        names: N names for the message if a row cannot be used.
        what: What a row is, for the message.

    Returns:
        (N, D) float32.

    Raises:
        ProtocolError: The number of rows is not N, or a row is not finite or has length 0.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(names):
        raise ProtocolError(
            f"{what} embeddings of shape {values.shape} for {len(names)} rows",
            expected=f"({len(names)}, D)",
            fix="give one row for each, in the order asked",
        )
    length = np.linalg.norm(values, axis=1)
    bad = np.flatnonzero(~np.isfinite(length) | (length == 0))
    if len(bad):
        raise ProtocolError(
            f"{len(bad)} of {len(names)} {what} embeddings have no direction, "
            f"the first: {names[bad[0]]}",
            expected="finite rows of length above 0",
            fix="find why the model gives none; it is never replaced by 0",
        )
    unit: Rows = (values / length[:, None]).astype(np.float32)
    return unit


def prototypes(model: JudgedModel, prompts: PromptSet) -> tuple[Rows, Rows]:
    """Give each finding one positive and one negative direction.

    Each prompt embedding is brought to unit length, they are averaged, and the mean is
    brought to unit length again.

    Args:
        model: What is judged.
        prompts: Sentences for F findings.

    Returns:
        Positive (F, D) and negative (F, D), unit length, in the order of `prompts.findings`.

    Raises:
        ProtocolError: An embedding or a mean is not finite or has length 0.
    """
    sides = (prompts.positive, prompts.negative)
    texts = list(dict.fromkeys(t for side in sides for rows in side.values() for t in rows))
    row_of = {text: i for i, text in enumerate(texts)}
    # numbered, not quoted: sentences of a bank come from reports and stay out of messages
    numbers = [f"number {i}" for i in range(len(texts))]
    rows = unit_rows(model.embed_text(texts), numbers, what="prompt").astype(np.float64)
    positive, negative = (
        np.stack([rows[[row_of[t] for t in side[finding]]].mean(axis=0) for finding in side])
        for side in sides
    )
    names = prompts.findings
    return unit_rows(positive, names, what="positive"), unit_rows(negative, names, what="negative")


def cosines(first: Rows, second: Rows, *, decimals: int | None) -> NDArray[np.float64]:
    """Cosines of unit rows, rounded so that float32 noise cannot break ties.

    Args:
        first: (N, D) unit length.
        second: (M, D) unit length.
        decimals: Digits kept; None = all.

    Returns:
        (N, M) between -1 and 1.
    """
    products: NDArray[np.float64] = first.astype(np.float64) @ second.astype(np.float64).T
    return products if decimals is None else np.round(products, decimals)


def words_of(report: Report) -> str:
    """Give the text of a report in lower case with single spaces; "" = no text at all."""
    return " ".join(f"{report.findings}\n{report.impression}".lower().split())


def report_numbers(reports: Sequence[Report | None]) -> tuple[int, ...]:
    """Number distinct normalised reports by first appearance; -1 = none."""
    seen: dict[str, int] = {}
    texts = ["" if report is None else words_of(report) for report in reports]
    return tuple(seen.setdefault(text, len(seen)) if text else -1 for text in texts)
