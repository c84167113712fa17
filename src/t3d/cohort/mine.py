"""Turn citations of images in reports into sentences with a depth in mm, and take them out.

A number means a place only through the series that was prepared: SeriesNumber among the facts of a
volume, InstanceNumber in the cohort's slice table. It is never used as an index. What is not sure
is rejected with a reason; the citation leaves the report either way, because it tells the depth.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from t3d.cohort.schema import VolumeRecord
from t3d.cohort.store import Cohort
from t3d.cohort.writer import CohortWriter
from t3d.text.citations import Citation, Stripped, find_citations, without_citations
from t3d.text.sections import SECTIONS
from t3d.text.sentences import split_sentences
from t3d.types import Report, Sentence

MAX_PLANE_DEGREES = 25.0  # between the body's axes and the series' ones
MAX_RANGE_MM = 24.0  # between the centres of the first and the last slice
MIN_WORDS = 3  # left of a sentence without its citations
ORIGIN = "mined"
SERIES_NUMBER = "series_number"  # facts of a volume
AXIAL_SERIES = "axial_series"  # how many the study had where it was listed; absent = not known

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "kept": "became a sentence with a depth",
        "not_first_report": "stands in a second report; sentences belong to the first",
        "prior_study": "the sentence speaks of another examination, or a date stands beside",
        "too_short": f"fewer than {MIN_WORDS} words are left of the sentence",
        "unclear_sentence": "in brackets between two sentences: it may belong to either",
        "other_plane": "no series is named, and a plane that is not axial is",
        "series_not_named": "no series is named, and the study is not known to have just one",
        "series_absent": "no prepared series of the study has this number",
        "series_ambiguous": "several prepared series of the study have this number",
        "no_instances": "the series has no table of instance numbers (it was no DICOM)",
        "image_absent": "the series has no image with this number",
        "not_axial": f"the series is not axial, or tilted by more than {MAX_PLANE_DEGREES:.0f}",
        "range_too_long": f"the range is longer than {MAX_RANGE_MM:.0f} mm",
        "outside_crop": "the place lies outside a prepared volume",
        "duplicate": "the same words and slices were kept before in this study",
    }
)
"""What can become of a citation."""

_WORD = re.compile(r"[^\W\d_]{2,}")
_PRIOR = re.compile(
    r"\b(?:prior(?!\s+to\b)|previous(?:ly)?|earlier|compar(?:ed|ing|ison|isons)"
    r"|(?:last|old|outside)\s+(?:exam(?:ination)?|study|scan|ct)"
    r"|vor(?:aufnahmen?|untersuchung(?:en)?|befunde?n?|studien?|bild(?:er)?|-?ct)"
    r"|(?:im|zum)\s+vergleich|vergleich(?:e|en|bar\w*)?|verglichen|zuvor|vorher\w*"
    r"|fr(?:\u00fc|ue)her(?:e[nrsm]?)?"
    r"|previ[oa]s?|previamente|comparad[oa]s?|compar(?:aci(?:\u00f3|o)n|ativ[oa])"
    r"|(?:estudio|tac?|tc|examen|control|exploraci(?:\u00f3|o)n)\s+anterior(?:es)?)\b",
    re.IGNORECASE,
)
_MONTH = r"(?:jan|feb|m(?:a|\u00e4)r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz]|ene|abr|ago|dic)"
_DATE = re.compile(
    r"\d{1,2}[./-]\s?\d{1,2}[./-]\s?\d{2,4}|\b\d{1,2}/(?:19|20)\d\d|\b(?:19|20)\d\d\b"
    rf"|\b{_MONTH}[^\W\d_]*\.?,?\s+(?:\d{{1,2}},?\s+)?\d{{2,4}}\b"
    r"|___|\[\*\*|<\s*(?:date|timex)",  # where a date was removed
    re.IGNORECASE,
)
_NEAR_DATE = 40  # characters on both sides of the citation
_OTHER_PLANE = re.compile(
    r"\b(?:sagittal|coronal|koronar|oblique|schr(?:\u00e4|ae)g|mip\b|mpr\b|reformat|scout)",
    re.IGNORECASE,
)
_NEAR_PLANE = 30  # characters before the citation
_TURNED = re.compile(r"turned upright from (\d+(?:\.\d+)?) degrees")
_READ = re.compile(r"read DICOM \d+ slices ([LRAPSI]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedRow:
    """What became of one cited image or range; holds no words of the report."""

    study_id: str
    report: int  # position among the study's reports
    section: str  # "findings" or "impression"
    start: int  # of the citation, in the section as it was before
    end: int
    series: int | None  # as named
    first: int  # image number
    last: int  # the same, but for a range
    outcome: str  # a key of REASONS
    volume_id: str = ""  # the series it means, where that is known
    z_mm: float | None = None  # LPS, centre; only where kept


@dataclass(frozen=True, slots=True, kw_only=True)
class MineSummary:
    """What one run found."""

    studies: int  # looked at
    citing: int  # with at least one citation
    outcomes: Mapping[str, int]  # key of REASONS -> cited images and ranges
    rows: tuple[MinedRow, ...]

    @property
    def kept(self) -> int:
        """How many became sentences with a depth."""
        return self.outcomes.get("kept", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cited:
    """One prepared series as citations see it."""

    volume_id: str
    number: str  # SeriesNumber; "" = not known
    axial_series: str  # of the study where it was listed; "" = not known
    is_axial: bool
    slices: Mapping[int, float]  # instance number -> z in LPS mm
    low_mm: float  # edges of what every preparation kept
    high_mm: float

    @property
    def gap_mm(self) -> float:
        """Give the usual distance of neighbouring slices."""
        places = sorted(self.slices.values())
        gaps = [b - a for a, b in pairwise(places)]
        return statistics.median(gaps) if gaps else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a citation stands in one section."""

    study_id: str
    report: int
    section: str
    text: str  # the section as it was
    stripped: Stripped
    spans: tuple[tuple[int, int], ...]  # its sentences
    numbers: frozenset[int]  # series that the whole report names


