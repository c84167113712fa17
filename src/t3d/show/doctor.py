"""What the doctor found, as text, as JSON, as a table of files and as a page with pictures."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.cohort.audit import CHECKS
from t3d.ct.doctor import SEVERITIES
from t3d.show.mosaic import CHART, Histogram, View, histogram, views
from t3d.show.page import fill_template, write_page
from t3d.show.tables import Cell, Row, Table, fact_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from t3d.cohort.audit import Audit, AuditRow

MAX_LISTED = 200  # files in the page's table; the CSV has all
_STATES = {"error": "bad", "warning": "", "note": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanView:
    """One scan as the template draws it."""

    volume_id: str
    severity: str  # "" = nothing found
    findings: Table
    facts: Table
    pictures: tuple[View, ...]
    histogram: Histogram | None


def audit_text(audit: Audit) -> str:
    """Say what was found in plain lines.

    Args:
        audit: Of a scan, a folder, a source or a cohort.

    Returns:
        Of one scan, its symptoms and facts; of several, the checks, one count a reason, and one
        line for each file with a reason or symptom.
    """
    if audit.num_scans == 1 and len(audit.rows) == 1:
        return "\n".join(_scan_lines(audit.rows[0]))
    lines = [f"{audit.subject}: {audit.num_scans} scans of {audit.num_studies} studies"]
    lines += [f"  {number:2} {name}: {told}" for number, name, told in _checks(audit)]
    lines += ["reasons:"] + [f"  {name}: {count}" for name, count in audit.counts.items()]
    lines += ["symptoms:"] + [f"  {name}: {count}" for name, count in audit.symptoms.items()]
    lines += [f"note: {note}" for note in audit.notes]
    for row in audit.rows:
        told = row.message.splitlines()[:1] if row.reasons else []
        if row.reasons or _codes(row):
            lines.append(f"{_name(row)}: {', '.join([*row.reasons, *_other_codes(row)])}")
            lines += [f"  {line}" for line in told]
    return "\n".join(lines)


def _scan_lines(row: AuditRow) -> list[str]:
    """One scan in full."""
    lines = [f"scan {row.volume_id}"]
    if row.examination is None:
        return [*lines, f"  refused ({', '.join(row.reasons)})", *_indented(row.message)]
    for finding in row.examination.findings:
        lines += [f"{finding.severity}: {finding.code}: {finding.found}"]
        lines += [f"  how we know: {finding.evidence}", f"  what would fix it: {finding.fix}"]
    if not row.examination.findings:
        lines.append("nothing found")
    return lines + [f"  {name}: {fact}" for name, fact in row.examination.facts.items()]


def _indented(text: str) -> list[str]:
    """Lines of a message, two spaces in."""
    return [f"  {line}" for line in text.splitlines()]


def _name(row: AuditRow) -> str:
    """How a row is called."""
    return row.volume_id or row.study_id or "the listing"


def _codes(row: AuditRow) -> tuple[str, ...]:
    """Symptoms of a row's scan."""
    return tuple(f.code for f in row.examination.findings) if row.examination else ()


def _other_codes(row: AuditRow) -> tuple[str, ...]:
    """Symptoms that are no reason."""
    return tuple(code for code in _codes(row) if code not in row.reasons)


def _checks(audit: Audit) -> list[tuple[int, str, str]]:
    """The ten checks: number, what must hold, what was found."""
    told = []
    for number, (name, codes) in enumerate(CHECKS, start=1):
        found = {code: audit.counts[code] for code in codes if code in audit.counts}
        words = ", ".join(f"{count} {code}" for code, count in found.items())
        told.append((number, name, words or "holds"))
    return [*told, (10, "hash over volume, patient, split and text", audit.manifest)]


def audit_json(audit: Audit) -> dict[str, Any]:
    """Give an audit as plain values for `json.dumps`; pictures are left out.

    Args:
        audit: As for `audit_text`.
    """
    return {
        "subject": audit.subject,
        "sound": audit.sound,
        "scans": audit.num_scans,
        "studies": audit.num_studies,
        "manifest": audit.manifest,
        "checks": [
            {"number": number, "rule": name, "found": told} for number, name, told in _checks(audit)
        ],
        "counts": dict(audit.counts),
        "symptoms": dict(audit.symptoms),
        "notes": list(audit.notes),
        "rows": [_row_json(row) for row in audit.rows],
    }


def _row_json(row: AuditRow) -> dict[str, Any]:
    """One row."""
    told: dict[str, Any] = {
        "volume": row.volume_id,
        "study": row.study_id,
        "split": row.split,
        "reasons": list(row.reasons),
        "message": row.message,
    }
    if row.examination is not None:
        told["findings"] = [
            {name: getattr(f, name) for name in ("code", "severity", "found", "evidence", "fix")}
            for f in row.examination.findings
        ]
        told["facts"] = dict(row.examination.facts)
    return told


