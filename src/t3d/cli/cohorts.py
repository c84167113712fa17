"""Verbs that make and examine data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from t3d.cli.app import FAILED, app, pairs, print_out
from t3d.ct.limits import WORKER_MEMORY_MB
from t3d.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from t3d.cohort.emptying import Emptier
    from t3d.cohort.listing import Source
    from t3d.cohort.merge import MergeSummary
    from t3d.cohort.prepare import PrepareSummary
    from t3d.cohort.shards import Shard
    from t3d.types import Preparation


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
    engine: str = "local",
    shard: str = "",
    merge: bool = False,
    delete_sources: str = "",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Bring a source's volumes onto a model's grid and keep them in a cohort.

    What is there already is left alone: the same command resumes, appends new studies, or
    adds a second preparation. On a cluster each job of an array gets `--shard I/N`, and the same
    command with `--merge` joins what they made.

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
        engine: local (processes of this machine) or ray (a Ray cluster).
        shard: Prepare only part I of N, as 3/16, into COHORT.shards/003-of-016.
        merge: Join the finished shards into COHORT first, then go on as always.
        delete_sources: yes = delete each volume's file once its record is safe; dry-run = only
            say how many files and bytes that concerns; force = also your own folder's.
        as_json: Print counts as JSON.
    """
    from t3d.cohort.prepare import prepare as run
    from t3d.cohort.union import beside_the_paper
    from t3d.ct.preparations import named_preparation
    from t3d.show.terminal import Progress

    part = _part(shard, merge)
    made_of = named_preparation(preparation)
    opened = _opened(source, kind, pairs(settings, "--with", "kernel=B40f"))
    if kind == "ct3dvlp" and not as_json:
        print_out(beside_the_paper(opened))
    place = part.folder(cohort) if part else cohort
    if delete_sources == "dry-run":
        return _survey(opened, place, as_json=as_json)
    emptier = _emptier(delete_sources, opened, place)
    merged = _merged(cohort, made_of, quiet=as_json) if merge else None
    with Progress("prepare", quiet=as_json) as progress:
        made = run(
            opened,
            cohort,
            made_of,
            workers=workers,
            retry_failed=retry_failed,
            loss_hu=loss_hu,
            memory_mb=memory_mb,
            ignore_disk=ignore_disk,
            engine=engine,
            shard=part,
            progress=progress.update,
            after=emptier,
        )
    if as_json:
        print_out(json.dumps(_counts(opened.kind, made, merged, emptier)))
    else:
        _tell(made, merged, place)
        _tell_emptied(emptier)
    return _exit_code(made.failed, merged.failed if merged else {})


def _part(told: str, merge: bool) -> Shard | None:
    """Read which part is meant; merging is for the whole."""
    from t3d.cohort.shards import parse_shard

    if told and merge:
        raise RecipeError(
            "--shard and --merge at once",
            expected="one of them",
            fix="--merge, in a job of its own, after the last shard",
        )
    return parse_shard(told) if told else None


def _emptier(word: str, source: Source, cohort: Path) -> Emptier | None:
    """Give what deletes source files, where that is asked for."""
    from t3d.cohort.emptying import Emptier

    if word not in ("", "yes", "force"):
        raise RecipeError(
            f"--delete-sources {word}",
            expected="dry-run, yes or force",
            fix="dry-run says what would be deleted",
        )
    return Emptier(source, cohort, force=word == "force") if word else None


def _survey(source: Source, cohort: Path, *, as_json: bool) -> int:
    """Print what could be deleted; deleting itself may still have to be forced."""
    from t3d.cohort.emptying import REASONS, Emptier

    survey = Emptier(source, cohort, force=True).survey()
    found = {reason or "now": size for reason, size in survey.items()}
    if as_json:
        print_out(
            json.dumps({"source_files": {name: size._asdict() for name, size in found.items()}})
        )
        return 0
    told = {"now": "would be deleted now"} | {name: f"stay: {why}" for name, why in REASONS.items()}
    for name, size in found.items():
        print_out(f"{size.files:>9,} files {size.bytes / 1e9:>10,.1f} GB {told[name]}")
    if not found:
        print_out("no files of volumes are here")
    return 0


def _tell_emptied(emptier: Emptier | None) -> None:
    """Print what was deleted and what was not."""
    if emptier is None:
        return
    from t3d.cohort.emptying import REASONS

    files, size = emptier.deleted
    print_out(f"{files} source files deleted, {size / 1e9:.1f} GB")
    for reason, number in sorted(emptier.kept.items()):
        print_out(f"  {number} kept: {REASONS[reason]}")


def _merged(cohort: Path, preparation: Preparation, *, quiet: bool) -> MergeSummary:
    """Join the shards of a cohort, which hold the preparation that is asked for."""
    from t3d.cohort.merge import merge
    from t3d.cohort.shards import shards_of
    from t3d.cohort.store import Cohort
    from t3d.show.terminal import Progress

    folders = shards_of(cohort)
    held = Cohort.open(folders[0]).preparations if folders else {preparation.name: preparation}
    if preparation.name not in held:
        raise RecipeError(
            f"the shards are not prepared as {preparation.name!r}",
            expected=f"--preparation {' or '.join(held)}",
            fix="name the one that the shards hold; it is looked through after merging",
        )
    with Progress("merge", quiet=quiet) as progress:
        return merge(folders, cohort, progress=progress.update)


def _counts(
    kind: str, made: PrepareSummary, merged: MergeSummary | None, emptier: Emptier | None
) -> dict[str, Any]:
    """Give what a program reads."""
    counts: dict[str, Any] = {
        "source": kind,
        "done": made.done,
        "there_already": made.skipped,
        "failed": dict(made.failed),
        "seconds": round(made.seconds, 2),
    }
    if merged is not None:
        counts["merged"] = {
            "shards": merged.shards,
            "studies": merged.studies,
            "new": merged.new,
            "failed": dict(merged.failed),
            "seconds": round(merged.seconds, 2),
        }
    if emptier is not None:
        kept = dict(sorted(emptier.kept.items()))
        counts["source_files"] = {"deleted": emptier.deleted._asdict(), "kept": kept}
    return counts


def _tell(made: PrepareSummary, merged: MergeSummary | None, cohort: Path) -> None:
    """Print what a person reads."""
    if merged is not None:
        print_out(
            f"{merged.shards} shards merged: {merged.studies} studies, "
            f"{sum(merged.failed.values())} set aside, {merged.seconds:.1f} s"
        )
    print_out(
        f"{made.done} studies prepared, {made.skipped} there already, "
        f"{sum(made.failed.values())} set aside, {made.seconds:.1f} s"
    )
    failed = Counter(made.failed) | Counter(merged.failed if merged is not None else {})
    for reason, number in sorted(failed.items()):
        print_out(f"  {reason}: {number}")
    if failed:
        print_out(f"t3d info {cohort} lists every study set aside and why")


def _exit_code(*failed: Mapping[str, int]) -> int:
    """Say whether anything failed that was not left out on purpose."""
    from t3d.cohort.listing import LEFT_OUT_ON_PURPOSE

    return FAILED if set().union(*failed) - LEFT_OUT_ON_PURPOSE else 0


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
    from t3d.show.doctor import audit_csv, audit_json, audit_page, audit_text
    from t3d.show.terminal import Progress

    told = pairs(settings, "--with", "kernel=B40f")
    subject = _opened(what, kind, told) if kind or told else subject_at(what)
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
