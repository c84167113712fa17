"""Prompt sets: what is asked of the text encoder for each finding, by name.

`template` puts class names into sentences. `bank` takes sentences of the training reports
that a rule on the text assigns to a finding, so it needs to know which sentence states what;
no label of a study enters. Both are shown, named, wherever a score is shown: wording alone
moves a score by more than most methods do.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t3d.errors import ProtocolError
from t3d.judge.data.templates import AROUND_NAMES, BY_FINDING, SOURCES, TEMPLATE
from t3d.text.findings import CT_RATE_18
from t3d.text.sentences import split_sentences

if TYPE_CHECKING:
    from t3d.cohort.store import Cohort

LabelSentence = Callable[[str], Mapping[str, int]]
"""A rule on the text: sentence -> {finding: 1 stated present, 0 stated absent}."""

_SIDES = ("positive", "negative")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """Positive and negative sentences for each finding."""

    name: str
    source: str  # where the sentences come from
    positive: Mapping[str, tuple[str, ...]]
    negative: Mapping[str, tuple[str, ...]]
    found: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # finding -> counts
    language: str = "en"  # ISO 639-1

    def __post_init__(self) -> None:
        for side in (self.positive, self.negative):
            empty = [finding for finding, sentences in side.items() if not sentences]
            if empty or side.keys() != self.positive.keys():
                raise ProtocolError(
                    f"prompt set {self.name!r}: no sentences on one side for "
                    f"{', '.join(empty) or 'some findings'}",
                    expected="at least one positive and one negative sentence a finding",
                    fix="add sentences, or leave the finding out of both sides",
                )

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings asked for, in order."""
        return tuple(self.positive)

    def only(self, findings: Sequence[str]) -> PromptSet:
        """Keep some findings.

        Raises:
            ProtocolError: The set lacks one of them.
        """
        unknown = [name for name in findings if name not in self.positive]
        if unknown:
            raise ProtocolError(
                f"prompt set {self.name!r} has no sentences for {', '.join(unknown)}",
                expected=f"some of {', '.join(self.findings)}",
                fix="ask for those, or screen without a prompt file",
            )
        return replace(
            self,
            positive={name: self.positive[name] for name in findings},
            negative={name: self.negative[name] for name in findings},
            found={name: self.found[name] for name in findings if name in self.found},
        )

    def to_json(self) -> dict[str, Any]:
        """Give plain dicts and lists that `from_json` reads back to an equal set."""
        # English stays unsaid, so that digests of sets written before languages were known hold
        told = {} if self.language == "en" else {"language": self.language}
        return told | {
            "name": self.name,
            "source": self.source,
            "positive": {k: list(v) for k, v in self.positive.items()},
            "negative": {k: list(v) for k, v in self.negative.items()},
            "found": {k: dict(v) for k, v in self.found.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PromptSet:
        """Read what `to_json` gave.

        Raises:
            ProtocolError: A field is missing, or a finding lacks sentences on one side.
        """
        try:
            return cls(
                name=data["name"],
                source=data["source"],
                positive={k: tuple(v) for k, v in data["positive"].items()},
                negative={k: tuple(v) for k, v in data["negative"].items()},
                found={k: dict(v) for k, v in data["found"].items()},
                language=data.get("language", "en"),
            )
        except KeyError as error:
            raise ProtocolError(
                f"prompt set without the field {error}",
                expected="name, source, positive, negative, found",
                fix="write it with PromptSet.to_json",
            ) from error

    def digest(self) -> str:
        """Give the sha256 of the set as hexadecimal text."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def read_prompts(path: Path) -> PromptSet:
    """Read a prompt set: a file that `t3d evaluate` wrote, or one written by hand as TOML.

        name = "german"
        source = "radiology department, ..."
        language = "de"

        [[finding]]
        name = "Pleural effusion"
        positive = ["Pleuraerguss."]
        negative = ["Kein Pleuraerguss."]

    Args:
        path: NAME.toml or prompts-NAME.json.

    Raises:
        ProtocolError: No such file, neither JSON nor TOML, or no prompt set.
    """
    try:
        text = path.read_text("utf-8")
        told = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise ProtocolError(
            f"{path.name} cannot be read as {kind} ({type(error).__name__})",
            expected="a file prompts-NAME.json, as `t3d evaluate` writes it, or a NAME.toml",
            fix="check the path",
        ) from error
    if not isinstance(told, dict):
        raise ProtocolError(f"{path.name} holds no prompt set", expected="a JSON object")
    return PromptSet.from_json(_by_side(told, path.name) if path.suffix == ".toml" else told)


def _by_side(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Turn the tables of a TOML file into both sides."""
    tables = told.get("finding", [])
    whole = isinstance(tables, list) and all(isinstance(table, dict) for table in tables)
    texts = [table.get(key) for table in tables for key in _SIDES] if whole else [None]
    listed = all(isinstance(t, list) and all(isinstance(s, str) for s in t) for t in texts)
    names = [table.get("name") for table in tables] if whole else []
    if not tables or not listed or len(set(names)) < len(names) or None in names:
        raise ProtocolError(
            f"{name} has no [[finding]], or one without name, positive and negative, or one twice",
            expected='[[finding]] name = "...", positive = ["..."], negative = ["..."]',
            fix="see read_prompts for a whole file",
        )
    sides = {key: {table["name"]: table[key] for table in tables} for key in _SIDES}
    top = {key: told[key] for key in ("name", "source", "language") if key in told}
    return {**top, **sides, "found": {}}


def prompt_set(name: str, findings: Sequence[str] = ()) -> PromptSet:
    """Make a prompt set that is data of this package.

    Args:
        name: "template" (ours), or "ctclip", "fvlm", "hlip", "radfinder" as published.
        findings: Class names; none = all that the set has, or the 18 of CT-RATE.

    Returns:
        The set.

    Raises:
        ProtocolError: There is no such set, or it has no sentences for a finding.
    """
    if name in AROUND_NAMES:
        wordings = AROUND_NAMES[name]
        names = findings or CT_RATE_18
        sides = [{f: _filled([w[side] for w in wordings], f) for f in names} for side in (0, 1)]
    elif name in BY_FINDING:
        pairs = BY_FINDING[name]
        sides = [{f: (pair[side],) for f, pair in pairs.items()} for side in (0, 1)]
    else:
        raise ProtocolError(
            f"prompt set {name!r} is unknown",
            expected=", ".join((*AROUND_NAMES, *BY_FINDING)),
            fix="name one of them, or give a file",
        )
    made = PromptSet(name=name, source=SOURCES[name], positive=sides[0], negative=sides[1])
    return made.only(findings) if findings else made


def templates(findings: Sequence[str] = CT_RATE_18) -> PromptSet:
    """Make the prompt set `template`: three sentences and three denials around a class name.

    Args:
        findings: Class names.

    Returns:
        The set.
    """
    return prompt_set("template", findings)


def bank(
    sentences: Iterable[str],
    label_sentence: LabelSentence,
    *,
    findings: Sequence[str] = CT_RATE_18,
    max_sentences: int = 16,
    seed: int = 0,
) -> PromptSet:
    """Make the prompt set `bank` from sentences of training reports.

    Sentences that differ only in case, spaces or numbers count once. Sentences that the rule
    assigns to this finding alone come first, then those that say the same of several findings,
    each in a seeded random order that does not depend on the order of `sentences`; those that
    state one finding and deny another serve only where there is nothing else. A finding without
    report-worded sentences on one side falls back to the templates there, and its counts say so.

    Args:
        sentences: Sentences of *training* reports, in any order, repeats allowed.
        label_sentence: The rule on the text.
        findings: Class names.
        max_sentences: At most so many a finding and side.
        seed: Of the choice.

    Returns:
        The set; `found[finding]` counts distinct sentences that state (`positive`) or deny
        (`negative`) the finding, those of them that speak of it alone (`..._alone`), and
        `fallback_positive`, `fallback_negative` (1 = template used).
    """
    stated = _assigned(sentences, label_sentence)
    sides: tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]] = ({}, {})
    found: dict[str, dict[str, int]] = {}
    for index, finding in enumerate(findings):
        counts: dict[str, int] = {}
        for value, key, side in ((1, "positive", 0), (0, "negative", 1)):
            rows = [(text, labels) for text, labels in stated if labels.get(finding) == value]
            alone = [text for text, labels in rows if len(labels) == 1]
            shared = [text for text, labels in rows if len(labels) > 1 == len({*labels.values()})]
            mixed = [text for text, labels in rows if len({*labels.values()}) > 1]
            rng = np.random.default_rng((seed, index, value))
            ordered = _shuffled(alone, rng) + _shuffled(shared, rng) or _shuffled(mixed, rng)
            chosen = ordered[:max_sentences]
            sides[1 - value][finding] = tuple(chosen) or _filled(
                [w[side] for w in TEMPLATE], finding
            )
            counts |= {key: len(rows), f"{key}_alone": len(alone)}
            counts[f"fallback_{key}"] = int(not chosen)
        found[finding] = counts
    return PromptSet(
        name="bank",
        source=f"sentences of training reports by a rule on the text, at most {max_sentences} "
        f"a side, seed {seed}",
        positive=sides[0],
        negative=sides[1],
        found=found,
    )


