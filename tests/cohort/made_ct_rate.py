"""A fabricated tree laid out as CT-RATE is, corrected (v2) or not (v1), in both namings."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t3d.ct import nifti
from t3d.text.findings import CT_RATE_18

SPACING = (1.5, 0.7, 0.7)  # z, y, x
ORIGIN = (-14.0, -10.0, 30.0)  # L, P, S
WORLD = np.array(
    [[0, 0, 0.7, ORIGIN[0]], [0, 0.7, 0, ORIGIN[1]], [1.5, 0, 0, ORIGIN[2]], [0, 0, 0, 1.0]]
)
# What v1 files hold: identity in the header's own (RAS) terms.
IDENTITY = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
INTERCEPT = {"Siemens Healthineers": -8192, "PNMS": -1024, "Philips": -1024, "SIEMENS": -1024}
METADATA = (
    *("VolumeName", "Manufacturer", "ConvolutionKernel", "PatientSex", "PatientAge"),
    *("ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "XYSpacing"),
    *("RescaleIntercept", "RescaleSlope", "NumberofSlices", "ZSpacing", "StudyDate"),
)
REPORTS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")


@dataclass(frozen=True)
class Made:
    """One fabricated volume and what the tables say of it."""

    volume: str
    findings: str
    impression: str = "Normal."
    manufacturer: str = "Philips"
    kernel: str = "YA"
    xy_mm: float = 0.7
    positives: tuple[str, ...] = ()
    age: str = "036Y"
    on_disk: bool = True
    in_tables: bool = True

    @property
    def split(self) -> str:
        return self.volume.split("_")[0]

    @property
    def study(self) -> str:
        return self.volume.rsplit("_", 1)[0]

    @property
    def patient(self) -> str:
        return self.study.rsplit("_", 1)[0]


VOLUMES = (
    Made("train_1_a_1", "Nodule, 4 mm.", positives=("Lung nodule",)),
    Made("train_1_a_2", "Nodule, 4 mm.", kernel="B", xy_mm=0.5, positives=("Lung nodule",)),
    Made("train_1_b_1", "No nodule.", kernel="B"),
    Made("train_2_a_1", "Effusion.", manufacturer="Siemens Healthineers", kernel="['Br40f', '3']"),
    Made("train_3_a_1", "Not given.", "Emphysema.", manufacturer="PNMS", age=""),
    Made("train_4_a_1", "Not given.", "Not given."),
    Made("train_5_a_1", "Brain without bleeding."),  # on the no_chest list
    Made("train_5_a_2", "Brain without bleeding."),
    Made("train_6_a_1", "Downloaded by nobody.", on_disk=False),
    Made("train_7_a_1", "", in_tables=False),
    Made("train_9792_a_1", "Tiny."),  # on the shipped list of broken volumes, alone in its study
    Made("train_1267_a_1", "Sound."),
    Made("train_1267_a_4", "Sound."),  # on that list, beside a sound one
    Made("valid_1_a_1", 'Said "clear" (twice).', "No finding."),
    Made("valid_2_a_1", "Nodule, 4 mm."),
)


def hounsfield(made: Made) -> NDArray[np.int16]:
    """A chest of sorts: air, a body of 40 HU, a lung on the patient's left, bone in front."""
    rng = np.random.default_rng(list(made.volume.encode()))
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    plane = np.where(y**2 + x**2 < 0.8, 40, -1000)
    plane[(y**2 + (x - 0.4) ** 2) < 0.08] = -850
    plane[(y + 0.6) ** 2 + x**2 < 0.02] = 700
    return np.rint(plane[None] + rng.normal(0, 12, (24, 40, 40))).astype(np.int16)


def write_volume(root: Path, made: Made, *, version: int, folder: str = "") -> Path:
    """Write one file: HU with a true header (2), or stored values with an empty one (1)."""
    folder = folder or (f"{made.split}_fixed" if version == 2 else made.split)
    path = root / folder / made.patient / made.study / f"{made.volume}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    hu = hounsfield(made)
    if version == 2:
        nifti.write(path, hu, WORLD)
    else:
        nifti.write(path, (hu - INTERCEPT[made.manufacturer]).astype(np.int16), IDENTITY)
    return path


def metadata_row(made: Made) -> dict[str, str]:
    """What the metadata table says of a volume."""
    return {
        "VolumeName": f"{made.volume}.nii.gz",
        "Manufacturer": made.manufacturer,
        "ConvolutionKernel": made.kernel,
        "PatientSex": "M",
        "PatientAge": made.age,
        "ImagePositionPatient": str(list(ORIGIN)),
        "ImageOrientationPatient": "[1, 0, 0, 0, 1, 0]",
        "Rows": "40",
        "Columns": "40",
        "XYSpacing": f"[{made.xy_mm}, {made.xy_mm}]",
        "RescaleIntercept": str(INTERCEPT[made.manufacturer]),
        "RescaleSlope": "1",
        "NumberofSlices": "24",
        "ZSpacing": "1.5",
        "StudyDate": "20210427",
    }


def report_row(made: Made) -> dict[str, str]:
    """What the table of reports says of a volume."""
    texts = ("", "Technique.", made.findings, made.impression)
    return dict(zip(REPORTS, (f"{made.volume}.nii.gz", *texts), strict=True))


def label_row(made: Made) -> dict[str, str]:
    """What the table of labels says of a volume."""
    labels = {finding: str(int(finding in made.positives)) for finding in CT_RATE_18}
    return {"VolumeName": f"{made.volume}.nii.gz", **labels}


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write a table."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read a table back."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fabricate(
    root: Path, volumes: Iterable[Made] = VOLUMES, *, version: int = 2, hlip: bool = False
) -> Path:
    """Write tables, lists and volumes below `root`.

    Args:
        root: Made if missing.
        volumes: What there is.
        version: 2 = corrected files in `*_fixed`, 1 = the first release.
        hlip: Name and place the tables as that repository does.
    """
    volumes = list(volumes)
    for made in volumes:
        if made.on_disk:
            write_volume(root, made, version=version)
    for split in ("train", "valid"):
        told = [made for made in volumes if made.split == split and made.in_tables]
        if not told:
            continue
        long = "train" if split == "train" else "validation"
        if hlip:
            folders = ("metafiles",) * 3
            names = (f"{split}_metadata.csv", f"{split}_reports.csv", f"{split}_labels.csv")
        else:
            folders = ("metadata", "radiology_text_reports", "multi_abnormality_labels")
            labels = f"{split}_predicted_labels.csv"
            names = (f"{long}_metadata.csv", f"{long}_reports.csv", labels)
        makers = (metadata_row, report_row, label_row)
        for folder, name, make in zip(folders, names, makers, strict=True):
            write_rows(root / folder / name, map(make, told))
    (root / "metadata").mkdir(exist_ok=True)
    (root / "metadata" / "no_chest_train.txt").write_text("train_5_a_1.nii.gz\n")
    (root / "metadata" / "no_chest_valid.txt").write_text("")
    return root
