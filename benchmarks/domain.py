"""How often the domain rule calls phantoms foreign: as they are, and spoiled in known ways.

    python benchmarks/domain.py [--train 600] [--test 300] [--cohort FOLDER] [--json FILE]

The rule is fitted as training fits it (preset and grid of the demo). Each test phantom is
spoiled at its own grid, as a file would be, and then prepared again. `value` is the share
called out of domain, `baseline` that of the unchanged phantoms, `ratio` their quotient. The note
gives the share that the voxels alone give away, without the size in mm, and for flipped
phantoms the share whose axis is named. The same seeds give the same figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.prepare import prepare
from t3d.cohort.sources.folder import Folder
from t3d.cohort.store import Cohort
from t3d.ct.preparations import named_preparation
from t3d.ct.regrid import regrid
from t3d.learn.domain import DomainRule, DomainVerdict, fit_rule, judge
from t3d.phantom.layouts import write_folder
from t3d.phantom.presets import DEMO
from t3d.types import Volume

GRID = "demo"
UNCHANGED = "unchanged"
Change = Callable[[Volume], Volume]


def flipped(axis: int) -> Change:
    """Turn the voxels round and leave the header as it is."""
    return lambda volume: with_voxels(volume, np.flip(volume.voxels, axis))


def half(axis: int, *, upper: bool, padded: bool = False) -> Change:
    """Keep half of an axis: as a smaller field, or as a full one with air for the rest."""

    def change(volume: Volume) -> Volume:
        middle = volume.voxels.shape[axis] // 2
        kept = slice(middle, None) if upper else slice(None, middle)
        place = tuple(kept if a == axis else slice(None) for a in range(3))
        if not padded:
            return with_voxels(volume, volume.voxels[place])
        voxels = np.full_like(volume.voxels, -1024)
        voxels[place] = volume.voxels[place]
        return with_voxels(volume, voxels)

    return change


def spaced(*, z: float = 1.0, plane: float = 1.0) -> Change:
    """Multiply the spacing of the header and leave the voxels as they are."""

    def change(volume: Volume) -> Volume:
        scale = np.diag([z, plane, plane, 1.0])
        return replace(volume, world_from_voxel=volume.world_from_voxel @ scale)

    return change


def rescaled(*, slope: float = 1.0, intercept: float = 0.0) -> Change:
    """Apply a rescale slope and intercept that do not belong there, HU."""

    def change(volume: Volume) -> Volume:
        return with_voxels(volume, slope * volume.voxels.astype(np.float64) + intercept)

    return change


def noise(*, sd_hu: float | None) -> Change:
    """Give noise about water, or with None the patient's own voxels in random order."""

    def change(volume: Volume) -> Volume:
        rng = np.random.default_rng(list(volume.volume_id.encode()))
        if sd_hu is None:
            return with_voxels(volume, rng.permutation(volume.voxels.ravel()))
        return with_voxels(volume, rng.normal(0.0, sd_hu, volume.voxels.shape))

    return change


def with_voxels(volume: Volume, values: NDArray[np.generic]) -> Volume:
    """Put other values (HU) into a volume."""
    whole = np.rint(np.clip(values.astype(np.float64), -1024, 3071)).astype(np.int16)
    if whole.ndim == 1:
        whole = whole.reshape(volume.voxels.shape)
    return replace(volume, voxels=np.ascontiguousarray(whole))


CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        UNCHANGED: lambda volume: volume,
        "flipped left to right": flipped(2),
        "flipped front to back": flipped(1),
        "flipped head to foot": flipped(0),
        "lower half of z": half(0, upper=False),
        "upper half of z": half(0, upper=True),
        "right half of x": half(2, upper=False),
        "left half of x": half(2, upper=True),
        "lower half of z, air above": half(0, upper=False, padded=True),
        "upper half of z, air below": half(0, upper=True, padded=True),
        "right half of x, air beside": half(2, upper=False, padded=True),
        "left half of x, air beside": half(2, upper=True, padded=True),
        "slice spacing x 0.5": spaced(z=0.5),
        "slice spacing x 2": spaced(z=2.0),
        "pixel spacing x 1.3": spaced(plane=1.3),
        "slice spacing x 0.9": spaced(z=0.9),
        "slice spacing x 1.1": spaced(z=1.1),
        "pixel spacing x 0.9": spaced(plane=0.9),
        "pixel spacing x 1.1": spaced(plane=1.1),
        "white noise, sd 1000 HU": noise(sd_hu=1000.0),
        "water noise, sd 30 HU": noise(sd_hu=30.0),
        "own voxels shuffled": noise(sd_hu=None),
        "200 HU too bright": rescaled(intercept=200.0),
        "50 HU too bright": rescaled(intercept=50.0),
        "slope 0.8 too much": rescaled(slope=0.8),
    }
)


