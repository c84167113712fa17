"""Splits go by patient: a seeded draw, and what happens to a patient who is in two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256

from t3d.cohort.listing import SetAside
from t3d.errors import SourceError
from t3d.types import Study

SPLITS = ("", "train", "dev", "test")
"""The words for a study's split, "" = not told; a patient of a later one is in none before it."""


def split_of(patient_id: str, *, dev: float, test: float = 0.0, seed: int = 0) -> str:
    """Draw a patient's split: a function of seed and id, whoever else is there.

    Args:
        patient_id: Unit of the draw.
        dev: Share of patients in dev.
        test: Share of patients in test.
        seed: Another seed, another split.

    Returns:
        "train", "dev" or "test".

    Check: seed 0, "train_1" draws 0.6259: train with dev=0.05.
    """
    drawn = int.from_bytes(sha256(f"{seed}:{patient_id}".encode()).digest()[:8], "big") / 2**64
    return "dev" if drawn < dev else "test" if drawn < dev + test else "train"


def check_shares(source: str, *, dev: float, test: float = 0.0) -> None:
    """Refuse shares that are none, or that leave nobody in train.

    Args:
        source: Name of the source, for the message.
        dev: Share of patients in dev.
        test: Share of patients in test.

    Raises:
        SourceError: One is negative or no number, or both make 1 or more.
    """
    if not (dev >= 0 and test >= 0 and dev + test < 1):
        raise SourceError(
            f"{source}: dev_share={dev:g}" + (f", test_share={test:g}" if test else ""),
            expected="shares of 0 or more that leave some patients in train",
            fix="choose smaller ones; 0.05 is one patient in 20",
        )


def without_leaks(studies: Iterable[Study]) -> tuple[list[Study], list[SetAside]]:
    """Keep each patient in the strictest split that names them: test over dev over train.

    So a test set stays whole and no one in it is trained on.

    Returns:
        The studies that stay, in their order, and one `split_leak` for each that does not.
    """
    studies = list(studies)
    splits: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        splits[study.patient_id].add(study.split)
    strictest = {patient: max(many, key=SPLITS.index) for patient, many in splits.items()}
    kept, problems = [], []
    for study in studies:
        owner = strictest[study.patient_id]
        if study.split == owner:
            kept.append(study)
        else:
            message = f"listed in {study.split or 'no split'}, and its patient is also in {owner}"
            told = SetAside(key=study.study_id, reason="split_leak", message=message)
            problems.append(told)
    return kept, problems
