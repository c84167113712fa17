"""Words of a sentence and the runs of one to three words that a bag-of-n-grams tower counts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from t3d.errors import CheckpointError, RecipeError

MAX_ORDER = 3
NUMBER = "#"

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['-][^\W\d_]+)*")
_CACHED = 1 << 16  # sentences; a cohort of 3,550 phantoms has about 40,000 different ones


def words(sentence: str) -> tuple[str, ...]:
    """Give the lower-case words of a sentence, every number as "#".

    Example:
        >>> words("Ground-glass nodule of 1.5 x 2 cm.")
        ('ground-glass', 'nodule', 'of', '#', 'x', '#', 'cm')
    """
    found = _WORD.findall(sentence.lower())
    return tuple(NUMBER if word[0].isdecimal() else word for word in found)


@lru_cache(maxsize=_CACHED)
def ngrams(sentence: str) -> tuple[str, ...]:
    """Give the different runs of 1 to 3 words of one sentence, sorted.

    Args:
        sentence: One sentence; runs never cross its ends.

    Returns:
        Words joined by blanks, each run once.

    Source:
        docs/concepts/recipes.md. Check: "No effusion." -> ("effusion", "no", "no effusion").
    """
    row = words(sentence)
    runs = {
        " ".join(row[i : i + order])
        for order in range(1, MAX_ORDER + 1)
        for i in range(len(row) - order + 1)
    }
    return tuple(sorted(runs))


def report_frequency(reports: Iterable[Sequence[str]]) -> Counter[str]:
    """Count in how many reports each n-gram occurs.

    Args:
        reports: Each report as its sentences.

    Returns:
        n-gram -> number of reports.
    """
    counts: Counter[str] = Counter()
    for sentences in reports:
        counts.update({run for sentence in sentences for run in ngrams(sentence)})
    return counts


@dataclass(frozen=True, slots=True)
class NGramVocabulary:
    """The n-grams that enough reports share, in alphabetical order; an id is a position."""

    terms: tuple[str, ...]
    min_reports: int = 1
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    _ids: dict[str, tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {term: i for i, term in enumerate(self.terms)}
        if len(index) != len(self.terms):
            raise CheckpointError(
                f"n-gram vocabulary of {len(self.terms)} terms holds only {len(index)} different",
                expected="each n-gram once",
                fix="write the file with NGramVocabulary.to_json",
            )
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_ids", {})

    @classmethod
    def fit(cls, reports: Iterable[Sequence[str]], min_reports: int = 8) -> NGramVocabulary:
        """Collect the n-grams of a training corpus.

        Args:
            reports: Each report as its sentences.
            min_reports: Keep an n-gram found in at least so many reports.

        Returns:
            A vocabulary; the same corpus in any order gives the same one.

        Raises:
            RecipeError: `min_reports` is below 1.

        Source:
            docs/concepts/recipes.md: 8 of 3,000 reports.
        """
        if min_reports < 1:
            raise RecipeError(
                f"min_reports {min_reports}", expected="1 or more", fix="use min_reports=8"
            )
        counts = report_frequency(reports)
        kept = (run for run, number in counts.items() if number >= min_reports)
        return cls(tuple(sorted(kept)), min_reports)

    def __len__(self) -> int:
        return len(self.terms)

    def ids(self, sentence: str) -> tuple[int, ...]:
        """Give the ids of the n-grams of one sentence, ascending, each once.

        Args:
            sentence: One sentence; n-grams outside the vocabulary are left out.

        Returns:
            Positions in `terms`; nothing if no n-gram is known.
        """
        known = self._ids.get(sentence)
        if known is None:
            found = (self._index.get(run) for run in ngrams(sentence))
            known = tuple(sorted(i for i in found if i is not None))
            if len(self._ids) >= _CACHED:
                self._ids.clear()
            self._ids[sentence] = known
        return known

    def to_json(self) -> str:
        """Give the vocabulary as JSON; `from_json` reads it back."""
        return json.dumps({"min_reports": self.min_reports, "terms": self.terms})

    @classmethod
    def from_json(cls, text: str) -> NGramVocabulary:
        """Read what `to_json` wrote.

        Raises:
            CheckpointError: The text is no such JSON.
        """
        try:
            raw = json.loads(text)
            terms, min_reports = raw["terms"], raw["min_reports"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"n-gram vocabulary cannot be read: {type(error).__name__}",
                expected="JSON with the keys 'min_reports' and 'terms'",
                fix="write the file with NGramVocabulary.to_json",
            ) from error
        return cls(tuple(str(term) for term in terms), int(min_reports))
