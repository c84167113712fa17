"""Take out of a report what says nothing about the patient.

The two masks give a text of the same length in which everything else stands where it stood: a
sentence or a citation found in it has the same place in the text that was given. `without_marks`
closes the gaps.
"""

from __future__ import annotations

import re

_TAG = re.compile(
    r"<(?P<tag>[A-Z][A-Z0-9_]{2,20})>(?:[^<>\n]{0,80}</(?P=tag)>)?"  # <PERSON>..</PERSON>
    r"|\[\*\*(?P<stars>[^\]\n]{0,80}?)\*\*\]"  # [**2019-3-4**]
    r"|(?<!_)_{3,}"
    r"|\bX{4,}\b"
)
_DATE_TAGS = {"TIMEX3", "DATE", "TIME", "DATETIME"}
_DATE_IN_STARS = re.compile(r"\d{1,4}[-/]\d{1,2}|\b(?:19|20)\d\d\b|\b(?:date|month|year)\b", re.I)
_DATE = "[date]"

_UE, _AE, _SS = r"(?:\u00fc|ue)", r"(?:\u00e4|ae)", r"(?:\u00df|ss)"
# To the end of the line, or of a sentence that does not end in an initial or a title.
_REST = r"[^\n]*?(?:(?:\b[AP]M|\b\d{2}|[^\W\d_]{5,}|\bMD|\bDO|\bPhD)\.(?=\s|$)|(?=\n|$))"
_SIGNATURE = (
    r"(?:electronically|digitally) (?:signed|verified|approved|authenticated|finalized)\b" + _REST,
    r"(?:(?<=\n)|^|(?<=[.;] )|(?<=[.;],))[ \t]*(?:dictated|transcribed|signed|read|verified"
    r"|finalized|interpreted|(?:reviewed and )?(?:signed|approved))(?: and \w+)?"
    r" ?(?:by|on|:)(?!\w)" + _REST,
    r"(?:elektronisch|digital) (?:signiert|freigegeben|vidiert|unterschrieben|validiert)\b" + _REST,
    r"(?:(?<=\n)|^|(?<=[.;] ))[ \t]*(?:diktiert|geschrieben|vidiert|freigegeben|befundet|validiert"
    rf"|befundender arzt|befundende {_AE}rztin)(?: (?:von|durch|am)\b| ?:)" + _REST,
    r"^[ \t]*(?:gez\. ?|i\. ?[AV]\. ?)?(?:(?:prof|dr|priv|med|habil|univ)\.[ -]?|PD )+"
    r"(?:[A-Z]\.[ -]?)*[^\n.:]{2,60}(?:\.|$)",
    # A name and a degree; "Nodule, do CT" is no name, in capitals neither.
    r"^[ \t]*[A-Z][\w' -]{1,30}(?: [A-Z]\.)?[\w' -]{0,30}, ?"
    r"(?:(?-i:M\.?D|D\.O|Ph\.?D)\b\.?[^\n]{0,40}|(?-i:DO)\.?[ \t]*)$",
)
_LETTER = (
    rf"mit freundlichen (?:kollegialen )?gr{_UE}{_SS}en"
    rf"[\s\S]{{0,400}}?(?=\n[ \t]*(?:nachtrag|addendum|erg{_AE}nzung|befund|beurteilung)\b|\Z)",
    r"sehr geehrte[^\n,!]{0,80}(?:,[^\n,!]{0,60})?[,!](?=\s)",
    rf"(?:(?:vielen|herzlichen|besten) dank|wir danken) f{_UE}r[^.\n]{{0,60}}?"
    rf"(?:zuweisung|{_UE}berweisung|vorstellung)[^.\n]*\.?",
)
_STATEMENT = (
    r"\b(?:I|we),?(?: the (?:attending|teaching|supervising|staff)[^.\n]{0,60}?,?)?"
    r" (?:(?:have|was|were) )?(?:also )?(?:personally |physically )?(?:reviewed|interpreted"
    r"|examined|viewed|present|supervised)\b[^.\n]{0,120}?\b(?:agree[ds]?|concur\w*|resident|trainee"
    r"|fellow|transcribed|edited)\b[^.\n]*\.?",
    r"\b(?:the|as the) (?:attending|teaching|supervising|staff) (?:radiologist|physician)\b"
    r"[^.\n]{0,80}?\b(?:reviewed|agrees?|agreed|concur\w*|present)\b[^.\n]*\.?",
    r"\b(?:attending|teaching physician|staff)(?: radiologist)?(?:'s)?"
    r" (?:statement|attestation|agreement)\b ?:?",
    r"\b(?:this|the) (?:report|note|document|dictation)\b[^.\n]{0,80}?(?:voice|speech)[ -]"
    r"recognition[^.\n]*\.?",
    r"\bend of (?:impression|report|dictation)\b ?[:.]?",
    r"\*{2,} ?(?:final|end of) report ?\*{2,}",
    r"\b(?:physician to physician )?radiology consult line\b[^\n]*",
    r"\bdieser (?:befund|bericht|brief|arztbrief) (?:wurde|ist)\b[^.\n]{0,80}?(?:elektronisch"
    r"|maschinell|ohne unterschrift)[^.\n]*\.?",
)
_BOILERPLATE = re.compile(
    "|".join(f"(?:{one})" for one in (*_SIGNATURE, *_LETTER, *_STATEMENT)),
    re.IGNORECASE | re.MULTILINE,
)
_NOT_BLANK = re.compile(r"[^\n]")
_GAP = re.compile(r"[ \t]+")


