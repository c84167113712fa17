"""Write a phantom cohort as a plain folder of NIfTI files and tables.

    OUT/
    |-- phantom.json      "synthetic": true, preset, digest, seeds; written last = complete
    |-- README.md
    |-- studies.csv       volume, study, patient, split, findings, impression, sex, age, 18 labels;
    |                     `language` too unless every report is English
    |-- positions.jsonl   {volume, section, start, end, finding, z_mm: [centre, low, high]}
    |-- items.jsonl       {volume, finding, large, side, place, size_mm, kind}
    |-- volumes/ID.nii.gz
    `-- masks/ID_lesion.nii.gz, masks/ID_organ.nii.gz

While it is being written, OUT/.parts holds the request and one file for each finished patient.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from t3d.ct import nifti
from t3d.errors import RecipeError, StoreError
from t3d.phantom.items import WrittenReport
from t3d.phantom.patient import Phantom, patient
from t3d.phantom.presets import Preset
from t3d.phantom.report import GRAMMARS, write_report
from t3d.phantom.streams import stream
from t3d.text.findings import CT_RATE_18

SPLITS = ("train", "dev", "test")

SEEDS_PER_SPLIT = 300_000
"""Seeds of the splits of one cohort come from ranges of this length that do not overlap."""

SEEDS_PER_COHORT = 1_000_000

COLUMNS = (
    *("volume", "study", "patient", "split", "findings", "impression", "sex", "age"),
    *CT_RATE_18,
)

ORGANS = ("right lung", "left lung", "heart", "aorta", "airway", "liver", "spleen", "vertebrae")

TERMS = {
    "licence": "CC0-1.0: drawn by rule, no patient stands behind it",
    "citation": "t3d synthetic chest CT",
    "synthetic": True,
}

README = """# Synthetic chest CT

Every image, report and label in this folder was made by a program (`synthetic: true`). No
patient exists. It is for tests and demonstrations, never for clinical conclusions.

`studies.csv` has one row a volume; `positions.jsonl` places sentences about positive findings,
z in LPS world mm as [centre, lowest, highest]; `items.jsonl` lists what was put in. Codes of the
masks and the settings are in `phantom.json`.
"""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One patient to be written."""

    out: Path
    preset: Preset
    seed: int
    split: str
    with_masks: bool
    language: str  # ISO 639-1

    @property
    def part(self) -> Path:
        return self.out / ".parts" / f"{phantom_id(self.seed)}.json"


def phantom_id(seed: int) -> str:
    """Give the id of a patient, its study and its volume: "phantom-000123"."""
    return f"phantom-{seed:06d}"


def split_seeds(seed: int, split: str, count: int) -> range:
    """Give the patients' seeds of one split of one cohort.

    Args:
        seed: The cohort's seed, 0 or more.
        split: "train", "dev" or "test".
        count: How many patients.

    Returns:
        A range that meets no other split's and no other cohort's range.

    Raises:
        RecipeError: The seed is negative or the count does not fit.
    """
    if not 0 <= count <= SEEDS_PER_SPLIT or seed < 0:
        raise RecipeError(
            f"{count} phantoms in split {split!r}, seed {seed}",
            expected=f"0 to {SEEDS_PER_SPLIT} a split and a seed of 0 or more",
            fix="write several cohorts with different seeds",
        )
    start = seed * SEEDS_PER_COHORT + SPLITS.index(split) * SEEDS_PER_SPLIT
    return range(start, start + count)


