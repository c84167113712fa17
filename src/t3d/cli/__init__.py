"""Command line: verbs, not knobs. Heavy imports happen inside the verbs.

Exit codes: 0 fine, 1 some studies failed, 2 wrong use.
"""

from __future__ import annotations

from t3d.cli import cohorts, finetune, models, reports
from t3d.cli.app import app, main

__all__ = ["app", "cohorts", "finetune", "main", "models", "reports"]
