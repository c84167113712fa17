"""Verbs that make and examine data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from t3d.cli.app import FAILED, app, print_out
from t3d.errors import RecipeError


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
