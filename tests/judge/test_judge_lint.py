"""The lint: each rule says what is odd, where, and never quotes a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.judge.lint import Lint, Remark, describe, lint
from t3d.judge.prompts import PromptSet, templates
from t3d.text.ngrams import NGramVocabulary, ngrams

TRAINING = (
    "There is a small left pleural effusion.",
    "No pleural effusion is seen.",
    "Pleural effusion on the right.",
    "The heart is enlarged.",
    "There is no pericardial effusion and the heart is of normal size.",
    "Emphysema in both upper lobes.",
)
EFFUSION = "Pleural effusion"


def made(
    positive: Sequence[str], negative: Sequence[str], language: str = "en", **more: Sequence[str]
) -> PromptSet:
    """A set of one finding, or of two: `other` = its positive and negative sentence."""
    sides = {EFFUSION: tuple(positive)}, {EFFUSION: tuple(negative)}
    if "other" in more:
        for side, text in zip(sides, more["other"], strict=True):
            side["Cardiomegaly"] = (text,)
    return PromptSet(
        name="mine", source="test", positive=sides[0], negative=sides[1], language=language
    )


def of_rule(found: Lint, rule: str) -> list[Remark]:
    return [remark for remark in found.remarks if remark.rule == rule]


def test_sentences_of_the_training_reports_have_nothing_odd() -> None:
    prompts = made(
        ["There is a small left pleural effusion."],
        ["No pleural effusion is seen."],
        other=("The heart is enlarged.", "The heart is of normal size."),
    )
    found = lint(prompts, TRAINING)
    assert [r for r in found.remarks if r.level != "note"] == []
    assert found.num_sentences == 4
    assert found.nearest[EFFUSION, "positive", 1][0] == 1.0


def test_the_cosine_of_ngrams_is_that_of_sets() -> None:
    found = lint(made(["Effusion."], ["No effusion."]), ["No effusion."])
    assert found.nearest[EFFUSION, "positive", 1][0] == pytest.approx(1 / 3**0.5)
    prompts = templates(("Pleural effusion", "Emphysema"))
    near = lint(prompts, TRAINING).nearest
    for side, table in (("positive", prompts.positive), ("negative", prompts.negative)):
        for number, text in enumerate(table["Emphysema"], 1):
            own = set(ngrams(text))
            plain = max(
                len(own & set(ngrams(t))) / (len(own) * len(ngrams(t))) ** 0.5 for t in TRAINING
            )
            assert near["Emphysema", side, number][0] == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize(
    ("positive", "level", "told"),
    [
        ("Hydrothorax.", "error", "hydrothorax"),
        ("Pleural effusion with hydrothorax.", "warning", "with, hydrothorax"),
        ("Small effusion on the heart.", "note", "runs of 2 or 3 words"),
        ("Effusion pleural.", "warning", "1 of 1 runs"),
    ],
)
def test_wording_that_training_never_used_is_said(positive: str, level: str, told: str) -> None:
    found = of_rule(lint(made([positive], ["No pleural effusion is seen."]), TRAINING), "wording")
    assert [remark.level for remark in found] == [level]
    assert told in found[0].message
    assert found[0].where == "Pleural effusion positive 1"


def test_a_prompt_longer_than_every_training_sentence_is_said() -> None:
    text = "There is " + "a small left pleural effusion and " * 5 + "no emphysema."
    found = of_rule(lint(made([text], ["No pleural effusion is seen."]), TRAINING), "length")
    assert [(r.level, r.side) for r in found] == [("warning", "positive")]


def test_a_prompt_far_from_every_training_sentence_is_said() -> None:
    text = "Fluid collects where lung and left wall meet."
    found = of_rule(lint(made([text], ["No pleural effusion is seen."]), TRAINING), "distance")
    assert [(r.level, r.side) for r in found] == [("warning", "positive")]


def test_a_prompt_the_text_tower_knows_no_word_of_is_an_error() -> None:
    vocabulary = NGramVocabulary.fit([TRAINING], min_reports=1)
    prompts = made(["Hydrothorax."], ["No pleural effusion."])
    found = of_rule(lint(prompts, vocabulary=vocabulary), "vocabulary")
    assert [(r.level, r.where) for r in found] == [("error", "Pleural effusion positive 1")]


def test_sides_that_are_the_same_or_nearly_so_are_said() -> None:
    same = made(["Pleural effusion."], ["PLEURAL effusion"])
    turned = made(["Pleural effusion."], ["Effusion pleural."])
    apart = made(["Pleural effusion."], ["No pleural effusion."])
    levels = [[r.level for r in of_rule(lint(p), "sides")] for p in (same, turned, apart)]
    assert levels == [["error"], ["warning"], []]


def test_sides_that_the_model_hardly_tells_apart_are_said() -> None:
    def deaf(texts: list[str]) -> NDArray[np.float64]:
        """A model that does not hear "no"."""
        return np.array([[1.0, 0.01 * ("no " in text.lower())] for text in texts])

    def keen(texts: list[str]) -> NDArray[np.float64]:
        """One that does."""
        return np.array([[1.0, 4.0 * ("no " in text.lower())] for text in texts])

    prompts = made(["Pleural effusion."], ["No pleural effusion."])
    assert "cosine 1.000" in of_rule(lint(prompts, embed=deaf), "sides")[0].message
    assert of_rule(lint(prompts, embed=keen), "sides") == []
    near = lint(prompts, TRAINING, embed=keen).nearest
    assert near[EFFUSION, "negative", 1][1] == pytest.approx(1.0)


def test_a_prompt_that_names_another_finding_or_serves_two_is_said() -> None:
    prompts = made(
        ["Cardiomegaly.", "Effusion and an enlarged heart."],
        ["No pleural effusion."],
        other=("Cardiomegaly.", "No pleural effusion."),
    )
    found = lint(prompts)
    assert {(r.where, r.level) for r in of_rule(found, "shared")} == {
        ("Pleural effusion positive 1", "warning"),
        ("Cardiomegaly positive 1", "warning"),
        ("Pleural effusion negative 1", "warning"),
        ("Cardiomegaly negative 1", "warning"),
    }
    assert "Cardiomegaly" in of_rule(found, "names")[0].message


def test_a_prompt_our_rules_read_otherwise_than_meant_is_an_error() -> None:
    found = lint(made(["No pleural effusion."], ["There is a pleural effusion."]))
    assert [(r.side, r.level) for r in of_rule(found, "labeler")] == [
        ("positive", "error"),
        ("negative", "error"),
    ]
    assert "absent" in of_rule(found, "labeler")[0].message
    silent = lint(made(["Something is odd."], ["No pleural effusion."]))
    assert [r.level for r in of_rule(silent, "labeler")] == ["note"]


def test_a_language_that_is_not_the_reports_is_an_error_and_a_wrong_one_a_warning() -> None:
    german = ["Es besteht ein Pleuraerguss mit Nachweis rechts."], ["Kein Pleuraerguss links."]
    found = of_rule(lint(made(*german, language="de"), TRAINING), "language")
    assert [r.level for r in found] == ["error"]
    assert of_rule(lint(made(*german, language="de")), "language") == []
    wrong = of_rule(lint(made(*german, language="en")), "language")
    assert [(r.level, r.where) for r in wrong] == [("warning", "the set")]


def test_remarks_do_not_depend_on_the_order_of_reports_and_never_quote_them() -> None:
    prompts = made(["Hydrothorax on the right."], ["No pleural effusion."])
    told = lint(prompts, TRAINING).text()
    assert lint(prompts, [t.upper() for t in reversed(TRAINING)] + list(TRAINING)).text() == told
    assert not any(sentence.rstrip(".") in told for sentence in TRAINING)
    assert told.startswith("prompts mine: 2 sentences, ")
    order = [line.split()[0] for line in told.splitlines()[1:]]
    assert order == sorted(order, key=["error", "warning", "note"].index)


def test_a_set_is_described_without_any_model() -> None:
    told = describe(templates(("Pleural effusion",)))
    assert told["findings"] == {"Pleural effusion": {"positive": 3, "negative": 3}}
    assert told["language"] == "en"
    assert told["digest"] == templates(("Pleural effusion",)).digest()
