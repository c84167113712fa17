"""Small folders laid out as five public corpora are, with enough patients to be judged."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from t3d.cohort.prepare import prepare
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.sources.inspect import Inspect
from t3d.cohort.sources.merlin import Merlin
from t3d.cohort.sources.rad_chestct import MAPPINGS, RadChestCt
from t3d.cohort.sources.rexgrounding import ReXGrounding
from t3d.cohort.store import Cohort
from t3d.ct import nifti
from t3d.text.findings import CT_RATE_18
from t3d.types import Preparation, Zyx

TINY = Preparation(name="tiny", size_vox=Zyx(z=4, y=4, x=4))
WORLD = np.array([[0, 0, 0.8, -14.0], [0, 0.8, 0, -10.0], [3.0, 0, 0, 30.0], [0, 0, 0, 1.0]])


def hounsfield(seed: int) -> NDArray[np.int16]:
    """Air, a body, a lung and bone, with noise; small but plausible."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    plane = np.where(y**2 + x**2 < 0.8, 40, -1000)
    plane[(y**2 + (x - 0.4) ** 2) < 0.08] = -850
    plane[(y + 0.6) ** 2 + x**2 < 0.02] = 700
    noise = np.random.default_rng(seed).normal(0, 12, (16, 32, 32))
    return np.rint(plane[None] + noise).astype(np.int16)


def write(path: Path, seed: int) -> None:
    """One volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nifti.write(path, hounsfield(seed), WORLD)


def write_table(path: Path, rows: Sequence[Mapping[str, object]], separator: str = ",") -> None:
    """One table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def drawn(i: int, names: Sequence[str], share: float = 0.4) -> dict[str, int]:
    """Labels of patient i; the first two patients make sure that both classes are there."""
    rng = np.random.default_rng([7, i])
    return {n: int(rng.random() < share) if i > 1 else i for n in names}


def ct_rate(root: Path, preparation: Preparation = TINY) -> Cohort:
    """24 validation patients, 12 training ones of whom about half are dev."""
    metadata, reports, labels = [], [], []
    for split, count in (("train", 14), ("valid", 24)):
        for i in range(count):
            told = drawn(i, CT_RATE_18)
            for k in range(1, 2 + i % 2):
                name = f"{split}_{i + 1}_a_{k}"
                write(root / f"{split}_fixed" / name[:-4] / name[:-2] / f"{name}.nii.gz", i)
                key = {"VolumeName": f"{name}.nii.gz"}
                told_age = {"PatientSex": "MF"[i % 2], "PatientAge": f"0{30 + 2 * i}Y"}
                scanner = {"Manufacturer": "Philips", "ConvolutionKernel": "YA"}
                metadata.append(key | told_age | scanner)
                reports.append(key | {"Findings_EN": f"Case {i}.", "Impressions_EN": "As said."})
                labels.append(key | told)
        long = "train" if split == "train" else "validation"
        write_table(root / "metadata" / f"{long}_metadata.csv", metadata)
        write_table(root / "radiology_text_reports" / f"{long}_reports.csv", reports)
        write_table(root / "multi_abnormality_labels" / f"{split}_predicted_labels.csv", labels)
        metadata, reports, labels = [], [], []
    return _prepared(CtRate(root, dev_share=0.5), root, preparation)


def rad_chestct(root: Path) -> Cohort:
    """20 scans, all test."""
    own = sorted({name for names in MAPPINGS["standard"].values() for name in names} | {"fibrosis"})
    rows, people = [], []
    (root / "npz").mkdir(parents=True)
    for i in range(20):
        key = f"trn{i:05}"
        scan = np.clip(hounsfield(i), -1000, 1000)
        scan[-3:, 2:5, 2:5] = 900
        np.savez_compressed(root / "npz" / f"{key}.npz", ct=scan[::-1])
        rows.append(
            {"NoteAcc_DEID": key} | {f"{n}*lung": float(v) for n, v in drawn(i, own).items()}
        )
        people.append({"MRN_DEID": f"d{i}", "NoteAcc_DEID": key, "Subset_Assigned": "imgtrain"})
    write_table(root / "imgtrain_Abnormality_and_Location_Labels.csv", rows)
    write_table(root / "Summary_3630.csv", people)
    return _prepared(RadChestCt(root, splits="all_test"), root)


