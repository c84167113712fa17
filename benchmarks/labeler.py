"""How the rule labeler reads public reports, against one reader's reading of all of them.

    python benchmarks/labeler.py --reports ../shared/data/reports
    python benchmarks/labeler.py --reports ... --json docs/results/labeler_mtsamples.json

The reports are the CT reports of MTSamples (CC0). The reading is tests/text/data/
reading_mtsamples.csv: one row for each of the 18 findings that a report states or denies, with a
short quotation; a finding without a row was read as not stated. Reports with equal text count
once. Rules were changed after their errors on these reports had been seen, so the figures are
in-sample: they say what the rules can do here, not what they will do elsewhere. "before" in the
JSON file are the counts of the rules before that, kept as they were measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t3d.text.addenda import read_report
from t3d.text.agreement import Agreement, agreement, agreement_table
from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import read_reports

ROOT = Path(__file__).resolve().parent.parent
READING = ROOT / "tests" / "text" / "data" / "reading_mtsamples.csv"
FILE = "mtsamples_radiology.jsonl"
CELLS = {"1": 1, "0": 0, "-": None}  # how values are called in the JSON file


def ct_reports(folder: Path) -> dict[int, str]:
    """Give note_id -> text of every CT report."""
    rows = map(json.loads, (folder / FILE).read_text(encoding="utf-8").splitlines())
    return {int(row["note_id"]): row["text"] for row in rows if row["is_ct"]}


def reading() -> dict[int, dict[str, int]]:
    """Give what the reader read: note_id -> finding -> 1 or 0; no entry = not stated."""
    read: dict[int, dict[str, int]] = {}
    with READING.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            said = read.setdefault(int(row["note_id"]), {})
            if row["finding"]:
                said[row["finding"]] = int(row["value"])
    return read


def measured(reports: Mapping[int, str]) -> dict[str, Agreement]:
    """Read every distinct text by rule and compare it with the reader's."""
    by_hand = reading()
    distinct = {text: note for note, text in sorted(reports.items(), reverse=True)}
    by_rule = {note: read_reports([read_report(text).report]) for text, note in distinct.items()}
    return {
        name: agreement((by_hand[note].get(name), by_rule[note][name].value) for note in by_rule)
        for name in CT_RATE_18
    }


def counts(read: Mapping[str, Agreement]) -> dict[str, dict[str, int]]:
    """Name the cells that are not empty, "read by hand > read by rule"."""
    return {
        name: {
            f"{hand}>{rule}": one.counts[CELLS[hand], CELLS[rule]]
            for hand in CELLS
            for rule in CELLS
            if one.counts[CELLS[hand], CELLS[rule]]
        }
        for name, one in read.items()
    }


def from_counts(told: Mapping[str, Mapping[str, int]]) -> dict[str, Agreement]:
    """Read the counts of a JSON file back."""
    return {
        name: agreement(
            (CELLS[cell[0]], CELLS[cell[2]]) for cell, n in cells.items() for _ in range(n)
        )
        for name, cells in told.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; write the counts where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=Path, default=ROOT / "../shared/data/reports")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if not (given.reports / FILE).is_file():
        sys.stdout.write(f"no {FILE} there: nothing measured\n")
        return 0
    reports = ct_reports(given.reports)
    now = measured(reports)
    sys.stdout.write(agreement_table(now.items()) + "\n")
    if given.json is not None:
        there: dict[str, Any] = {}
        if given.json.is_file():
            there = json.loads(given.json.read_text(encoding="utf-8"))
        told = there | {
            "reports": len(reports),
            "distinct": len(set(reports.values())),
            "in_sample": True,
            "after": counts(now),
        }
        given.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
