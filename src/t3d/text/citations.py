"""Find where a report cites images ("series 4, image 38"), and take such citations out.

Image numbers count slices from one end, so a text that keeps them tells a model the depth it is
asked for. English, German, Spanish and mixed forms are read.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

_SERIES_WORD = r"(?:series|serie|ser\b\.?|se\b\.?|ser(?=\d)|se(?=\d))"
_PLURAL = r"(?:images|slices|bildern?|schichten|im(?:a|\u00e1)genes|cortes)"
_IMAGE_WORD = (
    rf"(?:{_PLURAL}|image|imagen|bild|slice|schicht|corte|img\.?|ima\.?|im\.?)(?![^\W\d_])"
)
_NUMBERED = (
    r"\s*(?:-?(?:n\.?\s?o|nos|nr|num|n\u00fam|numbers?|nummern?|n(?:u|\u00fa)mero)\b\.?\s*)?#?\s*"
)
_PLANE_WORD = (
    r"(?:axial|transverse|transaxial|coronal|sagittal|oblique|axiale[nrs]?|transversale[nrs]?"
    r"|[ck]oronare?[nrs]?|sagittale?[nrs]?)"
)
_UNIT = (
    r"(?:mm|cm|ml|cc|hu|h|hrs?|hours?|min|mins|minut(?:e|es|en|os?)|sec|seconds?|sekunden?"
    r"|segundos?|stunden?|horas?|days?|tage?n?|d(?:i|\u00ed)as?|weeks?|wochen?|semanas?|months?"
    r"|monat(?:e|en)?|mes(?:es)?|years?|jahre?n?|a(?:n|\u00f1)os?|kvp?|mas|degrees?|grad|percent"
    r"|prozent|x|times|mal)(?![^\W\d_])"
)
_BETWEEN = rf"\s*[,;:/-]?\s*[(\[]?\s*(?:{_PLANE_WORD}\s+)*"  # series number and image word

_BEGINNINGS = ("im", "bild", "schicht", "slice", "corte")  # of image words
_WORD = re.compile(rf"(?<![^\W\d_]){_IMAGE_WORD}", re.IGNORECASE)
_SERIES_BEFORE = re.compile(
    rf"(?<![^\W_])(?P<of>{_SERIES_WORD}):?{_NUMBERED}(?P<series>\d{{1,5}}){_BETWEEN}\Z",
    re.IGNORECASE,
)
_SERIES_LENGTH = 60  # characters
_NUMBER = re.compile(
    rf"{_NUMBERED}(?P<number>\d{{1,4}})(?!\w)(?!\.\d)"
    rf"(?!(?:,\d+)?\s*-?\s*(?:{_UNIT}|[%\u00b0\u00d7]))"  # a size, a time, a share
    r"(?!\s*[./-]\s*\d{1,2}\s*[./-]\s*\d{2,4}|\s*[./-]\s*(?:19|20)\d\d)",  # a date
    re.IGNORECASE,
)
_RANGE = re.compile(r"\s*(?:-|(?:to|through|bis|(?P<rising>al?))\b)\s*", re.IGNORECASE)
_LIST = re.compile(r"\s*(?:(?P<comma>,)\s*(?:(?:and|und|y)\b)?|(?:and|und|y)\b|&)", re.IGNORECASE)
_SLASH = re.compile(r"\s*/")
_OF_ALL = re.compile(r"\s*(?:/|\b(?:of|von|de)\b)", re.IGNORECASE)
_CLOSED = re.compile(
    r"\s*(?:\Z|[)\].;:,/&-]|(?:and|und|y|of|in|on|from|der|von|de)\b|(?:to|bis|al?)\s+\d)",
    re.IGNORECASE,
)
_OF_SERIES = re.compile(
    r"\s*,?\s*\b(?:of|in|on|from|der|von|aus|de|en)\s+(?:(?:the|der|la)\s+)?"
    rf"(?:{_PLANE_WORD}\s+)*{_SERIES_WORD}:?{_NUMBERED}(?P<said>\d{{1,5}})(?!\w)"
    rf"|\s*[,;/]?\s*[(\[]?\s*(?<!\w){_SERIES_WORD}:?{_NUMBERED}(?P<beside>\d{{1,5}})(?!\w)"
    rf"(?!{_BETWEEN}{_IMAGE_WORD})",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"\.\s*[^\W\d_]")  # "im 5. Segment": German for "in the 5th segment"
_COLON = re.compile(r"\s*:")
_GOES_ON = re.compile(r"(?:[\s,;/&]|\b(?:and|und|y)\b)*", re.IGNORECASE)
_IS_PLURAL = re.compile(_PLURAL, re.IGNORECASE)
_YEARS = range(1900, 2100)

_DASHES = re.compile("[\u2010-\u2015\u2212]")
_KEPT_FORMS = ("<super>", "<sub>", "<fraction>")  # 38 with a footnote 2 is not image 382

_LEAD_IN = re.compile(
    r"(?:\b(?:see|e\.g\.,?|cf\.?|siehe|s\.|vgl\.?|v(?:e|\u00e9)ase|ver)\s+)?"
    r"(?:\b(?:on|at|in|auf|en)\s+(?:(?:the|der|den|la|las|el|los)\s+)?)?"
    rf"(?:\b{_PLANE_WORD}\s+)*\Z",
    re.IGNORECASE,
)
_LEAD_IN_LENGTH = 60  # characters
_SEPARATORS = ",;:/&"
_BLANK = " \t\u00a0"


@dataclass(frozen=True, slots=True)
class Citation:
    """One citation; numbers as a person wrote them, nothing looked up."""

    series: int | None  # None = not named
    images: tuple[int, ...]  # of a range: first and last as written
    is_range: bool
    start: int  # first character, in the text as it was given
    end: int  # one past the last character


@dataclass(frozen=True, slots=True)
class Stripped:
    """A text without its citations, and which of its characters came from where."""

    text: str
    kept: tuple[int, ...] | None  # old place of each character; None = nothing was cut

    def place(self, offset: int) -> int:
        """Say where a place of the old text is now; what was cut is where it would stand."""
        return offset if self.kept is None else bisect_left(self.kept, offset)


# ---- finding -------------------------------------------------------------------------------


def find_citations(text: str) -> tuple[Citation, ...]:
    """Find the images that a text cites.

    Read are "series 4, image 38", "Serie 4, Bild 38-41", "imagen 20 de la serie 2", "slices 12
    and 15 of series 5", "(image 77)" and their abbreviations. A number needs an image word:
    "4/38", "L4/5", "T12", "segment 4" and "3 x 4 mm" are none. The second number of "image 33/68"
    counts all images; after a plural word it is another image. "im" and "IMA" alone, which are
    a word and a vessel too, need a series, a bracket before them or a "#" behind.

    Args:
        text: A report or one of its sections.

    Returns:
        In order of place. A range is a citation of its own, so "images 3, 5-7" gives two with one
        place. An image cited right after one with a series is of the same series.

    Source:
        Forms: our choice, after what RadFinder (arXiv:2603.02026) cites; the reading of
        "image 33/68" is that of the public transcription that has it.

    Example:
        >>> find_citations("Nodule (series 4, image 38).")
        (Citation(series=4, images=(38,), is_range=False, start=8, end=26),)
    """
    plain, origin = _normalised(text)
    found: list[Citation] = []
    series, last_end = None, 0
    for told in _cited(plain):
        first = told[0]
        goes_on = series is not None and _GOES_ON.fullmatch(plain, last_end, first.start)
        if first.series is not None or not goes_on:
            series = first.series
        last_end = first.end
        start, end = first.start, first.end
        if origin is not None:
            start, end = origin[start], origin[end]
        found += (replace(one, series=series, start=start, end=end) for one in told)
    return tuple(found)


def _normalised(text: str) -> tuple[str, list[int] | None]:
    """Write a text in NFKC with plain dashes; and where each character came from, if it moved."""
    if text.isascii():
        return text, None
    if unicodedata.is_normalized("NFKC", text):
        return _DASHES.sub("-", text), None
    starts = [i for i, c in enumerate(text) if i == 0 or not unicodedata.combining(c)]
    pieces, origin = [], []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = text[start:end]
        form = unicodedata.decomposition(piece[0]).split(" ")[0]
        if form not in _KEPT_FORMS or piece == "\u00ba":
            piece = unicodedata.normalize("NFKC", piece)
        pieces.append(piece)
        origin += [start] * len(piece)
    return _DASHES.sub("-", "".join(pieces)), [*origin, len(text)]


def _cited(text: str) -> Iterator[tuple[Citation, ...]]:
    """Read each citation of a normalised text as its numbers and ranges, all with one place."""
    last_end = 0
    for start in _beginnings(text):
        word = _WORD.match(text, start) if start >= last_end else None
        told = _read(text, word, last_end) if word else ()
        if told:
            last_end = told[0].end
            yield told


def _beginnings(text: str) -> list[int]:
    """Say where image words may begin, in order; a pattern would take twenty times as long."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters become two
        lowered = "".join(letter.lower()[0] for letter in text)
    places = []
    for beginning in _BEGINNINGS:
        place = lowered.find(beginning)
        while place >= 0:
            places.append(place)
            place = lowered.find(beginning, place + 1)
    return sorted(places)


