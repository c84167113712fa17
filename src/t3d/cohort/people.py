"""Whose patients a cohort's are, so that one person is known again in another cohort.

A patient of CT-RATE is `train_1` in a cohort of its own and `ct_rate-train_1` in a union, and the
masks of RadGenome show the same person. Ids of a folder mean something within that folder only:
who comes from one is known again by the bytes of the scans.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from t3d.cohort.listing import Source
from t3d.cohort.store import Cohort

OWN_IDS = ("folder", "files")  # kinds whose patient ids mean something below one root only
MEMBER = "member"  # fact of a union's study: the member that it is of
CORPUS = "patients_of"  # fact of a union's study: whose its patients are; absent = nobody's


def corpus_of(source: Source | type[Any]) -> str:
    """Name the corpus whose people a source shows: `radgenome` shows those of `ct_rate`.

    Ids of `dicom_folder` are keyed hashes: under one key they name one person, whatever the folder.

    Returns:
        A source's `patients_of`, else its kind; "" where ids mean nothing outside of it.
    """
    default = "" if source.kind in OWN_IDS else source.kind
    return str(getattr(source, "patients_of", default))


def people(cohort: Cohort, split: str | None = None) -> Mapping[str, tuple[str, ...]]:
    """Give what the patient of each study is known by in whatever cohort.

    Args:
        cohort: An opened cohort, of a union or of one source.
        split: "train", "dev", "test", "", or None for all.

    Returns:
        Study id -> `<corpus>-<patient id>`; where the corpus is nobody's, fingerprints of all the
        patient's scans follow. Two studies show one person when they share any of these.
    """
    kind = cohort.facts.get("source_kind", "")
    corpus = _corpus_of_kind(kind)
    named: dict[str, str] = {}
    scans: dict[str, set[str]] = defaultdict(set)
    rows = cohort.studies(split)
    for row in rows:
        of_union = MEMBER in row.facts  # its patients' ids begin with the corpus already
        named[row.study_id] = row.patient_id if of_union else f"{corpus or kind}-{row.patient_id}"
        if not (row.facts.get(CORPUS) if of_union else corpus):
            found = (_scan(volume.source) for volume in cohort.volumes(row.study_id))
            scans[row.patient_id].update(found)
    return {
        row.study_id: (named[row.study_id], *sorted(scans.get(row.patient_id, ()))) for row in rows
    }


def _corpus_of_kind(kind: str) -> str:
    """Name the corpus of a cohort made from one source, by the kind on record."""
    from t3d.cohort.sources import SOURCES

    made = {source.kind: source for source in SOURCES}.get(kind)
    return corpus_of(made) if made is not None else "" if kind in OWN_IDS else kind


def _scan(source: Mapping[str, str]) -> str:
    """Give the fingerprint of a volume's files, the same whether or not their names are on record.

    Of one file whose name may be told the fingerprint itself is kept, else a hash of them all.
    """
    told = source["fingerprint"]
    return hashlib.sha256(told.encode()).hexdigest() if "file" in source else told
