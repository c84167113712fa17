"""Self-contained HTML pages: the demo and one training run (`evaluation.py`: one evaluation).

Everything is read from files, so a page can be drawn again without training. A page carries its
pictures within itself, loads nothing and runs no script; a missing number is written as such.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import jinja2

import t3d
from t3d.cohort.store import Cohort
from t3d.errors import SourceError, StoreError
from t3d.show import cases, tables
from t3d.show.charts import Curve, Dot, DotChart, LineChart, dot_chart, line_chart
from t3d.show.gates import demo_gates, meter_gates
from t3d.show.headline import best_recipe, headline
from t3d.show.records import DemoRecord, RunRecord, read_demo, read_run
from t3d.show.redraw import phantom_redraw
from t3d.show.wording import seconds
from t3d.types import Metric

if TYPE_CHECKING:
    from t3d.show.records import RecipeRecord

log = logging.getLogger(__name__)

MAX_BYTES = 6_000_000  # a page that can be mailed
PALETTE = 8  # colours the style sheet has


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as the templates draw it."""

    name: str
    charts: tuple[LineChart, ...]
    recipe: str  # JSON, indented
    broken: int


def demo_page(root: Path, out: Path) -> Path:
    """Draw the report of a demo folder.

    Args:
        root: Folder with `summary.json` and, where they exist, `runs/`, `results/`, `cohort/`.
        out: File to write, or a folder that gets `report.html`.

    Returns:
        The file written.

    Raises:
        SourceError: `summary.json` is missing or unreadable. Anything else that is missing is
            named on the page instead.
    """
    demo = read_demo(root)
    runs = _runs(root, demo)
    verdicts = demo_gates(demo)
    meters = [v for recipe in demo.recipes for v in meter_gates(recipe)]
    best = best_recipe(demo)
    shown, missing = _cases(root, best)
    page = fill_template(
        "demo.html.jinja",
        title="t3d demo report",
        headline=headline(demo, [*verdicts, *meters]),
        dot_charts=_dot_charts(demo),
        scores=tables.score_table(demo),
        recalls=tables.recall_table(demo),
        findings_bank=tables.finding_table(demo, "bank"),
        findings_template=tables.finding_table(demo, "template"),
        gates=tables.gate_table(verdicts, "Bounds set before the numbers were known"),
        meters=tables.gate_table(meters, "Meters of text-informed alignment, on held-out patients"),
        losses=tables.loss_table([*demo.recipes, *demo.runs.values()]),
        overlay=_overlay(runs),
        runs=[_run_view(run, demo.recipe(run.name)) for run in runs],
        cases=shown,
        case_of=f"Recipe {best.name}, bank prompts" if best else "",
        case_rule=cases.RULE,
        case_missing=missing,
        provenance=tables.fact_table("Where this comes from", _provenance(demo)),
        stage_seconds=tables.seconds_table(demo.seconds),
    )
    return write_page(page, out)


def run_page(run: Path, out: Path) -> Path:
    """Draw the report of one training run.

    Args:
        run: Folder with `recipe.json` and `log.jsonl`; either may be missing.
        out: File to write, or a folder that gets `report.html`.

    Returns:
        The file written.

    Raises:
        SourceError: The folder does not exist or `recipe.json` is not JSON.
    """
    record = read_run(run)
    page = fill_template(
        "run.html.jinja",
        title=f"t3d run {record.name}",
        run=_run_view(record, None),
        facts=tables.fact_table("This run", _run_facts(record)),
    )
    return write_page(page, out)


