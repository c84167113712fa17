"""Gauges of a trained model on the dev split: TMA's meters, and what a blind loss would be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t3d.cohort.store import Cohort
from t3d.learn import meters
from t3d.learn.corpus import read_corpus
from t3d.learn.objectives.classify import Classify
from t3d.learn.objectives.contrast import Contrast
from t3d.learn.objectives.report_terms import LOSS_SCALE, ReportTerms
from t3d.learn.objectives.sentence_match import SentenceMatch
from t3d.learn.objectives.text_warmup import TextWarmup
from t3d.learn.objectives.tma import TMA, TMANet
from t3d.learn.parts import Objective
from t3d.learn.texts import text_reader
from t3d.learn.trained import Trained, open_grids
from t3d.learn.views import Loader, whole
from t3d.model.tensors import Batch, Encoded, to_device
from t3d.text.findings import CT_RATE_18

DEV_BATCH = 64
LESION = "lesion"  # mask whose values are 1 + the finding's place in CT_RATE_18
DIFFUSE = ("Emphysema", "Mosaic attenuation pattern", "Interlobular septal thickening")
FOCAL = tuple(name for name in CT_RATE_18 if name not in DIFFUSE)


def read_gauges(trained: Trained, cohort: Cohort, *, split: str = "dev") -> dict[str, Any]:
    """Read TMA's meters and where its attention points; {} for recipes without TMA."""
    nets = _nets(trained)
    if not nets or not cohort.studies(split):
        return {}
    pointing = read_pointing(trained, cohort, nets[0], split=split)
    return read_meters(trained, cohort, split=split) | pointing


def _nets(trained: Trained) -> list[TMANet]:
    return [module for module in trained.objectives.values() if isinstance(module, TMANet)]


def read_meters(trained: Trained, cohort: Cohort, *, split: str = "dev") -> dict[str, Any]:
    """Read TMA's meters on a held-out split; {} for recipes without TMA or too few studies."""
    nets = _nets(trained)
    if not nets or len(cohort.studies(split)) <= meters.SHIFT:
        return {}
    readings = meters.measure(nets[0], _held_out(trained, cohort, split), tau=nets[0].config.tau)
    gauges: dict[str, Any] = {
        name: getattr(readings, name)
        for name in (
            "n",
            "agreement",
            "text_only",
            "leak",
            "image_only",
            "text_dominance",
            "text_use",
            "attention_tv",
            "entropy",
            "used_prototypes",
            "effective_rank",
        )
    }
    finite = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in gauges.items()}
    verdicts = {f"{name}_verdict": verdict for name, verdict in readings.verdicts.items()}
    return finite | verdicts


def read_pointing(
    trained: Trained, cohort: Cohort, net: TMANet, *, split: str = "dev"
) -> dict[str, Any]:
    """Read how often a sentence's attention peaks inside the finding it speaks of.

    Focal findings of a split whose cohort holds lesion masks and sentence positions; {} where
    there are none. Chance is the mean share of places that touch the finding.
    """
    pairs = _pointing_pairs(trained, cohort, split)
    if not pairs:
        return {}
    attention, inside = [], []
    for start in range(0, len(pairs), DEV_BATCH):
        looked, masked = _look(trained, cohort, net, pairs[start : start + DEV_BATCH])
        attention.append(looked)
        inside.append(masked)
    hit, chance, verdict = meters.pointing(torch.cat(attention), torch.cat(inside))
    return {
        "pointing": hit,
        "pointing_chance": chance,
        "pointing_n": len(pairs),
        "pointing_verdict": verdict,
    }


