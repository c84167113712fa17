"""What is odd about a prompt set before a model is asked, a remark a sentence and reason.

Wording alone moves a score by more than most methods do. A lint does not say that a prompt is
good; it says where one is unlike what the model has read, or says something else than its author
meant. Sentences are named by finding, side and number and never quoted: those of a bank come from
reports. Words that no training report has are quoted: they can only be the author's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t3d.judge.prompts import LabelSentence, PromptSet
from t3d.text.labeler import LANGUAGES, label_sentence
from t3d.text.language import detect_language
from t3d.text.ngrams import NGramVocabulary, ngrams, words

LEVELS = ("error", "warning", "note")
LENGTH_SHARE = 0.01  # of training sentences on either side that count as unusually short or long
FAR, APART = 0.3, 0.5  # cosine of n-grams with the nearest training sentence: warning, note
ALIKE = 0.98  # cosine of the model's embeddings above which it hardly tells two sides apart
LANGUAGE_FROM = 100  # training sentences that the reports' language is told from
EMBEDDED = 2000  # training sentences that embeddings are compared with
SHOWN = 5  # words listed in a remark

Embed = Callable[[list[str]], NDArray[np.floating]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing to look at."""

    level: str  # "error": the prompt cannot work as meant; "warning": likely; "note": to know
    rule: str  # short name of what was looked at
    finding: str  # "" = the whole set
    side: str  # "positive", "negative" or "" = both
    number: int  # of the sentence on its side, from 1; 0 = all
    message: str

    @property
    def where(self) -> str:
        """What it is about, in words."""
        parts = (self.finding, self.side, str(self.number) if self.number else "")
        return " ".join(part for part in parts if part) or "the set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint:
    """All remarks on a prompt set, errors first, then in its order."""

    prompts: str  # name of the set
    num_sentences: int
    num_training: int  # distinct training sentences it was compared with
    remarks: tuple[Remark, ...]
    nearest: Mapping[tuple[str, str, int], tuple[float, float]]  # sentence -> cosine of n-grams,
    # of embeddings (NaN without a model) with the nearest training sentence

    def count(self, level: str) -> int:
        """Remarks of a level."""
        return sum(remark.level == level for remark in self.remarks)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(level, rule, where, message) of every remark, for a table on a terminal or page."""
        return [(r.level, r.rule, r.where, r.message) for r in self.remarks]

    def text(self) -> str:
        """Give all remarks as lines."""
        told = ", ".join(f"{self.count(level)} {level}s" for level in LEVELS)
        head = f"prompts {self.prompts}: {self.num_sentences} sentences, {told}"
        lines = [f"  {level:7}  {where}: {message}" for level, _, where, message in self.rows()]
        return "\n".join([head, *lines])


def describe(prompts: PromptSet) -> dict[str, Any]:
    """Say what a prompt set holds, without any model or training text.

    Args:
        prompts: The set, such as `read_prompts` gives.

    Returns:
        Name, source, language, digest, findings with the number of sentences on each side, and
        the remarks that need no training text.
    """
    found = lint(prompts)
    return {
        "name": prompts.name,
        "source": prompts.source,
        "language": prompts.language,
        "digest": prompts.digest(),
        "findings": {
            name: {
                "positive": len(prompts.positive[name]),
                "negative": len(prompts.negative[name]),
            }
            for name in prompts.findings
        },
        "remarks": [f"{level}: {where}: {message}" for level, _, where, message in found.rows()],
    }


def lint(
    prompts: PromptSet,
    training: Iterable[str] = (),
    *,
    labeler: LabelSentence | None = None,
    vocabulary: NGramVocabulary | None = None,
    embed: Embed | None = None,
) -> Lint:
    """Look at every sentence of a prompt set.

    Rules: "empty"; "length" (shorter or longer than 99 % of the training sentences, or than all);
    "wording" (words, or runs of two or three words, that no training sentence has);
    "vocabulary" (the text tower knows no word of it); "distance" (nearest training sentence, by
    cosine of sets of n-grams, and of embeddings where a model is given); "sides" (the same words
    state and deny the finding, or the embeddings hardly differ); "twice" (repeated on its side);
    "shared" (another finding has it on the same side); "names" (it names another finding);
    "labeler" (our rule reads it otherwise than meant); "language".

    Args:
        prompts: What would be asked.
        training: Sentences of the training reports, from `prompts.training_sentences`; none =
            nothing is compared with them.
        labeler: Rule on the text; None = ours in the set's language, none where it has no rules.
        vocabulary: Of a bag-of-n-grams tower.
        embed: Sentences to rows (N, D) of any length.

    Returns:
        The remarks.

    Cost:
        About 2 s for 40,000 distinct training sentences, without a model.
    """
    rule = labeler or _own_labeler(prompts.language)
    known = _Known.of(training)
    sentences = list(_sentences(prompts))
    by_model = _nearest_embedded(sentences, known, embed)
    near = {s.key: (known.cosine(s.text), by_model.get(s.key, np.nan)) for s in sentences}
    remarks: list[Remark] = [*_language(prompts, sentences, known)]
    shared = _holders(sentences)
    for sentence in sentences:
        remarks += _wording(sentence, known, vocabulary)
        remarks += _distance(sentence, near[sentence.key])
        remarks += _meaning(sentence, prompts, shared, rule)
    for finding in prompts.findings:
        remarks += _sides(prompts, finding, embed)
    return Lint(
        prompts=prompts.name,
        num_sentences=len(sentences),
        num_training=len(known.sizes),
        remarks=tuple(sorted(remarks, key=lambda remark: LEVELS.index(remark.level))),
        nearest=near,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sentence:
    """One sentence with its place."""

    finding: str
    side: str
    number: int  # from 1
    text: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Its place."""
        return self.finding, self.side, self.number

    def remark(self, level: str, rule: str, message: str) -> Remark:
        """A remark on it."""
        place = {"finding": self.finding, "side": self.side}
        return Remark(level=level, rule=rule, number=self.number, message=message, **place)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Known:
    """Distinct training sentences by n-gram."""

    texts: tuple[str, ...]
    lengths: NDArray[np.int64]  # words of each, sorted
    sizes: NDArray[np.int64]  # n-grams of each
    holders: Mapping[str, NDArray[np.int64]]  # n-gram -> sentences that have it

    @classmethod
    def of(cls, training: Iterable[str]) -> _Known:
        """Index the sentences; those that differ in case, numbers or punctuation count once."""
        distinct: dict[tuple[str, ...], str] = {}
        for text in training:
            if row := words(text):
                distinct[row] = min(distinct.get(row, text), text)
        texts = tuple(distinct[row] for row in sorted(distinct))
        holders: dict[str, list[int]] = {}
        for i, text in enumerate(texts):
            for run in ngrams(text):
                holders.setdefault(run, []).append(i)
        return cls(
            texts=texts,
            lengths=np.sort(np.array([len(row) for row in distinct], dtype=np.int64)),
            sizes=np.array([len(ngrams(text)) for text in texts], dtype=np.int64),
            holders={run: np.array(rows, dtype=np.int64) for run, rows in holders.items()},
        )

    def cosine(self, text: str) -> float:
        """Cosine of the set of n-grams with that of the nearest sentence.

        Formula: largest |A and B| / sqrt(|A| |B|). Check: "No effusion." against "Effusion.":
        1 / sqrt(3 x 1) = .577350.
        """
        own = ngrams(text)
        if not self.texts or not own:
            return float("nan")
        held = [self.holders[run] for run in own if run in self.holders]
        if not held:
            return 0.0
        common = np.bincount(np.concatenate(held), minlength=len(self.sizes))
        return float(np.max(common / np.sqrt(len(own) * self.sizes)))