def audit_csv(audit: Audit) -> str:
    """Give one row a file: volume, study, split, reasons, symptoms, message.

    Args:
        audit: As for `audit_text`.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("volume", "study", "split", "reasons", "symptoms", "message"))
    for row in audit.rows:
        lists = (" ".join(row.reasons), " ".join(_codes(row)))
        writer.writerow((row.volume_id, row.study_id, row.split, *lists, row.message))
    return out.getvalue()


def audit_page(audit: Audit, out: str | Path) -> Path:
    """Draw the page: checks, counts, files, and pictures of the scans that kept them.

    Args:
        audit: As for `audit_text`.
        out: File to write, or a folder that gets `report.html`.

    Returns:
        The file written.
    """
    shown = [row for row in audit.rows if row.examination and row.examination.planes]
    shown.sort(key=lambda row: (_rank(row), row.volume_id))
    listed = [row for row in audit.rows if row.reasons or _codes(row)]
    page = fill_template(
        "doctor.html.jinja",
        title="t3d doctor",
        headline=_headline(audit),
        checks=_check_table(audit),
        counts=_count_table("Reasons, one count each", "reason", audit.counts),
        symptoms=_count_table("Symptoms of scans", "symptom", audit.symptoms),
        files=_file_table(listed),
        left_out=max(0, len(listed) - MAX_LISTED),
        scans=[_scan_view(row) for row in shown],
        num_scans=audit.num_scans,
        notes=audit.notes,
        chart=CHART,
    )
    return write_page(page, Path(out))


def _rank(row: AuditRow) -> int:
    """Gravest first."""
    severity = row.examination.severity if row.examination else ""
    return SEVERITIES.index(severity) if severity else len(SEVERITIES)


def _headline(audit: Audit) -> str:
    """One sentence."""
    worst = Counter(
        row.examination.severity if row.examination else "refused"
        for row in audit.rows
        if row.examination or row.reasons
    )
    words = {"error": "with errors", "warning": "with warnings", "note": "with notes only"}
    parts = [f"{worst[key]} {word}" for key, word in words.items() if worst[key]]
    if worst["refused"]:
        parts.append(f"{worst['refused']} not opened")
    parts.append(f"{worst['']} without any finding")
    scans = "1 scan" if audit.num_scans == 1 else f"{audit.num_scans} scans"
    return f"{scans}: {', '.join(parts)}."


def _check_table(audit: Audit) -> Table:
    """The ten checks."""
    rows = tuple(
        Row(
            head=str(number),
            cells=(Cell(text=name), Cell(text=told, state=_check_state(number, told))),
        )
        for number, name, told in _checks(audit)
    )
    return Table(
        caption="Ten checks", corner="check", columns=("rule", "found"), rows=rows, kind="words"
    )


def _check_state(number: int, told: str) -> str:
    """Colour of a check; a mere warning and the hash are neither good nor bad."""
    if number == 10 or (number in (6, 7) and told != "holds"):
        return ""
    return "good" if told == "holds" else "bad"


def _count_table(caption: str, corner: str, counts: Mapping[str, int]) -> Table:
    """Names and counts."""
    rows = tuple(Row(head=name, cells=(Cell(text=str(n)),)) for name, n in counts.items())
    return Table(caption=caption, corner=corner, columns=("count",), rows=rows)


def _file_table(listed: list[AuditRow]) -> Table:
    """Files with something to say."""
    rows = tuple(
        Row(
            head=_name(row),
            sub=row.study_id if row.study_id != row.volume_id else "",
            cells=(
                Cell(text=", ".join([*row.reasons, *_other_codes(row)])),
                Cell(text=row.message.replace("\n  ", "; ")),
            ),
        )
        for row in listed[:MAX_LISTED]
    )
    columns = ("reasons and symptoms", "what was said")
    return Table(caption="Files", corner="file", columns=columns, rows=rows, kind="words")


def _scan_view(row: AuditRow) -> ScanView:
    """One scan for the template."""
    examination = row.examination
    if examination is None:
        raise AssertionError(f"scan {row.volume_id} was not examined")
    rows = tuple(
        Row(
            head=finding.code,
            cells=(
                Cell(text=finding.severity, state=_STATES[finding.severity]),
                Cell(text=finding.found),
                Cell(text=finding.evidence),
                Cell(text=finding.fix),
            ),
        )
        for finding in examination.findings
    )
    columns = ("severity", "what is wrong", "how we know", "what would fix it")
    return ScanView(
        volume_id=row.volume_id,
        severity=examination.severity,
        findings=Table(
            caption="Symptoms", corner="symptom", columns=columns, rows=rows, kind="words"
        ),
        facts=fact_table("Facts", dict(examination.facts)),
        pictures=views(examination),
        histogram=histogram(examination),
    )
