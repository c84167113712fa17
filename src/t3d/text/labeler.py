"""Read findings from the sentences of a report: 1, 0 or not stated, and which sentence says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from t3d.errors import SourceError
from t3d.text.findings import CT_RATE_18, FindingSet, FindingTerms
from t3d.text.labeler_german import GERMAN, TERMS_GERMAN
from t3d.text.labeler_terms import TERMS
from t3d.text.scope import ABSENT, ENGLISH, PRESENT, Clause, Cues, clauses
from t3d.text.sections import SECTIONS
from t3d.text.sentences import split_sentences
from t3d.types import Report

LANGUAGES: Mapping[str, Cues] = MappingProxyType({"en": ENGLISH, "de": GERMAN})
"""Languages whose negations and doubts are known."""

CT_RATE_FINDINGS = FindingSet(
    name="ct_rate18",
    names=CT_RATE_18,
    terms=MappingProxyType({"en": TERMS, "de": TERMS_GERMAN}),
)
"""The 18 findings of CT-RATE with terms of ours."""

_CACHED = 1 << 15  # sentences


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a report says of one finding, and which sentence says so."""

    value: int | None  # 1 present, 0 denied, None = not stated
    evidence: int | None  # index of the first sentence that says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a report says of one finding, and the place that says so."""

    value: int | None  # 1 present, 0 denied, None = not stated
    report: int = 0  # which of a study's reports
    section: str = ""  # "findings" or "impression"; "" = no place
    start: int = 0  # first character within the section
    end: int = 0  # one past the last character


def label_sentence(
    sentence: str, language: str = "en", findings: FindingSet = CT_RATE_FINDINGS
) -> Mapping[str, int]:
    """Read which findings a sentence asserts or denies.

    A finding that is only considered ("cannot be excluded", "possible", "no new ...") is not
    stated. "Probable" and "consistent with" assert. Where one sentence asserts and denies a
    finding ("no right but a small left effusion"), it is asserted.

    Args:
        sentence: One sentence.
        language: ISO 639-1, one of `LANGUAGES`.
        findings: What to look for, with terms of that language.

    Returns:
        Name -> 1 or 0, in the order of `findings.names`; silent findings are left out.

    Raises:
        SourceError: The language is not known, or the findings have no terms of it.

    Source:
        Our choice of terms and rules; not validated on reports of CT-RATE.

    Example:
        >>> dict(label_sentence("No effusion, but the heart is enlarged."))
        {'Cardiomegaly': 1, 'Pleural effusion': 0}
    """
    return _read(sentence, language, findings)


@lru_cache(maxsize=_CACHED)
def _read(sentence: str, language: str, findings: FindingSet) -> Mapping[str, int]:
    """Read one sentence; repeated ones are remembered."""
    terms = findings.terms_of(language)
    if language not in LANGUAGES:
        raise SourceError(
            f"no rules of negation for reports in {language!r}",
            expected=f"one of {', '.join(LANGUAGES)}",
            fix="translate the reports, or import labels made elsewhere",
        )
    parts = clauses(sentence, LANGUAGES[language])
    values = {name: _value(terms[name], parts) for name in findings.names if name in terms}
    return MappingProxyType({name: v for name, v in values.items() if v is not None})


def label_report(
    sentences: Sequence[str], language: str = "en", findings: FindingSet = CT_RATE_FINDINGS
) -> Mapping[str, Labelled]:
    """Read all findings from the sentences of a report.

    A finding asserted by any sentence is present; else one denied by any sentence is absent;
    else it is not stated, which is not the same as absent.

    Args:
        sentences: Sentences of a section or of the whole report, in order.
        language: As for `label_sentence`.
        findings: As for `label_sentence`.

    Returns:
        Every name with its value and the index of the first such sentence.
    """
    stated: dict[str, Labelled] = {}
    for index, sentence in enumerate(sentences):
        for name, value in label_sentence(sentence, language, findings).items():
            known = stated.get(name)
            if known is None or (known.value == ABSENT and value == PRESENT):
                stated[name] = Labelled(value, index)
    silent = Labelled(None, None)
    return {name: stated.get(name, silent) for name in findings.names}


def read_reports(
    reports: Sequence[Report], findings: FindingSet = CT_RATE_FINDINGS
) -> Mapping[str, Answer]:
    """Read all findings from the reports of one study, with the place of the evidence.

    Findings come before impressions. Preliminary reports count only where there is no final
    one. Reports are read each in its own language.

    Args:
        reports: In the source's order.
        findings: What to look for.

    Returns:
        Every name with its value and the place of the first sentence that says so.

    Raises:
        SourceError: As for `label_sentence`.
    """
    final = [(n, r) for n, r in enumerate(reports) if r.status != "preliminary"]
    stated: dict[str, Answer] = {}
    for number, report in final or list(enumerate(reports)):
        for section in SECTIONS:
            text = getattr(report, section)
            spans = split_sentences(text)
            read = label_report([text[a:b] for a, b in spans], report.language, findings)
            for name, found in read.items():
                known = stated.get(name)
                if found.evidence is None or (known and (known.value or 0) >= (found.value or 0)):
                    continue
                start, end = spans[found.evidence]
                stated[name] = Answer(
                    value=found.value, report=number, section=section, start=start, end=end
                )
    return {name: stated.get(name, Answer(value=None)) for name in findings.names}


def _value(terms: FindingTerms, parts: Sequence[Clause]) -> int | None:
    """Join what the clauses of a sentence say of one finding: 1 over 0 over nothing."""
    values = {value for clause in parts for value in _values(terms, clause)}
    return max((v for v in values if v is not None), default=None)


def _values(terms: FindingTerms, clause: Clause) -> list[int | None]:
    """List what one clause says of one finding, mention by mention."""
    text = clause.text
    if not any(stem in text for stem in terms.stems):
        return []
    values = [clause.status(*match.span()) for match in terms.named.finditer(text)]
    if terms.bare is not None and not terms.bare[1].search(text):
        values += [clause.status(*match.span()) for match in terms.bare[0].finditer(text)]
    if terms.normal is not None and terms.normal.search(text):
        values.append(ABSENT)
    if values and terms.elsewhere is not None and terms.elsewhere.search(text):
        return []
    return values
