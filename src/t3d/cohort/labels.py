"""Labels of a cohort: by rule from its reports, from a table, and how far origins agree.

Every origin has labels of its own, side by side: "source" (what came with the studies),
"rule/ct_rate18" (our rule labeler), "model/..." (answers of a language model, `questions.py`),
or a name given to a table. None replaces another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from t3d.cohort.delimited import SIGNED_LABEL_VALUES, read_delimited
from t3d.cohort.schema import SOURCE_LABELS, LabelRow, compact
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.errors import SourceError, StoreError
from t3d.text.agreement import Agreement, agreement, agreement_table
from t3d.text.findings import FindingSet, read_findings
from t3d.text.labeler import CT_RATE_FINDINGS, LANGUAGES, read_reports
from t3d.types import Report

KEYS = ("study", "volume", "VolumeName")
"""Columns that may say which study a row of a table of labels is about; the first one found."""

_SUFFIXES = (".nii.gz", ".nii", ".npz")
_RULES = "2"  # raised by a change of the rules that moves an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """What was recorded under one origin."""

    origin: str
    num_studies: int  # with an answer, be it "not stated"
    counts: Mapping[str, tuple[int, int, int]]  # finding -> studies present, denied, not stated
    left_out: Mapping[str, int]  # reason -> how many

    def __str__(self) -> str:
        """A line for each finding, then what was left out."""
        width = max((len(name) for name in self.counts), default=0)
        lines = [f"{self.origin}: {self.num_studies} studies"]
        for name, (present, denied, silent) in self.counts.items():
            told = f"present {present:5}  denied {denied:5}  not stated {silent:5}"
            lines.append(f"  {name.ljust(width)}  {told}")
        return "\n".join(lines + [f"  left out, {why}: {n}" for why, n in self.left_out.items()])


def finding_set(findings: str | Path) -> FindingSet:
    """Give the findings meant by a name or by a file.

    Args:
        findings: "ct_rate18", or the path of a TOML file (docs/howto/label.md).

    Raises:
        SourceError: No such name or file, or the file is not of that form.
    """
    if str(findings) == CT_RATE_FINDINGS.name:
        return CT_RATE_FINDINGS
    path = Path(findings)
    if path.suffix != ".toml":
        raise SourceError(
            f"no findings named {path.name!r}",
            expected=f"{CT_RATE_FINDINGS.name!r}, or a file .toml",
            fix="see docs/howto/label.md for an example of a file",
        )
    return read_findings(path)


def label_by_rule(path: str | Path, findings: FindingSet, *, origin: str = "") -> Labelling:
    """Read findings from every report of a cohort by rule, and record them.

    Args:
        path: The cohort.
        findings: As `finding_set` gives them.
        origin: Under which the labels are kept; "" = "rule/" and the name of the findings.

    Returns:
        Counts for each finding; left out are studies without a report (`no_report`) and those
        with a report in a language without terms or rules (`language_xx`).

    Raises:
        StoreError: The cohort cannot be read or written.
    """
    left_out: Counter[str] = Counter()
    rows: list[LabelRow] = []
    known = set(LANGUAGES) & set(findings.terms)
    for study_id, reports in reports_of(Cohort.open(path), left_out):
        unknown = sorted({report.language for report in reports} - known)
        if unknown:
            left_out[f"language_{unknown[0]}"] += 1
            continue
        for name, answer in read_reports(reports, findings).items():
            rows.append(
                LabelRow(
                    study_id=study_id,
                    name=name,
                    value=answer.value,
                    report=answer.report,
                    section=answer.section,
                    start=answer.start,
                    end=answer.end,
                )
            )
    told = compact({"by": "rule", "rules": _RULES, "findings": findings.digest})
    return record(path, origin or f"rule/{findings.name}", rows, left_out, told=told)


def label_by_table(path: str | Path, table: str | Path, *, origin: str = "") -> Labelling:
    """Take labels from a table of comma-separated values, and record them.

    One column of `KEYS` says which study or volume a row is about; every other column is a
    finding with cells 1, 0, and blank or -1 for "not stated". So CT-RATE's label files can be
    read as they are. Rows of several volumes of a study must say the same.

    Args:
        path: The cohort.
        table: UTF-8.
        origin: Under which the labels are kept; "" = "table/" and the file's name.

    Returns:
        Counts for each finding; left out are rows of studies that are not in the cohort
        (`not_in_cohort`).

    Raises:
        SourceError: The table cannot be read, lacks a key, has another value in a cell, or says
            two things of one study; the line and column are named, never the value.
        StoreError: The cohort cannot be read or written.
    """
    table = Path(table)
    left_out: Counter[str] = Counter()
    studies = {row.study_id: row for row in Cohort.open(path).studies()}
    of_volume = {volume: key for key, row in studies.items() for volume in row.volume_ids}
    held: dict[tuple[str, str], int | None] = {}
    for line, cells in read_delimited(table):
        key = next((name for name in KEYS if name in cells), "")
        if not key:
            raise SourceError(
                f"{table.name}: no column that says which study a row is about",
                expected=f"one of {', '.join(KEYS)}",
                fix="name that column so",
            )
        told = cells.pop(key)
        study_id = told if key == "study" else of_volume.get(_without_suffix(told), "")
        if study_id not in studies:
            left_out["not_in_cohort"] += 1
            continue
        for name in (name for name in cells if name not in KEYS):
            value = _cell(cells[name], table.name, line, name)
            if held.setdefault((study_id, name), value) != value:
                raise SourceError(
                    f"{table.name} line {line}, column {name!r}: another value than a row before",
                    expected="one value for each study and finding",
                    fix="correct the table; volumes of one study share its labels",
                )
    rows = [LabelRow(study_id=s, name=name, value=value) for (s, name), value in held.items()]
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    told = compact({"by": "table", "sha256": digest})
    return record(path, origin or f"table/{table.stem}", rows, left_out, told=told)


def reports_of(cohort: Cohort, left_out: Counter[str]) -> Iterator[tuple[str, tuple[Report, ...]]]:
    """Yield (study_id, reports) of the studies that have a report; count the others.

    Args:
        cohort: An open cohort.
        left_out: `no_report` is counted here.
    """
    for study in cohort.studies():
        reports = cohort.reports(study.study_id)
        if any(report.findings or report.impression for report in reports):
            yield study.study_id, reports
        else:
            left_out["no_report"] += 1


def record(
    path: str | Path,
    origin: str,
    rows: Sequence[LabelRow],
    left_out: Mapping[str, int],
    *,
    told: str,
) -> Labelling:
    """Write labels into a cohort under an origin and count them.

    Args:
        path: The cohort.
        origin: Whose labels these are; what it said before is replaced.
        rows: At most one for each study and finding.
        left_out: Reasons and counts that the result repeats.
        told: How the labels were made, kept among the cohort's facts.
    """
    with CohortWriter(path) as writer:
        writer.put_labels(origin, rows, told=told)
    counts: dict[str, list[int]] = {}
    for row in rows:
        counts.setdefault(row.name, [0, 0, 0])[2 if row.value is None else 1 - row.value] += 1
    return Labelling(
        origin=origin,
        num_studies=len({row.study_id for row in rows}),
        counts={name: (one[0], one[1], one[2]) for name, one in counts.items()},
        left_out=dict(sorted(left_out.items())),
    )


def train_on(path: str | Path, origin: str) -> None:
    """Let a cohort list the labels of one origin, so that models train and are judged on them.

    Args:
        path: The cohort.
        origin: One that has labels there; "source" = those that came with the studies.

    Raises:
        StoreError: Nothing was said there under that origin.
    """
    cohort = Cohort.open(path)
    if origin not in (*cohort.label_origins, SOURCE_LABELS):
        raise _unknown(cohort, origin)
    with CohortWriter(path) as writer:
        writer.list_labels_of(origin)


def compare(cohort: Cohort, reference: str, other: str) -> dict[str, Agreement]:
    """Count how the labels of two origins agree, finding by finding.

    Args:
        cohort: An open cohort.
        reference: Origin of the labels that precision and recall are measured against.
        other: Origin of the labels in question.

    Returns:
        For each finding that both speak of, in alphabetical order, the counts over the studies
        both have an answer for. CT-RATE's own labels never say "not stated": compare them by
        `Agreement.kappa("present")` and by the recall and precision of 1.

    Raises:
        StoreError: Nothing was said there under one of the origins, or of no common finding.
    """
    held = []
    for origin in (reference, other):
        rows = cohort.labels(origin)
        if not rows:
            raise _unknown(cohort, origin)
        held.append({(row.name, row.study_id): row.value for row in rows})
    pairs: dict[str, list[tuple[int | None, int | None]]] = {}
    for key in sorted(held[0].keys() & held[1].keys()):
        pairs.setdefault(key[0], []).append((held[0][key], held[1][key]))
    if not pairs:
        raise StoreError(
            f"cohort {cohort.path.name}: {reference!r} and {other!r} speak of nothing in common",
            expected="the same names of findings for the same studies",
            fix="label with the same findings",
        )
    return {name: agreement(both) for name, both in pairs.items()}


def comparison_text(cohort: Cohort, reference: str, other: str) -> str:
    """Print how two origins agree.

    Args:
        cohort: An open cohort.
        reference: As for `compare`.
        other: As for `compare`.
    """
    head = f"{other} against {reference} in {cohort.path.name} (1 present, 0 denied, - not stated)"
    return head + "\n" + agreement_table(compare(cohort, reference, other).items())


def _cell(text: str, table: str, line: int, column: str) -> int | None:
    """Read one cell of a label column."""
    if text.strip() in SIGNED_LABEL_VALUES:
        return SIGNED_LABEL_VALUES[text.strip()]
    raise SourceError(
        f"{table} line {line}, column {column!r}: not a label",
        expected="1, 0, or blank or -1 for not stated",
        fix="correct the cell, or leave out columns that are no findings",
    )


def _without_suffix(name: str) -> str:
    """Give a volume's id as the cohort has it."""
    suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def _unknown(cohort: Cohort, origin: str) -> StoreError:
    """Say which origins there are."""
    return StoreError(
        f"cohort {cohort.path.name}: no labels of origin {origin!r}",
        expected=f"one of {', '.join(cohort.label_origins) or 'none at all'}",
        fix="run `t3d label` first, or name one of them",
    )
