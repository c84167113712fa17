"""Zero-shot classification: which of two sentences lies closer to the image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t3d.judge.classification import Scored, classify
from t3d.judge.embeddings import Embeddings, JudgedModel, cosines, embed_split, prototypes
from t3d.judge.outcome import Outcome, provenance
from t3d.judge.prompts import PromptSet
from t3d.judge.results import finish
from t3d.judge.truth import truth_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol
    from t3d.types import Result


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    prompts: PromptSet,
    dev: str = "dev",
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Judge a model by prompts.

    Args:
        model: Embeds studies and sentences.
        cohort: With labels, and items where sizes are known.
        protocol: Rules.
        prompts: Sentences for each finding.
        dev: Split that thresholds come from.
        test: Split that is scored.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result, metrics as `classification.classify` names them.

    Raises:
        ProtocolError: A split is empty, splits share patients, no finding has both classes,
            or an embedding cannot be used.
    """
    both = (embed_split(model, cohort, dev), embed_split(model, cohort, test))
    outcome = measure(model, cohort, protocol, prompts, embedded=both, splits=(dev, test))
    return finish(outcome, out)


def measure(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    prompts: PromptSet,
    *,
    embedded: tuple[Embeddings, Embeddings],
    splits: tuple[str, str] = ("dev", "test"),
) -> Outcome:
    """Judge embeddings that were made before, so that several prompt sets share them.

    Args:
        model: Embeds the prompts.
        cohort: With labels.
        protocol: Rules.
        prompts: Sentences for each finding.
        embedded: Of the two splits, from `embed_split`.
        splits: Names of dev and test.

    Returns:
        The outcome; score columns are named `score:<prompt set>:<finding>`.

    Raises:
        ProtocolError: As `run`.
    """
    sides = prototypes(model, prompts)
    dev, test = (
        Scored(
            truth=truth_of(cohort, split, prompts.findings),
            scores=prompt_scores(rows, *sides, decimals=protocol.score_decimals),
        )
        for split, rows in zip(splits, embedded, strict=True)
    )
    return classify(
        dev,
        test,
        protocol,
        task="zero_shot",
        column=prompts.name,
        provenance=provenance(
            cohort,
            protocol,
            prompts=prompts.name,
            prompts_digest=prompts.digest(),
            dev=splits[0],
            test=splits[1],
        ),
    )


def prompt_scores(
    rows: Embeddings,
    positive: NDArray[np.float32],
    negative: NDArray[np.float32],
    *,
    decimals: int,
) -> NDArray[np.float64]:
    """Score studies: cosine with the positive direction minus cosine with the negative one.

    Check: image (1, 0), positive (.6, .8), negative (0, 1) -> .6.

    Args:
        rows: N studies.
        positive: (F, D) unit length.
        negative: (F, D) unit length.
        decimals: Digits kept of each cosine.

    Returns:
        (N, F) between -2 and 2.
    """
    near = cosines(rows.image, positive, decimals=decimals)
    far = cosines(rows.image, negative, decimals=decimals)
    return (near - far).round(decimals)
