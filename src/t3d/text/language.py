"""Tell German from English reports by their small words."""

from __future__ import annotations

import re

_WORDS = {
    "de": (
        r"kein\w{0,2}|und|der|die|das|des|dem|den|ein|eine[rmns]?|nicht|mit|ohne|bei|beim|nach|vom|zur"
        r"|zum|im|ist|sind|wurden?|auf|f\u00fcr|\u00fcber|rechts|links|beidseits|bds|regelrecht\w*"
        r"|unauff\u00e4llig\w*|nachweis\w*|befund\w*|beurteilung"
    ),
    "en": (
        r"no|the|of|and|with|without|is|are|was|were|there|in the|at|to|for|from|right|left"
        r"|bilateral|unremarkable|seen|evidence|findings|impression"
    ),
}
_SIGNS = {code: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for code, words in _WORDS.items()}
_LOOKED_AT = 4000  # characters; a report says what it is long before


def detect_language(text: str) -> str:
    """Tell the language of a report.

    Args:
        text: A report or a section; a few sentences are enough.

    Returns:
        "en", "de", or "" where neither has more of its small words than the other.

    Source:
        Our choice: counts of about forty frequent words. Checked on phantom reports of both
        languages and on public English transcriptions.

    Example:
        >>> detect_language("Kein Erguss rechts.")
        'de'
    """
    counts = {code: len(sign.findall(text[:_LOOKED_AT])) for code, sign in _SIGNS.items()}
    if counts["de"] == counts["en"]:
        return ""
    return "de" if counts["de"] > counts["en"] else "en"
