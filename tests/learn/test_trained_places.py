"""What a trained model gives for volumes and depths: units, places, and the head it trained."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from t3d.cohort.prepare import prepare
from t3d.cohort.sources.dicom_folder import DicomFolder
from t3d.cohort.store import Cohort
from t3d.conformance import check_model
from t3d.ct.preparations import named_preparation
from t3d.errors import CheckpointError
from t3d.judge.protocols.plain import PLAIN, PLAIN_DEPTH
from t3d.judge.snippets import Snippets, extent_of
from t3d.judge.tasks import localization
from t3d.learn.losses import sentence_means
from t3d.learn.objectives.sentence_match import SentenceMatchNet
from t3d.learn.train import Plan, train
from t3d.learn.trained import Trained

from .conftest import short


@pytest.fixture(scope="module")
def models(small_cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """A model with a head for places and one without, after two steps."""
    root: Path = tmp_path_factory.mktemp("places")
    plan = Plan(tensorboard=False, num_evaluations=1, log_every=1)
    for name in ("t3d_v3_match", "clip"):
        train(short(name, 2), small_cohort, root / name, plan=plan)
    return {name: Trained.load(root / name) for name in ("t3d_v3_match", "clip")}


def first_volumes(cohort: Cohort, split: str) -> list[str]:
    return [row.volume_ids[0] for row in cohort.studies(split)]


@pytest.mark.parametrize("name", ["t3d_v3_match", "clip"])
def test_volumes_are_embedded_as_their_studies_are(
    models: dict[str, Trained], small_cohort: Cohort, name: str
) -> None:
    rows = small_cohort.studies("test")
    volumes = first_volumes(small_cohort, "test")
    one = models[name].embed_studies(small_cohort, [row.study_id for row in rows])
    many = models[name].embed_volumes(small_cohort, volumes)
    assert (one == many).all()
    alone = models[name].embed_volume(small_cohort.volume(volumes[3]))
    assert many[3] == pytest.approx(alone, abs=2e-3)  # the stem's cache is float16


@pytest.mark.parametrize("name", ["t3d_v3_match", "clip"])
def test_depths_are_unit_vectors_at_the_planes_of_the_token_map(
    models: dict[str, Trained], small_cohort: Cohort, name: str
) -> None:
    volumes = first_volumes(small_cohort, "test")
    told = models[name].embed_volume_tokens(small_cohort, volumes)
    assert len(told) == len(volumes)
    for volume_id, (tokens, centres) in zip(volumes, told, strict=True):
        assert len(tokens) == 8  # 32 slices, 2 a block, 2 blocks a plane
        assert np.linalg.norm(tokens, axis=1) == pytest.approx(np.ones(8), abs=1e-5)
        matrix, size = small_cohort.world_from_voxel(volume_id), small_cohort.shape(volume_id)
        step = matrix[2, 0] * size.z / 8
        low = matrix[2, 3] - matrix[2, 0] / 2
        assert centres[:, 0] == pytest.approx(low + step * (np.arange(8) + 0.5), abs=1e-3)
        middle = matrix[1, 3] + matrix[1, 1] * (size.y - 1) / 2
        assert centres[:, 1] == pytest.approx(np.full(8, middle), abs=1e-3)
    alone, _ = models[name].embed_tokens(small_cohort.volume(volumes[2]))
    assert told[2][0] == pytest.approx(alone, abs=5e-3)


def test_a_trained_head_for_places_is_used_and_else_the_image_head(
    models: dict[str, Trained], small_cohort: Cohort
) -> None:
    texts = ["There is a nodule in the left upper lobe.", "No pleural effusion."]
    clip, match = models["clip"], models["t3d_v3_match"]
    assert (clip.embed_snippets(texts) == clip.embed_text(texts)).all()
    assert np.abs(match.embed_snippets(texts) - match.embed_text(texts)).max() > 0.01
    head = next(m for m in match.objectives.values() if isinstance(m, SentenceMatchNet))
    told = match._text_features([((text,), ()) for text in texts])
    with torch.no_grad():
        means, _ = sentence_means(told.tokens, told.segment)
        wanted = torch.nn.functional.normalize(head.meaning(means[:, 0]), dim=1).numpy()
    assert match.embed_snippets(texts) == pytest.approx(wanted, abs=1e-6)
    volume = small_cohort.volume(first_volumes(small_cohort, "test")[0])
    with torch.no_grad():
        grid = match.encode_volume(volume).grid[0, 0]  # (C, z, y, x)
        cells = grid[:, 5].flatten(1).T  # one plane's places
        mean = head.value(head.to_tokens(cells)).mean(0)
        wanted = torch.nn.functional.normalize(mean, dim=0).numpy()
    assert match.embed_tokens(volume)[0][5] == pytest.approx(wanted, abs=1e-5)


def test_a_plane_goes_through_pooling_and_head_as_a_volume_of_one_plane_would(
    models: dict[str, Trained], small_cohort: Cohort
) -> None:
    clip = models["clip"]
    volume = small_cohort.volume(first_volumes(small_cohort, "test")[0])
    grid = clip.encode_volume(volume).grid
    with torch.no_grad():
        # all planes at once are pooled as the encoder pools them
        whole = clip._headed(grid[:, 0])
    assert whole[0].numpy() == pytest.approx(clip.embed_volume(volume), abs=1e-5)


def test_a_model_of_ours_keeps_what_a_foreign_one_must(
    models: dict[str, Trained], small_cohort: Cohort
) -> None:
    volume = small_cohort.volume(first_volumes(small_cohort, "test")[0])
    for model in models.values():
        check_model(model, volume)


def test_a_recipe_without_an_image_head_says_so(
    models: dict[str, Trained], small_cohort: Cohort
) -> None:
    clip = models["clip"]
    blind = Trained(
        recipe=clip.recipe,
        fitted=clip.fitted,
        model=replace_head(clip),
        objectives=clip.objectives,
    )
    with pytest.raises(CheckpointError, match="no image head"):
        blind.embed_tokens(small_cohort.volume(first_volumes(small_cohort, "test")[0]))


def replace_head(trained: Trained) -> torch.nn.Module:
    """The same towers without the image head."""
    from t3d.model.model import Model

    return Model(image=trained.model.image, image_head=None, text=trained.model.text)


@pytest.mark.parametrize("name", ["t3d_v3_match", "clip"])
def test_localization_runs_on_a_trained_model_and_measures_every_sentence(
    models: dict[str, Trained], small_cohort: Cohort, name: str
) -> None:
    few = replace(PLAIN.intervals, num_draws=50)
    rules = replace(PLAIN, name="plain_depth", localization=PLAIN_DEPTH, intervals=few)
    found = localization.measure(models[name], small_cohort, rules)
    told = {metric.name: metric for metric in found.outcome.result.metrics}
    placed = [
        s for row in small_cohort.studies("test") for s in small_cohort.sentences(row.study_id)
    ]
    assert found.outcome.result.counts["sentences"] == len(placed) > 12
    assert told["error_mm"].ceiling < told["error_mm"].value < 2 * told["error_mm:random"].value
    assert told["error_mm:words"].value < told["error_mm:middle"].value
    again = localization.measure(models[name], small_cohort, rules)
    assert repr(again.outcome.result) == repr(found.outcome.result)


def lesion(chest: Path, series: str) -> tuple[float, float]:
    """Lowest and highest mm of the slices that have a box; boxes are named by their slice."""
    import pydicom

    heads = [pydicom.dcmread(p, stop_before_pixels=True) for p in (chest / series).rglob("*.dcm")]
    z_of = {str(head.SOPInstanceUID): float(head.ImagePositionPatient[2]) for head in heads}
    gap = float(np.median(np.diff(sorted(z_of.values()))))
    held = sorted(z_of[path.stem] for path in (chest / "annotations").glob("*.xml"))
    return held[0] - gap / 2, held[-1] + gap / 2


@pytest.mark.slow
def test_the_lesion_boxes_of_two_real_chests_go_through_localization(
    models: dict[str, Trained], real_data: Path, tmp_path: Path
) -> None:
    boxes = []
    for name, series in (("A0001", "series3_B_j2k"), ("A0002", "series3_B40f_deflated")):
        chest = real_data / "dicom" / f"chest_lungpetctdx_{name}"
        shutil.copytree(chest / series, tmp_path / "tree" / name)
        boxes.append(lesion(chest, series))
    assert boxes == [(-231.5, -186.5), (172.0, 252.0)]
    with DicomFolder(tmp_path / "tree", key=tmp_path / "key") as tree:
        prepare(tree, tmp_path / "cohort", named_preparation("demo"), workers=0)
    cohort = Cohort.open(tmp_path / "cohort")
    rows = sorted(cohort.studies(), key=lambda row: extent_of(cohort, row.volume_ids[0]))
    names = tuple(row.study_id for row in rows)
    asked = Snippets(
        texts=("There is a mass in the lung.",) * 2,
        study_ids=names,
        patient_ids=names,
        volume_ids=tuple(row.volume_ids[0] for row in rows),
        findings=("",) * 2,
        keys=("lesion",) * 2,
        z_mm=np.array([((low + high) / 2, low, high) for low, high in boxes]),
        extent_mm=np.array([extent_of(cohort, row.volume_ids[0]) for row in rows]),
    )
    rules = replace(PLAIN, name="plain_depth", localization=PLAIN_DEPTH)
    for model in models.values():
        found = localization.measure(model, cohort, rules, snippets=asked)
        told = {metric.name: metric for metric in found.outcome.result.metrics}
        assert found.outcome.result.counts["sentences"] == 2
        assert told["inside"].ceiling == told["touched"].ceiling == 1.0
        # eight cells: 320 mm of 40 and 240 mm of 30; the middle cell is the lower of two
        assert told["error_mm:middle"].value == pytest.approx((92.5 + 31.0) / 2, abs=0.1)
        assert told["error_mm"].value <= 260.0
        assert {round(s["guess_mm"], 1) for s in found.strips()} <= {
            round(float(c), 1) for s in found.strips() for c in s["centres_mm"]
        }
