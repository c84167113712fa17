"""A trained model as others use it: volumes and texts in, vectors out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
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
from t3d.learn.losses import sentence_means
from t3d.learn.objectives.classify import ClassifyModule
from t3d.learn.objectives.sentence_match import SentenceMatchNet
from t3d.learn.pairing import places
from t3d.learn.precision import pick_device
from t3d.learn.recipe import Recipe
from t3d.learn.texts import text_reader
from t3d.learn.views import whole
from t3d.model.encoders.statstem import StatStem, StatStemNet
from t3d.model.model import Model
from t3d.model.tensors import ImageFeatures, TextBlock, TextFeatures, ViewBlock
from t3d.text.findings import CT_RATE_18
from t3d.types import Preparation, Report, Volume, Zyx

STUDIES_AT_ONCE = 32
Vectors = NDArray[np.float32]
Centres = NDArray[np.float64]


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

    def embed_volumes(self, cohort: Cohort, volume_ids: Sequence[str]) -> Vectors:
        """Embed volumes, (N, D) of unit length."""
        features = self._volume_features(cohort, volume_ids)
        return np.concatenate([_embed(part) for part, _ in features])

    def embed_tokens(self, volume: Volume) -> tuple[Vectors, Centres]:
        """Embed each depth of one prepared volume; compare them with `embed_snippets`.

        A depth is a plane of cells of the encoder's token map. Where the recipe trained
        `sentence_match`, its values are averaged over the plane; else the plane is pooled as the
        encoder pools a volume and goes through the image head, which never saw a part of a scan.

        Args:
            volume: Prepared.

        Returns:
            (Z, D) of unit length and the centres (Z, 3) of the planes, (z, y, x) LPS mm.

        Raises:
            CheckpointError: The token map does not fit the image head.
        """
        block = self._block(volume)
        with torch.no_grad():
            return self._depths(self.model.encode_image(block), block)[0]

    def embed_volume_tokens(
        self, cohort: Cohort, volume_ids: Sequence[str]
    ) -> list[tuple[Vectors, Centres]]:
        """Embed each depth of many volumes; entries as `embed_tokens` gives them.

        Raises:
            CheckpointError: As `embed_tokens`.
        """
        features = self._volume_features(cohort, volume_ids)
        return [one for part, block in features for one in self._depths(part, block)]

    @torch.no_grad()
    def embed_snippets(self, texts: Sequence[str]) -> Vectors:
        """Embed single sentences as the depths of `embed_tokens` want them, (N, D)."""
        matcher = self._matcher
        if matcher is None:
            return self.embed_text(texts)
        told = self._text_features([(sentences_of(text), ()) for text in texts])
        mean_NSC, present_NS = sentence_means(told.tokens, told.segment)
        weight_NS1 = present_NS[..., None].to(mean_NSC.dtype)
        mean_NC = (mean_NSC * weight_NS1).sum(1) / weight_NS1.sum(1).clamp(min=1)
        return _unit(matcher.meaning(mean_NC))

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

    def _embed_sections(self, texts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Vectors:
        embed = self._text_features(texts).embed
        assert embed is not None
        return embed.float().cpu().numpy()

    @torch.no_grad()
    def _text_features(self, texts: Sequence[tuple[Sequence[str], Sequence[str]]]) -> TextFeatures:
        if self.recipe.text is None or not texts:
            raise CheckpointError(
                f"recipe '{self.recipe.name}' cannot embed {len(texts)} texts",
                expected="a recipe with a text tower, and at least one text",
            )
        reader = text_reader(self.recipe, self.fitted, self.folder)
        block: TextBlock = reader(texts)
        return self.model.encode_text(block)

    def _study_features(self, cohort: Cohort, study_ids: Sequence[str]) -> Iterator[ImageFeatures]:
        first = _first_volumes(cohort)
        volumes = [first[study_id] for study_id in study_ids]
        return (part for part, _ in self._volume_features(cohort, volumes))

    @torch.no_grad()
    def _volume_features(
        self, cohort: Cohort, volume_ids: Sequence[str]
    ) -> Iterator[tuple[ImageFeatures, ViewBlock]]:
        """Encode volumes in their order, some at once; none stays in memory."""
        grids = open_grids(self.recipe, cohort, self.fitted)
        # a stem's cache holds first volumes only
        cached = set(_first_volumes(cohort).values()) if isinstance(grids, StemGrids) else None
        for known, group in groupby(volume_ids, lambda v: cached is None or v in cached):
            part = list(group)
            step = STUDIES_AT_ONCE if known else 1
            for i in range(0, len(part), step):
                if known:
                    block = whole(part[i : i + step], grids)
                else:
                    block = self._block(cohort.volume(part[i], self.preparation.name))
                yield self.model.encode_image(block), block

    @property
    def _matcher(self) -> SentenceMatchNet | None:
        """The head that was trained to match sentences with places."""
        found = [m for m in self.objectives.values() if isinstance(m, SentenceMatchNet)]
        return found[0] if found else None

    @torch.no_grad()
    def _depths(self, features: ImageFeatures, block: ViewBlock) -> list[tuple[Vectors, Centres]]:
        """Unit vectors and centres of the planes of each volume of a batch of whole grids."""
        grid = features.grid[:, :1]  # (B, 1, C, z, y, x)
        num, depth = len(grid), grid.shape[3]
        matcher = self._matcher
        if matcher is not None:
            values = matcher.value(matcher.to_tokens(places(grid)))  # (B, 1, P, D), z slowest
            planes = values.reshape(num, depth, -1, values.shape[-1]).mean(2)
        else:
            planes = self._headed(grid[:, 0].transpose(1, 2).flatten(0, 1)[:, :, None])
            planes = planes.unflatten(0, (num, depth))
        boxes = block.box_mm[:, 0].double().cpu().numpy()  # (B, 2, 3)
        steps = (np.arange(depth) + 0.5) / depth
        found = []
        for plane, (low, high) in zip(planes, boxes, strict=True):
            centres = np.tile((low + high) / 2, (depth, 1))
            centres[:, 0] = low[0] + steps * (high[0] - low[0])
            found.append((_unit(plane), centres))
        return found

    def _headed(self, slabs: torch.Tensor) -> torch.Tensor:
        """Slabs (N, C, z, y, x) of a token map, pooled as their encoder does, through the head."""
        image, head = self.model.image, self.model.image_head
        if head is None or slabs.shape[1] != getattr(image, "grid_dim", 0):
            raise CheckpointError(f"recipe '{self.recipe.name}' has no image head")
        pooled = slabs.flatten(2).mean(-1).float()
        if isinstance(image, StatStemNet):
            peak = image.detect_norm(image.detect(slabs).flatten(2).amax(-1).float())
            pooled = torch.cat([peak, pooled], dim=1)
        if pooled.shape[1] != image.pooled_dim:
            raise CheckpointError(
                f"recipe '{self.recipe.name}': its token map has {pooled.shape[1]} channels, its "
                f"image head reads {image.pooled_dim}",
                expected="a token map of the last stage, or a recipe with 'sentence_match'",
                fix="leave localization out for this model",
            )
        embed: torch.Tensor = head(pooled)
        return embed

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


def _first_volumes(cohort: Cohort) -> dict[str, str]:
    """The first volume of each study."""
    return {row.study_id: row.volume_ids[0] for row in cohort.studies() if row.volume_ids}


def _unit(rows: torch.Tensor) -> Vectors:
    """Rows of unit length."""
    unit: Vectors = torch.nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()
    return unit


def _embed(features: ImageFeatures) -> Vectors:
    assert features.embed is not None, "the recipe has no image head"
    return features.embed[:, 0].float().cpu().numpy()
