"""What a model could cheat with on 600 patients: nuisances, identities, duplicates."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm

from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO, draw_labels
from t3d.text.findings import CT_RATE_18
from t3d.text.labeler import label_report
from t3d.text.sentences import split_sentences

NUM = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is kept of one patient."""

    labels: np.ndarray  # (18,)
    findings: str
    impression: str
    voxels_sha: str
    num_bytes: int  # size when packed
    lesions: frozenset[int]
    facts: Mapping[str, str]


@pytest.fixture(scope="module")
def crowd() -> list[Seen]:
    """600 patients with their voxels (the slow part of this file)."""
    seen = []
    for seed in range(NUM):
        made = patient(seed)
        raw = made.volume.voxels.tobytes()
        seen.append(
            Seen(
                labels=np.array([made.labels[name] for name in CT_RATE_18]),
                findings=made.report.report.findings,
                impression=made.report.report.impression,
                voxels_sha=hashlib.sha256(raw).hexdigest(),
                num_bytes=len(zlib.compress(raw[::8], 1)),
                lesions=frozenset(int(v) for v in np.unique(made.lesion) if v),
                facts=made.facts,
            )
        )
    return seen


def table(labels: list[np.ndarray]) -> np.ndarray:
    return np.stack(labels).astype(float)


def largest_correlation(labels: np.ndarray, nuisance: np.ndarray) -> float:
    both = np.column_stack([labels, nuisance.astype(float)])
    return float(np.abs(np.corrcoef(both.T)[-1, :-1]).max())


def bound(num_tests: int) -> float:
    """Largest |r| that chance gives in 99 of 100 such families of tests (Bonferroni)."""
    return float(norm.isf(0.01 / (2 * num_tests))) / np.sqrt(NUM)


NUISANCES = ("noise", "kernel", "contrast", "table", "slice_mm", "pixel_mm", "width", "age", "sex")


def nuisance(facts: Mapping[str, str], name: str) -> float:
    return {
        "noise": float(facts["noise_hu"]),
        "kernel": float(facts["kernel"] == "sharp"),
        "contrast": float(facts["contrast"] == "yes"),
        "table": float(facts["table"] == "yes"),
        "slice_mm": float(facts["spacing_mm"].split("x")[0]),
        "pixel_mm": float(facts["spacing_mm"].split("x")[2]),
        "width": float(facts["half_width_mm"]),
        "age": float(facts["age"]),
        "sex": float(facts["sex"] == "F"),
    }[name]


@pytest.mark.parametrize("name", NUISANCES)
def test_no_label_goes_with_a_nuisance(crowd: list[Seen], name: str) -> None:
    labels = table([s.labels for s in crowd])
    values = np.array([nuisance(s.facts, name) for s in crowd])
    assert values.std() > 0
    assert largest_correlation(labels, values) < bound(len(NUISANCES) * len(CT_RATE_18))


def test_few_of_all_pairs_exceed_the_bound_for_one(crowd: list[Seen]) -> None:
    labels = table([s.labels for s in crowd])
    over = 0
    for name in NUISANCES:
        values = np.array([nuisance(s.facts, name) for s in crowd])
        r = np.corrcoef(np.column_stack([labels, values]).T)[-1, :-1]
        over += int((np.abs(r) > 0.12).sum())
    assert over <= 4  # |r| > .12 is 2.9 standard errors: 0.6 of 162 pairs by chance


def test_the_seed_says_nothing_about_the_labels() -> None:
    labels = table([np.array(list(draw_labels(s, DEMO)[0].values())) for s in range(1500)])
    seeds = np.arange(1500)
    for value in (seeds, seeds % 2, seeds % 10):
        assert largest_correlation(labels, value) < 0.1


def test_the_number_of_words_does_not_count_the_findings(crowd: list[Seen]) -> None:
    words = np.array([len(f"{s.findings} {s.impression}".split()) for s in crowd])
    counts = np.array([s.labels.sum() for s in crowd])
    assert abs(np.corrcoef(words, counts)[0, 1]) < 0.12
    assert counts.mean() == pytest.approx(3.83, abs=0.25)


def test_the_size_of_a_file_does_not_count_the_findings(crowd: list[Seen]) -> None:
    sizes = np.array([s.num_bytes for s in crowd])
    counts = np.array([s.labels.sum() for s in crowd])
    assert abs(np.corrcoef(sizes, counts)[0, 1]) < 0.12


def test_no_two_patients_share_voxels_or_a_report(crowd: list[Seen]) -> None:
    assert len({s.voxels_sha for s in crowd}) == NUM
    assert len({(s.findings, s.impression) for s in crowd}) == NUM


def test_every_positive_finding_is_in_the_lesion_map(crowd: list[Seen]) -> None:
    for seen in crowd:
        assert seen.lesions == {int(k) + 1 for k in np.flatnonzero(seen.labels)}


def test_rules_read_the_labels_back_from_the_report(crowd: list[Seen]) -> None:
    for seen in crowd:
        texts = [seen.findings[a:b] for a, b in split_sentences(seen.findings)]
        read = label_report(texts)
        positive = {name for name, found in read.items() if found.value == 1}
        assert positive == {n for n, v in zip(CT_RATE_18, seen.labels, strict=True) if v}
