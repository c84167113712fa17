"""Where studies come from: one file a source, and its name in `SOURCES`."""

from __future__ import annotations

from t3d.cohort.listing import SetAside, Source, Terms
from t3d.cohort.sources.folder import Folder

SOURCES: tuple[type[Folder], ...] = (Folder,)

__all__ = ["SOURCES", "Folder", "SetAside", "Source", "Terms"]
