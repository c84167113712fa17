"""Find the sections of a report, join them again, and fit them to a budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from t3d.errors import RecipeError
from t3d.types import Report

SECTIONS = ("findings", "impression")

_A = r"(?:\u00e4|ae)"
_PARTS = "chest|thorax|abdomen|pelvis|head|neck|hals|becken|sch" + _A + "del|brain|lungs?"
_KINDS = {
    "findings": (
        r"findings|finding|discussion|report|interpretations?|technique and findings"
        r"|findings (?:and|/) impressions?|(?:ct-?)?befunde?|befundbeschreibung|beschreibung"
        r"|befunde? (?:und|/) beurteilung"
    ),
    "impression": (
        r"(?:final )?impression|impressions|impression\(s\)|conclusions?|opinion|summary"
        r"|(?:zusammenfassende )?beurteilung|zusammenfassung|fazit|befundbeurteilung"
        r"|gesamtbeurteilung"
    ),
    "history": (
        r"history|clinical (?:history|information|data|indications?)|indications?"
        r"|indication for study|reason for (?:exam(?:ination)?|study|visit|(?:ct )?scan)"
        r"|(?:klinische )?(?:angaben|fragestellung|informationen|information|indikation)"
        r"|(?:rechtfertigende )?indikation|klinik(?: und fragestellung)?|anamnese"
        r"|klinische (?:angaben|diagnose)(?: und fragestellung)?"
    ),
    "technique": (
        r"techniques?|protocol|contrast|(?:radiation )?dose|(?:technical|image) quality"
        r"|(?:untersuchungs)?technik|technische angaben|methodik|bildqualit"
        rf"{_A}t|methode|untersuchungs(?:protokoll|verfahren|methode)|kontrastmittel"
        r"|dosis(?:angaben)?"
    ),
    "comparison": (
        r"comparisons?|comparison (?:exam(?:ination)?|study|studies)|prior stud(?:y|ies)"
        r"|(?:zum )?vergleich|vergleichsuntersuchung(?:en)?"
        r"|vor(?:untersuchung|aufnahme|befund)(?:en|e)?"
    ),
    "recommendation": r"recommendations?|empfehlung(?:en)?|procedere|prozedere",
    "addendum": rf"addendum|nachtrag|erg{_A}nzung",
    "other": (
        r"exams?|examinations?|procedure|diagnosis|title|preoperative diagnosis"
        r"|postoperative diagnosis|untersuchung(?:en)?|diagnosen?"
    ),
    "part": rf"(?:ct )?(?:of the )?(?:{_PARTS})",  # opens findings where nothing else does
    "beside": (  # findings, but not the heading of the report's main ones
        r"(?:ancillary|incidental|additional|associated|other|(?:extra-?|non-?)cardiac) findings?"
        r"|nebenbefunde?"
    ),
}
_NAMES = "|".join(f"(?:{names})" for names in _KINDS.values())
_NAMED = {kind: re.compile(names, re.IGNORECASE) for kind, names in _KINDS.items()}
_TAIL = r"(?:[ \t]+(?:vom|dated|ct|\()[^\n:,;]{0,40})?"  # "Befund vom 12.03.2019:"
_COLON = re.compile(r":[ \t*]*,?")
_BEFORE_COLON = re.compile(
    rf"(?:(?:^|(?<=[\n.,;]))[ \t#*]*(?P<name>{_NAMES}){_TAIL}"
    rf"|(?<=\s)(?<!end of )(?P<inline>{_NAMES}))[ \t*]*\Z",
    re.IGNORECASE,
)
_OWN_LINE = re.compile(
    rf"^[ \t#*]*(?P<name>{_NAMES}){_TAIL}[ \t*]*(?=\r?\n)", re.IGNORECASE | re.MULTILINE
)
_REACH = 90  # characters before a colon in which a heading is looked for
_BLANK = " \t\r\n,*"
_TITLE = 300  # characters before the first heading of a report; more is a letter or a note
_BEFORE_FINDINGS = ("history", "technique", "comparison", "other")
# An empty line; or ".,", which is what is left of a line's end in some collections.
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n|\.[ \t]*,(?=[A-Z0-9\u00c4\u00d6\u00dc])")
_SEPARATOR = "\n\n"  # ends a sentence even where a section does not
_ITEM = re.compile(
    r"(?:^|(?<=\n)|(?<=[.:;,] )|(?<=[.:;,]  )|(?<=[.:;,]))[ \t]*(\d{1,2})[.)]\s+(?=\D)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a free report, as offsets into its text."""

    kind: str  # "findings", "impression", "history", "technique", "comparison", ...; "" = none
    name: str  # the heading as it was typed; "" = text before the first heading
    name_start: int  # its first character
    start: int  # first character of the body
    end: int  # one past its last