@dataclass(slots=True)
class _Study:
    """What mining one study changes."""

    reports: tuple[Report, ...]
    sentences: list[Sentence]
    rows: list[MinedRow] = field(default_factory=list)
    seen: set[tuple[str, str, int, int]] = field(default_factory=set)


def mine(
    cohort: str | Path, *, table: str | Path | None = None, dry_run: bool = False
) -> MineSummary:
    """Resolve the citations in a cohort's reports, and take them out of the reports.

    Each kept image or range becomes a sentence of origin "mined": section, character range in the
    stripped text, and z in LPS mm: centre, low and high edge of the slices. Sentences that were
    there are moved to their place in the stripped text. A second run finds nothing new; the
    source still has the original text, and preparing from it again stays possible.

    Args:
        cohort: The cohort folder.
        table: Where to write one line of CSV per cited image; None = nowhere. It holds study ids
            and numbers, no words of a report.
        dry_run: Only count; the cohort is not changed.

    Returns:
        Counts per outcome and the rows behind them, ordered by study and place.

    Raises:
        StoreError: No cohort there, or it is being written or cannot be.

    Source:
        RadFinder (arXiv:2603.02026) mines such pairs but names no rules; guards: our choice.
    """
    reader = Cohort.open(cohort)  # refused before a writer would make one
    if dry_run:
        summary = _summary(reader, None)
    else:
        writer = CohortWriter(cohort)
        with writer:
            summary = _summary(reader, writer)
    reader.close()
    if table is not None:
        _write_table(Path(table), summary.rows)
    return summary


def _summary(reader: Cohort, writer: CohortWriter | None) -> MineSummary:
    """Mine every study, and write what changes where there is a writer."""
    rows: list[MinedRow] = []
    citing = looked_at = 0
    for study in reader.studies():
        looked_at += 1
        mined = _mined(reader, study.study_id)
        if mined is None:
            continue
        citing += 1
        rows += mined.rows
        if writer is not None:
            writer.restate(study.study_id, mined.reports, mined.sentences)
    counts = Counter(row.outcome for row in rows)
    return MineSummary(
        studies=looked_at,
        citing=citing,
        outcomes=MappingProxyType({name: counts[name] for name in REASONS if counts[name]}),
        rows=tuple(rows),
    )


