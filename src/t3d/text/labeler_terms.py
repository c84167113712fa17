r"""English words for the 18 findings of CT-RATE: what names each, and what says it is not there.

Every entry is a regular expression on lower-case text. In the tables `<G>` stands for a gap of up
to nine words inside a clause, `<g>` for one of up to three and `<L>` for a list of places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_GAP = r"(?:[ ,/-]+[\w'#.]+){0,9}?[ ,/-]+"
_LIST = r"(?:[ ,/-]+[\w'#.]+){0,18}?[ ,/-]+"
_SHORT = r"(?:[ ,/-]+[\w'#.]+){0,3}?[ ,/-]+"


@dataclass(frozen=True, slots=True)
class FindingTerms:
    """Patterns of one finding."""

    named: re.Pattern[str]  # the finding is spoken of
    normal: re.Pattern[str] | None = None  # its absence is said without naming it
    elsewhere: re.Pattern[str] | None = None  # a clause that is about another organ


def _any(*patterns: str) -> re.Pattern[str]:
    """Join patterns; `<G>`, `<g>` and `<L>` become gaps of some words."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(joined.replace("<G>", _GAP).replace("<g>", _SHORT).replace("<L>", _LIST))


_FINE = r"(?:normal|natural|unremarkable|regular|within (?:the )?normal (?:limits|range))"
_CALCIUM = r"(?:calcif\w+|calcium|calcific|atherom\w*|atheroscl\w+)"
_AORTIC = (
    r"(?:aort\w+\b(?! valve)|arterial|vascular|aortic arch|supra-?aortic|carotid|subclavian"
    r"|brachiocephalic)"
)
_CORONARY = (
    r"(?:coronar\w+|left anterior descending|anterior interventricular|circumflex|\blad\b"
    r"|\brca\b|\blcx\b)"
)
_BRONCHI = r"(?:bronch[iou]\w*|airways?)"
_GROW = r"(?:enlarged|increased|dilated|above (?:the )?normal|larger than)"
_NOT_CHEST = (
    r"thyroid|adrenal|breast|hepatic|\bliver|renal|kidney|parotid|prostate|subcutaneous|skin"
    r"|pancrea\w+|splenic|ovar\w+|brain|nodular contour"
)

