"""Findings that cohorts and protocols speak of: their names, and the terms that name them."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from t3d.errors import SourceError

CT_RATE_18: tuple[str, ...] = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)
"""The 18 abnormalities of CT-RATE (arXiv:2403.17834), in the order of its label files."""

_OF_FINDING = ("name", "question")  # keys of a finding that are no language
_KEYS = ("terms", "normal", "exclusions")
_GAP = r"[ ,/-]+(?:[\w'#.]+[ ,/-]+){0,5}?"  # at most five words


@dataclass(frozen=True, slots=True)
class FindingTerms:
    """Patterns of one finding in one language, on text as `scope.normalise` gives it."""

    named: re.Pattern[str]  # the finding is spoken of
    normal: re.Pattern[str] | None = None  # its absence is said without naming it
    elsewhere: re.Pattern[str] | None = None  # a clause that is about another organ
    bare: tuple[re.Pattern[str], re.Pattern[str]] | None = None  # names it unless the second does
    stems: tuple[str, ...] = ("",)  # a clause without any of them says nothing: saves most time


@dataclass(frozen=True, slots=True, eq=False)
class FindingSet:
    """Findings to look for; two sets are the same only if they are the same object."""

    name: str  # "ct_rate18", or the name in its file
    names: tuple[str, ...]
    terms: Mapping[str, Mapping[str, FindingTerms]]  # language -> finding -> terms
    questions: Mapping[str, str] = field(default_factory=dict)  # finding -> what to ask a model

    @property
    def digest(self) -> str:
        """sha256 over names, patterns and questions."""
        told = [
            (language, name, *(getattr(terms, part.name) for part in fields(terms)))
            for language, of_language in sorted(self.terms.items())
            for name, terms in of_language.items()
        ]
        content = repr((self.name, self.names, told, sorted(self.questions.items())))
        return hashlib.sha256(content.encode()).hexdigest()

    def terms_of(self, language: str) -> Mapping[str, FindingTerms]:
        """Give the terms of one language.

        Raises:
            SourceError: There are none.
        """
        if language in self.terms:
            return self.terms[language]
        raise SourceError(
            f"findings {self.name!r} have no terms in {language!r}",
            expected=f"one of {', '.join(self.terms)}",
            fix=f"add a table [finding.{language}] to the file of findings",
        )


def read_findings(path: str | Path) -> FindingSet:
    """Read findings of one's own from a TOML file.

    The file has a `name` and tables `[[finding]]`, each with a `name` and one table a language:
    `terms` name the finding, `normal` (optional) deny it without naming it, and a clause with
    one of the `exclusions` (optional) is not about it. A term is words in any case: `*` stands
    for letters, ` ... ` for up to five words. No regular expressions. A `question` (optional)
    is what a language model is asked; with one, a finding may do without terms.

    Args:
        path: The file.

    Returns:
        Its findings in order.

    Raises:
        SourceError: The file cannot be read or is not of this form; all problems at once.

    Example of a file:
        name = "thorax_ct"
        [[finding]]
        name = "Pneumothorax"
        [finding.en]
        terms = ["pneumothora*", "collapsed ... lung"]
        exclusions = ["history of"]
        [finding.de]
        terms = ["pneumothora*", "*spannungspneu*"]
    """
    path = Path(path)
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(
            f"findings file {path.name} cannot be read: {reason}",
            expected="a TOML file in UTF-8",
            fix="see docs/howto/label.md for an example",
        ) from error
    rows = told.get("finding")
    problems = _problems(told, rows)
    if problems or not isinstance(rows, list):
        raise SourceError(
            f"findings file {path.name}: {len(problems)} problem(s)\n  " + "\n  ".join(problems),
            expected='name = "..." and tables [[finding]] with name and [finding.<language>]',
            fix="see docs/howto/label.md for an example",
        )
    terms: dict[str, dict[str, FindingTerms]] = {}
    for row in rows:
        for language, words in row.items():
            if language not in _OF_FINDING:
                terms.setdefault(language, {})[row["name"]] = _terms(words, language)
    return FindingSet(
        name=told["name"],
        names=tuple(row["name"] for row in rows),
        terms=MappingProxyType(terms),
        questions={row["name"]: row["question"] for row in rows if "question" in row},
    )


def _problems(told: Mapping[str, Any], rows: object) -> list[str]:
    """List what is wrong with a file of findings."""
    found = [f"unknown key {key!r}" for key in told if key not in ("name", "finding")]
    if not _is_name(told.get("name")):
        found.append("name: a line of letters, digits, - or _ is needed")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return [*found, "finding: at least one table [[finding]] is needed"]
    names = [row.get("name") for row in rows]
    for number, row in enumerate(rows, start=1):
        where = f"finding {number}"
        if not isinstance(names[number - 1], str) or not str(names[number - 1]).strip():
            found.append(f"{where}: has no name")
        elif names.index(names[number - 1]) != number - 1:
            found.append(f"{where}: its name is there twice")
        languages = [key for key in row if key not in _OF_FINDING]
        if "question" in row and not _is_term(row["question"]):
            found.append(f"{where}: question: a sentence is needed")
        if not languages and "question" not in row:
            found.append(f"{where}: has terms in no language, and no question")
        for language in languages:
            found += [f"{where}, {language}: {told}" for told in _word_problems(row[language])]
    return found


def _word_problems(words: object) -> list[str]:
    """List what is wrong with the terms of a finding in one language."""
    if not isinstance(words, dict):
        return ["a table with terms is needed"]
    found = [f"unknown key {key!r}" for key in words if key not in _KEYS]
    for key in _KEYS:
        told = words.get(key, [])
        if not isinstance(told, list) or not all(_is_term(term) for term in told):
            found.append(f"{key}: a list of words is needed, each with a letter in it")
    return found if words.get("terms") else [*found, "terms: at least one is needed"]


def _is_name(value: object) -> bool:
    """Tell whether a value can name a set of findings."""
    return isinstance(value, str) and re.fullmatch(r"[\w-]+", value) is not None


def _is_term(value: object) -> bool:
    """Tell whether a value can be a term."""
    return isinstance(value, str) and any(letter.isalpha() for letter in value)


def _terms(words: Mapping[str, list[str]], language: str) -> FindingTerms:
    """Compile the terms of one finding."""
    normal, exclusions = words.get("normal", []), words.get("exclusions", [])
    return FindingTerms(
        named=_compiled(words["terms"], language),
        normal=_compiled(normal, language) if normal else None,
        elsewhere=_compiled(exclusions, language) if exclusions else None,
    )


def _compiled(terms: list[str], language: str) -> re.Pattern[str]:
    """Turn plain terms into one pattern."""
    from t3d.text.scope import normalise

    patterns = []
    for term in terms:
        plain = normalise(term, spelled=language == "de").strip()
        parts = [
            r"[ -]+".join(re.escape(word).replace(r"\*", r"\w*") for word in part.split())
            for part in plain.split(" ... ")
        ]
        patterns.append(_GAP.join(parts))
    return re.compile(r"(?<!\w)(?:" + "|".join(patterns) + r")(?!\w)")
