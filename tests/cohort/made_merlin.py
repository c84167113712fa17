"""A fabricated tree laid out as Merlin's abdominal CTs are."""

from __future__ import annotations

from pathlib import Path

from made_nifti import write_volume
from made_tables import Rows, write_table

FOLDER = "merlinabdominalctdataset"
TEXTS = {
    "AC0000001": "FINDINGS: Liver normal. IMPRESSION: 1. No acute disease.",
    "AC0000002": "FINDINGS:\nGallstones.\nIMPRESSION(S):\n1. Cholelithiasis.\n2. No obstruction.",
    "AC0000003": "Liver: fatty.\nKidneys: normal.\n1. Steatosis.\n2. Stones & sand <5 mm.",
    "AC0000004": "Liver normal. Spleen normal.",  # no boundary
    "AC0000005": "",
    "AC0000006": "FINDINGS: A.\nIMPRESSIONS: B.",  # no file
    "AC0000008": "FINDINGS: Whole. IMPRESSION: Plain .nii.",
    "0004241": "FINDINGS: An id of digits. IMPRESSION: Kept.",
}
REPORTS: Rows = [
    *(
        {"study id": key, "Findings": text, "Split": split, "Few Shot": few}
        for (key, text), split, few in zip(
            TEXTS.items(),
            ("train", "train", "val", "train", "test", "train", "test", "train"),
            ("", "", "", "1", "", "", "", ""),
            strict=True,
        )
    ),
    # Two different rows of one study.
    {"study id": "AC0000009", "Findings": "One.", "Split": "train", "Few Shot": ""},
    {"study id": "AC0000009", "Findings": "Another.", "Split": "train", "Few Shot": ""},
]
METADATA: Rows = [
    {
        "study id": key,
        "Age": "63",
        "Gender": "Female",
        "Race": "not kept",
        "contrast": "iv",
        "manufacturer": "M",
        "phase": "venous",
    }
    for key in ("AC0000001", "AC0000002")
]
LABELS: Rows = [
    {"study id": "AC0000001", "ascites": "0", "gallstones": "-1", "fracture": "1"},
    {"study id": "AC0000002", "ascites": "-1.0", "gallstones": "1.0", "fracture": ""},
]
REASONS = {"AC0000009": "duplicate_key", "AC0000007": "unlisted_file"}


def fabricate(root: Path, *, seed: int | None = None, volumes: bool = True) -> Path:
    """Write the tree; a seed shuffles every table."""
    folder = root / FOLDER
    write_table(folder / "reports_final.xlsx", REPORTS, seed=seed)
    write_table(folder / "metadata.csv", METADATA, seed=seed)
    write_table(folder / "zero_shot_findings_disease_cls.csv", LABELS, seed=seed)
    if volumes:
        for key in (*list(TEXTS)[:5], "AC0000007", "AC0000009", "0004241"):
            write_volume(folder / "merlin_data" / f"{key}.nii.gz")
        write_volume(folder / "merlin_data" / "AC0000008.nii")
    return root
