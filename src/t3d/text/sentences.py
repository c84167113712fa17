"""Find the sentences of a report as character offsets, in free text that people typed."""

from __future__ import annotations

import re

_TITLES = frozenset(
    {
        *("dr", "mr", "mrs", "ms", "prof", "st", "vs", "fig", "figs", "e.g", "i.e", "al", "cf"),
        *("ca", "approx", "resp", "im", "img", "ima", "incl", "excl", "dept", "hosp"),
        *("ext", "int", "ant", "post", "lat", "sup", "inf", "med"),
        *("z.b", "bzw", "d.h", "v.a", "z.n", "u.a", "ggf", "evtl", "priv", "habil", "inkl", "exkl"),
        *(
            "sog",
            "vgl",
            "insb",
            "insbes",
            "abb",
            "tel",
            "entspr",
            "susp",
            "fragl",
            "wahrsch",
            "pat",
        ),
        *("z.t", "i.v", "i.s", "i.s.v", "i.r", "o.g", "st.p", "u.u", "geb", "gez"),
        "ser",  # codespell:ignore ser
    }
)
"""Abbreviations that never end a sentence."""

_BEFORE_NUMBER = frozenset({"no", "nr", "nos", "series", "image", "images", "seg", "vol"})
"""Words after which a period belongs to an abbreviation only if a number follows."""

_CUT_SHORT = frozenset(
    {
        *("re", "li", "bds", "max", "min", "unauff", "beg", "bek", "chron", "degen", "dors"),
        *("geringgr", "hochgr", "kaud", "kran", "klin", "mediast", "path", "periph", "pulm"),
        *("thorak", "ventr", "vermutl", "rel", "zentr", "regelr", "deutl", "vergr", "verd"),
    }
)
"""German words cut short: they end a sentence unless a number, a small letter or one of the nouns
below goes on with it."""

_GOES_ON = re.compile(
    r"(?:ober|unter|mittel)lappen|lungen?\b|hilus|pleura|vorhof|ventrikel|[oum]l\b|thorax|mamma"
    r"|axilla|nieren?\b|nebenniere|hemithorax|hauptbronchus|zwerchfell|schilddr|schulter|klavikula"
    r"|lingula|seite|lk\b|lymphknoten|durchmesser|tiefe|breite|dicke|weite|gr\u00f6\u00dfe"
    r"|ausdehnung|l\u00e4nge",
    re.IGNORECASE,
)
"""German nouns that stand after a word cut short: "re. Unterlappen", "max. Breite"."""

_COUNTED = re.compile(
    r"(?:rippen?|[bhl]wk|icr|interkostalr\w+|(?:lenden|brust|hals)wirbel\w*|monate?s?|wochen?"
    r"|tage?s?|grad(?:e?s)?|ordnung|quartals?|ebene|strahls?|jan(?:uar)?|feb(?:ruar)?"
    r"|m(?:\u00e4|ae)rz|apr(?:il)?|mai|juni?|juli?|aug(?:ust)?|sept?(?:ember)?|okt(?:ober)?"
    r"|nov(?:ember)?|dez(?:ember)?)\b",
    re.IGNORECASE,
)
"""German words that a number with a period counts: "3. Rippe", "12. April"."""

_DETERMINER = re.compile(
    r"(?:^|[\s(,])(?:der|des|dem|den|die|das|am|vom|zum|zur|im|seit|bis|ab|ins?|und|jeder)"
    r"\s+(?:(?:linken|rechten) |(?:li|re)\. )?$",
    re.IGNORECASE,
)
"""What stands before a German ordinal or before an adjective cut short: "der 3.", "im re."."""

_OWN_SENTENCE = re.compile(r"\b(?:o\. ?b|s\. ?[ou])$", re.IGNORECASE)
"""German abbreviations of initials that do end a sentence: "o. B.", "s. o."."""

_STOP = re.compile(
    r"[.!?]+[\"')\]\u201c\u201d]*(?=[\s,]|$)"
    r"|(?<=[a-z\u00e4\u00f6\u00fc\u00df]{2})[.!?](?=[A-Z\u00c4\u00d6\u00dc][a-z\u00e4\u00f6\u00fc])"
    r"|\n[ \t]*\n"
)
_LINE_ITEM = re.compile(r"\n(?=[ \t]*(?:\(?\d{1,2}[.)][ \t]|[-*\u2022\u2013][ \t]))")
_MARKER = re.compile(r"\(?\d{1,2}[.)]\s+(?=\D)|[-*\u2022\u2013]\s+")
_BREAKS = " \t\r\n\f\v,;:()"
_LONGEST_TOKEN = 40  # characters
_NEXT = re.compile(r"[\s,]*(\S?)")
_BLANK = " \t\r\n\f\v,"
_BEFORE_MARKER = _BLANK + "("
_BEFORE = 24  # characters in which a determiner is looked for
_WORD_LENGTH = 3  # from here on a lower-case word can end a sentence before a lower-case one