def made_cohort(folder: Path, *, train: int, test: int, workers: int = 2) -> Cohort:
    """Draw and prepare the phantoms; what is there already is left alone."""
    write_folder(folder / "source", DEMO, train=train, dev=0, test=test, workers=workers, masks=())
    prepare(Folder(folder / "source"), folder / "cohort", named_preparation(GRID), workers=workers)
    return Cohort.open(folder / "cohort")


def volumes_of(cohort: Cohort, split: str, count: int) -> list[str]:
    """List the first volumes of a split in order of their ids."""
    ids = sorted(row.volume_ids[0] for row in cohort.studies(split) if row.volume_ids)
    return ids[:count]


def measure(cohort: Cohort, *, train: int, test: int) -> list[dict[str, object]]:
    """Fit the rule on training phantoms and give one row per kind of change."""
    rule = fit_rule(cohort, GRID, volumes_of(cohort, "train", train))
    ids = volumes_of(cohort, "test", test)
    verdicts: dict[str, list[DomainVerdict]] = {name: [] for name in CHANGES}
    for volume_id in ids:
        volume = cohort.volume(volume_id, GRID)
        for name, verdict in verdicts_of(rule, volume).items():
            verdicts[name].append(verdict)
    return rows_of(verdicts)


def verdicts_of(rule: DomainRule, volume: Volume) -> dict[str, DomainVerdict]:
    """Judge one phantom after each change."""
    grid = named_preparation(GRID)
    return {name: judge(rule, regrid(change(volume), grid)) for name, change in CHANGES.items()}


def rows_of(verdicts: Mapping[str, list[DomainVerdict]]) -> list[dict[str, object]]:
    """Turn verdicts into rows."""
    usual = _share([not verdict.inside for verdict in verdicts[UNCHANGED]])
    rows: list[dict[str, object]] = []
    for name, told in verdicts.items():
        rate = _share([not verdict.inside for verdict in told])
        voxels = _share([any(" size " not in r for r in verdict.reasons) for verdict in told])
        note = f"voxels alone {voxels:.3f}, n {len(told)}"
        if name.startswith("flipped "):
            words = f"mirrored {name.removeprefix('flipped ')}:"
            named = _share([any(words in r for r in verdict.reasons) for verdict in told])
            note += f", axis named {named:.3f}"
        rows.append(
            {
                "name": name,
                "value": round(rate, 4),
                "unit": "share out of domain",
                "baseline": round(usual, 4),
                "ratio": round(rate / usual, 1) if usual else None,
                "note": note,
            }
        )
    return rows


def _share(told: list[bool]) -> float:
    return sum(told) / len(told) if told else float("nan")


def main() -> int:
    """Print the table; exit code 1 where more than 5 % of unchanged phantoms are called out."""
    parser = argparse.ArgumentParser(description="Rates of the domain rule on phantoms.")
    parser.add_argument("--train", type=int, default=600)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cohort", type=Path, help="a prepared demo cohort instead of a new one")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cohort = (
            Cohort.open(given.cohort)
            if given.cohort
            else made_cohort(
                Path(folder), train=given.train, test=given.test, workers=given.workers
            )
        )
        rows = measure(cohort, train=given.train, test=given.test)
    for row in rows:
        sys.stdout.write(f"{row['name']:<28} {row['value']:>7} out of domain  {row['note']}\n")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")
    return 0 if float(str(rows[0]["value"])) <= 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
