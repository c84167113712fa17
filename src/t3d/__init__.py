"""t3d: learning from 3-D CT and radiology reports.

ct = t3d.read("scan.nii.gz")
model = t3d.load("RUN")
model.screen(ct, ["pleural effusion"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t3d.api import load, read

__version__ = "0.1.0.dev0"
__all__ = ["load", "read"]


def __getattr__(name: str) -> Any:
    """Import the two functions when they are asked for: `import t3d` stays light."""
    if name in __all__:
        from t3d import api

        return getattr(api, name)
    raise AttributeError(f"module 't3d' has no attribute '{name}'")
