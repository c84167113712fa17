"""Write the report of a phantom: what its labels and items say, in a radiologist's words.

The length of each section in words is drawn independently of the labels and met with denials
and irrelevant sentences, because sentences about findings are longer than the others and a
length counted in sentences would give the labels away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from t3d.errors import RecipeError, SourceError
from t3d.phantom.items import PlacedItem, WrittenReport
from t3d.phantom.phrases import Grammar
from t3d.phantom.phrases_english import ENGLISH
from t3d.phantom.phrases_german import GERMAN
from t3d.text.findings import CT_RATE_18
from t3d.types import Report, Sentence

T = TypeVar("T")

FINDINGS_WORDS = (100, 150)
"""Length of FINDINGS in words, both ends included (our choice)."""

IMPRESSION_WORDS = (24, 34)
"""Length of IMPRESSION in words (our choice: three findings and one filler, or four fillers)."""

NEGATION_SHARE = 0.62
"""Share of filler sentences that deny an absent finding (our choice)."""

JOINT_SHARE = 0.2
"""How often a denial names two absent findings at once (our choice)."""

SIZE_JITTER = 0.07
"""Reported sizes differ from the truth by up to this share: readers do not measure exactly."""

WORDINGS = ("train", "heldout")

GRAMMARS: Mapping[str, Grammar] = {one.language: one for one in (ENGLISH, GERMAN)}
"""ISO 639-1 code -> grammar of that language."""

_SLOT = re.compile(r"\{(\w+)\}")
_ROW_WORDS = 2  # how far a section may stay from its drawn length
_MAX_GENERIC = 4
_MAX_CONCLUDED = 3
_TRIES = 16
_WHOLE_MM = 10  # smaller sizes are written with one decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merged:
    """All items of one finding as one statement."""

    finding: str
    large: bool
    side: str
    places: tuple[str, ...]
    kinds: tuple[str, ...]
    size_mm: float  # the largest, jittered; 0 = unknown
    count: int
    ratio: float  # cardiothoracic; 0 = unknown
    z_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _Line:
    """One sentence before it has a place in a section."""

    text: str
    about: _Merged | None = None

    @property
    def num_words(self) -> int:
        return len(self.text.split())


def write_report(
    labels: Mapping[str, int],
    items: Sequence[PlacedItem],
    rng: np.random.Generator,
    *,
    wording: str = "train",
    grammar: Grammar = ENGLISH,
) -> WrittenReport:
    """Write FINDINGS and IMPRESSION for one phantom.

    FINDINGS holds one sentence for each positive finding (its items merged, the largest size,
    jittered by up to 7 %), then denials of absent findings and irrelevant sentences until the
    drawn number of words is met, all in random order. IMPRESSION says up to three of the
    positives again in other phrases, among one to four generic sentences.

    Args:
        labels: 1 or 0 for names of `CT_RATE_18`; a name left out is not mentioned.
        items: What is there, with its place in LPS mm; at least one for each positive label.
        rng: Source of every choice; the same state gives the same report.
        wording: "train", or "heldout" for phrases that "train" never uses.
        grammar: Phrases and words of one language.

    Returns:
        The report and its sentences in order. A sentence about a positive finding names it and
        has `z_mm` = centre (mean over items, weighted by count x size cubed), lowest, highest;
        every other sentence has `finding` "" and `z_mm` None.

    Raises:
        RecipeError: The wording is unknown.
        SourceError: A label is unknown or not 0 / 1, or labels and items disagree.

    Source:
        Our choice; the idea of a length drawn in words comes from a measured leak.
    """
    if wording not in WORDINGS:
        raise RecipeError(
            f"report wording {wording!r}", expected=f"one of {WORDINGS}", fix="use wording='train'"
        )
    _check(labels, items)
    positives = _merge(labels, items, rng)
    findings = _findings(labels, positives, rng, wording=wording, grammar=grammar)
    impression = _impression(positives, rng, wording=wording, grammar=grammar)
    findings_text, first = _lay_out(findings, "findings")
    impression_text, second = _lay_out(impression, "impression")
    report = Report(findings=findings_text, impression=impression_text, language=grammar.language)
    return WrittenReport(report=report, sentences=first + second)


def _check(labels: Mapping[str, int], items: Sequence[PlacedItem]) -> None:
    """Refuse labels that are unknown or that the items do not bear out."""
    bad = [f"{k!r}: {v!r}" for k, v in labels.items() if k not in CT_RATE_18 or v not in (0, 1)]
    if bad:
        raise SourceError(
            "report labels " + ", ".join(bad),
            expected="names of CT_RATE_18 with values 0 or 1",
            fix="leave a finding out where it is not known",
        )
    shown = {placed.item.finding for placed in items}
    stated = {name for name, value in labels.items() if value == 1}
    if shown != stated:
        raise SourceError(
            "labels and items disagree: "
            f"no item for {sorted(stated - shown)}, no label for {sorted(shown - stated)}",
            expected="at least one item for each positive label and none for the others",
            fix="draw the missing items, or correct the labels",
        )


def _merge(
    labels: Mapping[str, int], items: Sequence[PlacedItem], rng: np.random.Generator
) -> list[_Merged]:
    """Make one statement of all items of a finding, in the order of CT_RATE_18."""
    merged = []
    for name in CT_RATE_18:
        if labels.get(name, 0) == 1:
            merged.append(_merge_one([p for p in items if p.item.finding == name], rng))
    return merged


def _merge_one(group: Sequence[PlacedItem], rng: np.random.Generator) -> _Merged:
    """Join the items of one finding: largest size, every place, the hull of their depths."""
    sides = {placed.item.side for placed in group} - {""}
    weights = np.array([p.count * max(p.item.size_mm, 1.0) ** 3 for p in group])
    centres = np.array([p.z_mm[0] for p in group])
    jitter = 1.0 + SIZE_JITTER * (2.0 * float(rng.random()) - 1.0)
    return _Merged(
        finding=group[0].item.finding,
        large=any(placed.item.large for placed in group),
        side=sides.pop() if len(sides) == 1 else ("bilateral" if sides else ""),
        places=tuple(dict.fromkeys(p.item.place for p in group if p.item.place)),
        kinds=tuple(dict.fromkeys(p.item.kind for p in group)),
        size_mm=jitter * max(placed.item.size_mm for placed in group),
        count=sum(placed.count for placed in group),
        ratio=max(placed.extra.get("cardiothoracic_ratio", 0.0) for placed in group),
        z_mm=(
            float(np.sum(weights * centres) / np.sum(weights)),
            float(min(placed.z_mm[1] for placed in group)),
            float(max(placed.z_mm[2] for placed in group)),
        ),
    )


def _findings(
    labels: Mapping[str, int],
    positives: Sequence[_Merged],
    rng: np.random.Generator,
    *,
    wording: str,
    grammar: Grammar,
) -> list[_Line]:
    """Write FINDINGS: every positive, then denials and irrelevant sentences up to its length."""
    target = int(rng.integers(FINDINGS_WORDS[0], FINDINGS_WORDS[1] + 1))
    lines = []
    for about in positives:
        phrases = grammar.findings[about.finding].wording(wording).present
        lines.append(_Line(_say(phrases, about, rng, grammar), about))
    denied = [name for name in CT_RATE_18 if labels.get(name) == 0]
    denials = _denials(denied, rng, wording=wording, grammar=grammar)
    normal = _shuffled(list(grammar.normal), rng)
    length = sum(line.num_words for line in lines)
    while length < target - _ROW_WORDS and (denials or normal):
        take_denial = bool(rng.random() < NEGATION_SHARE) and bool(denials)
        line = _Line((denials if take_denial or not normal else normal).pop())
        if length + line.num_words <= target + _ROW_WORDS:
            lines.append(line)
            length += line.num_words
    return _shuffled(lines, rng)


def _denials(
    absent: Sequence[str], rng: np.random.Generator, *, wording: str, grammar: Grammar
) -> list[str]:
    """Write one denial for each absent finding, now and then one for two of them."""
    left, lines = set(absent), []
    for name in _shuffled(list(absent), rng):
        joint = [
            text
            for names, text in grammar.joint_absent
            if wording == "train" and name in names and left.issuperset(names)
        ]
        if name in left and joint and rng.random() < JOINT_SHARE:
            text = _pick(joint, rng)
            left -= next(set(names) for names, phrase in grammar.joint_absent if phrase == text)
            lines.append(_capital(text))
        elif name in left:
            left.discard(name)
            phrases = grammar.findings[name].wording(wording).absent
            lines.append(_capital(_pick(phrases, rng)))
    return lines


def _impression(
    positives: Sequence[_Merged], rng: np.random.Generator, *, wording: str, grammar: Grammar
) -> list[_Line]:
    """Write IMPRESSION: up to three positives again, and generic sentences up to its length."""
    target = int(rng.integers(IMPRESSION_WORDS[0], IMPRESSION_WORDS[1] + 1))
    lines = []
    for about in _shuffled(list(positives), rng)[:_MAX_CONCLUDED]:
        phrases = grammar.findings[about.finding].wording(wording).concluded
        lines.append(_Line(_say(phrases, about, rng, grammar), about))
    missing = target - sum(line.num_words for line in lines)
    return _shuffled(lines + _generic(missing, rng, grammar), rng)


def _generic(num_words: int, rng: np.random.Generator, grammar: Grammar) -> list[_Line]:
    """Draw one to four generic sentences that come close to a number of words."""
    lines = [_Line(text) for text in _shuffled(list(grammar.generic), rng)]
    lengths = [line.num_words for line in lines]
    sizes = rng.integers(1, _MAX_GENERIC + 1, size=_TRIES)
    windows = [(int(rng.integers(len(lines) - size + 1)), int(size)) for size in sizes]
    misses = [abs(sum(lengths[start : start + size]) - num_words) for start, size in windows]
    start, size = windows[misses.index(min(misses))]
    return lines[start : start + size]


def _say(phrases: Sequence[str], about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Draw a phrase that fits and fill its slots."""
    known = _known_slots(about, grammar)
    holds = _conditions(about)
    parsed = [_parsed(phrase) for phrase in phrases]
    fitting = [(text, slots) for when, text, slots in parsed if when in holds and slots <= known]
    if not fitting:
        raise SourceError(
            f"no phrase fits {about.finding!r} with slots {sorted(known)}",
            expected="an item with a size and, for effusions, a side",
            fix="complete the item, or add a phrase without that slot to the grammar",
        )
    text, slots = fitting[int(rng.integers(len(fitting)))]
    filled = {slot: _word(slot, about, rng, grammar) for slot in sorted(slots)}
    return _corrected(_capital(text.format_map(filled)), grammar)


