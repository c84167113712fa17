"""`t3d evaluate`: every task that fits a model, under protocol plain, into one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t3d.cohort.store import Cohort
from t3d.errors import CheckpointError, ProtocolError
from t3d.judge.cell import prompt_sets
from t3d.judge.embeddings import embed_split
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.results import write_results
from t3d.judge.tasks import retrieval, supervised, zero_shot
from t3d.learn import checkpoint, codec
from t3d.learn.trained import Trained
from t3d.types import Result


def evaluate(
    where: str, cohort: Cohort, out: Path, *, prompts: Sequence[str] = ("template", "bank")
) -> tuple[Result, ...]:
    """Judge a checkpoint, or somebody else's model, on the test split.

    Args:
        where: A run, RUN/checkpoints/step-N, or FILE.py:MODEL (an object or a function that
            gives one) with `embed_studies`, `embed_text` and `embed_reports`.
        cohort: With dev and test.
        out: Folder for result.json, per_study.csv and the prompt sets that were used.
        prompts: Names of prompt sets.

    Raises:
        ProtocolError: A test patient was in the training, or a prompt set is unknown.
        CheckpointError: There is no model there.
    """
    model = load_model(where, cohort)
    if isinstance(model, Trained) and model.recipe.supervision == "labels":
        return (supervised.run(model, cohort, PLAIN, name=model.recipe.name, out=out),)
    known = {made.name: made for made in prompt_sets(cohort)}
    unknown = [name for name in prompts if name not in known]
    if unknown:
        raise ProtocolError(f"prompt set '{unknown[0]}' is unknown", expected=", ".join(known))
    both = (embed_split(model, cohort, "dev"), embed_split(model, cohort, "test"))
    outcomes = [
        zero_shot.measure(model, cohort, PLAIN, known[name], embedded=both) for name in prompts
    ]
    outcomes.append(retrieval.measure(cohort, PLAIN, embedded=both[1]))
    results = write_results(out, outcomes)
    for name in prompts:
        text = json.dumps(known[name].to_json(), indent=1)
        (out / f"prompts-{name}.json").write_text(text + "\n", encoding="utf-8")
    return results


def load_model(where: str, cohort: Cohort) -> Any:
    """Load what is judged; a checkpoint must not have seen a dev or test patient."""
    if ".py:" in where:
        found = codec.load_attribute(where)
        model = found() if callable(found) and not hasattr(found, "embed_text") else found
        if model is None:
            raise CheckpointError(f"{where}: no such file or name", expected="FILE.py:MODEL")
        return model
    trained = Trained.load(where)
    assert trained.folder is not None
    patients = {row.patient_id for split in ("dev", "test") for row in cohort.studies(split)}
    seen = checkpoint.seen_patients(trained.folder, patients)
    if seen:
        raise ProtocolError(
            f"{len(seen)} of {len(patients)} dev and test patients were in the training",
            expected="none",
            fix="evaluate on patients the checkpoint has not seen",
        )
    return trained
