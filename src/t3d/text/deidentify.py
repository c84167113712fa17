"""Take names, ids, phone numbers, addresses and true dates out of reports, by rules.

This lowers the risk of naming a patient; it does not remove it. What the rules catch on a made-up
test set is told in docs/howto/reports.md, with what they miss.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from hashlib import sha256
from importlib import import_module
from typing import Any

from t3d.errors import RecipeError, SourceError
from t3d.text.identifiers import (
    DATE_FORMS,
    DateForm,
    Identifier,
    find_identifiers,
    month_name,
    month_number,
)

MAX_SHIFT_DAYS = 365
"""Dates move back by 1 to this many days (our choice)."""

LANGUAGES = ("en", "de")
ENGINES = ("rules", "presidio")

SPACY_MODELS = {"en": "en_core_web_lg", "de": "de_core_news_lg"}
"""Language models that presidio is given."""

_PRESIDIO_KINDS = {
    "PERSON": "name",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "URL": "url",
    "US_SSN": "id",
    "MEDICAL_LICENSE": "id",
}
_PRESIDIO_SCORE = 0.5  # our choice
_CENTURY = 70  # two digits from here on are 19xx
_MID_MONTH = 15  # stands for the day where a date has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One replacement, as offsets into the text that was given."""

    start: int
    end: int
    kind: str  # "date", "name", "id", "phone", "email", "url", "address", "age"
    text: str  # what stands there now


@dataclass(frozen=True, slots=True, kw_only=True)
class Deidentified:
    """A text after replacements."""

    text: str
    edits: tuple[Edit, ...]  # in order, without overlap

    def moved(self, start: int, end: int) -> tuple[int, int]:
        """Give where a span of the old text lies in the new one.

        Args:
            start: First character of the span in the text that was given.
            end: One past its last.

        Returns:
            Offsets into `text`; an end inside a replacement is moved to that end of it.
        """
        return self._moved(start, at_end=False), self._moved(end, at_end=True)

    def _moved(self, offset: int, *, at_end: bool) -> int:
        """Move one offset by the lengths that replacements before it gained."""
        before = [edit for edit in self.edits if edit.start < offset]
        gained = sum(len(edit.text) - (edit.end - edit.start) for edit in before)
        if before and offset < before[-1].end:  # inside of one
            inside = before[-1]
            end = inside.end + gained
            return end if at_end else end - len(inside.text)
        return offset + gained


def date_shift(key: bytes, patient: str) -> timedelta:
    """Give how far the dates of a patient move: the same for all of that patient's reports.

    Formula: -(1 + HMAC-SHA256(key, "date shift" 0 patient) mod 365) days, the first 8 bytes.
    Check: key of 32 zero bytes, patient "1": -176 days.

    Args:
        key: Secret bytes; without them a shift cannot be computed again.
        patient: What names the patient; the same text in every report.
    """
    told = b"date shift\0" + patient.encode("utf-8", "surrogateescape")
    number = int.from_bytes(hmac.new(key, told, sha256).digest()[:8], "big")
    return timedelta(days=-(1 + number % MAX_SHIFT_DAYS))


def deidentify(
    text: str,
    *,
    key: bytes,
    patient: str,
    language: str = "en",
    names: Sequence[str] = (),
    engine: str = "rules",
) -> Deidentified:
    """Replace what names a person, and move every date by the patient's shift.

    Names become `[name]`, numbers `[id]` or `[phone]`, e-mail `[email]`, links `[url]`, addresses
    `[address]`, ages above 89 `[age over 89]`. A full date, or a month and a year, is moved and
    written in its own form; a date without a year becomes `[date]`. A year alone stays.

    Args:
        text: A report, section or other free text.
        key: Secret bytes that fix the shifts.
        patient: Names the patient to `date_shift`; it does not enter the text.
        language: "en" or "de": words before names and ids, and the order in 3/4/2019 (English:
            month first, unless that is no date).
        names: Names known from elsewhere (the patient's own, the referring physician's); each of
            their words is replaced wherever it stands with a capital.
        engine: "rules", or "presidio" for the rules and what presidio finds besides.

    Returns:
        The new text and every replacement; other characters are those of the old text.

    Raises:
        RecipeError: The language or engine is unknown, or the key is empty.
        SourceError: presidio or its language model is not installed.

    Source:
        Our choice of rules. No guarantee: see the measured recall in docs/howto/reports.md.
    """
    if language not in LANGUAGES or engine not in ENGINES or not key:
        raise RecipeError(
            f"de-identification with language {language!r}, engine {engine!r}, "
            f"a key of {len(key)} bytes",
            expected=f"a language among {LANGUAGES}, an engine among {ENGINES}, a secret key",
            fix="read the key with t3d's pseudonyms, or make one with secrets.token_bytes(32)",
        )
    shift = date_shift(key, patient)
    edits: list[Edit] = []
    for form in DATE_FORMS:
        for match in form.pattern.finditer(text):
            _add(edits, _date_edit(match, form, shift, month_first=language == "en"))
    found = [*_known(text, names), *find_identifiers(text, language=language)]
    if engine == "presidio":
        found += _presidio(text, language)
    for one in found:
        label = "age over 89" if one.kind == "age" else one.kind
        _add(edits, Edit(start=one.start, end=one.end, kind=one.kind, text=f"[{label}]"))
    return _apply(text, edits)


