"""A fabricated tree laid out as ReXGroundingCT is, beside one of CT-RATE volumes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from made_ct_rate import Made, write_volume

SHAPE = (40, 40, 24)  # i, j, k of the volumes of made_ct_rate


def entry(volume: str, *texts: str, **more: Any) -> dict[str, Any]:
    """One entry as the data card shows it."""
    return {
        "name": f"{volume}.nii.gz",
        "findings": {str(n): text for n, text in enumerate(texts)},
        "shape": list(SHAPE),
        **more,
    }


TOLD: dict[str, Any] = {
    "train": [
        entry(
            "train_1_a_1",
            "Nodule in the left lung.",
            "Effusion on\nthe right.",
            categories={"0": "2d", "1": "2e"},
            entity_counts={"0": 2, "1": 1},
            protocol="protocol1",
            never_seen_key=[1, 2],
        ),
        entry("train_2_a_1", "One finding."),
        entry("train_2_a_2", "Its other volume is told otherwise."),
        entry("train_3_a_1", "The patient is in val too."),
        entry("train_4_a_1", "Twice.", "Apart."),
        entry("train_4_a_1", "Twice."),
        entry("train_5_a_1", "No volume on disk."),
        entry("train_6_a_1", "No mask on disk."),
        entry("train_7_a_1", "One.", "Masks of one finding only."),
        entry("train_8_a_1", "Masks of another shape."),
        entry("train_9_a_1", "Listed in train and in test."),
        {"name": "train_10_a_1.nii.gz", "findings": {"1": "Numbered from 1."}},
        entry("train_11_a_1", "", "The first finding has no words."),
        entry("train_12_a_1", "One finding stored without an axis of its own."),
    ],
    "val": [
        entry("train_3_b_1", "The patient is in train too."),
        entry("train_20_a_1", "Validation is exhaustive."),
    ],
    "test": [
        entry("train_30_a_1", "Kept back."),
        entry("train_9_a_1", "Listed in train and in test."),
    ],
}
STUDIES = {
    "train_1_a": "train",
    "train_2_a_1": "train",
    "train_2_a_2": "train",
    "train_3_b": "dev",
    "train_5_a": "train",
    "train_6_a": "train",
    "train_7_a": "train",
    "train_8_a": "train",
    "train_9_a": "test",
    "train_11_a": "train",
    "train_12_a": "train",
    "train_20_a": "dev",
    "train_30_a": "test",
}
REASONS = {
    "train_3_a": "split_leak",
    "train_4_a_1": "duplicate_key",
    "train_9_a_1 in train": "split_leak",
    "train_10_a_1": "unreadable",
    "train_99_a_1": "unlisted_file",
}
ON_DISK = (1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 20, 30)


def masks() -> NDArray[np.uint8]:
    """Two findings in file order (2, i, j, k): lesions 1 and 2 of the first, one of the second."""
    held = np.zeros((2, *SHAPE), np.uint8)
    held[0, 4:8, 10:14, 3] = 1
    held[0, 4:8, 10:20, 6] = 2
    held[1, 30:35, 20:30, 15:20] = 1
    return held


def write_masks(path: Path, stored: NDArray[Any], affine: NDArray[Any] | None = None) -> Path:
    """Write a stack as others do: the array as it stands, with any matrix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4) if affine is None else affine), path)
    return path


def fabricate(root: Path, *, seed: int | None = None) -> Path:
    """Write index, masks and volumes; a seed shuffles the lists."""
    told = TOLD
    if seed is not None:
        rng = random.Random(seed)
        told = {key: rng.sample(value, len(value)) for key, value in reversed(TOLD.items())}
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    one = masks()[:1]
    for number in ON_DISK:
        write_volume(root / "ct-rate", Made(f"train_{number}_a_1", ""), version=2)
    write_volume(root / "ct-rate", Made("train_2_a_2", ""), version=2)
    write_volume(root / "ct-rate", Made("train_3_b_1", ""), version=2)
    write_volume(root / "ct-rate", Made("train_1_a_1", ""), version=1)  # never taken
    place = root / "segmentations"
    write_masks(place / "train_1_a_1.nii.gz", masks())
    write_masks(place / "train_7_a_1.nii.gz", one)
    write_masks(place / "train_8_a_1.nii.gz", one[:, :, :, :-1])
    write_masks(place / "train_11_a_1.nii.gz", masks())
    write_masks(place / "train_12_a_1.nii.gz", one[0])
    for volume in ("train_2_a_1", "train_2_a_2", "train_3_b_1", "train_5_a_1", "train_20_a_1"):
        write_masks(place / f"{volume}.nii.gz", one)
    write_masks(place / "train_99_a_1.nii.gz", one)  # no entry
    return root