def _read(text: str, word: re.Match[str], floor: int) -> tuple[Citation, ...]:
    """Read what stands around an image word; nothing where it is no citation."""
    start, end = word.span()
    plural = bool(_IS_PLURAL.fullmatch(word.group()))
    parts, end = _numbers(text, end, plural=plural)
    colon = None if parts else _COLON.match(text, end)
    if not (parts or colon):
        return ()
    before = _SERIES_BEFORE.search(text, max(floor, start - _SERIES_LENGTH), start)
    if before and colon:
        parts, end = _numbers(text, colon.end(), plural=plural)
    if not parts or (before is None and text[start - 1 : start].isdigit()):
        return ()
    named = before["series"] if before else None
    if before is None and (tail := _OF_SERIES.match(text, end)):
        named, end = tail["said"] or tail["beside"], tail.end()
    of = None if named is None else before["of"] if before else ""
    if _is_word(text, word, parts[0][0], of, end):
        return ()
    if named is None and any(number in _YEARS for part in parts for number in part):
        return ()
    start = before.start() if before else start
    for opening, closing in ("()", "[]"):
        if opening in text[start:end] and text[end : end + 1] == closing:
            end += 1  # "series 4 (image 38)"
    series = None if named is None else int(named)
    singles = tuple(part[0] for part in parts if len(part) == 1)
    told = [(singles, False)] if singles else []
    told += [(part, True) for part in parts if len(part) > 1]
    return tuple(Citation(series, images, is_range, start, end) for images, is_range in told)


