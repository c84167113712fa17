"""The labeler reads sentences written for these tests, not those of the phantom's grammar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import Labelled, label_report, label_sentence
from t3d.text.labeler_terms import TERMS
from t3d.text.scope import clauses, normalise
from t3d.text.sections import split_sections
from t3d.text.sentences import split_sentences

MATERIAL = "Medical material"
AORTA = "Arterial wall calcification"
HEART = "Cardiomegaly"
PERICARDIAL = "Pericardial effusion"
CORONARY = "Coronary artery wall calcification"
HERNIA = "Hiatal hernia"
NODES = "Lymphadenopathy"
EMPHYSEMA = "Emphysema"
ATELECTASIS = "Atelectasis"
NODULE = "Lung nodule"
OPACITY = "Lung opacity"
FIBROTIC = "Pulmonary fibrotic sequela"
PLEURAL = "Pleural effusion"
MOSAIC = "Mosaic attenuation pattern"
PERIBRONCHIAL = "Peribronchial thickening"
CONSOLIDATION = "Consolidation"
BRONCHIECTASIS = "Bronchiectasis"
SEPTAL = "Interlobular septal thickening"

PRESENT = [
    ("A dual-chamber pacemaker is present on the left.", {MATERIAL}),
    ("Tip of the endotracheal tube above the carina.", {MATERIAL}),
    ("Status after median sternotomy and valve replacement.", {MATERIAL}),
    ("Calcific atherosclerotic changes in the aorta and coronary arteries.", {AORTA, CORONARY}),
    ("There are calcified plaques in the wall of the aortic arch.", {AORTA}),
    ("Atherosclerotic wall calcifications of the LAD.", {CORONARY}),
    ("Cardiothoracic index increased in favor of the heart.", {HEART}),
    ("The cardiac silhouette is enlarged.", {HEART}),
    ("Heart is moderately enlarged with a small pericardial effusion.", {HEART, PERICARDIAL}),
    ("Minimal fluid in the pericardial recesses.", {PERICARDIAL}),
    ("Small sliding-type hiatus hernia.", {HERNIA}),
    ("Lymph nodes at the hilum are enlarged.", {NODES}),
    ("Bulky mediastinal lymphadenopathy.", {NODES}),
    (
        "Enlarged left and right hilar, subcarinal, prevascular and right and left paratracheal"
        " lymph nodes.",
        {NODES},
    ),
    ("Paraseptal emphysema and apical bullae.", {EMPHYSEMA}),
    ("Linear subsegmental atelectasis at both bases.", {ATELECTASIS}),
    ("Complete collapse of the left lower lobe.", {ATELECTASIS}),
    ("Several millimetric nonspecific nodules in both lungs.", {NODULE}),
    ("Patchy ground glass densities in the periphery.", {OPACITY}),
    ("Pneumonic infiltration in the lingula.", {OPACITY}),
    ("Pleuroparenchymal sequelae at the apices.", {FIBROTIC}),
    ("Honeycombing and traction bronchiectasis at the bases.", {FIBROTIC, BRONCHIECTASIS}),
    ("Bilateral pleural effusions, larger on the right.", {PLEURAL}),
    ("Bilateral effusions with adjacent atelectasis.", {PLEURAL, ATELECTASIS}),
    ("Mosaic perfusion suggesting small airway disease.", {MOSAIC}),
    ("Diffuse thickening of the bronchial walls.", {PERIBRONCHIAL}),
    ("Airspace consolidation with air bronchograms in the RLL.", {CONSOLIDATION}),
    ("Dilated bronchi in the middle lobe.", {BRONCHIECTASIS}),
    ("Smooth thickening of interlobular septa, consistent with oedema.", {SEPTAL}),
]

ABSENT = [
    ("No pacemaker.", {MATERIAL}),
    ("No pleural effusion or pneumothorax.", {PLEURAL}),
    ("There is no evidence of pleural or pericardial effusion.", {PLEURAL, PERICARDIAL}),
    ("Neither consolidation nor nodules are seen.", {CONSOLIDATION, NODULE}),
    ("Pleural effusion was not detected.", {PLEURAL}),
    ("The heart is normal in size.", {HEART}),
    ("Heart contour and size are natural; heart size is normal.", {HEART}),
    ("Lungs are free of nodules and infiltrates.", {NODULE, OPACITY}),
    ("Without pathologically enlarged lymph nodes.", {NODES}),
    ("The previously seen effusion has resolved.", {PLEURAL}),
    ("Negative for consolidation.", {CONSOLIDATION}),
    ("Absence of emphysema.", {EMPHYSEMA}),
    ("Calcified plaque is not seen in the coronary arteries.", {CORONARY}),
    ("The lungs are clear.", {OPACITY}),
    ("No bronchiectasis, bronchial wall thickening or atelectasis.",
     {BRONCHIECTASIS, PERIBRONCHIAL, ATELECTASIS}),
    ("Nodules are no longer visible.", {NODULE}),
]  # fmt: skip

SILENT = [
    "",
    "The trachea is patent.",
    "A thyroid nodule of 12 mm.",
    "Hypodense nodule in the liver.",
    "Subcutaneous emphysema of the chest wall.",
    "Aortic valve calcification.",
    "Knee joint effusion.",
    "A pleural effusion cannot be excluded.",
    "Possible consolidation.",
    "Pneumonia versus atelectasis.",
    "Rule out lymphadenopathy.",
    "No new nodules.",
    "Umbilical ventral hernia, sliding.",
    "Opacification of the maxillary sinus.",
    "Vertebral collapse of a thoracic segment.",
    "Cardiac valves are normal.",
]

MIXED = [
    ("No effusion, but the heart is enlarged.", {PLEURAL: 0, HEART: 1}),
    ("No right effusion but a small left effusion.", {PLEURAL: 1}),
    ("Lung bases are clear apart from mild atelectasis.", {ATELECTASIS: 1, OPACITY: 0}),
    ("No abnormality with the exception of a hiatal hernia.", {HERNIA: 1}),
    ("Stable nodules with no significant change.", {NODULE: 1}),
    ("The nodule has not changed.", {NODULE: 1}),
    ("No change of the known consolidation.", {CONSOLIDATION: 1}),
    ("Calcified plaques of the abdominal aorta, which is not dilated.", {AORTA: 1}),
    ("There is a nodule, and there is no effusion.", {NODULE: 1, PLEURAL: 0}),
    ("No effusion, and the heart is enlarged.", {PLEURAL: 0, HEART: 1}),
    ("Effusion is present; consolidation is not seen.", {PLEURAL: 1, CONSOLIDATION: 0}),
    ("Effusion is present and consolidation is not seen.", {PLEURAL: 1, CONSOLIDATION: 0}),
    ("A nodule not seen on the prior study.", {NODULE: 1}),
    ("Emphysema, while bronchiectasis is absent.", {EMPHYSEMA: 1, BRONCHIECTASIS: 0}),
    ("Probable scarring.", {FIBROTIC: 1}),
    (
        "Possible old fracture of a right rib with callus and thick soft tissues next to an"
        " effusion.",
        {PLEURAL: 1},
    ),
    ("No findings suspicious for adenopathy.", {NODES: 0}),
    ("The consolidation is to be followed until resolution.", {CONSOLIDATION: 1}),
    ("NO PERICARDIAL EFFUSION; CARDIOMEGALY.", {PERICARDIAL: 0, HEART: 1}),
]


@pytest.mark.parametrize(("sentence", "names"), PRESENT)
def test_what_is_asserted_is_read_as_present(sentence: str, names: set[str]) -> None:
    assert dict(label_sentence(sentence)) == dict.fromkeys(names, 1)


@pytest.mark.parametrize(("sentence", "names"), ABSENT)
def test_what_is_denied_is_read_as_absent(sentence: str, names: set[str]) -> None:
    assert dict(label_sentence(sentence)) == dict.fromkeys(names, 0)


@pytest.mark.parametrize("sentence", SILENT)
def test_what_is_open_or_elsewhere_is_not_stated(sentence: str) -> None:
    assert dict(label_sentence(sentence)) == {}


@pytest.mark.parametrize(("sentence", "expected"), MIXED)
def test_a_negation_ends_where_a_new_statement_begins(
    sentence: str, expected: dict[str, int]
) -> None:
    assert dict(label_sentence(sentence)) == expected


@pytest.mark.parametrize("name", CT_RATE_18)
@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("There is {}.", 1),
        ("There is no {}.", 0),
        ("{} is not seen.", 0),
        ("{} is present.", 1),
        ("{} is not present.", 0),
        ("Findings are compatible with {}.", 1),
        ("Findings are not compatible with {}.", 0),
        ("Not {}.", 0),
    ],
)
def test_the_name_of_a_label_in_a_prompt_is_understood(
    name: str, template: str, value: int
) -> None:
    assert label_sentence(template.format(name))[name] == value


def test_labels_come_in_the_order_of_the_table_and_cannot_be_changed() -> None:
    labels = label_sentence("Consolidation, cardiomegaly and a pacemaker.")
    assert list(labels) == [MATERIAL, HEART, CONSOLIDATION]
    with pytest.raises(TypeError):
        labels[HEART] = 0  # type: ignore[index]


def test_every_finding_has_terms() -> None:
    assert set(TERMS) == set(CT_RATE_18)


def test_a_report_tells_present_absent_and_not_stated_apart_with_evidence() -> None:
    read = label_report(["The trachea is patent.", "No effusion.", "Nodule.", "No nodule."])
    assert set(read) == set(CT_RATE_18)
    assert read[PLEURAL] == Labelled(0, 1)
    assert read[NODULE] == Labelled(1, 2)
    assert read[HEART] == Labelled(None, None)


def test_a_later_assertion_overrules_an_earlier_denial_and_moves_the_evidence() -> None:
    read = label_report(["No nodule on the right.", "A nodule on the left.", "Nodules."])
    assert read[NODULE] == Labelled(1, 1)


def test_dashes_and_case_of_other_systems_do_not_matter() -> None:
    assert normalise("Ground\u2011Glass\u00a0 opacity") == "ground-glass opacity"
    assert label_sentence("GROUND\u2010GLASS CHANGE") == {OPACITY: 1}


def test_a_clause_ends_at_a_semicolon_or_a_but() -> None:
    assert [c.text.strip() for c in clauses("No A; no B but C")] == ["no a", "no b", "c"]


@pytest.mark.real
def test_real_reports_are_read_as_a_person_reads_them(real_data: Path) -> None:
    """Sentences of public transcriptions, looked up by content and labelled by hand."""
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    by_hand = {
        "The heart size is normal and there is no pericardial": {HEART: 0, PERICARDIAL: 0},
        "The lungs are clear with no infiltrates, effusions": {OPACITY: 0, PLEURAL: 0},
        "Lung bases aside from very mild dependent atelectasis": {ATELECTASIS: 1},
        "There are several, discrete, patchy air-space": {OPACITY: 1},
        "There is no pneumothorax or effusion": {PLEURAL: 0},
        "Cardiomegaly is seen with mitral valvular": {HEART: 1},
        "A right lower lobe pulmonary nodule measures 1.5": {NODULE: 1},
        "Bilateral pleural effusions, right greater than": {PLEURAL: 1, ATELECTASIS: 1},
        "There is no axillary, hilar or mediastinal": {NODES: 0},
        "Soft tissue windows demonstrate atherosclerotic": {AORTA: 1},
        "There is a small hiatal hernia": {HERNIA: 1},
        "No hiatal hernia is identified": {HERNIA: 0},
        "There is left apical scarring": {FIBROTIC: 1},
        "Sternotomy wires are noted": {MATERIAL: 1},
        "There is calcification within the left aortic valve": {},
    }
    found = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        report = split_sections(json.loads(line)["text"])
        for text in (report.findings, report.impression):
            for start, end in split_sentences(text):
                sentence = text[start:end]
                for beginning, expected in by_hand.items():
                    if beginning in sentence:
                        assert dict(label_sentence(sentence)) == expected, sentence
                        found.add(beginning)
    assert len(found) >= 12
