"""What names a person is replaced, dates move with their patient, and offsets can be followed."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from t3d.errors import RecipeError, SourceError
from t3d.text import deidentify as module
from t3d.text.deidentify import MAX_SHIFT_DAYS, Deidentified, date_shift, deidentify

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "howto" / "reports.md"
KEY = bytes(32)
SHIFT = timedelta(days=-176)  # of patient "1" under KEY
MARK = re.compile(r"\[\[(\w+)\|(.*?)\]\]")
TITLES = {
    *("Dr", "DR", "Drs", "Mr", "Mrs", "MD", "M", "D", "PhD", "RN", "NP", "Prof", "med", "PD", "OA"),
    *("Herr", "Herrn", "Frau", "Kollegin", "Schwester", "und", "and", "Ober\u00e4rztin"),
}
"""Words inside a mark that identify nobody and may stay."""


def clean(text: str, language: str = "en", **settings: object) -> str:
    return deidentify(text, key=KEY, patient="1", language=language, **settings).text  # type: ignore[arg-type]


# ---- dates -----------------------------------------------------------------------------------


def test_the_shift_is_the_one_that_was_computed_by_hand() -> None:
    assert date_shift(KEY, "1") == SHIFT


def test_shifts_are_days_back_that_depend_on_key_and_patient() -> None:
    days = [date_shift(KEY, str(n)).days for n in range(500)]
    assert all(-MAX_SHIFT_DAYS <= d <= -1 for d in days)
    assert len(set(days)) > 200
    assert date_shift(b"other", "1") != date_shift(KEY, "1")


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("2019-03-14", "%Y-%m-%d"),
        ("20190314", "%Y%m%d"),
        ("03/14/2019", "%m/%d/%Y"),
        ("03/14/19", "%m/%d/%y"),
        ("03-14-2019", "%m-%d-%Y"),
        ("14.03.2019", "%d.%m.%Y"),
        ("14.03.19", "%d.%m.%y"),
        ("March 14, 2019", "%B %d, %Y"),
        ("14 March 2019", "%d %B %Y"),
        ("14-Mar-2019", "%d-%b-%Y"),
    ],
)
def test_a_full_date_moves_and_keeps_its_form(written: str, form: str) -> None:
    moved = (date(2019, 3, 14) + SHIFT).strftime(form)
    assert clean(f"CT of {written}, stable.") == f"CT of {moved}, stable."


@pytest.mark.parametrize(
    ("written", "moved"),
    [
        ("3/4/2019", "9/9/2018"),  # 4 March in English
        ("25/3/2019", "30/9/2018"),  # no month 25: day first
        ("Mar 14th, 2019", "Sep 19th, 2018"),
        ("MARCH 14, 2019", "SEPTEMBER 19, 2018"),
        ("14th of March 2019", "19th of September 2018"),
        ("March 2019", "September 2018"),  # as if it were the 15th
        ("03/2019", "09/2018"),
        ("12/30/68", "07/07/68"),
        ("on 3/14", "on [date]"),
        ("March 14th", "[date]"),
        ("02/30/2019", "[date]"),  # there is no such day
    ],
)
def test_other_english_forms_move_too(written: str, moved: str) -> None:
    assert clean(f"Seen {written}.") == f"Seen {moved}."


@pytest.mark.parametrize(
    ("written", "moved"),
    [
        ("3/4/2019", "9/10/2018"),  # 3 April in German
        ("4.3.2019", "9.9.2018"),
        ("14. M\u00e4rz 2019", "19. September 2018"),
        ("14.M\u00e4rz 19", "19.September 18"),
        ("1. Okt. 2019", "8. Apr. 2019"),
        ("M\u00e4rz 2019", "September 2018"),
        ("vom 14.03. und am 3.4.", "vom [date] und am [date]"),
        ("14. M\u00e4rz", "[date]"),
    ],
)
def test_german_forms_move_too(written: str, moved: str) -> None:
    assert clean(f"CT {written} liegt vor.", "de") == f"CT {moved} liegt vor."


@given(st.dates(date(1971, 1, 1), date(2068, 12, 31)), st.sampled_from(["%d.%m.%Y", "%Y-%m-%d"]))
def test_the_distance_between_two_dates_of_a_patient_stays(day: date, form: str) -> None:
    later = day + timedelta(days=91)
    text = clean(f"CT {day.strftime(form)} und {later.strftime(form)}.", "de")
    first, second = (
        datetime.strptime(part.strip("."), form).date() for part in text[3:].split(" und ")
    )
    assert second - first == timedelta(days=91)
    assert first == day + SHIFT


@pytest.mark.parametrize(
    "text",
    [
        "Nodule of 1.5 x 2.3 cm, series 4, image 38, 4/38, L4/5, T12, ratio 0.55.",
        "Volumes of 12.03 and 1,234,567 ml; 3 x 4 mm; grade 4/5; in 2019; at 10:45.",
        "May represent scarring. August onset. MR of the liver, MS known, an 8 Fr catheter.",
        "Kerley B lines, Hodgkin lymphoma, Swan-Ganz catheter; a 58-year-old man.",
        "Follow-up in 3/4 of the cases; segments 2.1. and 2.2. are clear.",
    ],
)
def test_numbers_and_names_of_medicine_stay(text: str) -> None:
    assert clean(text) == text


# ---- names and numbers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("By Dr. John A. Smith. The heart is normal.", "By Dr. [name]. The heart is normal."),
        ("Discussed with Drs. Patel and Nguyen.", "Discussed with Drs. [name]."),
        ("DR. SMITH WAS NOTIFIED.", "DR. [name] WAS NOTIFIED."),
        ("Patient: SMITH, JOHN\nFINDINGS: A.", "Patient: [name]\nFINDINGS: A."),
        ("MRN: 12345, call 617-555-0188.", "MRN: [id], call [phone]."),
        ("Mail a.b@c.org or www.c.org/x now.", "Mail [email] or [url] now."),
        ("A 93-year-old woman.", "A [age over 89] woman."),
        ("UID 1.2.840.113619.2.55.3", "UID [id]"),
    ],
)  # fmt: skip
def test_english_identifiers_are_replaced(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_known_names_are_replaced_wherever_they_stand_with_a_capital() -> None:
    text = "Klein hat eine kleine Zyste, klein wie zuvor. KLEIN, Eva."
    assert clean(text, "de", names=("Klein, Eva",)) == (
        "[name] hat eine kleine Zyste, klein wie zuvor. [name], [name]."
    )


def test_nothing_in_a_german_rule_touches_an_english_report() -> None:
    assert clean("8 Fr. Pigtail catheter.") == "8 Fr. Pigtail catheter."


# ---- offsets ---------------------------------------------------------------------------------


def test_spans_can_be_followed_into_the_new_text() -> None:
    text = "Dr. Smithson saw a nodule on March 14, 2019. No change."
    got = deidentify(text, key=KEY, patient="1")
    for piece in ("saw a nodule", "No change."):
        start = text.index(piece)
        new = got.moved(start, start + len(piece))
        assert got.text[slice(*new)] == piece
    assert got.text[slice(*got.moved(0, len(text)))] == got.text
    inside = text.index("thson")
    assert got.text[slice(*got.moved(inside, inside + 3))] == "[name]"
    name = text.index("Smithson")
    assert got.text[slice(*got.moved(name, name + 8))] == "[name]"


@given(
    st.lists(
        st.sampled_from(
            ["Dr. Smith ", "3/4/2019 ", "a nodule ", "MRN 1234567 ", "\u00fc ", "a@b.de ", "x"]
        ),
        max_size=10,
    )
)
def test_what_is_not_replaced_is_kept_in_order(pieces: list[str]) -> None:
    text = "".join(pieces)
    got = deidentify(text, key=KEY, patient="1")
    done, new = 0, 0
    for edit in got.edits:
        assert edit.start >= done
        kept = text[done : edit.start]
        assert got.text[new : new + len(kept)] == kept
        assert got.moved(done, edit.start)[1] == new + len(kept)
        new += len(kept)
        assert got.text[new : new + len(edit.text)] == edit.text
        done, new = edit.end, new + len(edit.text)
    assert got.text[new:] == text[done:]


# ---- how much is found -----------------------------------------------------------------------


def made_set(language: str) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Texts with the kind and place of every identifier that a person marked in them."""
    path = HERE / "data" / f"identifiers_{language}.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        marked = json.loads(line)["text"]
        text, spans, done = "", [], 0
        for mark in MARK.finditer(marked):
            text += marked[done : mark.start()]
            spans.append((mark.group(1), len(text), len(text) + len(mark.group(2))))
            text += mark.group(2)
            done = mark.end()
        yield text + marked[done:], spans


