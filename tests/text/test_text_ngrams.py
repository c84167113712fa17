"""n-grams of a sentence: values by hand, a slow twin, and the vocabulary made of them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.errors import CheckpointError, RecipeError
from t3d.text.ngrams import NGramVocabulary, ngrams, report_frequency, words


def slow_ngrams(sentence: str) -> set[str]:
    """From the definition, letter by letter."""
    row: list[str] = []
    word = ""
    for letter in sentence.lower() + " ":
        if letter in "abcdefghijklmnopqrstuvwxyz":
            word += letter
        elif word:
            row.append(word)
            word = ""
    found = set()
    for i in range(len(row)):
        for j in range(i + 1, len(row) + 1):
            if j - i <= 3:
                found.add(" ".join(row[i:j]))
    return found


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("", ()),
        ("No effusion.", ("no", "effusion")),
        ("A 1.5 x 2 cm nodule", ("a", "#", "x", "#", "cm", "nodule")),
        ("1,5 cm; 12 mm", ("#", "cm", "#", "mm")),
        ("Ground-glass opacity", ("ground-glass", "opacity")),
        ("Patient's 12mm node", ("patient's", "#", "mm", "node")),
        ("\u00dcberbl\u00e4hung", ("\u00fcberbl\u00e4hung",)),
    ],
)
def test_words_are_lower_case_and_numbers_are_one_symbol(
    sentence: str, expected: tuple[str, ...]
) -> None:
    assert words(sentence) == expected


def test_a_sentence_of_four_words_has_nine_ngrams() -> None:
    expected = {"the", "heart", "is", "enlarged", "the heart", "heart is", "is enlarged"}
    expected |= {"the heart is", "heart is enlarged"}
    assert ngrams("The heart is enlarged.") == tuple(sorted(expected))


@given(st.text(alphabet="abC .,;", max_size=40))
def test_ngrams_equal_their_slow_twin(sentence: str) -> None:
    assert set(ngrams(sentence)) == slow_ngrams(sentence)
    assert list(ngrams(sentence)) == sorted(slow_ngrams(sentence))


def test_ngrams_do_not_cross_sentences_and_count_once_per_report() -> None:
    counts = report_frequency([["No effusion.", "No effusion."], ["Effusion", "No"]])
    assert counts["no"] == 2
    assert counts["no effusion"] == 1


def test_a_vocabulary_keeps_what_enough_reports_share() -> None:
    reports = [["a b"], ["a c"], ["a b"]]
    vocabulary = NGramVocabulary.fit(reports, min_reports=2)
    assert vocabulary.terms == ("a", "a b", "b")
    assert len(vocabulary) == 3
    assert vocabulary.ids("B a b") == (0, 1, 2)
    assert vocabulary.ids("b, d") == (2,)
    assert vocabulary.ids("nothing") == ()


def test_the_order_of_reports_does_not_matter() -> None:
    reports = [["no effusion", "a nodule"], ["no nodule"], ["an effusion"]]
    assert NGramVocabulary.fit(reports, 1) == NGramVocabulary.fit(reports[::-1], 1)


def test_asking_twice_gives_the_same_ids() -> None:
    vocabulary = NGramVocabulary.fit([["no effusion"]], 1)
    assert vocabulary.ids("no effusion") == vocabulary.ids("no effusion") == (0, 1, 2)


def test_a_vocabulary_survives_the_way_through_json() -> None:
    vocabulary = NGramVocabulary.fit([["No 3 mm nodule"], ["\u00dcberbl\u00e4hung"]], 1)
    again = NGramVocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert again.ids("a nodule") == vocabulary.ids("a nodule") != ()


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"terms": 3})])
def test_json_that_is_no_vocabulary_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        NGramVocabulary.from_json(text)


def test_a_vocabulary_that_names_a_term_twice_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds only 1 different"):
        NGramVocabulary(("a", "a"))


def test_a_minimum_below_one_is_refused() -> None:
    with pytest.raises(RecipeError, match="min_reports 0"):
        NGramVocabulary.fit([["a"]], min_reports=0)


def test_a_corpus_of_the_demo_size_is_counted_in_seconds() -> None:
    """3,550 reports of 14 sentences, every one different, so that no cache helps."""
    rng = np.random.default_rng(0)
    lexicon = np.array([f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)])
    drawn = lexicon[rng.integers(0, 600, size=(3550, 14, 9))]
    reports = [[" ".join(sentence) for sentence in report] for report in drawn]
    start = time.process_time()
    vocabulary = NGramVocabulary.fit(reports)
    for report in reports:
        for sentence in report:
            vocabulary.ids(sentence)
    assert time.process_time() - start < 12.0  # the aim is 3 s on a quiet core
    assert len(vocabulary) >= 600