def _add(edits: list[Edit], edit: Edit | None) -> None:
    """Keep an edit that meets no earlier one; edits come in the order of their certainty."""
    if edit is None:
        return
    if all(edit.end <= other.start or other.end <= edit.start for other in edits):
        edits.append(edit)


def _apply(text: str, edits: Iterable[Edit]) -> Deidentified:
    """Write the replacements into the text."""
    ordered = tuple(sorted(edits, key=lambda edit: edit.start))
    pieces, done = [], 0
    for edit in ordered:
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return Deidentified(text="".join([*pieces, text[done:]]), edits=ordered)


def _known(text: str, names: Sequence[str]) -> list[Identifier]:
    """Find words of names that are known, written with a capital or in capitals."""
    words = {word for name in names for word in re.split(r"[\s,]+", name) if len(word) > 1}
    forms = sorted({form for w in words for form in (w.capitalize(), w.title(), w.upper())})
    if not forms:
        return []
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, forms))})\b")
    return [Identifier(m.start(), m.end(), "name") for m in pattern.finditer(text)]


# ---- dates -----------------------------------------------------------------------------------


def _date_edit(
    match: re.Match[str], form: DateForm, shift: timedelta, *, month_first: bool
) -> Edit | None:
    """Move one date; one that has no year, or is none, becomes [date]; None = leave it."""
    start = match.end("w") if "w" in form.pattern.groupindex else match.start()
    groups = {name: value for name, value in match.groupdict().items() if value is not None}
    order = _order(groups, month_first=month_first)
    if order is None:
        return None
    text = "[date]"
    if "y" in groups:
        moved = _moved_date(groups, order, form, shift)
        if moved is not None:
            text = _written(match, order, form, moved)
    return Edit(start=start, end=match.end(), kind="date", text=text)


def _order(groups: dict[str, str], *, month_first: bool) -> dict[str, str] | None:
    """Say which group is the day and which the month; None where neither order is a date."""
    if "a" not in groups:
        return {part: part for part in "dmn" if part in groups}
    first, second = int(groups["a"]), int(groups["b"])
    orders = [{"m": "a", "d": "b"}, {"d": "a", "m": "b"}]
    possible = [first <= 12 and 1 <= second <= 31, second <= 12 and 1 <= first <= 31]
    pairs = list(zip(orders, possible, strict=True))
    usual = pairs if month_first else pairs[::-1]
    return next((order for order, is_date in usual if is_date and first and second), None)


def _moved_date(
    groups: dict[str, str], order: dict[str, str], form: DateForm, shift: timedelta
) -> date | None:
    """Compute the shifted date; None for the 31st of February."""
    year = int(groups["y"])
    if len(groups["y"]) == 2:
        year += 1900 if year >= _CENTURY else 2000
    month = month_number(groups["n"], form.language) if "n" in order else int(groups[order["m"]])
    day = int(groups[order["d"]]) if "d" in order else _MID_MONTH
    try:
        return date(year, month, day) + shift
    except ValueError:
        return None


def _written(match: re.Match[str], order: dict[str, str], form: DateForm, moved: date) -> str:
    """Write a date as another one was written."""
    numbers = [match.group(order[part]) for part in "dm" if part in order]
    width = 2 if any(n[0] == "0" for n in numbers) or all(len(n) == 2 for n in numbers) else 1
    new = {order[part]: f"{value:0{width}d}" for part, value in _parts(moved) if part in order}
    new["y"] = f"{moved.year:04d}"[-len(match.group("y")) :]
    if "n" in order:
        new["n"] = month_name(moved.month, match.group("n"), form.language)
    if match.groupdict().get("s"):
        new["s"] = _suffix(moved.day)
    pieces, done = [], match.start()
    for start, end, name in sorted((*match.span(name), name) for name in new):
        pieces += [match.string[done:start], new[name]]
        done = end
    return "".join([*pieces, match.string[done : match.end()]])


def _parts(moved: date) -> tuple[tuple[str, int], ...]:
    """Name the numbers of a date."""
    return (("d", moved.day), ("m", moved.month))


def _suffix(day: int) -> str:
    """Give what makes an English number an ordinal."""
    if day in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


# ---- presidio --------------------------------------------------------------------------------


def _presidio(text: str, language: str) -> list[Identifier]:
    """Find names and numbers with presidio."""
    results = _analyzer(language).analyze(
        text=text,
        language=language,
        entities=list(_PRESIDIO_KINDS),
        score_threshold=_PRESIDIO_SCORE,
    )
    ranked = sorted(results, key=lambda one: (-one.score, one.start))
    return [Identifier(one.start, one.end, _PRESIDIO_KINDS[one.entity_type]) for one in ranked]


@lru_cache(maxsize=len(LANGUAGES))
def _analyzer(language: str) -> Any:
    """Build presidio's analyzer once a language; nothing is downloaded."""
    model = SPACY_MODELS[language]
    try:
        analyzer = import_module("presidio_analyzer")
        engines = import_module("presidio_analyzer.nlp_engine")
        is_there = import_module("spacy.util").is_package(model)
    except ImportError as error:
        raise SourceError(
            "presidio is not installed",
            expected="the extra 'deid'",
            fix="pip install 't3d[deid]', or use engine='rules'",
        ) from error
    if not is_there:
        raise SourceError(
            f"presidio has no model for language {language!r}",
            expected=f"the spaCy model {model}",
            fix=f"python -m spacy download {model}, or use engine='rules'",
        )
    settings = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": language, "model_name": model}],
    }
    engine = engines.NlpEngineProvider(nlp_configuration=settings).create_engine()
    return analyzer.AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
