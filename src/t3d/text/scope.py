"""Decide what a clause says about a term in it: that it is there, that it is not, or neither.

The rules are those of trigger lists with a scope: a cue before or after a term reaches as far
as the clause goes, or until a word that starts a new statement.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_SPLIT = re.compile(
    r"[;\n]|\b(?:but|however|although|though|whereas|nevertheless|yet|except(?: for)?"
    r"|(?:aside|apart) from|other than|besides|with the exception of|while)\b"
)
_SEEN = (
    "seen|identified|detected|observed|present|visible|visuali[sz]ed|demonstrated|found|evident"
    "|noted|apparent|recogni[sz]ed|appreciated|encountered|depicted|shown|included"
)
_NO_STATEMENT = re.compile(
    r"\b(?:no|not|without|nor)\b"
    r"(?: (?:any|evidence of|significant\w*|relevant\w*|interval|appreciabl\w+|substantial\w*"
    r"|definite|obvious\w*|major|detectable|further|in))* "
    r"(?:change|changed|increase|increased in|decrease|decreased|progression|growth"
    r"|enlarging|worsening|difference)\b(?! of the heart)|\bnot only\b|\bno doubt\b"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|without|nor|neither|never|none|lacks?|lacking|denies|excluded?|excludes"
    r"|(?:free|clear|devoid) (?:of|from)|negative for|absence of|absent"
    r"|rather than|instead of|cannot find)\b"
)
_DENIED_AFTER = re.compile(
    rf"\b(?:(?:is|are|was|were|has been|have been|has|have)? ?(?:not|no longer|never)"
    rf"(?: \w+ly)?(?: be)?(?: been)? (?:{_SEEN})"
    r"|(?:is|are|was|were) (?:absent|excluded|ruled out|unlikely)|(?:has|have) resolved"
    r"|resolved|resolution|none)\b(?! (?:on|in|at) (?:the )?(?:prior|previous|last|earlier))"
)
_UNSURE_BEFORE = re.compile(
    r"\b(?:possibl[ey]|questionable|suspected|suspicion of|suspicious for|concern(?:ing)? for"
    r"|rule out|to exclude|evaluate for|evaluation of|assess for|history of|known history of"
    r"|risk of|(?:may|might|could) (?:represent|be|reflect)|versus|vs|or possibly"
    r"|no (?:new|further|other|additional)|if|differential)\b"
)
_UNSURE_AFTER = re.compile(
    r"\b(?:cannot|can not|could not) (?:\w+ )?be (?:\w+ )?(?:excluded|ruled out)"
    r"|\bnot (?:\w+ )?(?:excluded|ruled out)\b"
    r"|\b(?:is|are|was) (?:possible|questionable|suspected|considered)\b"
)
_RESTART = re.compile(
    rf"(?:,|\band)? ?\bthere (?:is|are|was|were)\b|,? and (?:the|a|an)\b"
    r"|, (?:the|a|an|with|mild|moderate|severe|marked|minimal|small|large|multiple|several)\b"
    rf"|\b(?:is|are|was|were) (?:again )?(?:{_SEEN}|thickened|enlarged|dilated)\b"
    r"|\b(?:secondary|due) to\b|\bshows?\b(?! no)"
)
_NEAR = 60  # characters within which a doubtful cue before a term still speaks of it
_TRANSLATE = str.maketrans(
    {"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2019": "'"}
)

PRESENT, ABSENT = 1, 0


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of a sentence in lower case, and where its cues stand."""

    text: str
    denied_before: tuple[tuple[int, int], ...]
    denied_after: tuple[tuple[int, int], ...]
    unsure_before: tuple[tuple[int, int], ...]
    unsure_after: tuple[tuple[int, int], ...]
    restarts: tuple[tuple[int, int], ...]

    def status(self, start: int, end: int) -> int | None:
        """Say what the clause states about the term at a place.

        Args:
            start: First character of the term.
            end: One past its last character.

        Returns:
            1 present, 0 absent, None where the clause leaves it open.
        """
        for _, high in self.unsure_before:
            if high <= start and start - high <= _NEAR and not self._restarted(high, start):
                return None
        if any(low >= start for low, _ in self.unsure_after):
            return None
        for low, high in self.denied_before:
            if start <= low < end or (high <= start and not self._restarted(high, start)):
                return ABSENT
        for low, _ in self.denied_after:
            if low >= start and not self._restarted(end, low):
                return ABSENT
        return PRESENT

    def _restarted(self, low: int, high: int) -> bool:
        """Tell whether a new statement begins between two places."""
        return any(low <= start and end <= high for start, end in self.restarts)


def clauses(sentence: str) -> tuple[Clause, ...]:
    """Split a sentence into clauses that a negation does not cross.

    Args:
        sentence: One sentence in any case.

    Returns:
        Clauses in order, lower case, dashes and blanks made uniform.

    Source:
        Our choice, after the idea of NegEx (Chapman et al. 2001): cues, scope, terminators.
    """
    return tuple(_clause(part) for part in _SPLIT.split(normalise(sentence)) if part.strip())


def normalise(text: str) -> str:
    """Make a text lower case with plain dashes and single blanks."""
    plain = unicodedata.normalize("NFKC", text).translate(_TRANSLATE).lower()
    return re.sub(r"[ \t\r\f\v]+", " ", plain)


def _clause(text: str) -> Clause:
    """Find the cues of a clause; those that deny only a change are not cues."""
    bare = _NO_STATEMENT.sub(lambda m: " " * len(m.group()), text)
    unsure_after = _spans(_UNSURE_AFTER, bare)
    unsure_before = _spans(_UNSURE_BEFORE, bare)
    doubts = (*unsure_after, *unsure_before)
    denied = [
        span
        for span in _spans(_DENIED_BEFORE, bare)
        if not any(low <= span[0] < high for low, high in doubts)
    ]
    return Clause(
        text=text,
        denied_before=tuple(denied),
        denied_after=_spans(_DENIED_AFTER, bare),
        unsure_before=unsure_before,
        unsure_after=unsure_after,
        restarts=_spans(_RESTART, bare),
    )


def _spans(pattern: re.Pattern[str], text: str) -> tuple[tuple[int, int], ...]:
    """Give where a pattern occurs."""
    return tuple(m.span() for m in pattern.finditer(text))
