"""What age, sex and scanner alone get on CT-RATE's public validation tables, protocol by protocol.

    python benchmarks/age_null.py --labels valid_labels.csv --metadata valid_metadata.csv \
        [--external labels.csv ...] [--commit SHA] [--draws 1000] [--json FILE]

The tables are the public ones (`Zch0414/hlip`, data/ct_rate/metafiles; CT-RATE's own have other
names and the same columns). They are read where they lie and never copied. `value` is a score of a
null under the protocol that is named, with its 95 % interval over patients in `low` and `high`
whatever the protocol resamples; `baseline` is what the evaluation notes of this project say, where
they say anything. `--external` takes Rad-ChestCT's label tables (one column a label, the largest
over the places) and compares counts of positives.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from t3d.cohort.pseudonyms import age_years
from t3d.judge.classification import classify
from t3d.judge.facts import NUMBERS, WORDS, Facts
from t3d.judge.nulls import Known, beside, null_table
from t3d.judge.outcome import Outcome
from t3d.judge.protocol import Intervals, Protocol
from t3d.judge.protocols import protocol_named
from t3d.judge.strata import by_stratum, with_matched
from t3d.judge.truth import Truth, mapped
from t3d.judge.units import rows_of
from t3d.text.findings import CT_RATE_18

SEED = 0
PROTOCOLS = ("ctclip", "radfinder", "radfinder_dup", "fvlm", "hlip", "hlip_starred", "vlm3d")
SHOWN = ("auroc:macro", "f1_weighted:macro", "accuracy:macro", "balanced_accuracy:macro")
IN_FULL = ("ctclip", "radfinder", "fvlm")  # the others get age alone
NULLS = ("age", "sex", "age_sex", "scanner", "header", "other_findings")
NOTED = {
    ("age", "ctclip", "auroc:macro"): 0.705,
    ("age", "radfinder", "auroc:macro"): 0.706,
    ("age", "fvlm", "auroc:macro"): 0.711,
    ("other_findings", "ctclip", "auroc:macro"): 0.710,
    ("age_sex", "ctclip", "auroc:Arterial wall calcification"): 0.92,
    ("age_sex", "ctclip", "auroc:Cardiomegaly"): 0.84,
    ("age_sex", "ctclip", "auroc:Lung nodule"): 0.56,
    ("all_negative", "ctclip", "f1_weighted"): 0.725,
    ("all_negative", "ctclip", "accuracy"): 0.807,
    ("all_negative", "fvlm", "f1_weighted"): 0.724,
    ("all_negative", "fvlm", "accuracy"): 0.806,
    ("random", "ctclip", "f1_weighted"): 0.57,
    ("random", "ctclip", "accuracy"): 0.51,
    ("random", "ctclip", "precision"): 0.198,
    ("age", "ctclip", "matched_auroc:macro"): 0.5,
}
# Rad-ChestCT: positives of 3,630 as the evaluation notes have them
EXTERNAL = {
    "standard": {
        "Medical material": 1155,
        "Arterial wall calcification": 2562,
        "Cardiomegaly": 394,
        "Pericardial effusion": 563,
        "Hiatal hernia": 425,
        "Lymphadenopathy": 598,
        "Emphysema": 992,
        "Atelectasis": 1082,
        "Lung nodule": 2874,
        "Lung opacity": 1955,
        "Pulmonary fibrotic sequela": 786,
        "Pleural effusion": 727,
        "Peribronchial thickening": 308,
        "Consolidation": 505,
        "Bronchiectasis": 575,
        "Interlobular septal thickening": 252,
    },
    "hlip": {"Pulmonary fibrotic sequela": 478},
}

Row = dict[str, Any]


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def name_of(row: Mapping[str, str]) -> str:
    """The volume of a row."""
    return row["VolumeName"].removesuffix(".nii.gz")


def number(told: str) -> float:
    """A number, or the first of a list of numbers."""
    found = re.search(r"[-+.\d]+(?:[eE][-+]?\d+)?", told)
    return float(found.group()) if found else float("nan")


def facts_from(labels: Sequence[Mapping[str, str]], metadata: Sequence[Mapping[str, str]]) -> Facts:
    """Facts of every volume that has labels."""
    held = {name_of(row): row for row in metadata}
    names = [name_of(row) for row in labels]
    rows = [held.get(name, {}) for name in names]
    ages = [age_years(row.get("PatientAge", "")) for row in rows]
    slices, z_mm, xy_mm, pixels = (
        np.array([number(row.get(column, "")) for row in rows])
        for column in ("NumberofSlices", "ZSpacing", "XYSpacing", "Rows")
    )
    measured = dict(zip(NUMBERS, (slices, z_mm, xy_mm, slices * z_mm, pixels * xy_mm), strict=True))
    columns = dict(zip(WORDS, ("Manufacturer", "ConvolutionKernel"), strict=True))
    return Facts(
        volume_ids=tuple(names),
        study_ids=tuple(name.rsplit("_", 1)[0] for name in names),
        patient_ids=tuple(name.rsplit("_", 2)[0] for name in names),
        order=tuple(int(name.rsplit("_", 1)[1]) - 1 for name in names),
        age_years=np.array([float(age) if age else np.nan for age in ages]),
        sex=tuple(row.get("PatientSex", "").strip() for row in rows),
        words={k: tuple(row.get(c, "").strip() for row in rows) for k, c in columns.items()},
        numbers=measured,
    )


def truth_from(labels: Sequence[Mapping[str, str]], facts: Facts) -> Truth:
    """Labels of every study; those of its volumes must agree."""
    told: dict[str, tuple[int, ...]] = {}
    volumes: dict[str, list[str]] = {}
    patients: dict[str, str] = {}
    for i, row in enumerate(labels):
        study = facts.study_ids[i]
        values = tuple(int(float(row[name])) for name in CT_RATE_18)
        if told.setdefault(study, values) != values:
            sys.exit("reconstructions of one study with different labels: not the public table")
        volumes.setdefault(study, []).append(facts.volume_ids[i])
        patients[study] = facts.patient_ids[i]
    table = np.array(list(told.values()), dtype=np.int8)
    return Truth(
        study_ids=tuple(told),
        patient_ids=tuple(patients[study] for study in told),
        findings=CT_RATE_18,
        labels=table,
        large=np.full_like(table, -1),
        volumes=tuple(tuple(volumes[study]) for study in told),
    )


def only(truth: Truth, findings: Sequence[str]) -> Truth:
    """The truth of some findings."""
    index = [truth.findings.index(name) for name in findings]
    return replace(
        truth,
        findings=tuple(findings),
        labels=truth.labels[:, index],
        large=truth.large[:, index],
    )


def by_patient(protocol: Protocol, num_draws: int) -> Protocol:
    """The protocol's own values with intervals over patients."""
    refit = protocol.classes.fitted_on == "evaluated"
    ours = Intervals(
        resample="patients", num_draws=num_draws, seed=SEED, refit=refit, percentiles="linear"
    )
    return replace(protocol, intervals=ours, num_permutations=2)


