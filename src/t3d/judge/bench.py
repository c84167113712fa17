"""Training tables: the demo makes patients, prepares them, trains recipes and judges them.

Every stage resumes: what is finished is not done again. Cells run in processes of one thread
each, as many at a time as there are workers; a cell's figures do not depend on the others.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue
from typing import Any

from t3d.cohort.prepare import prepare
from t3d.cohort.sources.folder import Folder
from t3d.cohort.store import Cohort
from t3d.errors import T3DError
from t3d.judge.cell import MACRO, CellResult, prompt_sets, run_cell
from t3d.judge.logistic import logistic_baseline
from t3d.judge.outcome import Outcome, difference, distance_share
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.results import summary_scores, summary_value, write_results
from t3d.judge.tasks import supervised
from t3d.learn.grids import stem_cache
from t3d.learn.recipe import Recipe, with_shuffled_reports
from t3d.learn.train import Report
from t3d.model.encoders.statstem import StatStem
from t3d.phantom.layouts import write_folder
from t3d.phantom.presets import DEMO
from t3d.recipes import recipe
from t3d.text.findings import CT_RATE_18

log = logging.getLogger(__name__)

SIZES = {"train": 3000, "dev": 256, "test": 300}  # patients
QUICK = ("t3d_plus", "clip", "t3d_v3", "supervised")
FULL = ("clip_crops", "t3d_v3_match", "clip_crops_equal_steps")
LOGISTIC = "logistic"
PAIRS = (
    ("t3d_v3", "clip"),
    ("t3d_plus", "clip"),
    ("clip_crops", "clip"),
    ("t3d_v3_match", "clip"),
    ("t3d_v3", "clip_crops"),
    ("t3d_v3_match", "t3d_v3"),
    ("t3d_v3_equal_steps", "clip_crops_equal_steps"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a person hears while a table is made."""

    stage: str  # "phantoms", "prepare", "stem", or a cell's name
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What is made and where."""

    out: Path
    full: bool = False
    workers: int = 2
    sizes: Mapping[str, int] = field(default_factory=lambda: dict(SIZES))
    step_share: float = 1.0  # of every stage's steps; below 1 only for a walk through the thread
    tell: Callable[[Event], None] = lambda event: None


def demo(table: Table) -> Path:
    """Make the demo's table; gives OUT/summary.json.

    Raises:
        T3DError: A stage failed; what was finished stays and is not done again.
    """
    seconds: dict[str, float] = {}
    cohort = make_cohort(table, seconds)
    start = time.perf_counter()
    cells = run_cells(table, cohort, demo_recipes(table))
    seconds["train_and_judge"] = time.perf_counter() - start
    summary = summarise(table, cohort, cells, seconds)
    path = table.out / "summary.json"
    text = json.dumps(_finite(summary), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def demo_recipes(table: Table) -> list[Recipe]:
    """List the cells, the longest first."""
    chosen = [recipe(name, "demo") for name in QUICK]
    if table.full:
        plus = recipe("t3d_plus", "demo")
        chosen += [recipe(name, "demo") for name in FULL]
        chosen.append(with_shuffled_reports(plus))
    return [_shortened(made, table.step_share) for made in chosen]


def make_cohort(table: Table, seconds: dict[str, float]) -> Cohort:
    """Draw the patients, prepare them and compute the stem, each only if it is not there."""
    source, folder = table.out / "source", table.out / "cohort"
    start = time.perf_counter()
    write_folder(
        source,
        DEMO,
        train=table.sizes["train"],
        dev=table.sizes["dev"],
        test=table.sizes["test"],
        workers=table.workers,
        progress=lambda done, total: table.tell(Event(stage="phantoms", done=done, total=total)),
    )
    seconds["phantoms"] = time.perf_counter() - start
    start = time.perf_counter()
    made = prepare(
        Folder(source),
        folder,
        recipe("clip", "demo").preparation,
        workers=table.workers,
        progress=lambda told: table.tell(Event(stage="prepare", done=told.done, total=told.total)),
    )
    if made.failed:
        log.warning("prepare set studies aside: %s", dict(made.failed))
    seconds["prepare"] = time.perf_counter() - start
    start = time.perf_counter()
    cohort = Cohort.open(folder)
    table.tell(Event(stage="stem", done=0, total=1))
    stem_cache(cohort, StatStem(), "demo")
    table.tell(Event(stage="stem", done=1, total=1))
    seconds["stem"] = time.perf_counter() - start
    return cohort


def run_cells(table: Table, cohort: Cohort, recipes: Sequence[Recipe]) -> dict[str, CellResult]:
    """Run the logistic baseline and every recipe, a process each."""
    prompts = prompt_sets(cohort)
    context = multiprocessing.get_context("spawn")
    results: dict[str, CellResult] = {}
    with context.Manager() as manager, ProcessPoolExecutor(table.workers, context) as pool:
        queue: Queue[Event | None] = manager.Queue()
        listener = threading.Thread(target=_listen, args=(queue, table.tell), daemon=True)
        listener.start()
        waiting: dict[Future[CellResult], str] = {
            pool.submit(_cell, made, cohort.path, table.out, prompts, queue): made.name
            for made in recipes
        }
        waiting[pool.submit(_logistic, cohort.path, table.out, queue)] = LOGISTIC
        try:
            for future in as_completed(waiting):
                results[waiting[future]] = future.result()
        except T3DError:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            queue.put(None)
            listener.join()
    return results


def summarise(
    table: Table, cohort: Cohort, cells: Mapping[str, CellResult], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Put the cells together as `demo/summary.json` (architecture, "On disk")."""
    shuffled = {name: cell for name, cell in cells.items() if name.endswith("_shuffled")}
    shown = {
        name: {**cell.summary, "ceiling_share": ceiling_share(cell, cells)}
        for name, cell in cells.items()
        if cell.supervision == "reports" and name not in shuffled
    }
    labels = {name: cells[name].summary["zero_shot"]["labels"] for name in ("supervised", LOGISTIC)}
    if "clip_crops_equal_steps" in cells:  # its partner is t3d_v3 itself, at its own steps
        cells = {**cells, "t3d_v3_equal_steps": cells["t3d_v3"]}
        shown["t3d_v3_equal_steps"] = shown["t3d_v3"]
    counts = {split: len(cohort.studies(split)) for split in ("train", "dev", "test")}
    summary: dict[str, Any] = {
        "commit": commit(),
        "machine": machine(),
        "seconds": {**seconds, **{f"cell:{n}": sum(c.seconds.values()) for n, c in cells.items()}},
        "resumed": sorted(name for name, cell in cells.items() if cell.resumed),
        "cohort": {"digest": cohort.digest, "preset": DEMO.digest, **counts},
        "recipes": dict(sorted(shown.items(), key=lambda pair: _place(pair[0]))),
        **labels,
        "differences": differences(cells),
        "supervised_run": _training(cells["supervised"].summary),
    }
    for cell in shuffled.values():
        summary["shuffled"] = cell.summary["zero_shot"]
        summary["shuffled_run"] = _training(cell.summary) | {"retrieval": cell.summary["retrieval"]}
    return summary


