"""German and English reports are told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from t3d.text.language import detect_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("", ""),
        ("CT 5 mm", ""),
        ("No effusion.", "en"),
        ("The heart is not enlarged.", "en"),
        ("Kein Erguss.", "de"),
        ("Herz regelrecht. Erguss bds.", "de"),
        ("BEFUND: KEIN ERGUSS", "de"),
        ("Nodule in the right lung, Z. n. Lobektomie.", "en"),
        ("Air-Trapping beidseits mit Mosaic pattern.", "de"),
    ],
)
def test_the_language_with_more_small_words_wins(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.real
def test_no_real_english_report_is_taken_for_german(real_data: Path) -> None:
    path = real_data / "reports" / "mtsamples_radiology.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = [detect_language(row["text"]) for row in rows]
    assert len(told) == 271
    assert "de" not in told
    assert told.count("") == 2  # nothing but headings