def _mined(reader: Cohort, study_id: str) -> _Study | None:
    """Mine one study; None where its reports cite nothing."""
    reports = reader.reports(study_id)
    cited = [
        [(section, find_citations(getattr(report, section))) for section in SECTIONS]
        for report in reports
    ]
    if not any(citations for sections in cited for _, citations in sections):
        return None
    study = _Study(reports=reports, sentences=list(reader.sentences(study_id)))
    series = _cited(reader, study_id)
    for position, sections in enumerate(cited):
        numbers = frozenset(c.series for _, cs in sections for c in cs if c.series is not None)
        for section, citations in sections:
            if not citations:
                continue
            text = getattr(reports[position], section)
            place = _Place(
                study_id=study_id,
                report=position,
                section=section,
                text=text,
                stripped=without_citations(text),
                spans=split_sentences(text),
                numbers=numbers,
            )
            _enter(study, place, citations, series)
    return study


def _enter(
    study: _Study, place: _Place, citations: Sequence[Citation], series: Sequence[_Cited]
) -> None:
    """Record what becomes of the citations of one section, and strip it."""
    moved = place.stripped
    report = replace(study.reports[place.report], **{place.section: moved.text})
    before, after = study.reports[: place.report], study.reports[place.report + 1 :]
    study.reports = (*before, report, *after)
    if place.report == 0:
        there = [_moved(s, moved) if s.section == place.section else s for s in study.sentences]
        study.sentences = [s for s in there if s.start < s.end]  # one was nothing but a citation
    for citation in citations:
        for first, last in _pairs(citation):
            row = MinedRow(
                study_id=place.study_id,
                report=place.report,
                section=place.section,
                start=citation.start,
                end=citation.end,
                series=citation.series,
                first=first,
                last=last,
                outcome="",
            )
            study.rows.append(_judged(row, citation, place, series, study))


def _pairs(citation: Citation) -> Iterator[tuple[int, int]]:
    """List what a citation names: its range, or each image for itself."""
    if citation.is_range:
        yield citation.images[0], citation.images[1]
    else:
        yield from ((image, image) for image in citation.images)


def _moved(sentence: Sentence, stripped: Stripped) -> Sentence:
    """Follow a sentence that was there into the stripped text."""
    start, end = _trimmed(stripped, sentence.start, sentence.end)
    return replace(sentence, start=start, end=end)


def _trimmed(stripped: Stripped, start: int, end: int) -> tuple[int, int]:
    """Give a span of the old text in the stripped one, without blanks at its ends."""
    low, high = stripped.place(start), stripped.place(end)
    text = stripped.text[low:high]
    return low + len(text) - len(text.lstrip()), low + len(text.rstrip())


# ---- judging -------------------------------------------------------------------------------


def _judged(
    row: MinedRow,
    citation: Citation,
    place: _Place,
    series: Sequence[_Cited],
    study: _Study,
) -> MinedRow:
    """Decide one cited image or range; a kept one enters the study's sentences."""
    if place.report > 0:
        return replace(row, outcome="not_first_report")
    around = _sentence_around(place, citation)
    start, end = _trimmed(place.stripped, *around)
    words = place.stripped.text[start:end]
    against = _against_words(place, citation, around, words)
    if against:
        return replace(row, outcome=against)
    meant, against = _series_meant(citation, place, series)
    if meant is None:
        return replace(row, outcome=against)
    row = replace(row, volume_id=meant.volume_id)
    z_mm, against = _place_mm(row, meant)
    if z_mm is None:
        return replace(row, outcome=against)
    key = (words, meant.volume_id, row.first, row.last)
    if key in study.seen:
        return replace(row, outcome="duplicate")
    study.seen.add(key)
    study.sentences.append(
        Sentence(section=place.section, start=start, end=end, z_mm=z_mm, origin=ORIGIN)
    )
    return replace(row, outcome="kept", z_mm=z_mm[0])


def _sentence_around(place: _Place, citation: Citation) -> tuple[int, int]:
    """Give the sentence that a citation stands in; an abbreviation in it may have split it."""
    touched = [(a, b) for a, b in place.spans if a < citation.end and b > citation.start]
    if not touched:
        return citation.start, citation.end
    return min(touched[0][0], citation.start), max(touched[-1][1], citation.end)


