"""`t3d evaluate`: every task that fits a model, on frozen features, into one folder."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import t3d
from t3d.cohort.people import people
from t3d.cohort.store import Cohort
from t3d.errors import CheckpointError, ProtocolError
from t3d.judge.comparison import compared
from t3d.judge.curve import METRICS, specification_curve
from t3d.judge.examples import EXAMPLES_FILE, found_by_reports
from t3d.judge.external import ENDINGS, Foreign, read_scores
from t3d.judge.facts import label_facts
from t3d.judge.frozen import Frozen, Still
from t3d.judge.outcome import Outcome
from t3d.judge.prompts import PromptSet, bank, prompt_set, read_prompts, training_sentences
from t3d.judge.protocol import Protocol
from t3d.judge.protocols import PROTOCOLS, protocol_named
from t3d.judge.results import summary_value, write_results
from t3d.judge.steps import STEPS, Bench, skipped
from t3d.judge.strata import BY
from t3d.learn import checkpoint, codec
from t3d.learn.trained import Trained
from t3d.text.labeler import label_sentence
from t3d.types import Result

log = logging.getLogger(__name__)

PROMPTS = ("template", "bank")
ALL = "all"
TIMES_FILE = "seconds.json"
CURVE_FILE = "curve.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of an evaluation."""

    protocols: tuple[str, ...] = ("plain",)  # "all" = every one that reproduces no fault
    tasks: tuple[str, ...] = ()  # of `steps.STEPS`; () = all that the protocols have rules for
    prompts: tuple[str, ...] = ()  # names or files; () = each protocol's own, or `PROMPTS`
    by: tuple[str, ...] = ()  # facts to split classifications by, of `strata.BY`
    nulls: bool = True
    allow_missing: bool = False
    compare: Path | None = None  # folder of another evaluation

    def rules(self) -> list[Protocol]:
        """Protocols by name.

        Raises:
            ProtocolError: One is unknown.
        """
        names = list(self.protocols)
        if ALL in names:
            names = [p.name for p in PROTOCOLS if not p.on_request]
        return [protocol_named(name) for name in dict.fromkeys(names)]

    def check(self) -> None:
        """Refuse unknown names before anything is computed.

        Raises:
            ProtocolError: A protocol, task or fact is unknown.
        """
        self.rules()
        for what, names, known in (("task", self.tasks, STEPS), ("fact", self.by, BY)):
            for name in names:
                if name not in known:
                    raise ProtocolError(f"{what} {name!r} is unknown", expected=", ".join(known))


def evaluate(
    judged: Any, cohort: Cohort, out: Path, plan: Plan | None = None
) -> tuple[Result, ...]:
    """Judge a checkpoint, somebody else's model or a file of scores on the test split.

    Features are encoded once and kept in the cohort's cache. A task that cannot run gives a
    result without metrics whose `excluded` names the reason; the others go on.

    Args:
        judged: A run, RUN/checkpoints/step-N, or FILE.py:MODEL (an object or a function that
            gives one) with `embed_studies`, `embed_text` and `embed_reports`; a CSV or NPZ; or such
            a model, or what `external.read_scores` made of a file.
        cohort: With dev and test, and train where features are probed.
        out: Folder for result.json, per_study.csv, prompts-NAME.json, reliability.json,
            localization.json, examples.json and seconds.json.
        plan: What is asked; None = all tasks under protocol plain.

    Returns:
        The results, in the order of protocols and tasks.

    Raises:
        ProtocolError: A test patient was in the training, a name is unknown, or nothing could be
            measured.
        CheckpointError: There is no model there.
        StoreError: The cohort does not hold the model's preparation.
    """
    plan = plan or Plan()
    plan.check()
    cohort = cast(Cohort, Still(cohort))
    out.mkdir(parents=True, exist_ok=True)
    model, told = opened(judged, cohort)
    told |= {"version": t3d.__version__, **label_facts(cohort, "test")}
    sets, lacking = _prompt_sets(plan.prompts or PROMPTS, cohort, model)
    bench = Bench(
        judged=model,
        cohort=cohort,
        out=out,
        prompts=sets,
        own_prompts=bool(plan.prompts),
        nulls=plan.nulls,
        by=plan.by,
        allow_missing=plan.allow_missing,
    )
    times: dict[str, float] = {}
    outcomes = [one for rules in plan.rules() for one in _judged(bench, rules, plan, times)]
    if plan.compare is not None:
        outcomes += compared(outcomes, plan.compare)
    told |= lacking
    outcomes = [_with(outcome, told) for outcome in outcomes]
    if not any(outcome.result.metrics for outcome in outcomes):
        why = {reason for o in outcomes for reason in o.result.excluded}
        raise ProtocolError(
            "nothing could be measured: " + "; ".join(sorted(why)),
            expected="a model, or a file, that serves one of the tasks",
            fix="see docs/howto/evaluate.md",
        )
    _write_beside(bench, sets, times)
    return write_results(out, outcomes)


def _judged(
    bench: Bench, protocol: Protocol, plan: Plan, times: dict[str, float]
) -> Iterator[Outcome]:
    """Everything under one protocol; what could not run says why."""
    chosen = plan.tasks or tuple(STEPS)
    for name in chosen:
        part, step = STEPS[name]
        if getattr(protocol, part) is None or (not plan.tasks and not _fits(name, bench)):
            continue
        start = time.process_time()
        try:
            yield from step(bench, protocol)
        except (ProtocolError, CheckpointError) as error:
            log.warning("%s under %s did not run: %s", name, protocol.name, error.found)
            yield skipped(name, protocol, error.found, {"protocol": protocol.digest()})
        times[f"{name} {protocol.name}"] = time.process_time() - start
        if isinstance(bench.judged, Frozen):
            bench.judged.save()


