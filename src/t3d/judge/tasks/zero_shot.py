"""Zero-shot classification: which of two sentences lies closer to the image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t3d.errors import ProtocolError
from t3d.judge.embeddings import (
    Embeddings,
    JudgedModel,
    Rows,
    cosines,
    embed_split,
    prototypes,
)
from t3d.judge.outcome import Outcome
from t3d.judge.prompts import PromptSet, prompt_set
from t3d.judge.results import finish
from t3d.judge.units import ScoreTable, asked_of, judge_scores

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort
    from t3d.judge.protocol import Protocol
    from t3d.types import Result


def run(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    *,
    prompts: PromptSet | None = None,
    dev: str = "dev",
    test: str = "test",
    out: Path | None = None,
) -> Result:
    """Judge a model by prompts.

    Args:
        model: Embeds studies and sentences.
        cohort: With labels, and items where sizes are known.
        protocol: Rules.
        prompts: Sentences for each finding; None = those of the protocol.
        dev: Split that thresholds come from, where the protocol says so.
        test: Split that is scored.
        out: Folder for `result.json` and `per_study.csv`; None = nothing is written.

    Returns:
        The result, metrics as `classification.classify` names them.

    Raises:
        ProtocolError: A split is empty, splits share patients, no finding has both classes,
            an embedding cannot be used, or the protocol asks with other prompts.
    """
    rules = protocol.classes
    volumes = rules.unit != "study:first"
    needed = rules.fitted_on == "dev"
    first = embed_split(model, cohort, dev, volumes=volumes) if needed else None
    embedded = (first, embed_split(model, cohort, test, volumes=volumes))
    outcome = measure(model, cohort, protocol, prompts, embedded=embedded, splits=(dev, test))
    return finish(outcome, out)


def measure(
    model: JudgedModel,
    cohort: Cohort,
    protocol: Protocol,
    prompts: PromptSet | None = None,
    *,
    embedded: tuple[Embeddings | None, Embeddings],
    splits: tuple[str, str] = ("dev", "test"),
) -> Outcome:
    """Judge embeddings that were made before, so that several prompt sets share them.

    Args:
        model: Embeds the prompts.
        cohort: With labels.
        protocol: Rules.
        prompts: Sentences for each finding; None = those of the protocol.
        embedded: Of the two splits, from `embed_split`; None where dev is not needed.
        splits: Names of dev and test.

    Returns:
        The outcome; score columns are named `score:<prompt set>:<finding>`.

    Raises:
        ProtocolError: As `run`.
    """
    told = prompts_of(protocol, prompts)
    asked = told.only(asked_of(protocol.classes, told.findings))
    sides = prototypes(model, asked)
    scale = getattr(model, "logit_scale", None)
    dev, test = (
        None if rows is None else table_of(rows, asked.findings, sides, logit_scale=scale)
        for rows in embedded
    )
    if test is None:
        raise AssertionError("the evaluated split was not embedded")
    return judge_scores(
        cohort,
        protocol,
        tables=(dev, test),
        task="zero_shot",
        column=told.name,
        splits=splits,
        facts={"prompts": told.name, "prompts_digest": told.digest()},
    )


def prompts_of(protocol: Protocol, prompts: PromptSet | None) -> PromptSet:
    """Find the sentences a protocol asks with.

    Args:
        protocol: Rules.
        prompts: What the caller wants to ask with; None = what the protocol names.

    Returns:
        The prompt set.

    Raises:
        ProtocolError: The protocol names another set than the caller, or none at all.
    """
    named = protocol.classes.prompts
    if prompts is None:
        if not named:
            raise ProtocolError(
                f"protocol {protocol.name!r} leaves the prompts open",
                expected="a prompt set",
                fix="give one: template, bank, or a file of your own",
            )
        return prompt_set(named)
    if named and prompts.name != named:
        raise ProtocolError(
            f"protocol {protocol.name!r} asks with prompts {named!r}, not {prompts.name!r}",
            expected="its own prompts",
            fix="leave the prompts out, or say so in the name: "
            f"protocol.variant('{prompts.name}', classification__prompts='{prompts.name}')",
        )
    return prompts


def table_of(
    rows: Embeddings,
    findings: tuple[str, ...],
    sides: tuple[Rows, Rows],
    *,
    logit_scale: float | None = None,
) -> ScoreTable:
    """Keep the raw cosines of every row with both sides of every finding.

    One product a side, whatever the number of prompts behind it; the table is then judged under
    any protocol that asks with these prompts.
    Check: image (1, 0), positive (.6, .8), negative (0, 1) -> .6 and 0.

    Args:
        rows: N studies or volumes.
        findings: F names.
        sides: Positive and negative directions, each (F, D) unit length, from `prototypes`.
        logit_scale: The model's own factor on cosines; None = not known.

    Returns:
        The table.
    """
    near, far = (cosines(rows.image, side, decimals=None) for side in sides)
    whole = not rows.volume_ids
    return ScoreTable(
        findings=findings,
        volume_ids=rows.study_ids if whole else rows.volume_ids,
        study_ids=rows.study_ids,
        order=(0,) * len(rows.study_ids) if whole else rows.order,
        positive=near,
        negative=far,
        logit_scale=None if logit_scale is None else float(logit_scale),
        patient_ids=rows.patient_ids,
        whole_studies=whole,
    )