INSPECT_TASKS = (
    *("pe_positive_nlp", "1_month_mortality", "6_month_mortality", "12_month_mortality"),
    *("1_month_readmission", "6_month_readmission", "12_month_readmission", "12_month_PH"),
)


def inspect(root: Path) -> Cohort:
    """20 studies in test, some outcomes censored."""
    full = root / "full"
    mapping, texts, splits, labels = [], [], [], []
    for i in range(24):
        write(full / "CTPA" / f"PE00aa{i:02}.nii.gz", i)
        key = {"impression_id": str(1000 + i)}
        mapping.append(key | {"image_id": f"PE00aa{i:02}", "person_id": f"p{i}"})
        texts.append(key | {"impressions": f"IMPRESSION: CASE {i}."})
        splits.append(key | {"split": "test" if i < 20 else "valid"})
        told = {n: ("FALSE", "TRUE")[v] for n, v in drawn(i, INSPECT_TASKS).items()}
        labels.append(key | told | ({"12_month_PH": "Censored"} if i == 5 else {}))
    tables = {"study_mapping": mapping, "impressions": texts, "splits": splits, "labels": labels}
    for name, rows in tables.items():
        write_table(full / f"{name}_20250611.tsv", rows, "\t")
    return _prepared(Inspect(root), root)


MERLIN_FINDINGS = ("ascites", "gallstones", "fracture")


def merlin(root: Path) -> Cohort:
    """16 studies in test and 16 in val, some labels missing."""
    reports, metadata, labels = [], [], []
    for i in range(32):
        key = {"study id": f"AC{i:07}"}
        write(root / "merlin_data" / f"AC{i:07}.nii.gz", i)
        text = f"FINDINGS: Case {i}. IMPRESSION: 1. As said."
        split = {"Split": ("test", "val")[i % 2], "Few Shot": ""}
        reports.append(key | {"Findings": text} | split)
        metadata.append(key | {"Age": str(40 + i), "Gender": "Male", "manufacturer": "M"})
        labels.append(key | drawn(i // 2, MERLIN_FINDINGS) | ({"ascites": -1} if i == 9 else {}))
    write_table(root / "reports_final.csv", reports)
    write_table(root / "metadata.csv", metadata)
    write_table(root / "zero_shot_findings_disease_cls.csv", labels)
    return _prepared(Merlin(root), root)


def rexgrounding(root: Path) -> Cohort:
    """6 cases with the mask of one finding each, all in test."""
    import nibabel

    entries = []
    for i in range(6):
        name = f"train_{i + 1}_a_1"
        write(root / "ct-rate" / "train_fixed" / name[:-4] / name[:-2] / f"{name}.nii.gz", i)
        mask = np.zeros((1, 32, 32, 16), np.uint8)
        mask[0, 4:8, 4:8, 2 + i] = 1
        (root / "segmentations").mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), root / f"segmentations/{name}.nii.gz")
        entry = {"name": f"{name}.nii.gz", "findings": {"0": f"Nodule {i}."}}
        entries.append({**entry, "shape": [32, 32, 16]})
    told = {"train": [], "val": [], "test": entries}
    (root / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    return _prepared(ReXGrounding(root, volumes=str(root / "ct-rate")), root)


def _prepared(source: object, root: Path, preparation: Preparation = TINY) -> Cohort:
    """A cohort of it, beside the folder."""
    out = root.parent / f"{root.name}-cohort"
    done = prepare(source, out, preparation, workers=0, ignore_disk=True)
    assert not done.failed, done.failed
    return Cohort.open(out)
