"""What `t3d.cohort.plan` reckons with: cost of a whole study by size and preparation.

    python benchmarks/plan.py                                # all parts
    python benchmarks/plan.py --real ../shared/data --json docs/results/plan_ct_rate.json

worker    one synthetic chest of 512 x 512 x 150, 300 and 600 (.nii.gz) in a worker's own function:
          read, put on the grid, checked, packed, written, synced; CPU seconds of a warm process
          beside gunzip alone, in turn, the fastest of the rounds: on a busy machine the others
          measure the load; and the straight line through the three
stored    size of a prepared volume; with --real of two chest CTs as well
writer    what the one writing process does for a study: record it; read it back and delete its file
engines   CPU of the process that hands out tasks, one task, local and on Ray where it is installed

`t3d.cohort.plan.MEASURED` repeats these figures; a test compares them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from prepare import write_chest  # first: it sets one thread, before numpy is imported

# isort: split
import numpy as np

from loader import Row, cpu_s, gunzip, row, show
from store import REAL
from t3d.cohort import engine
from t3d.cohort.emptying import Emptier
from t3d.cohort.prepare import prepare
from t3d.cohort.schema import VolumeRecord
from t3d.cohort.shelf import stage, volume_path
from t3d.cohort.sources import Folder
from t3d.cohort.work import Task, prepare_study
from t3d.cohort.writer import CohortWriter
from t3d.ct.preparations import named_preparation
from t3d.types import Series, Study

PREPARATIONS = ("paper", "paper_direct", "fine", "demo")
SLICES = (150, 300, 600)
PLANE_VOX = 512 * 512
NUM_RECORDS = 256  # one batch of the writer
LABELS = tuple(f"finding {n}" for n in range(18))
NUM_EMPTIED = 12
NUM_TASKS = 2000


def task_of(files: Sequence[Path], name: str, out: Path) -> Task:
    """A study of one series."""
    series = Series(series_id="scan", files=tuple(files))
    return Task(
        study=Study(study_id="scan", patient_id="scan", series=(series,)),
        series=(series,),
        recorded=(),
        megabytes=0.0,
        preparation=named_preparation(name),
        loss_hu=0,
        out=out,
        root=None,
    )


def do(task: Task) -> None:
    """Prepare; what failed would be measured for nothing."""
    answer = prepare_study(task)
    if answer.failures or answer.stopped:
        raise SystemExit(f"a scan was set aside: {answer.failures or answer.stopped}")


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and start of the line of least squares, through 0 where it would start below."""
    slope, start = np.polyfit(x, y, 1)
    if start < 0:
        return float(np.dot(x, y) / np.dot(x, x)), 0.0
    return float(slope), float(start)


def worker_part(folder: Path, rounds: int) -> list[Row]:
    """Cost against size, for each preparation."""
    scans = [write_chest(folder / f"chest{count}.nii.gz", count) for count in SLICES]
    pairs = [(name, place) for name in PREPARATIONS for place in range(len(SLICES))]
    actions: list[Callable[[], object]] = [
        partial(do, task_of((scans[place],), name, folder / "out")) for name, place in pairs
    ]
    actions += [partial(gunzip, scan) for scan in scans]
    spent_s: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds + 1):
        for kept, action in zip(spent_s, actions, strict=True):
            kept.append(cpu_s(action))
    fastest = [min(kept[1:]) for kept in spent_s]  # the first round warms up
    times, floor = dict(zip(pairs, fastest, strict=False)), fastest[len(pairs) :]
    rows = [
        row(f"gunzip, {count} slices", value, "CPU s")
        for count, value in zip(SLICES, floor, strict=True)
    ]
    for name in PREPARATIONS:
        spent = [times[name, place] for place in range(len(SLICES))]
        for count, value, least in zip(SLICES, spent, floor, strict=True):
            rows.append(row(f"{name}, {count} slices", value, "CPU s", least, "baseline: gunzip"))
        slope, start = line([n * PLANE_VOX / 1e9 for n in SLICES], spent)
        rows.append(row(f"{name}, a study", start, "CPU s", note="line through the three"))
        rows.append(row(f"{name}, 1e9 voxels read", slope, "CPU s", note="its slope"))
    return rows