def judged(null: str, known: Known, studies: Truth, protocol: Protocol) -> Outcome:
    """One null under one protocol."""
    from t3d.judge.units import scored_of

    findings = scored_of(protocol.classes, CT_RATE_18)
    table = null_table(null, known, fitted=None)
    test = rows_of(table, only(studies, findings), protocol)
    return classify(None, test, protocol, task=f"null:{null}", column=null, provenance={})


def figure(null: str, protocol: str, name: str, value: float, **more: Any) -> Row:
    """One row of the table."""
    noted = NOTED.get((null, protocol, name))
    row = {"name": f"{null} | {protocol} | {name}", "value": round(value, 4), "unit": "score"}
    row |= {k: round(v, 4) if isinstance(v, float) else v for k, v in more.items()}
    row["baseline"] = noted
    row["ratio"] = None if not noted else round(value / noted, 4)
    return row


def rows_of_null(null: str, outcome: Outcome, protocol: str) -> Iterator[Row]:
    """Figures of one null."""
    wanted = [name for name in SHOWN if protocol != "fvlm" or name.startswith("auroc")]
    wanted += [name for (n, p, name) in NOTED if (n, p) == (null, protocol) and name not in wanted]
    if protocol == "ctclip" and null in ("age", "age_sex"):
        wanted += [f"auroc:{finding}" for finding in CT_RATE_18 if f"auroc:{finding}" not in wanted]
    held = {metric.name: metric for metric in outcome.result.metrics}
    for name in wanted:
        if name in held:
            m = held[name]
            yield figure(null, protocol, name, m.value, low=m.low, high=m.high, note=f"n {m.n}")


