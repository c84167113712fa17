"""Decide what a clause says about a term in it: that it is there, that it is not, or neither.

The rules are those of trigger lists with a scope: a cue before or after a term reaches as far
as the clause goes, or until a word that starts a new statement. Each language has its `Cues`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

PRESENT, ABSENT = 1, 0

_Spans: TypeAlias = tuple[tuple[int, int], ...]

_NEAR = 60  # characters within which a doubtful cue before a term still speaks of it
_DASHES = {"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-"}
_PLAIN = str.maketrans(_DASHES | {"\u2019": "'"})
_SPELLED = str.maketrans({"\u00e4": "ae", "\u00f6": "oe", "\u00fc": "ue", "\u00df": "ss"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cues:
    """What denies, doubts and bounds a statement in one language, as patterns of lower case."""

    spelled: bool = False  # umlauts are spelled out before anything is looked for
    split: re.Pattern[str]  # parts a negation does not cross
    mute: re.Pattern[str]  # holds a denying word, but denies only a change or a doubt
    denied_before: re.Pattern[str]
    denied_after: re.Pattern[str]
    unsure_before: re.Pattern[str]
    unsure_after: re.Pattern[str]
    restart: re.Pattern[str]  # a new statement begins


_SEEN = (
    "seen|identified|detected|observed|present|visible|visuali[sz]ed|demonstrated|found|evident"
    "|noted|apparent|recogni[sz]ed|appreciated|encountered|depicted|shown|included|confirmed|proven"
)
_OPEN = "excluded?|ruled? out|determined?|assess(?:ed)?|evaluated?|confirm(?:ed)?"
_SHOWN_ONCE = r"(?! (?:on|in|at) (?:the )?(?:prior|previous|last|earlier))"

ENGLISH = Cues(
    split=re.compile(
        r"[;\n]|\b(?:but|however|although|though|whereas|nevertheless|yet|except(?: for)?"
        r"|(?:aside|apart) from|other than|besides|with the exception of|while)\b"
    ),
    mute=re.compile(
        r"\b(?:no|not|without|nor)\b"
        r"(?: (?:any|evidence of|significant\w*|relevant\w*|interval|appreciabl\w+|substantial\w*"
        r"|definite|obvious\w*|major|detectable|further|in))* "
        r"(?:change|changed|increase|increased in|increased|decrease|decreased|progression|growth"
        r"|enlarging|worsening|difference)\b(?! of the heart)|\bnot only\b|\bno doubt\b"
        r"|\bnot (?:yet )?(?:\w+ly )?(?:resolved|cleared|previously)\b(?: \w+)?"
        r"|\b(?:partial|incomplete|near[- ]complete) (?:resolution|clearing)\b"
        r"|\b(?:ensure|document|confirm|until|demonstrate|for) (?:\w+ )?(?:resolution|clearing)\b"
        r"|\babsent (?:on|in|at) (?:the )?(?:prior|previous|last|earlier)\b"
        r"|\bno (?:known )?(?:prior|previous|comparison|complications?)\b"
    ),
    denied_before=re.compile(
        r"\b(?:no (?:[\w-]+ ){0,4}(?:suspicious|concerning|suggestive|worrisome|to suggest)"
        r"(?: for| of)?|no|not|without|nor|neither|never|none|lacks?|lacking|denies|excluded?"
        r"|excludes|(?:free|clear|devoid) (?:of|from)|negative for|absence of|absent|rather than"
        r"|instead of|cannot find|(?:resolution|clearing|removal) of)\b"
    ),
    denied_after=re.compile(
        rf"(?:\b(?:(?:is|are|was|were|has been|have been|has|have)? ?(?:not|no longer|never)"
        rf"(?: \w+ly)?(?: be)?(?: been)? (?:{_SEEN})"
        r"|(?:is|are|was|were|has been|have been) (?:absent|excluded|ruled out|unlikely)"
        r"|(?:has|have) (?:\w+ly )?(?:resolved|cleared|been removed)|resolved|resolution|none)"
        rf"|: ?(?:no|absent|negative))\b{_SHOWN_ONCE}"
    ),
    unsure_before=re.compile(
        r"\b(?:possibl[ey]|questionable|questions? of|equivocal|suspected|suspicion of"
        r"|suspicious for|concern(?:ing)? for|indeterminate for|worrisome for"
        r"|rule out|to (?:exclude|evaluate|look for)|evaluate for|evaluation (?:of|for)|assess for"
        r"|(?:known )?history of|risk of|(?:may|might|could) (?:well )?(?:represent|be|reflect)"
        r"|versus|vs|or possibly|no (?:new|further|other|additional)|if|differential"
        r"|(?:cannot|can not|could not|unable to|difficult to|not) (?:\w+ )?(?:exclude|rule out"
        r"|differentiate|distinguish))\b"
    ),
    unsure_after=re.compile(
        rf"\b(?:cannot|can not|could not) (?:\w+ )?be (?:\w+ )?(?:{_OPEN})\b"
        r"|\bnot (?:\w+ )?(?:excluded|ruled out)\b"
        rf"|\b(?:difficult|hard|impossible|unable) to (?:\w+ )?(?:{_OPEN})\b"
        r"|\b(?:may|might|could) be (?:present|considered)\b|\b(?:versus|vs)\b|\?"
        r"|\b(?:is|are|was) (?:possible|questionable|suspected|considered|equivocal|uncertain"
        r"|limited(?! to))\b"
    ),
    restart=re.compile(
        rf"(?:,|\band)? ?\bthere (?:is|are|was|were)\b|,? and (?:the|a|an)\b"
        r"|, (?:the|a|an|with|mild|moderate|severe|marked|minimal|small|large|multiple|several)\b"
        rf"|\b(?:is|are|was|were) (?:again )?(?:{_SEEN}|thickened|enlarged|dilated)\b"
        r"|\b(?:secondary|due) to\b|\bshows?\b(?! no)|\b(?:for|of) which\b"
    ),
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of a sentence in lower case."""

    text: str
    cues: Cues

    def status(self, start: int, end: int) -> int | None:
        """Say what the clause states about the term at a place.

        The cue before the term that stands nearest decides, if no new statement begins in
        between; then a doubt after it; then a denial after it.

        Args:
            start: First character of the term.
            end: One past its last character.

        Returns:
            1 present, 0 absent, None where the clause leaves it open.
        """
        places = _places(self.text, self.cues)
        denied = places.last(places.denied_before, start, end)
        unsure = places.last(places.unsure_before, start, end)
        if unsure > denied and start - unsure <= _NEAR:
            return None
        if any(low >= end and not places.restarted(end, low) for low, _ in places.unsure_after):
            return None
        if denied >= 0:
            return ABSENT
        for low, _ in places.denied_after:
            if low >= start and not places.restarted(end, low):
                return ABSENT
        return PRESENT


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the cues of a clause stand, in order."""

    denied_before: _Spans
    denied_after: _Spans
    unsure_before: _Spans
    unsure_after: _Spans
    restarts: _Spans

    def last(self, cues: _Spans, start: int, end: int) -> int:
        """Give the end of the last cue that reaches the term at a place, or -1."""
        for low, high in reversed(cues):
            if low < end and (high > start or not self.restarted(high, start)):
                return high
        return -1

    def restarted(self, low: int, high: int) -> bool:
        """Tell whether a new statement begins between two places."""
        return any(low <= start and end <= high for start, end in self.restarts)


def clauses(sentence: str, cues: Cues = ENGLISH) -> tuple[Clause, ...]:
    """Split a sentence into clauses that a negation does not cross.

    Args:
        sentence: One sentence in any case.
        cues: Those of its language.

    Returns:
        Clauses in order, lower case, dashes and blanks made uniform.

    Source:
        Our choice, after the idea of NegEx (Chapman et al. 2001): cues, scope, terminators.
    """
    text = normalise(sentence, spelled=cues.spelled)
    return tuple(Clause(part, cues) for part in cues.split.split(text) if part.strip())


def normalise(text: str, *, spelled: bool = False) -> str:
    """Make a text lower case with plain dashes and single blanks.

    Args:
        text: Any text.
        spelled: Spell umlauts and the sharp s out, as people without those keys do.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_PLAIN).lower()
    return re.sub(r"[ \t\r\f\v]+", " ", plain.translate(_SPELLED) if spelled else plain)


@lru_cache(maxsize=64)  # the findings ask about one clause, one after the other
def _places(text: str, cues: Cues) -> _Places:
    """Find the cues of a clause; a cue inside a longer one, or in a mute phrase, is none."""
    bare = cues.mute.sub(lambda m: " " * len(m.group()), text)
    denied, unsure = _spans(cues.denied_before, bare), _spans(cues.unsure_before, bare)
    unsure_after = _spans(cues.unsure_after, bare)
    return _Places(
        denied_before=_outside(denied, (*unsure, *unsure_after)),
        denied_after=_outside(_spans(cues.denied_after, bare), unsure_after),
        unsure_before=_outside(unsure, denied),
        unsure_after=unsure_after,
        restarts=_spans(cues.restart, bare),
    )


def _spans(pattern: re.Pattern[str], text: str) -> _Spans:
    """Give where a pattern occurs."""
    return tuple(m.span() for m in pattern.finditer(text))


def _outside(spans: _Spans, longer: _Spans) -> _Spans:
    """Leave out the spans that lie inside a longer one."""
    return tuple(
        (low, high)
        for low, high in spans
        if not any(a <= low and high <= b and b - a > high - low for a, b in longer)
    )
