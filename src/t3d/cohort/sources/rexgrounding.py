"""ReXGroundingCT: findings of CT-RATE volumes in words, each with a 3-D mask.

    ROOT/dataset.json, MICCAI_challenge_dataset.json    lists train, val, test
    ROOT/segmentations/train_1741_b_2.nii.gz            (findings, I, J, K)
    VOLUMES/[dataset/]{train,valid}_fixed/<CT-RATE's tree>

The volumes are CT-RATE's own, the patients too (`train_1741`). The index is the manifest: what it
names is listed whether or not its files are there. Findings of an entry are the lines of its
report, one sentence each; the sentence of `finding_0` has the origin `mask:finding_0`. The masks
of the list `test` are kept back. Facts of the layout: docs/howto/rexgrounding.md.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t3d.cohort.ct_rate_tables import Files, Name
from t3d.cohort.labelled import read_object
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import check_shares, without_leaks
from t3d.cohort.stems import files_by_stem, without_row
from t3d.errors import SourceError
from t3d.types import MaskPart, Report, Sentence, Series, Study

INDEX = "dataset.json"
MASKS = "segmentations"
SPLITS: Mapping[str, str] = {"train": "train", "val": "dev", "test": "test"}
CATEGORIES: Mapping[str, str] = {
    "1a": "Bronchial wall thickening",
    "1b": "Bronchiectasis",
    "1c": "Emphysema",
    "1d": "Septal thickening",
    "1e": "Micronodules",
    "1f": "Other non-focal",
    "2a": "Linear opacities",
    "2b": "Atelectasis or consolidation",
    "2c": "Ground-glass opacity",
    "2d": "Nodules or masses",
    "2e": "Pleural effusion or thickening",
    "2f": "Honeycombing",
    "2g": "Pneumothorax",
    "2h": "Other focal",
}
PUBLISHED: Mapping[str, int] = {"train": 2992, "val": 50, "test": 100}
"""Volumes in each list of dataset.json, as the data card tells."""

_KNOWN = ("name", "findings", "categories")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One volume of the index."""

    name: Name
    listed: str  # "train", "val" or "test"
    texts: tuple[str, ...]  # by finding; "" = no words
    categories: tuple[str, ...]  # by finding; "" = not told
    rest: str  # other keys of the entry, as JSON


