r"""German: what denies, doubts and bounds a statement, and words for the 18 findings of CT-RATE.

Every entry is a regular expression on lower-case text whose umlauts are spelled out (ae, oe, ue,
ss), because reports are written both ways. German joins nouns, so most terms have no word
boundary before them ("pleuraerguss", "winkelerguss").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from t3d.text.findings import FindingTerms
from t3d.text.labeler_terms import any_of, words
from t3d.text.scope import Cues

_SEEN = (
    r"nachweisbar\w*|nachgewiesen|nachzuweisen|abgrenzbar\w*|abgegrenzt|abzugrenzen|erkennbar\w*"
    r"|sichtbar\w*|darstellbar\w*|dargestellt|vorhanden\w*|zu sehen|ersichtlich|auszumachen"
    r"|feststellbar|festzustellen|objektivierbar|gefunden|sicherbar|vorliegend|mehr"
)
_FINITE = (
    r"(?:ist|sind|war|waren|wird|werden|liegt|liegen|laesst|lassen|findet|finden|zeigt|zeigen"
    r"|besteht|bestehen|stellt|stellen|gelingt|gelingen)"
)

GERMAN = Cues(
    spelled=True,
    split=re.compile(
        r"[;\n]|\b(?:aber|jedoch|allerdings|hingegen|dagegen|sondern|waehrend|obwohl|obgleich"
        r"|wenngleich|bis auf|abgesehen von|mit ausnahme|ausser|neben|nebst)\b"
    ),
    mute=re.compile(
        r"\b(?:kein\w*|nicht|ohne)\b"
        r"(?: (?:wesentlich\w*|signifikant\w*|relevant\w*|sicher\w*|deutlich\w*|nennenswert\w*"
        r"|eindeutig\w*|weiter\w*|zeichen einer|hinweis auf eine))* "
        r"(?:aenderung\w*|veraenderung\w* (?:de[rs]|zu)|veraendert\w*|geaendert|zunahme"
        r"|groessenzunahme|abnahme|progred\w+|groessenprogred\w+|progress\w*|dynamik|differenz"
        r"|groesser|vergroesserung de[rs]|rueckbildung|rueckgang|regredien\w+)\b"
        r"|\b(?:kein\w*|ohne) \w*(?:groessenzunahme|groessenprogred\w+|befundaenderung)\b"
        r"|\bnicht (?:nur|zuletzt|mehr groesser|ganz|vollstaendig (?:rueck|regred)\w+)\b"
        r"|\b(?:nicht|noch nicht|zuvor nicht|noch kein\w*) (?:vorbeschrieben|vorbestehend)\w*"
        r"|\bin der (?:voruntersuchung|voraufnahme)\w* (?:noch )?(?:nicht|kein\w*)\b(?: \w+)?"
        r"|\bzuvor (?:noch )?nicht\b(?: \w+)?|\bkein\w* zweifel\b|\bkeine voruntersuchung\w*"
    ),
    denied_before=re.compile(
        r"\b(?:kein\w*|ohne|nicht|weder|noch|nie|fehlend\w*|fehlen|fehlt|ausschluss|ausgeschlossen"
        r"|frei von|\w*(?:kalk|kalkungs|erguss|fluessigkeits|infiltrat|plaque)frei\w*|statt"
        r"|anstelle|negativ fuer"
        r"|(?:vollstaendig\w*|komplett\w*|kompletter?) (?:resorbiert\w*|rueckbildung|regredienz"
        r"|rueckgang|resorption|aufgeloest\w*|regredient\w*)(?: de[rs]| von)?)\b"
    ),
    denied_after=re.compile(
        rf"(?:\b(?:nicht|nie|auch nicht) (?:mehr |wesentlich |eindeutig |signifikant )?"
        rf"(?:{_SEEN}|{_FINITE} vor|vor\b|nach\w*)|(?<!, )\bnicht ?\.? ?$"
        rf"|\b{_FINITE} (?:sich )?(?:\w+ )?(?:nicht|keine?)\b"
        r"|\bausgeschlossen|\bunwahrscheinlich|\bfehlend\w*|\bfehlen\b|\bfehlt\b"
        r"|\b(?:vollstaendig|komplett|ganz)\w* (?:rueckgebildet|zurueckgebildet|"
        r"ruecklaeufig|resorbiert|regredient|aufgeloest|verschwunden)"
        r"|\b(?:wurden?|ist|sind) (?:\w+ )?entfernt|: ?(?:kein\w*|nein|nicht|negativ))"
    ),
    unsure_before=re.compile(
        r"(?:\b(?:moeglich(?:e|er|es|en|em|erweise)|eventuell\w*|evtl\.?|fraglich\w*|frage nach"
        r"|verdacht auf|v\. ?a\.?|va\b|verdaechtig\w* auf|suspekt auf|unklar\w*|angedeutet\w*"
        r"|zum ausschluss|ausschluss von\b(?=.*\bempf)|differentialdiagnos\w+|differenzialdiagn\w+"
        r"|dd\b|anamnestisch\w*|bekannte anamnese|koennte\w*|koennen|duerfte\w* am ehesten"
        r"|denkbar\w*|kein\w* (?:neu\w*|weiter\w*|zusaetzlich\w*|sonstig\w*|andere\w*)"
        r"|falls|sofern|nicht sicher\w*))"
    ),
    unsure_after=re.compile(
        r"\bnicht (?:sicher |voellig |gaenzlich |mit sicherheit |zu )?(?:auszuschliessen"
        r"|ausgeschlossen|ausschliessbar|beurteilbar|abgrenzbar von)"
        r"|\b(?:kann|koennen) nicht (?:sicher |voellig )?ausgeschlossen"
        r"|\bnicht (?:ausreichend |sicher |adaequat )?(?:beurteilbar|beurteilt|zu beurteilen)"
        r"|\beingeschraenkt beurteilbar|\b(?:moeglich|denkbar|fraglich|vorstellbar|eventuell)\b"
        r"|\bin betracht|\bzu erwaegen|\bnicht sicher\b|\?"
    ),
    restart=re.compile(
        r",? und (?:der|die|das|ein|eine)\b|, (?:der|die|das|ein|eine|einzelne?|mehrere|mit"
        r"|klein\w*|gross\w*|geringe?\w*|deutlich\w*|schmal\w*|malignitaet)\b"
        r"|\b(?:bei|infolge|aufgrund) (?:bekannte\w*|vorbestehende\w*|vorhandene\w*|eine[mr])\b"
        r"|\b(?:ist|sind) (?:vergroessert|verdickt|erweitert|verbreitert)\b"
        r"|(?:, |\bes )(?:besteht|bestehen|findet|finden|zeigt|zeigen)\b"
    ),
)
"""Cues of German reports; our choice."""

_FINE = r"(?:unauffaellig\w*|normal\w*|regelrecht\w*|regulaer\w*|zart\w*|normgross\w*)"
_CALCIUM = r"(?:\w*verkalk\w+|kalzif\w+|kalk\w*|sklero\w+|atherom\w*|plaques?|atherosklero\w+)"
_HEART = r"(?:schatten|silhouette|groesse)?"
_LUNG = r"(?:n|nparenchym|nbasen|nfelder|nabschnitte)?"
_CORONARY = (
    r"(?:koronar\w*|coronar\w*|interventricularis|circumflex\w*|herzkranz\w*|\briva\b|\blad\b"
    r"|\brca\b|\brcx\b)"
)
_AORTIC = (
    r"(?:\baort(?!enklappe)\w*(?! ?klappe)|supraaortal\w*|\barterien|\barteriell\w*|gefaesswand\w*"
    r"|carotis)"
)
_NODES = r"(?:lymphknoten\w*|lk\b)"
_LARGE = (
    r"(?:vergroesser\w+|auffaellig grosse?\w*|pathologisch\w*|prominent\w*|suspekt\w*|vermehrt\w*)"
)

TERMS_GERMAN: Mapping[str, FindingTerms] = {
    "Medical material": FindingTerms(
        any_of(
            r"\w*schrittmacher\w*|\bicd\b|defibrillator\w*|\bport(?:system|katheter|kammer)?s?\b",
            r"\w*katheter\w*|\bzvk\b|\bstents?\b|stentprothese\w*|sternotomie|cerclage\w*|\bclips?\b",
            r"metallclip\w*|\w*prothese\w*|klappenersatz|implantat\w*|osteosynthese\w*|fremdmaterial",
            r"fremdkoerper|trachealtubus|trachealkanuele\w*|magensonde\w*|thoraxdrainage\w*",
            r"\bdrainage\w*|\bsonden?\b|\btubus\b|elektroden?\b|medizinisches? \w*material",
        ),
        stems=words(
            "macher icd defib port katheter zvk stent sternotom cerclage clip prothese ersatz"
            " implantat synthese fremd tubus kanuele sonde drainage elektrode material"
        ),
    ),
    "Arterial wall calcification": FindingTerms(
        any_of(
            rf"{_CALCIUM}<G>{_AORTIC}|{_AORTIC}<G>{_CALCIUM}",
            r"aorten(?:sklerose|kalk|verkalk)\w*|gefaess(?:sklerose|verkalk)\w*",
        ),
        bare=(any_of(r"(?:arterio|athero)sklero\w+|\bsklerose\w*"), any_of(_CORONARY)),
        stems=words("kalk kalz skler atherom plaque"),
    ),
    "Cardiomegaly": FindingTerms(
        any_of(
            r"kardiomegal\w*|cardiomegal\w*|herzvergroesserung\w*",
            rf"\bherz{_HEART}\b<g>(?:vergroessert|verbreitert|dilatiert|zu gross)\w*",
            r"(?:vergroessert|verbreitert|dilatiert)\w*<g>herz\w*",
            r"herz-?thorax-?(?:quotient|index)\w*<G>(?:erhoeht|vergroessert|vermehrt)\w*",
            rf"\bherz{_HEART}\b<g>ueber (?:der|dem) norm\w*|herzdilatation\w*|dilatation<g>herzens",
            r"durchmesser<g>herzens<g>(?:vermehrt|vergroessert|erhoeht)\w*",
        ),
        any_of(
            rf"\bherz{_HEART}\b<g>(?:{_FINE}|normbereich|nicht vergroessert)",
            rf"\b{_FINE}(?: grosse[srn]?| konfigurierte[srn]?)? herz{_HEART}\b",
        ),
        any_of(r"klappe\w*"),
        stems=words("herz kardiomegal cardiomegal"),
    ),
    "Pericardial effusion": FindingTerms(
        any_of(
            r"(?:perikard|pericard|herzbeutel)\w*(?:erguss|erguesse)\w*|haemoperikard\w*",
            r"(?:perikard|pericard)-? ?(?:oder|und|/) ?pleura(?:erguss|erguesse)\w*",
            r"(?:perikard\w*|herzbeutel\w*)<g>(?:erguss|erguesse|fluessigkeit)\w*",
            r"(?:erguss|erguesse|fluessigkeit)\w*<g>(?:perikard|herzbeutel|herz\b)\w*",
            r"\bherz\b<L>(?:fluessigkeit|erguss)\w* umgeben",
        ),
        any_of(rf"\bperikard\b<g>{_FINE}"),
        stems=words("perikard pericard herz"),
    ),
    "Coronary artery wall calcification": FindingTerms(
        any_of(
            r"koronar(?:sklerose|kalk|verkalk|plaque|stent)\w*|coronar(?:sklerose|kalk)\w*",
            rf"{_CORONARY}<G>(?:\w*{_CALCIUM}|stents?)|{_CALCIUM}<G>{_CORONARY}",
        ),
        stems=words("koronar coronar interventric circumflex kranz riva lad rca rcx"),
    ),
    "Hiatal hernia": FindingTerms(
        any_of(
            r"hiatus\w*(?:hernie|gleithernie)\w*|hiatal\w*<g>herni\w*|gleithernie\w*",
            r"(?:axiale?|paraoesophageale?|gastrale?)\w*<g>herni\w*|upside[- ]down\w*|thoraxmagen",
            r"herni\w*<g>(?:hiatus|magen)\w*|magen\w*<g>(?:hernier\w*|intrathorak\w*)",
            r"magenhernie\w*|magen\w*<g>ragt<G>(?:mediastinum|thorax)\w*",
            r"magen\w*<g>(?:oberhalb|ueber) des zwerchfells",
        ),
        any_of(r"magen<g>unterhalb des zwerchfells"),
        elsewhere=any_of(
            r"leisten\w*|nabel\w*|bauchwand\w*|narbenhernie\w*|inguinal\w*|umbilikal\w*"
        ),
        stems=words("herni upside thoraxmagen magen"),
    ),
    "Lymphadenopathy": FindingTerms(
        any_of(
            r"lymphadenopath\w*|adenopath\w*|lymphknotenvergroesserung\w*|lymphknotenmetasta\w*",
            rf"{_LARGE}<L>{_NODES}|{_NODES}<L>{_LARGE}|lymphknotenkonglomerat\w*|\bbulk\w*",
        ),
        any_of(rf"{_NODES}<g>(?:{_FINE}|normal gross|nicht vergroessert|unspezifisch)"),
        stems=words("lymph lk adenopath bulk"),
    ),
    "Emphysema": FindingTerms(
        any_of(
            r"\w*emphysem\w*|\bbullae?\b|\bbulloes\w*|zentrilobulaer\w*<g>(?:luzen|aufhell)\w*"
            r"|\w*parenchymdestruktion\w*|destruktion\w*<g>(?:lunge|parenchym)\w*"
        ),
        elsewhere=any_of(
            r"weichteilemphysem\w*|hautemphysem\w*|mediastinalemphysem\w*|subkutan\w*"
        ),
        stems=words("emphysem bull luzen aufhell destruktion"),
    ),
    "Atelectasis": FindingTerms(
        any_of(
            r"\w*telekta\w*|belueftungsstoerung\w*|minderbelueft\w*|volumen(?:minderung|verlust)\w*",
            r"\w*kollabiert\w*<g>lunge\w*|(?:lappen|lungen)kollaps",
        ),
        elsewhere=any_of(r"wirbel\w*|trachea\w*|gallenblase"),
        stems=words("telekta belueft volumen kolla"),
    ),
    "Lung nodule": FindingTerms(
        any_of(
            r"rundherd\w*|\bnodul\w+|noduli\b|(?:lungen|pulmonal\w* )(?:knoten|herde?)\w*",
            r"\brund(?:e[rns]?|lich\w*)<g>(?:herde?n?|laesion\w*|struktur\w*)\b",
        ),
        elsewhere=any_of(
            r"schilddruese\w*|nebenniere\w*|leber\w*|mamma\w*|niere\w*|milz\w*|haut\w*|subkutan\w*"
        ),
        stems=words("rund nodul lungenk lungenh pulmonal"),
    ),
    "Lung opacity": FindingTerms(
        any_of(
            r"\w*verschattung\w*|milchglas\w*|\w*infiltrat\w*|\w*truebung\w*|eintruebung\w*",
            r"dichte(?:anhebung|erhoehung|zunahme)\w*|opazit\w*|ground[- ]?glass",
            r"\w*verdichtung\w*(?! der (?:brust|mamma))",
        ),
        any_of(
            rf"\blunge{_LUNG}\b<g>(?:frei|klar|{_FINE})(?! von)",
            rf"\b{_FINE} (?:darstellung der )?lunge{_LUNG}\b|\bfreie lungen\w*",
        ),
        any_of(r"kieferhoehle\w*|nasenneben\w*|mastoid\w*|sinus\w*|mamma\w*|leber\w*"),
        stems=words("schattung glas infiltr truebung opazit dicht lunge"),
    ),
    "Pulmonary fibrotic sequela": FindingTerms(
        any_of(
            r"\bnarb\w*|\w*narben\w*|vernarb\w*|\w*fibros\w*|fibrotisch\w*|residu\w*|bindegeweb\w*",
            r"retikul\w*|honeycomb\w*|honigwaben\w*|parenchymband\w*|pleuroparenchym\w*",
        ),
        elsewhere=any_of(
            r"narbenhernie\w*|leber\w*|niere\w*|haut\w*|bauchwand\w*|myokard\w*|mamma\w*|klappe\w*"
        ),
        stems=words("narb fibro bindegeweb residu retikul honeycomb honigwab parenchym"),
    ),
    "Pleural effusion": FindingTerms(
        any_of(
            r"(?:pleura|winkel|rand|lamellen|unterlappen)\w*(?:erguss|erguesse)\w*|haematothorax",
            r"pleura-? ?(?:oder|und|/|bzw\.?) ?(?:perikard|pericard)(?:erguss|erguesse)\w*",
            r"pleura\w*<g>(?:fluessigkeit|erguss|erguesse)\w*|hydrothorax|pleurafluessigkeit\w*",
            r"(?:fluessigkeit|erguss|erguesse)\w*<g>pleura\w*",
        ),
        elsewhere=any_of(r"gelenk\w*|knie\w*|huefte\w*|mittelohr\w*|subdural\w*"),
        bare=(
            any_of(r"\berg(?:uss|uesse)\w*"),
            any_of(r"(?:perikard|pericard|herzbeutel)\w*|\bherz\b<L>umgeben"),
        ),
        stems=words("pleura ergu thorax"),
    ),
    "Mosaic attenuation pattern": FindingTerms(
        any_of(
            r"mosaik\w*|air[- ]?trapping|ueberblaeh\w* areale",
            r"(?:inhomogen|heterogen|ungleichmaessig)\w*<g>\w*(?:dichte|belueftung|transparenz)\w*",
        ),
        any_of(r"(?:lungendichte|lungenparenchym) homogen\b"),
        stems=words("mosaik trapping geblaeht ueberblaeh homogen heterogen gleichmaess"),
    ),
    "Peribronchial thickening": FindingTerms(
        any_of(
            r"peribronchial\w*<g>(?:verdick\w*|cuffing|manschett\w*)|cuffing|bronchialwandverdick\w*",
            r"bronch\w*<G>verdick\w*|\w*verdick\w*<g>(?:\w*bronch|atemweg)\w*",
            r"dickwandig\w* bronch\w*",
        ),
        any_of(r"bronchialw\w+<g>(?:normal\w*|regelrecht\w*|zart)"),
        stems=words("bronch cuffing atemweg"),
    ),
    "Consolidation": FindingTerms(
        any_of(
            r"konsolidier\w*|konsolidat\w*|(?:pneumo|aero)?bronchogramm\w*|bronchopneumogramm\w*"
        ),
        elsewhere=any_of(r"fraktur\w*|kallus"),
        stems=words("konsolid bronchogramm pneumogramm"),
    ),
    "Bronchiectasis": FindingTerms(
        any_of(
            r"\w*bronch(?:i|iol)ekta\w*|(?:erweitert|ektatisch|dilatiert)\w*<g>(?:bronch|atemweg)\w*",
            r"bronch(?:us|ien|ialsystem|iolen)\b<g>(?:erweitert|ektatisch|dilatiert)\w*|tramlines?",
            r"bronch(?:us|ial)(?:dilatation|erweiterung)\w*|(?:erweiterung|dilatation)\w*<g>bronch\w*",
        ),
        any_of(r"bronchien<g>(?:normal|regelrecht) weit"),
        stems=words("bronch tramline atemweg"),
    ),
    "Interlobular septal thickening": FindingTerms(
        any_of(
            r"(?:interlobul\w*|sept\w*)<g>(?:verdick|verbreiter|betont)\w*",
            r"(?:verdick|verbreiter|betont|prominent)\w*<g>(?:interlobul|sept)\w*|kerley\w*",
            r"interlobul\w*<g>\w*verdick\w*|sept(?:en|um)verdick\w*|crazy[- ]paving",
            r"septale[nr]? (?:linien|verdickung)\w*",
        ),
        elsewhere=any_of(r"nasenseptum|ventrikel\w*|vorhofsept\w*"),
        stems=words("sept interlobul kerley crazy"),
    ),
}
"""CT-RATE name -> German patterns."""
