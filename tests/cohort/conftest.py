"""Fabricated folders of small CTs, made below a test's own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from made_folder import fabricate
from t3d.types import Preparation, Zyx


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Give the function that fabricates a folder below this test's own one."""

    def make(count: int = 6, *, first: int = 0, name: str = "source") -> Path:
        return fabricate(tmp_path / name, count, first=first)

    return make


@pytest.fixture
def tiny() -> Preparation:
    """A small grid."""
    return Preparation(name="tiny", size_vox=Zyx(z=8, y=9, x=10))
