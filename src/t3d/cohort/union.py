"""Several sources as one, and CT-3DVLP as a named union.

Every id is prefixed (`inspect-1001`), so that nothing collides; splits stay those of each member's
own rules. Each study carries the fact `member`, and `patients_of` where its corpus has a name.
Patients of one corpus have one prefix whatever the member is called, so a corpus listed twice is
still one set of people.

CT-3DVLP is the corpus of T3D v3 (arXiv:2312.01529v3). Its filters, lists and splits are not public:
`ct3dvlp` is our reading of it, and its counts are printed beside the paper's, never as equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from t3d.cohort import engine
from t3d.cohort.listing import ReadAtOnce, SetAside, Source, Terms
from t3d.cohort.patients import SPLITS, without_leaks
from t3d.cohort.people import CORPUS, MEMBER, corpus_of
from t3d.cohort.preflight import open_series
from t3d.errors import SourceError
from t3d.types import Report, Series, Study

PAPER: Mapping[str, int] = {"ct_rate": 25_691, "inspect": 20_400, "bimcv_r": 6_548}
"""Volumes of CT-3DVLP by member, as told of T3D v3; 52,639 together."""
WHOLE: Mapping[str, int] = {"ct_rate": 25_692, "inspect": 23_248, "bimcv_r": 8_069}
"""Studies (BIMCV-R: volumes) of each public source, every split."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")  # without the sign that ends a prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What of its members a union keeps, in this order; the defaults keep everything."""

    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)  # member -> ours; {} = all
    drop_empty_texts: bool = False
    min_chars: int = 0
    min_slices: int = 0  # along the body; reads the headers of all files
    one_volume: bool = False  # the first one that has enough slices
    drop_duplicate_texts: bool = False  # within a split, over all members


