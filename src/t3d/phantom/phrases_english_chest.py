"""English phrases for findings of the heart, vessels, mediastinum and pleura, and for devices.

FINDINGS (`present`) and IMPRESSION (`concluded`) never share a phrase; `heldout` phrases are
kept for tests of a wording shift.
"""

from __future__ import annotations

from t3d.phantom.phrases import FindingPhrases, Wording
from t3d.phantom.phrases_english_words import AORTA, CORONARIES

MEDICAL_MATERIAL = FindingPhrases(
    train=Wording(
        present=(
            "note is made of {device}.",
            "the examination shows {device}.",
            "metallic density consistent with {device}.",
            "status post placement of {device}.",
        ),
        concluded=("presence of {device}.", "{device} in situ.", "{device} in place."),
        absent=(
            "no medical device is seen in the chest.",
            "no implanted foreign material.",
            "there is no catheter or pacemaker.",
        ),
    ),
    heldout=Wording(
        present=("streak artifacts originate from {device}.", "{device} can be recognised."),
        concluded=("condition after insertion of {device}.",),
        absent=("surgical hardware is not present.",),
    ),
)

ARTERIAL_CALCIFICATION = FindingPhrases(
    places=AORTA,
    train=Wording(
        present=(
            "{few} calcified plaques along the wall of {place}.",
            "{degree} atherosclerotic calcification of {place}.",
            "the wall of {place} contains {few} calcified atheromatous plaques.",
            "calcified atheroma of {place}, {degree} in extent.",
        ),
        concluded=(
            "atherosclerosis of the aorta, {degree}.",
            "{degree} aortic calcifications.",
            "calcified aortic plaques.",
        ),
        absent=(
            "no calcification of the aortic wall.",
            "the thoracic aorta is free of calcified plaques.",
            "the aortic wall shows no atherosclerotic calcification.",
        ),
    ),
    heldout=Wording(
        present=(
            "{degree} mural calcium is visible in {place}.",
            "{degree} atheromatosis with calcium deposits in {place}.",
        ),
        concluded=("aortic atheromatosis with calcium.",),
        absent=("the aorta is without mural calcium.",),
    ),
)

CARDIOMEGALY = FindingPhrases(
    train=Wording(
        present=(
            "the heart is {degreely} enlarged.",
            "enlarged cardiac silhouette with a cardiothoracic ratio of {ratio}.",
            "the cardiothoracic ratio is increased to {ratio}.",
            "{degree} enlargement of the heart.",
            "the transverse diameter of the heart is {degreely} increased.",
        ),
        concluded=("{degree} cardiomegaly.", "enlarged heart.", "cardiomegaly, {degree}."),
        absent=(
            "heart size is normal.",
            "the heart is not enlarged.",
            "normal size of the heart.",
        ),
    ),
    heldout=Wording(
        present=(
            "the cardiac size is {degreely} above the normal range.",
            "{degree} global cardiac enlargement is present.",
        ),
        concluded=("heart size increased, {degree}.",),
        absent=("cardiac dimensions are within normal limits.",),
    ),
)

PERICARDIAL_EFFUSION = FindingPhrases(
    train=Wording(
        present=(
            "{amount} pericardial effusion measuring up to {size} in thickness.",
            "fluid around the heart with a depth of {size}.",
            "a {amount} amount of fluid is present in the pericardial sac.",
            "pericardial fluid collection of {amount} extent, maximum thickness {size}.",
        ),
        concluded=(
            "{amount} pericardial effusion.",
            "pericardial fluid, {amount} in amount.",
            "fluid in the pericardium up to {size}.",
        ),
        absent=(
            "no pericardial effusion.",
            "the pericardium is free of fluid.",
            "there is no fluid around the heart.",
        ),
    ),
    heldout=Wording(
        present=(
            "a layer of fluid, {size} thick, fills the pericardial space.",
            "circumferential pericardial fluid is noted, {amount} in volume.",
        ),
        concluded=("effusion of the pericardium.",),
        absent=("pericardial fluid is not detected.",),
    ),
)

