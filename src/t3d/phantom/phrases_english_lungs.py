"""English phrases for findings of the lung parenchyma and the airways.

FINDINGS (`present`) and IMPRESSION (`concluded`) never share a phrase; `heldout` phrases are
kept for tests of a wording shift.
"""

from __future__ import annotations

from t3d.phantom.phrases import FindingPhrases, Wording
from t3d.phantom.phrases_english_words import LUNGS

EMPHYSEMA = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} emphysematous changes in {place}.",
            "areas of parenchymal destruction with low attenuation in {place}, {degree}.",
            "{degree} centrilobular lucencies without visible walls in {place}.",
            "{degree} pulmonary emphysema predominantly affecting {place}.",
        ),
        concluded=("{degree} emphysema.", "emphysematous lung disease.", "lung emphysema."),
        absent=(
            "no emphysema.",
            "there are no emphysematous changes.",
            "no bullae or parenchymal destruction.",
        ),
    ),
    heldout=Wording(
        present=(
            "{degree} bullous rarefaction of the lung tissue in {place}.",
            "the parenchyma of {place} is {degreely} emphysematous.",
        ),
        concluded=("emphysematous destruction, {degree}.",),
        absent=("emphysema is not observed.",),
    ),
)

ATELECTASIS = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} atelectasis of {place}.",
            "{degree} volume loss in {place}.",
            "atelectatic changes are present in {place}, {size} thick.",
            "small|plate-like atelectasis in {place}.",
            "large|wedge-shaped collapse of dependent lung in {place}, {size}.",
        ),
        concluded=(
            "{degree} atelectatic change.",
            "partial collapse of {place}.",
            "atelectasis in {place}.",
        ),
        absent=(
            "no atelectasis.",
            "no volume loss or lobar collapse.",
            "there is no atelectatic change.",
        ),
    ),
    heldout=Wording(
        present=(
            "partially collapsed lung tissue in {place}.",
            "{degree} loss of volume affecting {place}.",
        ),
        concluded=("collapsed lung areas, {degree}.",),
        absent=("atelectatic areas are not found.",),
    ),
)

NODULE = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "one|a {size} solid nodule lies in {place}.",
            "one|{amount} rounded nodule in {place}, diameter {size}.",
            "one|a well-defined round lesion of {size} is seen in {place}.",
            "many|{number} nodules in {place}, the largest measuring {size}.",
            "many|{number} solid nodular lesions of up to {size} in {place}.",
            "many|{number} round foci in {place} with a diameter of up to {size}.",
        ),
        concluded=(
            "one|pulmonary nodule of {size}.",
            "one|solitary nodule in {place}.",
            "many|pulmonary nodules up to {size}.",
            "many|multiple nodules, largest {size}.",
        ),
        absent=(
            "no pulmonary nodule.",
            "no nodules are seen in either lung.",
            "no suspicious nodular lesion.",
        ),
    ),
    heldout=Wording(
        present=(
            "nodular formation in {place}, {size}.",
            "one|a {size} coin lesion is located in {place}.",
            "many|{number} coin lesions of up to {size}, located in {place}.",
        ),
        concluded=("nodular lung lesion up to {size}.",),
        absent=("pulmonary nodules are not visible.",),
    ),
)

OPACITY = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "hazy increase in density in {place}, up to {size}.",
            "{degree} ground-glass opacification of {place}.",
            "ill-defined ground-glass density in {place} measuring {size}.",
            "many|{few} ground-glass opacities in {place}.",
            "one|{amount} ground-glass opacity in {place}.",
        ),
        concluded=(
            "{degree} ground-glass change.",
            "parenchymal opacity in {place}.",
            "hazy opacities, {degree}.",
        ),
        absent=(
            "no ground-glass opacity.",
            "no parenchymal opacities.",
            "the lungs show no hazy density.",
        ),
    ),
    heldout=Wording(
        present=(
            "hazy infiltrates affecting {place}, {size}.",
            "{degree} cloudy opacification within {place}.",
        ),
        concluded=("infiltrates in {place}.",),
        absent=("infiltrates are not seen.",),
    ),
)

FIBROTIC_SEQUELA = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} fibrotic bands in {place}.",
            "{degree} scarring with a reticular pattern in {place}.",
            "irregular linear scars in {place}, extending over {size}.",
            "post-inflammatory fibrotic changes in {place}.",
        ),
        concluded=(
            "scarring in {place}.",
            "{degree} fibrotic residues.",
            "old post-inflammatory scars.",
        ),
        absent=(
            "no fibrotic changes.",
            "no parenchymal scarring or reticulation.",
            "there are no fibrotic bands.",
        ),
    ),
    heldout=Wording(
        present=(
            "cicatricial distortion of the parenchyma in {place}.",
            "old fibrous strands in {place}, {degree}.",
        ),
        concluded=("fibrous residues, {degree}.",),
        absent=("scars are not identified.",),
    ),
)

