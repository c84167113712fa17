"""The English grammar: its tables put together.

Wording is our own, in the register of a radiologist.
"""

from __future__ import annotations

from collections.abc import Mapping

from t3d.phantom.phrases import FindingPhrases, Grammar
from t3d.phantom.phrases_english_chest import (
    ARTERIAL_CALCIFICATION,
    CARDIOMEGALY,
    CORONARY_CALCIFICATION,
    HIATAL_HERNIA,
    LYMPHADENOPATHY,
    MEDICAL_MATERIAL,
    PERICARDIAL_EFFUSION,
    PLEURAL_EFFUSION,
)
from t3d.phantom.phrases_english_lungs import (
    ATELECTASIS,
    BRONCHIECTASIS,
    CONSOLIDATION,
    EMPHYSEMA,
    FIBROTIC_SEQUELA,
    MOSAIC,
    NODULE,
    OPACITY,
    PERIBRONCHIAL,
    SEPTAL_THICKENING,
)
from t3d.phantom.phrases_english_words import (
    CORRECTIONS,
    DEVICES,
    FORM_WORDS,
    GENERIC,
    MANY,
    NORMAL,
    NUMBERS,
    PLACE_SETS,
    PLACES,
    SEVERAL_PLACES,
    SIDES,
    STATIONS,
)

_FINDINGS: Mapping[str, FindingPhrases] = {
    "Medical material": MEDICAL_MATERIAL,
    "Arterial wall calcification": ARTERIAL_CALCIFICATION,
    "Cardiomegaly": CARDIOMEGALY,
    "Pericardial effusion": PERICARDIAL_EFFUSION,
    "Coronary artery wall calcification": CORONARY_CALCIFICATION,
    "Hiatal hernia": HIATAL_HERNIA,
    "Lymphadenopathy": LYMPHADENOPATHY,
    "Emphysema": EMPHYSEMA,
    "Atelectasis": ATELECTASIS,
    "Lung nodule": NODULE,
    "Lung opacity": OPACITY,
    "Pulmonary fibrotic sequela": FIBROTIC_SEQUELA,
    "Pleural effusion": PLEURAL_EFFUSION,
    "Mosaic attenuation pattern": MOSAIC,
    "Peribronchial thickening": PERIBRONCHIAL,
    "Consolidation": CONSOLIDATION,
    "Bronchiectasis": BRONCHIECTASIS,
    "Interlobular septal thickening": SEPTAL_THICKENING,
}

ENGLISH = Grammar(
    language="en",
    findings=_FINDINGS,
    joint_absent=(
        (("Pleural effusion", "Pericardial effusion"), "no pleural or pericardial effusion."),
        (("Consolidation", "Lung opacity"), "no consolidation or ground-glass opacity."),
        (("Lung nodule", "Consolidation"), "neither nodules nor consolidation in the lungs."),
        (
            ("Bronchiectasis", "Peribronchial thickening"),
            "no bronchiectasis or bronchial wall thickening.",
        ),
        (
            ("Coronary artery wall calcification", "Arterial wall calcification"),
            "no calcified plaques in the aorta or in the coronary arteries.",
        ),
    ),
    normal=NORMAL,
    generic=GENERIC,
    form_words=FORM_WORDS,
    places=PLACES,
    place_sets=PLACE_SETS,
    stations=STATIONS,
    sides=SIDES,
    devices=DEVICES,
    numbers=NUMBERS,
    many=MANY,
    several_places=SEVERAL_PLACES,
    article="the ",
    joiner=" and ",
    decimal_mark=".",
    corrections=CORRECTIONS,
)
"""The grammar of the phantom's reports; `wording="heldout"` draws from its held-out phrases."""
