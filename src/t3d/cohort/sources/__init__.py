"""Where studies come from: one file a source, and its name in `SOURCES`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

# Not `import inspect`: the source of that name would take its place in this package.
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from t3d.cohort.listing import SetAside, Source, Terms
from t3d.cohort.sources.amos import Amos
from t3d.cohort.sources.bimcv_r import BimcvR
from t3d.cohort.sources.ct_rate import CtRate
from t3d.cohort.sources.dicom_folder import DicomFolder
from t3d.cohort.sources.folder import Folder
from t3d.cohort.sources.inspect import Inspect
from t3d.cohort.sources.merlin import Merlin
from t3d.cohort.sources.msd import Msd
from t3d.cohort.sources.rad_chestct import RadChestCt
from t3d.cohort.sources.radgenome import RadGenome
from t3d.cohort.sources.rexgrounding import ReXGrounding
from t3d.errors import SourceError

SOURCES: tuple[type[Any], ...] = (
    Folder,
    RadGenome,
    ReXGrounding,
    CtRate,
    Inspect,
    BimcvR,
    Merlin,
    RadChestCt,
    Amos,
    Msd,
    DicomFolder,
)
"""The first whose `fits` says yes takes a path whose kind is not told."""


def source_at(root: Path) -> type[Any] | None:
    """Give the first source that recognises what lies at a path; None = none does."""
    return next((made for made in SOURCES if made.fits(root)), None)


def open_source(
    root: str | Path, kind: str = "", settings: Mapping[str, str] | None = None
) -> Source:
    """Open a source by its kind, or by what lies at its root.

    Args:
        root: Folder or archive.
        kind: Name of a source; "" = found out.
        settings: Keyword arguments of the source's class, as text: `{"kernel": "B"}`.

    Raises:
        SourceError: Nothing is there, no such kind, a setting it does not know, or a value of
            the wrong type.
    """
    root = Path(root)
    if not root.exists():
        raise SourceError(
            f"{root.name or root}: no such file or folder",
            expected="the folder or archive of a source",
            fix="check the path",
        )
    known = {made.kind: made for made in SOURCES}
    if kind and kind not in known:
        raise SourceError(f"source '{kind}' is unknown", expected=f"one of {', '.join(known)}")
    made = known[kind] if kind else source_at(root)
    if made is None:
        raise SourceError(
            f"{root.name}: no source recognises what lies there",
            expected="studies.csv with volumes/, a corpus in its own layout, or DICOM files",
            fix=f"name it: --source {' | '.join(known)}",
        )
    source: Source = made(root, **_typed(made, settings or {}))
    return source


def _typed(made: type[Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """Turn settings that came as text into what the class asks for."""
    asked = {
        name: str(parameter.annotation)
        for name, parameter in signature(made).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }
    typed = {}
    for name, text in settings.items():
        if name not in asked:
            near = get_close_matches(name, asked, n=1)
            raise SourceError(
                f"source '{made.kind}' has no setting '{name}'",
                expected=", ".join(asked) or "no settings",
                fix=f"nearest: '{near[0]}'" if near else "leave it out",
            )
        try:
            typed[name] = _value(text, asked[name])
        except ValueError as error:
            raise SourceError(
                f"setting {name}={text} of source '{made.kind}'", expected=asked[name]
            ) from error
    return typed


def _value(text: str, annotation: str) -> Any:
    """Read one value by its annotation."""
    if annotation == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if annotation.startswith("Sequence"):
        return tuple(part for part in text.split(",") if part)
    for kind in (int, float):
        if kind.__name__ in annotation.split(" | "):
            return kind(text)
    return text


__all__ = [
    "SOURCES",
    "Amos",
    "BimcvR",
    "CtRate",
    "DicomFolder",
    "Folder",
    "Inspect",
    "Merlin",
    "Msd",
    "RadChestCt",
    "RadGenome",
    "ReXGrounding",
    "SetAside",
    "Source",
    "Terms",
    "open_source",
    "source_at",
]
