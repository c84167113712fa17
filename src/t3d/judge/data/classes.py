"""Class lists that protocols name, and how labels of a corpus become them."""

from __future__ import annotations

from collections.abc import Mapping

from t3d.cohort.sources.rad_chestct import MAPPINGS as RAD_CHESTCT
from t3d.errors import ProtocolError
from t3d.text.findings import CT_RATE_18

ARTERIAL = "Arterial wall calcification"
CORONARY = "Coronary artery wall calcification"

_FVLM_ORDER = (
    *("Emphysema", "Atelectasis", "Lung nodule", "Lung opacity", "Pulmonary fibrotic sequela"),
    *("Pleural effusion", "Mosaic attenuation pattern", "Peribronchial thickening"),
    *("Consolidation", "Bronchiectasis", "Interlobular septal thickening", "Cardiomegaly"),
    *("Pericardial effusion", CORONARY, "Hiatal hernia", ARTERIAL),
)

CLASSES: Mapping[str, tuple[str, ...]] = {
    # arXiv:2403.17834, order of its label files
    "ct_rate18": CT_RATE_18,
    # alibaba-damo-academy/fvlm@d768ec1, order of its prompts; HLIP asks for the same
    "fvlm16": _FVLM_ORDER,
    # ibrahimethemhamamci/CT-CLIP@a2a155c evaluate_external: columns 0-3, 5-12, 14-17
    "rad_chestct16": tuple(
        name for name in CT_RATE_18 if name not in (CORONARY, "Mosaic attenuation pattern")
    ),
    # Zch0414/hlip@fe8d764, Rad-ChestCT: asked, and scored after both calcifications are merged
    "hlip15": tuple(name for name in _FVLM_ORDER if name != "Mosaic attenuation pattern"),
    "hlip14": tuple(
        name for name in _FVLM_ORDER if name not in (CORONARY, "Mosaic attenuation pattern")
    ),
    # arXiv:2406.06512, by the names of its released labels; label -1 = missing
    "merlin30": (
        *("submucosal_edema", "renal_hypodensities", "aortic_valve_calcification"),
        *("coronary_calcification", "thrombosis", "metastatic_disease", "pancreatic_atrophy"),
        *("renal_cyst", "osteopenia", "surgically_absent_gallbladder", "atelectasis"),
        *("abdominal_aortic_aneurysm", "anasarca", "hiatal_hernia", "lymphadenopathy"),
        *("prostatomegaly", "biliary_ductal_dilation", "cardiomegaly", "splenomegaly"),
        *("hepatomegaly", "atherosclerosis", "ascites", "pleural_effusion", "hepatic_steatosis"),
        *("appendicitis", "gallstones", "hydronephrosis", "bowel_obstruction", "free_air"),
        "fracture",
    ),
    # som-shahlab/INSPECT_public@01f5830
    "inspect8": (
        "pe_positive_nlp",
        *("1_month_mortality", "6_month_mortality", "12_month_mortality"),
        *("1_month_readmission", "6_month_readmission", "12_month_readmission", "12_month_PH"),
    ),
}
"""Class lists by name."""

MAPPINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    **RAD_CHESTCT,
    # Zch0414/hlip@fe8d764: as the standard, but fibrosis, and neither devices nor nodes
    "hlip": {
        name: ("fibrosis",) if name == "Pulmonary fibrotic sequela" else own
        for name, own in RAD_CHESTCT["standard"].items()
        if name not in ("Medical material", "Lymphadenopathy")
    },
}
"""Mapping -> finding -> a corpus's own labels, any of which makes it present."""


def class_list(name: str, *, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Find a class list by name.

    Args:
        name: One of `CLASSES`; "" = the default.
        default: What an empty name means.

    Raises:
        ProtocolError: There is none of that name.
    """
    if not name:
        return default
    if name not in CLASSES:
        raise ProtocolError(
            f"class list {name!r} is unknown", expected=", ".join(CLASSES), fix="name one of them"
        )
    return CLASSES[name]
