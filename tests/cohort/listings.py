"""What every source's tests ask of a listing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from t3d.types import Series, Study


def listed(source: Any) -> dict[str, Study]:
    """List studies by id."""
    return {study.study_id: study for study in source.studies()}


def series_of(source: Any) -> dict[str, Series]:
    """List series by id."""
    return {one.series_id: one for study in source.studies() for one in study.series}


def reasons(source: Any) -> dict[str, str]:
    """Give the reason of everything that is set aside; each key is told once."""
    told = source.set_aside()
    found = {one.key: one.reason for one in told}
    assert len(found) == len(told)
    return found


def assert_same_listing(first: Any, second: Any) -> None:
    """Hold two folders of one content against each other; only where files lie may differ."""
    assert [_by_name(one) for one in first.studies()] == [_by_name(one) for one in second.studies()]
    assert first.set_aside() == second.set_aside()


def assert_opens_no_volume(source_of: Callable[[Path], Any], root: Path) -> None:
    """Spoil every file of voxels and list again."""
    before = list(source_of(root).studies())
    files = [*root.rglob("*.nii*"), *root.rglob("*.npz")]
    assert before
    assert files
    for path in files:
        path.write_bytes(b"no volume")
    assert list(source_of(root).studies()) == before


def _by_name(study: Study) -> Study:
    """Leave out folders."""
    series = tuple(
        replace(
            one,
            files=tuple(Path(file.name) for file in one.files),
            masks={name: Path() for name in one.masks},
        )
        for one in study.series
    )
    return replace(study, series=series)
