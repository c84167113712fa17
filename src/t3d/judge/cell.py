"""One cell of a training table: a recipe trained on a cohort and judged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from t3d.cohort.store import Cohort
from t3d.judge import gauges
from t3d.judge.dev import dev_score
from t3d.judge.embeddings import embed_split
from t3d.judge.outcome import Outcome
from t3d.judge.prompts import PromptSet, bank, templates, training_sentences
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.results import summary_retrieval, summary_scores, write_results
from t3d.judge.tasks import retrieval, supervised, zero_shot
from t3d.learn import checkpoint
from t3d.learn.recipe import Recipe
from t3d.learn.train import Plan, Report, train
from t3d.learn.trained import Trained
from t3d.text.labeler import label_sentence

FINAL_SHARE = 0.1  # of a stage's logged steps that its final loss is the mean of
MACRO = "auroc:macro"
RETRIEVAL = "retrieval"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """What a cell gives back to the table."""

    name: str
    supervision: str
    summary: Mapping[str, Any]  # its entry in summary.json, but for the ceiling share
    outcomes: Mapping[str, Outcome]  # by prompt set; "labels" where labels were seen; "retrieval"
    seconds: Mapping[str, float]  # wall time of this call
    resumed: bool = False  # its training had begun in an earlier call

    @property
    def macro(self) -> dict[str, float]:
        """Macro AUROC by prompt set."""
        return {
            name: outcome.metric(MACRO).value
            for name, outcome in self.outcomes.items()
            if name != RETRIEVAL
        }


def prompt_sets(cohort: Cohort) -> tuple[PromptSet, ...]:
    """Make the two prompt sets: class names in sentences, and sentences of training reports."""
    return templates(), bank(training_sentences(cohort), label_sentence)


def run_cell(
    recipe: Recipe,
    cohort: Cohort,
    out: Path,
    *,
    prompts: tuple[PromptSet, ...],
    progress: Callable[[Report], None] | None = None,
) -> CellResult:
    """Train a recipe and judge its best checkpoint on the test split.

    Args:
        recipe: What is trained; its run goes to OUT/runs/NAME.
        cohort: With train, dev and test.
        out: The table's folder; results go to OUT/results/NAME.
        prompts: Prompt sets of the zero-shot task.
        progress: Called during training.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    run = out / "runs" / recipe.name
    resumed = bool(checkpoint.list_steps(run))
    score = dev_score(recipe, cohort)
    train(recipe, cohort, run, dev=score, plan=Plan(), progress=progress)
    trained_at = time.perf_counter()
    trained = Trained.load(run)
    if recipe.supervision == "labels":
        outcomes = {"labels": _supervised(trained, cohort, recipe.name)}
    else:
        outcomes = _zero_shot(trained, cohort, prompts)
    write_results(out / "results" / recipe.name, list(outcomes.values()))
    return CellResult(
        name=recipe.name,
        supervision=recipe.supervision,
        summary=_summary(recipe, run, trained, cohort, outcomes),
        outcomes=outcomes,
        seconds={"train": trained_at - start, "judge": time.perf_counter() - trained_at},
        resumed=resumed,
    )


def _supervised(trained: Trained, cohort: Cohort, name: str) -> Outcome:
    scores = [
        trained.score_studies(cohort, [row.study_id for row in cohort.studies(split)])
        for split in ("dev", "test")
    ]
    findings = trained.findings
    pair = (scores[0], scores[1])
    return supervised.measure(cohort, PLAIN, findings=findings, scores=pair, name=name)


def _zero_shot(
    trained: Trained, cohort: Cohort, prompts: tuple[PromptSet, ...]
) -> dict[str, Outcome]:
    both = (embed_split(trained, cohort, "dev"), embed_split(trained, cohort, "test"))
    outcomes = {
        prompt.name: zero_shot.measure(trained, cohort, PLAIN, prompt, embedded=both)
        for prompt in prompts
    }
    return outcomes | {RETRIEVAL: retrieval.measure(cohort, PLAIN, embedded=both[1])}


def _summary(
    recipe: Recipe, run: Path, trained: Trained, cohort: Cohort, outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    core = max((line["core_seconds"] for line in log if "core_seconds" in line), default=math.nan)
    scored = {k: summary_scores(v.result) for k, v in outcomes.items() if k != RETRIEVAL}
    found = outcomes.get(RETRIEVAL)
    return {
        "supervision": recipe.supervision,
        "encoder": recipe.image.kind,
        "steps": recipe.num_steps,
        "seed": recipe.seed,
        "core_seconds": core,
        "per_step_s": core / recipe.num_steps,
        "prompts": sorted(scored),
        "zero_shot": scored,
        "retrieval": summary_retrieval(found.result) if found else {},
        "losses": dict(_losses(recipe, trained, cohort, log)),
        "gauges": gauges.read_gauges(trained, cohort),
    }


def _losses(
    recipe: Recipe, trained: Trained, cohort: Cohort, log: list[dict[str, Any]]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Give each term's final loss beside what a model that knows nothing would have."""
    for number, stage in enumerate(recipe.stages):
        lines = [line for line in log if "loss" in line and line["stage"] == number]
        last = lines[-max(1, round(FINAL_SHARE * len(lines))) :]
        for term in stage.terms:
            kind = term.objective.kind
            values = [line["terms"][kind] for line in last if kind in line["terms"]]
            if values:
                chance = gauges.chance_loss(term.objective, trained, cohort, stage.batch_size)
                yield kind, {"final": float(np.mean(values)), "chance": chance}
