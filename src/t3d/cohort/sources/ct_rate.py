"""CT-RATE as it lies on a user's disk: v1 or corrected (v2), both namings of its tables.

    ROOT/[dataset/]train_fixed/train_1/train_1_a/train_1_a_1.nii.gz    v2: HU, corrected headers
    ROOT/[dataset/]train/<same tree>                                   v1: stored values
    ROOT/[dataset/]valid_fixed/, valid/                                likewise
    metadata/{train,validation}_metadata.csv, no_chest_{train,valid}.txt
    radiology_text_reports/{train,validation}_reports.csv
    multi_abnormality_labels/{train,valid}_predicted_labels.csv

Patient = `train_1`, study = `train_1_a`, volume = `train_1_a_1`. Tables are the manifest: what they
name is listed whether or not its file is there, so a listing does not change as a download grows;
preparing a volume without a file gives `missing_file`. `valid` is our test split.

Nothing of the dataset is shipped. Facts of its layout: docs/howto/ct-rate.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from t3d.cohort.ct_rate_tables import (
    COLUMNS,
    ENDINGS,
    PUBLISHED,
    SPLITS,
    Files,
    Name,
    Tables,
    grid_told,
    is_axial,
    kernel_of,
    known_bad,
    no_chest,
    override_of,
    table_of,
    voxel_mm3,
)
from t3d.cohort.delimited import is_absent
from t3d.cohort.listing import ReadAtOnce, SetAside, Terms
from t3d.cohort.patients import check_shares
from t3d.cohort.pseudonyms import age_years
from t3d.ct.guard import RefusedGrid
from t3d.errors import SourceError
from t3d.types import HeaderOverride, Report, Series, Study

RECONSTRUCTIONS = ("all", "first", "smallest_voxel")  # or "kernel:NAME[,NAME]"
TEXTS = ("sections", "ctclip-train", "ctclip-eval")
# Both must be there: shifted twice by -1024, soft tissue lies where air is; never shifted, air lies
# where soft tissue is.
_AIR_HU, _SOFT_HU = (-1100, -900), (-200, 200)
_LITTLE = 0.02  # share of voxels; a chest with the air around it has some ten times that of both


class CtRate(ReadAtOnce):
    """CT-RATE as a source.

    Args:
        root: The folder that holds `train_fixed` and the tables, or the one above (`dataset/`).
        hu: Where HU and geometry come from. "auto": a file below `*_fixed` by its header, any
            other by the table; "header" or "table": all files that way.
        reconstructions: "all" keeps them apart as series of one study; "first" the lowest
            number; "smallest_voxel" by the table; "kernel:YA,Br60f" the first kernel named here
            that a study has.
        text: "sections" (findings and impression, sentinels empty), or "ctclip-train" and
            "ctclip-eval" for the text exactly as that code builds it.
        drop_duplicate_reports: Keep only the first study of a split, by study id, among those
            with the same findings.
        dev_share: Share of train patients in dev, by a seeded hash of the patient.
        seed: Seed of that hash.
        splits: Which of CT-RATE's splits to list, by its own names.

    Raises:
        SourceError: No tables below `root`, or a setting that does not exist.

    Source:
        arXiv:2403.17834; hu rule: threads 28 and 50 of ibrahimethemhamamci/CT-CLIP; dev: our
        choice.

    Example:
        >>> source = CtRate("ct-rate", reconstructions="first")  # doctest: +SKIP
        >>> source.check_hu()  # doctest: +SKIP
    """

    kind = "ct_rate"

    @staticmethod
    def fits(root: Path) -> bool:
        """Say whether a folder is laid out this way, by its tables or its volumes."""
        return any(
            (below / name).is_dir()
            for below in (root, root / "dataset")
            for name in ("radiology_text_reports", "train_fixed", "valid_fixed")
        )

    def __init__(
        self,
        root: str | Path,
        *,
        hu: str = "auto",
        reconstructions: str = "all",
        text: str = "sections",
        drop_duplicate_reports: bool = False,
        dev_share: float = 0.05,
        seed: int = 0,
        splits: Sequence[str] = SPLITS,
    ) -> None:
        self.root = Path(root)
        if (self.root / "dataset").is_dir():
            self.root = self.root / "dataset"
        _check_word("hu", hu, ("auto", "header", "table"))
        _check_word("text", text, TEXTS)
        if not reconstructions.startswith("kernel:"):
            _check_word("reconstructions", reconstructions, (*RECONSTRUCTIONS, "kernel:NAME"))
        for split in splits:
            _check_word("splits", split, SPLITS)
        check_shares("CtRate", dev=dev_share)
        self.hu = hu
        self.reconstructions = reconstructions
        self.text = text
        self.drop_duplicate_reports = drop_duplicate_reports
        self.dev_share = dev_share
        self.seed = seed
        self.splits = tuple(split for split in SPLITS if split in splits)
        if not any(table_of(self.root, kind, s) for kind in ENDINGS for s in self.splits):
            raise SourceError(
                f"no table of CT-RATE below {self.root.name or 'the folder'}",
                expected="metadata/, radiology_text_reports/ or multi_abnormality_labels/ with "
                "train_*.csv, validation_*.csv or valid_*.csv",
                fix="give the folder that holds train_fixed, or the one above `dataset`",
            )

    @property
    def terms(self) -> Terms:
        """Licence and citation."""
        return Terms(
            licence="CC BY-NC-SA 4.0; gated, terms accepted at the download",
            citation="Hamamci et al., CT-RATE and CT-CLIP, arXiv:2403.17834",
        )

    def check_hu(self, *, count: int = 3) -> None:
        """Open a few files and stop where header and table were mixed up.

        A file read the right way has air near -1000 HU and soft tissue near 0. Where one is
        missing, and reading it the other way (header instead of table, or table instead of header)
        gives both, a v1 file lies where v2 is expected or the other way round.

        Args:
            count: Files looked at in each of `train_fixed`, `valid_fixed`, `train`, `valid`.

        Raises:
            SourceError: Values were rescaled twice, or never.
        """
        rows: dict[str, Mapping[str, str]] = {}
        for split in self.splits:
            rows.update(Tables(self.root, split).metadata)
        groups: dict[str, list[Series]] = defaultdict(list)
        for study in self.studies():
            for series in study.series:
                if series.files[0].is_file():
                    groups[series.files[0].relative_to(self.root).parts[0]].append(series)
        for place, members in sorted(groups.items()):
            step = max(1, len(members) // max(1, count))
            for series in members[::step][:count]:
                _check_way(series, rows.get(series.series_id), place)

    def differences(self) -> tuple[str, ...]:
        """Compare the tables with the public ones, line by line; () = this copy is whole.

        Source:
            Counted on the public label tables; a later release may differ.
        """
        told = []
        for split in self.splits:
            counted = Tables(self.root, split).counts()
            for what, published in PUBLISHED[split].items():
                if counted[what] != published:
                    told.append(f"{split}, {what}: {counted[what]}, published {published}")
        return tuple(told)

    # ---- listing -----------------------------------------------------------------------------

    def _listed(self) -> tuple[tuple[Study, ...], tuple[SetAside, ...]]:
        """Read everything but voxels; studies come in order of split, patient and scan."""
        files = Files(self.root)
        studies: list[Study] = []
        problems = list(files.problems)
        broken = known_bad()
        for split in self.splits:
            tables = Tables(self.root, split)
            problems += files.without_row(split, tables.names)
            heads = no_chest(self.root, split, tables)
            for study_id, names in tables.by_study().items():
                whole = _unfit(names, tables, heads)
                if whole is not None:
                    problems.append(SetAside(key=study_id, reason=whole[0], message=whole[1]))
                    continue
                problems += [broken[n.volume] for n in names if n.volume in broken]
                sound = [name for name in names if name.volume not in broken]
                series, less = self._series(sound, tables, files)
                problems += less
                if series:
                    studies.append(self._study(names, series, tables))
        if self.drop_duplicate_reports:
            studies, twice = _without_duplicates(studies)
            problems += twice
        return tuple(studies), tuple(sorted(problems, key=lambda p: (p.key, p.reason)))

    def _series(
        self, names: Sequence[Name], tables: Tables, files: Files
    ) -> tuple[tuple[Series, ...], list[SetAside]]:
        """Make series of the wanted reconstructions among those that can be used."""
        chosen = _chosen(names, tables.metadata, self.reconstructions)
        if names and not chosen:
            message = f"no reconstruction for {self.reconstructions}"
            return (), [SetAside(key=names[0].study, reason="other_kernel", message=message)]
        series, problems = [], []
        for name in chosen:
            row = tables.metadata.get(name.volume)
            path, by_header = files.find(name, hu=self.hu)
            facts = _series_facts(name, row or {}, by_header=by_header)
            try:
                header = None if by_header else override_of(row)
            except RefusedGrid as error:
                told = SetAside(key=name.volume, reason=error.reason, message=error.found)
                problems.append(told)
                continue
            series.append(Series(series_id=name.volume, files=(path,), header=header, facts=facts))
        return tuple(series), problems

    def _study(self, names: Sequence[Name], series: tuple[Series, ...], tables: Tables) -> Study:
        """Put one study together."""
        row: Mapping[str, str] = {}
        for name in names:
            row = row or tables.metadata.get(name.volume, {})
        facts = {
            "sex": row.get("PatientSex", "").strip(),
            "age": age_years(row.get("PatientAge", "")),
            "reconstructions": f"{len(series)} of {len(names)} ({self.reconstructions})",
        }
        labels = tables.labels_of(names)
        if labels:
            facts.update(tables.labels_facts)
        return Study(
            study_id=names[0].study,
            patient_id=names[0].patient,
            series=series,
            reports=_reports(names, tables.reports, self.text),
            labels=dict(labels.pop()) if labels else {},
            facts={name: value for name, value in facts.items() if value},
            split=names[0].drawn_split(dev=self.dev_share, seed=self.seed),
        )


def _unfit(names: Sequence[Name], tables: Tables, heads: set[str]) -> tuple[str, str] | None:
    """Say, as reason and message, why a whole study is set aside."""
    if names[0].study in heads:
        return "no_chest", "on the data's own list of scans that show no chest"
    torn = [name.volume for name in names if name.volume in tables.torn]
    if torn:
        return "duplicate_key", f"two different rows of one table name {', '.join(torn)}"
    if len(tables.labels_of(names)) > 1:
        return "duplicate_key", "its reconstructions have different labels"
    return None


def _chosen(
    names: Sequence[Name], metadata: Mapping[str, Mapping[str, str]], policy: str
) -> Sequence[Name]:
    """Choose among the reconstructions of a study."""
    if policy == "all":
        return names
    if policy == "first":
        return names[:1]
    if policy == "smallest_voxel":
        return sorted(names, key=lambda n: (voxel_mm3(metadata.get(n.volume, {})), n))[:1]
    for kernel in policy.removeprefix("kernel:").split(","):
        for name in names:
            if kernel_of(metadata.get(name.volume, {})).casefold() == kernel.strip().casefold():
                return [name]
    return []


def _series_facts(name: Name, row: Mapping[str, str], *, by_header: bool) -> dict[str, str]:
    """Say how a volume was made and read."""
    manufacturer = row.get("Manufacturer", "").strip()
    facts = {
        "kernel": kernel_of(row),
        "manufacturer": manufacturer,
        "reconstruction": str(name.nth),
        "hu_source": "header" if by_header else "table",
        **grid_told(row),
        # The authors' older loader turned the slices of these round.
        "slice_order": "in doubt" if manufacturer == "PNMS" and not by_header else "",
        "acquisition": "" if is_axial(row) else "not axial",
    }
    return {key: value for key, value in facts.items() if value}


def _reports(
    names: Sequence[Name], rows: Mapping[str, Mapping[str, str]], text: str
) -> tuple[Report, ...]:
    """Give the different reports of a study; equal ones of its reconstructions are one."""
    found: dict[Report, None] = {}
    for name in names:
        if name.volume not in rows:
            continue
        told = [rows[name.volume][column] for column in COLUMNS["reports"]]
        if text == "sections":
            report = Report(findings=_section(told[0]), impression=_section(told[1]))
        else:
            told = [value or "nan" for value in told]  # what pandas makes of an empty cell
            joined = told[0] if text == "ctclip-train" else "".join(told)
            report = Report(findings=re.sub("[\"'()]", "", joined))
        if report.findings or report.impression:
            found.setdefault(report)
    return tuple(found)


def _section(told: str) -> str:
    """Empty what only says that there is no text."""
    return "" if is_absent(told) else told.strip()


def _without_duplicates(studies: Sequence[Study]) -> tuple[list[Study], list[SetAside]]:
    """Keep one study of a split for each text of findings: the first by study id."""
    first: dict[tuple[str, str], str] = {}
    for study in sorted(studies, key=lambda s: s.study_id):
        for report in study.reports:
            if report.findings:
                first.setdefault((study.split, report.findings), study.study_id)
    kept, twice = [], []
    for study in studies:
        owners = {first.get((study.split, r.findings), study.study_id) for r in study.reports}
        if owners <= {study.study_id}:
            kept.append(study)
            continue
        message = f"the same findings as {', '.join(sorted(owners - {study.study_id}))}"
        twice.append(SetAside(key=study.study_id, reason="duplicate_text", message=message))
    return kept, twice


def _check_way(series: Series, row: Mapping[str, str] | None, place: str) -> None:
    """Compare the HU as configured with those of the other way of reading."""
    try:
        other = None if series.header is not None else override_of(row)
    except RefusedGrid:
        return  # no other way
    here, there = _like_a_chest(series, series.header), _like_a_chest(series, other)
    if here >= _LITTLE or there < 2 * _LITTLE:
        return
    by_table = series.header is not None
    ways = ("the table's slope and intercept", "its header")
    fault = "rescaled twice" if by_table else "left unscaled"
    raise SourceError(
        f"{place}/: {series.series_id} would be {fault}: by {ways[not by_table]} air near -1000 HU "
        f"or soft tissue near 0 make up {here:.1%}, by {ways[by_table]} each at least {there:.1%}",
        expected="HU in `*_fixed` folders (v2), stored values in `train` and `valid` (v1)",
        fix="these files are corrected ones: move them to a `_fixed` folder, or say hu='header'"
        if by_table
        else "these files are v1: move them out of the `_fixed` folder, or say hu='table'",
    )


def _like_a_chest(series: Series, override: HeaderOverride | None) -> float:
    """Give the share of air or of soft tissue, the smaller one, in up to 64 slices."""
    from t3d.ct.door import open_scan

    air = soft = total = 0
    with open_scan(series.files, name=series.series_id, override=override) as file:
        for _, stored in islice(file.slabs(8), 8):
            hu = file.rescale.int16(stored[:, ::4, ::4])
            air += int(((hu >= _AIR_HU[0]) & (hu <= _AIR_HU[1])).sum())
            soft += int(((hu >= _SOFT_HU[0]) & (hu <= _SOFT_HU[1])).sum())
            total += hu.size
    return min(air, soft) / max(1, total)


def _check_word(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a setting that does not exist."""
    if value not in allowed:
        raise SourceError(
            f"CtRate: {name} is {value!r}", expected=", ".join(allowed), fix="choose one of these"
        )