def fill_template(template: str, **values: Any) -> str:
    """Fill a template of `show/templates`; every value is escaped, a missing one is an error.

    Args:
        template: Its file name.
        values: What it names; `version` is added.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("t3d.show", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=t3d.__version__, **values)


def write_page(page: str, out: Path) -> Path:
    """Write a page; a folder gets `report.html`. A very large page is logged.

    Returns:
        The file written.
    """
    path = out if out.suffix == ".html" else out / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    if path.stat().st_size > MAX_BYTES:
        log.warning("%s has %d bytes, more than %d", path.name, path.stat().st_size, MAX_BYTES)
    return path


def _dot_charts(demo: DemoRecord) -> list[DotChart]:
    """Scores of the recipes side by side, chance and ceiling as lines."""
    charts = []
    span = _auroc_span(demo)
    for prompt_set in tables.PROMPT_SETS:
        for size in tables.SIZES:
            metrics = [(r.name, r.score(prompt_set, size)) for r in demo.recipes]
            ceiling = demo.supervised.get(size, Metric(name=size, value=float("nan")))
            charts.append(
                dot_chart(
                    f"{prompt_set} prompts, {size}: AUROC",
                    _dots(metrics),
                    span=span,
                    guides=[("chance", 0.5), ("supervised", ceiling.value)],
                )
            )
    for name in ("t2i_r@10", "i2t_r@10"):
        metrics = [(r.name, r.found(name)) for r in demo.recipes]
        chance = [m.chance for _, m in metrics if m.chance == m.chance]
        charts.append(
            dot_chart(
                tables.RECALL_WORDS[name],
                _dots(metrics),
                span=(0.0, 1.0),
                guides=[("chance", max(chance))] if chance else [],
            )
        )
    return charts


def _auroc_span(demo: DemoRecord) -> tuple[float, float]:
    """One track for all AUROC charts, so that they can be compared."""
    scores = [r.score(p, s) for r in demo.recipes for p in tables.PROMPT_SETS for s in tables.SIZES]
    scores += [*demo.supervised.values()]
    ends = [end for m in scores for end in (m.low, m.value, m.high) if math.isfinite(end)]
    return max(0.0, min([0.46, *ends]) - 0.02), min(1.0, max([0.7, *ends]) + 0.02)


def _dots(metrics: Sequence[tuple[str, Metric]]) -> list[Dot]:
    """Metrics as dots, each recipe in its own colour."""
    return [
        Dot(name=name, value=m.value, low=m.low, high=m.high, colour=k % PALETTE)
        for k, (name, m) in enumerate(metrics)
    ]


def _runs(root: Path, demo: DemoRecord) -> list[RunRecord]:
    """The runs that lie beside the summary, in its order."""
    folders = [root / "runs" / recipe.name for recipe in demo.recipes]
    runs = []
    for folder in folders:
        if folder.is_dir():
            try:
                runs.append(read_run(folder))
            except SourceError as error:
                log.warning("left out: %s", error)
    return runs


def _run_view(run: RunRecord, recipe: RecipeRecord | None) -> RunView:
    """Curves of one run; a term's chance comes from the summary, else from the log's gauges."""
    starts = [
        float(b["step"])
        for a, b in zip(run.steps, run.steps[1:], strict=False)
        if a.get("stage") != b.get("stage") and _is_number(b.get("step"))
    ]
    told = {k: v[1] for k, v in recipe.losses.items()} if recipe else {}
    gauges = _names(run.steps, "gauges")
    charts = [line_chart("loss", [_curve(run.steps, "loss")], stage_starts=starts)]
    for name in _names(run.steps, "terms"):
        logged = _curve(run.steps, "gauges", f"{name}.chance").values
        chance = told.get(name, logged[-1] if logged else math.nan)
        charts.append(
            line_chart(
                f"term {name}",
                [_curve(run.steps, "terms", name)],
                guides=[("chance", chance)],
                stage_starts=starts,
            )
        )
    for name in _names(run.evaluations, "dev"):
        charts.append(line_chart(f"dev {name}", [_curve(run.evaluations, "dev", name)]))
    others = [("gauges", n, f"gauge {n}") for n in gauges if not n.endswith(".chance")]
    for key, name, title in (
        *others,
        ("lr", "", "learning rate"),
        ("rate", "", "studies a second"),
    ):
        charts.append(line_chart(title, [_curve(run.steps, key, name)], stage_starts=starts))
    return RunView(
        name=run.name,
        charts=tuple(c for c in charts if c is not None),
        recipe=json.dumps(run.recipe, indent=1, ensure_ascii=False) if run.recipe else "",
        broken=run.broken_lines,
    )


def _overlay(runs: Sequence[RunRecord]) -> list[LineChart]:
    """Dev scores of all runs in one chart a score, over processor time where it was logged."""
    lines = [line for run in runs for line in run.evaluations]
    timed = bool(lines) and all(_is_number(line.get("core_seconds")) for line in lines)
    axis = ("core_seconds", "core-seconds") if timed else ("step", "steps")
    names = list(dict.fromkeys(name for run in runs for name in _names(run.evaluations, "dev")))
    charts = []
    for name in names:
        curves = [
            replace(
                _curve(run.evaluations, "dev", name, over=axis[0]),
                name=run.name,
                colour=k % PALETTE,
            )
            for k, run in enumerate(runs)
        ]
        charts.append(line_chart(f"dev {name}, all recipes", curves, over=axis[1]))
    return [c for c in charts if c is not None]


def _curve(
    lines: Sequence[Mapping[str, Any]], key: str, name: str = "", *, over: str = "step"
) -> Curve:
    """One value of the log over its steps; lines that lack it are left out."""
    points: list[tuple[float, float]] = []
    for line in lines:
        value = line.get(key)
        if name:
            value = value.get(name) if isinstance(value, Mapping) else None
        at = line.get(over)
        if _is_number(value) and _is_number(at):
            points.append((at, value))
    return Curve(name=name or key, steps=[s for s, _ in points], values=[v for _, v in points])


def _is_number(value: object) -> TypeGuard[float]:
    """Whether a JSON value is a number (true and false are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _names(lines: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Names under a key, in the order in which they first appear."""
    found: dict[str, None] = {}
    for line in lines:
        part = line.get(key)
        if isinstance(part, Mapping):
            found.update(dict.fromkeys(part))
    return list(found)


def _cases(root: Path, best: RecipeRecord | None) -> tuple[tuple[cases.Case, ...], str]:
    """Hits and misses of the best recipe, or why there are none."""
    if best is None:
        return (), "Hits and misses: not measured."
    try:
        scores = cases.read_scores(root / "results" / best.name / "per_study.csv")
        cohort = Cohort.open(root / "cohort")
        fine = phantom_redraw({study.study_id: study for study in cohort.studies("test")})
        return cases.build(scores, "bank", cohort, fine=fine), "No patient could be shown."
    except SourceError as error:
        log.warning("no hits and misses: %s", error)
        return (), f"Hits and misses: not measured ({error.found})."
    except StoreError as error:  # its words may hold a path, which a page must not
        log.warning("no hits and misses: %s", error)
        return (), "Hits and misses: not measured (the cohort beside the summary cannot be read)."


def _provenance(demo: DemoRecord) -> dict[str, str]:
    """Commit, machine, cohort."""
    names = ("digest", "train", "dev", "test")
    rest = [name for name in demo.cohort if name not in names]
    facts = {"commit": demo.commit, "machine": demo.machine}
    facts |= {f"cohort {name}": demo.cohort.get(name, "") for name in (*names, *rest)}
    for recipe in demo.recipes:
        seed = f"seed {recipe.seed:.0f}" if recipe.seed == recipe.seed else "seed not recorded"
        prompts = f"; prompts {', '.join(recipe.prompts)}" if recipe.prompts else ""
        facts[recipe.name] = f"{recipe.encoder or 'encoder not recorded'}; {seed}{prompts}"
    return facts


def _run_facts(run: RunRecord) -> dict[str, str]:
    """Recipe and cohort of a run, in words."""
    last = run.steps[-1] if run.steps else {}
    spent = run.training.get("core_seconds")
    return {
        "recipe": str(run.recipe.get("name", "")),
        "source": str(run.recipe.get("source", "")),
        "cohort digest": str(run.training.get("cohort", "")),
        "seed": str(run.recipe.get("seed", "")),
        "precision": str(run.training.get("precision", "")),
        "steps logged up to": str(last.get("step", "")),
        "evaluations": str(len(run.evaluations)),
        "core time": seconds(spent) if _is_number(spent) else "",
    }