def stored_part(folder: Path, real: Path | None) -> list[Row]:
    """Sizes as stored, of int16."""
    scans = {"synthetic chest": (folder / "chest300.nii.gz",)}
    for title, place in REAL.items() if real else ():
        files = sorted(p for p in (real / "dicom" / place).iterdir() if p.is_file())
        scans[title] = tuple(files)
    rows = []
    for name in PREPARATIONS:
        for title, files in scans.items():
            answer = prepare_study(task_of(files, name, folder / "out"))
            (made,) = answer.volumes
            size = made.staged[-1].stat().st_size / 1e6
            whole = 2 * math.prod(made.shape) / 1e6
            shape = "x".join(map(str, made.shape))
            rows.append(row(f"{name}, stored, {title}", size, "MB", whole, f"{shape} as int16"))
    return rows


def records(folder: Path) -> Iterator[tuple[Study, VolumeRecord]]:
    """Studies with a report, each with a staged file."""
    for n in range(NUM_RECORDS):
        key = f"scan{n}"
        path, sha256 = stage(volume_path(folder, "made", key), bytes(1000))
        yield (
            Study(study_id=key, patient_id=key, series=(), labels=dict.fromkeys(LABELS, 0)),
            VolumeRecord(
                volume_id=key,
                sha256=sha256,
                shape=(1, 1, 1),
                world_from_voxel=((1.0, 0.0, 0.0, 0.0),) * 4,
                steps=("made",),
                staged=(path,),
            ),
        )


def writer_part(folder: Path) -> list[Row]:
    """Wall seconds of the one writing process; on whatever disk TMPDIR is."""
    with CohortWriter(folder / "recorded") as writer:
        told = list(records(folder / "recorded"))
        began = time.monotonic()
        for study, made in told:
            writer.record(study, "made", (made,))
        writer.commit()
    recorded = (time.monotonic() - began) / NUM_RECORDS
    source = folder / "source"
    (source / "volumes").mkdir(parents=True)
    names = [f"scan{n}" for n in range(NUM_EMPTIED)]
    for name in names:
        os.link(folder / "chest150.nii.gz", source / "volumes" / f"{name}.nii.gz")
    (source / "studies.csv").write_text("volume\n" + "".join(f"{n}\n" for n in names))
    out, paper = folder / "emptied", named_preparation("paper_direct")
    prepare(Folder(source), out, paper, workers=0)
    spent = []
    for _ in range(2):  # the second time nothing is left to delete
        began = time.monotonic()
        prepare(
            Folder(source), out, paper, workers=0, after=Emptier(Folder(source), out, force=True)
        )
        spent.append(time.monotonic() - began)
    deleted = (spent[0] - spent[1]) / NUM_EMPTIED
    return [
        row("one study recorded", 1000 * recorded, "ms", note=f"in a batch of {NUM_RECORDS}; wall"),
        row("one study emptied", 1000 * deleted, "ms", note="committed, read back, deleted; wall"),
    ]


def engines_part() -> list[Row]:
    """What handing out a task costs the process that does it."""
    runs = {"local": engine.run}
    if find_spec("ray"):
        from t3d.cohort import engine_ray

        runs["Ray"] = engine_ray.run
    rows = []
    for name, run in runs.items():
        spent = [0.0, 0.0]
        for place, count in enumerate((20, NUM_TASKS)):
            before = time.process_time()
            if sum(1 for _ in run(math.factorial, range(count), workers=2)) != count:
                raise SystemExit("tasks were lost")
            spent[place] = time.process_time() - before
        cost = (spent[1] - spent[0]) / (NUM_TASKS - 20)
        rows.append(row(f"one task handed out, {name}", 1000 * cost, "ms", note="CPU"))
    return rows


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--real", type=Path, help="folder with the real test data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = worker_part(folder, told.rounds)
        rows += stored_part(folder, told.real)
        rows += writer_part(folder)
    rows += engines_part()
    show(rows)
    if told.json is not None:
        told.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
