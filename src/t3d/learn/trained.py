"""A trained model as others use it: volumes and texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from t3d.cohort.store import Cohort
from t3d.errors import CheckpointError, StoreError
from t3d.learn import checkpoint
from t3d.learn.build import build_model, build_objectives
from t3d.learn.corpus import sentences_of
from t3d.learn.domain import DomainVerdict, judge
from t3d.learn.fitted import Fitted
from t3d.learn.grids import Grids, StemGrids, VoxelGrids, box_edges, stem_of, windowed
from t3d.learn.objectives.classify import ClassifyModule
from t3d.learn.precision import pick_device
from t3d.learn.recipe import Recipe
from t3d.learn.texts import text_reader
from t3d.learn.views import whole
from t3d.model.encoders.statstem import StatStem
from t3d.model.model import Model
from t3d.model.tensors import ImageFeatures, TextBlock, ViewBlock
from t3d.text.findings import CT_RATE_18
from t3d.types import Preparation, Report, Volume, Zyx

STUDIES_AT_ONCE = 32
Vectors = NDArray[np.float32]


class Trained:
    """Towers, heads and objectives of a recipe, for measuring and for use.

    Image methods take no text: a score cannot be told the report it is compared with.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        fitted: Fitted,
        model: Model,
        objectives: nn.ModuleDict,
        folder: Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.fitted = fitted
        self.model = model
        self.objectives = objectives
        self.folder = folder

    @classmethod
    def load(cls, path: str | Path) -> Trained:
        """Load a checkpoint after comparing every file with its hash.

        Args:
            path: RUN (its best step) or RUN/checkpoints/step-N.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        folder = checkpoint.resolve(Path(path))
        checkpoint.verify(folder)
        recipe = checkpoint.load_recipe(folder)
        fitted = checkpoint.load_fitted(folder)
        model = build_model(recipe, fitted, folder)
        objectives = build_objectives(recipe, model, fitted)
        module = nn.ModuleDict({"model": model, "objectives": objectives})
        try:
            module.load_state_dict(checkpoint.load_model(folder))
        except RuntimeError as error:
            raise CheckpointError(
                f"{folder.name}: its tensors do not fit its recipe '{recipe.name}'",
                expected="a checkpoint written by this version of t3d",
                fix="train again with this version, or install the one that wrote it",
            ) from error
        module.eval().to(pick_device())
        return cls(recipe=recipe, fitted=fitted, model=model, objectives=objectives, folder=folder)

    @property
    def preparation(self) -> Preparation:
        """How voxels become the grid this model eats."""
        return self.recipe.preparation

    @property
    def findings(self) -> tuple[str, ...]:
        """Columns of `score_studies`."""
        return CT_RATE_18

    def embed_studies(self, cohort: Cohort, study_ids: Sequence[str]) -> Vectors:
        """Embed the first volume of each study, (N, D) of unit length."""
        features = self._study_features(cohort, study_ids)
        return np.concatenate([_embed(part) for part in features])

    def pool_studies(self, cohort: Cohort, study_ids: Sequence[str]) -> Vectors:
        """Give pooled image features before the head, (N, C)."""
        features = self._study_features(cohort, study_ids)
        return np.concatenate([part.pooled[:, 0].float().cpu().numpy() for part in features])

    def score_studies(self, cohort: Cohort, study_ids: Sequence[str]) -> NDArray[np.float64]:
        """Give the probabilities of a supervised recipe, (N, 18).

        Raises:
            CheckpointError: The recipe has no classifier.
        """
        heads = [m for m in self.objectives.values() if isinstance(m, ClassifyModule)]
        if not heads:
            raise CheckpointError(
                f"recipe '{self.recipe.name}' has no classifier",
                expected="a recipe with the objective 'classify'",
                fix="use zero-shot classification for recipes that see reports",
            )
        with torch.no_grad():
            scores = [
                torch.sigmoid(heads[0].scores(part))[:, 0].double().cpu().numpy()
                for part in self._study_features(cohort, study_ids)
            ]
        return np.concatenate(scores)

    def embed_volume(self, volume: Volume) -> Vectors:
        """Embed one prepared volume, (D,) of unit length."""
        vector: Vectors = _embed(self.encode_volume(volume))[0]
        return vector

    def embed_without(self, volume: Volume, slabs_vox: Sequence[tuple[int, int]]) -> Vectors:
        """Embed a prepared volume once per slab, that slab made uninformative.

        In a standardised stem a slab becomes the training mean (0); in windowed voxels it
        becomes its own mean.

        Args:
            volume: Prepared.
            slabs_vox: First and one past the last slice of each slab.

        Returns:
            (slabs, D) of unit length.
        """
        whole = self._block(volume)
        cells, slices = whole.voxels.shape[3], volume.voxels.shape[0]
        stem = isinstance(self.recipe.image, StatStem)
        rows = []
        for first, last in slabs_vox:
            low = first * cells // slices
            high = max(low + 1, -(-last * cells // slices))
            values = whole.voxels.clone()
            slab = values[:, :, :, low:high]
            slab[:] = 0.0 if stem else slab.mean(dim=(3, 4, 5), keepdim=True)
            with torch.no_grad():
                rows.append(_embed(self.model.encode_image(replace(whole, voxels=values)))[0])
        return np.stack(rows)

    @torch.no_grad()
    def encode_volume(self, volume: Volume) -> ImageFeatures:
        """Encode one prepared volume as a batch of one study and one view."""
        return self.model.encode_image(self._block(volume))

    def embed_text(self, texts: Sequence[str]) -> Vectors:
        """Embed free texts, each as a report of its sentences, (N, D) of unit length."""
        return self._embed_sections([(sentences_of(text), ()) for text in texts])

    def embed_reports(self, reports: Sequence[Report]) -> Vectors:
        """Embed reports with the recipe's sections, (N, D) of unit length."""
        sections = self.recipe.text_plan.sections
        return self._embed_sections(
            [
                (
                    sentences_of(report.findings) if "findings" in sections else (),
                    sentences_of(report.impression) if "impression" in sections else (),
                )
                for report in reports
            ]
        )

    def domain(self, volume: Volume) -> DomainVerdict:
        """Say whether a prepared volume is like the training volumes."""
        assert self.fitted.domain is not None
        return judge(self.fitted.domain, volume)

    @torch.no_grad()
    def _embed_sections(self, texts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Vectors:
        if self.recipe.text is None or not texts:
            raise CheckpointError(
                f"recipe '{self.recipe.name}' cannot embed {len(texts)} texts",
                expected="a recipe with a text tower, and at least one text",
            )
        reader = text_reader(self.recipe, self.fitted, self.folder)
        block: TextBlock = reader(texts)
        embed = self.model.encode_text(block).embed
        assert embed is not None
        return embed.float().cpu().numpy()

    @torch.no_grad()
    def _study_features(self, cohort: Cohort, study_ids: Sequence[str]) -> list[ImageFeatures]:
        grids = open_grids(self.recipe, cohort, self.fitted)
        first = {row.study_id: row.volume_ids[0] for row in cohort.studies() if row.volume_ids}
        volumes = [first[study_id] for study_id in study_ids]
        return [
            self.model.encode_image(whole(volumes[i : i + STUDIES_AT_ONCE], grids))
            for i in range(0, len(volumes), STUDIES_AT_ONCE)
        ]

    def _block(self, volume: Volume) -> ViewBlock:
        if isinstance(self.recipe.image, StatStem):
            maps, cell = self.fitted.maps, self.recipe.image.block
            assert maps is not None
            values = stem_of(volume, self.recipe.image, maps)
        else:
            values, cell = windowed(volume.voxels, self.recipe.windows_hu), Zyx(z=1, y=1, x=1)
        full = Zyx(*values.shape[1:])
        edges = box_edges(volume.world_from_voxel, Zyx(z=0, y=0, x=0), full, cell)
        return ViewBlock(
            voxels=torch.from_numpy(values)[None, None],
            valid=None,
            box_mm=torch.from_numpy(edges)[None, None],
            box_vox=torch.tensor([[[(0, 0, 0), tuple(full)]]], dtype=torch.long),
            full_vox=full,
        )


def open_grids(recipe: Recipe, cohort: Cohort, fitted: Fitted) -> Grids:
    """Open what the recipe's image encoder eats.

    Raises:
        StoreError: The cohort does not hold the recipe's preparation, or another one of its name.
    """
    check_preparation(recipe.preparation, cohort)
    if isinstance(recipe.image, StatStem):
        assert fitted.maps is not None
        return StemGrids(cohort, recipe.image, recipe.preparation.name, fitted.maps)
    return VoxelGrids(cohort, recipe)


def check_preparation(wanted: Preparation, cohort: Cohort) -> None:
    """Refuse a cohort whose grid is not the one a model eats; both are named.

    Raises:
        StoreError: The preparation is missing or has other settings.
    """
    held = cohort.preparations.get(wanted.name)
    if held == wanted:
        return
    known = ", ".join(cohort.preparations) or "none"
    found = f"only {known}" if held is None else f"another '{wanted.name}': {held}"
    raise StoreError(
        f"the cohort {cohort.path.name} holds {found}",
        expected=f"the model's preparation: {wanted}",
        fix=f"t3d prepare SOURCE {cohort.path.name} --preparation {wanted.name}",
    )


def _embed(features: ImageFeatures) -> Vectors:
    assert features.embed is not None, "the recipe has no image head"
    return features.embed[:, 0].float().cpu().numpy()
