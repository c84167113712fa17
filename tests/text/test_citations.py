"""Citations of images: every written form that is read, every look-alike that is not.

The table of forms is the one the project's notes on RadFinder state; the look-alikes and the
German and Spanish forms were written by hand.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3d.text.citations import find_citations, strip_citations, without_citations
from t3d.text.sections import split_sections

Told = list[tuple[int | None, tuple[int, ...], bool]]  # series, images, is a range


def told(text: str) -> Told:
    return [(c.series, c.images, c.is_range) for c in find_citations(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodule (series 4, image 38)", [(4, (38,), False)]),
        ("Ser. 3 / IMA 112", [(3, (112,), False)]),
        ("Serie 4, Bild 38-41", [(4, (38, 41), True)]),
        ("imagen 20 de la serie 2", [(2, (20,), False)]),
        ("slices 12 and 15 of series 5", [(5, (12, 15), False)]),
        ("(image 77)", [(None, (77,), False)]),
        ("compared with series 3, image 10 of 02/2019", [(3, (10,), False)]),
        ("4/38; L4/5; 3 x 4 mm; segment 4; T12", []),
    ],
)
def test_every_row_of_the_table_is_read_as_it_says(text: str, expected: Told) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("series #12 images #5-7", [(12, (5, 7), True)]),
        ("series #3, image #17", [(3, (17,), False)]),
        ("image #33/68", [(None, (33,), False)]),
        ("image #69-70", [(None, (69, 70), True)]),
        ("axial images 245-257", [(None, (245, 257), True)]),
        ("images #3 and 4", [(None, (3, 4), False)]),
        ("(Se3/Im112)", [(3, (112,), False)]),
        ("Ser4, Img38", [(4, (38,), False)]),
        ("SERIES: 3, IMAGE: 17", [(3, (17,), False)]),
        ("series 4 (image 38)", [(4, (38,), False)]),
        ("image 38 (series 4)", [(4, (38,), False)]),
        ("image 38, series 4", [(4, (38,), False)]),
        ("image 38 on axial series 4", [(4, (38,), False)]),
        ("series 4, axial image 38", [(4, (38,), False)]),
        ("slice 33 of 68 of series 2", [(2, (33,), False)]),
        ("image no. 5 of series no. 3", [(3, (5,), False)]),
        ("images 12, 15 and 17", [(None, (12, 15, 17), False)]),
        ("images 12, 15, and 17", [(None, (12, 15, 17), False)]),
        ("images 33/35", [(None, (33, 35), False)]),
        ("images 3, 5-7", [(None, (3,), False), (None, (5, 7), True)]),
        ("images 5 through 7", [(None, (5, 7), True)]),
        ("image 12, 3 nodules", [(None, (12,), False)]),
        ("slice 5 and 2 cysts", [(None, (5,), False)]),
        ("series 3, image 17 and image 20", [(3, (17,), False), (3, (20,), False)]),
        ("image 5; series 4 image 38", [(None, (5,), False), (4, (38,), False)]),
        ("series 4 image 3; series 5 image 6", [(4, (3,), False), (5, (6,), False)]),
        ("series 4, image 3. A cyst (image 9)", [(4, (3,), False), (None, (9,), False)]),
        ("Serie 4, Bild-Nr. 38", [(4, (38,), False)]),
        ("Bild 12 der Serie 3", [(3, (12,), False)]),
        ("Bild 12 von 64", [(None, (12,), False)]),
        ("Bilder 38 bis 41 in Serie 4", [(4, (38, 41), True)]),
        ("Serie 3, Schichten 12 und 14", [(3, (12, 14), False)]),
        ("(im 77)", [(None, (77,), False)]),
        ("im #77", [(None, (77,), False)]),
        ("cortes 20 y 22 de la serie 2", [(2, (20, 22), False)]),
        ("im\u00e1genes 20 a 25, serie n.\u00ba 2", [(2, (20, 25), True)]),
        ("Ser. 2, Bild 4 and imagen 6", [(2, (4,), False), (2, (6,), False)]),
        ("series 2, Bilder 4 to 6", [(2, (4, 6), True)]),
    ],
)
def test_other_forms_in_english_german_spanish_and_mixed_are_read(
    text: str, expected: Told
) -> None:
    assert told(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "im 5. ICR links",
        "Im 3. Segment",
        "Herd (im 5. Segment)",
        "Serie 3 im 5. Segment",
        "im 12 mm Fenster",
        "IMA 3",
        "occlusion of the IMA 2 cm from its origin",
        "slice thickness 5",
        "slice 5 mm",
        "slices 1.25 mm",
        "Schicht 1,5 mm",
        "Schichten 0.6",
        "cortes 5 mm",
        "images 10 minutes after injection",
        "images 5-minute delay",
        "image 3 x 4",
        "image 20 %",
        "images 02/2019",
        "images 12/03/2019",
        "images 12.03.2019",
        "images 2019",
        "images from 2019-03-12",
        "a series of 3 images",
        "series 5 images",
        "number of images: 120",
        "serie 3",
        "it can be 4",
        "se 3",
        "preimage 5",
        "imaged 5 years ago",
        "Bildgebung 2",
        "image5a",
        "3-D images",
        "figure 3, table 4, page 5, T2, C3, S1, 4/5",
        "Fleischner 2017, Lung-RADS 4",
    ],
)
def test_what_only_looks_like_a_citation_is_none(text: str) -> None:
    assert told(text) == []
    assert strip_citations(text) == text


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("A (series\u00a04, image\u00a038\u201341).", "series\u00a04, image\u00a038\u201341"),
        ("Na\u00efve (\uff33eries 4, image \uff13\uff18), ok", "\uff33eries 4, image \uff13\uff18"),
        ("\ufb01eld (series 4, image 38) \u00b2", "series 4, image 38"),
        ("e\u0301 ima\u0301genes 20 y 22, e\u0301", "ima\u0301genes 20 y 22"),
        ("a\u0308 (serie n.\u00ba 2, imagen 7) x", "serie n.\u00ba 2, imagen 7"),
        ("series\r\n 4,\n\timage   38", "series\r\n 4,\n\timage   38"),
    ],
)
def test_offsets_are_those_of_the_text_as_it_was_given(text: str, cited: str) -> None:
    (found,) = find_citations(text)
    assert text[found.start : found.end] == cited


def test_composed_and_decomposed_letters_cite_the_same() -> None:
    text = "im\u00e1genes 20 a 25 de la serie 2"
    assert told(unicodedata.normalize("NFD", text)) == told(text) == [(2, (20, 25), True)]


def test_a_footnote_or_a_fraction_does_not_change_a_number() -> None:
    assert (None, (382,), False) not in told("\ufb01 image 38\u00b2")
    assert (None, (51,), False) not in told("\ufb01 image 5\u00bd")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Nodule in RUL (series 4, image 38). No mass.", "Nodule in RUL. No mass."),
        ("Nodule (4 mm, series 4, image 38).", "Nodule (4 mm)."),
        ("Nodule (series 4, image 38; 4 mm).", "Nodule (4 mm)."),
        ("Nodule [Ser. 3 / IMA 112] is new.", "Nodule is new."),
        ("Nodule, series 4, image 38, in the lobe.", "Nodule, in the lobe."),
        ("Nodule, series 4, image 38.", "Nodule."),
        ("Series 4, image 38: nodule.", "nodule."),
        ("No mass. (Series 4, image 38.) Normal heart.", "No mass. Normal heart."),
        ("No mass. Series 4, image 38. Normal heart.", "No mass. Normal heart."),
        ("A nodule on series 4 image 38 measures 5 mm.", "A nodule measures 5 mm."),
        ("Nodule (see series 4 (image 38)).", "Nodule."),
        ("Nodule (axial images #3 and 4). Cyst.", "Nodule. Cyst."),
        ("Nodules (series 2, image 3; series 5, images 12 and 14), stable.", "Nodules, stable."),
        ("Herd (siehe Serie 4, Bild 38), neu.", "Herd, neu."),
        ("N\u00f3dulo (imagen 20 de la serie 2) nuevo.", "N\u00f3dulo nuevo."),
        ("Line\n(series 4, image 38)\nline", "Line\n\nline"),
        ("(image 77)", ""),
        ("image 33 of 68", ""),
    ],
)
def test_brackets_commas_and_lead_ins_go_with_the_citation(text: str, left: str) -> None:
    assert strip_citations(text) == left


def test_places_are_followed_into_the_stripped_text() -> None:
    text = "One (image 5). Two, series 4, image 38, three."
    stripped = without_citations(text)
    assert stripped.text == "One. Two, three."
    for word in ("One", "Two", "three"):
        assert stripped.text[stripped.place(text.index(word)) :].startswith(word)
    assert stripped.place(text.index("image 5")) == stripped.text.index(". Two")
    assert stripped.place(len(text)) == len(stripped.text)
    assert without_citations("No citation.").place(7) == 7


WORDS = (
    "series Serie image images Bild im IMA slice 4 38 12 2019 mm - , ; : / # ( ) [ ] . and und of "
    "der nodule see on axial"
)
PIECES = st.sampled_from([*WORDS.split(), "\n", " ", "\u00a0", "\u2013", "\ufb01", "e\u0301"])


@given(st.lists(PIECES, max_size=25).map(" ".join))
def test_nothing_is_cited_after_stripping_and_what_is_kept_is_the_same(text: str) -> None:
    stripped = without_citations(text)
    assert find_citations(stripped.text) == ()
    if stripped.kept is not None:
        assert "".join(text[i] for i in stripped.kept) == stripped.text
        assert list(stripped.kept) == sorted(set(stripped.kept))
    else:
        assert stripped.text == text
    for citation in find_citations(text):
        assert 0 <= citation.start < citation.end <= len(text)
        assert text[citation.start : citation.end].strip() == text[citation.start : citation.end]


@given(st.lists(st.integers(1, 0xD7FF).map(chr), max_size=60).map("".join))
def test_any_text_at_all_is_read_without_an_error(text: str) -> None:
    assert isinstance(find_citations(text), tuple)
    assert find_citations(strip_citations(text)) == ()


# Read by hand, report by report; 20 texts of the file occur under two numbers.
BY_HAND: dict[int, Told] = {
    1558: [
        *((3, (6, 9), True), (3, (7,), False), (3, (9, 10), True)),
        *((3, (10,), False), (7, (5,), False), (5, (7,), False)),
    ],
    1562: [
        *((105, (4, 6), True), (105, (4, 7), True), (102, (10, 22), True)),
        *((102, (13, 19), True), (104, (10, 14), True), (102, (18, 28), True)),
        (105, (5, 10), True),
    ],
    1563: [(None, (47, 48), True), (None, (3, 4), False), (None, (56, 59), True)],
    1577: [(None, (16,), False)],
    1675: [(None, (n,), False) for n in (33, 38, 29, 20, 15)],
    1696: [(None, (16,), False), (None, (36,), False)],
    1709: [(None, (12,), False)],
}
BY_HAND |= {
    again: BY_HAND[first]
    for again, first in {
        1826: 1577,
        2128: 1562,
        2136: 1563,
        2137: 1558,
        2144: 1577,
        2259: 1675,
        4844: 1709,
        4845: 1696,
    }.items()
}


@pytest.fixture(scope="module")
def public_reports(request: pytest.FixtureRequest) -> list[dict[str, str]]:
    folder: Path = request.getfixturevalue("real_data")
    lines = (folder / "reports" / "mtsamples_radiology.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_public_reports_cite_what_was_read_in_them_by_hand(
    public_reports: list[dict[str, str]],
) -> None:
    found = {int(r["note_id"]): told(r["text"]) for r in public_reports}
    assert {note: cited for note, cited in found.items() if cited} == BY_HAND
    assert sum(map(len, BY_HAND.values())) == 51


def test_the_public_reports_lose_their_image_numbers_and_keep_their_sections(
    public_reports: list[dict[str, str]],
) -> None:
    for report in public_reports:
        left = strip_citations(report["text"])
        assert find_citations(left) == ()
        assert (left == report["text"]) == (int(report["note_id"]) not in BY_HAND)
        before, after = split_sections(report["text"]), split_sections(left)
        assert strip_citations(before.impression).split() == after.impression.split()