CORONARY_CALCIFICATION = FindingPhrases(
    places=CORONARIES,
    train=Wording(
        present=(
            "{few} coronary calcifications in {place}.",
            "{degree} calcific sclerosis of the coronary vessels, mainly {place}.",
            "coronary atherosclerosis with {few} calcified deposits in {place}.",
            "the coronary arteries show {few} wall calcifications.",
        ),
        concluded=(
            "coronary artery calcifications.",
            "{degree} coronary sclerosis.",
            "coronary atherosclerosis, {degree}.",
        ),
        absent=(
            "no coronary calcification.",
            "the coronary arteries are free of calcified plaques.",
            "there is no calcium in the coronary arteries.",
        ),
    ),
    heldout=Wording(
        present=(
            "calcified coronary vessels with a {degree} burden.",
            "{few} dense plaques of the coronary tree, involving {place}.",
        ),
        concluded=("calcified coronaries.",),
        absent=("coronary vessels without calcified deposits.",),
    ),
)

HIATAL_HERNIA = FindingPhrases(
    train=Wording(
        present=(
            "{amount} hiatal hernia measuring {size}.",
            "sliding herniation of the stomach through the esophageal hiatus, {size} in diameter.",
            "part of the stomach lies above the diaphragm, {size} across.",
            "a {amount} axial hernia is seen at the esophageal hiatus.",
        ),
        concluded=("{amount} hiatus hernia.", "sliding hernia.", "axial hiatus hernia, {amount}."),
        absent=(
            "no hiatal hernia.",
            "the stomach lies entirely below the diaphragm.",
            "there is no herniation at the esophageal hiatus.",
        ),
    ),
    heldout=Wording(
        present=(
            "the gastric fundus protrudes {size} into the posterior mediastinum.",
            "a {amount} retrocardiac gastric hernia is visible.",
        ),
        concluded=("hernia of the gastric fundus.",),
        absent=("a hiatus hernia is not present.",),
    ),
)

LYMPHADENOPATHY = FindingPhrases(
    train=Wording(
        present=(
            "enlarged {station} lymph nodes measuring up to {size}.",
            "{station} lymphadenopathy with a largest node of {size}.",
            "pathologically enlarged nodes in {station} location, up to {size}.",
            "{degree} {station} nodal enlargement reaching {size}.",
        ),
        concluded=(
            "{degree} thoracic lymphadenopathy.",
            "enlarged thoracic lymph nodes.",
            "lymph node enlargement up to {size}.",
        ),
        absent=(
            "no enlarged lymph nodes.",
            "no mediastinal or hilar lymphadenopathy.",
            "mediastinal lymph nodes are not enlarged.",
        ),
    ),
    heldout=Wording(
        present=(
            "{station} adenopathy of up to {size}.",
            "conspicuously large lymph nodes in {station} position, {size}.",
        ),
        concluded=("adenopathy, {degree}.",),
        absent=("lymph nodes are of normal size.",),
    ),
)

PLEURAL_EFFUSION = FindingPhrases(
    train=Wording(
        present=(
            "{amount} {sided} pleural effusion with a depth of {size}.",
            "{side} pleural fluid collection, {size} deep.",
            "{sided} effusion of {amount} volume, up to {size}.",
            "layering pleural fluid, {sided}, {amount} in amount.",
            "bilateral|pleural effusions on both sides, the larger measuring {size}.",
        ),
        concluded=(
            "{sided} pleural effusion.",
            "{amount} {sided} effusion.",
            "pleural fluid, {sided}.",
        ),
        absent=(
            "no pleural effusion.",
            "both pleural spaces are free of fluid.",
            "there is no pleural fluid.",
        ),
    ),
    heldout=Wording(
        present=(
            "{amount} {sided} hydrothorax, depth {size}.",
            "free fluid in the pleural cavity, {sided}, {size}.",
        ),
        concluded=("{sided} hydrothorax.",),
        absent=("pleural effusion is not evident.",),
    ),
)
