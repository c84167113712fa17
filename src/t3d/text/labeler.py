"""Read the 18 findings of CT-RATE from English sentences by terms and the scope of negation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from t3d.text.findings import CT_RATE_18
from t3d.text.labeler_terms import TERMS, FindingTerms
from t3d.text.scope import ABSENT, PRESENT, Clause, clauses

_CACHED = 1 << 15  # sentences


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a report says of one finding, and which sentence says so."""

    value: int | None  # 1 present, 0 denied, None = not stated
    evidence: int | None  # index of the first sentence that says so


@lru_cache(maxsize=_CACHED)
def label_sentence(sentence: str) -> Mapping[str, int]:
    """Read which findings a sentence asserts or denies.

    A finding that is only considered ("cannot be excluded", "possible", "no new ...") is not
    stated. "Probable" and "consistent with" assert. Where one sentence asserts and denies a
    finding ("no right but a small left effusion"), it is asserted.

    Args:
        sentence: One English sentence.

    Returns:
        CT-RATE name -> 1 or 0, in the order of `CT_RATE_18`; silent findings are left out.

    Source:
        Our choice of terms and rules; not validated on reports of CT-RATE.

    Example:
        >>> dict(label_sentence("No effusion, but the heart is enlarged."))
        {'Cardiomegaly': 1, 'Pleural effusion': 0}
    """
    parts = clauses(sentence)
    values = {name: _value(TERMS[name], parts) for name in CT_RATE_18}
    return MappingProxyType({name: v for name, v in values.items() if v is not None})


def label_report(sentences: Sequence[str]) -> Mapping[str, Labelled]:
    """Read all 18 findings from the sentences of a report.

    A finding asserted by any sentence is present; else one denied by any sentence is absent;
    else it is not stated, which is not the same as absent.

    Args:
        sentences: Sentences of a section or of the whole report, in order.

    Returns:
        Every name of `CT_RATE_18` with its value and the index of the first such sentence.
    """
    stated: dict[str, Labelled] = {}
    for index, sentence in enumerate(sentences):
        for name, value in label_sentence(sentence).items():
            known = stated.get(name)
            if known is None or (known.value == ABSENT and value == PRESENT):
                stated[name] = Labelled(value, index)
    silent = Labelled(None, None)
    return {name: stated.get(name, silent) for name in CT_RATE_18}


def _value(terms: FindingTerms, parts: Sequence[Clause]) -> int | None:
    """Join what the clauses of a sentence say of one finding: 1 over 0 over nothing."""
    values = {value for clause in parts for value in _values(terms, clause)} - {None}
    return max((v for v in values if v is not None), default=None)


def _values(terms: FindingTerms, clause: Clause) -> list[int | None]:
    """List what one clause says of one finding, mention by mention."""
    values = [clause.status(*match.span()) for match in terms.named.finditer(clause.text)]
    if terms.normal is not None and terms.normal.search(clause.text):
        values.append(ABSENT)
    if values and terms.elsewhere is not None and terms.elsewhere.search(clause.text):
        return []
    return values
