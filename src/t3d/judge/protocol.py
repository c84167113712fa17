"""What fixes a number: a frozen set of rules with a name, a source and a digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from t3d.errors import ProtocolError

UNITS = ("patients",)
THRESHOLD_RULES = ("youden_from_dev", "f1_from_dev")
CREDITS = ("study",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Rules of a measurement. Changing one needs a new name: the digest is pinned by a test."""

    name: str
    source: str  # where the rules come from
    unit: str  # what intervals resample and permutations exchange
    prompt_rule: str  # how prompts become a score
    threshold_rule: str  # one of THRESHOLD_RULES
    credit: str  # "study": identical reports and siblings count; the strict number stands beside
    tie_rule: str  # how equal scores are counted
    floor: str  # what a blind model gets, in words; the number stands in every Metric
    ceiling: str  # what a perfect model gets
    ks: tuple[int, ...] = (5, 10)  # lengths of the list in retrieval
    num_draws: int = 1000  # bootstrap
    num_permutations: int = 100  # chance
    score_decimals: int = 6  # cosines closer than float32 can tell apart are ties
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {value!r} is not one of {known}"
            for name, value, known in (
                ("unit", self.unit, UNITS),
                ("threshold_rule", self.threshold_rule, THRESHOLD_RULES),
                ("credit", self.credit, CREDITS),
            )
            if value not in known
        ]
        problems += [
            f"{name}: {value} is below 1"
            for name, value in (
                ("num_draws", self.num_draws),
                ("num_permutations", self.num_permutations),
                ("smallest of ks", min(self.ks, default=0)),
            )
            if value < 1
        ]
        if problems:
            raise ProtocolError(
                f"{len(problems)} problems in protocol {self.name!r}: " + "; ".join(problems),
                expected="rules that the judge knows",
                fix="correct the fields named above",
            )

    def digest(self) -> str:
        """Give the sha256 of all fields as hexadecimal text."""
        fields = json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(fields.encode()).hexdigest()

    def describe(self) -> str:
        """Say the rules in a few lines, floor and ceiling included."""
        return "\n".join(
            (
                f"protocol {self.name} ({self.digest()[:12]}): {self.source}",
                f"  score: {self.prompt_rule}",
                f"  thresholds: {self.threshold_rule}; ties: {self.tie_rule}",
                f"  intervals: {self.num_draws} draws of {self.unit}, seed {self.seed}",
                f"  floor: {self.floor}",
                f"  ceiling: {self.ceiling}",
            )
        )
