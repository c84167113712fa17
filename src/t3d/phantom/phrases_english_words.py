"""English words that fill slots, and sentences that say nothing about the 18 findings."""

from __future__ import annotations

from collections.abc import Mapping

FORM_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "amount": {
        "large": ("large", "sizeable", "considerable"),
        "small": ("small", "minor", "tiny"),
    },
    "degree": {
        "large": ("marked", "severe", "pronounced"),
        "small": ("mild", "slight", "minimal"),
    },
    "degreely": {
        "large": ("markedly", "severely", "considerably"),
        "small": ("mildly", "slightly", "minimally"),
    },
    "few": {
        "large": ("numerous", "extensive", "multiple"),
        "small": ("a few", "scattered", "sparse"),
    },
}

PLACES: Mapping[str, tuple[str, ...]] = {
    "RUL": ("the right upper lobe", "the upper lobe of the right lung"),
    "RML": ("the middle lobe", "the right middle lobe"),
    "RLL": ("the right lower lobe", "the lower lobe of the right lung"),
    "LUL": ("the left upper lobe", "the upper lobe of the left lung"),
    "LLL": ("the left lower lobe", "the lower lobe of the left lung"),
    "LAD": ("the left anterior descending artery", "the anterior interventricular branch"),
    "RCA": ("the right coronary artery", "the right coronary"),
    "LCX": ("the circumflex artery", "the left circumflex branch"),
    "arch": ("the aortic arch", "the arch of the aorta"),
    "aortic arch": ("the aortic arch", "the arch of the aorta"),
    "aorta": ("the thoracic aorta", "the entire thoracic aorta"),
    "thoracic aorta": ("the thoracic aorta", "the entire thoracic aorta"),
    "whole": ("the thoracic aorta", "the entire thoracic aorta"),
    "upper": ("both upper lobes", "the upper lung zones"),
    "lower": ("both lower lobes", "the lower lung zones"),
    "bases": ("the lung bases", "the basal lung segments"),
    "diffuse": ("both lungs", "all lobes"),
}

PLACE_SETS: Mapping[frozenset[str], tuple[str, ...]] = {
    frozenset({"RUL", "LUL"}): ("both upper lobes", "the upper lobes of both lungs"),
    frozenset({"RLL", "LLL"}): ("both lower lobes", "the lower lobes of both lungs"),
    frozenset({"RUL", "RML", "RLL"}): ("all lobes of the right lung", "the whole right lung"),
    frozenset({"LUL", "LLL"}): ("both lobes of the left lung", "the whole left lung"),
}

LUNGS: Mapping[str, tuple[str, ...]] = {
    "": ("both lungs", "the lungs"),
    "right": ("the right lung",),
    "left": ("the left lung",),
    "bilateral": ("both lungs", "the lungs on both sides"),
}
AORTA: Mapping[str, tuple[str, ...]] = {"": ("the thoracic aorta", "the aorta")}
CORONARIES: Mapping[str, tuple[str, ...]] = {"": ("the proximal segments", "the main branches")}

STATIONS: Mapping[str, tuple[str, ...]] = {
    "right paratracheal": ("right paratracheal", "right-sided paratracheal"),
    "left paratracheal": ("left paratracheal", "left-sided paratracheal"),
    "paratracheal": ("paratracheal", "upper mediastinal"),
    "subcarinal": ("subcarinal", "infracarinal"),
    "right hilar": ("right hilar", "right-sided hilar"),
    "left hilar": ("left hilar", "left-sided hilar"),
    "prevascular": ("prevascular", "anterior mediastinal"),
    "aortopulmonary": ("aortopulmonary", "aortopulmonary window"),
    "": ("mediastinal", "thoracic"),
}

SIDES: Mapping[str, tuple[str, str]] = {
    "right": ("right", "right-sided"),
    "left": ("left", "left-sided"),
    "bilateral": ("bilateral", "bilateral"),
}

