"""BIMCV-R as it lies on a user's disk: chest CTs of one region with reports put into English.

    ROOT/CT*/ct/*.nii.gz
    ROOT/[meta/]curated_ct_report_path_En.csv                 path, Report_en

A row belongs to the file of the same name, wherever `path` says it once lay. Names of the parent
collection begin `sub-<patient>_ses-<session>_`: patient and study are read from them. No split is
official: ours is drawn by patient. Facts of the layout: docs/howto/bimcv-r.md.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from t3d.cohort.delimited import is_absent, read_delimited
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import check_shares, split_of
from t3d.cohort.stems import files_by_stem, stem_of, without_row
from t3d.errors import SourceError
from t3d.text.addenda import read_report
from t3d.types import Series, Study

_log = logging.getLogger(__name__)

_TABLE = "curated_ct_report_path_En.csv"
_FOLDERS = ("meta", "", "meta_1")  # as the authors' code has it; as the zip unpacks
_NAME = re.compile(r"(?P<session>(?P<patient>sub-[^_]+)(?:_ses-[^_]+)?)(?:_|$)")


class BimcvR(ReadAtOnce):
    """BIMCV-R as a source.

    Args:
        root: The folder that holds `CT*/` and the table.
        dev_share: Share of patients in dev, by a seeded hash of the patient.
        test_share: Share of patients in test.
        seed: Seed of that hash.

    Raises:
        SourceError: No table below `root`, or shares that leave no train.

    Source:
        arXiv:2403.15992; layout and columns: code of ydchen0806/MedFinder, which takes the first
        80 % of the rows for train; so many patients here, by a hash (our choice).

    Example:
        >>> source = BimcvR("bimcv-r")  # doctest: +SKIP
    """

    kind = "bimcv_r"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way, by its table."""
        return _table_of(root) is not None

    def __init__(
        self,
        root: str | Path,
        *,
        dev_share: float = 0.05,
        test_share: float = 0.15,
        seed: int = 0,
    ) -> None:
        self.root = Path(root)
        check_shares("BimcvR", dev=dev_share, test=test_share)
        self.dev_share = dev_share
        self.test_share = test_share
        self.seed = seed
        if _table_of(self.root) is None:
            raise SourceError(
                f"no {_TABLE} below {self.root.name or 'the folder'}",
                expected=f"meta/{_TABLE} beside the folders CT*/",
                fix="unpack meta_1.zip there",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="as on the data card (cyd0806/BIMCV-R; gated): read it there",
            citation="Chen et al., BIMCV-R, arXiv:2403.15992",
        )

    def _listed(self) -> tuple[list[Study], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of their ids."""
        folders = sorted(self.root.glob("CT*"))
        files, twice = files_by_stem(path for folder in folders for path in folder.rglob("*"))
        texts, torn = self._texts()
        message = "two rows of this name have different reports"
        problems = [SetAside(key=k, reason="duplicate_key", message=message) for k in sorted(torn)]
        problems += [*twice, *without_row((*files, *(p.key for p in twice)), (*texts, *torn))]
        spoilt = torn | {problem.key for problem in twice}
        sound = {stem: text for stem, text in texts.items() if stem not in spoilt}
        unnamed = sum(_NAME.match(stem) is None for stem in sound)
        if unnamed:
            _log.warning(
                "%d of %d file names tell no patient (sub-...): each is one of its own",
                unnamed,
                len(sound),
            )
        studies = [
            self._study(study_id, stems, sound, files)
            for study_id, stems in sorted(_grouped(sound).items())
        ]
        return studies, tuple(sorted(problems, key=lambda p: (p.key, p.reason)))

    def _texts(self) -> tuple[dict[str, str], set[str]]:
        """Read the reports by file stem, and the stems that have several."""
        found: dict[str, str] = {}
        torn: set[str] = set()
        path = _table_of(self.root)
        rows = read_delimited(path, needs=("path", "Report_en")) if path else ()
        for _, row in rows:
            stem, text = stem_of(row["path"]), row["Report_en"].strip()
            text = "" if is_absent(text) else text
            if stem and found.setdefault(stem, text) != text:
                torn.add(stem)
        return found, torn

    def _study(
        self,
        study_id: str,
        stems: Iterable[str],
        texts: Mapping[str, str],
        files: Mapping[str, Path],
    ) -> Study:
        """Put one study together."""
        stems = sorted(stems)
        patient = _patient_of(stems[0])
        # The field is findings until it says otherwise; it was put into English.
        told = read_report(texts[stems[0]], language="en", opens="FINDINGS")
        return Study(
            study_id=study_id,
            patient_id=patient,
            series=tuple(
                Series(
                    series_id=stem,
                    files=(files.get(stem, self.root / f"{stem}.nii.gz"),),
                    facts={"hu_source": "header"},
                )
                for stem in stems
            ),
            reports=(told.report,) if told.report.findings or told.report.impression else (),
            facts=told.facts,
            split=split_of(patient, dev=self.dev_share, test=self.test_share, seed=self.seed),
        )


def _grouped(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Group files by session; files of one session with different reports stay apart."""
    sessions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for stem in sorted(texts):
        match = _NAME.match(stem)
        sessions[match["session"] if match else stem][texts[stem]].append(stem)
    grouped: dict[str, list[str]] = {}
    for session, by_text in sessions.items():
        for stems in by_text.values():
            grouped[session if len(by_text) == 1 else stems[0]] = stems
    return grouped


def _patient_of(stem: str) -> str:
    """Name the patient, or the file where its name tells none."""
    match = _NAME.match(stem)
    return match["patient"] if match else stem


def _table_of(root: Path) -> Path | None:
    """Find the table of reports."""
    return next((p for f in _FOLDERS if (p := root / f / _TABLE).is_file()), None)
