r"""English words for the 18 findings of CT-RATE: what names each, and what says it is not there.

Every entry is a regular expression on lower-case text. In the tables `<G>` stands for a gap of up
to nine words inside a clause, `<g>` for one of up to three and `<L>` for a list of places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from t3d.text.findings import FindingTerms

_GAP = r"(?:[ ,/-]+[\w'#.]+){0,9}?[ ,/-]+"
_LIST = r"(?:[ ,/-]+[\w'#.]+){0,18}?[ ,/-]+"
_SHORT = r"(?:[ ,/-]+[\w'#.]+){0,3}?[ ,/-]+"


def any_of(*patterns: str) -> re.Pattern[str]:
    """Join patterns; `<G>`, `<g>` and `<L>` become gaps of some words."""
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(joined.replace("<G>", _GAP).replace("<g>", _SHORT).replace("<L>", _LIST))


def words(text: str) -> tuple[str, ...]:
    """Split a line of words."""
    return tuple(text.split())


_FINE = r"(?:normal|natural|unremarkable|regular|within (?:the )?normal (?:limits|range))"
_CALCIUM = r"(?:(?<!valvular )(?<!valve )calci\w+|atherom\w*|atheroscl\w+)"
_AORTIC = (
    r"(?:aort\w+\b(?! valve| stenosis)|arterial|vascular|aortic arch|supra-?aortic|carotid"
    r"|subclavian|brachiocephalic)"
)
_CORONARY = (
    r"(?:coronar\w+|left anterior descending|anterior interventricular|circumflex|\blad\b"
    r"|\brca\b|\blcx\b)"
)
_BRONCHI = r"(?:bronch[iou]\w*|airways?)"
_GROW = r"(?:enlarged|increased|dilated|above (?:the )?normal|larger than)"
_LUNG = r"(?:bases?|apices|fields?|parenchyma)"
_ARE = r"(?:is|are|was|were|appears?|remains?|otherwise)"
_NOT_ONLY = r"(?! (?:of|from|to)\b)(?! volume)"
_NOT_CHEST = (
    r"thyroid|adrenal|breast|hepatic|\bliver|renal|kidney|parotid|prostate|subcutaneous|skin"
    r"|pancrea\w+|splenic|ovar\w+|brain|nodular contour"
)

TERMS: Mapping[str, FindingTerms] = {
    "Medical material": FindingTerms(
        any_of(
            r"\bpace-?makers?\b|\bicd\b|defibrillators?|\bport(?:-a-cath| catheter| system)?s?\b",
            r"catheters?|\b(?:central|venous|picc|arterial) lines?\b|\bstents?\b",
            r"\b(?:sternal|sternotomy|cerclage|surgical|metal\w*|intracardiac|pacing)<g>"
            r"(?:wires?|clips?|sutures?|staples?|leads?|material)\b",
            r"sternotomy|prosthe\w+|valve replacement|hardware|\bimplant(?:s|ed)?\b|endoprosth\w+",
            r"\b(?:endoluminal|endovascular|stent|aort\w+|prosthetic)[- ]grafts?|arthroplast\w+",
            r"\b(?:ventriculoperitoneal|vp) shunts?|\b(?:hip|knee|shoulder|joint) replacement",
            r"\bmedical (?:device|material)s?|foreign (?:material|bod\w+)|\bdevices?\b|electrodes?",
            r"\b(?:endotracheal|tracheostomy|nasogastric|feeding|chest|drainage) (?:tube|drain)s?",
        ),
        stems=words(
            "pace icd defib port catheter line stent wire clip sutur stapl lead material sternotom"
            " prosthe replacement hardware implant device foreign electrode tube drain graft shunt"
            " arthroplast"
        ),
    ),
    "Arterial wall calcification": FindingTerms(
        any_of(
            rf"{_CALCIUM}(?! (?:granulom|nodul|lymph|node))<G>{_AORTIC}",
            rf"{_AORTIC}<G>{_CALCIUM}(?! (?:granulom|nodul|lymph|node))",
            rf"{_AORTIC}<g>plaques?|plaques?<g>{_AORTIC}|arteriosclero\w+",
        ),
        bare=(any_of(r"atheroscl\w+"), any_of(rf"{_CORONARY}|stenos[ie]s|\bdisease")),
        stems=words("calci athero plaque arterioscl"),
    ),
    "Cardiomegaly": FindingTerms(
        any_of(
            r"cardiomegal\w*|(?:enlarged|enlargement)(?: of)?(?: the)? (?:heart|cardiac\w*)",
            rf"\b(?:heart|cardiac)(?: (?:size|silhouette|contour|shadow))?<g>{_GROW}",
            r"cardiac<g>enlargement|heart enlargement",
            r"cardiothoracic (?:ratio|index)<g>(?:increased|raised|elevated|high)",
            r"diameter of the heart<g>(?:increased|enlarged)",
            r"increased (?:cardiothoracic|heart size|cardiac size)",
        ),
        any_of(
            rf"\bheart (?:size |silhouette )?(?:and [a-z ]{{3,24}} )?{_ARE}<g>{_FINE}(?! ?rhythm)",
            rf"\bcardiac (?:size|silhouette|contours?|dimensions?)<g>{_FINE}",
            rf"\b{_FINE} (?:size of the heart|heart size|cardiac (?:size|silhouette)|sized heart)",
            rf"cardiothoracic (?:ratio|index)<g>{_FINE}",
        ),
        stems=words("heart cardi"),
    ),
    "Pericardial effusion": FindingTerms(
        any_of(
            r"pericardi\w+(?:,? (?:or|and) pleural)?<g>(?:effusions?|fluid)",
            r"(?:fluid|effusions?)<g>(?:around|surrounding|encircling) the heart",
            r"(?:fluid|effusions?)<G>pericardi\w+|hemopericardium",
            r"pericardial (?:space|sac|cavity)<G>fluid",
        ),
        any_of(
            rf"\bpericardium(?:,? [a-z ]{{0,24}})? (?:is|are|was|appears)<g>{_FINE}",
            rf"\bpericardium ?:[ ,]*{_FINE}|\bnormal pericardium",
        ),
        stems=words("pericard heart"),
    ),
    "Coronary artery wall calcification": FindingTerms(
        any_of(
            rf"{_CORONARY}<G>(?:{_CALCIUM}|plaques?|sclero\w+|stents?)",
            rf"(?:{_CALCIUM}|plaques?|sclero\w+)(?! (?:granulom|nodul|lymph|node))<G>{_CORONARY}",
        ),
        stems=words("coronar anterior circumflex lad rca lcx"),
    ),
    "Hiatal hernia": FindingTerms(
        any_of(
            r"hiat(?:al|us)<g>herni\w+|herni\w+<G>(?:hiatus|mediastin\w+)",
            r"(?:sliding|axial|para-?esophageal|gastric|stomach)<g>herni\w+",
            r"herni\w+ of the (?:gastric|stomach)|intrathoracic stomach",
            r"stomach<g>(?:above|over) the diaphragm",
            r"(?:stomach|gastric fundus|fundus)<g>(?:protrud\w+|herniat\w+|extend\w+)<G>"
            r"(?:mediastin\w+|thora\w+|chest)",
        ),
        any_of(r"stomach (?:is|lies)<g>below the diaphragm"),
        any_of(r"inguinal|umbilical|ventral hernia|incisional"),
        stems=words("herni stomach fundus"),
    ),
    "Lymphadenopathy": FindingTerms(
        any_of(
            r"adenopath\w*|lymphadenomegal\w*",
            r"(?:enlarge\w*|patholog\w+|prominent|large|increased|bulky)<L>"
            r"(?:lymph )?nod(?:es?|al)\b",
            r"nod(?:es?|al)<L>(?:enlarge\w*|patholog\w+|prominent|increased in size)",
        ),
        any_of(
            rf"lymph nodes<g>(?:of )?{_FINE}(?: in)? ?(?:size)?",
            r"(?:sub-?centimeter|small|normal-?sized?) (?:\w+ )?(?:lymph )?nodes",
        ),
        stems=words("node nodal adenopath adenomegal"),
    ),
    "Emphysema": FindingTerms(
        any_of(
            r"emphysem(?<!subcutaneous emphysem)(?<!surgical emphysem)(?<!tissue emphysem)"
            r"(?<!wall emphysem)(?<!mediastinal emphysem)\w*",
            r"\bbulla[es]?\b|\bbullous\b|centrilobular<g>lucenc\w+",
            r"(?:parenchymal|lung)<g>destruction|rarefaction of the lung",
            r"low[- ]attenuation areas without<g>walls",
        ),
        stems=words("emphysem bull lucenc destruction rarefaction attenuation"),
    ),
    "Atelectasis": FindingTerms(
        any_of(
            r"atelecta\w+|(?:volume loss|loss of volume)",
            r"collapse\w*<G>(?:lungs?|lob\w+|segment\w*)\b",
            r"(?:lungs?|lob\w+|segment\w*)<g>collapse\w*",
        ),
        elsewhere=any_of(r"vertebra\w*|\btrachea\w*"),
        stems=words("atelect volume collaps"),
    ),
    "Lung nodule": FindingTerms(
        any_of(
            r"nodul\w+|coin lesions?",
            r"\bround(?:ed)?<g>(?:lesions?|focus|foci|densit\w+)",
        ),
        elsewhere=any_of(_NOT_CHEST),
        stems=words("nodul coin round"),
    ),
    "Lung opacity": FindingTerms(
        any_of(
            r"\bopacit\w+|opacifi\w+|ground[- ]?glass|\binfiltrat(?:e|es|ion|ions)\b",
            r"\bhazy<g>(?:densit\w+|attenuation|increase)|density increase",
            r"increase\w* in (?:parenchymal |lung )?density|air-?space disease",
        ),
        any_of(
            rf"\blungs?(?: {_LUNG})?(?: {_ARE}){{0,2}}(?: \w+ly)? (?:clear|{_FINE}){_NOT_ONLY}",
            rf"\b(?:clear|normal) lungs?(?: {_LUNG})?\b(?! volume)",
            rf"\blungs?(?: {_LUNG})?[a-z, ]{{0,40}}: ?,? ?(?:clear|{_FINE})",
        ),
        any_of(r"sinus\w*|mastoid\w*|ostiomeatal|maxillary|orbit\w*"),
        stems=words("opaci glass infiltr hazy densit space lung"),
    ),
    "Pulmonary fibrotic sequela": FindingTerms(
        any_of(
            r"(?<!cystic )\bfibro(?:tic|sis|us)\b|\bscar(?:s|ring|red)?\b|cicatri\w+|sequel\w+",
            r"\breticular\b|reticulation\w*|honeycomb\w*|parenchymal bands?",
        ),
        elsewhere=any_of(_NOT_CHEST, r"valv\w+|aortic fibrosis|myocardi\w+|uter\w+"),
        stems=words("fibro scar cicatr sequel reticul honeycomb band"),
    ),
    "Pleural effusion": FindingTerms(
        any_of(
            r"pleural(?:,? (?:or|and) pericardial)?<g>(?:effusions?|fluid)|hydrothorax|hemothorax",
            r"(?:fluid|effusions?)<g>(?:pleura\w*|costophrenic|hemithora\w+)",
            r"pleural (?:spaces?|cavit\w+)<G>fluid",
        ),
        bare=(
            any_of(
                r"(?<!joint )(?<!pleural )\beffusions?\b"
                r"(?! (?:around|surrounding|encircling|in|within|of) (?:the )?(?:heart|joint))"
            ),
            any_of(r"pericardi\w+"),
        ),
        elsewhere=any_of(r"\bjoints?\b|knee|\bhip\b|middle ear|subdural|brain"),
        stems=words("pleura effusion thorax fluid"),
    ),
    "Mosaic attenuation pattern": FindingTerms(
        any_of(
            r"\bmosaic\w*|air[- ]trapping",
            r"(?:inhomogeneous|heterogeneous)<g>(?:attenuation|density|aeration)",
        ),
        any_of(
            r"(?:lung|parenchymal) (?:attenuation|density|parenchyma) is (?:homogeneous|uniform)"
        ),
        stems=words("mosaic trapping geneous uniform"),
    ),
    "Peribronchial thickening": FindingTerms(
        any_of(
            r"peri-?bronch\w+<g>(?:thick\w+|cuff\w+)|cuffing",
            rf"thick\w*(?:-walled)?<g>{_BRONCHI}|{_BRONCHI}(?: walls?)?<g>thick(?:en\w*|-walled)",
        ),
        any_of(rf"{_BRONCHI} walls? (?:is|are) (?:of )?(?:normal|regular|thin)"),
        stems=words("bronch cuff airway"),
    ),
    "Consolidation": FindingTerms(
        any_of(r"consolidat\w+|air[- ]?bronchograms?|(?:air-?space|alveolar) filling"),
        elsewhere=any_of(r"fractur\w+|\bcallus"),
        stems=words("consolid bronchogram filling"),
    ),
    "Bronchiectasis": FindingTerms(
        any_of(
            r"bronchi(?:ol)?ecta\w+|tram[ -]?tracks?|signet[- ]ring",
            rf"(?:dilat\w+|ectatic|widen\w+)<g>{_BRONCHI}",
            rf"{_BRONCHI}<g>(?:dilat\w+|ectatic|widen\w+)",
        ),
        any_of(
            r"bronchi (?:is|are) (?:of )?(?:normal|regular) (?:in )?(?:calib\w+|width|diameter)"
        ),
        stems=words("bronch tram signet airway"),
    ),
    "Interlobular septal thickening": FindingTerms(
        any_of(
            r"(?:interlobular|septa\w*)<g>thicken\w*|thicken\w*<g>sept(?:a|al|ae|um)\b",
            r"septal lines|kerley|(?:prominent|prominence)<g>septa\w*|crazy[- ]paving",
        ),
        any_of(r"septa (?:is|are) (?:of )?(?:normal|thin|regular)"),
        any_of(r"nasal|sinus\w*|ventricular septum"),
        stems=words("sept interlobul kerley crazy"),
    ),
}
"""CT-RATE name -> patterns."""