DEVICES: Mapping[str, tuple[str, ...]] = {
    "pacemaker": (
        "a cardiac pacemaker with its lead",
        "a pectoral pacemaker",
        "a pacemaker generator with an intracardiac lead",
    ),
    "wire": ("sternal wires", "median sternotomy wires", "sternal cerclage wires"),
    "port": ("a port catheter", "an implanted venous port", "a chest wall port system"),
    "line": ("a central venous catheter", "a central line", "a central catheter"),
    "catheter": ("a central venous catheter", "a central line", "a central catheter"),
    "": ("a metallic implant", "an implanted device"),
}

NUMBERS: Mapping[int, tuple[str, ...]] = {
    2: ("two", "a pair of"),
    3: ("three", "three separate"),
    4: ("four", "several"),
    5: ("five", "several"),
}
MANY: tuple[str, ...] = ("several", "multiple", "many")
SEVERAL_PLACES: tuple[str, ...] = ("several lobes", "multiple lung regions")

CORRECTIONS: tuple[tuple[str, str], ...] = (
    (r"\b([Aa]) (?=[aeio])", r"\1n "),  # "a extensive"
    (r"\b([Aa]n?) (?=(?:a few|sparse|scattered)\b)", ""),
)

NORMAL: tuple[str, ...] = (
    "The trachea and main bronchi are patent.",
    "The trachea lies in the midline.",
    "The central airways are open.",
    "The thyroid gland is homogeneous.",
    "The thoracic spine shows age-appropriate degenerative changes.",
    "Vertebral body heights are preserved.",
    "No destructive bone lesion is identified.",
    "The ribs are intact.",
    "The chest wall is symmetric.",
    "Subcutaneous soft tissues are unremarkable.",
    "The skeletal muscles are symmetric and of normal bulk.",
    "The esophagus is not distended.",
    "The diameter of the pulmonary trunk is within the normal range.",
    "The ascending aorta is of normal width.",
    "The great vessels leave the arch in the usual order.",
    "The superior vena cava has a normal course.",
    "The mediastinum is in a central position.",
    "There is no pneumothorax.",
    "Both hemidiaphragms are smooth.",
    "The right hemidiaphragm is slightly higher than the left.",
    "The included part of the liver is homogeneous.",
    "The spleen is not enlarged.",
    "The visible upper abdominal organs are unremarkable.",
    "The adrenal glands are slender.",
    "No free air is seen below the diaphragm.",
    "Stable appearance compared with the previous examination.",
    "No relevant change since the previous study.",
    "There is no earlier examination for comparison.",
    "Image quality is adequate.",
    "Minor respiratory motion limits the assessment of fine detail.",
    "Axial slices with multiplanar reformations were reviewed.",
    "The axillary fat planes are preserved.",
    "The breast tissue is symmetric.",
    "The bone window shows regular mineralisation.",
    "The oblique and horizontal fissures are in the normal position.",
    "The lung volumes are symmetric.",
)
"""Filler of FINDINGS; a test holds that the labeler reads nothing in any of them."""

GENERIC: tuple[str, ...] = (
    "Clinical correlation is recommended.",
    "No acute bone injury.",
    "No pneumothorax.",
    "Follow-up as clinically indicated.",
    "The upper abdominal organs are unremarkable as far as they are included.",
    "Degenerative changes of the thoracic spine without acute bone abnormality.",
    "Otherwise age-appropriate examination.",
    "Findings as described in detail above.",
    "Stable in comparison with the last examination.",
    "The result should be interpreted together with the laboratory values.",
    "Please correlate with the clinical course and with earlier imaging.",
    "No evidence of acute disease of the great vessels.",
    "Central airways patent.",
    "Routine control according to the treating physician.",
    "The remaining structures of the chest appear regular for the age of the patient.",
    "No fracture.",
    "Discussion in the multidisciplinary conference may be considered.",
    "Technically adequate examination.",
    "Supplementary imaging is not required from a radiological point of view.",
)
"""Filler of IMPRESSION, independent of the labels."""