TERMS: Mapping[str, FindingTerms] = {
    "Medical material": FindingTerms(
        _any(
            r"\bpace-?makers?\b|\bicd\b|defibrillators?|\bport(?:-a-cath| catheter| system)?s?\b",
            r"catheters?|\b(?:central|venous|picc|arterial) lines?\b|\bstents?\b",
            r"\b(?:sternal|sternotomy|cerclage|surgical|metal\w*|intracardiac|pacing)<g>"
            r"(?:wires?|clips?|sutures?|staples?|leads?|material)\b",
            r"sternotomy|prosthe\w+|valve replacement|hardware|\bimplant(?:s|ed)?\b|endoprosth\w+",
            r"\bmedical (?:device|material)s?|foreign (?:material|bod\w+)|\bdevices?\b|electrodes?",
            r"\b(?:endotracheal|tracheostomy|nasogastric|feeding|chest|drainage) (?:tube|drain)s?",
        )
    ),
    "Arterial wall calcification": FindingTerms(
        _any(
            rf"{_CALCIUM}(?! (?:granulom|nodul|lymph|node))<G>{_AORTIC}",
            rf"{_AORTIC}<G>{_CALCIUM}(?! (?:granulom|nodul|lymph|node))",
            rf"{_AORTIC}<g>plaques?|plaques?<g>{_AORTIC}|arteriosclero\w+",
        )
    ),
    "Cardiomegaly": FindingTerms(
        _any(
            r"cardiomegal\w*|(?:enlarged|enlargement)(?: of)?(?: the)? (?:heart|cardiac\w*)",
            rf"\b(?:heart|cardiac)(?: (?:size|silhouette|contour|shadow))?<g>{_GROW}",
            r"cardiac<g>enlargement|heart enlargement",
            r"cardiothoracic (?:ratio|index)<g>(?:increased|raised|elevated|high)",
            r"diameter of the heart<g>(?:increased|enlarged)",
            r"increased (?:cardiothoracic|heart size|cardiac size)",
        ),
        _any(
            rf"\bheart (?:size |silhouette )?(?:is|appears|remains)<g>{_FINE}(?! ?rhythm)",
            rf"\bcardiac (?:size|silhouette|contours?|dimensions?)<g>{_FINE}",
            rf"\b{_FINE} (?:size of the heart|heart size|cardiac size|sized heart)",
            rf"cardiothoracic (?:ratio|index)<g>{_FINE}",
        ),
    ),
    "Pericardial effusion": FindingTerms(
        _any(
            r"pericardi\w+(?:,? (?:or|and) pleural)?<g>(?:effusions?|fluid)",
            r"(?:fluid|effusions?)<g>(?:around|surrounding|encircling) the heart",
            r"(?:fluid|effusions?)<G>pericardi\w+|hemopericardium",
            r"pericardial (?:space|sac|cavity)<G>fluid",
        )
    ),
    "Coronary artery wall calcification": FindingTerms(
        _any(
            rf"{_CORONARY}<G>(?:{_CALCIUM}|plaques?|sclero\w+|stents?)",
            rf"(?:{_CALCIUM}|plaques?|sclero\w+)(?! (?:granulom|nodul|lymph|node))<G>{_CORONARY}",
        )
    ),
    "Hiatal hernia": FindingTerms(
        _any(
            r"hiat(?:al|us)<g>herni\w+|herni\w+<G>(?:hiatus|mediastin\w+)",
            r"(?:sliding|axial|para-?esophageal|gastric|stomach)<g>herni\w+",
            r"herni\w+ of the (?:gastric|stomach)|intrathoracic stomach",
            r"stomach<g>(?:above|over) the diaphragm",
            r"(?:stomach|gastric fundus|fundus)<g>(?:protrud\w+|herniat\w+|extend\w+)<G>"
            r"(?:mediastin\w+|thora\w+|chest)",
        ),
        _any(r"stomach (?:is|lies)<g>below the diaphragm"),
        _any(r"inguinal|umbilical|ventral hernia|incisional"),
    ),
    "Lymphadenopathy": FindingTerms(
        _any(
            r"adenopath\w*|lymphadenomegal\w*",
            r"(?:enlarge\w*|patholog\w+|prominent|large|increased|bulky)<L>"
            r"(?:lymph )?nod(?:es?|al)\b",
            r"nod(?:es?|al)<L>(?:enlarge\w*|patholog\w+|prominent|increased in size)",
        ),
        _any(
            rf"lymph nodes<g>(?:of )?{_FINE}(?: in)? ?(?:size)?",
            r"(?:sub-?centimeter|small|normal-?sized?) (?:\w+ )?(?:lymph )?nodes",
        ),
    ),
    "Emphysema": FindingTerms(
        _any(
            r"emphysem(?<!subcutaneous emphysem)(?<!surgical emphysem)(?<!tissue emphysem)"
            r"(?<!wall emphysem)(?<!mediastinal emphysem)\w*",
            r"\bbulla[es]?\b|\bbullous\b|centrilobular<g>lucenc\w+",
            r"(?:parenchymal|lung)<g>destruction|rarefaction of the lung",
            r"low[- ]attenuation areas without<g>walls",
        )
    ),
    "Atelectasis": FindingTerms(
        _any(
            r"atelecta\w+|(?:volume loss|loss of volume)",
            r"collapse\w*<G>(?:lungs?|lob\w+|segment\w*)\b",
            r"(?:lungs?|lob\w+|segment\w*)<g>collapse\w*",
        ),
        elsewhere=_any(r"vertebra\w*|\btrachea\w*"),
    ),
    "Lung nodule": FindingTerms(
        _any(
            r"nodul\w+|coin lesions?",
            r"\bround(?:ed)?<g>(?:lesions?|focus|foci|densit\w+)",
        ),
        elsewhere=_any(_NOT_CHEST),
    ),
    "Lung opacity": FindingTerms(
        _any(
            r"\bopacit\w+|opacifi\w+|ground[- ]?glass|\binfiltrat(?:e|es|ion|ions)\b",
            r"\bhazy<g>(?:densit\w+|attenuation|increase)|density increase",
            r"increase\w* in (?:parenchymal |lung )?density|air-?space disease",
        ),
        _any(r"\blungs (?:are|appear|remain) (?:grossly )?clear(?! aside)|\bclear lungs\b"),
        _any(r"sinus\w*|mastoid\w*|ostiomeatal|maxillary|orbit\w*"),
    ),
    "Pulmonary fibrotic sequela": FindingTerms(
        _any(
            r"(?<!cystic )\bfibro(?:tic|sis|us)\b|\bscar(?:s|ring|red)?\b|cicatri\w+|sequel\w+",
            r"\breticular\b|reticulation\w*|honeycomb\w*|parenchymal bands?",
        ),
        elsewhere=_any(_NOT_CHEST),
    ),
    "Pleural effusion": FindingTerms(
        _any(
            r"pleural(?:,? (?:or|and) pericardial)?<g>(?:effusions?|fluid)|hydrothorax|hemothorax",
            r"(?:fluid|effusions?)<g>(?:pleura\w*|costophrenic|hemithora\w+)",
            r"pleural (?:spaces?|cavit\w+)<G>fluid",
            r"(?<!pericardial )(?<!joint )(?<!pleural )\beffusions?\b"
            r"(?! (?:around|surrounding|encircling|in|within|of)"
            r" (?:the )?(?:heart|pericard|joint))",
        ),
        elsewhere=_any(r"\bjoints?\b|knee|\bhip\b|middle ear|subdural|brain"),
    ),
    "Mosaic attenuation pattern": FindingTerms(
        _any(
            r"\bmosaic\w*|air[- ]trapping",
            r"(?:inhomogeneous|heterogeneous)<g>(?:attenuation|density|aeration)",
        ),
        _any(r"(?:lung|parenchymal) (?:attenuation|density|parenchyma) is (?:homogeneous|uniform)"),
    ),
    "Peribronchial thickening": FindingTerms(
        _any(
            r"peri-?bronch\w+<g>(?:thick\w+|cuff\w+)|cuffing",
            rf"thick\w*(?:-walled)?<g>{_BRONCHI}|{_BRONCHI}(?: walls?)?<g>thick(?:en\w*|-walled)",
        ),
        _any(rf"{_BRONCHI} walls? (?:is|are) (?:of )?(?:normal|regular|thin)"),
    ),
    "Consolidation": FindingTerms(
        _any(r"consolidat\w+|air[- ]?bronchograms?|(?:air-?space|alveolar) filling")
    ),
    "Bronchiectasis": FindingTerms(
        _any(
            r"bronchi(?:ol)?ecta\w+|tram[ -]?tracks?|signet[- ]ring",
            rf"(?:dilat\w+|ectatic|widen\w+)<g>{_BRONCHI}",
            rf"{_BRONCHI}<g>(?:dilat\w+|ectatic|widen\w+)",
        ),
        _any(r"bronchi (?:is|are) (?:of )?(?:normal|regular) (?:in )?(?:calib\w+|width|diameter)"),
    ),
    "Interlobular septal thickening": FindingTerms(
        _any(
            r"(?:interlobular|septa\w*)<g>thicken\w*|thicken\w*<g>sept(?:a|al|ae|um)\b",
            r"septal lines|kerley|(?:prominent|prominence)<g>septa\w*|crazy[- ]paving",
        ),
        _any(r"septa (?:is|are) (?:of )?(?:normal|thin|regular)"),
        _any(r"nasal|sinus\w*|ventricular septum"),
    ),
}
"""CT-RATE name -> patterns."""
