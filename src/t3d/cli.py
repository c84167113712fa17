"""Command line: verbs, not knobs. Heavy imports happen inside the verbs.

Exit codes: 0 fine, 1 some studies failed, 2 wrong use.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

import t3d
from t3d.errors import RecipeError, T3DError

if TYPE_CHECKING:
    from t3d.api import Screening
    from t3d.types import Metric, Result

app = App(
    name="t3d",
    help="Learning from 3-D CT and radiology reports. Research software, not for clinical use.",
    version=t3d.__version__,
    help_format="plaintext",  # rich text costs a third of the start-up
)

FAILED, WRONG_USE = 1, 2


def main() -> None:
    """Run the command line; errors of ours are printed without a traceback."""
    try:
        code = app()
    except T3DError as error:
        print_error(f"{type(error).__name__}: {error}")
        sys.exit(WRONG_USE)
    except KeyboardInterrupt:
        print_error("stopped; what was finished is kept, the same command continues")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def print_error(text: str) -> None:
    """Write to standard error."""
    sys.stderr.write(text + "\n")


def print_out(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(text + "\n")


@app.command
def phantom(
    out: Path,
    *,
    preset: str = "demo",
    train: int = 600,
    dev: int = 100,
    test: int = 100,
    seed: int = 0,
    workers: int = 2,
    masks: tuple[str, ...] = ("dev", "test"),
) -> int:
    """Write a synthetic cohort: chest CTs with known findings, and reports about them.

    Args:
        out: Folder; layout "folder" (volumes, studies.csv, masks, positions.jsonl).
        preset: Kind of patients: "demo" (32x64x64) or "standard" (about 48x96x96).
        train: Patients in the split train.
        dev: Patients in the split dev.
        test: Patients in the split test.
        seed: Same seed, same bytes.
        workers: Processes.
        masks: Splits whose lesion and organ masks are written.
    """
    from t3d.phantom.layouts import write_folder
    from t3d.phantom.presets import PRESETS
    from t3d.show.terminal import Progress

    if preset not in PRESETS:
        raise RecipeError(f"preset '{preset}' is unknown", expected=f"one of {', '.join(PRESETS)}")
    with Progress("phantoms") as progress:
        write_folder(
            out,
            PRESETS[preset],
            train=train,
            dev=dev,
            test=test,
            seed=seed,
            workers=workers,
            masks=masks,
            progress=progress.update,
        )
    print_out(f"{train + dev + test} synthetic patients in {out} (preset {preset})")
    print_out(f"next: t3d prepare {out} COHORT")
    return 0


@app.command
def prepare(
    source: Path,
    cohort: Path,
    *,
    preparation: str = "demo",
    workers: int | None = None,
    retry_failed: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Bring a source's volumes onto a model's grid and keep them in a cohort.

    What is there already is left alone: the same command resumes, appends new studies, or
    adds a second preparation.

    Args:
        source: Folder with studies.csv and volumes/.
        cohort: Folder of the cohort, made if missing.
        preparation: demo, phantom, paper, paper_direct or fine.
        workers: Processes; default: one per core.
        retry_failed: Try again what an earlier run set aside.
        as_json: Print counts as JSON.
    """
    from t3d.cohort.prepare import prepare as run
    from t3d.cohort.sources.folder import Folder
    from t3d.ct.preparations import named_preparation
    from t3d.show.terminal import Progress

    with Progress("prepare", quiet=as_json) as progress:
        made = run(
            Folder(source),
            cohort,
            named_preparation(preparation),
            workers=workers,
            retry_failed=retry_failed,
            progress=progress.update,
        )
    counts: dict[str, Any] = {
        "done": made.done,
        "there_already": made.skipped,
        "failed": dict(made.failed),
        "seconds": round(made.seconds, 2),
    }
    if as_json:
        print_out(json.dumps(counts))
    else:
        print_out(
            f"{made.done} studies prepared, {made.skipped} there already, "
            f"{sum(made.failed.values())} set aside, {made.seconds:.1f} s"
        )
        for reason, number in sorted(made.failed.items()):
            print_out(f"  {reason}: {number}")
        if made.failed:
            print_out(f"t3d info {cohort} lists every study set aside and why")
    return FAILED if made.failed else 0


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
    from t3d.judge.dev import dev_score
    from t3d.learn.recipe import override
    from t3d.learn.train import Report
    from t3d.learn.train import train as run
    from t3d.recipes import recipe as named
    from t3d.show.page import run_page
    from t3d.show.terminal import Board

    made = named(recipe, size)
    if changes:
        made = override(made, _pairs(changes))
    opened = Cohort.open(cohort)
    print_out(
        f"{made.name} ({made.supervision}), {made.num_steps} steps, cohort {opened.digest[:12]}"
    )
    with Board() as board:

        def tell(report: Report) -> None:
            note = f"loss {report.loss:.3f}  {report.rate:.0f} studies/s"
            board.update(made.name, report.step, report.num_steps, note)

        best = run(made, opened, out, dev=dev_score(made, opened), progress=tell)
    page = run_page(out, out / "report.html")
    print_out(f"best checkpoint: {best}\npage: {page}")
    return 0


