"""Sentences around a class name: the prompt set `template`. Our wording."""

from __future__ import annotations

POSITIVE: tuple[str, ...] = (
    "The examination shows {name}.",
    "{Name} is present in the chest.",
    "There is evidence of {name}.",
)
"""Three sentences that state a finding; `{Name}` starts with a capital letter."""

NEGATIVE: tuple[str, ...] = (
    "The examination shows no {name}.",
    "No {name} in the chest.",
    "There is no evidence of {name}.",
)
"""Three sentences that deny a finding."""
