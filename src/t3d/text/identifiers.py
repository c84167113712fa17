"""Patterns of what names a person in a report: names, ids, addresses, and dates in their forms.

Every pattern is a rule of thumb. What the group `it` holds (else the whole match) is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de"
_LOWER = "a-z\u00df-\u00f6\u00f8-\u00ff"
_NO_NAMES = (
    "was|is|has|had|who|at|on|by|the|of|from|and|in|to|with|will|notified|agreed|reviewed|informed"
    "|emergency|department|ed|er|icu|nurse|radiology|the|a|an|team|service|clinic|ward|physician"
    "|wurde|wird|ist|hat|am|um|vom|von|und|im|in|zu|mit|aus|der|die|das|station|klinik|radiologie"
    "|name|patient|patientin|impression|findings|technique|history|comparison|befund|beurteilung"
    "|technik|kein|keine|no|none|there|this|telefonisch|rn|dr|drs|prof|neuro|neurology|surgery"
    "|anesthesia|cardiology|oncology|medicine|pulmonology|orthopedics"
)
_WORD = (
    rf"(?:(?!(?i:{_NO_NAMES})\b)[{_UPPER}]'?[{_UPPER}{_LOWER}'\u2019]+"
    rf"(?:-[{_UPPER}][{_UPPER}{_LOWER}]+)*|[{_UPPER}]\.)"
)
_PARTICLE = (
    r"(?:(?i:von der|von dem|von|van der|van den|van|de la|de|del|di|zu|zur|vom|el|al|bin) )?"
)
_WORDS = rf"{_WORD}(?:[ ]{_PARTICLE}{_WORD}){{0,2}}"
_NAME = rf"{_PARTICLE}{_WORDS}"
_LISTED = rf"{_NAME}(?:, ?{_NAME})?"  # "SMITH, JOHN"
_DEGREE = r"(?:M\.? ?D\b|D\.? ?O\b|Ph\.? ?D\b|RN\b|PA-C\b|NP\b|FRCR\b)\.?"
_TITLE_DE = (
    r"(?:Dr\.|Drs\.|Prof\.|PD|Priv\.-?Doz\.|med\.|habil\.|univ\.|h\. ?c\.|dent\.|rer\.|nat\."
    r"|OA|O\u00c4|CA|AA|Ober(?:arzt|\u00e4rztin)|Chef(?:arzt|\u00e4rztin)"
    r"|Assistenz(?:arzt|\u00e4rztin)|Kolleg(?:e|en|in)|Schwester|Pfleger)"
)


@dataclass(frozen=True, slots=True)
class Identifier:
    """Where something stands that names a person, and what kind of thing it is."""

    start: int
    end: int
    kind: str  # "name", "id", "phone", "email", "url", "address", "age"


def _rules(*rules: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Compile patterns; `(?i:...)` inside one makes a part of it blind to case."""
    return tuple((kind, re.compile(pattern, re.MULTILINE)) for kind, pattern in rules)


