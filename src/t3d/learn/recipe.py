"""Everything that fixes a training run. A run is a function of (recipe, cohort).

Sizes of views are in the units of the grid the image encoder eats: voxels, or cells of a
parameter-free stem.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from t3d.errors import RecipeError
from t3d.learn import codec
from t3d.learn.objectives import OBJECTIVES
from t3d.learn.parts import TARGETS, Needs, Objective, Supervision
from t3d.model.encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from t3d.model.heads import HEADS
from t3d.text.sections import SECTIONS
from t3d.types import Preparation, Zyx

PARTS: dict[str, type] = {
    part.kind: part for part in (*IMAGE_ENCODERS, *TEXT_ENCODERS, *HEADS, *OBJECTIVES)
}
TRAINABLE = ("image", "text", "objectives")
PRECISIONS = ("auto", "fp32", "bf16")
RANK: tuple[Supervision, ...] = ("none", "reports", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One kind of view: the whole grid, or `count` boxes at random places."""

    name: str
    size: Zyx[int] | None = None  # None = the whole grid
    count: int = 1
    min_body: float = 0.0  # share of a box that must be body (> -500 HU); voxel views only


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Intensity only, drawn per study, view and channel. No flips: reports name sides."""

    gain: float = 0.0  # factor 1 +- this
    offset: float = 0.0  # +- this, in the units of the view's values
    noise: float = 0.0  # standard deviation
    gamma: float = 0.0  # exponent exp(+- this); voxel views only


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPlan:
    """How a report becomes the text of a step."""

    sections: tuple[str, ...] = ("findings", "impression")
    drop: float = 0.3  # up to this share of the sentences is left out, drawn per step
    shuffle: bool = True  # sentence order


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """How the studies of one member of a union are used; a member without one: like this."""

    weight: float = 1.0  # drawn in proportion to this times the member's number of studies
    sections: tuple[str, ...] | None = None  # all that is read of its reports; None = the recipe's


@dataclass(frozen=True, slots=True, kw_only=True)
class Optim:
    """AdamW with linear warm-up and cosine decay to zero over a stage."""

    lr: float = 1e-4
    weight_decay: float = 0.05  # 0 on one-dimensional parameters
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.05  # share of the stage's steps
    clip_norm: float = 1.0
    image_lr_scale: float = 1.0
    layer_decay: float = 1.0  # factor on the rate, once for each layer further from the head
    accumulate: int = 1  # batches per optimiser step


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelShare:
    """Whose labels are read (`t3d.learn.shares`); studies of the others are left out."""

    share: float = 1.0  # of the training patients
    seed: int = 0  # of the hash that chooses them


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop:
    """The run ends when its dev score has not risen for some time."""

    every: int  # steps between two dev scores
    patience: int  # dev scores in a row without a better one


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """An objective with its weight and when it starts."""

    objective: Objective
    weight: float = 1.0
    start_step: int = 0  # within the stage
    ramp_steps: int = 0  # linear from 0 to the weight

    def weight_at(self, step: int) -> float:
        """Give the weight at a step of the stage, counted from 0."""
        if step < self.start_step:
            return 0.0
        if step < self.start_step + self.ramp_steps:
            return self.weight * (step - self.start_step + 1) / (self.ramp_steps + 1)
        return self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of steps with its own terms, schedule and views."""

    num_steps: int
    terms: tuple[Term, ...]
    views: tuple[View, ...]
    optim: Optim = Optim()
    batch_size: int = 32  # studies
    trainable: tuple[str, ...] = TRAINABLE

    @property
    def needs(self) -> Needs:
        """What its objectives read, together."""
        every = [term.objective.needs for term in self.terms]
        return Needs(
            views=_union(need.views for need in every),
            levels=any(need.levels for need in every),
            texts=_union(need.texts for need in every),
            targets=_union(need.targets for need in every),
            teacher=any(need.teacher for need in every),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named training; `supervision` follows from its terms."""

    name: str
    source: str  # what it is after and how many of its fields the source gave
    preparation: Preparation
    image: Any  # settings of an image encoder
    stages: tuple[Stage, ...]
    image_head: Any = None
    text: Any = None  # settings of a text encoder; None = no text tower
    text_head: Any = None
    windows_hu: tuple[tuple[int, int], ...] = ((-1000, 1000),)  # unused by a stem of its own
    augment: Augment = Augment()
    text_plan: TextPlan = TextPlan()
    members: Mapping[str, Member] = field(default_factory=dict)  # by the cohort's fact `member`
    init: str = ""  # digest of the checkpoint whose image encoder is the start; "" = random
    labels: LabelShare = LabelShare()
    early_stop: EarlyStop | None = None  # None = all steps are taken
    precision: str = "auto"  # "auto" = bf16 where the processor is fast at it, else fp32
    series_policy: str = "first"
    shuffle_reports: bool = False  # control: reports permuted between training patients
    seed: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def supervision(self) -> Supervision:
        """The most that any term uses: "labels" over "reports" over "none"."""
        every: list[Supervision] = [
            term.objective.supervision for stage in self.stages for term in stage.terms
        ]
        return max(every, key=RANK.index, default="none")

    @property
    def num_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.num_steps for stage in self.stages)

    @property
    def digest(self) -> str:
        """Sha256 of the recipe as canonical JSON."""
        return codec.digest(self)

    def to_json(self) -> dict[str, Any]:
        """Give the recipe as JSON data."""
        data = codec.to_json(self)
        assert isinstance(data, dict)
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Recipe:
        """Read a recipe.

        Raises:
            RecipeError: With every problem found.
        """
        reader = codec.Reader(PARTS)
        recipe = reader.settings(Recipe, data, "")
        raise_problems(str(data.get("name", "?")), reader.problems)
        assert isinstance(recipe, Recipe)
        check(recipe)
        return recipe


def override(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """Change fields by path, as `--set optim.lr=1e-4` does.

    `optim.x`, `batch_size` and `num_steps` mean every stage; `stages.0.optim.lr` means one;
    `members.NAME.weight` names a member that the recipe need not know yet.

    Raises:
        RecipeError: A path or value is wrong; the nearest name is given.
    """
    data = recipe.to_json()
    problems: list[str] = []
    for path, text in settings.items():
        value = _parse(text)
        keys = path.split(".")
        if keys[0] == "members" and len(keys) == 3 and isinstance(data["members"], dict):
            data["members"].setdefault(keys[1], codec.to_json(Member()))
        shared = keys[0] in ("optim", "batch_size", "num_steps")
        owners = data["stages"] if shared else [data]
        for owner in owners:
            _set(owner, keys, value, path, problems)
    raise_problems(recipe.name, problems)
    return Recipe.from_json(data)


def check(
    recipe: Recipe, *, cohort: str = "the cohort", members: Collection[str] | None = None
) -> None:
    """Refuse a recipe that cannot run.

    Args:
        recipe: Of any origin.
        cohort: Name of the cohort it is to learn from.
        members: Those that the cohort has; None = not known yet.

    Raises:
        RecipeError: With every problem found.
    """
    problems = [*_check_fields(recipe), *_check_labels(recipe)]
    problems += _check_members(recipe, cohort, members)
    for number, stage in enumerate(recipe.stages):
        problems += _check_stage(recipe, stage, f"stages.{number}")
    raise_problems(recipe.name, problems)


def raise_problems(name: str, problems: list[str]) -> None:
    """Raise one RecipeError that lists the problems, if there are any."""
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise RecipeError(
            f"{len(problems)} {noun} in recipe '{name}'{listed}",
            fix="t3d info recipes lists the names; t3d info recipe NAME prints every field",
        )


def with_shuffled_reports(recipe: Recipe) -> Recipe:
    """Make the control: the same training on reports permuted between patients."""
    return replace(recipe, name=f"{recipe.name}_shuffled", shuffle_reports=True)


def _union(groups: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _check_fields(recipe: Recipe) -> Iterator[str]:
    if recipe.precision not in PRECISIONS:
        yield f"precision: found '{recipe.precision}', expected one of {PRECISIONS}"
    if not recipe.stages:
        yield "stages: none; a run needs at least one"
    if recipe.series_policy != "first":
        yield f"series_policy: found '{recipe.series_policy}', expected 'first'"
    embeds = recipe.image_head is not None and recipe.text_head is not None
    if embeds and recipe.image_head.dim != recipe.text_head.dim:
        yield (
            f"image_head.dim: {recipe.image_head.dim} differs from text_head.dim "
            f"{recipe.text_head.dim}"
        )


def _check_labels(recipe: Recipe) -> Iterator[str]:
    share, stop = recipe.labels.share, recipe.early_stop
    if not 0 < share <= 1:
        yield f"labels.share: found {share}, expected above 0, at most 1"
    elif share < 1 and recipe.supervision != "labels":
        yield f"labels.share: {share}, but no term learns from labels"
    if stop is not None and min(stop.every, stop.patience) < 1:
        yield "early_stop: every and patience must be at least 1"


def _check_members(recipe: Recipe, cohort: str, members: Collection[str] | None) -> Iterator[str]:
    for name, member in recipe.members.items():
        if members is not None and name not in members:
            known = ", ".join(sorted(members)) or "none: it is no union"
            near = codec.nearest(name, set(members))
            yield f"members.{name}: not a member of cohort '{cohort}' (members: {known}){near}"
        if not (math.isfinite(member.weight) and member.weight > 0):
            yield f"members.{name}.weight: found {member.weight}, expected a number above 0"
        if member.sections is not None:
            yield from _check_sections(member.sections, f"members.{name}.sections")
    yield from _check_sections(recipe.text_plan.sections, "text_plan.sections")


def _check_sections(sections: tuple[str, ...], path: str) -> Iterator[str]:
    if not sections:
        yield f"{path}: none, expected one or more of {SECTIONS}"
    for name in sections:
        if name not in SECTIONS:
            yield f"{path}: unknown '{name}'{codec.nearest(name, set(SECTIONS))}"


def _check_stage(recipe: Recipe, stage: Stage, path: str) -> Iterator[str]:
    if stage.num_steps < 1 or stage.batch_size < 1 or stage.optim.accumulate < 1:
        yield f"{path}: num_steps, batch_size and optim.accumulate must be at least 1"
    if not 0 < stage.optim.layer_decay <= 1:
        yield f"{path}.optim.layer_decay: found {stage.optim.layer_decay}, expected (0, 1]"
    for name in stage.trainable:
        if name not in TRAINABLE:
            yield f"{path}.trainable: unknown '{name}'{codec.nearest(name, set(TRAINABLE))}"
    names = [view.name for view in stage.views]
    if len(set(names)) < len(names):
        yield f"{path}.views: a name is used twice: {names}"
    for number, term in enumerate(stage.terms):
        for problem in _check_needs(recipe, term.objective.needs, names):
            yield f"{path}.terms.{number}.objective: needs {problem}"


def _check_needs(recipe: Recipe, needs: Needs, views: list[str]) -> Iterator[str]:
    for view in needs.views:
        if view not in views:
            yield f"view '{view}', the stage has {tuple(views)}"
    if needs.texts and recipe.text is None:
        yield "a text tower, the recipe has none"
    for target in needs.targets:
        if target not in TARGETS:
            yield f"target '{target}'{codec.nearest(target, set(TARGETS))}"
    if needs.teacher:
        yield "a teacher, which no trainer here makes"


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _set(owner: Any, keys: list[str], value: Any, path: str, problems: list[str]) -> None:
    for key in keys[:-1]:
        owner = _child(owner, key, path, problems)
        if owner is None:
            return
    if _child(owner, keys[-1], path, problems, leaf=True) is None:
        return
    owner[int(keys[-1]) if isinstance(owner, list) else keys[-1]] = value


def _child(owner: Any, key: str, path: str, problems: list[str], *, leaf: bool = False) -> Any:
    if isinstance(owner, list) and key.isdigit() and int(key) < len(owner):
        return True if leaf else owner[int(key)]
    if isinstance(owner, dict) and key in owner:
        return True if leaf else owner[key]
    known = set(owner) if isinstance(owner, dict) else set()
    problems.append(f"{path}: unknown field '{key}'{codec.nearest(key, known)}")
    return None
