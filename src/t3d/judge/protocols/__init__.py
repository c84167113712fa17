"""Named protocols; a new one is one file and one name in `PROTOCOLS`."""

from __future__ import annotations

from t3d.judge.protocol import Protocol
from t3d.judge.protocols.plain import PLAIN

PROTOCOLS: tuple[Protocol, ...] = (PLAIN,)
"""Every protocol that ships."""
