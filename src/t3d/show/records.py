"""What a demo, a run or an evaluation left on disk; a gap becomes NaN, never a crash.

Layouts and schema: the project's architecture notes, section 5 ("on disk").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t3d.errors import SourceError
from t3d.types import Metric

NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRecord:
    """One trained recipe as `summary.json` tells it."""

    name: str
    ceiling_share: Metric  # of the way from clip to the supervised ceiling
    supervision: str = ""  # "reports", "labels" or "none"
    encoder: str = ""
    steps: float = NAN
    seed: float = NAN
    core_seconds: float = NAN  # s of processor time for the training
    per_step_s: float = NAN
    prompts: tuple[str, ...] = ()
    zero_shot: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)  # set -> name -> M
    retrieval: Mapping[str, Metric] = field(default_factory=dict)
    losses: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # final, chance
    gauges: Mapping[str, float | str] = field(default_factory=dict)

    def score(self, prompt_set: str, name: str) -> Metric:
        """The zero-shot metric `name` under a prompt set; NaN where nothing stands."""
        return self.zero_shot.get(prompt_set, {}).get(name, Metric(name=name, value=NAN))

    def found(self, name: str) -> Metric:
        """The retrieval metric `name`; NaN where nothing stands."""
        return self.retrieval.get(name, Metric(name=name, value=NAN))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecord:
    """The whole of `summary.json`."""

    commit: str
    machine: str
    seconds: Mapping[str, float]  # stage -> s of wall time
    cohort: Mapping[str, str]  # digest and sizes
    recipes: tuple[RecipeRecord, ...]
    supervised: Mapping[str, Metric]
    logistic: Mapping[str, Metric]
    shuffled: Mapping[str, Mapping[str, Metric]]  # prompt set -> name -> M
    differences: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)  # "a - b" -> M
    runs: Mapping[str, RecipeRecord]  # "supervised", "shuffled": how they were trained

    def recipe(self, name: str) -> RecipeRecord | None:
        """The recipe called `name`, if it was trained."""
        return next((r for r in self.recipes if r.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A training run: its recipe as written, and the lines of its log."""

    name: str
    recipe: Mapping[str, Any]
    training: Mapping[str, Any]  # `training.json` of the newest checkpoint; empty without one
    steps: tuple[Mapping[str, Any], ...]  # lines with a loss
    evaluations: tuple[Mapping[str, Any], ...]  # lines with dev scores
    broken_lines: int = 0  # a run killed while writing leaves half a line


def read_demo(root: Path) -> DemoRecord:
    """Read `summary.json` of a demo folder.

    Args:
        root: The folder `t3d bench demo --out` wrote, or its summary kept under another name.

    Returns:
        The record; whatever the file lacks is NaN or empty.

    Raises:
        SourceError: There is no `summary.json`, or it is not a JSON object.
    """
    path = root if root.suffix == ".json" else root / "summary.json"
    raw = _object(path, fix="run `t3d bench demo` first, or name its folder")
    recipes = _mapping(raw.get("recipes"))
    return DemoRecord(
        commit=_text(raw.get("commit")),
        machine=_text(raw.get("machine")),
        seconds={k: _float(v) for k, v in _mapping(raw.get("seconds")).items()},
        cohort={k: _text(v) for k, v in _mapping(raw.get("cohort")).items()},
        recipes=tuple(_recipe(name, _mapping(body)) for name, body in recipes.items()),
        supervised=_metrics(raw.get("supervised")),
        logistic=_metrics(raw.get("logistic")),
        shuffled={k: _metrics(v) for k, v in _mapping(raw.get("shuffled")).items()},
        differences={k: _metrics(v) for k, v in _mapping(raw.get("differences")).items()},
        runs={
            name: _recipe(name, _mapping(raw[f"{name}_run"]))
            for name in ("supervised", "shuffled")
            if f"{name}_run" in raw
        },
    )


def read_run(run: Path) -> RunRecord:
    """Read `recipe.json` and `log.jsonl` of a run; either may be missing.

    Args:
        run: Folder of the run.

    Returns:
        The record. A half-written last line is counted, not fatal.

    Raises:
        SourceError: The folder does not exist, or `recipe.json` is not a JSON object.
    """
    if not run.is_dir():
        raise SourceError(
            f"run {run.name}: no such folder",
            expected="a folder with recipe.json and log.jsonl",
            fix="name the folder that `t3d train --out` wrote",
        )
    path = run / "recipe.json"
    recipe = _object(path, fix="train again") if path.exists() else {}
    steps, evaluations, broken = _read_log(run / "log.jsonl")
    return RunRecord(
        name=run.name,
        recipe=recipe,
        training=_newest_training(run),
        steps=steps,
        evaluations=evaluations,
        broken_lines=broken,
    )


