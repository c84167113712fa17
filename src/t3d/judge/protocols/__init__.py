"""Named protocols; a new one is one file and its names in `PROTOCOLS`."""

from __future__ import annotations

from t3d.errors import ProtocolError
from t3d.judge.protocol import Protocol
from t3d.judge.protocols.colipri import COLIPRI
from t3d.judge.protocols.ctclip import (
    CTCLIP,
    CTCLIP_EXTERNAL,
    CTCLIP_V2V,
    CTCLIP_V2V_ASRELEASED,
)
from t3d.judge.protocols.fvlm import FVLM
from t3d.judge.protocols.hlip import HLIP, HLIP_EXTERNAL, HLIP_EXTERNAL_STARRED, HLIP_STARRED
from t3d.judge.protocols.inspect import INSPECT
from t3d.judge.protocols.merlin_pools import MERLIN_POOLS_RADFINDER, MERLIN_POOLS_SPECTRE
from t3d.judge.protocols.plain import PLAIN
from t3d.judge.protocols.radfinder import RADFINDER, RADFINDER_DUP, RADFINDER_EXTERNAL
from t3d.judge.protocols.spectre import SPECTRE
from t3d.judge.protocols.vlm3d import VLM3D

PROTOCOLS: tuple[Protocol, ...] = (
    PLAIN,
    CTCLIP,
    CTCLIP_EXTERNAL,
    FVLM,
    HLIP,
    HLIP_STARRED,
    HLIP_EXTERNAL,
    HLIP_EXTERNAL_STARRED,
    RADFINDER,
    RADFINDER_DUP,
    RADFINDER_EXTERNAL,
    VLM3D,
    INSPECT,
    MERLIN_POOLS_SPECTRE,
    MERLIN_POOLS_RADFINDER,
    SPECTRE,
    COLIPRI,
    CTCLIP_V2V,
    CTCLIP_V2V_ASRELEASED,
)
"""Every protocol that ships."""


def protocol_named(name: str) -> Protocol:
    """Find a protocol by its name.

    Raises:
        ProtocolError: There is none.
    """
    for protocol in PROTOCOLS:
        if protocol.name == name:
            return protocol
    raise ProtocolError(
        f"protocol {name!r} is unknown",
        expected=", ".join(p.name for p in PROTOCOLS),
        fix="name one of them; their rules stand side by side in docs/reference/protocols.md",
    )
