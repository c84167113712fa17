"""Plant citations of images in the reports of a phantom archive, with the truth beside them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from t3d.errors import SourceError
from t3d.phantom.streams import stream

FORMS: Mapping[str, tuple[str, ...]] = {
    "en": (
        "(series {s}, image {i})",
        "(Se {s} / Im {i})",
        "(image {i} of series {s})",
        "(series #{s} image #{i})",
        "[Ser. {s}, IMA {i}]",
    ),
    "de": ("(Serie {s}, Bild {i})", "(Ser. {s} / IMA {i})", "(Bild Nr. {i} der Serie {s})"),
    "es": ("(serie {s}, imagen {i})", "(imagen {i} de la serie {s})"),
}
RANGES: Mapping[str, str] = {
    "en": "(series {s}, images {i}-{j})",
    "de": "(Serie {s}, Bilder {i} bis {j})",
    "es": "(serie {s}, im\u00e1genes {i} a {j})",
}
OTHER_PLANES: Mapping[str, str] = {
    "en": "(coronal image {i})",
    "de": "(koronares Bild {i})",
    "es": "(en coronal imagen {i})",
}
PRIOR: Mapping[str, str] = {
    "en": ", compared with the prior study",
    "de": ", im Vergleich zur Voraufnahme",
    "es": ", comparado con el estudio previo",
}
KINDS = (  # in turn
    "kept",
    "series_absent",
    "range",
    "image_absent",
    "kept",
    "prior_study",
    "kept",
    "range_too_long",
    "kept",
    "other_plane",
)
_FEW_WORDS = 3  # a sentence with fewer names too little
_RANGE_MM = 20.0  # longest that is planted to be kept, between slice centres
_LONG_MM = 30.0  # shortest that is planted to be rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """One citation in a report and what a miner should make of it."""

    accession: str
    section: str
    words: str  # the sentence once the citation is out
    series: int | None
    first: int
    last: int
    outcome: str  # "kept", or the reason to reject it
    z_mm: tuple[float, float] | None  # centres of its lowest and highest slice, LPS; where kept


def plant_citations(archive: Path, *, language: str = "en", seed: int = 0) -> tuple[Planted, ...]:
    """Let the reports of an archive cite the slices that their findings lie in.

    Rewrites `reports.csv`, and `truth.jsonl` with the moved sentences and a list `citations`.
    Every sentence with a depth gets one citation of the examination's first series. About half
    are traps: an absent series or image, a prior study, a range too long, another plane.

    Args:
        archive: What `write_archive` wrote.
        language: Of the citations, whatever the reports' own: "en", "de", "es" or "mixed".
        seed: Another seed chooses other forms.

    Returns:
        What was planted, report by report.

    Raises:
        SourceError: No such archive, or no such language.
    """
    languages = tuple(FORMS) if language == "mixed" else (language,)
    if not set(languages) <= set(FORMS) or not (archive / "truth.jsonl").is_file():
        raise SourceError(
            f"citations in {language!r} for a folder "
            f"{'with' if (archive / 'truth.jsonl').is_file() else 'without'} truth.jsonl",
            expected=f"one of {', '.join(FORMS)}, mixed; a folder made by write_archive",
            fix="name one of these languages, or write the archive first",
        )
    with (archive / "reports.csv").open(newline="", encoding="utf-8") as file:
        reports = list(csv.DictReader(file))
    lines = (archive / "truth.jsonl").read_text("utf-8").splitlines()
    truths = [json.loads(line) for line in lines]
    by_accession = {truth["accession"]: truth for truth in truths}
    rng, kinds = stream(seed, "citations"), cycle(KINDS)
    planted: list[Planted] = []
    for report in reports:
        truth = by_accession[report["accession"]]
        truth["citations"] = []
        shift = dict.fromkeys(("findings", "impression"), 0)
        for sentence in truth["sentences"]:
            section = sentence["section"]
            sentence["start"] += shift[section]
            sentence["end"] += shift[section]
            if sentence["z_mm"] is None:
                continue
            chosen = languages[int(rng.integers(len(languages)))]
            form = FORMS[chosen][int(rng.integers(len(FORMS[chosen])))]
            one, inserted = _plant(truth, sentence, report[section], next(kinds), (chosen, form))
            at = _before_period(report[section], sentence["end"])
            report[section] = report[section][:at] + inserted + report[section][at:]
            sentence["end"] += len(inserted)
            shift[section] += len(inserted)
            truth["citations"].append(asdict(one))
            planted.append(one)
    _write(archive, reports, truths)
    return tuple(planted)


def _plant(
    truth: Mapping[str, Any],
    sentence: Mapping[str, Any],
    text: str,
    kind: str,
    wording: tuple[str, str],  # language, form of a plain citation
) -> tuple[Planted, str]:
    """Choose slices for one sentence and word their citation."""
    language, form = wording
    series = truth["series"][0]
    z_of = {number: z for number, _, _, z in series["instances"]}
    first = last = _nearest(z_of, sentence["z_mm"][0])
    number, outcome, lead = int(series["number"]), kind, ""
    if kind == "series_absent":
        number += 50
    elif kind == "image_absent":
        first = last = max(z_of) + 1 + first
    elif kind == "prior_study":
        lead = PRIOR[language]
    elif kind == "other_plane":
        form = OTHER_PLANES[language]
    elif kind == "range_too_long":
        first, last = _range(z_of, first, at_least=_LONG_MM)
        form = RANGES[language]
    elif kind == "range":
        first, last = _range(z_of, first, at_most=_RANGE_MM)
        form, outcome = RANGES[language], "kept"
    axial = series["letters"][2] in "SI"
    if not axial and outcome in ("kept", "image_absent", "range_too_long"):
        outcome = "not_axial"
    at = _before_period(text, sentence["end"])
    words = text[sentence["start"] : at] + lead + text[at : sentence["end"]]
    if len(words.split()) < _FEW_WORDS and outcome != "prior_study":
        outcome = "too_short"
    planted = Planted(
        accession=truth["accession"],
        section=sentence["section"],
        words=words,
        series=None if kind == "other_plane" else number,
        first=first,
        last=last,
        outcome=outcome,
        z_mm=_ends(z_of, first, last) if outcome == "kept" else None,
    )
    return planted, f"{lead} {form.format(s=number, i=first, j=last)}"


def _nearest(z_of: Mapping[int, float], z_mm: float) -> int:
    """Give the image nearest to a height."""
    return min(z_of, key=lambda number: (abs(z_of[number] - z_mm), number))


def _range(
    z_of: Mapping[int, float], around: int, *, at_most: float = 0.0, at_least: float = 0.0
) -> tuple[int, int]:
    """Give the longest range around an image that is short enough, or the shortest long one."""
    first = last = around
    while True:
        wider = max(first - 1, min(z_of)), min(last + 1, max(z_of))
        if wider == (first, last):
            return wider
        length = abs(z_of[wider[0]] - z_of[wider[1]])
        if at_most and length > at_most:
            return first, last
        first, last = wider
        if at_least and length >= at_least:
            return wider


def _ends(z_of: Mapping[int, float], first: int, last: int) -> tuple[float, float]:
    """Give the heights of two images, the lower one first."""
    return min(z_of[first], z_of[last]), max(z_of[first], z_of[last])


def _before_period(text: str, end: int) -> int:
    """Say where a sentence's citation goes."""
    return end - 1 if text[end - 1] == "." else end


def _write(
    archive: Path, reports: Sequence[Mapping[str, str]], truths: Sequence[Mapping[str, Any]]
) -> None:
    """Write table and truth again."""
    with (archive / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, reports[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(reports)
    lines = "".join(json.dumps(truth) + "\n" for truth in truths)
    (archive / "truth.jsonl").write_text(lines, encoding="utf-8")
