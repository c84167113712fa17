"""Prompt sets: what templates say, what a bank takes, what it falls back to."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t3d.errors import ProtocolError
from t3d.judge.embeddings import prototypes
from t3d.judge.prompts import (
    PromptSet,
    bank,
    prompt_set,
    read_prompts,
    templates,
    training_sentences,
)
from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import label_sentence

SENTENCES = (
    "There is a nodule of 8 mm.",
    "There is a nodule of 12 mm.",
    "there is  a nodule of 8 mm.",
    "A round nodule in the left upper lobe.",
    "A nodule and an effusion.",
    "No nodule is seen.",
    "No effusion, but a nodule.",
    "Effusion on the right.",
    "The spine is normal.",
)


def rule(sentence: str) -> Mapping[str, int]:
    """Words decide; "no" before the word denies."""
    found = {}
    for finding, word in (("Lung nodule", "nodule"), ("Pleural effusion", "effusion")):
        before = sentence.lower().split(word)[0]
        if word in sentence.lower():
            found[finding] = int("no " not in before)
    return found


def small_bank(**more: Any) -> PromptSet:
    return bank(SENTENCES, rule, findings=("Lung nodule", "Pleural effusion"), **more)


def test_templates_put_every_class_name_into_three_sentences_and_three_denials() -> None:
    found = templates()
    assert found.name == "template"
    assert found.findings == CT_RATE_18
    for finding in CT_RATE_18:
        name = finding[0].lower() + finding[1:]
        for side in (found.positive, found.negative):
            assert len(set(side[finding])) == 3
            assert all(name in s[0].lower() + s[1:] and s.endswith(".") for s in side[finding])
        assert not set(found.positive[finding]) & set(found.negative[finding])
        assert all(" no " in f" {s.lower()}" for s in found.negative[finding])


def test_a_template_starts_with_a_capital_letter() -> None:
    found = templates(("Lung nodule",))
    assert "Lung nodule is present in the chest." in found.positive["Lung nodule"]
    assert "No lung nodule in the chest." in found.negative["Lung nodule"]


def test_a_bank_takes_sentences_that_state_a_finding_and_sentences_that_deny_it() -> None:
    found = small_bank()
    assert set(found.positive["Lung nodule"]) == {
        "There is a nodule of 12 mm.",  # the same wording with 8 mm counts once
        "A round nodule in the left upper lobe.",
        "A nodule and an effusion.",
    }
    # the rule says that the last nodule stands after a "no"
    assert set(found.negative["Lung nodule"]) == {
        "No nodule is seen.",
        "No effusion, but a nodule.",
    }
    assert found.negative["Pleural effusion"] == ("No effusion, but a nodule.",)


def test_sentences_that_speak_of_the_finding_alone_come_first() -> None:
    found = small_bank(max_sentences=2)
    assert "A nodule and an effusion." not in found.positive["Lung nodule"]
    assert len(found.positive["Lung nodule"]) == 2
    assert small_bank(max_sentences=1).negative["Lung nodule"] == ("No nodule is seen.",)


def test_a_sentence_that_states_one_finding_and_denies_another_is_a_last_resort() -> None:
    mixed = "A nodule, no effusion."
    one = bank([mixed], rule, findings=("Lung nodule", "Pleural effusion"))
    assert one.positive["Lung nodule"] == one.negative["Pleural effusion"] == (mixed,)
    assert one.found["Lung nodule"]["fallback_positive"] == 0
    both = bank([mixed, "Effusion, nodule."], rule, findings=("Lung nodule",))
    assert both.positive["Lung nodule"] == ("Effusion, nodule.",)


def test_a_bank_counts_what_it_found() -> None:
    assert small_bank(max_sentences=1).found["Lung nodule"] == {
        "positive": 3,
        "positive_alone": 2,
        "fallback_positive": 0,
        "negative": 2,
        "negative_alone": 1,
        "fallback_negative": 0,
    }


def test_a_finding_without_sentences_falls_back_to_templates_and_says_so() -> None:
    found = bank(SENTENCES, rule, findings=("Pleural effusion", "Emphysema"))
    assert found.positive["Emphysema"] == templates(("Emphysema",)).positive["Emphysema"]
    assert found.negative["Emphysema"] == templates(("Emphysema",)).negative["Emphysema"]
    assert found.found["Emphysema"]["fallback_positive"] == 1
    assert found.found["Emphysema"]["fallback_negative"] == 1
    assert found.found["Pleural effusion"]["fallback_positive"] == 0


def test_a_bank_does_not_depend_on_the_order_of_sentences() -> None:
    turned = list(SENTENCES)
    random.Random(1).shuffle(turned)
    assert bank(turned, rule, findings=("Lung nodule",)) == bank(
        SENTENCES, rule, findings=("Lung nodule",)
    )


def test_a_bank_of_many_sentences_is_a_seeded_choice() -> None:
    many = [
        f"Nodule near the {chr(97 + i)}{chr(97 + j)} border." for i in range(9) for j in range(9)
    ]
    one, two, other = (bank(many, rule, findings=("Lung nodule",), seed=s) for s in (0, 0, 1))
    assert one == two
    assert len(set(one.positive["Lung nodule"])) == 16
    assert one.positive != other.positive


def test_a_prompt_set_survives_json_and_its_digest_follows_every_word() -> None:
    found = small_bank()
    again = PromptSet.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.digest() == found.digest()
    changed = found.to_json()
    changed["positive"]["Lung nodule"][0] += " "
    assert PromptSet.from_json(changed).digest() != found.digest()


def test_the_digest_of_the_templates_is_pinned() -> None:
    # a change of wording moves every template score: say so in the changelog, then pin again
    assert templates().digest()[:16] == "362bdec2621521d9"


def test_a_prompt_set_with_an_empty_side_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no sentences on one side for Lung nodule"):
        PromptSet(
            name="x", source="", positive={"Lung nodule": ("a",)}, negative={"Lung nodule": ()}
        )
    with pytest.raises(ProtocolError, match="without the field 'negative'"):
        PromptSet.from_json({"name": "x", "source": "", "positive": {}, "found": {}})


def test_sentences_come_from_the_training_reports_only(cohort: Any) -> None:
    found = training_sentences(cohort)
    reports = {cohort.report(row.study_id).findings for row in cohort.studies("train")}
    other = {f"Case {int(row.study_id[1:])}." for row in cohort.studies("test")}
    assert len(found) > 5 * len(reports)
    assert all(any(s in text for text in reports) or s == "See above." for s in found)
    assert not other & set(found)


def test_the_labeler_that_ships_is_a_rule_a_bank_can_use() -> None:
    sentences = ("There is a moderate pleural effusion on the right.", "No pleural effusion.")
    found = bank(sentences, label_sentence, findings=("Pleural effusion",))
    assert found.positive["Pleural effusion"] == sentences[:1]
    assert found.negative["Pleural effusion"] == sentences[1:]


def test_prototypes_are_means_of_unit_embeddings_brought_to_unit_length() -> None:
    class Axes:
        def embed_text(self, texts: list[str]) -> Any:
            table = {"long": (10.0, 0.0), "up": (0.0, 0.5), "left": (-2.0, 0.0)}
            return np.float32([table[t] for t in texts])

    prompts = PromptSet(
        name="x", source="", positive={"F": ("long", "up")}, negative={"F": ("left",)}
    )
    positive, negative = prototypes(Axes(), prompts)  # type: ignore[arg-type]
    # lengths do not matter: (1, 0) and (0, 1) give the diagonal
    np.testing.assert_allclose(positive, [[0.5**0.5, 0.5**0.5]], atol=1e-7)
    np.testing.assert_allclose(negative, [[-1.0, 0.0]], atol=1e-7)


def test_prompts_that_cancel_each_other_are_refused_by_finding() -> None:
    class Axes:
        def embed_text(self, texts: list[str]) -> Any:
            return np.float32([[1.0, 0.0] if t == "a" else [-1.0, 0.0] for t in texts])

    prompts = PromptSet(
        name="x", source="", positive={"Emphysema": ("a", "b")}, negative={"Emphysema": ("b",)}
    )
    with pytest.raises(ProtocolError, match=r"1 of 1 positive embeddings.*Emphysema"):
        prototypes(Axes(), prompts)  # type: ignore[arg-type]


def test_a_written_prompt_set_is_read_back_and_narrowed(tmp_path: Path) -> None:
    whole = templates(("Emphysema", "Lung nodule"))
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(whole.to_json()))
    assert read_prompts(path) == whole
    assert read_prompts(path).only(["Lung nodule"]) == templates(("Lung nodule",))
    with pytest.raises(ProtocolError, match="no sentences for Atelectasis"):
        whole.only(["Atelectasis"])


@pytest.mark.parametrize("text", ["no json", "[]", "{}"])
def test_a_file_that_is_no_prompt_set_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProtocolError):
        read_prompts(tmp_path / "p.json")
    with pytest.raises(ProtocolError, match=r"q\.json"):
        read_prompts(tmp_path / "q.json")


GERMAN = """
name = "german"
source = "our wording"
language = "de"