def is_hidden(text: str, span: tuple[int, int], got: Deidentified) -> bool:
    """Whether every word of an identifier but its titles lies inside a replacement."""
    hidden = {place for edit in got.edits for place in range(edit.start, edit.end)}
    words = re.compile(r"[\w'-]+").finditer(text, *span)
    return all(word.group() in TITLES or set(range(*word.span())) <= hidden for word in words)


def measure(language: str) -> tuple[Counter[str], Counter[str], int, int]:
    """Found and all identifiers by kind, wrong replacements, all replacements."""
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong, edits = 0, 0
    for text, spans in made_set(language):
        got = deidentify(text, key=KEY, patient="1", language=language)
        for kind, start, end in spans:
            total[kind] += 1
            found[kind] += is_hidden(text, (start, end), got)
        edits += len(got.edits)
        wrong += sum(
            not any(a < edit.end and edit.start < b for _, a, b in spans) for edit in got.edits
        )
    return found, total, wrong, edits


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_page_tells_what_is_found_on_the_made_set(language: str) -> None:
    found, total, wrong, edits = measure(language)
    kinds = sorted(set(total) - {"institution"})
    hits, all_of_them = sum(found[k] for k in kinds), sum(total[k] for k in kinds)
    ci = binomtest(hits, all_of_them).proportion_ci(method="wilson")
    row = f"{hits} of {all_of_them}, {hits / all_of_them:.3f} [{ci.low:.3f}, {ci.high:.3f}]"
    page = PAGE.read_text(encoding="utf-8")
    assert row in page, row
    assert found["institution"] == 0
    assert f"{wrong} of {edits}" in page, f"{wrong} of {edits}"
    assert all_of_them > 55


