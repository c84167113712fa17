"""What retrieval found for a few reports: drawn by a hash of their study, whatever came out."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from t3d.errors import ProtocolError
from t3d.judge.embeddings import cosines
from t3d.judge.steps import Bench

EXAMPLES_FILE = "examples.json"
NUM_QUERIES = 4
NUM_FOUND = 4


def found_by_reports(bench: Bench) -> list[dict[str, Any]]:
    """List the studies whose images lie nearest to a few reports.

    Args:
        bench: What is judged.

    Returns:
        For each drawn report its study, the rank of that study's image (1 = best, ties as
        expected rank) and the nearest studies with their cosines; nothing for a model that
        embeds no reports, or a file of scores.
    """
    try:
        rows = bench.rows(bench.splits[2], volumes=False)
    except ProtocolError:
        return []
    asked = np.flatnonzero(rows.has_report).tolist()
    asked.sort(key=lambda i: hashlib.sha256(rows.study_ids[i].encode()).hexdigest())
    drawn = asked[:NUM_QUERIES]
    table = cosines(rows.text[drawn], rows.image, decimals=6)
    return [
        {
            "query": rows.study_ids[row],
            "rank": 1 + float((line > line[row]).sum() + ((line == line[row]).sum() - 1) / 2),
            "of": len(line),
            "found": [
                {"study_id": rows.study_ids[k], "cosine": float(line[k])}
                for k in np.argsort(-line, kind="stable")[:NUM_FOUND]
            ],
        }
        for row, line in zip(drawn, table, strict=True)
    ]