def _against_words(place: _Place, citation: Citation, around: tuple[int, int], words: str) -> str:
    """Say why the words around a citation forbid to use it; "" = they do not."""
    start, end = around
    text = place.text
    before = text[max(start, citation.start - _NEAR_DATE) : citation.start]
    after = text[citation.end : min(end, citation.end + _NEAR_DATE)]
    if _PRIOR.search(text, start, end) or _DATE.search(before) or _DATE.search(after):
        return "prior_study"
    if len(_WORD.findall(words)) < MIN_WORDS:
        return "too_short"
    if start > 0 and text[start : citation.start].strip() in ("(", "["):
        return "unclear_sentence"
    near = text[max(start, citation.start - _NEAR_PLANE) : citation.start]
    return "other_plane" if citation.series is None and _OTHER_PLANE.search(near) else ""


def _series_meant(
    citation: Citation, place: _Place, series: Sequence[_Cited]
) -> tuple[_Cited | None, str]:
    """Find the prepared series that a citation names, or say why there is none."""
    if citation.series is None:
        if len(series) != 1 or series[0].axial_series != "1":
            return None, "series_not_named"
        if any(str(number) != series[0].number for number in place.numbers):
            return None, "series_not_named"
        return series[0], ""
    fit = [one for one in series if one.number == str(citation.series)]
    if len(fit) != 1:
        return None, "series_ambiguous" if fit else "series_absent"
    return fit[0], ""


def _place_mm(row: MinedRow, meant: _Cited) -> tuple[tuple[float, float, float] | None, str]:
    """Give centre, low and high edge of the cited slices in LPS mm, or say why not."""
    if not meant.slices:
        return None, "no_instances"
    if not meant.is_axial:
        return None, "not_axial"
    if row.first not in meant.slices or row.last not in meant.slices:
        return None, "image_absent"
    low, high = sorted((meant.slices[row.first], meant.slices[row.last]))
    if high - low > MAX_RANGE_MM:
        return None, "range_too_long"
    centre, half_mm = (low + high) / 2, meant.gap_mm / 2
    if not meant.low_mm <= centre <= meant.high_mm:
        return None, "outside_crop"
    z_mm = (round(z, 3) for z in (centre, low - half_mm, high + half_mm))
    return (next(z_mm), next(z_mm), next(z_mm)), ""


# ---- the cohort ----------------------------------------------------------------------------


def _cited(cohort: Cohort, study_id: str) -> tuple[_Cited, ...]:
    """List the prepared series of a study, ordered by id."""
    grouped: dict[str, list[VolumeRecord]] = {}
    for volume in cohort.volumes(study_id):
        grouped.setdefault(volume.volume_id, []).append(volume)
    return tuple(_one_cited(cohort, volumes) for volumes in grouped.values())


def _one_cited(cohort: Cohort, volumes: Sequence[VolumeRecord]) -> _Cited:
    """Put together one series from its preparations."""
    lows, highs = zip(*map(_edges_mm, volumes), strict=True)
    first = volumes[0]
    return _Cited(
        volume_id=first.volume_id,
        number=first.facts.get(SERIES_NUMBER, ""),
        axial_series=first.facts.get(AXIAL_SERIES, ""),
        is_axial=_is_axial(first.steps),
        slices=dict(cohort.slices(first.volume_id)),
        low_mm=max(lows),
        high_mm=min(highs),
    )


def _edges_mm(volume: VolumeRecord) -> tuple[float, float]:
    """Give the lowest and highest z that a prepared volume holds."""
    along_z = volume.world_from_voxel[2]
    step = along_z[0]
    low = along_z[3] - step / 2
    return low, low + step * volume.shape[0]


def _is_axial(steps: Sequence[str]) -> bool:
    """Read from what was done to a series whether its slices lie across the body."""
    told = "; ".join(steps)
    letters, turned = _READ.search(told), _TURNED.search(told)
    along = letters is not None and letters.group(1)[2] in "SI"
    return along and (turned is None or float(turned.group(1)) <= MAX_PLANE_DEGREES)


def _write_table(path: Path, rows: Sequence[MinedRow]) -> None:
    """Write one line per cited image."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([one.name for one in fields(MinedRow)])
        table.writerows(["" if v is None else v for v in astuple(row)] for row in rows)
