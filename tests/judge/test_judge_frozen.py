"""Frozen features: encoded once, the same bits when read again, never of another model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from t3d.cohort.writer import CACHE_FOLDER
from t3d.judge.frozen import Frozen
from t3d.types import Report

MODEL, OTHER = "m" * 64, "o" * 64


@dataclass
class Place:
    """What frozen features ask of a cohort."""

    path: Path
    digest: str = "c" * 64


@dataclass
class Counting:
    """Embeds names by their letters and counts how often it is asked."""

    asked: dict[str, int] = field(default_factory=dict)
    logit_scale: float = 14.0

    def _rows(self, what: str, names: Sequence[str]) -> NDArray[np.float32]:
        self.asked[what] = self.asked.get(what, 0) + len(names)
        rng = [np.random.default_rng(list(name.encode())) for name in names]
        return np.stack([r.normal(size=5) for r in rng]).astype(np.float32)

    def embed_studies(self, cohort: Place, names: Sequence[str]) -> NDArray[np.float32]:
        return self._rows("studies", names)

    def embed_text(self, texts: list[str]) -> NDArray[np.float32]:
        return self._rows("text", texts)

    def embed_reports(self, reports: list[Report]) -> NDArray[np.float32]:
        return self._rows("reports", [r.findings for r in reports])

    def embed_volume_tokens(self, cohort: Place, names: Sequence[str]) -> list[Any]:
        self.asked["tokens"] = self.asked.get("tokens", 0) + len(names)
        rows = [self._rows("_", [f"{name}{k}" for k in range(2 + len(name))]) for name in names]
        return [(row, np.arange(3.0 * len(row)).reshape(-1, 3)) for row in rows]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "cohort")


def ask(frozen: Frozen, cohort: Place) -> list[NDArray[Any]]:
    """Everything a model gives."""
    places = frozen.embed_volume_tokens(cohort, ["v1", "v22"])
    return [
        frozen.embed_studies(cohort, ["s1", "s2", "s1"]),
        frozen.embed_text(["one", "two"]),
        frozen.embed_reports([Report(findings="a"), Report(findings="b")]),
        *(array for pair in places for array in pair),
    ]


def test_nothing_is_encoded_twice_whatever_is_asked(place: Place) -> None:
    place.path.mkdir()
    model = Counting()
    frozen = Frozen(model, place, digest=MODEL)
    first = ask(frozen, place)
    again = ask(frozen, place)
    assert {k: v for k, v in model.asked.items() if k != "_"} == {
        "studies": 2,
        "text": 2,
        "reports": 2,
        "tokens": 2,
    }
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    plain = Counting()
    assert np.array_equal(first[0], plain.embed_studies(place, ["s1", "s2", "s1"]))
    assert [len(array) for array in first[3:]] == [4, 4, 5, 5]


def test_features_are_read_again_bit_for_bit(place: Place) -> None:
    place.path.mkdir()
    frozen = Frozen(Counting(), place, digest=MODEL)
    first = ask(frozen, place)
    frozen.save()
    idle = Counting()
    again = ask(Frozen(idle, place, digest=MODEL), place)
    assert idle.asked == {}
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(a.dtype == b.dtype for a, b in zip(first, again, strict=True))


def test_another_prompt_set_encodes_its_sentences_and_no_study(place: Place) -> None:
    place.path.mkdir()
    frozen = Frozen(Counting(), place, digest=MODEL)
    ask(frozen, place)
    frozen.save()
    model = Counting()
    more = Frozen(model, place, digest=MODEL)
    more.embed_studies(place, ["s2", "s1"])
    more.embed_text(["two", "three", "four"])
    assert model.asked == {"text": 2}
    assert more.num_encoded == {"embed_text": 2}


@pytest.mark.parametrize("what", ["model", "cohort", "damaged", "cut", "empty"])
def test_features_of_another_model_or_cohort_or_of_a_damaged_file_are_not_used(
    place: Place, what: str
) -> None:
    place.path.mkdir()
    frozen = Frozen(Counting(), place, digest=MODEL)
    wanted = frozen.embed_studies(place, ["s1", "s2"])
    frozen.save()
    (file,) = (place.path / CACHE_FOLDER).glob("frozen-*.npz")
    if what == "damaged":
        with np.load(file) as held:
            arrays = dict(held)
        np.savez(file, **(arrays | {"rows": arrays["rows"] + np.float32(1e-3)}))
    elif what == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif what == "empty":
        file.write_bytes(b"")
    cohort = Place(place.path, "d" * 64) if what == "cohort" else place
    model = Counting()
    found = Frozen(model, cohort, digest=OTHER if what == "model" else MODEL)
    assert np.array_equal(found.embed_studies(cohort, ["s1", "s2"]), wanted)
    assert model.asked == {"studies": 2}


def test_a_model_without_a_digest_leaves_no_file(place: Place) -> None:
    place.path.mkdir()
    frozen = Frozen(Counting(), place)
    ask(frozen, place)
    frozen.save()
    assert list(place.path.rglob("*")) == []


def test_files_hold_no_name_of_a_text_and_lie_where_a_deleted_patient_takes_them_along(
    place: Place,
) -> None:
    place.path.mkdir()
    frozen = Frozen(Counting(), place, digest=MODEL)
    frozen.embed_text(["A sentence of a report."])
    frozen.save()
    (file,) = (place.path / CACHE_FOLDER).iterdir()
    assert b"sentence" not in file.read_bytes()


def test_a_model_has_only_what_its_recipe_fills(place: Place) -> None:
    class Scoring(Counting):
        findings = ("Lung nodule",)

        def score_studies(self, cohort: Place, names: Sequence[str]) -> NDArray[np.float64]:
            return np.zeros((len(names), 1))

    reports, labels = Scoring(), Scoring()
    reports.recipe = SimpleNamespace(supervision="reports", text="tower")  # type: ignore[attr-defined]
    labels.recipe = SimpleNamespace(supervision="labels", text=None)  # type: ignore[attr-defined]
    labels.model = SimpleNamespace(image_head=None)  # type: ignore[attr-defined]
    one, two = Frozen(reports, place), Frozen(labels, place)
    assert hasattr(one, "embed_text")
    assert not hasattr(one, "score_studies")
    assert one.aligned
    assert two.findings == ("Lung nodule",)
    assert not hasattr(two, "embed_text")
    assert not two.aligned
    assert one.logit_scale == 14.0
    assert not hasattr(one, "embed_volumes")