def ceiling_share(cell: CellResult, cells: Mapping[str, CellResult]) -> dict[str, Any]:
    """Give the share of the way from `clip` to the ceiling, on bank macro AUROC.

    Formula: (recipe - clip) / (supervised - clip), the same draws of patients in all three.
    """
    clip, top = cells["clip"].outcomes["bank"], cells["supervised"].outcomes["labels"]
    return summary_value(distance_share(cell.outcomes["bank"], top, MACRO, base=clip))


def differences(cells: Mapping[str, CellResult]) -> dict[str, Any]:
    """Compare pairs of cells on the same draws: bank macro AUROC and text-to-image R@10."""
    made = {}
    for one, other in PAIRS:
        if one in cells and other in cells:
            first, second = cells[one].outcomes, cells[other].outcomes
            made[f"{one} - {other}"] = {
                "bank_macro": summary_value(difference(first["bank"], second["bank"], MACRO)),
                "t2i_r@10": summary_value(
                    difference(first["retrieval"], second["retrieval"], "t2i_r@10")
                ),
            }
    return made


def commit() -> str:
    """Give the commit the package runs from, "+" = with changes, "" = no repository."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def machine() -> str:
    """Describe the processor in words, without a name of the host."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        log.debug("no /proc/cpuinfo")
    return f"{model}, {multiprocessing.cpu_count()} cores, Python {platform.python_version()}"


def _cell(
    made: Recipe, cohort: Path, out: Path, prompts: Any, queue: Queue[Event | None]
) -> CellResult:
    def tell(report: Report) -> None:
        note = f"loss {report.loss:.3f}  {report.rate:.0f} studies/s  {report.eta_s:.0f} s left"
        queue.put(Event(stage=made.name, done=report.step, total=report.num_steps, note=note))

    result = run_cell(made, Cohort.open(cohort), out, prompts=prompts, progress=tell)
    macro = "  ".join(f"{name} {value:.3f}" for name, value in result.macro.items())
    total = made.num_steps
    queue.put(Event(stage=made.name, done=total, total=total, note=f"macro AUROC {macro}"))
    return result


def _logistic(cohort_path: Path, out: Path, queue: Queue[Event | None]) -> CellResult:
    queue.put(Event(stage=LOGISTIC, done=0, total=1))
    start, cpu = time.perf_counter(), time.process_time()
    cohort = Cohort.open(cohort_path)
    scores = logistic_baseline(cohort, CT_RATE_18)
    outcome: Outcome = supervised.measure(
        cohort,
        PLAIN,
        findings=scores.findings,
        scores=(scores.dev, scores.test),
        name=LOGISTIC,
    )
    write_results(out / "results" / LOGISTIC, [outcome])
    note = f"macro AUROC {outcome.metric(MACRO).value:.3f}"
    queue.put(Event(stage=LOGISTIC, done=1, total=1, note=note))
    return CellResult(
        name=LOGISTIC,
        supervision="labels",
        summary={
            "zero_shot": {"labels": summary_scores(outcome.result)},
            "core_seconds": time.process_time() - cpu,
        },
        outcomes={"labels": outcome},
        seconds={"train": time.perf_counter() - start},
    )


def _listen(queue: Queue[Event | None], tell: Callable[[Event], None]) -> None:
    while (event := queue.get()) is not None:
        tell(event)


def _finite(value: Any) -> Any:
    """Put null where a number is not there: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _training(summary: Mapping[str, Any]) -> dict[str, Any]:
    names = ("supervision", "encoder", "steps", "seed", "core_seconds", "losses")
    return {name: summary[name] for name in names if name in summary}


def _shortened(made: Recipe, share: float) -> Recipe:
    if share == 1.0:
        return made
    stages = tuple(
        replace(stage, num_steps=max(2, round(share * stage.num_steps))) for stage in made.stages
    )
    return replace(made, stages=stages)


def _place(name: str) -> int:
    order = ("clip", "clip_crops", "t3d_v3", "t3d_v3_match", "t3d_plus")
    return order.index(name) if name in order else len(order)
