"""Verbs that make and examine data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from t3d.cli.app import FAILED, app, pairs, print_out
from t3d.ct.limits import WORKER_MEMORY_MB
from t3d.errors import RecipeError

if TYPE_CHECKING:
    from t3d.cohort.listing import Source


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
    language: str = "en",
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
        language: Language of the reports: en or de.
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
            language=language,
            progress=progress.update,
        )
    print_out(f"{train + dev + test} synthetic patients in {out} (preset {preset})")
    print_out(f"next: t3d prepare {out} COHORT")
    return 0


@app.command
def prepare(
    source: Path,
    cohort: Path,
    /,  # so that --source is not the first of these
    *,
    kind: Annotated[str, Parameter(name="--source")] = "",
    settings: Annotated[tuple[str, ...], Parameter(name="--with")] = (),
    preparation: str = "demo",
    loss_hu: int = 0,
    workers: int | None = None,
    memory_mb: int = WORKER_MEMORY_MB,
    ignore_disk: bool = False,
    retry_failed: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Bring a source's volumes onto a model's grid and keep them in a cohort.

    What is there already is left alone: the same command resumes, appends new studies, or
    adds a second preparation.

    Args:
        source: Folder or archive of the source; of a union name=ROOT,name=ROOT.
        cohort: Folder of the cohort, made if missing.
        kind: folder, dicom_folder, ct_rate, inspect, bimcv_r, merlin, rad_chestct, radgenome,
            rexgrounding, amos or msd; default: found out from what lies there. Several members:
            union or ct3dvlp.
        settings: Settings of the source, as kernel=B40f; may be given several times.
        preparation: demo, phantom, paper, paper_direct, fine, ctclip (t3d info preparations).
        loss_hu: Largest error of a stored voxel; 1 = steps of 2 HU, smaller files; 0 = none.
        workers: Processes; default: as many as cores and free memory allow.
        memory_mb: Ceiling of one process; a study that needs more is set aside.
        ignore_disk: Start even if the disk does not seem to hold the result.
        retry_failed: Try again what an earlier run set aside.
        as_json: Print counts as JSON.
    """
    from t3d.cohort.listing import LEFT_OUT_ON_PURPOSE
    from t3d.cohort.prepare import prepare as run
    from t3d.cohort.union import beside_the_paper
    from t3d.ct.preparations import named_preparation
    from t3d.show.terminal import Progress

    opened = _opened(source, kind, pairs(settings, "--with", "kernel=B40f"))
    if kind == "ct3dvlp" and not as_json:
        print_out(beside_the_paper(opened))
    with Progress("prepare", quiet=as_json) as progress:
        made = run(
            opened,
            cohort,
            named_preparation(preparation),
            workers=workers,
            retry_failed=retry_failed,
            loss_hu=loss_hu,
            memory_mb=memory_mb,
            ignore_disk=ignore_disk,
            progress=progress.update,
        )
    counts: dict[str, Any] = {
        "source": opened.kind,
        "done": made.done,
        "there_already": made.skipped,
        "failed": dict(made.failed),
        "seconds": round(made.seconds, 2),
    }
    failed = sum(n for reason, n in made.failed.items() if reason not in LEFT_OUT_ON_PURPOSE)
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
    return FAILED if failed else 0


def _opened(source: Path, kind: str, settings: dict[str, str]) -> Source:
    """Open one source, or several as one."""
    from t3d.cohort.sources import open_source
    from t3d.cohort.union import open_union

    if kind in ("union", "ct3dvlp"):
        return open_union(str(source).split(","), settings, kind=kind)
    return open_source(source, kind, settings)


@app.command
def doctor(
    what: Path,
    *,
    kind: Annotated[str, Parameter(name="--source")] = "",
    settings: Annotated[tuple[str, ...], Parameter(name="--with")] = (),
    out: Path | None = None,
    workers: int | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say what is wrong with scans, how we know, and what would fix it.

    Args:
        what: A scan, a folder of scans, a source, or a cohort.
        kind: A source by name, as for t3d prepare; default: found out from what lies there.
        settings: Settings of the source, as kernel=B40f; may be given several times.
        out: Folder for doctor.html (mosaics, histograms), doctor.json and doctor.csv.
        workers: Processes; default: one per core.
        as_json: Print everything as JSON.
    """
    from t3d.cohort.audit import audit, subject_at
    from t3d.cohort.sources import open_source
    from t3d.show.doctor import audit_csv, audit_json, audit_page, audit_text
    from t3d.show.terminal import Progress

    told = pairs(settings, "--with", "kernel=B40f")
    subject = open_source(what, kind, told) if kind or told else subject_at(what)
    with Progress("doctor", quiet=as_json) as progress:
        found = audit(subject, workers=workers, progress=progress.update)
    text = json.dumps(audit_json(found), indent=1)
    print_out(text if as_json else audit_text(found))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "doctor.json").write_text(text + "\n", encoding="utf-8")
        (out / "doctor.csv").write_text(audit_csv(found), encoding="utf-8")
        page = audit_page(found, out / "doctor.html")
        if not as_json:
            print_out(f"page: {page}")
    return 0 if found.sound else FAILED