MOSAIC = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} mosaic attenuation of the lung parenchyma.",
            "alternating dark and bright lung areas in a {degree} mosaic distribution.",
            "{degree} mosaic perfusion in {place}.",
            "{degreely} heterogeneous lung attenuation with sharply demarcated lobules.",
        ),
        concluded=("{degree} mosaic pattern.", "mosaic lung density.", "mosaic appearance."),
        absent=(
            "no mosaic attenuation.",
            "lung attenuation is homogeneous.",
            "there is no air trapping.",
        ),
    ),
    heldout=Wording(
        present=(
            "{degree} lobular air trapping in {place}.",
            "{degreely} inhomogeneous attenuation of both lungs with lobular lucent areas.",
        ),
        concluded=("air trapping, {degree}.",),
        absent=("a mosaic pattern is not seen.",),
    ),
)

PERIBRONCHIAL = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} peribronchial thickening in {place}.",
            "the bronchial walls are {degreely} thickened in {place}.",
            "thickened airway walls with peribronchial cuffing in {place}.",
            "wall thickening of the segmental bronchi in {place}, up to {size}.",
        ),
        concluded=(
            "{degree} bronchial wall thickening.",
            "thickening of the bronchial walls.",
            "peribronchial cuffing, {degree}.",
        ),
        absent=(
            "no peribronchial thickening.",
            "the bronchial walls are not thickened.",
            "bronchial walls are of normal thickness.",
        ),
    ),
    heldout=Wording(
        present=(
            "{degree} cuffing around the bronchi of {place}.",
            "mural thickening of the airways in {place}, {degree}.",
        ),
        concluded=("thick-walled bronchi.",),
        absent=("airway wall thickening is not present.",),
    ),
)

CONSOLIDATION = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{amount} consolidation in {place} with air bronchograms.",
            "dense airspace filling in {place} measuring {size}.",
            "homogeneous consolidated lung in {place}, {size}.",
            "consolidated parenchyma in {place} containing air bronchograms.",
        ),
        concluded=(
            "consolidation of {place}.",
            "{degree} airspace consolidation.",
            "consolidated area of {size}.",
        ),
        absent=(
            "no consolidation.",
            "no airspace consolidation.",
            "there is no focal consolidation.",
        ),
    ),
    heldout=Wording(
        present=(
            "alveolar filling process with air bronchograms in {place}.",
            "confluent pneumonic consolidation of {place}, {size}.",
        ),
        concluded=("pneumonic consolidation, {degree}.",),
        absent=("consolidated areas are not found.",),
    ),
)

BRONCHIECTASIS = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} bronchiectasis in {place}.",
            "cylindrical dilatation of the bronchi in {place}, lumen up to {size}.",
            "bronchiectatic airways in {place}, up to {size} wide.",
            "cluster of {degreely} dilated bronchi in {place}.",
        ),
        concluded=(
            "{degree} bronchiectatic disease.",
            "bronchial dilatation in {place}.",
            "bronchiectases.",
        ),
        absent=(
            "no bronchiectasis.",
            "the bronchi are not dilated.",
            "bronchi are of normal calibre.",
        ),
    ),
    heldout=Wording(
        present=(
            "{degreely} widened bronchi with tram-track appearance in {place}.",
            "ectatic airways in {place}, {size}.",
        ),
        concluded=("widened bronchi, {degree}.",),
        absent=("bronchiectatic change is not seen.",),
    ),
)

SEPTAL_THICKENING = FindingPhrases(
    places=LUNGS,
    train=Wording(
        present=(
            "{degree} interlobular septal thickening in {place}.",
            "{degreely} thickened interlobular septa in {place}.",
            "smooth thickening of the septa in {place}, {degree}.",
            "{few} septal lines in {place}.",
        ),
        concluded=(
            "{degree} septal thickening.",
            "thickened septa.",
            "interlobular thickening, {degree}.",
        ),
        absent=(
            "no interlobular septal thickening.",
            "the interlobular septa are not thickened.",
            "there are no septal lines.",
        ),
    ),
    heldout=Wording(
        present=(
            "{degreely} prominent interlobular septa in {place}.",
            "{few} Kerley lines in {place}.",
        ),
        concluded=("Kerley lines, {degree}.",),
        absent=("interlobular septa are of normal thickness.",),
    ),
)
