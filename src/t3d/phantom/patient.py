"""One synthetic patient: a pure function of seed, preset, switched findings and grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from t3d.phantom import chest, torso
from t3d.phantom.body import Body, Pose, draw_body, draw_pose
from t3d.phantom.canvas import LEFT_LUNG, OTHER_ORGAN, RIGHT_LUNG, Canvas, Mark
from t3d.phantom.chain import Kernel, draw_kernel, scan
from t3d.phantom.findings_airway import plan_bronchiectasis, plan_peribronchial
from t3d.phantom.findings_dense import (
    plan_atelectasis,
    plan_consolidation,
    plan_effusion,
    plan_nodule,
)
from t3d.phantom.findings_heart import (
    plan_arterial,
    plan_cardiomegaly,
    plan_coronary,
    plan_pericardial,
)
from t3d.phantom.findings_midline import plan_hernia, plan_material, plan_nodes
from t3d.phantom.findings_texture import (
    plan_emphysema,
    plan_fibrotic,
    plan_mosaic,
    plan_opacity,
    plan_septal,
)
from t3d.phantom.grids import Frame, Grid
from t3d.phantom.items import PlacedItem, WrittenReport
from t3d.phantom.plans import Draw, Planned, Stage
from t3d.phantom.presets import DEMO, Preset, draw_labels
from t3d.phantom.report import write_report
from t3d.phantom.scene import Scene, Textures, Tissue, draw_textures, draw_tissue
from t3d.phantom.streams import stream, uniform
from t3d.phantom.vessels import Level, grow, splat
from t3d.text.findings import CT_RATE_18
from t3d.types import Volume, Zyx

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLANNERS: Mapping[str, Callable[[Draw], list[Planned]]] = {
    "Medical material": plan_material,
    "Arterial wall calcification": plan_arterial,
    "Cardiomegaly": plan_cardiomegaly,
    "Pericardial effusion": plan_pericardial,
    "Coronary artery wall calcification": plan_coronary,
    "Hiatal hernia": plan_hernia,
    "Lymphadenopathy": plan_nodes,
    "Emphysema": plan_emphysema,
    "Atelectasis": plan_atelectasis,
    "Lung nodule": plan_nodule,
    "Lung opacity": plan_opacity,
    "Pulmonary fibrotic sequela": plan_fibrotic,
    "Pleural effusion": plan_effusion,
    "Mosaic attenuation pattern": plan_mosaic,
    "Peribronchial thickening": plan_peribronchial,
    "Consolidation": plan_consolidation,
    "Bronchiectasis": plan_bronchiectasis,
    "Interlobular septal thickening": plan_septal,
}

COVERED = 0.35
"""A voxel belongs to a mask where a lesion covers this share of it, or, of a piece too small
for that, 0.6 of the largest share."""

HEAP_BYTES = 31 << 20
"""Freeing one block of this size makes glibc keep the memory of later, smaller arrays instead of
handing each back to the system; page faults took 40 % of the time of a patient."""

LUNG_STAGES = (Stage.UNDER, Stage.OVER, Stage.FLUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A synthetic patient and everything that is true of it."""

    volume: Volume
    labels: Mapping[str, int]  # 18 names of CT_RATE_18, 0 or 1
    large: Mapping[str, bool]  # False where the label is 0
    items: tuple[PlacedItem, ...]  # measured on the patient's own grid
    lesion: NDArray[np.uint8]  # (Z, Y, X): index in CT_RATE_18 + 1, the last painted wins
    organ: NDArray[np.uint8]  # (Z, Y, X): codes of canvas.py, 1 right lung to 8 vertebrae
    masks: Mapping[str, NDArray[np.bool_]]  # finding -> (Z, Y, X), before others lie on it
    report: WrittenReport  # the same on every grid
    facts: Mapping[str, str]  # sex, age, kernel, ...; independent of the labels
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything about a patient that is fixed before a voxel is painted."""

    seed: int
    frame: Frame
    grid: Grid  # the patient's own
    labels: Mapping[str, int]
    large: Mapping[str, bool]
    planned: tuple[Planned, ...]
    body: Body
    pose: Pose
    tissue: Tissue
    textures: Textures
    vessels: list[Level]
    kernel: Kernel
    table: bool
    facts: Mapping[str, str]


def plan(seed: int, *, preset: Preset = DEMO, switch: Mapping[str, int] | None = None) -> Plan:
    """Draw everything about a patient but the voxels (under a millisecond or two).

    Args:
        seed: 0 or more.
        preset: Kind of cohort.
        switch: Findings to force to 0 or 1.

    Returns:
        Labels, facts, sizes and what is to be painted.

    Raises:
        RecipeError: A switched finding is unknown or its value is not 0 or 1.
    """
    labels, large = draw_labels(seed, preset, switch)
    frame, grid = _draw_frame(seed, preset)
    rng = stream(seed, "facts")
    female, age = bool(rng.random() < 0.5), int(rng.integers(22, 91))
    contrast = bool(stream(seed, "contrast").random() < preset.contrast_share)
    table = bool(stream(seed, "table").random() < preset.table_share)
    kernel = draw_kernel(seed, preset.sharp_share)
    neutral = draw_body(seed, frame, female=female)
    planned: list[Planned] = []
    for finding in CT_RATE_18:
        if labels[finding]:
            draw = Draw(
                rng=stream(seed, f"finding/{finding}"),
                large=large[finding],
                body=neutral,
                frame=frame,
                contrast=contrast,
            )
            planned += PLANNERS[finding](draw)
    facts = {
        "synthetic": "true",
        "sex": "F" if female else "M",
        "age": str(age),
        "contrast": "yes" if contrast else "no",
        "kernel": kernel.name,
        "noise_hu": f"{kernel.noise_hu:.2f}",
        "table": "yes" if table else "no",
        "spacing_mm": "x".join(f"{s:.2f}" for s in grid.spacing_mm),
        "half_width_mm": f"{neutral.half_width:.1f}",
    }
    return Plan(
        seed=seed,
        frame=frame,
        grid=grid,
        labels=labels,
        large=large,
        planned=tuple(planned),
        body=_altered(neutral, planned),
        pose=draw_pose(seed),
        tissue=draw_tissue(seed, contrast=contrast),
        textures=draw_textures(seed, frame),
        vessels=grow(seed, neutral),
        kernel=kernel,
        table=table,
        facts=facts,
    )


def _draw_frame(seed: int, preset: Preset) -> tuple[Frame, Grid]:
    """Draw shape and spacing; their product is the box that the body fills."""
    rng = stream(seed, "frame")
    slices = int(rng.integers(preset.slices[0], preset.slices[1] + 1))
    pixels = int(rng.integers(preset.pixels[0], preset.pixels[1] + 1))
    slice_mm = round(uniform(rng, *preset.slice_mm), 2)
    pixel_mm = round(uniform(rng, *preset.pixel_mm), 2)
    side = pixels * pixel_mm
    frame = Frame(
        extent_mm=Zyx(z=slices * slice_mm, y=side, x=side),
        z_world_mm=float(round(uniform(rng, -400, 200))),
    )
    shape = Zyx(z=slices, y=pixels, x=pixels)
    return frame, Grid(shape=shape, spacing_mm=Zyx(z=slice_mm, y=pixel_mm, x=pixel_mm))


def _altered(body: Body, planned: list[Planned]) -> Body:
    """Apply what findings do to the anatomy."""
    for one in planned:
        changed = {name: getattr(body, name) * factor for name, factor in one.alter.items()}
        body = replace(body, **changed)
    return body


def patient(
    seed: int,
    *,
    preset: Preset = DEMO,
    switch: Mapping[str, int] | None = None,
    grid: Grid | None = None,
    clean: bool = False,
) -> Phantom:
    """Make one synthetic patient.

    Every part draws from a stream of its own, so `switch` changes only what belongs to the
    switched finding, and all structure is in mm, so `grid` only samples it more finely: labels,
    items, report and facts stay those of the patient's own grid.

    Args:
        seed: 0 or more.
        preset: Kind of cohort: grids, prevalences, share of large findings.
        switch: Findings to force to 0 or 1, for twins.
        grid: Where to sample; None = the patient's own grid. A grid with low ends is a window
            that costs only its own voxels.
        clean: Leave out blur and noise.

    Returns:
        Volume in int16 HU, (z, y, x), LPS; labels, items, masks, report and facts.

    Raises:
        RecipeError: A switched finding is unknown or its value is not 0 or 1.

    Source:
        Our own generator; plausibility was judged by eye.

    Example:
        >>> patient(7, switch={"Lung nodule": 1}).labels["Lung nodule"]
        1
    """
    np.empty(HEAP_BYTES, np.uint8)  # see HEAP_BYTES; nothing is kept or touched
    drawn = plan(seed, preset=preset, switch=switch)
    own, marks = _render(drawn, drawn.grid)
    masks = _item_masks(own, drawn.planned, marks)
    items = tuple(_placed(own, one, mask) for one, mask in zip(drawn.planned, masks, strict=True))
    written = write_report(drawn.labels, items, stream(seed, "report"))
    canvas = own
    if grid is not None:
        canvas, marks = _render(drawn, grid)
        masks = _item_masks(canvas, drawn.planned, marks)
    canvas.organ[canvas.organ == OTHER_ORGAN] = 0
    by_finding = _join(drawn.planned, masks)
    volume = Volume(
        volume_id=f"phantom-{seed:06d}",
        voxels=scan(canvas.hu, seed, None if clean else drawn.kernel),
        world_from_voxel=drawn.frame.world_from_voxel(grid or drawn.grid),
        steps=(f"phantom {preset.name} {preset.digest} seed {seed}",),
    )
    return Phantom(
        volume=volume,
        labels=drawn.labels,
        large=drawn.large,
        items=items,
        lesion=_lesion(drawn.planned, by_finding, canvas.organ.shape),
        organ=canvas.organ,
        masks=by_finding,
        report=written,
        facts=drawn.facts,
        seed=seed,
    )


def _render(drawn: Plan, grid: Grid) -> tuple[Canvas, list[list[Mark]]]:
    """Paint a patient on a grid; marks of each planned item, in the order of the plan."""
    canvas = Canvas(drawn.frame, grid, drawn.pose)
    scene = Scene(canvas, drawn.body, drawn.tissue, drawn.textures)
    marks: list[list[Mark]] = [[] for _ in drawn.planned]

    def findings(stage: Stage) -> None:
        for k, one in enumerate(drawn.planned):
            if one.stage is stage:
                marks[k] = one.paint(scene)

    torso.paint_torso(scene)
    chest.paint_lungs(scene)
    findings(Stage.UNDER)
    canvas.paint(splat(canvas, drawn.vessels) * scene.lung, drawn.tissue.blood + 10)
    findings(Stage.OVER)
    findings(Stage.FLUID)
    chest.paint_midline(scene)
    findings(Stage.SAC)
    chest.paint_heart(scene)
    chest.paint_abdomen(scene)
    chest.paint_esophagus(scene)
    findings(Stage.MIDLINE)
    chest.paint_great_vessels(scene)
    torso.paint_bones(scene)
    chest.paint_airway(scene)
    findings(Stage.CALCIUM)
    if drawn.table:
        torso.paint_table(scene)
    findings(Stage.METAL)
    return canvas, marks


def _item_masks(
    canvas: Canvas, planned: tuple[Planned, ...], marks: list[list[Mark]]
) -> list[NDArray[np.bool_]]:
    """Turn marks into masks; lung findings keep to what is still lung, nodes to what is free."""
    lungs = (canvas.organ == RIGHT_LUNG) | (canvas.organ == LEFT_LUNG)
    free = lungs | (canvas.organ == 0)
    out = []
    for one, parts in zip(planned, marks, strict=True):
        mask = np.zeros(canvas.hu.shape, np.bool_)
        for mark in parts:
            covered = mark.opacity >= min(COVERED, 0.6 * float(mark.opacity.max(initial=0.0)))
            mask[mark.window] |= covered & (mark.opacity > 0)
        where = {Stage.MIDLINE: free}.get(one.stage, lungs if one.stage in LUNG_STAGES else None)
        visible = mask if where is None else mask & where
        out.append(visible if visible.any() else mask)
    return out


def _placed(canvas: Canvas, one: Planned, mask: NDArray[np.bool_]) -> PlacedItem:
    """Measure where a mask lies along z, in LPS world mm."""
    per_slice = np.count_nonzero(mask, axis=(1, 2))
    if not per_slice.any():
        raise AssertionError(f"item of {one.item.finding} covers no voxel of its own grid")
    z = canvas.axes[0].astype(np.float64) + canvas.frame.z_world_mm
    held = np.flatnonzero(per_slice)
    centre = float(np.sum(per_slice * z) / per_slice.sum())
    z_mm = (centre, float(z[held[0]]), float(z[held[-1]]))
    return PlacedItem(item=one.item, z_mm=z_mm, count=one.count, extra=one.extra)


def _join(
    planned: tuple[Planned, ...], masks: list[NDArray[np.bool_]]
) -> dict[str, NDArray[np.bool_]]:
    """Unite the masks of the items of each finding."""
    out: dict[str, NDArray[np.bool_]] = {}
    for one, mask in zip(planned, masks, strict=True):
        name = one.item.finding
        out[name] = out[name] | mask if name in out else mask
    return out


def _lesion(
    planned: tuple[Planned, ...],
    masks: Mapping[str, NDArray[np.bool_]],
    shape: tuple[int, ...],
) -> NDArray[np.uint8]:
    """Lay masks over each other in the order of painting; none vanishes altogether."""
    stage = {one.item.finding: one.stage for one in planned}
    order = sorted(masks, key=lambda name: (stage[name], CT_RATE_18.index(name)))
    out = np.zeros(shape, np.uint8)
    for name in order:
        out[masks[name]] = CT_RATE_18.index(name) + 1
    for name in order:  # a finding that lies wholly under others is laid on top
        code = CT_RATE_18.index(name) + 1
        if not (out == code).any():
            out[masks[name]] = code
    return out
