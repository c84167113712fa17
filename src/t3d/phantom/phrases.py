"""The shape of a report grammar: tables of phrases with slots, and nothing about one language.

A phrase is plain text with slots in braces; it may begin with one condition and a bar, as in
`"many|{number} nodules in {place}."`. A phrase is used only where its condition holds and every
slot it names is known, so a table needs no code of its own. Conditions: `one` and `many` (how many
items were merged), `large` and `small` (the drawn form), `bilateral`.

Slots of every language: `place` (as its phrases want it: English a noun phrase with its article,
German an adverbial), `station`, `side`, `sided`, `size`, `ratio`, `number`, `device`. Besides them
each language names slots for words of degree in its `form_words`: English `few`, `amount`,
`degree`, `degreely`. A new language is one new `Grammar`; `report.py` stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SLOTS: frozenset[str] = frozenset(
    {
        "place",
        "station",
        "side",
        "sided",
        "size",
        "ratio",
        "number",
        "few",
        "amount",
        "degree",
        "degreely",
        "device",
    }
)
CONDITIONS: frozenset[str] = frozenset({"", "one", "many", "large", "small", "bilateral"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """How one finding is put into words, in one wording ("train" or "heldout")."""

    present: tuple[str, ...]  # FINDINGS, the finding is there
    concluded: tuple[str, ...]  # IMPRESSION, the same thing said again
    absent: tuple[str, ...]  # FINDINGS, the finding is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingPhrases:
    """Everything the grammar can say about one finding."""

    train: Wording
    heldout: Wording  # never used for training text
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # side -> place if unnamed

    def wording(self, name: str) -> Wording:
        """The wording called `name`: "train" or "heldout"."""
        return self.train if name == "train" else self.heldout


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """One language: findings, filler sentences and the words that fill slots."""

    language: str  # ISO 639-1
    findings: Mapping[str, FindingPhrases]  # CT-RATE name -> phrases
    joint_absent: tuple[tuple[tuple[str, ...], str], ...]  # findings denied together, phrase
    normal: tuple[str, ...]  # FINDINGS, says nothing about any of the 18 findings
    generic: tuple[str, ...]  # IMPRESSION, says nothing about any of the 18 findings
    form_words: Mapping[str, Mapping[str, tuple[str, ...]]]  # slot -> "large" / "small" -> words
    places: Mapping[str, tuple[str, ...]]  # place code -> two or more names with article
    place_sets: Mapping[frozenset[str], tuple[str, ...]]  # several codes -> one name
    stations: Mapping[str, tuple[str, ...]]  # station -> adjectives
    sides: Mapping[str, tuple[str, str]]  # side -> words for the slots `side` and `sided`
    devices: Mapping[str, tuple[str, ...]]  # part of an item's kind -> names; "" = any other
    numbers: Mapping[int, tuple[str, ...]]  # count -> words
    many: tuple[str, ...]  # words for a count that has none of its own
    several_places: tuple[str, ...]  # when more than three places are named
    article: str  # written before a place that is in no table
    joiner: str  # between the last two of a list
    decimal_mark: str
    corrections: tuple[tuple[str, str], ...] = ()  # regular expression, replacement
