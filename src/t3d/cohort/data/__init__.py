"""Tables that sources read: known-bad volumes of public corpora."""

from __future__ import annotations