_NUMBERED = (
    r"[ \t]*(?:(?i:no|nr|number|nummer|id)\b\.?)?[ \t]*[:#]?[ \t]*"
    r"(?P<it>(?=[\w/.-]*\d)\w[\w/.-]*\w)"
)
_DIALLED = r"\.?[ \t]*[:#]?[ \t]*(?P<it>[+(\d](?:[\d ()/.-]*\d)?)"
_ANYWHERE = _rules(
    ("email", r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("url", r"\b(?:https?://|www\.)[^\s<>\"]+"),
    ("id", r"\b\d+(?:\.\d+){5,}\b"),  # a DICOM UID
    ("phone", r"(?<![\w.])\+\d{1,3}[ \d()/.-]{6,}\d"),
    ("phone", r"(?<!\w)\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}(?!\d)"),
    ("id", r"(?<![\d.,])\d{3}-\d{2}-\d{4}(?!\d)"),
)
_LONG_NUMBERS = _rules(("id", r"(?<![\w.,/-])\d{7,}(?![\w/-]|[.,]\d)"))
_ENGLISH = _rules(
    ("phone", rf"\b(?i:phone|telephone|tel|fax|pager|beeper|cell|ext|extension){_DIALLED}"),
    (
        "id",
        r"\b(?i:mrn|medical record|patient id|pat\.? id|accession|acc|account|acct|case no"
        rf"|order no|order number|ssn|visit|encounter){_NUMBERED}",
    ),
    (
        "name",
        r"\b(?:Drs?|DRS?|Doctor|Prof|Professor|Mr|Mrs|MRS|Ms|Miss|Mx|Sister|Nurse)\b\.?[ ]+"
        rf"(?P<it>{_NAME}(?: (?:and|AND|&) (?:Drs?\. )?{_NAME})?)",
    ),
    ("name", rf"\b(?=[{_UPPER}])(?P<it>{_WORDS}),?[ ]+{_DEGREE}"),
    (
        "name",
        r"(?:^|(?<=[.;,] ))[ \t]*(?i:patient(?: name)?|name|referring(?: physician| provider)?"
        r"|ordering(?: physician| provider)?|attending(?: radiologist| physician)?|radiologist"
        r"|resident|fellow|signed|technologist)"
        rf"[ \t]*:[ \t]*(?:Dr\.? )?(?P<it>{_LISTED})",
    ),
    (
        "name",
        r"\b(?i:(?:dictated|signed|read|transcribed|interpreted|reported|reviewed|verified|approved"
        r"|referred|performed) (?:by|to)|discussed with|called to|paged to|communicated to"
        r"|under the name)[ \t]*:?[ \t]+(?i:dr\.? |np |pa )?"
        rf"(?P<it>{_NAME})",
    ),
    (
        "address",
        rf"\b\d{{1,5}} (?:[{_UPPER}]\w+ ){{1,3}}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane"
        r"|Ln|Drive|Court|Way)\b\.?",
    ),
    ("age", r"\b(?:9\d|1[01]\d)(?:[ -](?:year|yr)s?[ -]old\b| ?y/?o\b)"),
)
_GERMAN = _rules(
    (
        "phone",
        r"\b(?i:tel|telefon|telefax|fax|dect|durchwahl|mobil|handy|funk|piepser|pieper|rufnummer)"
        rf"{_DIALLED}",
    ),
    ("phone", r"(?<![\w.,])0\d{2,5}[ /-]{1,3}\d{3,}(?:[ -]\d+)*"),
    (
        "id",
        r"\b(?i:pat(?:ienten)?\.?-?[ ]?(?:nr|nummer|id)|fall-?(?:nr|nummer)|aufnahme-?(?:nr|nummer)"
        r"|auftrags-?(?:nr|nummer)|versicherten-?(?:nr|nummer)|befund-?(?:nr|nummer)"
        rf"|akten-?(?:nr|zeichen)|untersuchungs-?(?:nr|nummer))\.?{_NUMBERED}",
    ),
    (
        "name",
        rf"\b(?:Herrn?|Frau|Hrn?\.|Fr\.|Familie)(?:[ ]+{_TITLE_DE})*[ ]+(?P<it>{_NAME})",
    ),
    (
        "name",
        r"\b(?:Drs?\.|DRS?\.|Prof\.|Priv\.-?Doz\.|PD (?=Dr)|OA |O\u00c4 |Ober(?:arzt|\u00e4rztin)"
        r"|Chef(?:arzt|\u00e4rztin)|Kolleg(?:en|in)|Schwester|Pfleger)"
        rf"(?:[ ]*{_TITLE_DE})*[ ]+(?P<it>{_NAME}(?: und {_NAME})?)",
    ),
    (
        "name",
        r"(?:^|(?<=[.;,] ))[ \t]*(?i:patient(?:in)?|name|nachname|vorname|zuweiser|\u00fcberweiser"
        r"|befunder|befundender arzt|radiologe|radiologin|arzt|\u00e4rztin|mtra|unterschrift)"
        rf"[ \t]*:[ \t]*(?:{_TITLE_DE}[ ]*)*(?P<it>{_LISTED})",
    ),
    (
        "name",
        r"\b(?i:(?:diktiert|signiert|befundet|vidiert|freigegeben|geschrieben|validiert"
        r"|\u00fcberwiesen|unterschrieben|erstellt) (?:von|durch)|gez\.|mitgeteilt an"
        r"|unter dem namen|besprochen mit|r\u00fccksprache mit)[ \t]*:?[ \t]+"
        rf"(?:{_TITLE_DE}[ ]*)*(?P<it>{_NAME})",
    ),
    (
        "address",
        rf"\b[{_UPPER}][\w-]*(?:stra\u00dfe|strasse|str\.|weg|platz|allee|gasse|ring|ufer)"
        r"[ ]\d{1,4}[a-z]?\b",
    ),
    ("address", rf"(?:^|(?<=, )|(?<=\n))(?:D-)?\d{{5}} [{_UPPER}][{_LOWER}]+"),
    ("age", r"\b(?:9\d|1[01]\d)(?:[ -]?j\u00e4hrig\w*| Jahre alte?\w*)"),
)
_BY_LANGUAGE = {"en": _ENGLISH, "de": _GERMAN}


def find_identifiers(text: str, *, language: str) -> Iterator[Identifier]:
    """Find what names a person, but for dates; pieces may overlap.

    Args:
        text: A report.
        language: "en" or "de"; of another language only what needs no words is found.

    Yields:
        Identifiers, the surest rules first.
    """
    for kind, pattern in (*_ANYWHERE, *_BY_LANGUAGE.get(language, ()), *_LONG_NUMBERS):
        for match in pattern.finditer(text):
            part = "it" if "it" in pattern.groupindex else 0
            start, end = match.span(part)
            yield Identifier(start, end, kind)


# ---- dates -----------------------------------------------------------------------------------

MONTHS: Mapping[str, tuple[str, ...]] = {
    "en": (
        *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
        *("October", "November", "December"),
    ),
    "de": (
        *("Januar", "Februar", "M\u00e4rz", "April", "Mai", "Juni", "Juli", "August", "September"),
        *("Oktober", "November", "Dezember"),
    ),
}
_SHORT = {
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    "de": ("Jan", "Feb", "Mrz", "Apr", "Mai", "Jun", "Jul", "Aug", "Sep", "Okt", "Nov", "Dez"),
}
_YEAR4, _YEAR = r"(?P<y>(?:19|20)\d\d)", r"(?P<y>(?:19|20)\d\d|\d\d)"
_DAY, _MONTH = r"(?P<d>0?[1-9]|[12]\d|3[01])", r"(?P<m>0?[1-9]|1[0-2])"
_FIRST, _SECOND = r"(?P<a>\d{1,2})", r"(?P<b>\d{1,2})"
_FREE, _CLEAR = r"(?<![\d./,-])", r"(?![\d/]|[.,-]\d)"  # no part of a longer number
_BEFORE_DATE = r"(?P<w>\b(?i:vom|am|zum|bis|seit|dated|on) )"


@dataclass(frozen=True, slots=True)
class DateForm:
    """One way to write a date; groups: d m y, a b for an order that the language decides."""

    pattern: re.Pattern[str]
    language: str = ""  # of the name of a month; "" = the month is a number


def _word_forms(language: str) -> Iterator[DateForm]:
    """Give the forms of one language that write the month as a word."""
    long, short = MONTHS[language], _SHORT[language]
    also = ("Maerz",) if language == "de" else ("Sept",)
    names = sorted({*long, *short, *also}, key=len, reverse=True)
    month = rf"(?P<n>{'|'.join((*names, *(n.upper() for n in names)))})\b\.?"
    nth = r"(?P<s>st|nd|rd|th)?" if language == "en" else r"\."
    gap = r"[ ]?" if language == "de" else r"(?: of)?[ ]"
    patterns = [
        rf"\b{_DAY}{nth}{gap}{month},?[ ]?{_YEAR4}\b",
        rf"\b{_DAY}{nth}{gap}{month}[ ]{_YEAR}\b(?![.,]\d)",
        rf"(?<![\w.]){month}[ ]{_YEAR4}\b",
    ]
    if language == "en":
        patterns.insert(0, rf"\b{month}[ ]{_DAY}{nth},?[ ]{_YEAR4}\b")
        patterns.insert(0, rf"\b{_DAY}-{month}-{_YEAR}\b")
        patterns.append(rf"\b{month}[ ]{_DAY}{nth}\b(?<!May \d)(?<!May \d\d)")
    patterns.append(rf"\b{_DAY}{nth}{gap}{month}\b")
    return (DateForm(re.compile(pattern), language) for pattern in patterns)


def _date_forms() -> tuple[DateForm, ...]:
    """Give every form, the longer before the shorter."""
    numbers = (
        rf"{_FREE}{_YEAR4}-(?P<m>0[1-9]|1[0-2])-(?P<d>0[1-9]|[12]\d|3[01])(?![\d-])",
        rf"{_FREE}{_YEAR4}(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?![\d.-])",
        rf"{_FREE}{_DAY}\.[ ]?{_MONTH}\.[ ]?{_YEAR}{_CLEAR}",
        rf"{_FREE}{_FIRST}/{_SECOND}/{_YEAR}{_CLEAR}",
        rf"{_FREE}{_FIRST}-{_SECOND}-{_YEAR4}{_CLEAR}",
        rf"{_FREE}{_MONTH}[/.]{_YEAR4}{_CLEAR}",
        rf"{_BEFORE_DATE}{_DAY}\.{_MONTH}\.(?!\d)",
        rf"{_BEFORE_DATE}{_FIRST}/{_SECOND}{_CLEAR}",
    )
    words = (form for language in MONTHS for form in _word_forms(language))
    return (*(DateForm(re.compile(pattern)) for pattern in numbers), *words)


DATE_FORMS: Sequence[DateForm] = _date_forms()
"""Forms of dates, tried in this order; a date with a day and a month only has no group y."""


def month_number(name: str, language: str) -> int:
    """Give 1 to 12 for the name of a month, full or short, in any case."""
    plain = name.strip(".").casefold()
    for names in (MONTHS[language], _SHORT[language]):
        known = [one.casefold() for one in names]
        if plain in known:
            return known.index(plain) + 1
    return {"sept": 9, "maerz": 3}[plain]


def month_name(number: int, like: str, language: str) -> str:
    """Write a month as another one was written: full or short, in capitals or not."""
    is_long = like.casefold() in {one.casefold() for one in (*MONTHS[language], "Maerz")}
    name = (MONTHS if is_long else _SHORT)[language][number - 1]
    return name.upper() if like.isupper() else name
