"""A fabricated tree laid out as RadGenome-ChestCT is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from made_nifti import SIZE, hounsfield, write_volume
from made_tables import Rows, write_table
from t3d.ct import nifti

WHOLE = (
    "Trachea and main bronchi are open. A nodule of 4 mm is seen in the left lung. "
    "Emphysema in both lungs. Heart size is normal. No lytic lesion."
)
WORLD = np.array([[0, 0, 0.8, -14.0], [0, 0.8, 0, -10.0], [3.0, 0, 0, 30.0], [0, 0, 0, 1.0]])


def rows(volume: str, regions: dict[str, str]) -> Rows:
    """Rows of one volume; region "" = the whole report."""
    return [
        {"Volumename": f"{volume}.nii.gz", "Anatomy": region, "Sentence": text}
        for region, text in regions.items()
    ]


TOLD = {
    # Found word by word, sentence by sentence, in another case, and as a region we do not know.
    "lung": "A nodule of 4 mm is seen in the left lung.  Emphysema in both lungs.",
    "trachea and bronchie": "Trachea and main bronchi are open.",
    "heart": "heart size is normal.",
    "others": "No lytic lesion.",
    "": WHOLE,
}
TRAIN: Rows = [
    *rows("train_1_a_1", TOLD),
    *rows("train_1_a_2", TOLD),  # another reconstruction, told alike
    *rows("train_1_b_1", {"lung": "Clear lungs.", "bone": "No fracture."}),  # no whole report
    *rows("train_2_a_1", {"": "Whole report.", "pleura": "No effusion."}),  # not in the whole
    *rows("train_3_a_1", {"": "nan", "lung": "Not given."}),
    *rows("train_4_a_1", {"lung": "One."}),
    *rows("train_4_a_2", {"lung": "Another."}),
    *rows("train_5_a_1", {"lung": "No volume on disk."}),
    *rows("train_6_a_1", {"lung": "Masks on the original grid."}),
    *rows("train_7_a_1", {"lung": "Two files of its name."}),
]
VALID: Rows = rows("valid_1_a_1", {"": "Whole report. Clear lungs.", "lung": "Clear lungs."})
STUDIES = ("train_1_a", "train_1_b", "train_2_a", "train_3_a", "train_4_a", "train_5_a")
STUDIES += ("train_6_a", "valid_1_a")
REASONS = {
    "train_1_a_1/masks": "missing_file",  # trachea; the others have one
    "train_1_a_1/rib cage": "unlisted_file",
    "train_1_a_2/masks": "missing_file",
    "train_1_b_1/masks": "missing_file",
    "train_2_a_1/masks": "missing_file",
    "train_4_a_1/masks": "missing_file",
    "train_4_a_2": "duplicate_key",
    "train_5_a_1/masks": "missing_file",
    "train_7_a_1": "duplicate_key",
    "train_8_a_1": "unlisted_file",
    "valid_1_a_1/masks": "missing_file",
}


def mask(value: int = 1) -> NDArray[np.uint8]:
    """A label map on the grid of the volumes."""
    held = np.zeros(SIZE, np.uint8)
    held[4:9, 10:20, 22:30] = value
    return held


def place(split: str, volume: str) -> Path:
    """Where a volume lies."""
    study = volume.rsplit("_", 1)[0]
    patient = study.rsplit("_", 1)[0]
    return Path(f"{split}_preprocessed", patient, study, f"{volume}.nii.gz")


def fabricate(root: Path, *, seed: int | None = None) -> Path:
    """Write tables, volumes and masks; a seed shuffles rows and columns."""
    top = root / "dataset"
    write_table(top / "radgenome_files" / "train_region_report.csv", TRAIN, seed=seed)
    write_table(top / "radgenome_files" / "validation_region_report.csv", VALID, seed=seed)
    for n, scan, nth in (
        *((1, "a", 1), (1, "a", 2), (1, "b", 1), (2, "a", 1), (3, "a", 1), (4, "a", 1)),
        *((4, "a", 2), (6, "a", 1), (7, "a", 1), (8, "a", 1)),
    ):
        write_volume(top / place("train", f"train_{n}_{scan}_{nth}"))
    write_volume(top / "train_preprocessed" / "copy" / "train_7_a_1.nii.gz")
    write_volume(top / place("valid", "valid_1_a_1"))
    masks = top / "train_region_mask"
    for name in ("lung", "heart", "rib cage"):
        path = masks / "seg_train_1_a_1" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nifti.write(path, mask(), WORLD)
    wrong = masks / "seg_train_6_a_1" / "lung.nii.gz"
    wrong.parent.mkdir()
    nifti.write(wrong, hounsfield("x")[:10].astype(np.uint8), WORLD)
    return root
