"""The German grammar: its tables are read from `data/german.json`.

Wording is our own, in the register of a German radiologist, and no translation of the English
phrases: places are adverbial ("im rechten Oberlappen"), so that no noun has to be declined, and
words of degree come in the endings that a phrase asks for (`grad`, `grad_e`, `grad_er`, ...). The
tables are JSON because the code is ASCII and German is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from t3d.phantom.phrases import FindingPhrases, Grammar, Wording


def _grammar(raw: Mapping[str, Any]) -> Grammar:
    """Put the tables of the file together."""
    return Grammar(
        language="de",
        findings={name: _phrases(one, raw["lungs"]) for name, one in raw["findings"].items()},
        joint_absent=tuple((tuple(names), text) for names, text in raw["joint_absent"]),
        normal=tuple(raw["normal"]),
        generic=tuple(raw["generic"]),
        form_words={slot: _words(forms) for slot, forms in raw["form_words"].items()},
        places=_words(raw["places"]),
        place_sets={frozenset(codes): tuple(names) for codes, names in raw["place_sets"]},
        stations=_words(raw["stations"]),
        sides={side: (short, long) for side, (short, long) in raw["sides"].items()},
        devices=_words(raw["devices"]),
        numbers={int(count): tuple(words) for count, words in raw["numbers"].items()},
        many=tuple(raw["many"]),
        several_places=tuple(raw["several_places"]),
        article=raw["article"],
        joiner=raw["joiner"],
        decimal_mark=raw["decimal_mark"],
    )


def _phrases(raw: Mapping[str, Any], lungs: Mapping[str, Sequence[str]]) -> FindingPhrases:
    """Read the phrases of one finding; "lungs" stands for the places of the lungs."""
    places = raw.get("places", {})
    return FindingPhrases(
        train=Wording(**_words(raw["train"])),
        heldout=Wording(**_words(raw["heldout"])),
        places=_words(lungs if places == "lungs" else places),
    )


def _words(raw: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Turn lists into tuples."""
    return {key: tuple(words) for key, words in raw.items()}


GERMAN = _grammar(
    json.loads(files("t3d.phantom").joinpath("data", "german.json").read_text(encoding="utf-8"))
)
"""The grammar of German reports; `wording="heldout"` draws from its held-out phrases."""
