"""Verbs that train, judge and use a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from t3d.cli.app import app, lines_of, pairs, print_out
from t3d.errors import T3DError

if TYPE_CHECKING:
    from t3d.api import Screening
    from t3d.cohort.store import Cohort
    from t3d.judge.evaluate import Plan
    from t3d.judge.prompts import PromptSet
    from t3d.learn.recipe import Recipe
    from t3d.types import Metric, Result


@app.command
def train(
    recipe: str,
    *,
    cohort: Path,
    out: Path,
    size: str = "demo",
    changes: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
) -> int:
    """Train a recipe on a cohort; the same command continues a run that was stopped.

    Args:
        recipe: Name (t3d info recipes), or FILE.py:FUNCTION.
        cohort: Made by t3d prepare.
        out: Folder of the run: checkpoints, log.jsonl, TensorBoard, report.html.
        size: demo, phantom or paper.
        changes: Fields to change, as optim.lr=1e-4; may be given several times.
    """
    from t3d.cohort.store import Cohort
    from t3d.learn.recipe import override
    from t3d.recipes import recipe as named

    made = named(recipe, size)
    if changes:
        made = override(made, pairs(changes, "--set", "optim.lr=1e-4"))
    opened = Cohort.open(cohort)
    print_out(
        f"{made.name} ({made.supervision}), {made.num_steps} steps, cohort {opened.digest[:12]}"
    )
    run_on_board(made, opened, out)
    return 0


def run_on_board(made: Recipe, cohort: Cohort, out: Path, *, init: Path | None = None) -> None:
    """Train before the eyes of a person, and write the run's page."""
    from t3d.judge.dev import dev_score
    from t3d.learn.train import Report
    from t3d.learn.train import train as run
    from t3d.show.page import run_page
    from t3d.show.terminal import Board

    with Board() as board:

        def tell(report: Report) -> None:
            note = f"loss {report.loss:.3f}  {report.rate:.0f} studies/s"
            board.update(made.name, report.step, report.num_steps, note)

        best = run(made, cohort, out, init=init, dev=dev_score(made, cohort), progress=tell)
    page = run_page(out, out / "report.html")
    print_out(f"best checkpoint: {best}\npage: {page}")


