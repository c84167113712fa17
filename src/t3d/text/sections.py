"""Find FINDINGS and IMPRESSION in free text, join them again, and fit them to a budget."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from t3d.errors import RecipeError
from t3d.types import Report

SECTIONS = ("findings", "impression")

_KINDS = {
    "findings": "findings|finding|discussion|report|befund|befunde",
    "impression": "impressions|impression|conclusions|conclusion|opinion|beurteilung",
    "": (
        "exams?|examinations?|procedure|technique|history|clinical (?:history|information|data)"
        "|indications?|reason for (?:exam(?:ination)?|study|visit)|comparisons?"
        "|comparison (?:exam|study)|contrast|dose|recommendations?|addendum|diagnosis|title"
        "|preoperative diagnosis|postoperative diagnosis"
    ),
}
_NAMES = "|".join(_KINDS.values())
_HEADING = re.compile(
    rf"(?:^|(?<=[\n.,;]))[ \t#*]*(?P<name>{_NAMES})[ \t*]*(?::[ \t*]*,?|(?=\r?\n))",
    re.IGNORECASE,
)
_INLINE = re.compile(rf"(?<=\s)(?P<name>{_NAMES.upper()})[ \t]*:[ \t]*,?")
_BLANK = " \t\r\n,*"
_SEPARATOR = "\n\n"  # ends a sentence even where a section does not


def split_sections(text: str, *, language: str = "en") -> Report:
    """Split a free report at its headings.

    A heading is a known word before a colon, or alone on its line; inside a line it must be in
    capitals. Other known headings (technique, history, ...) end a section and are left out.
    Several sections of one kind are joined. A text without any heading is all findings.

    Args:
        text: The whole report.
        language: ISO 639-1 code that is kept in the report.

    Returns:
        A report; a section that was not found is "".

    Source:
        Our choice; checked on public transcriptions of radiology reports.
    """
    found = {m.start("name"): m for m in (*_HEADING.finditer(text), *_INLINE.finditer(text))}
    if not found:
        return Report(findings=text.strip(_BLANK), language=language)
    heads = [found[start] for start in sorted(found)]
    parts: dict[str, list[str]] = {name: [] for name in _KINDS}
    for head, end in zip(heads, [*(h.start("name") for h in heads[1:]), len(text)], strict=True):
        body = text[head.end() : end].strip(_BLANK + "#")
        if body:
            parts[_kind(head.group("name"))].append(body)
    return Report(
        findings=_SEPARATOR.join(parts["findings"]),
        impression=_SEPARATOR.join(parts["impression"]),
        language=language,
    )


def _kind(name: str) -> str:
    """Tell which section a heading opens; "" for one that is not kept."""
    for kind, names in _KINDS.items():
        if kind and re.fullmatch(names, name, re.IGNORECASE):
            return kind
    return ""


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