class Union(ReadAtOnce):
    """Named sources as one.

    Args:
        members: Sources by name: small letters, digits, underscores.
        rules: What is kept.
        kind: What a cohort records as its source.

    Raises:
        SourceError: No member, a name that is none, or rules for a member that is not there.

    Example:
        >>> both = Union({"ours": Folder("a"), "theirs": Folder("b")})  # doctest: +SKIP
    """

    # No attribute `root`: files are recorded by name.

    def __init__(
        self, members: Mapping[str, Source], *, rules: Rules | None = None, kind: str = "union"
    ) -> None:
        self.kind = kind
        self.members = dict(members)
        self.rules = rules or Rules()
        self._depths: dict[Path, int | None] = {}
        for name in self.members:
            if not _NAME.fullmatch(name):
                raise SourceError(
                    f"a member called {name!r}",
                    expected="small letters, digits and underscores",
                    fix="rename it: name=ROOT",
                )
        strange = sorted(set(self.rules.splits) - set(self.members))
        if strange or not self.members:
            raise SourceError(
                f"rules for {', '.join(strange)}" if strange else "a union without members",
                expected=f"members: {', '.join(self.members) or 'at least one'}",
                fix="give each member as name=ROOT",
            )
        unknown = sorted({s for told in self.rules.splits.values() for s in told} - set(SPLITS))
        if unknown:
            raise SourceError(
                f"splits {', '.join(map(repr, unknown))}", expected=", ".join(filter(None, SPLITS))
            )

    @property
    def terms(self) -> Terms:
        """Licences and citations of all members; synthetic only where all are."""
        told = {name: source.terms for name, source in self.members.items()}
        return Terms(
            licence="; ".join(f"{name}: {terms.licence}" for name, terms in told.items()),
            citation="; ".join(terms.citation for terms in told.values() if terms.citation),
            synthetic=all(terms.synthetic for terms in told.values()),
        )

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels, member by member, each in its own order."""
        studies: list[Study] = []
        problems: list[SetAside] = []
        for name, source in self.members.items():
            studies += [_prefixed(study, name, source) for study in source.studies()]
            for told in getattr(source, "set_aside", lambda: ())():
                problems.append(replace(told, key=f"{name}-{told.key}"))
        studies, leaks = without_leaks(studies)
        problems += leaks
        kept: list[Study] = []
        texts: dict[tuple[str, str], str] = {}
        for study in studies:
            series, refusal = self._judged(study)
            problems += refusal
            if not series:
                continue
            if self.rules.drop_duplicate_texts and (text := _text_of(study).casefold()):
                first = texts.setdefault((study.split, text), study.study_id)
                if first != study.study_id:
                    message = f"the same text as {first}"
                    told = SetAside(key=study.study_id, reason="duplicate_text", message=message)
                    problems.append(told)
                    continue
            kept.append(replace(study, series=series))
        return kept, tuple(problems)

    def _judged(self, study: Study) -> tuple[tuple[Series, ...], list[SetAside]]:
        """Give the series that stay, and why others or all do not."""
        rules, text = self.rules, _text_of(study)
        reason, message = "", ""
        if study.split not in rules.splits.get(study.facts[MEMBER], SPLITS):
            reason, message = "not_asked_for", f"its split is {study.split or 'not told'}"
        elif rules.drop_empty_texts and not text:
            reason, message = "empty_text", "no text"
        elif len(text) < rules.min_chars:
            reason, message = "short_text", f"{len(text)} characters, not {rules.min_chars}"
        if reason:
            return (), [SetAside(key=study.study_id, reason=reason, message=message)]
        deep = [one for one in study.series if self._deep_enough(one)]
        problems = [
            SetAside(
                key=one.series_id,
                reason="too_small",
                message=f"fewer than {rules.min_slices} slices",
            )
            for one in study.series
            if one not in deep
        ]
        if rules.one_volume:
            problems += [
                SetAside(key=one.series_id, reason="not_chosen", message="a later volume")
                for one in deep[1:]
            ]
            deep = deep[:1]
        return tuple(deep), problems

    def _deep_enough(self, series: Series) -> bool:
        """Hold the header against the least number of slices; prepare judges what has none."""
        if not self.rules.min_slices:
            return True
        key = series.files[0]
        if key not in self._depths:
            self._depths[key] = _depth_of(series)
        depth = self._depths[key]
        return depth is None or depth >= self.rules.min_slices


def ct3dvlp(
    *, ct_rate: Source, inspect: Source, bimcv_r: Source, min_slices: int = 0, min_chars: int = 0
) -> Union:
    """Join CT-RATE, INSPECT and BIMCV-R for pretraining, by our reading of CT-3DVLP.

    Official train patients only: no validation or test patient of CT-RATE or INSPECT and no test
    patient of BIMCV-R is listed at all. One volume a study. Studies without text are out, and of
    equal texts of a split all but the first. `dev` is drawn among train patients (CT-RATE,
    BIMCV-R), for model selection.

    Args:
        ct_rate: Lists CT-RATE; `reconstructions` chooses the volume.
        inspect: Lists INSPECT.
        bimcv_r: Lists BIMCV-R.
        min_slices: Fewer slices along the body are out; reads all headers.
        min_chars: Shorter texts are out.

    Source:
        Members and counts: T3D v3; rules: our choice (the paper's filters are not public).
    """
    rules = Rules(
        splits={"ct_rate": ("train", "dev"), "inspect": ("train",), "bimcv_r": ("train", "dev")},
        drop_empty_texts=True,
        min_chars=min_chars,
        min_slices=min_slices,
        one_volume=True,
        drop_duplicate_texts=True,
    )
    members = {"ct_rate": ct_rate, "inspect": inspect, "bimcv_r": bimcv_r}
    return Union(members, rules=rules, kind="ct3dvlp")


def open_union(
    told: Sequence[str], settings: Mapping[str, str] | None = None, *, kind: str = "union"
) -> Union:
    """Open a union as a command line tells it.

    Args:
        told: "name=ROOT" each; a name that is a source's kind names that kind.
        settings: "member.setting" -> value as text; for `ct3dvlp` also `min_slices`, `min_chars`.
        kind: "union", or "ct3dvlp", which needs the members ct_rate, inspect and bimcv_r.

    Raises:
        SourceError: Not of that form, a member missing or unknown, or a setting nobody knows.
    """
    from t3d.cohort.sources import SOURCES, open_source

    roots = dict(one.partition("=")[::2] for one in told)
    if len(roots) < len(told) or not all(roots.values()):
        raise SourceError(
            "members that are not told apart",
            expected="name=ROOT, each name once",
            fix="ct_rate=/data/ct-rate inspect=/data/inspect",
        )
    if kind == "ct3dvlp" and set(roots) != set(PAPER):
        raise SourceError(
            f"ct3dvlp from {', '.join(sorted(roots)) or 'nothing'}",
            expected=", ".join(PAPER),
            fix="for other members say union",
        )
    own = {"min_slices": 0, "min_chars": 0}
    given: dict[str, dict[str, str]] = {name: {} for name in roots}
    if kind == "ct3dvlp":
        given["ct_rate"] = {"splits": "train", "reconstructions": "first"}
        given["inspect"] = {"splits": "train"}
    for key, value in (settings or {}).items():
        member, _, setting = key.rpartition(".")
        if kind == "ct3dvlp" and key in own and value.isdigit():
            own[key] = int(value)
        elif member in given:
            given[member][setting] = value
        else:
            raise SourceError(
                f"setting {key}={value}", expected=f"member.setting, members: {', '.join(roots)}"
            )
    kinds = {made.kind for made in SOURCES}
    members = {
        name: open_source(root, name if name in kinds else "", given[name])
        for name, root in roots.items()
    }
    if kind != "ct3dvlp":
        return Union(members)
    return ct3dvlp(
        ct_rate=members["ct_rate"],
        inspect=members["inspect"],
        bimcv_r=members["bimcv_r"],
        min_slices=own["min_slices"],
        min_chars=own["min_chars"],
    )


def beside_the_paper(source: Source) -> str:
    """Count the studies of a `ct3dvlp` union beside what is told of the paper's.

    Returns:
        A table as text: studies listed here, of them train and dev; the paper's count; what the
        whole public source has. Files that are missing or broken show when preparing.
    """
    counts = Counter((s.facts.get(MEMBER, ""), s.split) for s in source.studies())
    rows: list[tuple[str, list[int]]] = []
    for name in PAPER:
        train, dev = counts[name, "train"], counts[name, "dev"]
        rows.append((name, [train + dev, train, dev, PAPER[name], WHOLE[name]]))
    rows.append(("total", [sum(column) for column in zip(*(n for _, n in rows), strict=True)]))
    lines = [f"{'':<8}{'here':>9}{'train':>9}{'dev':>9}{'paper':>9}{'whole':>9}"]
    for name, numbers in rows:
        lines.append(f"{name:<8}" + "".join(f"{number:>9,}" for number in numbers))
    lines.append(
        "Not the paper's corpus: its filters are not public, and no official validation or test "
        "patient is here."
    )
    return "\n".join(lines)


def _prefixed(study: Study, name: str, source: Source) -> Study:
    """Give a study of a member ids that are its own; patients of a union have theirs already."""
    facts, patient_id = {**study.facts, MEMBER: name}, study.patient_id
    if not isinstance(source, Union):
        corpus = corpus_of(source)
        patient_id = f"{corpus or name}-{patient_id}"
        facts |= {CORPUS: corpus} if corpus else {}
    return replace(
        study,
        study_id=f"{name}-{study.study_id}",
        patient_id=patient_id,
        series=tuple(replace(s, series_id=f"{name}-{s.series_id}") for s in study.series),
        facts=facts,
    )


def _text_of(study: Study) -> str:
    """Join the texts of a study, with single spaces."""
    return " ".join(" ".join(map(_words, study.reports)).split())


def _words(report: Report) -> str:
    """Join the sections of a report."""
    return f"{report.findings} {report.impression}"


def _depth_of(series: Series) -> int | None:
    """Count the slices along the body from the header; None = it cannot be read."""
    try:
        with open_series(series) as file:
            return int(file.shape_kji[file.orientation.axes[0]])
    except engine.READING_ERRORS:
        return None
