"""One of N parts of a source, for job arrays: which patients it holds and where it is written.

    COHORT.shards/003-of-016/    what shard 3 of 16 of COHORT prepares: a cohort of its own

A patient's shard is a hash of the patient's id: it depends neither on the order of a listing nor on
who else is in it, so jobs need not talk to each other.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from t3d.errors import RecipeError

SHARD = "shard"  # key of `meta` in a shard: "3/16"
LISTED = "shard/"  # + preparation: digest of the listing that was worked through to its end
_FOLDERS = ".shards"


class Shard(NamedTuple):
    """Part `number` of so many, counted from 1: `Shard(3, 16)`."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, patient_id: str) -> bool:
        """Say whether all studies of a patient belong to this shard.

        Formula: 1 + (first 8 bytes of sha256 of the id, as a number) mod of = number.
        Check: of 16 shards "train_1" is in the 7th.
        """
        drawn = int.from_bytes(sha256(patient_id.encode()).digest()[:8], "big")
        return 1 + drawn % self.of == self.number

    def folder(self, cohort: str | Path) -> Path:
        """Say where this shard of a cohort is written."""
        width = max(3, len(str(self.of)))
        return shards_folder(cohort) / f"{self.number:0{width}d}-of-{self.of:0{width}d}"


def parse_shard(told: str) -> Shard:
    """Read "3/16".

    Raises:
        RecipeError: Not of that form, or the number is not 1 to the count.
    """
    number, _, count = told.partition("/")
    if number.isascii() and number.isdigit() and count.isascii() and count.isdigit():
        return checked(Shard(int(number), int(count)))
    raise RecipeError(f"shard {told!r}", expected="I/N, as 3/16", fix="--shard 3/16")


def checked(shard: tuple[int, int]) -> Shard:
    """Give a shard whose number is 1 to its count.

    Raises:
        RecipeError: It is not.
    """
    made = Shard(*shard)
    if 1 <= made.number <= made.of:
        return made
    raise RecipeError(
        f"shard {made}",
        expected="I/N with I from 1 to N",
        fix="let the array count from 1: sbatch --array=1-16",
    )


def shards_folder(cohort: str | Path) -> Path:
    """Say where the shards of a cohort lie: beside it."""
    path = Path(os.path.abspath(cohort))  # "." has no name to which anything could be added
    return path.with_name(path.name + _FOLDERS)


def shards_of(cohort: str | Path) -> tuple[Path, ...]:
    """List the folders of a cohort's shards, by number; () = there are none."""
    return tuple(sorted(shards_folder(cohort).glob("*-of-*")))
