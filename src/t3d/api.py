"""`t3d.read`, `t3d.load` and what they give: a CT and a model a person can ask."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t3d.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from t3d.judge.prompts import PromptSet
    from t3d.learn.trained import Trained
    from t3d.types import Volume

NUM_PLACES = 16  # along z, when looking for the slices behind a score
SLAB_PLACES = 3  # depth of the slab taken away at each, in places; one alone says less (dev)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenedFinding:
    """One finding's score and where in the scan it comes from."""

    finding: str
    score: float  # cosine difference, -2 to 2; no probability
    z_mm: float  # slice of the scan at the centre of the slab whose loss costs most, LPS mm
    drop: float  # by how much


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What a model says of one scan."""

    volume_id: str
    findings: tuple[ScreenedFinding, ...]  # highest score first
    in_domain: bool
    domain_score: float  # 1 = the threshold
    reasons: tuple[str, ...]  # why it is out of domain
    recipe: str
    prompts: str

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON data."""
        return {"not_for_clinical_use": True, **asdict(self)}


def read(path: str | Path) -> Volume:
    """Read a CT in any storage order: HU, axes to Superior, Posterior, Left.

    Raises:
        SourceError: No such file, or not a CT volume.
        GeometryError: Its header says no usable grid.
    """
    from t3d.ct import door

    return door.read(path)


def load(path: str | Path) -> LoadedModel:
    """Load a checkpoint: a run (its best step) or RUN/checkpoints/step-N.

    Raises:
        CheckpointError: There is none, or a file is not the one that was written.
    """
    from t3d.learn.trained import Trained

    return LoadedModel(Trained.load(path))


class LoadedModel:
    """A trained model; takes volumes as they were read and prepares them itself."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def prepare(self, volume: Volume) -> Volume:
        """Bring a volume onto the grid this model eats."""
        from t3d.ct.regrid import regrid

        return regrid(volume, self.trained.preparation)

    def embed(self, volume: Volume) -> NDArray[np.float32]:
        """Embed a volume as read, (D,) of unit length."""
        return self.trained.embed_volume(self.prepare(volume))

    def screen(
        self,
        volume: Volume,
        findings: Sequence[str] = (),
        *,
        prompts: PromptSet | None = None,
    ) -> Screening:
        """Score findings, find the slices behind each score, say if the scan is in domain.

        Args:
            volume: As read.
            findings: Names; none = the 18 of CT-RATE, or all those of `prompts`.
            prompts: Sentences per finding; None = class names in sentences.

        Raises:
            CheckpointError: The recipe has no text tower.
            ProtocolError: `prompts` lacks one of the findings.
        """
        from t3d.judge.embeddings import prototypes
        from t3d.judge.prompts import templates
        from t3d.text.findings import CT_RATE_18

        if self.trained.recipe.text is None:
            raise CheckpointError(
                f"recipe '{self.trained.recipe.name}' has no text tower",
                expected="a recipe that sees reports",
                fix="screen with a clip, t3d_v3 or t3d_plus checkpoint",
            )
        if prompts is None:
            asked = templates(tuple(findings) or CT_RATE_18)
        else:
            asked = prompts.only(findings) if findings else prompts
        positive, negative = prototypes(self.trained, asked)
        prepared = self.prepare(volume)
        direction = positive - negative  # (F, D)
        whole = self.trained.embed_volume(prepared) @ direction.T
        slabs, centres = self._without_slabs(prepared)
        drops = whole - slabs @ direction.T  # (slabs, F)
        best = drops.argmax(0)
        rows = [
            ScreenedFinding(
                finding=name,
                score=float(whole[f]),
                z_mm=_nearest_slice(volume, float(centres[best[f]])),
                drop=float(drops[best[f], f]),
            )
            for f, name in enumerate(asked.findings)
        ]
        verdict = self.trained.domain(prepared)
        return Screening(
            volume_id=volume.volume_id,
            findings=tuple(sorted(rows, key=lambda row: -row.score)),
            in_domain=verdict.inside,
            domain_score=verdict.score,
            reasons=verdict.reasons,
            recipe=self.trained.recipe.name,
            prompts=asked.name,
        )

    def _without_slabs(self, prepared: Volume) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embed the volume with one slab after another made uninformative.

        Slabs overlap: each is `SLAB_PLACES` places deep. Gives (places, D) and the places'
        centres in LPS mm, (places,).
        """
        import numpy as np

        depth = prepared.voxels.shape[0]
        places = min(NUM_PLACES, depth)
        centre_vox = (np.arange(places) + 0.5) * depth / places
        half = SLAB_PLACES * depth / places / 2
        low = np.clip(centre_vox - half, 0, depth).round().astype(int).tolist()
        high = np.clip(centre_vox + half, 0, depth).round().astype(int).tolist()
        embedded = self.trained.embed_without(prepared, list(zip(low, high, strict=True)))
        world = prepared.world_from_voxel
        return embedded, (world[2, 0] * (centre_vox - 0.5) + world[2, 3]).astype(np.float32)


