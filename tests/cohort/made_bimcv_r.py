"""A fabricated tree laid out as BIMCV-R is."""

from __future__ import annotations

from pathlib import Path

from made_nifti import write_volume
from made_tables import Rows, write_table

ONE = "sub-S01_ses-E01_run-1_bp-chest_ct"
ONE_AGAIN = "sub-S01_ses-E01_run-2_bp-chest_ct"  # the same session, the same report
LATER = "sub-S01_ses-E02_run-1_bp-chest_ct"
TWO_A = "sub-S02_ses-E03_run-1_bp-chest_ct"  # one session, two reports
TWO_B = "sub-S02_ses-E03_run-2_bp-chest_ct"
NO_FILE = "sub-S03_ses-E04_run-1_bp-chest_ct"
NO_ROW = "sub-S04_ses-E05_run-1_bp-chest_ct"
TWICE = "sub-S05_ses-E06_run-1_bp-chest_ct"  # in CT1 and in CT2
TORN = "sub-S06_ses-E07_run-1_bp-chest_ct"  # two rows with different reports
EMPTY = "sub-S07_ses-E08_run-1_bp-chest_ct"
UNNAMED = "volume.0001"  # names no patient, and has a dot
HEADED = "sub-S08_ses-E09_run-1_bp-chest_ct"

_TEXTS = (
    (ONE, "Bilateral ground-glass opacities."),
    (ONE_AGAIN, "Bilateral ground-glass opacities."),
    (LATER, "No changes, with respect to the previous study."),
    (TWO_A, "Without contrast: normal."),
    (TWO_B, "With contrast: normal."),
    (NO_FILE, "Downloaded by nobody."),
    (TWICE, "In two folders."),
    (TORN, "One."),
    (TORN, "Another."),
    (EMPTY, ""),
    (UNNAMED, "Whose?"),
    (HEADED, "Findings: Effusion.\nConclusion: Failure."),
    (HEADED, "Findings: Effusion.\nConclusion: Failure."),  # twice, the same
)
ROWS: Rows = [
    {"": str(n), "path": f"/somewhere/else/CT1/ct/{stem}.nii.gz", "Report_en": text}
    for n, (stem, text) in enumerate(_TEXTS)
]
REASONS = {TWICE: "duplicate_key", TORN: "duplicate_key", NO_ROW: "unlisted_file"}
STUDIES = {  # those listed: their volumes
    "sub-S01_ses-E01": (ONE, ONE_AGAIN),
    "sub-S01_ses-E02": (LATER,),
    TWO_A: (TWO_A,),
    TWO_B: (TWO_B,),
    "sub-S03_ses-E04": (NO_FILE,),
    "sub-S07_ses-E08": (EMPTY,),
    "sub-S08_ses-E09": (HEADED,),
    UNNAMED: (UNNAMED,),
}


def table_of(root: Path) -> Path:
    """Say where the table lies."""
    return root / "meta" / "curated_ct_report_path_En.csv"


def fabricate(root: Path, *, seed: int | None = None, volumes: bool = True) -> Path:
    """Write the tree; a seed shuffles the table."""
    write_table(table_of(root), ROWS, seed=seed)
    if not volumes:
        return root
    for stem in (ONE, LATER, TWO_A, NO_ROW, TWICE, TORN, EMPTY):
        write_volume(root / "CT1" / "ct" / f"{stem}.nii.gz")
    for stem in (ONE_AGAIN, TWO_B, TWICE, UNNAMED, HEADED):
        write_volume(root / "CT2" / "ct" / f"{stem}.nii.gz")
    return root
