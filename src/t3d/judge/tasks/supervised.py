"""Scores of a model that was told the findings, and scores made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from t3d.judge.embeddings import ScoringModel
from t3d.judge.outcome import Outcome
from t3d.judge.results import finish
from t3d.judge.units import ScoreTable, judge_scores

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol
    from t3d.types import Result


def run(
    model: ScoringModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    name: str = "supervised",
    dev: str = "dev",
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Judge a model that gives one score a study and finding.

    Args:
        model: Scores studies.
        cohort: With labels, and items where sizes are known.
        protocol: Rules.
        name: Names the score columns.
        dev: Split that thresholds come from, where the protocol says so.
        test: Split that is scored.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result, in the form of the zero-shot task.

    Raises:
        ProtocolError: A split is empty, splits share patients, no finding has both classes,
            or a score is not finite.
    """
    scores = [
        np.asarray(model.score_studies(cohort, [s.study_id for s in cohort.studies(split)]))
        for split in (dev, test)
    ]
    outcome = measure(
        cohort,
        protocol,
        findings=tuple(model.findings),
        scores=(scores[0], scores[1]),
        name=name,
        splits=(dev, test),
    )
    return finish(outcome, out)


def measure(
    cohort: Cohort,
    protocol: Protocol,
    *,
    findings: tuple[str, ...],
    scores: tuple[NDArray[np.floating], NDArray[np.floating]],
    name: str,
    splits: tuple[str, str] = ("dev", "test"),
) -> Outcome:
    """Judge scores of studies that were made before.

    Args:
        cohort: With labels.
        protocol: Rules.
        findings: F columns of the scores.
        scores: (N, F) of dev and of test, rows as `cohort.studies(split)`.
        name: Names the score columns: `score:<name>:<finding>`.
        splits: Names of dev and test.

    Returns:
        The outcome.

    Raises:
        ProtocolError: As `run`.
    """
    dev, test = (
        _of_studies(cohort, split, findings, rows.astype(np.float64))
        for split, rows in zip(splits, scores, strict=True)
    )
    return judge_scores(
        cohort,
        protocol,
        tables=(dev, test),
        task="supervised",
        column=name,
        splits=splits,
        facts={"scores": name},
    )


def _of_studies(
    cohort: Cohort, split: str, findings: tuple[str, ...], scores: NDArray[np.float64]
) -> ScoreTable:
    """Scores of whole studies, in the cohort's order."""
    ids = tuple(study.study_id for study in cohort.studies(split))
    return ScoreTable(
        findings=findings,
        volume_ids=ids,
        study_ids=ids,
        order=(0,) * len(ids),
        scores=scores,
        whole_studies=True,
    )