def chance_loss(objective: Objective, trained: Trained, cohort: Cohort, batch_size: int) -> float:
    """Give the loss of a model that knows nothing but prevalences; NaN where there is none.

    Contrast among N candidates: log N. TMA: log of its prototypes. Report terms: the entropy
    of their prevalences, weighed and scaled as the loss is. Classification: the entropy of the
    training prevalences, mean over findings.
    """
    if isinstance(objective, Contrast):
        return math.log(batch_size * (1 + objective.queue))
    if isinstance(objective, SentenceMatch | TextWarmup):
        return math.log(batch_size)
    if isinstance(objective, TMA):
        return math.log(objective.prototypes)
    if isinstance(objective, ReportTerms):
        table = trained.fitted.terms
        assert table is not None
        entropy = _entropy(np.asarray(table.prevalence, dtype=np.float64))
        return float((entropy * np.asarray(table.weight)).sum() / LOSS_SCALE)
    if isinstance(objective, Classify):
        labels = read_corpus(cohort, "train", with_reports=False).labels
        stated = np.ma.masked_less(labels, 0).mean(axis=0).filled(0.0)
        return float(_entropy(np.asarray(stated, dtype=np.float64)).mean())
    return math.nan


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of yes / no with prevalence p, in nats."""
    inside = np.clip(p, 1e-12, 1 - 1e-12)
    entropy: NDArray[np.float64] = -(inside * np.log(inside) + (1 - inside) * np.log(1 - inside))
    return entropy


@torch.no_grad()
def _held_out(trained: Trained, cohort: Cohort, split: str) -> Iterator[tuple[Batch, Encoded]]:
    """Encode every study of a split once, on the crops of the recipe's last stage."""
    recipe, fitted = trained.recipe, trained.fitted
    corpus = read_corpus(cohort, split, with_reports=True, members=trained.recipe.members)
    number = len(recipe.stages) - 1
    loader = Loader(
        recipe=recipe,
        stage=number,
        corpus=corpus,
        fitted=fitted,
        grids=open_grids(recipe, cohort, fitted),
        reader=text_reader(recipe, fitted, trained.folder),
        augmented=False,
    )
    needs = recipe.stages[number].needs
    for start in range(0, len(corpus), DEV_BATCH):
        rows = np.arange(start, min(start + DEV_BATCH, len(corpus)))
        batch = to_device(loader.batch_of(rows, step=0), trained.model.device)
        yield batch, trained.model(batch, needs.views, needs.texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A sentence and the volume that shows what it says."""

    volume_id: str
    sentence: str
    code: int  # of the finding in the lesion mask


def _pointing_pairs(trained: Trained, cohort: Cohort, split: str) -> list[_Pair]:
    pairs = []
    name = trained.recipe.preparation.name
    for row in cohort.studies(split):
        report = cohort.report(row.study_id)
        if report is None or not row.volume_ids:
            continue
        lesion = cohort.mask(row.volume_ids[0], LESION, name)
        if lesion is None:
            continue
        present = set(np.unique(lesion).tolist())
        for told in cohort.sentences(row.study_id):
            if told.section == "findings" and told.finding in FOCAL:
                code = CT_RATE_18.index(told.finding) + 1
                if code in present:
                    text = report.findings[told.start : told.end]
                    pairs.append(_Pair(volume_id=row.volume_ids[0], sentence=text, code=code))
    return pairs


@torch.no_grad()
def _look(
    trained: Trained, cohort: Cohort, net: TMANet, pairs: Sequence[_Pair]
) -> tuple[Tensor, Tensor]:
    """Attention of each sentence on its whole volume, and the places inside its finding."""
    config = net.config
    grids = open_grids(trained.recipe, cohort, trained.fitted)
    block = whole([pair.volume_id for pair in pairs], grids)
    reader = text_reader(trained.recipe, trained.fitted, trained.folder)
    texts = reader([((pair.sentence,), ()) for pair in pairs])
    batch = Batch(views={config.views: block}, texts={config.text: texts})
    batch = to_device(batch, trained.model.device)
    encoded = trained.model(batch, (config.views,), (config.text,))
    tokens, _ = net.tokens(batch, encoded)
    sentences, _ = net.sentences(batch, encoded)
    name = trained.recipe.preparation.name
    lesions = [cohort.mask(pair.volume_id, LESION, name) for pair in pairs]
    masks = np.stack([lesion == pair.code for lesion, pair in zip(lesions, pairs, strict=True)])
    size = encoded.images[config.views].grid.shape[-3:]
    places = meters.mask_on_places(torch.from_numpy(masks), (size[0], size[1], size[2]))
    return net.attention(tokens[:, 0], sentences[:, 0]).cpu(), places
