"""Fabricated folders of small CTs with reports, labels, masks, positions and items."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t3d.ct import nifti

WORLD = np.array([[0, 0, 4.0, -32], [0, 4.0, 0, -30], [6.0, 0, 0, 10], [0, 0, 0, 1.0]])
SPLITS = ("train", "dev", "test")


def body(number: int) -> NDArray[np.int16]:
    """A noisy cylinder in air, another one for each number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[-1:1:18j, -1:1:16j]
    inside = (y**2 + x**2 < 0.7)[None]
    noise = rng.normal(0, 15, (12, 18, 16))
    return np.rint(np.where(inside, 40, -1000) + noise).astype(np.int16)


def fabricate(root: Path, count: int, *, first: int = 0) -> Path:
    """Write a folder of `count` studies; called again with more, it appends the new ones."""
    (root / "volumes").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    rows, positions, items = [], [], []
    for number in range(first + count):
        name = f"p{number:04d}"
        if number >= first:
            voxels = body(number)
            nifti.write(root / "volumes" / f"{name}.nii.gz", voxels, WORLD)
            mask = (voxels > 20).astype(np.uint8)
            nifti.write(root / "masks" / f"{name}_body.nii.gz", mask, WORLD)
        findings = f"Nodule of {number} mm in the right upper lobe. No effusion."
        rows.append(
            {
                "volume": name,
                "findings": findings,
                "impression": "Nodule." if number % 2 else "",
                "patient": f"patient{number}",
                "split": SPLITS[number % 3],
                "Lung nodule": "1",
                "Pleural effusion": "0" if number % 2 else "",
                "sex": "F",
            }
        )
        end = findings.index(".") + 1
        told = {"volume": name, "section": "findings", "start": 0, "end": end}
        positions.append({**told, "finding": "Lung nodule", "z_mm": [40.0, 30.0, 50.0]})
        items.append({"volume": name, "finding": "Lung nodule", "large": True, "size_mm": 9.5})
    write_table(root, rows)
    for file, lines in (("positions.jsonl", positions), ("items.jsonl", items)):
        (root / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "terms.json").write_text('{"licence": "CC0", "citation": "nobody", "synthetic": true}')
    return root


def write_table(root: Path, rows: list[dict[str, str]]) -> None:
    """Write studies.csv."""
    with open(root / "studies.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows_of(root: Path) -> list[dict[str, str]]:
    """Read studies.csv back."""
    with open(root / "studies.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