@app.command
def evaluate(
    checkpoint: str = "",
    *,
    cohort: Path | None = None,
    out: Path = Path("results"),
    scores: tuple[Path, ...] = (),
    protocol: tuple[str, ...] = ("plain",),
    suite: str = "",
    tasks: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    by: tuple[str, ...] = (),
    nulls: bool = True,
    allow_missing: bool = False,
    compare: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Judge a model on a cohort's test split and write one page with everything.

    Zero-shot classification, calibration, linear probe, retrieval both ways, volume to volume,
    pools and localization on frozen features, which are encoded once; beside each number its
    interval and what needs no image. Options that take several names take them with commas too.

    Args:
        checkpoint: A run (its best step) or RUN/checkpoints/step-N; or FILE.py:MODEL.
        cohort: With dev (thresholds) and test, and train for the probe.
        out: Folder for result.json, per_study.csv and report.html.
        scores: Instead of a checkpoint: scores or embeddings made elsewhere, CSV or NPZ. Of several
            files the first is judged, all stand in the specification curve of --protocol all.
        protocol: Rules by name (docs/reference/protocols.md), or all.
        suite: ct_rate, rad_chestct, inspect, merlin or rexgrounding, with all its protocols; says
            what the corpus needs where there is no cohort.
        tasks: zero_shot, supervised, calibration, probe, retrieval, neighbours, pools,
            localization; default: all that fit.
        prompts: Prompt sets by name, or files NAME.toml; default: template (class names) and
            bank (sentences of training reports), or the protocol's own.
        by: Split results by sex, age, manufacturer or kernel.
        nulls: Judge age, sex, scanner and others under the same rules; --no-nulls is faster.
        allow_missing: What a file does not score counts as the worst that the truth allows.
        compare: Folder of another evaluation: paired differences on the same patients.
        as_json: Print the results as JSON.
    """
    from t3d.cohort.store import Cohort
    from t3d.judge.evaluate import Plan, curve_of
    from t3d.judge.evaluate import evaluate as run
    from t3d.judge.results import to_json
    from t3d.show.evaluation import evaluation_page

    known = None if cohort is None else Cohort.open(cohort)
    plan = Plan(
        protocols=_names(protocol),
        tasks=_names(tasks),
        prompts=_names(prompts),
        by=_names(by),
        nulls=nulls,
        allow_missing=allow_missing,
        compare=compare,
    )
    if suite:
        judged = None if known is None else _judged(checkpoint, scores)
        _refuse_beside_suite(plan, scores)
        found = _suite(suite, plan, judged, known, out)
    elif known is None:
        raise T3DError("no cohort", expected="--cohort FOLDER, made by t3d prepare")
    else:
        found = run(_judged(checkpoint, scores), known, out, plan)
        if len(scores) > 1:
            curve_of(scores, known, out, plan.rules())
    page = evaluation_page(out, known)
    if as_json:
        print_out(json.dumps([to_json(result) for result in found]))
    else:
        _print_results(found)
        print_out(f"page: {page}")
    return 0


def _judged(checkpoint: str, scores: tuple[Path, ...]) -> str:
    """What is judged: a checkpoint or a file, not both."""
    if bool(checkpoint) == bool(scores):
        raise T3DError(
            "both a checkpoint and --scores" if scores else "nothing to judge",
            expected="a run, FILE.py:MODEL, or --scores FILE",
        )
    return checkpoint or str(scores[0])


def _suite(
    name: str, plan: Plan, judged: str | None, cohort: Cohort | None, out: Path
) -> tuple[Result, ...]:
    """Run a suite with those parts of a plan that it leaves open."""
    from t3d.judge.suites import run_suite

    return run_suite(
        name,
        judged,
        cohort,
        out,
        prompts=_prompts_of(plan.prompts),
        allow_missing=plan.allow_missing,
        nulls=plan.nulls,
        by=plan.by,
    ).results


def _refuse_beside_suite(plan: Plan, scores: tuple[Path, ...]) -> None:
    """A suite has its own protocols and tasks."""
    told = {
        "--protocol": plan.protocols != ("plain",),
        "--tasks": bool(plan.tasks),
        "--compare": plan.compare is not None,
        "several --prompts": len(plan.prompts) > 1,
        "several --scores": len(scores) > 1,
    }
    options = [option for option, given in told.items() if given]
    if options:
        raise T3DError(
            f"--suite and {', '.join(options)}",
            expected="a suite, or protocols and tasks of your own",
            fix="leave one of them out",
        )


def _prompts_of(names: tuple[str, ...]) -> PromptSet | None:
    """Prompts of a suite's protocols that leave them open."""
    from t3d.judge.prompts import prompt_set, read_prompts

    if not names:
        return None
    path = Path(names[0])
    return read_prompts(path) if path.is_file() else prompt_set(names[0])


def _names(words: tuple[str, ...]) -> tuple[str, ...]:
    """Names given one by one or with commas."""
    return tuple(name for word in words for name in word.split(",") if name)


@app.command
def screen(
    scan: Path,
    *,
    checkpoint: Path,
    out: Path | None = None,
    findings: tuple[str, ...] = (),
    prompts: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Score one scan for findings, show the slices behind them, say if the model knows such scans.

    Args:
        scan: A file, or a folder or archive of DICOM slices.
        checkpoint: A run, or RUN/checkpoints/step-N.
        out: Folder for screen.png and screen.json; default: SCAN's name in this folder.
        findings: Names to look for; default: the 18 of CT-RATE.
        prompts: A file prompts-NAME.json of t3d evaluate; default: class names in sentences.
        as_json: Print the scores as JSON.
    """
    from t3d.api import load, read
    from t3d.cohort.engine import guarded
    from t3d.judge.prompts import read_prompts
    from t3d.show.screen import screen_picture

    model = load(checkpoint)
    volume = guarded(read, scan)
    asked = None if prompts is None else read_prompts(prompts)
    screening = model.screen(volume, findings, prompts=asked)
    folder = out or Path(f"{volume.volume_id}_screen")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(row.finding, row.score, row.z_mm) for row in screening.findings]
    foreign = "OUT OF DOMAIN: " + "; ".join(screening.reasons)
    domain = "in domain" if screening.in_domain else foreign
    picture = screen_picture(volume, rows, folder / "screen.png", domain)
    text = json.dumps(screening.to_json(), indent=1)
    (folder / "screen.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        print_out(text)
    else:
        _print_screening(screening)
        print_out(f"picture: {picture}")
    return 0


@app.command
def info(
    what: str = "",
    name: str = "",
    *,
    size: str = "demo",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say what there is: recipes, preparations, limits, a recipe's fields, a cohort, a checkpoint.

    Args:
        what: "recipes", "preparations", "limits", "plan" (CT-RATE), the folder of a cohort or run.
        name: A recipe's name, to print every field.
        size: Size of that recipe.
        as_json: Print as JSON.
    """
    from t3d.api import describe

    told = describe(what, name, size=size)
    if as_json:
        print_out(json.dumps(told, indent=1))
    else:
        for line in lines_of(told):
            print_out(line)
    return 0


@app.command
def bench(
    what: str = "demo", *, out: Path = Path("demo"), full: bool = False, workers: int = 2
) -> int:
    """Make a training table and its page; "demo" is the one there is.

    Args:
        what: "demo": synthetic patients, three recipes at equal core-seconds, baseline, ceiling.
        out: Folder; a second call continues and does nothing twice.
        full: Adds the controls: crops without fusion, equal steps, shuffled reports.
        workers: Cells trained at a time.
    """
    from t3d.judge.bench import Event, Table, demo
    from t3d.show.page import demo_page
    from t3d.show.summary import print_summary
    from t3d.show.terminal import Board

    if what != "demo":
        raise T3DError(f"table '{what}' is unknown", expected="demo")
    with Board() as board:

        def tell(event: Event) -> None:
            board.update(event.stage, event.done, event.total, event.note)

        summary = demo(Table(out=out, full=full, workers=workers, tell=tell))
    page = demo_page(out, out / "report.html")
    print_summary(summary)
    print_out(f"page: {page}\nfigures: {summary}")
    return 0


def _print_results(results: Sequence[Result]) -> None:
    from t3d.show.terminal import table

    for result in results:
        rows = [_metric_row(metric) for metric in result.metrics if _headline(metric.name)]
        told = result.provenance
        prompts = told.get("prompts", "") or told.get("label_share", "")
        title = f"{result.task} {prompts}, protocol {result.protocol}"
        if rows:
            table(title, ("", "value", "95 %", "chance", "n"), rows)
        for reason in () if result.metrics else result.excluded:
            print_out(f"{result.task}, {result.protocol}: {reason}")


def _headline(name: str) -> bool:
    chosen = ("auroc:macro", "matched_auroc:macro", "error_mm", "cell_error_mm")
    starts = ("auroc:macro|", "difference:auroc:macro", "t2i_r@", "i2t_r@", "v2v_map@", "null:")
    return name in chosen or name.startswith(starts)


def _metric_row(metric: Metric) -> tuple[str, ...]:
    spread = f"{metric.low:.3f} to {metric.high:.3f}"
    return (metric.name, f"{metric.value:.3f}", spread, f"{metric.chance:.3f}", str(metric.n))


def _print_screening(screening: Screening) -> None:
    from t3d.show.terminal import table

    rows = [(row.finding, f"{row.score:+.3f}", f"{row.z_mm:.0f} mm") for row in screening.findings]
    table("zero-shot scores, high to low (not probabilities)", ("finding", "score", "at z"), rows)
    if screening.in_domain:
        print_out("domain: this scan is like the training scans")
    else:
        print_out("OUT OF DOMAIN: do not use these scores")
        for reason in screening.reasons:
            print_out(f"  {reason}")
    print_out("research software, not for clinical use")