def _nearest_slice(volume: Volume, z_mm: float) -> float:
    """Depth of the scan's own slice nearest to a depth, LPS mm."""
    step, first = float(volume.world_from_voxel[2, 0]), float(volume.world_from_voxel[2, 3])
    index = min(max(round((z_mm - first) / step), 0), volume.voxels.shape[0] - 1)
    return float(first + step * index)


def describe(what: str, name: str = "", *, size: str = "demo") -> Any:
    """Say what there is, as JSON data: recipes, preparations, a cohort, a run.

    Raises:
        RecipeError: There is nothing of that name.
    """
    folder = Path(what)
    if what in ("", "recipes"):
        return _describe_recipes(name, size)
    if what == "limits":
        from t3d.ct.limits import limits

        return {limit.name: f"{limit.value} {limit.unit}: {limit.why}" for limit in limits()}
    if what == "plan":
        from t3d.cohort.plan import describe as plan_of_ct_rate

        return plan_of_ct_rate()
    if what == "preparations":
        from t3d.ct.preparations import PREPARATIONS

        return {p.name: {k: v for k, v in asdict(p).items() if k != "name"} for p in PREPARATIONS}
    if (folder / "cohort.sqlite").is_file():
        return _describe_cohort(folder)
    if (folder / "checkpoints").is_dir() or (folder / "sha256.json").is_file():
        return _describe_run(folder)
    raise RecipeError(
        f"nothing to say about '{what}'",
        expected="recipes, preparations, limits, plan, or the folder of a cohort or run",
    )


def _describe_recipes(name: str, size: str) -> Any:
    from t3d.recipes import RECIPES, recipe

    if name:
        return recipe(name, size).to_json()
    return {
        function.__name__: f"{(function.__doc__ or '').strip().splitlines()[0]} "
        f"[{function(size).supervision}, {function(size).num_steps} steps at size {size}]"
        for function in RECIPES
    }


def _describe_cohort(folder: Path) -> dict[str, Any]:
    from t3d.cohort.store import Cohort

    cohort = Cohort.open(folder)
    failures = cohort.failures()
    return {
        "digest": cohort.digest,
        "preparations": list(cohort.preparations),
        "studies": {s: len(cohort.studies(s)) for s in ("train", "dev", "test", "")},
        "counts": dict(cohort.counts),
        "facts": dict(cohort.facts),
        "set_aside": [asdict(failure) for failure in failures],
    }


def _describe_run(folder: Path) -> dict[str, Any]:
    from t3d.learn import checkpoint

    found = checkpoint.resolve(folder)
    checkpoint.verify(found)
    recipe = checkpoint.load_recipe(found)
    numbers = json.loads((found / "training.json").read_text())
    finite = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in numbers.items()}
    return {
        "checkpoint": found.name,
        "recipe": recipe.name,
        "source": recipe.source,
        "supervision": recipe.supervision,
        "digest": recipe.digest,
        **finite,
    }
