"""Volume files by the stem of their names: which are there, and which names occur twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from t3d.cohort.listing import SetAside

NIFTI = (".nii.gz", ".nii")


def stem_of(name: str, endings: Sequence[str] = NIFTI) -> str:
    """Strip folders and one of the endings, and nothing else.

    Args:
        name: As a table or a folder tells it; slashes of either kind.
        endings: Longer ones first.

    Check: "a/b/x.1.nii.gz" -> "x.1".
    """
    stem = name.strip().replace("\\", "/").rpartition("/")[2]
    for ending in endings:
        if stem.endswith(ending):
            return stem.removesuffix(ending)
    return stem


def files_by_stem(
    paths: Iterable[Path], endings: Sequence[str] = NIFTI
) -> tuple[dict[str, Path], tuple[SetAside, ...]]:
    """Sort files by stem; a name that occurs twice names none of them.

    Args:
        paths: In any order; names that begin with a dot or end otherwise are passed over.
        endings: Of the files meant.

    Returns:
        The files whose stem occurs once, and one `duplicate_key` for each that does not.
    """
    found: dict[str, list[Path]] = {}
    for path in paths:
        if path.name.endswith(tuple(endings)) and not path.name.startswith("."):
            found.setdefault(stem_of(path.name, endings), []).append(path)
    problems = [
        SetAside(
            key=stem,
            reason="duplicate_key",
            message=f"{len(found[stem])} files have this name, in different folders or formats",
        )
        for stem in sorted(found)
        if len(found[stem]) > 1
    ]
    return {stem: many[0] for stem, many in found.items() if len(many) == 1}, tuple(problems)


def without_row(files: Iterable[str], named: Iterable[str]) -> list[SetAside]:
    """List the files that no table names.

    Args:
        files: Stems on disk.
        named: Stems that tables name.
    """
    message = "a file that no table names"
    return [
        SetAside(key=stem, reason="unlisted_file", message=message)
        for stem in sorted(set(files) - set(named))
    ]