def find_sections(text: str) -> tuple[Section, ...]:
    """Find the headings of a free report and what stands under each.

    A heading is a known word before a colon, or alone on its line; inside a line it must be in
    capitals. "CT ABDOMEN:", "Thorax:" open findings only where no other heading does. Text
    before the first heading is findings where nothing else is and the first heading is that of
    the impression, else it has no kind. Where no heading opens findings ("INCIDENTAL FINDINGS:"
    opens some, not the main ones), what follows the first paragraph under the last heading before
    the impression is findings without a heading, unless a long text stands before all headings.

    Args:
        text: The whole report, English or German.

    Returns:
        Sections in the order of the text, also empty ones; bodies without blanks at their ends.
        Kinds: "findings", "impression", "history" (also the question asked), "technique",
        "comparison", "recommendation", "addendum", "other" and "".

    Source:
        Our choice of words; checked on public transcriptions of radiology reports.
    """
    heads = _headings(text)
    ends = [*(head.start for head in heads[1:]), len(text)][: len(heads)]
    found = [_section(text, head, end) for head, end in zip(heads, ends, strict=True)]
    first = heads[0].start if heads else len(text)
    main = any(_opens_findings(one) for one in found)
    alone = not heads or (not main and heads[0].kind == "impression")
    before = _section(text, _Heading(0, 0, "findings" if alone else "", ""), first)
    there = before.start < before.end
    if not main and before.end - before.start <= (0 if alone else _TITLE):
        found = _with_unnamed(text, found)
    sections = [replace(one, kind="findings") if one.kind == "beside" else one for one in found]
    return (before, *sections) if there else tuple(sections)


def _opens_findings(section: Section) -> bool:
    """Say whether a section is the main findings; "CT CHEST" with nothing under it is a title."""
    told = section.start < section.end or _NAMED["findings"].fullmatch(section.name)
    return section.kind == "findings" and bool(told)


def _with_unnamed(text: str, found: Sequence[Section]) -> list[Section]:
    """Make findings of what follows the first paragraph under the last heading before them."""
    ends = [n for n, one in enumerate(found) if one.kind == "impression"][:1] or [len(found)]
    heads = [n for n, one in enumerate(found[: ends[0]]) if one.kind in _BEFORE_FINDINGS]
    sections = list(found)
    for n in heads[-1:]:
        one = found[n]
        gap = _PARAGRAPH.search(text, one.start, one.end)
        if gap is not None:
            head = _Heading(one.name_start, one.start, one.kind, one.name)
            cut = gap.start() + (text[gap.start()] == ".")
            told = _section(text, _Heading(gap.end(), gap.end(), "findings", ""), one.end)
            sections[n : n + 1] = [
                _section(text, head, cut),
                replace(told, name_start=told.start),
            ]
    return sections


class _Heading(NamedTuple):
    start: int  # of its name
    body: int  # one past the colon
    kind: str
    name: str


def _headings(text: str) -> list[_Heading]:
    """List the headings in order; names of body parts only where they are needed."""
    found = []
    for colon in _COLON.finditer(text):
        head = _BEFORE_COLON.search(text, max(0, colon.start() - _REACH), colon.start())
        if head is not None:
            found.append(_heading(text, head, colon.end()))
    found += [_heading(text, line, line.end()) for line in _OWN_LINE.finditer(text)]
    heads = sorted(head for head in found if head is not None)
    if any(head.kind == "findings" for head in heads):
        return [head for head in heads if head.kind != "part"]
    return [head._replace(kind="findings") if head.kind == "part" else head for head in heads]


def _heading(text: str, match: re.Match[str], body: int) -> _Heading | None:
    """Tell what a heading opens; None where it stands as no heading does."""
    part = "name" if match.group("name") else "inline"
    name, start = match.group(part), match.start(part)
    kind = next(kind for kind, names in _NAMED.items() if names.fullmatch(name))
    begins_line = match.start() == 0 or text[match.start() - 1] == "\n"
    if name != name.upper() and (part == "inline" or (kind == "part" and not begins_line)):
        return None
    return _Heading(start, body, kind, name)