@pytest.mark.real
def test_few_words_of_real_reports_are_taken_for_names(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kinds: Counter[str] = Counter()
    others = []
    for row in rows:
        for edit in deidentify(row["text"], key=KEY, patient="1").edits:
            kinds[edit.kind] += 1
            if edit.kind != "date" and not row["text"][: edit.start].endswith("Dr. "):
                others.append(row["text"][edit.start : edit.end])
    assert others == ["UIHC"]  # a hospital that a patient was "referred to"
    assert kinds == {"date": kinds["date"], "name": 14}  # neither numbers nor addresses
    assert kinds["date"] > 300


# ---- settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"language": "fr"}, {"engine": "magic"}, {"key": b""}])
def test_unknown_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="de-identification"):
        deidentify("A.", **{"key": KEY, "patient": "1", **settings})  # type: ignore[arg-type]


class FakeEngine:
    """Presidio's analyzer as far as we call it."""

    def __init__(self, nlp_engine: object, supported_languages: list[str]) -> None:
        self.nlp_engine, self.languages = nlp_engine, supported_languages

    def analyze(
        self, text: str, language: str, entities: list[str], score_threshold: float
    ) -> list[SimpleNamespace]:
        assert self.languages == [language]
        assert self.nlp_engine == {
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": language, "model_name": "de_core_news_lg"}],
        }
        assert "PERSON" in entities
        assert 0 < score_threshold < 1
        return [
            SimpleNamespace(entity_type="PERSON", start=m.start(), end=m.end(), score=0.85)
            for m in re.finditer(r"Weinreich|Smith", text)
        ]


@pytest.fixture
def fake_presidio(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    state = SimpleNamespace(models=["de_core_news_lg"])
    analyzer, engines, util = ModuleType("a"), ModuleType("b"), ModuleType("c")
    analyzer.AnalyzerEngine = FakeEngine  # type: ignore[attr-defined]
    engines.NlpEngineProvider = lambda nlp_configuration: SimpleNamespace(  # type: ignore[attr-defined]
        create_engine=lambda: nlp_configuration
    )
    util.is_package = lambda name: name in state.models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", analyzer)
    monkeypatch.setitem(sys.modules, "presidio_analyzer.nlp_engine", engines)
    monkeypatch.setitem(sys.modules, "spacy", ModuleType("spacy"))
    monkeypatch.setitem(sys.modules, "spacy.util", util)
    module._analyzer.cache_clear()
    yield state
    module._analyzer.cache_clear()


def test_presidio_adds_to_the_rules(fake_presidio: SimpleNamespace) -> None:
    text = "Weinreich wurde am 14.03.2019 durch Dr. Smith informiert."
    expected = "[name] wurde am 19.09.2018 durch Dr. [name] informiert."
    assert clean(text, "de", engine="presidio") == expected
    assert "Weinreich" in clean(text, "de")


def test_a_missing_language_model_is_named_and_nothing_is_downloaded(
    fake_presidio: SimpleNamespace,
) -> None:
    fake_presidio.models.clear()
    with pytest.raises(SourceError, match="de_core_news_lg"):
        clean("A.", "de", engine="presidio")


def test_without_presidio_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    module._analyzer.cache_clear()
    with pytest.raises(SourceError, match=re.escape("pip install 't3d[deid]'")):
        clean("A.", engine="presidio")
