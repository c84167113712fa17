"""A fabricated tree laid out as Task06_Lung of the Decathlon is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from made_cases import blob, write_ijk, write_image, write_list
from made_nifti import SIZE


def pair(name: str) -> dict[str, str]:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


TOLD: dict[str, Any] = {
    "name": "LUNG",
    "licence": "CC-BY-SA 4.0",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "cancer"},
    "numTraining": 5,  # untrue, and not believed
    "training": [
        pair("lung_001"),
        pair("lung_003"),
        pair("lung_003"),  # twice the same
        pair("lung_004"),  # its label is no file
        pair("lung_005"),  # 4-D
        pair("lung_006"),  # a label of fractions
        pair("lung_009"),  # listed with two label files
        pair("lung_009") | {"label": "./labelsTr/lung_001.nii.gz"},
        pair("._lung_001"),  # a shadow that found its way into the list
    ],
    "test": ["./imagesTs/lung_002.nii.gz"],
}
STUDIES = ("lung_001", "lung_003", "lung_004", "lung_005", "lung_006")
REASONS = {
    "imagesTr/lung_007.nii.gz": "unlisted_file",
    "lung_002": "not_asked_for",
    "lung_009": "duplicate_key",
}
TUMOUR = np.zeros(SIZE[::-1], np.uint8)  # i, j, k
TUMOUR[20, 20, 10] = 1  # one voxel


def fabricate(root: Path, *, seed: int | None = None) -> Path:
    """Write the tree; a seed shuffles the list."""
    write_list(root, TOLD, seed=seed)
    for name in ("lung_001", "lung_003", "lung_004", "lung_006", "lung_009", "lung_007"):
        write_image(root / "imagesTr" / f"{name}.nii.gz", seed=name)
    write_image(root / "imagesTs" / "lung_002.nii.gz", seed="lung_002")
    body = np.stack([blob(1).astype(np.int16)] * 2, axis=-1)
    write_ijk(root / "imagesTr" / "lung_005.nii.gz", body)
    write_ijk(root / "labelsTr" / "lung_001.nii.gz", TUMOUR)
    for name in ("lung_003", "lung_005", "lung_009"):
        write_ijk(root / "labelsTr" / f"{name}.nii.gz", blob())
    write_ijk(root / "labelsTr" / "lung_006.nii.gz", blob().astype(np.float32) * 0.5)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder / "._lung_001.nii.gz").write_bytes(b"0123456789")
    (root / "imagesTr" / "_lung_008.nii.gz").write_bytes(b"0123456789")
    return root
