"""A fabricated tree laid out as INSPECT is, in its newer and in its older form."""

from __future__ import annotations

from pathlib import Path

from made_nifti import write_volume
from made_tables import Rows, write_table

DATE = "20250611"
MAPPING: Rows = [
    {"impression_id": study, "image_id": image, "person_id": who, "procedure_DATETIME": when}
    for study, image, who, when in (
        ("1001", "PE00aa11", "p1", "2015-01-02 03:04:05"),
        ("1002", "PE00aa12", "p2", "2015-01-03 03:04:05"),  # one impression, two images
        ("1002", "PE00aa13", "p2", "2015-01-03 03:04:05"),
        ("1003", "PE00aa14", "p3", ""),  # no time; listed twice
        ("1003", "PE00aa14", "p3", ""),
        ("1004", "PE00aa15", "p4", "2015-01-05 03:04:05"),  # one image, two impressions
        ("1005", "PE00aa15", "p4", "2015-01-05 03:04:05"),
        ("1006", "PE00aa16", "p1", "2016-01-02 03:04:05"),  # p1 again, in valid
        ("1007", "PE00aa17", "p7", "2015-01-07 03:04:05"),  # 4D
        ("1008", "PE00aa18", "p8", "2015-01-08 03:04:05"),  # unusable affine
        ("1009", "PE00aa19", "p9", "2015-01-09 03:04:05"),  # no file
        ("1010", "PE00aa20.nii.gz", "p10", "2015-01-10 03:04:05"),  # empty impression; suffix
        ("1011", "PE00aa21", "p11", "2015-01-11 03:04:05"),  # a last axis of 1
        ("1012", "PE00aa22", "p12", "2015-01-12 03:04:05"),  # no split
        ("1013", "PE00aa23", "p13", "2015-01-13 03:04:05"),  # two texts
        ("1014", "PE00aa24", "p14", "2015-01-14 03:04:05"),  # two files
    )
]
TEXTS = {
    "1001": "IMPRESSION: 1. NO PULMONARY EMBOLISM SINCE <TIMEX3>XX/XX</TIMEX3>.",
    "1002": "IMPRESSION: 1. ACUTE EMBOLUS, <PERSON>LAST_NAME</PERSON> PAGED AT <PAGER>.",
    "1003": "NO EMBOLUS.\n2. CONSOLIDATION.",
    "1004": "IMPRESSION: A.",
    "1005": "IMPRESSION: B.",
    "1006": "IMPRESSION: NO EMBOLUS, NODULE <3 MM.",
    "1007": "IMPRESSION: FOUR AXES.",
    "1008": "IMPRESSION: FLAT.",
    "1009": "IMPRESSION: NOT DOWNLOADED.",
    "1010": "",
    "1011": "IMPRESSION: ONE TIME POINT.",
    "1012": "IMPRESSION: NO SPLIT.",
    "1014": "IMPRESSION: TWO FILES.",
    "1099": "IMPRESSION: NO IMAGE.",
}
IMPRESSIONS: Rows = [
    *({"impression_id": key, "impressions": text} for key, text in TEXTS.items()),
    {"impression_id": "1013", "impressions": "IMPRESSION: ONE."},
    {"impression_id": "1013", "impressions": "IMPRESSION: ANOTHER."},
]
_SPLIT = {"1006": "valid", "1010": "test", "1011": "valid"}
SPLITS: Rows = [
    {"impression_id": study, "split": _SPLIT.get(study, "train")}
    for study in ("1001", *(str(n) for n in range(1001, 1015) if n != 1012))  # 1001 twice, the same
]
LABELS: Rows = [
    {
        "impression_id": study,
        "pe_positive_nlp": pe,
        "pe_acute": pe,
        "1_month_mortality": died,
        "12_month_PH": "Censored",
    }
    for study, pe, died in (
        ("1001", "FALSE", "TRUE"),
        ("1002", "True", "Censored"),
        ("1003", "FALSE", ""),
    )
]
REASONS = {
    "PE00aa15": "duplicate_key",
    "1001": "split_leak",
    "1013": "duplicate_key",
    "PE00aa24": "duplicate_key",
    "1099": "missing_file",
    "PEffffff": "unlisted_file",
}
STUDIES = {  # those listed: split
    **{"1002": "train", "1003": "train", "1006": "dev", "1007": "train", "1008": "train"},
    **{"1009": "train", "1010": "test", "1011": "dev", "1012": ""},
}


def fabricate(root: Path, *, seed: int | None = None, volumes: bool = True) -> Path:
    """Write the newer form below `root/full`; a seed shuffles every table."""
    full = root / "full"
    for name, rows in (
        ("study_mapping", MAPPING),
        ("impressions", IMPRESSIONS),
        ("splits", SPLITS),
        ("labels", LABELS),
    ):
        write_table(full / f"{name}_{DATE}.tsv", rows, seed=seed)
    write_table(full / "impressions_20240101.tsv", [{"impression_id": "9", "impressions": "OLD."}])
    if volumes:
        write_volumes(full / "CTPA")
    return root


def write_volumes(folder: Path) -> None:
    """Write the files of the mapping, one of them twice and one that nobody names."""
    for number in (11, 12, 13, 14, 15, 16, 20, 22, 23, 24):
        write_volume(folder / f"PE00aa{number}.nii.gz")
    write_volume(folder / "PE00aa24.nii")
    write_volume(folder / "PE00aa17.nii.gz", times=3)
    write_volume(folder / "PE00aa18.nii.gz", flat=True)
    write_volume(folder / "PE00aa21.nii.gz", times=1)
    write_volume(folder / "PEffffff.nii.gz")
    (folder / "._PE00aa11.nii.gz").write_bytes(b"resource fork")


def fabricate_older(root: Path, *, workbook: bool = True) -> Path:
    """Write the older form: image ids with suffix, texts by file stem, splits by patient."""
    rows = [
        {"image_id": "PE00aa11.nii.gz", "patient_id": "p1", "StudyTime": "2015-01-02"},
        {"image_id": "PE00aa12.nii.gz", "patient_id": "p2", "StudyTime": "2015-01-03"},
    ]
    write_table(root / "Final_metadata.csv", rows)
    texts = [
        {"impression_id": f"PE00aa1{n}", "Impressions_EN": f"TEXT {n}.", "Impressions_1": "OTHER."}
        for n in (1, 2)
    ]
    write_table(root / f"Final_Impressions.{'xlsx' if workbook else 'csv'}", texts)
    labels = [{"impression_id": "PE00aa11.nii.gz", "pe_positive_nlp": "True"}]
    write_table(root / "Final_labels_v2.csv", labels)
    patients = [
        {"PatientID": "p1", "StudyTime": "2015-01-02", "split": "train"},
        {"PatientID": "p2", "StudyTime": "2015-01-03", "split": "valid"},
    ]
    write_table(root / "cohort_0.2.0_master_file_anon.csv", patients)
    for n in (1, 2):
        write_volume(root / "CTPA" / f"PE00aa1{n}.nii.gz")
    return root