def write_folder(
    out: Path,
    preset: Preset,
    *,
    train: int,
    dev: int,
    test: int,
    seed: int = 0,
    workers: int = 2,
    masks: tuple[str, ...] = ("dev", "test"),
    language: str | Mapping[str, float] = "en",
    progress: Progress | None = None,
) -> None:
    """Write a cohort; the same arguments give the same bytes.

    A call that was cut off goes on where it stopped; a call whose folder is complete does
    nothing.

    Args:
        out: Folder to make.
        preset: Kind of cohort.
        train: Number of patients for training.
        dev: Number for choices.
        test: Number for the final figures.
        seed: Another seed gives other patients throughout.
        workers: Processes of one thread each; 1 = no other process.
        masks: Splits whose lesion and organ masks are written.
        language: Code of the reports' language, or the share of patients for each of several,
            as in {"en": 0.5, "de": 0.5}. Nothing but the reports depends on it.
        progress: Called with (patients done, patients in all).

    Raises:
        StoreError: The folder holds something else, or a cohort made with other arguments.
        RecipeError: A count, the seed, a split's name or a language is out of range.
    """
    out = Path(out)
    counts = {"train": train, "dev": dev, "test": test}
    shares = _shares(language)
    request = _request(preset, counts, seed, masks)
    if set(shares) != {"en"}:  # absent otherwise: an English cohort keeps its bytes
        request["languages"] = shares
    if _is_complete(out, request):
        return
    _open_parts(out, request)
    jobs = [
        _Job(
            out=out,
            preset=preset,
            seed=s,
            split=split,
            with_masks=split in masks,
            language=_language(s, shares),
        )
        for split in SPLITS
        for s in split_seeds(seed, split, counts[split])
    ]
    open_jobs = [job for job in jobs if not job.part.exists()]
    done = len(jobs) - len(open_jobs)
    for _ in _run(open_jobs, workers):
        done += 1
        if progress is not None:
            progress(done, len(jobs))
    _gather(out, jobs, with_language="languages" in request)
    (out / "README.md").write_text(README, encoding="ascii")
    (out / "terms.json").write_text(json.dumps(TERMS, indent=1) + "\n", encoding="ascii")
    _write_whole(out / "phantom.json", json.dumps(request, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(out / ".parts")


def _request(
    preset: Preset, counts: Mapping[str, int], seed: int, masks: Sequence[str]
) -> dict[str, Any]:
    """Give what phantom.json says: everything that fixes the bytes of the folder."""
    unknown = sorted(set(masks) - set(SPLITS))
    if unknown:
        raise RecipeError(
            f"masks of splits {unknown}", expected=f"names among {SPLITS}", fix="correct `masks`"
        )
    seeds = {split: split_seeds(seed, split, counts[split]) for split in SPLITS}
    return {
        "synthetic": True,
        "preset": json.loads(preset.to_json()),
        "digest": preset.digest,
        "seed": seed,
        "splits": {s: {"first_seed": r.start, "patients": len(r)} for s, r in seeds.items()},
        "masks": sorted(masks),
        "lesion_codes": {name: k + 1 for k, name in enumerate(CT_RATE_18)},
        "organ_codes": {name: k + 1 for k, name in enumerate(ORGANS)},
        "z_mm": "LPS world mm: centre, lowest, highest of the finding's mask",
    }


def _shares(language: str | Mapping[str, float]) -> dict[str, float]:
    """Give the share of patients for each language that has one, in the order of codes."""
    asked = {language: 1.0} if isinstance(language, str) else dict(language)
    whole = abs(sum(asked.values()) - 1.0) < 1e-9
    if not (asked and set(asked) <= set(GRAMMARS) and min(asked.values()) >= 0 and whole):
        raise RecipeError(
            f"languages of phantom reports: {asked}",
            expected=f"codes among {tuple(GRAMMARS)} with shares of 0 or more that add up to 1",
            fix='write language="de" or language={"en": 0.5, "de": 0.5}',
        )
    return {code: float(asked[code]) for code in sorted(asked) if asked[code] > 0}


def _language(seed: int, shares: Mapping[str, float]) -> str:
    """Draw the language of a patient's reports from a stream of its own."""
    drawn, reached = float(stream(seed, "language").random()), 0.0
    for code, share in shares.items():
        reached += share
        if drawn < reached:
            return code
    return list(shares)[-1]  # the shares add up to a little less than 1


def report_in(made: Phantom, language: str) -> WrittenReport:
    """Write a patient's report in a language: the same truth, that language's own grammar.

    Args:
        made: The patient; its own report is English.
        language: A code of `GRAMMARS`.

    Returns:
        The report and its sentences; for "en" the very one of the patient.
    """
    if language == "en":
        return made.report
    rng = stream(made.seed, "report")
    return write_report(made.labels, made.items, rng, grammar=GRAMMARS[language])


def _is_complete(out: Path, request: Mapping[str, Any]) -> bool:
    """Say whether a folder holds this cohort already; another one is an error."""
    marker = out / "phantom.json"
    if not marker.exists():
        return False
    _must_equal(json.loads(marker.read_text()), request)
    shutil.rmtree(out / ".parts", ignore_errors=True)
    return True


def _open_parts(out: Path, request: Mapping[str, Any]) -> None:
    """Begin a folder, or go on with one that was cut off."""
    parts = out / ".parts"
    if not (parts / "request.json").exists():
        if out.exists() and any(p != parts for p in out.iterdir()):
            raise StoreError(
                "the folder for the phantom cohort is not empty",
                expected="a new or empty folder, or one whose writing was cut off",
                fix="choose another folder",
            )
        parts.mkdir(parents=True, exist_ok=True)
        _write_whole(parts / "request.json", json.dumps(request))
    _must_equal(json.loads((parts / "request.json").read_text()), request)
    for folder in (out / "volumes", out / "masks"):
        folder.mkdir(exist_ok=True)
        for half_written in folder.glob("*.tmp"):
            half_written.unlink()


def _must_equal(found: Mapping[str, Any], request: Mapping[str, Any]) -> None:
    """Refuse a folder that was made with other arguments, naming them."""
    other = sorted(k for k in {*found, *request} if found.get(k) != request.get(k))
    if other:
        raise StoreError(
            "the folder holds a phantom cohort that differs in " + ", ".join(other),
            expected="the arguments it was begun with",
            fix="choose another folder, or delete this one",
        )


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[None]:
    """Write patients, here or in processes of one thread each."""
    if workers <= 1 or len(jobs) < 2:
        for job in jobs:
            _write_patient(job)
            yield
        return
    with _single_threaded(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(_write_patient, job) for job in jobs]
        try:
            for task in as_completed(tasks):
                task.result()
                yield
        finally:
            for task in tasks:
                task.cancel()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes started inside use one thread each, as the core count is theirs to fill."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _write_patient(job: _Job) -> None:
    """Write the files of one patient, last of all its part."""
    made = patient(job.seed, preset=job.preset)
    matrix, name = made.volume.world_from_voxel, phantom_id(job.seed)
    nifti.write(job.out / "volumes" / f"{name}.nii.gz", made.volume.voxels, matrix)
    if job.with_masks:
        nifti.write(job.out / "masks" / f"{name}_lesion.nii.gz", made.lesion, matrix)
        nifti.write(job.out / "masks" / f"{name}_organ.nii.gz", made.organ, matrix)
    _write_whole(job.part, json.dumps(_rows(made, name, job)))


def _rows(made: Phantom, name: str, job: _Job) -> dict[str, Any]:
    """Give the rows of the three tables that one patient fills."""
    written = report_in(made, job.language)
    report = written.report
    study = {
        "volume": name,
        "study": name,
        "patient": name,
        "split": job.split,
        "language": report.language,
        "findings": report.findings,
        "impression": report.impression,
        "sex": made.facts["sex"],
        "age": made.facts["age"],
        **made.labels,
    }
    positions = [
        {
            "volume": name,
            "section": s.section,
            "start": s.start,
            "end": s.end,
            "finding": s.finding,
            "z_mm": [round(z, 2) for z in s.z_mm],
        }
        for s in written.sentences
        if s.z_mm is not None
    ]
    items = [
        {
            "volume": name,
            "finding": p.item.finding,
            "large": p.item.large,
            "side": p.item.side,
            "place": p.item.place,
            "size_mm": round(p.item.size_mm, 2),
            "kind": p.item.kind,
        }
        for p in made.items
    ]
    return {"study": study, "positions": positions, "items": items}


def _gather(out: Path, jobs: Iterable[_Job], *, with_language: bool) -> None:
    """Join the parts into the three tables, in the order of the jobs."""
    columns = (*COLUMNS, "language") if with_language else COLUMNS
    parts = [json.loads(job.part.read_text()) for job in jobs]
    with (out / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(part["study"] for part in parts)
    for key in ("positions", "items"):
        lines = [json.dumps(row) + "\n" for part in parts for row in part[key]]
        (out / f"{key}.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
