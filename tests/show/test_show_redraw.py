"""From phantoms on disk to the page: the shown patients are drawn again, and only when sure."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fabricated
from t3d.cohort.prepare import prepare
from t3d.cohort.sources.folder import Folder
from t3d.cohort.store import Cohort
from t3d.phantom.layouts import write_folder
from t3d.phantom.patient import patient
from t3d.phantom.presets import DEMO
from t3d.show.figures import depth_of
from t3d.show.page import demo_page
from t3d.show.redraw import phantom_of, phantom_redraw, slab
from t3d.text.findings import CT_RATE_18
from t3d.types import Preparation, Volume, Zyx

GRID = Preparation(name="demo", size_vox=Zyx(z=32, y=64, x=64))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("phantoms")
    write_folder(root / "folder", DEMO, train=0, dev=0, test=4, workers=1)
    prepare(Folder(root / "folder"), root / "demo" / "cohort", GRID, workers=0)
    return Cohort.open(root / "demo" / "cohort")


def seed_of(study_id: str) -> int:
    return int(study_id.split("-")[1])


def test_every_phantom_of_a_cohort_is_known_again(cohort: Cohort) -> None:
    studies = cohort.studies("test")
    assert len(studies) == 4
    for study in studies:
        found = phantom_of(study, cohort.volume(study.volume_ids[0]))
        assert found == (seed_of(study.study_id), DEMO)


def test_a_study_that_differs_in_anything_is_not_drawn_again(cohort: Cohort) -> None:
    study = cohort.studies("test")[0]
    volume = cohort.volume(study.volume_ids[0])
    moved = volume.world_from_voxel.copy()
    moved[2, 3] += 2.0
    finding = CT_RATE_18[0]
    assert phantom_of(replace(study, study_id="real-7"), volume) is None
    assert phantom_of(replace(study, facts={**study.facts, "age": "1"}), volume) is None
    assert phantom_of(replace(study, facts={}), volume) is None
    flipped = {**study.labels, finding: 1 - (study.labels[finding] or 0)}
    assert phantom_of(replace(study, labels=flipped), volume) is None
    elsewhere = Volume(
        volume_id="v", voxels=volume.voxels, world_from_voxel=moved, steps=volume.steps
    )
    assert phantom_of(study, elsewhere) is None


def test_the_fine_slice_shows_the_same_anatomy_at_the_same_place(cohort: Cohort) -> None:
    study = cohort.studies("test")[0]
    seen = cohort.volume(study.volume_ids[0])
    z_mm = depth_of(seen, 14)
    fine = phantom_redraw({study.study_id: study})(study.study_id, seen, z_mm)
    assert fine is not None
    assert depth_of(fine, 0) == pytest.approx(z_mm, abs=1e-3)
    rows, columns = (np.linspace(0, n - 1, 64).round().astype(int) for n in fine.voxels.shape[1:])
    nearest = fine.voxels[0][np.ix_(rows, columns)]
    assert np.corrcoef(nearest.ravel(), seen.voxels[14].ravel())[0, 1] > 0.9
    assert np.corrcoef(nearest[::-1].ravel(), seen.voxels[14].ravel())[0, 1] < 0.9


def test_a_fine_slab_changes_nothing_but_the_sampling() -> None:
    own = patient(3)
    fine = patient(3, grid=slab(3, DEMO, depth_of(own.volume, 10)))
    assert fine.labels == own.labels
    assert fine.volume.voxels.shape[0] == 1
    assert fine.volume.voxels.shape[1] > 3 * own.volume.voxels.shape[1]


def write_scores(path: Path, cohort: Cohort) -> None:
    path.parent.mkdir(parents=True)
    names = [f"score:bank:{f}" for f in CT_RATE_18] + [f"label:{f}" for f in CT_RATE_18]
    with path.open("w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["study_id", "patient_id", *names])
        for k, study in enumerate(cohort.studies("test")):
            labels = [study.labels[f] for f in CT_RATE_18]
            out.writerow([study.study_id, study.patient_id, *([0.1 * k] * 18), *labels])


def test_the_page_of_a_real_cohort_shows_its_sentences_and_fine_drawings(cohort: Cohort) -> None:
    root = cohort.path.parent
    (root / "summary.json").write_text(json.dumps(fabricated.summary()))
    write_scores(root / "results" / "t3d_plus" / "per_study.csv", cohort)
    text = demo_page(root, root / "report.html").read_text()
    assert text.count("<figcaption>lung, z") == text.count("<figcaption>soft tissue, z") >= 4
    assert text.count("mm, as the model saw it") == text.count("mm, drawn finely") > 0
    shown = set(re.findall(r"</span>[^<:]+: (phantom-\d{6})</h3>", text))
    assert shown
    assert shown <= {study.study_id for study in cohort.studies("test")}
    quoted = re.findall(r"<blockquote>(.+?)</blockquote>", text)
    reports = " ".join(
        f"{r.findings} {r.impression}"
        for r in (cohort.report(study_id) for study_id in shown)
        if r is not None
    )
    assert quoted
    assert all(sentence in reports for sentence in quoted)