def _recipe(name: str, body: Mapping[str, Any]) -> RecipeRecord:
    """One recipe of the summary."""
    sets = _mapping(body.get("zero_shot"))
    losses = {k: _mapping(v) for k, v in _mapping(body.get("losses")).items()}
    return RecipeRecord(
        name=name,
        supervision=_text(body.get("supervision")),
        encoder=_text(body.get("encoder")),
        steps=_float(body.get("steps")),
        seed=_float(body.get("seed")),
        core_seconds=_float(body.get("core_seconds")),
        per_step_s=_float(body.get("per_step_s")),
        prompts=tuple(str(p) for p in body.get("prompts") or ()),
        zero_shot={k: _metrics(v) for k, v in sets.items()},
        retrieval=_metrics(body.get("retrieval")),
        ceiling_share=_metric("ceiling_share", body.get("ceiling_share")),
        losses={k: (_float(v.get("final")), _float(v.get("chance"))) for k, v in losses.items()},
        gauges={k: _gauge(v) for k, v in _mapping(body.get("gauges")).items()},
    )


def _newest_training(run: Path) -> Mapping[str, Any]:
    """`training.json` of the checkpoint with the most steps: cohort digest, precision, time."""
    files = list((run / "checkpoints").glob("step-*/training.json"))
    known = [(_float(raw.get("step")), raw) for raw in (_object(f, fix="") for f in files)]
    return max(known, key=lambda pair: pair[0], default=(NAN, {}))[1]


def _read_log(
    path: Path,
) -> tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...], int]:
    """Training lines, evaluation lines, and how many lines could not be read."""
    steps: list[Mapping[str, Any]] = []
    evaluations: list[Mapping[str, Any]] = []
    broken = 0
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            broken += 1
            continue
        if isinstance(row, dict) and "dev" in row:
            evaluations.append(row)
        elif isinstance(row, dict) and "loss" in row:
            steps.append(row)
    return tuple(steps), tuple(evaluations), broken


def _json(path: Path, *, fix: str) -> Any:
    """Parse a JSON file; the message names the file, not where it lies."""
    if not path.exists():
        raise SourceError(f"{path.name} is missing from {path.parent.name}", fix=fix)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path.name} of {path.parent.name} is not JSON: {error}", expected="JSON", fix=fix
        ) from error


def _object(path: Path, *, fix: str) -> Mapping[str, Any]:
    """Parse a JSON file that must hold an object."""
    raw = _json(path, fix=fix)
    if not isinstance(raw, dict):
        raise SourceError(
            f"{path.name} of {path.parent.name} holds a {type(raw).__name__}",
            expected="a JSON object",
            fix=fix,
        )
    return raw


def _metrics(raw: Any) -> dict[str, Metric]:
    """A mapping name -> M."""
    return {name: _metric(name, body) for name, body in _mapping(raw).items()}


def _metric(name: str, raw: Any) -> Metric:
    """M of the schema, or a bare number."""
    if not isinstance(raw, Mapping):
        return Metric(name=name, value=_float(raw))
    n = _float(raw.get("n"))
    return Metric(
        name=name,
        value=_float(raw.get("value")),
        low=_float(raw.get("low")),
        high=_float(raw.get("high")),
        n=int(n) if math.isfinite(n) else 0,
        unit=_text(raw.get("unit")),
        chance=_float(raw.get("chance")),
        floor=_float(raw.get("floor")),
        ceiling=_float(raw.get("ceiling")),
    )


def _gauge(raw: Any) -> float | str:
    """A gauge is a number, or words such as "not measurable"."""
    if isinstance(raw, Mapping):
        return _gauge(raw.get("value"))
    return raw if isinstance(raw, str) else _float(raw)


def _mapping(raw: Any) -> Mapping[str, Any]:
    """The mapping, or an empty one where something else or nothing stands."""
    return raw if isinstance(raw, Mapping) else {}


def _float(raw: Any) -> float:
    """The number, or NaN where something else or nothing stands."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return NAN
    return float(raw)


def _text(raw: Any) -> str:
    """Words for a field that may be a string, a number, an object or missing."""
    if raw is None:
        return ""
    if isinstance(raw, Mapping):
        return ", ".join(f"{key} {value}" for key, value in raw.items())
    return str(raw)