def training_sentences(cohort: Cohort, *, split: str = "train") -> list[str]:
    """Collect the sentences of a split's reports, FINDINGS before IMPRESSION.

    Args:
        cohort: An open cohort.
        split: The split the model was trained on; never dev or test.

    Returns:
        Sentences in the order of studies, repeats kept.
    """
    out: list[str] = []
    for study in cohort.studies(split):
        report = cohort.report(study.study_id)
        for text in (report.findings, report.impression) if report is not None else ():
            out += [text[start:end] for start, end in split_sentences(text)]
    return out


def _filled(wording: Sequence[str], finding: str) -> tuple[str, ...]:
    """Put a class name into every sentence."""
    name = finding[:1].lower() + finding[1:]
    return tuple(s.format(name=name, Name=finding[:1].upper() + finding[1:]) for s in wording)


def _assigned(
    sentences: Iterable[str], label_sentence: LabelSentence
) -> list[tuple[str, Mapping[str, int]]]:
    """Distinct sentences the rule says something about, ordered by their text."""
    first: dict[str, str] = {}
    for sentence in sentences:
        text = " ".join(sentence.split())
        key = _NUMBER.sub("#", text.lower())
        first[key] = min(first.get(key, text), text)
    labelled = ((first[key], label_sentence(first[key])) for key in sorted(first))
    return [(text, labels) for text, labels in labelled if labels]


def _shuffled(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The texts in a random order."""
    return [texts[i] for i in rng.permutation(len(texts))]