class ReXGrounding(ReadAtOnce):
    """ReXGroundingCT as a source.

    Args:
        root: The folder that holds the index and `segmentations`.
        volumes: The folder of CT-RATE; "" = the root.
        index: Name of the index file.
        splits_of: "rexgrounding": its lists, val as dev; a patient in two of them stays in the
            strictest. "ct_rate": by CT-RATE's rules, so that nobody a model saw there in train is
            judged on: all its names are of CT-RATE's train.
        dev_share: Share of patients in dev, for "ct_rate", by the same draw as there.
        seed: Seed of that draw.

    Raises:
        SourceError: No index, or one of another form.

    Source:
        arXiv:2507.22030 and the data card; first axis = finding: card; categories by name and
        patients in several splits: third parties.

    Example:
        >>> source = ReXGrounding("rexgroundingct", volumes="ct-rate")  # doctest: +SKIP
    """

    kind = "rexgrounding"
    patients_of = "ct_rate"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way."""
        return (root / MASKS).is_dir() and any(root.glob("*dataset.json"))

    def __init__(
        self,
        root: str | Path,
        *,
        volumes: str = "",
        index: str = INDEX,
        splits_of: str = "rexgrounding",
        dev_share: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.root = Path(root)
        self.volumes = Path(volumes) if volumes else self.root
        if (self.volumes / "dataset").is_dir():
            self.volumes = self.volumes / "dataset"
        if splits_of not in ("rexgrounding", "ct_rate"):
            raise SourceError(
                f"ReXGrounding: splits_of is {splits_of!r}", expected="rexgrounding or ct_rate"
            )
        check_shares("ReXGrounding", dev=dev_share)
        self.index = index
        self.splits_of = splits_of
        self.dev_share = dev_share
        self.seed = seed
        self._entries()

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="CC BY-NC-SA 4.0; gated, terms accepted at the download; volumes: CT-RATE's",
            citation="Baharoon et al., ReXGroundingCT, arXiv:2507.22030; "
            "Hamamci et al., CT-RATE and CT-CLIP, arXiv:2403.17834",
        )

    def differences(self) -> tuple[str, ...]:
        """Compare the lists of dataset.json with the published counts; () = it is whole."""
        told = read_object(self.root / self.index)
        return tuple(
            f"{listed}: {len(told.get(listed, ()))}, published {published}"
            for listed, published in PUBLISHED.items()
            if len(told.get(listed, ())) != published
        )

    def _entries(self) -> tuple[list[_Entry], list[SetAside]]:
        """Read the index: one entry a volume, in the order a person counts."""
        told = read_object(self.root / self.index)
        if not set(told) & set(SPLITS) or not all(
            isinstance(told.get(s, []), list) for s in SPLITS
        ):
            raise SourceError(
                f"{self.index}: no lists {', '.join(SPLITS)}",
                expected='{"train": [{"name", "findings"}, ...], ...}',
                fix="check which file this is",
            )
        found: dict[str, list[_Entry]] = defaultdict(list)
        problems: list[SetAside] = []
        for listed in SPLITS:
            for number, row in enumerate(told.get(listed, [])):
                entry = _entry(row, listed, f"{self.index}: {listed}[{number}]")
                if isinstance(entry, SetAside):
                    problems.append(entry)
                else:
                    found[entry.name.volume].append(entry)
        kept = []
        for volume, many in found.items():
            strictest = max(many, key=lambda e: list(SPLITS).index(e.listed))
            if len({(e.texts, e.categories) for e in many}) > 1:
                message = "listed more than once, with other findings"
                problems.append(SetAside(key=volume, reason="duplicate_key", message=message))
                continue
            kept.append(strictest)
            problems += [
                SetAside(
                    key=f"{volume} in {listed}",
                    reason="split_leak",
                    message=f"listed in {listed} and in {strictest.listed}",
                )
                for listed in sorted({e.listed for e in many} - {strictest.listed})
            ]
        return sorted(kept, key=lambda e: e.name), problems

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of patient and scan."""
        entries, problems = self._entries()
        files = Files(self.volumes)
        volumes_of_study = Counter(entry.name.study for entry in entries)
        studies = [
            self._study(entry, files, alone=volumes_of_study[entry.name.study] == 1)
            for entry in entries
        ]
        kept, leaks = without_leaks(studies)
        masks, twice = files_by_stem((self.root / MASKS).rglob("*"))
        named = [entry.name.volume for entry in entries]
        problems += [*leaks, *twice, *without_row(masks, named)]
        return kept, tuple(sorted(problems, key=lambda p: (p.key, p.reason)))

    def _study(self, entry: _Entry, files: Files, *, alone: bool) -> Study:
        """Make a study of an entry; two volumes of one examination have texts of their own."""
        name = entry.name
        fallback = self.volumes / f"{name.split}_fixed" / name.patient / name.study
        path = files.fixed.get(name.volume, fallback / f"{name.volume}.nii.gz")
        text, sentences = _sentences(entry)
        masks = "kept back" if not self._parts(entry) else str(len(entry.texts))
        return Study(
            study_id=name.study if alone else name.volume,
            patient_id=name.patient,
            series=(
                Series(
                    series_id=name.volume,
                    files=(path,),
                    masks=self._parts(entry),
                    facts={"hu_source": "header", "reconstruction": str(name.nth)},
                ),
            ),
            reports=(Report(findings=text),) if text else (),
            facts={
                "listed": entry.listed,
                "finding_masks": masks,
                "masks_cover": "salient lesions" if entry.listed == "train" else "all lesions",
                "index_entry": entry.rest,
            },
            split=self._split_of(entry),
            sentences=sentences,
        )

    def _split_of(self, entry: _Entry) -> str:
        """Name our split."""
        if self.splits_of == "rexgrounding":
            return SPLITS[entry.listed]
        return entry.name.drawn_split(dev=self.dev_share, seed=self.seed)

    def _parts(self, entry: _Entry) -> Mapping[str, MaskPart]:
        """Name the mask of each finding."""
        path = self.root / MASKS / f"{entry.name.volume}.nii.gz"
        if entry.listed == "test" and not path.is_file():
            return {}
        count = len(entry.texts)
        return {f"finding_{n}": MaskPart(path=path, index=n, count=count) for n in range(count)}


def _entry(row: object, listed: str, where: str) -> _Entry | SetAside:
    """Read one entry of the index, or say why it cannot be used."""
    told: Mapping[str, Any] = row if isinstance(row, dict) else {}
    name = Name.of(str(told.get("name", "")))
    if name is None or not name.volume:
        raise SourceError(
            f"{where}: its name is no volume of CT-RATE",
            expected='{"name": "train_1741_b_2.nii.gz", "findings": {"0": "<text>"}}',
            fix="check which file this is",
        )
    texts = _by_finding(told.get("findings"))
    if not texts:
        message = "findings are not numbered 0, 1, ..., so that masks cannot be told apart"
        return SetAside(key=name.volume, reason="unreadable", message=message)
    categories = told.get("categories")
    codes = categories if isinstance(categories, dict) else {}
    return _Entry(
        name=name,
        listed=listed,
        texts=texts,
        categories=tuple(str(codes.get(str(n), "")) for n in range(len(texts))),
        rest=json.dumps({k: v for k, v in told.items() if k not in _KNOWN}, sort_keys=True),
    )


def _by_finding(told: object) -> tuple[str, ...]:
    """Put texts in order of their numbers; () where these are not 0, 1, ..., or no texts."""
    if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
        return ()
    if set(told) != {str(n) for n in range(len(told))}:
        return ()
    return tuple(" ".join(told[str(n)].split()) for n in range(len(told)))


def _sentences(entry: _Entry) -> tuple[str, tuple[Sentence, ...]]:
    """Join the findings as lines, and say where each stands and which mask shows it."""
    text, sentences = "", []
    for number, (words, code) in enumerate(zip(entry.texts, entry.categories, strict=True)):
        if not words:
            continue
        text += "\n" if text else ""
        sentences.append(
            Sentence(
                section="findings",
                start=len(text),
                end=len(text) + len(words),
                finding=CATEGORIES.get(code, ""),
                origin=f"mask:finding_{number}",
            )
        )
        text += words
    return text, tuple(sentences)
