"""Sentences of prompt sets, by the name of the set.

A wording is a pair of sentences around a class name, present and absent. `{Name}` is the name as
its class list has it, with a capital letter; `{name}` starts in lower case.
"""

from __future__ import annotations

from collections.abc import Mapping

Wording = tuple[str, str]  # present, absent

TEMPLATE: tuple[Wording, ...] = (
    ("The examination shows {name}.", "The examination shows no {name}."),
    ("{Name} is present in the chest.", "No {name} in the chest."),
    ("There is evidence of {name}.", "There is no evidence of {name}."),
)
"""The set `template`. Our wording."""

CTCLIP: tuple[Wording, ...] = (("{Name} is present.", "{Name} is not present."),)
"""ibrahimethemhamamci/CT-CLIP@a2a155c, scripts/zero_shot.py."""

RADFINDER: tuple[Wording, ...] = (
    ("{Name}.", "No {Name}."),
    ("Findings are compatible with {Name}.", "Findings are not compatible with {Name}."),
    ("There is {Name}.", "There is no {Name}."),
    ("{Name} is seen.", "{Name} is not seen."),
    ("{Name}.", "Not {Name}."),
    ("{Name} is observed.", "{Name} is not observed."),
    ("{Name} is present.", "{Name} is not present."),
)
"""lmb-freiburg/radfinder@7c6ab92, tasks/binary_zs_ctrate_task.py; names as in the label files."""

# The 16 classes of fVLM in its order -> what it calls them
_FVLM_NAMES: Mapping[str, str] = {
    "Emphysema": "Emphysema",
    "Atelectasis": "Atelectatic",
    "Lung nodule": "Nodule",
    "Lung opacity": "Opacity",
    "Pulmonary fibrotic sequela": "Pulmonary fibrotic",
    "Pleural effusion": "Pleural effusion",
    "Mosaic attenuation pattern": "Mosaic attenuation pattern",
    "Peribronchial thickening": "Peribronchial thickening",
    "Consolidation": "Consolidation",
    "Bronchiectasis": "Bronchiectasis",
    "Interlobular septal thickening": "Interlobular septal thickening",
    "Cardiomegaly": "Cardiomegaly",
    "Pericardial effusion": "Pericardial effusion",
    "Coronary artery wall calcification": "Coronary artery wall calcification",
    "Hiatal hernia": "Hiatal hernia",
    "Arterial wall calcification": "Arterial wall calcification",
}


def _hlip(finding: str) -> Wording:
    """Both sentences of HLIP; after "Not" a name starts in lower case."""
    denied = "atelectatic" if finding == "Atelectasis" else finding[:1].lower() + finding[1:]
    return f"The volume shows: {finding}.", f"The volume shows: Not {denied}."


BY_FINDING: Mapping[str, Mapping[str, Wording]] = {
    # alibaba-damo-academy/fvlm@d768ec1
    "fvlm": {finding: (f"{name}.", f"Not {name}.") for finding, name in _FVLM_NAMES.items()},
    # Zch0414/hlip@fe8d764, template of the whole volume
    "hlip": {finding: _hlip(finding) for finding in _FVLM_NAMES},
}
"""Prompt set -> finding -> one pair of sentences."""

AROUND_NAMES: Mapping[str, tuple[Wording, ...]] = {
    "template": TEMPLATE,
    "ctclip": CTCLIP,
    "radfinder": RADFINDER,
}
"""Prompt set -> pairs of sentences around any class name."""

SOURCES: Mapping[str, str] = {
    "template": "class names in sentences (t3d.judge.data.templates), our wording",
    "ctclip": "CT-CLIP, scripts/zero_shot.py",
    "fvlm": "fVLM, prompts of eval.py",
    "hlip": "HLIP, template of the whole volume",
    "radfinder": "RadFinder, seven templates of binary_zs_ctrate_task.py",
}
