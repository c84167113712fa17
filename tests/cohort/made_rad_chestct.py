"""A fabricated tree laid out as Rad-ChestCT is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from made_nifti import hounsfield
from made_tables import Rows, write_table
from t3d.cohort.sources.rad_chestct import MAPPINGS

PLACES = ("left_lung", "right_lung", "other_location")
OWN = sorted({own for mapping in MAPPINGS.values() for names in mapping.values() for own in names})
OWN += ["pneumonia"]  # one that CT-RATE has no name for
SCANS = {  # scan: subset, patient, findings
    "trn00001": ("imgtrain", "d1", ("nodulegr1cm", "calcification")),
    "trn00002": ("imgtrain", "d1", ("fibrosis",)),
    "trn00003": ("imgtrain", "d3", ()),  # no file
    "trn00004": ("imgtrain", "d4", ("scarring",)),  # its patient is also in imgtest
    "trn00005": ("imgtrain", "d5", ()),  # not an array of that name
    "trn00006": ("imgtrain", "d6", ()),  # two different rows
    "val00001": ("imgvalid_a", "d2", ("emphysema", "sternotomy")),
    "tst00001": ("imgtest_a", "d4", ("pneumonia",)),
    "tst00002": ("imgtest_d", "d8", ("cardiomegaly", "hernia")),
}
REASONS = {"trn00004": "split_leak", "trn00006": "duplicate_key", "trn09999": "unlisted_file"}
STUDIES = {
    "trn00001": "train",
    "trn00002": "train",
    "trn00003": "train",
    "trn00005": "train",
    "val00001": "dev",
    "tst00001": "test",
    "tst00002": "test",
}


def array(scan: str) -> NDArray[np.int16]:
    """HU clipped to -1000..1000, axes to inferior, posterior, left; bone on the top slices only."""
    upward = np.clip(hounsfield(scan, 20)[:, ::2, ::2], -1000, 1000)
    upward[-4:, 2:5, 2:5] = 900
    return upward[::-1]


def label_rows(scans: Iterable[str]) -> Rows:
    """One row a scan: each finding at one place, nothing at the others."""
    return [
        {
            "NoteAcc_DEID": scan,
            **{
                f"{own}*{place}": f"{float(place == PLACES[1] and own in SCANS[scan][2])}"
                for own in OWN
                for place in PLACES
            },
        }
        for scan in scans
    ]


def fabricate(root: Path, *, seed: int | None = None, volumes: bool = True) -> Path:
    """Write the tree; a seed shuffles every table."""
    for name in ("imgtrain", "imgvalid", "imgtest"):
        rows = list(label_rows(s for s, (told, *_) in SCANS.items() if told.startswith(name)))
        if name == "imgtrain":
            rows.append({**rows[-1], "nodule*left_lung": "1.0"})
        write_table(root / f"{name}_Abnormality_and_Location_Labels.csv", rows, seed=seed)
    summary = [
        {
            "MRN_DEID": patient,
            "NoteAcc_DEID": scan,
            "Set_Assigned": subset[3:].partition("_")[0],
            "Subset_Assigned": subset,
        }
        for scan, (subset, patient, _) in SCANS.items()
    ]
    write_table(root / "Summary_3630.csv", summary, seed=seed)
    if volumes:
        (root / "npz").mkdir(parents=True)
        for scan in (*SCANS, "trn09999"):
            if scan not in ("trn00003", "trn00005"):
                np.savez_compressed(root / "npz" / f"{scan}.npz", ct=array(scan))
        np.savez_compressed(root / "npz" / "trn00005.npz", volume=array("trn00005"))
    return root