def _section(text: str, head: _Heading, end: int) -> Section:
    """Take blanks and marks off both ends of what stands under a heading."""
    start = head.body
    while start < end and text[start] in _BLANK:
        start += 1
    end = max(start, end)
    while end > start and text[end - 1] in _BLANK + "#":
        end -= 1
    return Section(kind=head.kind, name=head.name, name_start=head.start, start=start, end=end)


def split_sections(text: str, *, language: str = "en", trailing_list: bool = False) -> Report:
    """Split a free report into findings and impression.

    Sections of other kinds are left out; several of one kind are joined by an empty line. A text
    without any heading is all findings.

    Args:
        text: The whole report, English or German.
        language: ISO 639-1 code that is kept in the report.
        trailing_list: Where no heading opens an impression, a numbered list that ends the
            findings is one (Merlin).

    Returns:
        A report; a section that was not found is "". A section that occurs once is a piece of
        the text, `text[s.start : s.end]` of `find_sections`.

    Source:
        `trailing_list`: what RadFinder's code does for Merlin; the rest is our choice.
    """
    parts: dict[str, list[str]] = {name: [] for name in SECTIONS}
    for one in find_sections(text):
        body = text[one.start : one.end]
        if body and one.kind in parts:
            parts[one.kind].append(body)
    findings, impression = (_SEPARATOR.join(parts[name]) for name in SECTIONS)
    if trailing_list and not impression:
        start = _trailing_list(findings)
        findings, impression = findings[:start].rstrip(_BLANK), findings[start:]
    return Report(findings=findings, impression=impression, language=language)


def _trailing_list(text: str) -> int:
    """Give where a numbered list of two items or more begins that ends a text, or its length."""
    start, expected = len(text), 0
    for item in _ITEM.finditer(text):
        number = int(item.group(1))
        if number == 1:
            start, expected = item.start(1), 1
        elif number != expected + 1:
            start, expected = len(text), 0
            continue
        expected = number
    return start if expected >= 2 and start > 0 else len(text)  # a text that is all list stays


def join_sections(report: Report, sections: tuple[str, ...] = SECTIONS) -> str:
    """Join sections into one text, without headings, in the order asked for.

    Args:
        report: Sections that are "" are skipped.
        sections: Names out of "findings" and "impression".

    Returns:
        The sections with an empty line between them.

    Raises:
        RecipeError: A section has another name.
    """
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise RecipeError(
            f"report sections {unknown}",
            expected=f"names out of {SECTIONS}",
            fix='use text_sections=("findings", "impression")',
        )
    texts = [getattr(report, name).strip() for name in sections]
    return _SEPARATOR.join(text for text in texts if text)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSections:
    """Which sentences of a report fit into a budget, as ascending indices."""

    findings: tuple[int, ...]
    impression: tuple[int, ...]
    truncated: bool  # something was left out


def fit_sections(
    findings_sentences: Sequence[str],
    impression_sentences: Sequence[str],
    lengths: Sequence[int],
    budget: int,
) -> FittedSections:
    """Choose the sentences that fit into a token budget, so that the impression survives.

    The impression is kept first, sentence by sentence; one that does not fit is passed over.
    What is left of the budget goes to the findings, which are cut at the end of the last
    sentence that fits.

    Args:
        findings_sentences: F sentences.
        impression_sentences: I sentences.
        lengths: F + I token counts, findings first.
        budget: Most tokens to keep.

    Returns:
        Indices into each list and whether anything was left out.

    Raises:
        RecipeError: The budget is negative, or there is not one length for each sentence.

    Source:
        Our choice. Check: lengths (4, 4, 4) findings, (3, 2) impression, budget 10
        -> findings (0,), impression (0, 1), truncated.
    """
    num_findings = len(findings_sentences)
    num_all = num_findings + len(impression_sentences)
    if budget < 0 or len(lengths) != num_all or any(length < 0 for length in lengths):
        raise RecipeError(
            f"{len(lengths)} lengths for {num_all} sentences, budget {budget}",
            expected="one length of 0 or more for each sentence and a budget of 0 or more",
            fix="count tokens for the findings' sentences, then for the impression's",
        )
    left = budget
    impression = []
    for i, length in enumerate(lengths[num_findings:]):
        if length <= left:
            impression.append(i)
            left -= length
    findings = []
    for i, length in enumerate(lengths[:num_findings]):
        if length > left:
            break
        findings.append(i)
        left -= length
    return FittedSections(
        findings=tuple(findings),
        impression=tuple(impression),
        truncated=len(findings) + len(impression) < num_all,
    )