def mask_tags(text: str) -> str:
    """Blank out the marks that de-identification left behind.

    Args:
        text: May hold tags in capitals (`<PERSON>LAST_NAME</PERSON>`, `<PAGER>`), `[**..**]`,
            three or more underscores, or four or more X standing alone.

    Returns:
        A text of the same length; a date's mark is `[date]` and blanks, any other is blanks.

    Example:
        >>> mask_tags("SINCE <TIMEX3>XX/XX</TIMEX3>.")
        'SINCE [date]                .'
    """
    return _TAG.sub(_blank_tag, text)


def _blank_tag(match: re.Match[str]) -> str:
    """Give what stands in place of one mark, as long as the mark."""
    stars = match.group("stars")
    is_date = match.group("tag") in _DATE_TAGS or (stars and _DATE_IN_STARS.search(stars))
    return (_DATE if is_date else "").ljust(len(match.group()))


def mask_boilerplate(text: str) -> str:
    """Blank out signatures, statements of teaching physicians, salutations and the like.

    Args:
        text: A report, English or German.

    Returns:
        A text of the same length with blanks in their place; line ends stay.

    Source:
        Our choice of phrases, from common forms of both languages; no claim to be complete.

    Example:
        >>> mask_boilerplate("Normal. Electronically signed by J. Doe, MD.").rstrip()
        'Normal.'
    """
    return _BOILERPLATE.sub(lambda match: _NOT_BLANK.sub(" ", match.group()), text)


def without_marks(text: str) -> str:
    """Take out marks of de-identification and boilerplate; no other character changes.

    Args:
        text: A report, English or German.

    Returns:
        The text with one blank in place of what was taken out, none before `.,;:)` or at the end
        of a line, and `[date]` where a date was.

    Example:
        >>> without_marks("NEW SINCE <TIMEX3>XX/XX</TIMEX3>.  DR. <PERSON> PAGED.")
        'NEW SINCE [date].  DR. PAGED.'
    """
    masked = mask_boilerplate(mask_tags(text))
    if masked == text:
        return text

    def closed(gap: re.Match[str]) -> str:
        """Leave blanks that were there; close those that masking made."""
        if gap.group() == text[gap.start() : gap.end()]:
            return gap.group()
        return "" if masked[gap.end() : gap.end() + 1] in ("", *"\n.,;:)") else " "

    return _GAP.sub(closed, masked)
