"""The way from a text to a report: what counts of it, and what was added to it.

free text --without_marks, report_parts--> parts --split_sections--> reports --resolve_reports-->
one report (`read_report`); sections that a table tells apart stay as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from t3d.errors import SourceError
from t3d.text.boilerplate import without_marks
from t3d.text.language import detect_language
from t3d.text.sections import SECTIONS, find_sections, split_sections
from t3d.types import Report

STATUSES = ("preliminary", "final", "addendum")

ADDENDUM_NAMES = {"en": "Addendum", "de": "Nachtrag"}
"""What an addendum is called where it was added; "Addendum" in every other language."""

_AE, _UE = r"(?:\u00e4|ae)", r"(?:\u00fc|ue)"
_MARK = re.compile(
    r"(?:^|(?<=[\n.,;]))[ \t*#=-]*"
    r"(?:(?P<preliminary>preliminary (?:report|read(?:ing)?|interpretation|findings)"
    rf"|wet read(?:ing)?|vorl{_AE}ufiger? (?:befund|bericht)|vorabbefund)"
    r"|(?P<final>final (?:report|read(?:ing)?|interpretation)|original report|end of addendum"
    rf"|endg{_UE}ltiger? (?:befund|bericht)|endbefund|originalbefund|ende des nachtrags)"
    rf"|(?P<addendum>addend(?:um|a)|nachtrag|erg{_AE}nzung|zusatzbefund))"
    r"(?:[ \t]*(?:#|nr\.?|no\.?)?[ \t]*\d{1,2}\b(?![./]))?"
    r"(?:[ \t]+(?:by|vom|von|on|dated|begins|to|zum|zu|for)\b[^\n:*]{0,60}(?::|\*+)"
    r"|[ \t*=-]*(?::|(?=\n)))[ \t*=-]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPart:
    """A piece of a free text that is a report of its own, as offsets into the text."""

    status: str  # one of STATUSES
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedReport:
    """The one report that counts, and what became of the others."""

    report: Report
    num_replaced: int = 0  # preliminary reports that a final or a later one replaced
    num_repeated: int = 0  # final reports and addenda that say what another says, word for word
    num_addenda: int = 0  # added to the report, each under its name

    @property
    def facts(self) -> Mapping[str, str]:
        """What was done, as facts of a study; nothing where nothing was."""
        counts = {
            "reports_replaced": self.num_replaced,
            "reports_repeated": self.num_repeated,
            "report_addenda": self.num_addenda,
        }
        return {name: str(count) for name, count in counts.items() if count}


def report_parts(text: str) -> tuple[ReportPart, ...]:
    """Find preliminary reports, final reports and addenda in one free text.

    A part begins after its mark ("PRELIMINARY REPORT:", "Wet read:", "FINAL REPORT", "ADDENDUM
    #2:", "Nachtrag vom 12.03.2019:") and ends at the next one. Text before the first mark is a
    final report where that mark is an addendum's, else a title that belongs to no part. An
    addendum that begins the text ends at the first heading of a section.

    Args:
        text: The whole text, English or German.

    Returns:
        Parts in the order of the text; one final part where there is no mark.

    Source:
        Our choice of marks.
    """
    marks = list(_MARK.finditer(text))
    if not marks:
        return (ReportPart(status="final", start=0, end=len(text)),)
    statuses = [mark.lastgroup or "final" for mark in marks]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    parts = [
        ReportPart(status=status, start=mark.end(), end=end)
        for status, mark, end in zip(statuses, marks, ends, strict=True)
    ]
    if set(statuses) == {"addendum"}:
        if text[: marks[0].start()].strip():
            parts.insert(0, ReportPart(status="final", start=0, end=marks[0].start()))
        else:
            parts[-1:] = _leading_addendum(text, parts[-1])
    return tuple(parts)


def _leading_addendum(text: str, part: ReportPart) -> list[ReportPart]:
    """End an addendum that stands before its report at the first heading after it."""
    body = text[part.start : part.end]
    named = [one for one in find_sections(body) if one.name]
    if not named:
        return [part]
    cut = part.start + named[0].name_start
    return [replace(part, end=cut), ReportPart(status="final", start=cut, end=part.end)]


def resolve_reports(reports: Sequence[Report]) -> ResolvedReport:
    """Make one report of all that were written about an examination.

    A final report replaces every preliminary one; without a final report the last preliminary
    one counts. Final reports that differ are joined, as each may speak of another region; one
    that repeats another word for word is left out. An addendum is added to the end of the same
    section, after "Addendum: " or "Nachtrag: "; the same one twice is added once.

    Args:
        reports: In the order in which they were written; `status` is one of STATUSES.

    Returns:
        The report, "preliminary" where nothing final was there, and counts.

    Raises:
        SourceError: A status is unknown.

    Source:
        Our choice.

    Example:
        >>> last = Report(impression="Nodule is stable.", status="addendum")
        >>> resolve_reports([Report(impression="Nodule."), last]).report.impression
        'Nodule.\\n\\nAddendum: Nodule is stable.'
    """
    by_status = {name: [r for r in reports if r.status == name] for name in STATUSES}
    known = sum(len(group) for group in by_status.values())
    if known < len(reports):
        raise SourceError(
            f"{len(reports) - known} of {len(reports)} reports have an unknown status",
            expected=f"one of {STATUSES}",
            fix="map the archive's codes to these names",
        )
    finals, addenda = (list(dict.fromkeys(by_status[s])) for s in ("final", "addendum"))
    preliminaries = by_status["preliminary"]
    base = finals or preliminaries[-1:]
    language = next((r.language for r in (*base, *reports)), "en")
    sections = {name: [getattr(r, name) for r in base] for name in SECTIONS}
    for one in addenda:
        name = ADDENDUM_NAMES.get(one.language, "Addendum")
        for section in SECTIONS:
            text = getattr(one, section).strip()
            sections[section].append(f"{name}: {text}" if text else "")
    texts = {name: "\n\n".join(t for t in parts if t.strip()) for name, parts in sections.items()}
    is_final = bool(finals or not preliminaries)
    return ResolvedReport(
        report=Report(
            findings=texts["findings"],
            impression=texts["impression"],
            language=language,
            status="final" if is_final else "preliminary",
        ),
        num_replaced=len(preliminaries) - (0 if is_final else 1),
        num_repeated=known - len(preliminaries) - len(finals) - len(addenda),
        num_addenda=len(addenda),
    )


def read_report(
    text: str, *, language: str = "", trailing_list: bool = False, opens: str = ""
) -> ResolvedReport:
    """Read one free text as an archive holds it: parts, sections, without boilerplate and tags.

    Args:
        text: The whole text, English or German.
        language: ISO 639-1 code; "" = tell it from the text, "en" where that fails.
        trailing_list: As in `split_sections`.
        opens: Heading under which each part begins, "FINDINGS" where a corpus keeps nothing else
            in its column: no name of an examination or of a part of the body opens findings then.

    Returns:
        As `resolve_reports`. An addendum without headings goes to the impression.
    """
    return resolve_reports(
        _reports_in(text, language=language, trailing_list=trailing_list, opens=opens)
    )


def reports_in_row(
    texts: Mapping[str, str], *, language: str = "", status: str = "final"
) -> list[Report]:
    """Read one row of a table that may tell sections apart, for `resolve_reports`.

    Args:
        texts: "report", a free text, or "findings" and "impression", which stay as they stand; a
            report beside an impression is the findings.
        language: As for `read_report`.
        status: Of the row; parts that the text itself calls preliminary or addendum stay that.

    Returns:
        The reports of the row; none where no text is told.
    """
    told = {name: texts.get(name, "") for name in ("report", *SECTIONS)}
    told = {name: text if text.strip() else "" for name, text in told.items()}
    if told["report"] and not told["impression"]:
        return _reports_in(told["report"], language=language, status=status)
    findings, impression = told["findings"] or told["report"], told["impression"]
    if not findings and not impression:
        return []
    code = language or detect_language(f"{findings}\n{impression}") or "en"
    return [Report(findings=findings, impression=impression, language=code, status=status)]


def _reports_in(
    text: str,
    *,
    language: str,
    status: str = "final",
    trailing_list: bool = False,
    opens: str = "",
) -> list[Report]:
    """Make a report of each part of a free text that says anything."""
    code = language or detect_language(text) or "en"
    clean = without_marks(text)
    reports = []
    for part in report_parts(clean):
        body = clean[part.start : part.end]
        known = status if part.status == "final" else part.status
        begin = opens
        if known == "addendum" and not any(one.name for one in find_sections(body)):
            begin = "IMPRESSION"
        headed = f"{begin}:\n{body}" if begin else body
        report = split_sections(headed, language=code, trailing_list=trailing_list)
        if report.findings or report.impression:
            reports.append(replace(report, status=known))
    return reports