@lru_cache(maxsize=4096)
def _parsed(phrase: str) -> tuple[str, str, frozenset[str]]:
    """Split a phrase into its condition, its text and the slots it names."""
    condition, _, text = phrase.rpartition("|")
    return condition, text, frozenset(_SLOT.findall(text))


def _conditions(about: _Merged) -> set[str]:
    """Name the conditions of phrases that hold for a statement."""
    return {
        "",
        "many" if about.count > 1 else "one",
        "large" if about.large else "small",
        about.side,
    }


def _known_slots(about: _Merged, grammar: Grammar) -> set[str]:
    """Name the slots that a statement can fill."""
    known = {"device", "station", *grammar.form_words}
    if about.places or _default_places(about, grammar):
        known.add("place")
    if about.side in grammar.sides:
        known |= {"side", "sided"}
    if about.size_mm > 0:
        known.add("size")
    if about.ratio > 0:
        known.add("ratio")
    if about.count > 1:
        known.add("number")
    return known


def _word(slot: str, about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Draw what stands in one slot."""
    fill = _FILL.get(slot)
    if fill is not None:
        return fill(about, rng, grammar)
    return _pick(grammar.form_words[slot]["large" if about.large else "small"], rng)


def _place(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Name where a finding lies: its places, else the side, else what its table says."""
    if not about.places:
        return _pick(_default_places(about, grammar), rng)
    together = grammar.place_sets.get(frozenset(about.places))
    if together is not None and rng.random() < 0.5:
        return _pick(together, rng)
    if len(about.places) > _MAX_CONCLUDED:
        return _pick(grammar.several_places, rng)
    named = [grammar.places.get(p, (grammar.article + _plain(p),)) for p in about.places]
    return _list([_pick(names, rng) for names in named], grammar)


def _default_places(about: _Merged, grammar: Grammar) -> tuple[str, ...]:
    """Give the names for a finding without a place; a side nobody named falls back to none."""
    table = grammar.findings[about.finding].places
    return table.get(about.side, table.get("", ()))


def _station(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Name lymph node stations as adjectives."""
    codes = about.places or ("",)
    return _list([_pick(grammar.stations.get(c, (_plain(c),)), rng) for c in codes], grammar)


def _side(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Name the side."""
    return grammar.sides[about.side][0]


def _sided(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Name the side in its longer form."""
    return grammar.sides[about.side][1]


def _number(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Name how many there are."""
    return _pick(grammar.numbers.get(about.count, grammar.many), rng)


def _ratio(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Write the cardiothoracic ratio."""
    return f"{about.ratio:.2f}".replace(".", grammar.decimal_mark)


def _device(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Name devices by the part of their kind that the grammar knows."""
    names = []
    for kind in about.kinds:
        known = [key for key in grammar.devices if key and key in kind.lower()]
        names.append(_pick(grammar.devices[known[0] if known else ""], rng))
    return _list(names, grammar)


def _size(about: _Merged, rng: np.random.Generator, grammar: Grammar) -> str:
    """Write a size as mm, as cm or as two diameters in mm."""
    size_mm = about.size_mm
    style = int(rng.integers(3))
    other = size_mm * (0.75 + 0.2 * float(rng.random()))
    digits = 0 if size_mm >= _WHOLE_MM else 1
    text = (
        f"{size_mm / 10:.1f} cm",
        f"{size_mm:.{digits}f} mm",
        f"{size_mm:.{digits}f} x {other:.{digits}f} mm",
    )[style]
    return text.replace(".", grammar.decimal_mark)


_FILL: Mapping[str, Callable[[_Merged, np.random.Generator, Grammar], str]] = {
    "device": _device,
    "number": _number,
    "place": _place,
    "ratio": _ratio,
    "side": _side,
    "sided": _sided,
    "size": _size,
    "station": _station,
}


def _lay_out(lines: Sequence[_Line], section: str) -> tuple[str, tuple[Sentence, ...]]:
    """Join sentences with blanks and note where each of them lies."""
    sentences, start = [], 0
    for line in lines:
        end = start + len(line.text)
        about = line.about
        sentences.append(
            Sentence(
                section=section,
                start=start,
                end=end,
                finding=about.finding if about else "",
                z_mm=about.z_mm if about else None,
            )
        )
        start = end + 1
    return " ".join(line.text for line in lines), tuple(sentences)


def _corrected(text: str, grammar: Grammar) -> str:
    """Apply the language's corrections to a filled phrase."""
    for pattern, replacement in grammar.corrections:
        text = re.sub(pattern, replacement, text)
    return text


def _capital(text: str) -> str:
    """Begin with a capital."""
    return text[:1].upper() + text[1:]


def _list(names: Sequence[str], grammar: Grammar) -> str:
    """Join names as a list in running text, each of them once."""
    names = list(dict.fromkeys(names))
    return grammar.joiner.join([*([", ".join(names[:-1])] if names[:-1] else []), *names[-1:]])


def _plain(code: str) -> str:
    """Turn a code that is in no table into words."""
    return code.replace("_", " ")


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one entry."""
    return words[int(rng.integers(len(words)))]


def _shuffled(values: list[T], rng: np.random.Generator) -> list[T]:
    """Give the values in random order."""
    return [values[i] for i in rng.permutation(len(values))]
