"""What fixes a number: frozen rules with a name, a source and a digest.

Papers of this field print numbers under one name that differ in every rule below. Each rule is
therefore a field; a protocol that changes one is another protocol with another name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from t3d.errors import ProtocolError
from t3d.judge.data.classes import CLASSES, MAPPINGS
from t3d.judge.data.templates import AROUND_NAMES, BY_FINDING
from t3d.scores.bootstrap import Rule
from t3d.scores.neighbours import NeighbourRules
from t3d.scores.pools import PoolRules
from t3d.scores.thresholds import rule_named

ALLOWED: Mapping[str, tuple[object, ...]] = {
    "averaging": ("unit_mean_unit", "single", "none"),
    "score": ("cosine_difference", "softmax_pair", "given"),
    "merge": ("none", "ctclip_max", "hlip_half"),
    "unit": ("volume", "study:first", "study:mean"),
    "fitted_on": ("dev", "evaluated", "nowhere"),
    "compare": (">", ">="),
    "one_class": ("skip", "error", "nan"),
    "missing": ("error", "zero", "worst"),
    "missing_case": ("error", "left_out", "worst"),
    "definition": (
        *("auroc", "average_precision", "sensitivity", "specificity", "precision", "f1"),
        *("f1_macro", "f1_weighted", "accuracy", "balanced_accuracy", "crg", "ece9"),
    ),
    "pool": ("split", "volume", "study:first"),
    "similarity": ("cosine", "dot"),
    "credit": ("study", "own"),
    "ties": ("expected", "lowest_index"),
    "median": ("expected_rank", "floor_plus_1", "none"),
    "resample": ("patients", "rows", "none"),
    "percentiles": ("linear", "order_statistic"),
    "target": ("mm", "cells"),
}
"""Values that a field of a part may have; what they mean stands beside the field."""

LISTS: Mapping[str, str] = {"no_chest": "no_chest_valid.txt of CT-RATE: its head scans, by name"}
"""Lists that a pool may need, and the file each of them is."""

PARTS = ("classification", "retrieval", "neighbours", "pools", "localization")
"""Fields of a protocol that hold the rules of one task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """One number as the original prints it."""

    key: str  # its name there
    definition: str  # what it is; released code calls plain accuracy "balanced"
    average: str = "macro"  # unweighted mean over classes; "pooled" = over all answers at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """How scores become AUROC and yes/no measures."""

    findings: str  # class list that is asked, by its name in `data.classes`; "" = the prompts'
    scored: str  # class list that is scored, after merging; "" = the one that is asked
    mapping: str  # how a corpus's own labels become the scored classes; "" = they are the same
    prompts: str  # prompt set by name; "" = any, its name stands beside the number
    averaging: str  # several prompts: unit length, mean, unit length; single prompt; no prompts
    score: str  # cos+ - cos-; softmax over the two; a probability or score that is given
    temperature: str  # factor on the cosines: "none" (1), "learned", "fixed:<factor>"; "" = given
    merge: str  # of both calcifications: larger; larger if one is above .5, else smaller
    unit: str  # a row: every volume, a study's first reconstruction, mean of a study's scores
    threshold: str  # rule by its name in `scores.thresholds`; above:0.5 = argmax of two classes
    fitted_on: str  # studies that the threshold is chosen on
    compare: str  # how a score equal to the threshold is called
    one_class: str  # a finding that is always or never there: named and left out, error, NaN
    missing: str  # a score that is not there: error; 0; the worst that the truth allows
    missing_case: str  # a row without any score: error; left out and counted; the worst
    printed: tuple[Printed, ...]  # what the original prints
    decimals: int | None  # of the printed numbers; None = as computed
    expected: tuple[tuple[str, int], ...] = ()  # counts of the original's sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """How texts find volumes, and volumes texts."""

    pool: str  # candidates: every study of the split, every volume, first reconstructions
    similarity: str  # cosine, or dot product of vectors as they are
    text: str  # how a report becomes one text, in words
    directions: tuple[str, ...]  # "t2i", "i2t"
    ks: tuple[int, ...]  # lengths of the list
    credit: str  # "study": identical reports and siblings are right too, the strict number beside
    ties: str  # in every order alike; the lowest index first
    median: str  # of the ranks: expected rank from 1; floor of the lower median + 1
    needs: tuple[str, ...] = ()  # lists that the pool cannot be made without
    expected: tuple[tuple[str, int], ...] = ()  # counts of the original's sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """How the depth of a sentence is judged."""

    target: str  # error against the true depth in mm, or against the cell that holds it
    cell_mm: float | None  # size of a cell; None = the encoder's own
    per_scan: str  # which sentences of a scan count, in words
    within_mm: tuple[float, ...]  # shares of sentences within these errors
    baseline_seed: int  # of the random baseline, numpy.random.RandomState


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How an interval is made."""

    resample: str  # what is drawn with replacement; "none" = no draws: an interval of width 0
    num_draws: int
    seed: int  # of numpy.random.default_rng
    refit: bool  # thresholds that see the evaluated rows are chosen again in every draw
    percentiles: Rule  # as numpy.percentile, or element int(q n) - 1 of the sorted draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Rules of a measurement. Changing one needs a new name: the digest is pinned by a test."""

    name: str
    source: str  # where the rules come from
    code: str  # "owner/repository@commit"; "" = ours, or none was released
    classification: Classification | None = None
    retrieval: Retrieval | None = None
    neighbours: NeighbourRules | None = None  # volume -> volume
    pools: PoolRules | None = None
    localization: Localization | None = None
    intervals: Intervals
    floor: str  # what a blind model gets, in words; the numbers are computed on the labels
    ceiling: str  # what a perfect model gets
    warnings: tuple[str, ...] = ()  # what is shown beside every number
    on_request: bool = False  # reproduces a fault: only where it is asked for by name
    num_permutations: int = 100  # chance
    score_decimals: int | None = 6  # cosines closer than float32 can tell apart are ties
    seed: int = 0  # of the permutations

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise ProtocolError(
                f"{len(problems)} problems in protocol {self.name!r}: " + "; ".join(problems),
                expected="rules that the judge knows",
                fix="correct the fields named above",
            )

    def variant(self, suffix: str, **changes: Any) -> Protocol:
        """Change fields under a name of its own, `<name>@<suffix>`.

        Args:
            suffix: What is different, such as "tau100" or "allow-missing".
            **changes: Fields of the protocol, or `part.field` written `part__field`.

        Returns:
            The variant; its digest is another one.

        Raises:
            ProtocolError: The protocol lacks the part, or a value is unknown.
        """
        own: dict[str, Any] = {k: v for k, v in changes.items() if "__" not in k}
        for path, value in changes.items():
            part, _, name = path.partition("__")
            if name:
                held = own.get(part, getattr(self, part, None))
                own[part] = replace(self.part(part) if held is None else held, **{name: value})
        return replace(self, name=f"{self.name}@{suffix}", **own)

    def at_temperature(self, factor: float) -> Protocol:
        """Fix the factor on the cosines; the name says it, because yes/no measures move with it.

        Raises:
            ProtocolError: The protocol's scores are no softmax.
        """
        rules = self.classification
        if rules is None or rules.score != "softmax_pair":
            raise ProtocolError(
                f"protocol {self.name!r} has no temperature",
                expected="a protocol whose score is a softmax over two cosines",
                fix="leave the temperature out",
            )
        told = f"fixed:{factor:g}"
        return self.variant(f"tau{factor:g}", classification=replace(rules, temperature=told))

    def part(self, name: str) -> Any:
        """Give a part that must be there.

        Raises:
            ProtocolError: The protocol says nothing about it.
        """
        found = getattr(self, name, None)
        if found is None:
            raise ProtocolError(
                f"protocol {self.name!r} has no rules for {name}",
                expected=f"one of its parts: {', '.join(self.parts)}",
                fix="name another protocol; `plain` has rules for every task",
            )
        return found

    @property
    def parts(self) -> tuple[str, ...]:
        """Tasks that the protocol has rules for."""
        return tuple(name for name in PARTS if getattr(self, name) is not None)

    def needs_lists(self, given: Collection[str]) -> None:
        """Refuse a pool that cannot be made without a list of the corpus.

        Args:
            given: Names of the lists at hand.

        Raises:
            ProtocolError: One is missing; the message says which file it is.
        """
        lacking = [name for name in self.pairs.needs if name not in given]
        if lacking:
            raise ProtocolError(
                f"protocol {self.name!r} needs the list {', '.join(lacking)}",
                expected=", ".join(LISTS[name] for name in lacking),
                fix="get the file from the corpus and give it; it is not part of this package",
            )

    def allowing_missing(self) -> Protocol:
        """Count what a model leaves out as the worst that the truth allows, under a new name."""
        return self.variant(
            "allow-missing", classification__missing="worst", classification__missing_case="worst"
        )

    @property
    def classes(self) -> Classification:
        """Rules of classification; an error if there are none."""
        rules: Classification = self.part("classification")
        return rules

    @property
    def pairs(self) -> Retrieval:
        """Rules of retrieval; an error if there are none."""
        rules: Retrieval = self.part("retrieval")
        return rules

    def fields(self) -> Iterator[tuple[str, str]]:
        """Give every rule as (place, value) text: `classification.unit`, `volume`."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                for inner in dataclasses.fields(value):
                    yield f"{entry.name}.{inner.name}", _said(getattr(value, inner.name))
            else:
                yield entry.name, _said(value)

    def digest(self) -> str:
        """Give the sha256 of all fields, and of the lists and wordings they name, as text."""
        told = dataclasses.asdict(self) | {"content": self._content()}
        fields = json.dumps(told, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(fields.encode()).hexdigest()

    def describe(self) -> str:
        """Say the rules in a few lines, warnings, floor and ceiling included."""
        head = f"protocol {self.name} ({self.digest()[:12]}): {self.source}"
        code = [f"  code: {self.code}"] if self.code else []
        rules = [
            f"  {part}: "
            + ", ".join(
                f"{name.partition('.')[2]} {said}"
                for name, said in self.fields()
                if name.startswith(f"{part}.") and said
            )
            for part in (*self.parts, "intervals")
        ]
        tail = [f"  floor: {self.floor}", f"  ceiling: {self.ceiling}"]
        return "\n".join([head, *code, *rules, *(f"  ! {w}" for w in self.warnings), *tail])

    def _content(self) -> dict[str, Any]:
        """What the names of a classification stand for; prompts of a user have a digest apart."""
        rules = self.classification
        if rules is None:
            return {}
        wordings = {**AROUND_NAMES, **BY_FINDING}
        named: tuple[tuple[str, Mapping[str, Any]], ...] = (
            (rules.findings, CLASSES),
            (rules.scored, CLASSES),
            (rules.mapping, MAPPINGS),
            (rules.prompts, wordings),
        )
        return {name: table[name] for name, table in named if name in table}

    def _problems(self) -> Iterator[str]:
        """Every rule that cannot be followed."""
        for name in (*self.parts, "intervals"):
            if name not in ("neighbours", "pools"):  # frozen rules of scores, checked there
                yield from _unknown(name, getattr(self, name))
        for name, value in (
            ("num_permutations", self.num_permutations),
            ("intervals.num_draws", self.intervals.num_draws),
            (
                "smallest of retrieval.ks",
                min(self.retrieval.ks, default=0) if self.retrieval else 1,
            ),
        ):
            if value < 1:
                yield f"{name}: {value} is below 1"
        if self.classification is not None:
            yield from _contradictions(self.classification)


def _unknown(part: str, rules: Any) -> Iterator[str]:
    """Values that `ALLOWED` does not have."""
    for entry in dataclasses.fields(rules):
        value = getattr(rules, entry.name)
        if entry.name in ALLOWED and value not in ALLOWED[entry.name]:
            yield f"{part}.{entry.name}: {value!r} is not one of {ALLOWED[entry.name]}"
        if entry.name == "printed":
            for printed in value:
                yield from _unknown(f"{part}.printed", printed)


def _contradictions(rules: Classification) -> Iterator[str]:
    """Fields of a classification that cannot stand together."""
    for name, value, known in (
        ("findings", rules.findings, CLASSES),
        ("scored", rules.scored, CLASSES),
        ("mapping", rules.mapping, MAPPINGS),
    ):
        if value and value not in known:
            yield f"classification.{name}: {value!r} is not one of {tuple(known)}"
    rule = rule_named(rules.threshold)
    if rule.is_fixed != (rules.fitted_on == "nowhere"):
        yield f"classification.fitted_on: {rules.fitted_on!r} with threshold {rules.threshold!r}"
    if rule.strict != (rules.compare == ">"):
        yield f"classification.compare: {rules.compare!r} with threshold {rules.threshold!r}"
    if rules.score == "softmax_pair" and factor_of(rules.temperature) == 0.0:
        yield f"classification.temperature: {rules.temperature!r} is no factor above 0"


def factor_of(temperature: str) -> float | None:
    """Read a temperature field.

    Args:
        temperature: "none", "learned", or "fixed:<factor>".

    Returns:
        The factor on the cosines; None = the model's own; 0 = the text is none of these.
    """
    if temperature == "learned":
        return None
    told = "1" if temperature == "none" else temperature.removeprefix("fixed:")
    try:
        return max(float(told), 0.0)
    except ValueError:
        return 0.0


def _said(value: object) -> str:
    """A field's value as text; "" = nothing to say."""
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        if len(value) == 2 and isinstance(value[1], int) and isinstance(value[0], str):
            return f"{value[1]:,} {value[0]}"
        return ", ".join(_said(item) for item in value)
    if isinstance(value, Printed):
        return value.key if value.key == value.definition else f"{value.key} = {value.definition}"
    return str(value)