def split_sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Split a text into sentences.

    A period ends a sentence unless it is inside a number ("1.5 cm"), belongs to an
    abbreviation ("Dr.", "e.g.", "No. 3", "z. B.", "im re. Unterlappen"), follows a single
    initial or a German ordinal ("der 3. Rippe"), or is the marker of a numbered list. Markers
    of lists, blanks and stray commas are not part of a sentence. A line end ends a sentence only
    before a list item or an empty line, because reports are wrapped.

    Args:
        text: A report or one of its sections, English or German; other languages that end
            sentences with . ! ? lose at most some of their abbreviations.

    Returns:
        (start, end) of each sentence in order, without overlap; nothing for an empty text.

    Source:
        Our choice; checked on public transcriptions of radiology reports.

    Example:
        >>> split_sentences("No effusion. Nodule of 1.5 cm.")
        ((0, 12), (13, 30))
    """
    cuts = [m.end() for m in _STOP.finditer(text) if _ends_sentence(text, m)]
    cuts += [m.end() for m in _LINE_ITEM.finditer(text) if not _is_determined(text, m.end())]
    spans, start = [], 0
    for cut in sorted({*cuts, len(text)}):
        span = _trimmed(text, start, cut)
        if span is not None:
            spans.append(span)
        start = cut
    return tuple(spans)


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    """Decide whether a mark that could end a sentence does."""
    mark = stop.group().strip()
    if not mark.startswith(".") or mark.startswith(".."):
        return True  # an empty line, a question, an ellipsis
    token = _last_token(text, stop.start()).lower()
    following = _next_character(text, stop.end())
    if following.isupper() and _OWN_SENTENCE.search(text, max(0, stop.start() - 4), stop.start()):
        return True
    if token in _TITLES or _is_initial(token) or _is_list_marker(text, stop.start(), token):
        return False
    if following.isdigit() and (token in _BEFORE_NUMBER or token in _CUT_SHORT):
        return False
    if following.islower():
        return token.isalpha() and len(token) >= _WORD_LENGTH and token not in _CUT_SHORT
    return not _goes_on(text, stop, token)


def _goes_on(text: str, stop: re.Match[str], token: str) -> bool:
    """Tell a German ordinal or a word cut short before the noun that belongs to it."""
    if token in _CUT_SHORT:
        nouns = _GOES_ON
    elif token.isdigit() and len(token) <= 2:
        nouns = _COUNTED
    else:
        return False
    following = _NEXT.match(text, stop.end())
    if following is None or not following.group(1).isalpha():
        return False
    is_named = nouns.match(text, following.start(1)) is not None
    return is_named or _is_determined(text, stop.start() - len(token))


def _is_determined(text: str, start: int) -> bool:
    """Tell whether a German determiner stands before a place."""
    return _DETERMINER.search(text[max(0, start - _BEFORE) : start]) is not None


def _last_token(text: str, end: int) -> str:
    """Give the run of characters before a position, without brackets."""
    start = end
    while start > 0 and end - start < _LONGEST_TOKEN and text[start - 1] not in _BREAKS:
        start -= 1
    return text[start:end]


def _next_character(text: str, start: int) -> str:
    """Give the first character after blanks and stray commas, or nothing."""
    found = _NEXT.match(text, start)
    return found.group(1) if found else ""


def _is_initial(token: str) -> bool:
    """Tell a single letter, as in "J. Doe"."""
    return len(token) == 1 and token.isalpha()


def _is_list_marker(text: str, end: int, token: str) -> bool:
    """Tell "2." at the start of a sentence from a number that ends one."""
    if not (token.isdigit() and len(token) <= 2):
        return False
    start = end - len(token)
    while start > 0 and text[start - 1] in _BEFORE_MARKER:
        start -= 1
    return start == 0 or text[start - 1] in ".!?:"


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Take blanks, stray commas and a list marker off; None if no letter is left."""
    while start < end and text[start] in _BLANK:
        start += 1
    marker = _MARKER.match(text, start, end)
    if marker:
        start = marker.end()
    while end > start and text[end - 1] in _BLANK:
        end -= 1
    return (start, end) if any(c.isalpha() for c in text[start:end]) else None