def _numbers(text: str, start: int, *, plural: bool) -> tuple[list[tuple[int, ...]], int]:
    """Read numbers and ranges from a place on, and say where they end."""
    parts: list[tuple[int, ...]] = []
    number = _NUMBER.match(text, start)
    end = start
    while number:
        part: tuple[int, ...] = (int(number["number"]),)
        end = number.end()
        between = _RANGE.match(text, end)
        last = _NUMBER.match(text, between.end()) if between else None
        if between and last and not (between["rising"] and int(last["number"]) <= part[0]):
            part, end = (*part, int(last["number"])), last.end()
        parts.append(part)
        number = _next_number(text, end, plural=plural)
    of_all = None if plural or not parts else _OF_ALL.match(text, end)
    total = _NUMBER.match(text, of_all.end()) if of_all else None
    return parts, total.end() if total else end


def _next_number(text: str, end: int, *, plural: bool) -> re.Match[str] | None:
    """Read the next number of a list; "image 12, 3 nodules" is no list."""
    between = _LIST.match(text, end) or (_SLASH.match(text, end) if plural else None)
    number = _NUMBER.match(text, between.end()) if between else None
    if not (between and number):
        return None
    sure = plural and not between.groupdict().get("comma")
    return number if sure or _CLOSED.match(text, number.end()) else None


def _is_word(text: str, match: re.Match[str], number: int, of: str | None, end: int) -> bool:
    """Tell "im" and "IMA" that are a word or a vessel from those that mean an image."""
    word = match.group().rstrip(".").lower()
    if word not in ("im", "ima"):
        return False
    german = of is None or of.lower() == "serie"
    if german and word == "im" and number < 100 and _ORDINAL.match(text, end):
        return True
    before = text[: match.start()].rstrip()[-1:]
    marked = "#" in text[match.end() : end] or (before and before in "([")
    return of is None and not marked


# ---- taking out ----------------------------------------------------------------------------


def strip_citations(text: str) -> str:
    """Take all citations out of a text, with empty brackets, commas and lead-ins left over.

    Example:
        >>> strip_citations("Nodule (4 mm, series 4, image 38), see image 40.")
        'Nodule (4 mm).'
    """
    return without_citations(text).text


def without_citations(text: str) -> Stripped:
    """Take all citations out of a text and remember where the rest stood.

    Nothing is put in their place, so that offsets into the old text can be followed.

    Args:
        text: A report or one of its sections.

    Returns:
        A text in which `find_citations` finds nothing.
    """
    spans = _spans(text)
    if not spans:
        return Stripped(text, None)
    kept = list(range(len(text)))
    while spans:  # rarely twice: what is left may read as a citation again
        for start, end in reversed(spans):
            text = text[:start] + text[end:]
            del kept[start:end]
        spans = _spans(text)
    return Stripped(text, tuple(kept))


def _spans(text: str) -> list[tuple[int, int]]:
    """Say what to cut, in order and without overlap."""
    merged: list[list[int]] = []
    for citation in find_citations(text):
        if merged and _GOES_ON.fullmatch(text, merged[-1][1], max(merged[-1][1], citation.start)):
            merged[-1][1] = citation.end
        else:
            merged.append([citation.start, citation.end])
    spans: list[tuple[int, int]] = []
    for start, end in merged:
        floor = spans[-1][1] if spans else 0
        lead = _LEAD_IN.search(text, max(floor, start - _LEAD_IN_LENGTH), start)
        spans.append(_widened(text, lead.start() if lead else start, end, floor))
    return spans


def _widened(text: str, start: int, end: int, floor: int) -> tuple[int, int]:
    """Add what makes no sense without the citation: commas, brackets, blanks."""
    while True:
        left, right = start, end
        while left > floor and text[left - 1] in _BLANK:
            left -= 1
        while right < len(text) and text[right] in _BLANK:
            right += 1
        before = text[left - 1] if left > floor else ""
        after = text[right : right + 1]
        if before in _SEPARATORS and before and (not after or after in ")].!?,;:/&\n\r"):
            start = left - 1
        elif after and after in ",;:/&.!?" and (not before or before in "([.!?\n\r"):
            end = right + 1
        elif before + after in ("()", "[]"):
            start, end = left - 1, right + 1
        elif not before or before in "([\n\r":
            return start if before else left, right
        elif not after or after in ")].!?,;:\n\r" or left < start:
            return left, end
        else:
            return start, end
