"""A fabricated tree laid out as AMOS22 is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_cases import blob, write_ijk, write_image, write_list

LABELS = {"0": "background", "1": "spleen", "2": "right kidney", "6": "liver", "15": "bladder"}


def pair(name: str, folder: str) -> dict[str, str]:
    return {
        "image": f"./images{folder}/{name}.nii.gz",
        "label": f"./labels{folder}/{name}.nii.gz",
    }


TOLD: dict[str, Any] = {
    "name": "AMOS",
    "labels": LABELS,
    "training": [
        pair("amos_0001", "Tr"),  # stored LAS
        pair("amos_0002", "Tr"),  # the same body and label, stored RAS
        pair("amos_0410", "Tr"),  # the last CT of training
        pair("amos_0411", "Tr"),  # MR
        pair("amos_0507", "Tr"),  # MR
        pair("amos_0005", "Tr"),  # no file
        pair("amos_0006", "Tr"),  # its label lies on another grid
        pair("amos_0007", "Tr"),  # listed here and in validation
    ],
    "validation": [
        pair("amos_0008", "Va"),
        pair("amos_0409", "Va"),  # the last CT of validation, but no label file
        pair("amos_0410", "Va") | {"image": "./imagesVa/amos_0412.nii.gz"},  # MR
        pair("amos_0007", "Va"),
    ],
    "test": [
        {"image": "./imagesTs/amos_0500.nii.gz", "label": "./labelsTs/amos_0500.nii.gz"},  # CT
        {"image": "./imagesTs/amos_0501.nii.gz"},  # MR
    ],
}
STUDIES = {
    "amos_0001": "train",
    "amos_0002": "train",
    "amos_0005": "train",
    "amos_0006": "train",
    "amos_0008": "test",
    "amos_0409": "test",
    "amos_0410": "train",
}
REASONS = {
    "amos_0007": "duplicate_key",
    "amos_0411": "not_ct",
    "amos_0412": "not_ct",
    "amos_0500": "not_asked_for",
    "amos_0501": "not_ct",
    "amos_0507": "not_ct",
    "imagesTr/amos_0009.nii.gz": "unlisted_file",
}


def fabricate(root: Path, *, seed: int | None = None) -> Path:
    """Write the tree; a seed shuffles the list."""
    write_list(root, TOLD, seed=seed)
    for name, folder, orientation in (
        ("amos_0001", "Tr", "LAS"),
        ("amos_0002", "Tr", "RAS"),
        ("amos_0410", "Tr", "RAS"),
        ("amos_0006", "Tr", "RAS"),
        ("amos_0007", "Tr", "RAS"),
        ("amos_0008", "Va", "RAS"),
    ):
        write_image(root / f"images{folder}" / f"{name}.nii.gz", orientation=orientation)
        labels = blob(6)[:, :, :-1] if name == "amos_0006" else blob(6)
        write_ijk(root / f"labels{folder}" / f"{name}.nii.gz", labels, orientation=orientation)
    write_image(root / "imagesVa" / "amos_0409.nii.gz")
    write_image(root / "imagesTs" / "amos_0500.nii.gz")
    write_image(root / "imagesTr" / "amos_0009.nii.gz")  # nobody lists it
    (root / "imagesTr" / "amos_0507.nii.gz").write_bytes(b"an MR, never opened")
    (root / "imagesTr" / "._amos_0001.nii.gz").write_bytes(b"0123456789")
    return root
