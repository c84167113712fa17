"""Tables the judge reads: wording of prompts."""

from __future__ import annotations
