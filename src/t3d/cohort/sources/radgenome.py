"""RadGenome-ChestCT: CT-RATE reports told by region, with a mask of each region.

    ROOT/[dataset/]radgenome_files/{train,validation}_region_report.csv
    ROOT/[dataset/]{train,valid}_preprocessed/<patient>/<study>/<volume>.nii.gz
    ROOT/[dataset/]{train,valid}_region_mask/seg_<volume>/<region>.nii.gz

The tables have the columns Volumename (a small n), Anatomy (blank = the whole report) and Sentence.
Volumes are CT-RATE's, put on another grid; masks lie on that grid, not on CT-RATE's own, and are
compared with it when they are opened. Names, patients and splits are CT-RATE's: `valid` is our test
split. A region's text becomes sentences of the whole report with the origin `region:<region>`.
Facts of the layout: docs/howto/radgenome.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from t3d.cohort.ct_rate_tables import ALIASES, SPLITS, Name
from t3d.cohort.delimited import is_absent, read_delimited
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import check_shares
from t3d.cohort.stems import files_by_stem, stem_of, without_row
from t3d.errors import SourceError
from t3d.text.sentences import split_sentences
from t3d.types import Report, Sentence, Series, Study

REGIONS = (
    *("abdomen", "bone", "breast", "esophagus", "heart", "lung", "mediastinum", "pleura"),
    *("thyroid", "trachea and bronchie"),
)
"""As the files spell them, the last one too."""

_FOLDERS = ("radgenome_files", "")
_WHOLE = ""  # the region of rows that hold the whole report


@dataclass(frozen=True, slots=True)
class _Told:
    """A report and where its regions stand in it."""

    text: str
    sentences: tuple[Sentence, ...]
    added: tuple[str, ...]  # regions whose text the whole report does not hold


class RadGenome(ReadAtOnce):
    """RadGenome-ChestCT as a source.

    Args:
        root: The folder that holds `radgenome_files`, or the one above (`dataset/`).
        masks: List the masks of regions that are on disk.
        dev_share: Share of train patients in dev, by the same draw as the source ct_rate.
        seed: Seed of that draw.

    Raises:
        SourceError: No table of regions below `root`.

    Source:
        arXiv:2404.16754; layout, columns and regions: zhi-xuan-chen/Reg2RG.

    Example:
        >>> source = RadGenome("radgenome-chestct")  # doctest: +SKIP
    """

    kind = "radgenome"
    patients_of = "ct_rate"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way, by its tables."""
        return any(_table_of(below, s) for below in (root, root / "dataset") for s in SPLITS)

    def __init__(
        self, root: str | Path, *, masks: bool = True, dev_share: float = 0.05, seed: int = 0
    ) -> None:
        self.root = Path(root)
        if (self.root / "dataset").is_dir():
            self.root = self.root / "dataset"
        check_shares("RadGenome", dev=dev_share)
        self.masks = masks
        self.dev_share = dev_share
        self.seed = seed
        if not RadGenome.fits(self.root):
            raise SourceError(
                f"no table of regions below {self.root.name or 'the folder'}",
                expected="radgenome_files/train_region_report.csv or validation_region_report.csv",
                fix="give the folder that holds radgenome_files, or the one above `dataset`",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="as on the data card (RadGenome/RadGenome-ChestCT) and CT-RATE's "
            "CC BY-NC-SA 4.0: read them there",
            citation="Zhang et al., RadGenome-Chest CT, arXiv:2404.16754; "
            "Hamamci et al., CT-RATE and CT-CLIP, arXiv:2403.17834",
        )

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of split, patient and scan."""
        studies: list[Study] = []
        problems: list[SetAside] = []
        for split in SPLITS:
            rows = _rows_of(self.root, split)
            files, twice = files_by_stem((self.root / f"{split}_preprocessed").rglob("*"))
            there = (*files, *(problem.key for problem in twice))
            problems += [*twice, *without_row(there, rows)]
            spoilt = {problem.key for problem in twice}
            grouped: dict[str, list[Name]] = defaultdict(list)
            for volume in rows:
                name = Name.of(volume)
                if name is not None and volume not in spoilt:
                    grouped[name.study].append(name)
            for names in sorted(sorted(many) for many in grouped.values()):
                alike = [n for n in names if rows[n.volume] == rows[names[0].volume]]
                message = f"its sentences differ from those of {names[0].volume}"
                problems += [
                    SetAside(key=name.volume, reason="duplicate_key", message=message)
                    for name in names
                    if name not in alike
                ]
                told = _assembled(rows[names[0].volume])
                series, less = self._series(alike, files, {s.origin for s in told.sentences})
                problems += less
                studies.append(self._study(names[0], series, told))
        return studies, tuple(sorted(problems, key=lambda p: (p.key, p.reason)))

    def _series(
        self, names: Sequence[Name], files: Mapping[str, Path], origins: set[str]
    ) -> tuple[tuple[Series, ...], list[SetAside]]:
        """Make series of the volumes of one study."""
        series, problems = [], []
        for name in names:
            place = self.root / f"{name.split}_preprocessed" / name.patient / name.study
            masks, less = self._masks(name, origins) if self.masks else ({}, [])
            problems += less
            series.append(
                Series(
                    series_id=name.volume,
                    files=(files.get(name.volume, place / f"{name.volume}.nii.gz"),),
                    masks=masks,
                    facts={
                        "hu_source": "header",
                        "grid": "preprocessed",
                        "reconstruction": str(name.nth),
                    },
                )
            )
        return tuple(series), problems

    def _masks(self, name: Name, origins: set[str]) -> tuple[dict[str, Path], list[SetAside]]:
        """Find the masks of a volume; a region that is spoken of should have one."""
        folder = self.root / f"{name.split}_region_mask" / f"seg_{name.volume}"
        found, strange = {}, []
        for path in sorted(folder.glob("*.nii*")) if folder.is_dir() else ():
            region = stem_of(path.name)
            if region in REGIONS and region not in found:
                found[region] = path
            elif not path.name.startswith("."):
                strange.append(region)
        missing = [r for r in REGIONS if f"region:{r}" in origins and r not in found]
        problems = [
            SetAside(
                key=f"{name.volume}/{region}",
                reason="unlisted_file",
                message="a mask of no region, or a second one of it",
            )
            for region in strange
        ]
        if missing:
            message = f"no mask of {', '.join(missing)}, of which its report speaks"
            key = f"{name.volume}/masks"
            problems.append(SetAside(key=key, reason="missing_file", message=message))
        return found, problems

    def _study(self, name: Name, series: tuple[Series, ...], told: _Told) -> Study:
        """Put one study together."""
        return Study(
            study_id=name.study,
            patient_id=name.patient,
            series=series,
            reports=(Report(findings=told.text),) if told.text else (),
            facts={"regions_added": ", ".join(told.added)} if told.added else {},
            split=name.drawn_split(dev=self.dev_share, seed=self.seed),
            sentences=told.sentences,
        )


def _table_of(root: Path, split: str) -> Path | None:
    """Find the table of one split under either of its names."""
    places = (root / f / f"{a}_region_report.csv" for f in _FOLDERS for a in ALIASES[split])
    return next((path for path in places if path.is_file()), None)


def _rows_of(root: Path, split: str) -> dict[str, dict[str, frozenset[str]]]:
    """Read the table of one split: volume -> region -> its texts, whatever their order."""
    found: dict[str, dict[str, frozenset[str]]] = {}
    path = _table_of(root, split)
    rows = read_delimited(path, needs=("Volumename", "Anatomy", "Sentence")) if path else ()
    name_of = cache(Name.of)  # a dozen rows have one name
    for line, row in rows:
        name = name_of(row["Volumename"])
        region = row["Anatomy"].strip().casefold()
        region = _WHOLE if is_absent(region) else region
        if name is None or not name.volume or name.split != split:
            raise SourceError(
                f"{path.name if path else ''} line {line}: Volumename is no volume of {split}",
                expected=f"{split}_<number>_<letters>_<number>.nii.gz",
                fix="check which table this is",
            )
        text = " ".join(row["Sentence"].split())
        regions = found.setdefault(name.volume, {})
        if not is_absent(text):
            regions[region] = regions.get(region, frozenset()) | {text}
    return found


def _assembled(regions: Mapping[str, Iterable[str]]) -> _Told:
    """Find the texts of the regions in the whole report; what is not there is put behind it.

    The longest text without a region is the whole report. A region that we have no mask for
    (one of another name) keeps its sentences.
    """
    whole = sorted(regions.get(_WHOLE, ()), key=lambda text: (-len(text), text))
    text = whole[0] if whole else ""
    sentences: list[Sentence] = []
    added = []
    for region in sorted(set(regions) - {_WHOLE}):
        for piece in sorted(regions.get(region, ()), key=lambda p: (text.find(p), p)):
            spans = _places(text, piece)
            if not spans:
                start = len(text) + bool(text)
                spans = [(start, start + len(piece))]
                text = f"{text}\n{piece}" if text else piece
                added.append(region)
            sentences += [
                Sentence(section="findings", start=a, end=b, origin=f"region:{region}")
                for a, b in spans
            ]
    for piece in whole[1:]:
        if not _places(text, piece):
            text = f"{text}\n{piece}"
    sentences.sort(key=lambda s: (s.start, s.end, s.origin))
    return _Told(text, tuple(sentences), tuple(dict.fromkeys(added)))


def _places(text: str, piece: str) -> list[tuple[int, int]]:
    """Say where a piece stands in a text: as a whole, else every sentence of it; [] = nowhere."""
    whole = _span(text, piece)
    if whole is not None:
        return [whole]
    spans = [_span(text, piece[a:b]) for a, b in split_sentences(piece)]
    found = [span for span in spans if span is not None]
    return found if len(found) == len(spans) else []


def _span(text: str, part: str) -> tuple[int, int] | None:
    """Find a part between other words, whatever its case.

    No regular expression: compiling one a sentence would be most of the time of a listing.
    """
    low, wanted = text.lower(), part.lower()
    if (len(low), len(wanted)) != (len(text), len(part)):  # a letter whose small form is two
        low, wanted = text, part
    start = low.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        inside = (low[start - 1 : start + 1], low[end - 1 : end + 1])
        if not any(len(pair) == 2 and pair.isalnum() for pair in inside):
            return start, end
        start = low.find(wanted, start + 1)
    return None
