"""Published figures, with where they were read and how sure that is.

Tags: "paper" = the authors' own table or text, "abstract" = their abstract, "2nd" = somebody
else's table or page. A figure whose protocol or sample is not stated has "" there and is never
shown beside a number of ours. Shares, not percent.
"""

from __future__ import annotations

from dataclasses import dataclass

VALID_VOLUMES = "CT-RATE validation, 3,039 volumes"
VALID_STUDIES = "CT-RATE validation, 1,564 first reconstructions"
RAD_CHESTCT = "Rad-ChestCT, 3,630 volumes"
MERLIN_TEST = "Merlin test, 5,137 studies"

SAMPLES: tuple[tuple[str, str, tuple[tuple[str, int], ...]], ...] = (
    (VALID_VOLUMES, "ct_rate", (("volumes", 3039), ("studies", 1564))),
    (VALID_STUDIES, "ct_rate", (("volumes", 0), ("studies", 1564))),
    (RAD_CHESTCT, "rad_chestct", (("volumes", 3630), ("studies", 3630))),
    (MERLIN_TEST, "merlin", (("volumes", 0), ("studies", 5137))),
)
"""Sample set, kind of its source, counts in a result; 0 volumes = rows are studies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One published number."""

    model: str
    metric: str  # name of the metric in our results
    value: float
    protocol: str  # name of the protocol; "" = not stated
    sample: str  # sample set; "" = not stated, or not public
    source: str  # where it was read
    tag: str  # "paper", "abstract" or "2nd"
    note: str = ""  # what is uncertain about it


def _row(
    model: str, values: tuple[float, ...], metrics: tuple[str, ...], **where: str
) -> tuple[Figure, ...]:
    """Figures of one row of a table."""
    return tuple(
        Figure(model=model, metric=metric, value=value, **where)
        for metric, value in zip(metrics, values, strict=True)
    )


_THREE = ("auroc:macro", "accuracy:macro", "f1_weighted:macro")
_FOUR = (*_THREE, "precision:macro")
_EXACT = "EXACT, README, supplementary table 4"
_VISD = "ViSD-Boost, results table"
_SPECTRE = "summary of SPECTRE, CVPR 2026"
_R = tuple(f"t2i_r@{k}" for k in (5, 10, 50, 100))
_POOLS = tuple(f"pool{size}_r@1:findings" for size in (32, 64, 128))
_POOLS_IMPRESSION = tuple(f"pool{size}_r@1:impression" for size in (32, 64, 128))
_CTCLIP = {"protocol": "ctclip", "sample": VALID_VOLUMES, "tag": "2nd"}
_CTCLIP_OUT = {"protocol": "ctclip_external", "sample": RAD_CHESTCT, "tag": "2nd"}
_RADFINDER = {"source": "arXiv:2603.02026, abstract", "tag": "abstract"}
_MERLIN = {"protocol": "merlin_pools_spectre", "sample": MERLIN_TEST, "tag": "2nd"}
_CHALLENGE = {
    "protocol": "vlm3d",
    "sample": "",
    "source": "VLM3D 2026, final",
    "tag": "2nd",
    "note": "hidden test set",
}

FIGURES: tuple[Figure, ...] = (
    *_row("CT-CLIP", (0.731, 0.668, 0.707), _THREE, source=_EXACT, **_CTCLIP),
    *_row("CT-CLIP", (0.733, 0.669, 0.708, 0.326), _FOUR, source=_VISD, **_CTCLIP),
    *_row("CT-CLIP VocabFine", (0.756, 0.705, 0.738), _THREE, source=_EXACT, **_CTCLIP),
    *_row("CT-CLIP ClassFine", (0.756, 0.689, 0.724), _THREE, source=_EXACT, **_CTCLIP),
    *_row("CT-CLIP", (0.629, 0.592, 0.637), _THREE, source=_EXACT, **_CTCLIP_OUT),
    *_row("CT-CLIP VocabFine", (0.650, 0.636, 0.677), _THREE, source=_EXACT, **_CTCLIP_OUT),
    *_row("CT-CLIP ClassFine", (0.643, 0.599, 0.644), _THREE, source=_EXACT, **_CTCLIP_OUT),
    *_row(
        "fVLM",
        (0.778, 0.718, 0.751, 0.379),
        _FOUR,
        protocol="fvlm",
        sample=VALID_VOLUMES,
        source=_VISD,
        tag="2nd",
        note="its volumes are those found on disk; their number is not stated",
    ),
    *_row(
        "ViSD-Boost",
        (0.790, 0.731, 0.759, 0.387),
        _FOUR,
        protocol="",
        sample="",
        source=_VISD,
        tag="2nd",
        note="protocol not stated",
    ),
    *_row(
        "Merlin",
        (0.728, 0.672, 0.709),
        _THREE,
        protocol="",
        sample="",
        source=_VISD,
        tag="2nd",
        note="EXACT has .595, .585, .687",
    ),
    *_row(
        "T3D",
        (0.737, 0.690, 0.725),
        _THREE,
        protocol="",
        sample="",
        source="third-party model page",
        tag="2nd",
        note="threshold and pool not known",
    ),
    *_row(
        "RadFinder",
        (0.838,),
        ("auroc:macro",),
        protocol="radfinder",
        sample=VALID_STUDIES,
        **_RADFINDER,
    ),
    *_row(
        "RadFinder",
        (0.770,),
        ("auroc:macro",),
        protocol="radfinder_external",
        sample=RAD_CHESTCT,
        **_RADFINDER,
    ),
    *_row(
        "RadFinder",
        (0.315,),
        ("t2i_r@10",),
        protocol="radfinder_dup",
        sample=VALID_VOLUMES,
        **_RADFINDER,
    ),
    *_row(
        "RadFinder",
        (36.3,),
        ("cell_error_mm",),
        protocol="radfinder",
        sample="",
        note="test set not public; best baseline 67.0",
        **_RADFINDER,
    ),
    *_row(
        "SPECTRE",
        (0.175, 0.255, 0.489, 0.599),
        _R,
        protocol="spectre",
        sample=VALID_STUDIES,
        source=_SPECTRE,
        tag="2nd",
    ),
    *_row(
        "CT-CLIP",
        (0.029, 0.050, 0.180, 0.288),
        _R,
        protocol="spectre",
        sample=VALID_STUDIES,
        source=_SPECTRE,
        tag="2nd",
        note="may stem from the pool of 3,039 volumes",
    ),
    *_row("Merlin", (0.776, 0.687, 0.594), _POOLS, source=_SPECTRE, **_MERLIN),
    *_row("SPECTRE", (0.555, 0.438, 0.330), _POOLS, source=_SPECTRE, **_MERLIN),
    *_row("Merlin", (0.384, 0.277, 0.194), _POOLS_IMPRESSION, source=_SPECTRE, **_MERLIN),
    *_row("SPECTRE", (0.432, 0.329, 0.240), _POOLS_IMPRESSION, source=_SPECTRE, **_MERLIN),
    *_row(
        "team metu-qedi", (0.867, 0.558, 0.612), ("auroc:macro", "crg", "f1:macro"), **_CHALLENGE
    ),
)
"""Every figure that may be printed."""
