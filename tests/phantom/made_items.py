"""Patients without voxels: labels drawn independently, and items such as a phantom would place."""

from __future__ import annotations

import re

import numpy as np

from t3d.phantom.items import PlacedItem, WrittenReport
from t3d.phantom.phrases import Grammar
from t3d.phantom.phrases_english import ENGLISH
from t3d.phantom.report import GRAMMARS, write_report
from t3d.text.findings import CT_RATE_18
from t3d.types import Item

LOBES = ("RUL", "RML", "RLL", "LUL", "LLL")
PLACES = {
    "Arterial wall calcification": ("aortic arch", "thoracic aorta"),
    "Coronary artery wall calcification": ("LAD", "RCA", "LCX"),
    "Lymphadenopathy": (
        "right paratracheal",
        "aortopulmonary",
        "subcarinal",
        "prevascular",
        "right hilar",
        "left hilar",
    ),
    "Emphysema": ("upper", ""),
    "Interlobular septal thickening": ("lower", "bases"),
}
WITHOUT_PLACE = (
    "Medical material",
    "Cardiomegaly",
    "Pericardial effusion",
    "Hiatal hernia",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
)
KINDS = ("pacemaker", "sternal wires", "port", "central line")
NO_SIZE = ("Emphysema", "Mosaic attenuation pattern", "Interlobular septal thickening")


def draw_labels(rng: np.random.Generator) -> dict[str, int]:
    """Each finding on its own, with a prevalence between .14 and .40."""
    prevalence = np.linspace(0.14, 0.40, len(CT_RATE_18))
    return {name: int(rng.random() < p) for name, p in zip(CT_RATE_18, prevalence, strict=True)}


def draw_item(name: str, rng: np.random.Generator, *, large: bool) -> PlacedItem:
    """One item of a finding."""
    places = PLACES.get(name, () if name in WITHOUT_PLACE else LOBES)
    place = places[int(rng.integers(len(places)))] if places else ""
    side = {"R": "right", "L": "left"}.get(place[:1], "") if place in LOBES else ""
    if name == "Pleural effusion":
        side = ("left", "right")[int(rng.integers(2))]
    centre = float(rng.uniform(-200, 200))
    half = float(rng.uniform(2, 40))
    size = 0.0 if name in NO_SIZE else float(rng.uniform(16, 60) if large else rng.uniform(4, 15))
    return PlacedItem(
        item=Item(
            finding=name,
            large=large,
            side=side,
            place=place,
            size_mm=size,
            kind=KINDS[int(rng.integers(4))] if name == "Medical material" else "",
        ),
        z_mm=(centre, centre - half, centre + half),
        count=int(rng.integers(1, 4)) if name == "Lung nodule" else 1,
        extra={"cardiothoracic_ratio": 0.58} if name == "Cardiomegaly" else {},
    )


def draw_patient(seed: int) -> tuple[dict[str, int], list[PlacedItem]]:
    """Labels and items of one patient."""
    rng = np.random.default_rng([seed, 1])
    labels = draw_labels(rng)
    items = []
    for name, value in labels.items():
        large = bool(rng.random() < 0.6) or name == "Cardiomegaly"
        items += [draw_item(name, rng, large=large) for _ in range(value * int(rng.integers(1, 5)))]
    return labels, items


def draw_report(
    seed: int, wording: str = "train", language: str = "en"
) -> tuple[dict[str, int], WrittenReport]:
    """Labels and report of one patient."""
    labels, items = draw_patient(seed)
    rng = np.random.default_rng([seed, 77])
    return labels, write_report(labels, items, rng, wording=wording, grammar=GRAMMARS[language])


def texts(written: WrittenReport, section: str) -> list[str]:
    """The sentences of a section, cut out by their offsets."""
    text = getattr(written.report, section)
    return [text[s.start : s.end] for s in written.sentences if s.section == section]


def sentence_of(
    item: PlacedItem | list[PlacedItem],
    seed: int,
    wording: str = "train",
    grammar: Grammar = ENGLISH,
) -> str:
    """The FINDINGS sentence about the only finding of a patient."""
    items = item if isinstance(item, list) else [item]
    labels = {other: int(other == items[0].item.finding) for other in CT_RATE_18}
    rng = np.random.default_rng(seed)
    written = write_report(labels, items, rng, wording=wording, grammar=grammar)
    (found,) = [s for s in written.sentences if s.finding and s.section == "findings"]
    return written.report.findings[found.start : found.end]


def phrase_pattern(phrase: str) -> re.Pattern[str]:
    """A phrase as an expression in which every slot stands for anything."""
    text = phrase.rpartition("|")[2]
    parts = [re.escape(part) for part in re.split(r"\{\w+\}", text)]
    return re.compile(".+".join(parts), re.IGNORECASE)