def _sentences(prompts: PromptSet) -> Iterator[_Sentence]:
    """Every sentence with its place."""
    for finding in prompts.findings:
        for side in ("positive", "negative"):
            for number, text in enumerate(getattr(prompts, side)[finding], 1):
                yield _Sentence(finding=finding, side=side, number=number, text=text)


def _own_labeler(language: str) -> LabelSentence | None:
    """Our rule in a language; None where there is none."""
    return (lambda text: label_sentence(text, language)) if language in LANGUAGES else None


def _language(
    prompts: PromptSet, sentences: Sequence[_Sentence], known: _Known
) -> Iterator[Remark]:
    """The set's language against what it says, and against the reports'."""

    def remark(level: str, message: str) -> Remark:
        """A remark on the whole set."""
        return Remark(level=level, rule="language", finding="", side="", number=0, message=message)

    reads = detect_language(" ".join(s.text for s in sentences))
    spread = known.texts[:: max(1, len(known.texts) // LANGUAGE_FROM)]
    reports = detect_language(" ".join(spread))
    told = prompts.language
    if reads and reads != told:
        yield remark("warning", f"says language {told!r}, its sentences read as {reads!r}")
    if reports and (reads or told) != reports:
        message = f"language {reads or told!r}, the training reports read as {reports!r}"
        yield remark("error", message)


def _wording(
    sentence: _Sentence, known: _Known, vocabulary: NGramVocabulary | None
) -> Iterator[Remark]:
    """Length, words and runs of words against the training text; what the text tower knows."""
    row = words(sentence.text)
    if not row:
        yield sentence.remark("error", "empty", "holds no word")
        return
    if vocabulary is not None and not vocabulary.ids(sentence.text):
        yield sentence.remark("error", "vocabulary", "the text tower knows no word of it")
    if not known.texts:
        return
    low, high = np.quantile(known.lengths, [LENGTH_SHARE, 1 - LENGTH_SHARE])
    if not low <= len(row) <= high:
        beyond = not known.lengths[0] <= len(row) <= known.lengths[-1]
        message = f"{len(row)} words; most training sentences have {low:.0f} to {high:.0f}"
        yield sentence.remark("warning" if beyond else "note", "length", message)
    unknown = list(dict.fromkeys(word for word in row if word not in known.holders))
    if unknown:
        listed = ", ".join(unknown[:SHOWN]) + (", ..." if len(unknown) > SHOWN else "")
        level = "error" if len(unknown) == len(set(row)) else "warning"
        message = f"words that no training report has: {listed}"
        yield sentence.remark(level, "wording", message)
    else:
        runs = [run for run in ngrams(sentence.text) if " " in run]
        held_out = sum(run not in known.holders for run in runs)
        if held_out:
            message = f"{held_out} of {len(runs)} runs of 2 or 3 words are in no training report"
            level = "warning" if held_out == len(runs) else "note"
            yield sentence.remark(level, "wording", message)


def _distance(sentence: _Sentence, near: tuple[float, float]) -> Iterator[Remark]:
    """How near the nearest training sentence is."""
    cosine, by_model = near
    if cosine < APART:
        told = "" if np.isnan(by_model) else f", {by_model:.2f} by the model's embedding"
        message = f"nearest training sentence: cosine {cosine:.2f} by n-grams{told}"
        level = "warning" if cosine < FAR else "note"
        yield sentence.remark(level, "distance", message)


def _meaning(
    sentence: _Sentence,
    prompts: PromptSet,
    shared: Mapping[tuple[str, tuple[str, ...]], Sequence[_Sentence]],
    rule: LabelSentence | None,
) -> Iterator[Remark]:
    """Repeated, shared with another finding, naming one, or read otherwise than meant."""
    same = shared[sentence.side, words(sentence.text)]
    if any(s.finding == sentence.finding and s.number < sentence.number for s in same):
        yield sentence.remark("note", "twice", "stands on its side before, and counts twice")
    others = sorted({s.finding for s in same} - {sentence.finding})
    if others:
        yield sentence.remark("warning", "shared", f"the same words ask for {', '.join(others)}")
    read = dict(rule(sentence.text)) if rule is not None else {}
    named = {name for name in prompts.findings if _names(name, sentence.text)} | set(read)
    named -= {sentence.finding, *others}
    if named and not _names(sentence.finding, sentence.text):
        yield sentence.remark("warning", "names", f"names {', '.join(sorted(named))} instead")
    elif named:
        yield sentence.remark("warning", "names", f"names {', '.join(sorted(named))} too")
    meant = 1 if sentence.side == "positive" else 0
    if read.get(sentence.finding, meant) != meant:
        message = f"our rules read it as {'absent' if meant else 'present'}"
        yield sentence.remark("error", "labeler", message)
    elif rule is not None and sentence.finding not in read:
        yield sentence.remark("note", "labeler", "our rules read nothing of this finding in it")


def _names(finding: str, text: str) -> bool:
    """Whether a class name stands in a sentence, word for word."""
    return re.search(rf"\b{re.escape(finding.lower())}\b", text.lower()) is not None


def _holders(
    sentences: Sequence[_Sentence],
) -> Mapping[tuple[str, tuple[str, ...]], list[_Sentence]]:
    """Sentences by side and words."""
    found: dict[tuple[str, tuple[str, ...]], list[_Sentence]] = {}
    for sentence in sentences:
        found.setdefault((sentence.side, words(sentence.text)), []).append(sentence)
    return found


def _sides(prompts: PromptSet, finding: str, embed: Embed | None) -> Iterator[Remark]:
    """Positive and negative sentences that are the same, or nearly so."""
    sides = [prompts.positive[finding], prompts.negative[finding]]

    def remark(level: str, message: str) -> Remark:
        """A remark on both sides."""
        return Remark(
            level=level, rule="sides", finding=finding, side="", number=0, message=message
        )

    rows = [[words(text) for text in side] for side in sides]
    if set(rows[0]) & set(rows[1]):
        yield remark("error", "the same words state and deny it")
    elif {_bag(row) for row in rows[0]} & {_bag(row) for row in rows[1]}:
        yield remark("warning", "the same words in another order state and deny it")
    if embed is not None:
        means = [_unit(_unit(embed(list(side))).mean(axis=0, keepdims=True)) for side in sides]
        alike = float((means[0] @ means[1].T)[0, 0])
        if alike > ALIKE:
            message = f"the model hardly tells its sides apart: cosine {alike:.3f}"
            yield remark("warning", message)


def _bag(row: Sequence[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(row).items()))


def _nearest_embedded(
    sentences: Sequence[_Sentence], known: _Known, embed: Embed | None
) -> dict[tuple[str, str, int], float]:
    """Cosine of each sentence's embedding with that of the nearest training sentence."""
    if embed is None or not known.texts:
        return {}
    # evenly through the alphabet: a fixed choice that no order of reports changes
    step = max(1, -(-len(known.texts) // EMBEDDED))
    training = _unit(embed(list(known.texts[::step])))
    asked = _unit(embed([sentence.text for sentence in sentences]))
    best = (asked @ training.T).max(axis=1)
    return {s.key: float(value) for s, value in zip(sentences, best, strict=True)}


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of unit length; a row without a length stays 0."""
    values = np.asarray(rows, dtype=np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float64] = values / np.where(length > 0, length, 1.0)
    return unit