[[finding]]
name = "Pleural effusion"
positive = ["Pleuraerguss.", "Es zeigt sich ein Pleuraerguss."]
negative = ["Kein Pleuraerguss."]

[[finding]]
name = "Emphysema"
positive = ["Emphysem."]
negative = ["Kein Emphysem."]
"""


def test_prompts_written_by_hand_are_read_from_toml_and_survive_json(tmp_path: Path) -> None:
    path = tmp_path / "de.toml"
    path.write_text(GERMAN, encoding="utf-8")
    found = read_prompts(path)
    assert (found.name, found.source, found.language) == ("german", "our wording", "de")
    assert found.findings == ("Pleural effusion", "Emphysema")
    assert found.positive["Pleural effusion"][1] == "Es zeigt sich ein Pleuraerguss."
    assert found.negative["Emphysema"] == ("Kein Emphysem.",)
    again = PromptSet.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    english = read_prompts_of(tmp_path, GERMAN.replace('language = "de"\n', ""))
    assert english.language == "en"
    assert english.digest() != found.digest()


def read_prompts_of(folder: Path, text: str) -> PromptSet:
    """Read a text as a TOML file."""
    path = folder / "other.toml"
    path.write_text(text, encoding="utf-8")
    return read_prompts(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "Emphysema"', 'name = "Pleural effusion"'),  # twice
        ('name = "Emphysema"', ""),
        ('negative = ["Kein Emphysem."]', ""),
        ('negative = ["Kein Emphysem."]', 'negative = "Kein Emphysem."'),
        ('negative = ["Kein Emphysem."]', "negative = [1]"),
        ('negative = ["Kein Emphysem."]', "negative = []"),
        ('source = "our wording"', ""),
        ('name = "german"', "name = "),
    ],
)
def test_a_toml_that_is_no_prompt_set_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert old in GERMAN
    with pytest.raises(ProtocolError):
        read_prompts_of(tmp_path, GERMAN.replace(old, new))


def test_published_prompts_are_word_for_word() -> None:
    def pair(name: str, finding: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = prompt_set(name)
        return found.positive[finding], found.negative[finding]

    assert pair("ctclip", "Medical material") == (
        ("Medical material is present.",),
        ("Medical material is not present.",),
    )
    assert pair("fvlm", "Atelectasis") == (("Atelectatic.",), ("Not Atelectatic.",))
    assert pair("fvlm", "Lung nodule") == (("Nodule.",), ("Not Nodule.",))
    assert pair("hlip", "Atelectasis") == (
        ("The volume shows: Atelectasis.",),
        ("The volume shows: Not atelectatic.",),
    )
    assert pair("hlip", "Lung opacity") == (
        ("The volume shows: Lung opacity.",),
        ("The volume shows: Not lung opacity.",),
    )
    positive, negative = pair("radfinder", "Emphysema")
    assert positive == (
        *("Emphysema.", "Findings are compatible with Emphysema.", "There is Emphysema."),
        *("Emphysema is seen.", "Emphysema.", "Emphysema is observed.", "Emphysema is present."),
    )
    assert negative[3:5] == ("Emphysema is not seen.", "Not Emphysema.")
    assert (len(positive), len(negative)) == (7, 7)


def test_a_set_has_the_findings_it_was_published_for() -> None:
    sizes = {
        name: len(prompt_set(name).findings) for name in ("ctclip", "fvlm", "hlip", "radfinder")
    }
    assert sizes == {"ctclip": 18, "fvlm": 16, "hlip": 16, "radfinder": 18}
    assert prompt_set("radfinder", ("Gallstones",)).findings == ("Gallstones",)
    with pytest.raises(ProtocolError, match="'fvlm' has no sentences for Gallstones"):
        prompt_set("fvlm", ("Gallstones",))
    with pytest.raises(ProtocolError, match="prompt set 'clip' is unknown"):
        prompt_set("clip")


def test_a_sentence_that_a_set_has_twice_weighs_twice_and_is_embedded_once() -> None:
    class Counting:
        asked: tuple[str, ...] = ()

        def embed_text(self, texts: list[str]) -> Any:
            self.asked = (*self.asked, *texts)
            return np.float32([(1, 0) if t == "Emphysema." else (0, 1) for t in texts])

    model = Counting()
    positive, _ = prototypes(model, prompt_set("radfinder", ("Emphysema",)))  # type: ignore[arg-type]
    assert len(model.asked) == len(set(model.asked)) == 13
    # two of seven sentences point along the first axis
    np.testing.assert_allclose(positive, [np.array([2, 5]) / 29**0.5], atol=1e-7)