@app.command
def evaluate(
    checkpoint: Path,
    *,
    cohort: Path,
    out: Path,
    prompts: tuple[str, ...] = ("template", "bank"),
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Judge a checkpoint on a cohort's test split under protocol plain.

    Zero-shot classification with each prompt set and retrieval both ways; a supervised
    checkpoint's own scores instead of prompts.

    Args:
        checkpoint: A run (its best step) or RUN/checkpoints/step-N; or FILE.py:MODEL.
        cohort: With dev (thresholds) and test.
        out: Folder for result.json, per_study.csv and report.html.
        prompts: Prompt sets: template (class names), bank (sentences of training reports).
        as_json: Print the results as JSON.
    """
    from t3d.cohort.store import Cohort
    from t3d.judge.evaluate import evaluate as run
    from t3d.judge.results import to_json
    from t3d.show.page import result_page

    results = run(str(checkpoint), Cohort.open(cohort), out, prompts=prompts)
    page = result_page(out)
    if as_json:
        print_out(json.dumps([to_json(result) for result in results]))
    else:
        _print_results(results)
        print_out(f"page: {page}")
    return 0


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
        scan: A NIfTI file.
        checkpoint: A run, or RUN/checkpoints/step-N.
        out: Folder for screen.png and screen.json; default: SCAN's name in this folder.
        findings: Names to look for; default: the 18 of CT-RATE.
        prompts: A file prompts-NAME.json of t3d evaluate; default: class names in sentences.
        as_json: Print the scores as JSON.
    """
    from t3d.api import load, read
    from t3d.judge.prompts import read_prompts
    from t3d.show.screen import screen_picture

    model = load(checkpoint)
    volume = read(scan)
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
    """Say what there is: recipes, preparations, a recipe's fields, a cohort, a checkpoint.

    Args:
        what: "recipes", "preparations", or the folder of a cohort or run.
        name: A recipe's name, to print every field.
        size: Size of that recipe.
        as_json: Print as JSON.
    """
    from t3d.api import describe

    told = describe(what, name, size=size)
    if as_json:
        print_out(json.dumps(told, indent=1))
    else:
        for line in _lines(told):
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


def _pairs(changes: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"--set {change}", expected="field=value, as optim.lr=1e-4")
        pairs[path] = value
    return pairs


def _print_results(results: Sequence[Result]) -> None:
    from t3d.show.terminal import table

    for result in results:
        rows = [_metric_row(metric) for metric in result.metrics if _headline(metric.name)]
        prompts = result.provenance.get("prompts", "")
        title = f"{result.task} {prompts}, protocol {result.protocol}"
        table(title, ("", "value", "95 %", "chance", "n"), rows)


def _headline(name: str) -> bool:
    return name.startswith(("auroc:", "t2i_r@", "i2t_r@"))


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


def _lines(told: Any, indent: str = "") -> Iterator[str]:
    if isinstance(told, dict):
        for key, value in told.items():
            if isinstance(value, dict | list) and value:
                yield f"{indent}{key}:"
                yield from _lines(value, indent + "  ")
            else:
                yield f"{indent}{key}: {value if value != {} and value != [] else '-'}"
    elif isinstance(told, list):
        for value in told:
            if isinstance(value, dict | list):
                yield from _lines(value, indent + "  ")
            else:
                yield f"{indent}{value}"