def floors(outcome: Outcome, protocol: str) -> Iterator[Row]:
    """What answers that say nothing get."""
    held = {metric.name: metric for metric in outcome.result.metrics}
    for model in ("all_negative", "all_positive", "random"):
        for measure in ("auroc", "f1_weighted", "accuracy", "precision"):
            metric = held.get(f"blind:{model}:{measure}")
            if metric is not None and np.isfinite(metric.value):
                yield figure(model, protocol, measure, metric.value, note="")


def everything(labels: Path, metadata: Path, num_draws: int) -> list[Row]:
    """All figures of CT-RATE."""
    rows = read(labels)
    facts = facts_from(rows, read(metadata))
    studies = truth_from(rows, facts)
    known = Known(facts=facts, truth=beside(facts, studies))
    table: list[Row] = [
        count("volumes", len(facts), 3039),
        count("studies", len(studies.study_ids), 1564),
        count("patients", len(set(facts.patient_ids)), 1304),
        count("volumes without age", int((~facts.known("age")).sum()), 2),
    ]
    for name in PROTOCOLS:
        protocol = by_patient(protocol_named(name), num_draws)
        for null in NULLS if name in IN_FULL else ("age",):
            outcome = judged(null, known, studies, protocol)
            # not for cross-fitted nulls: within one age their scores differ by fold, not by patient
            if null == "age" and name == "ctclip":
                outcome = with_matched(outcome, facts, num_draws=num_draws, seed=SEED)
            table += rows_of_null(null, outcome, name)
            if null == "age":
                table += floors(outcome, name)
            if null == "age" and name == "ctclip":
                table += strata(outcome, protocol, facts, num_draws)
    return table


def strata(outcome: Outcome, protocol: Protocol, facts: Facts, num_draws: int) -> Iterator[Row]:
    """AUROC of age within sexes, bands of age and manufacturers."""
    for by in ("sex", "age", "manufacturer"):
        split = by_stratum(outcome, protocol, facts, by, num_draws=num_draws, seed=SEED)
        for metric in split.result.metrics:
            if metric.name.startswith("auroc:macro|"):
                yield figure(
                    "age",
                    "ctclip",
                    metric.name,
                    metric.value,
                    low=metric.low,
                    high=metric.high,
                    note=f"n {metric.n}",
                )


def count(what: str, value: int, noted: int | None) -> Row:
    """A row with a count."""
    ratio = None if not noted else round(value / noted, 4)
    return {"name": what, "value": value, "unit": "rows", "baseline": noted, "ratio": ratio}


def external(paths: Sequence[Path]) -> list[Row]:
    """Positives of Rad-ChestCT by mapping."""
    scans: dict[str, dict[str, int | None]] = {}
    for path in paths:
        for row in read(path):
            told = {k: int(float(v)) if v else None for k, v in row.items() if k != "NoteAcc_DEID"}
            scans[row["NoteAcc_DEID"]] = told
    table = [count("Rad-ChestCT scans", len(scans), 3630)]
    for mapping, noted in EXTERNAL.items():
        found = [mapped(told, mapping) for told in scans.values()]
        for finding, positives in noted.items():
            seen = sum(row.get(finding) == 1 for row in found)
            table.append(count(f"Rad-ChestCT {mapping}: {finding}", seen, positives))
    return table


def main() -> int:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--external", type=Path, nargs="*", default=[])
    parser.add_argument("--commit", default="")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    table = everything(told.labels, told.metadata, told.draws)
    table += external(told.external) if told.external else []
    for row in table:
        shown = f"[{row['low']:.3f}, {row['high']:.3f}]" if "low" in row else ""
        noted = "" if row["baseline"] is None else f"noted {row['baseline']}"
        print(f"{row['name']:72s} {row['value']:>9} {shown:16s} {noted}")
    if told.json:
        external_option = " --external LABELS..." if told.external else ""
        head = {
            "command": "python benchmarks/age_null.py --labels valid_labels.csv "
            f"--metadata valid_metadata.csv{external_option} --draws {told.draws}",
            "seed": SEED,
            "source": "github.com/Zch0414/hlip, data/ct_rate/metafiles and data/rad_chestct",
            "source_commit": told.commit,
        }
        text = json.dumps({**head, "figures": table}, indent=1)
        told.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
