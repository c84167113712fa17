r"""What the supporting slice of `t3d screen` is worth: does it lie where the finding is?

    python benchmarks/evidence.py --run demo/runs/t3d_plus --cohort demo/cohort \
        --json docs/results/evidence.json

For every finding that a phantom has: is the slice within half a place (1/32 of the volume's
depth) of the depths that the report's sentences speak of? Beside it the share of all places that
are (chance), and whether the middle of the volume is. `focal` = at most 60 mm deep; most others
cross half the volume, where any slice is right. Phantoms, never clinical.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t3d.api import NUM_PLACES, LoadedModel, load
from t3d.cohort.store import Cohort
from t3d.text.findings import CT_RATE_18
from t3d.types import Volume

FOCAL_MM = 60.0
Extent = tuple[float, float, float]  # centre, low, high in LPS mm
Hit = tuple[bool, bool, float, bool]  # focal, slice right, share of places right, middle right


def extents(cohort: Cohort, study_id: str) -> dict[str, list[Extent]]:
    """Depths of the findings that the report's sentences speak of."""
    found: dict[str, list[Extent]] = {}
    for sentence in cohort.sentences(study_id):
        if sentence.finding in CT_RATE_18 and sentence.z_mm is not None:
            found.setdefault(sentence.finding, []).append(sentence.z_mm)
    return found


def apart_mm(z_mm: float, places: Sequence[Extent]) -> float:
    """Distance from a depth to the nearest extent, 0 inside."""
    return min(max(low - z_mm, z_mm - high, 0.0) for _, low, high in places)


def hits(model: LoadedModel, volume: Volume, truth: dict[str, list[Extent]]) -> list[Hit]:
    """Hold one scan's supporting slices against the truth."""
    step, first = volume.world_from_voxel[2, 0], volume.world_from_voxel[2, 3]
    depth = volume.voxels.shape[0]
    centres = first + step * ((np.arange(NUM_PLACES) + 0.5) * depth / NUM_PLACES - 0.5)
    near = step * depth / NUM_PLACES / 2
    rows = []
    for row in model.screen(volume, tuple(truth)).findings:
        places = truth[row.finding]
        share = float(np.mean([apart_mm(z, places) <= near for z in centres]))
        middle = apart_mm(first + step * (depth - 1) / 2, places) <= near
        focal = max(high - low for _, low, high in places) <= FOCAL_MM
        rows.append((focal, apart_mm(row.z_mm, places) <= near, share, middle))
    return rows


def main() -> None:
    """Measure one run on one split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    model, cohort = load(told.run), Cohort.open(told.cohort)
    rows: list[Hit] = []
    for study in cohort.studies(told.split):
        truth = extents(cohort, study.study_id)
        if truth:
            rows += hits(model, cohort.volume(study.volume_ids[0]), truth)
    table = []
    for name, some in (("all", rows), ("focal", [row for row in rows if row[0]])):
        right, chance, middle = (float(np.mean([row[k] for row in some])) for k in (1, 2, 3))
        note = f"{len(some)} findings, {told.split}; chance {chance:.3f}, middle {middle:.3f}"
        ratio = round(right / chance, 2)
        table.append(
            {
                "name": f"{told.run.name}: slice right, {name}",
                "value": round(right, 3),
                "unit": "share",
                "baseline": round(chance, 3),
                "ratio": ratio,
                "note": note,
            }
        )
        sys.stdout.write(f"{table[-1]['name']:40} {right:.3f}  x {ratio} of chance  ({note})\n")
    if told.json is not None:
        told.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
