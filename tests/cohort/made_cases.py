"""Fabricated cases with label maps, as AMOS and the Decathlon lay them out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from made_nifti import SIZE, hounsfield

SPACING = (0.8, 0.8, 3.0)  # i, j, k in mm
BLOB = (slice(24, 32), slice(8, 14), slice(6, 12))  # of a RAS file: to the right, at the back


def blob(value: int = 1) -> NDArray[np.uint8]:
    """A label map in RAS order (i, j, k) with one box of a value."""
    labels = np.zeros(SIZE[::-1], np.uint8)
    labels[BLOB] = value
    return labels


def write_ijk(path: Path, ras: NDArray[Any], *, orientation: str = "RAS") -> Path:
    """Write an array given in RAS order (i, j, k, ...) as a file of that or another order.

    Args:
        path: Its folder is made.
        ras: First axis to the right, second to the front, third up.
        orientation: "RAS", or "LAS": the first axis stored the other way round.
    """
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-16.0, -16.0, 5.0)
    stored = ras
    if orientation == "LAS":
        affine[0, 3] += affine[0, 0] * (ras.shape[0] - 1)
        affine[0, 0] = -affine[0, 0]
        stored = ras[::-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored), affine)
    nibabel.save(image, path)
    return path


def write_image(path: Path, *, seed: str = "one body", orientation: str = "RAS") -> Path:
    """Write a CT of sorts; the same seed gives the same body."""
    return write_ijk(path, hounsfield(seed).T, orientation=orientation)


def write_list(root: Path, told: dict[str, Any], *, seed: int | None = None) -> None:
    """Write dataset.json; a seed shuffles keys and lists."""
    if seed is not None:
        rng = random.Random(seed)
        keys = list(told)
        rng.shuffle(keys)
        told = {key: told[key] for key in keys}
        for key, value in told.items():
            if isinstance(value, list):
                told[key] = rng.sample(value, len(value))
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