def _fits(name: str, bench: Bench) -> bool:
    """Whether a task belongs to this kind of model at all: only one way to score is asked for."""
    scored = hasattr(bench.judged, "score_studies")
    if isinstance(bench.judged, Foreign):
        test = bench.judged.tables.get(bench.splits[2])
        scored = test is not None and test.positive is None
    return name != ("zero_shot" if scored else "supervised")


def opened(judged: Any, cohort: Cohort) -> tuple[Frozen | Foreign, dict[str, str]]:
    """Open what is judged.

    Args:
        judged: As for `evaluate`.
        cohort: That it is judged on.

    Returns:
        It, and where it comes from, for the provenance of results.

    Raises:
        ProtocolError: A test patient was in the training, or a file cannot be read.
        CheckpointError: There is no model there.
    """
    if isinstance(judged, str) and Path(judged).suffix in ENDINGS:
        judged = read_scores(Path(judged), cohort)
    if isinstance(judged, Foreign):
        return judged, {"scores": judged.name, "scores_sha256": judged.digest}
    if not isinstance(judged, str):
        return Frozen(judged, cohort), {}
    model = load_model(judged, cohort)
    if not isinstance(model, Trained):
        file = Path(judged.rpartition(".py:")[0] + ".py")
        return Frozen(model, cohort), {"model_file_sha256": _sha256(file)}
    assert model.folder is not None
    digest = _sha256(model.folder / checkpoint.HASHES)
    recipe = {"recipe": model.recipe.name, "recipe_digest": model.recipe.digest}
    told = {"checkpoint": digest, "step": model.folder.name, **recipe}
    return Frozen(model, cohort, digest=digest), told


def _sha256(path: Path) -> str:
    """Digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _prompt_sets(
    names: Sequence[str], cohort: Cohort, model: Frozen | Foreign
) -> tuple[list[PromptSet], dict[str, str]]:
    """Prompt sets by name or file, and why one of ours could not be made."""
    if isinstance(model, Foreign) or not hasattr(model, "embed_text"):
        return [], {}
    sets, lacking = [], {}
    for name in names:
        if Path(name).suffix in (".toml", ".json"):
            sets.append(read_prompts(Path(name)))
        elif name != "bank":
            sets.append(prompt_set(name))
        elif sentences := training_sentences(cohort):
            sets.append(bank(sentences, label_sentence))
        else:
            lacking["no prompts bank"] = "the cohort has no training reports"
    return sets, lacking


def _with(outcome: Outcome, told: Mapping[str, str]) -> Outcome:
    """The outcome with more provenance."""
    result = outcome.result
    return replace(outcome, result=replace(result, provenance={**result.provenance, **told}))


def _write_beside(bench: Bench, sets: Sequence[PromptSet], times: Mapping[str, float]) -> None:
    """Write what the page needs beside results: prompts, examples of retrieval, seconds."""
    for one in sets:
        _write(bench.out / f"prompts-{one.name}.json", one.to_json())
    examples = found_by_reports(bench)
    if examples:
        _write(bench.out / EXAMPLES_FILE, examples)
    _write(bench.out / TIMES_FILE, {name: round(value, 2) for name, value in times.items()})


def _write(path: Path, told: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def curve_of(
    files: Sequence[Path], cohort: Cohort, out: Path, protocols: Sequence[Protocol]
) -> Path:
    """Write OUT/curve.json: score files of several models under several protocols.

    Args:
        files: CSV or NPZ with scores.
        cohort: That they speak of.
        out: Folder.
        protocols: Rules.

    Returns:
        The file.

    Raises:
        ProtocolError: A file cannot be read, or has no scores of the evaluated split.
    """
    models = {}
    for file in files:
        read = read_scores(file, cohort)
        if "test" not in read.tables:
            raise ProtocolError(f"file {read.name!r} has no scores of split 'test'")
        models[read.name] = (read.tables.get("dev"), read.tables["test"])
    curve = specification_curve(
        cohort, models, protocols=[p for p in protocols if p.classification]
    )
    told = {
        "points": {
            metric: [
                {"protocol": protocol, "model": model, **summary_value(value)}
                for protocol, model, value in curve.points(metric)
            ]
            for metric in METRICS
        },
        "reversals": [
            {
                "metric": one.metric,
                "protocols": one.protocols,
                "models": one.models,
                "differences": [summary_value(gap) for gap in one.differences],
                "certain": one.certain,
            }
            for one in curve.reversals
        ],
        "refused": {one.protocol: dict(one.refused) for one in curve.specifications if one.refused},
    }
    _write(out / CURVE_FILE, told)
    return out / CURVE_FILE


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
    judged = {names for split in ("dev", "test") for names in people(cohort, split).values()}
    seen = checkpoint.seen_people(trained.folder, {name for names in judged for name in names})
    trained_on = {names for names in judged if not seen.isdisjoint(names)}
    if trained_on:
        raise ProtocolError(
            f"{len(trained_on)} of {len(judged)} dev and test patients were in the training",
            expected="none, in whatever cohort they were",
            fix="evaluate on patients the checkpoint has not seen",
        )
    return trained
