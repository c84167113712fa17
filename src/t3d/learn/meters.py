"""Meters of an agreement objective: does it look at the image, and does it use the text?

A falling agreement loss proves nothing, because two views of one study share the report. The
meters swap reports and images between held-out studies and see what the vectors follow.

Legend: n held-out studies, V views, P places, D width, S sentences, C features, Z size of an
agreement vector. "Other" is always the study seven rows further (a fixed derangement).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from t3d.errors import ProtocolError
from t3d.model.tensors import Batch, Encoded

SHIFT = 7  # rows; the derangement
MIN_STUDIES = 256
MIN_AGREEMENT = 5  # times chance; below it a leak is the ratio of two noises
LEAK_PASS, LEAK_STOP = 0.1, 0.3
IMAGE_ONLY_PASS = 0.5
DOMINANCE_PASS = 0.1
TV_WARN = 0.05
ENTROPY_PASS = 0.7  # share of log(prototypes)
POINTING_PASS = 3.0  # times chance
CHUNK = 64  # studies embedded at a time

PASS, FAIL, STOP, UNMEASURABLE = "pass", "fail", "stop", "not measurable"


class AgreementModule(Protocol):
    """What is metered: an objective whose vectors agree between views (`TMANet`)."""

    PAIRS: ClassVar[tuple[tuple[str, str], ...]]
    training: bool

    def tokens(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """(B, V, P, D) and (B, V, P) or None."""
        ...

    def sentences(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """(B, S, C) and (B, S)."""
        ...

    def encode_image(self, tokens_BVPD: Tensor, place_BVP: Tensor | None = None) -> Tensor:
        """(B, V, Z) without text."""
        ...

    def embed_with_text(
        self,
        tokens_BVPD: Tensor,
        text_BSC: Tensor,
        mask_BS: Tensor,
        place_BVP: Tensor | None = None,
    ) -> Tensor:
        """(B, V, Z) with text."""
        ...

    def attention(self, tokens_BPD: Tensor, sentence_BC: Tensor) -> Tensor:
        """(B, P) where one sentence looks."""
        ...

    def scores(self, z: Tensor) -> Tensor:
        """(..., prototypes)."""
        ...

    def train(self, mode: bool = True) -> object:
        """Switch batch norm and the like."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Meters:
    """Readings on held-out studies; nan where a reading has no meaning."""

    n: int  # studies
    agreement: float  # top-1, own image and own text, against the other view
    text_only: float  # top-1, another study's image, own text
    leak: float  # 0 = none, 1 = the text alone solves the task
    image_only: float  # top-1 with the null token / agreement
    text_dominance: float  # top-1 of the target with another image against the own
    text_use: float  # 1 - mean cosine of own and other text on one image
    attention_tv: float  # total variation between two sentences on one image
    entropy: float  # of the mean assignment, share of log(prototypes)
    used_prototypes: int  # with more than a tenth of an even share
    effective_rank: float  # exp entropy of the spectrum of centred text-free vectors
    verdicts: Mapping[str, str] = field(default_factory=dict)  # meter -> pass, fail, stop, ...

    @property
    def must_stop(self) -> bool:
        """Whether the run has to end: the report alone solves the loss."""
        return STOP in self.verdicts.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What the meters need of the held-out studies, in one piece."""

    tokens: Tensor  # (n, 2, P, D)
    place: Tensor | None  # (n, 2, P)
    text: Tensor  # (n, S, C)
    mask: Tensor  # (n, S)


@torch.no_grad()
def measure(
    module: AgreementModule, held_out: Iterable[tuple[Batch, Encoded]], *, tau: float = 0.1
) -> Meters:
    """Read all meters.

    Args:
        module: Left in the mode it came in; measured in evaluation mode.
        held_out: Batches of studies that no training step saw, each study once, encoded in
            evaluation mode, always in the same order.
        tau: Temperature of the prototype probabilities.

    Raises:
        ProtocolError: Fewer than 8 studies, so that the derangement is none.

    Source:
        Ours (docs/concepts/tma.md). Averages over both directions between the first two views.
    """
    was_training = module.training
    module.train(False)
    try:
        data = _collect(module, held_out)
        if len(data.tokens) <= SHIFT:
            raise ProtocolError(
                f"{len(data.tokens)} held-out studies",
                expected=f"{MIN_STUDIES} (more than {SHIFT} at the least)",
                fix="meter on a larger dev split",
            )
        return _readings(module, data, tau)
    finally:
        module.train(was_training)


def leak(text_only: float, agreement: float, n: int) -> float:
    """Share of the agreement that the text alone gives, chance taken off both.

    Formula: max(0, text_only - 1/n) / max(agreement - 1/n, 1/n).
    Check: n = 4, text_only .5, agreement .75 -> .25 / .5 = .5; text_only below chance -> 0.
    """
    return max(0.0, text_only - 1 / n) / max(agreement - 1 / n, 1 / n)


def top1(query_NC: Tensor, target_NC: Tensor) -> float:
    """Share of rows whose most similar target is their own row; a tie goes to the first."""
    best_N = (query_NC @ target_NC.T).argmax(dim=1)
    right_N = best_N == torch.arange(len(query_NC), device=query_NC.device)
    return float(right_N.double().mean())


def effective_rank(z_NC: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values of the centred rows.

    Check: rows (1,0), (-1,0), (0,1), (0,-1) -> 2; all rows on one line -> 1.
    Source: Roy and Vetterli, 2007; centring is ours (a common offset is no direction).
    """
    values = torch.linalg.svdvals(z_NC.double() - z_NC.double().mean(dim=0))
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.special.entr(share).sum().exp())


def pointing(attention_SP: Tensor, mask_SP: Tensor) -> tuple[float, float, str]:
    """How often a sentence's attention peaks on what it speaks of.

    Args:
        attention_SP: (S, P) attention of positive sentences of focal findings.
        mask_SP: (S, P) bool, places that touch the finding (`mask_on_places`).

    Returns:
        Share of peaks inside, chance (mean share of places inside) and the verdict: "pass"
        above three times chance.
    """
    peak_S = attention_SP.argmax(dim=1, keepdim=True)
    hit = float(mask_SP.gather(1, peak_S).double().mean())
    chance = float(mask_SP.double().mean())
    return hit, chance, PASS if hit > POINTING_PASS * chance else FAIL


def mask_on_places(mask_SZYX: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Voxel masks (S, Z, Y, X) as places (S, P): True where a cell touches the mask."""
    pooled = F.adaptive_max_pool3d(mask_SZYX[:, None].float(), size)
    return pooled.flatten(1) > 0


def _collect(module: AgreementModule, held_out: Iterable[tuple[Batch, Encoded]]) -> HeldOut:
    """Tokens and sentences of all batches, padded to the longest report."""
    tokens, place, text, mask = [], [], [], []
    for batch, encoded in held_out:
        tokens_BVPD, place_BVP = module.tokens(batch, encoded)
        tokens.append(tokens_BVPD[:, :2])
        whole_BVP = torch.ones(tokens_BVPD.shape[:3], dtype=torch.bool, device=tokens_BVPD.device)
        place.append((whole_BVP if place_BVP is None else place_BVP)[:, :2])
        text_BSC, mask_BS = module.sentences(batch, encoded)
        text.append(text_BSC)
        mask.append(mask_BS)
    if not tokens:
        raise ProtocolError(
            "no held-out studies", expected=f"{MIN_STUDIES}", fix="give the meters a dev split"
        )
    longest = max(entry.shape[1] for entry in mask)
    return HeldOut(
        tokens=torch.cat(tokens),
        place=torch.cat(place) if not all(bool(entry.all()) for entry in place) else None,
        text=torch.cat([F.pad(entry, (0, 0, 0, longest - entry.shape[1])) for entry in text]),
        mask=torch.cat([F.pad(entry, (0, longest - entry.shape[1])) for entry in mask]),
    )


def _readings(module: AgreementModule, data: HeldOut, tau: float) -> Meters:
    """All values and verdicts."""
    n = len(data.tokens)
    other = torch.arange(n).roll(SHIFT)
    free = _in_chunks(module, data, None, image=None)
    own = _in_chunks(module, data, data.mask, image=None)
    other_image = _in_chunks(module, data, data.mask, image=other)
    other_text = _with_other_text(module, data, other)
    null = _in_chunks(module, data, torch.zeros_like(data.mask), image=None)
    sides = {"free": free, "text": own, "drop": own}
    # The leak is read on the pair whose student has seen text; the worst one counts.
    targets = [sides[target] for student, target in module.PAIRS if student != "free"]
    agreement, text_only, null_only = max(
        ((_cross(own, t), _cross(other_image, t), _cross(null, t)) for t in targets),
        key=lambda row: leak(row[1], row[0], n),
        default=(0.0, 0.0, 0.0),
    )
    dominance = sum(top1(other_image[:, v], own[:, v]) for v in (0, 1)) / 2
    text_use = 1 - float((own * other_text).sum(dim=-1).mean())
    prototypes = _prototype_use(module.scores(free) / tau)
    values = {
        "leak": leak(text_only, agreement, n),
        "image_only": null_only / agreement if agreement else math.nan,
        "text_dominance": dominance,
        "attention_tv": _attention_tv(module, data),
        "entropy": prototypes[0],
    }
    verdicts = _verdicts(values, agreement, n)
    if verdicts["leak"].startswith(UNMEASURABLE):
        values["leak"] = values["image_only"] = math.nan
    return Meters(
        n=n,
        agreement=agreement,
        text_only=text_only,
        text_use=text_use,
        used_prototypes=prototypes[1],
        effective_rank=effective_rank(free.flatten(0, 1)),
        verdicts=verdicts,
        **values,
    )


def _verdicts(values: Mapping[str, float], agreement: float, n: int) -> dict[str, str]:
    """Gate by gate; a reading that noise could have made is called not measurable."""
    few = f"{UNMEASURABLE}: {n} studies, needs {MIN_STUDIES}" if n < MIN_STUDIES else ""
    weak = (
        f"{UNMEASURABLE}: agreement {agreement:.4f} is below {MIN_AGREEMENT} x chance"
        if agreement < MIN_AGREEMENT / n
        else ""
    )
    tv = values["attention_tv"]
    gates: dict[str, Callable[[], str]] = {
        "leak": lambda: _leak_verdict(values["leak"]),
        "image_only": lambda: PASS if values["image_only"] >= IMAGE_ONLY_PASS else FAIL,
        "text_dominance": lambda: PASS if values["text_dominance"] <= DOMINANCE_PASS else FAIL,
        "entropy": lambda: PASS if values["entropy"] > ENTROPY_PASS else FAIL,
    }
    blocked = {"leak": few or weak, "image_only": few or weak, "text_dominance": few}
    verdicts = {name: blocked.get(name) or gate() for name, gate in gates.items()}
    if math.isnan(tv):
        return verdicts | {"text_use": f"{UNMEASURABLE}: no report of two sentences"}
    return verdicts | {"text_use": "text is not used" if tv < TV_WARN else PASS}


def _leak_verdict(value: float) -> str:
    if value > LEAK_STOP:
        return STOP
    return PASS if value <= LEAK_PASS else FAIL


def _cross(query_NVZ: Tensor, target_NVZ: Tensor) -> float:
    """Mean top-1 of both directions between the two views."""
    return (top1(query_NVZ[:, 0], target_NVZ[:, 1]) + top1(query_NVZ[:, 1], target_NVZ[:, 0])) / 2


def _in_chunks(
    module: AgreementModule, data: HeldOut, mask_NS: Tensor | None, *, image: Tensor | None
) -> Tensor:
    """Agreement vectors (n, 2, Z); no mask = the text-free way, `image` = whose tokens."""
    out = []
    for rows in torch.split(torch.arange(len(data.tokens)), CHUNK):
        from_rows = rows if image is None else image[rows]
        tokens = data.tokens[from_rows]
        place = None if data.place is None else data.place[from_rows]
        if mask_NS is None:
            out.append(module.encode_image(tokens, place))
        else:
            out.append(module.embed_with_text(tokens, data.text[rows], mask_NS[rows], place))
    return torch.cat(out)


def _with_other_text(module: AgreementModule, data: HeldOut, other: Tensor) -> Tensor:
    """Agreement vectors (n, 2, Z) of the own image with the other study's report."""
    swapped = HeldOut(
        tokens=data.tokens, place=data.place, text=data.text[other], mask=data.mask[other]
    )
    return _in_chunks(module, swapped, swapped.mask, image=None)


def _attention_tv(module: AgreementModule, data: HeldOut) -> float:
    """Mean total variation between the attention of a report's first and last sentence."""
    rows = (data.mask.sum(dim=1) >= 2).nonzero()[:, 0]
    if not len(rows):
        return math.nan
    number = torch.arange(data.mask.shape[1], device=data.mask.device)
    first = torch.where(data.mask, number, len(number)).amin(dim=1)
    last = torch.where(data.mask, number, -1).amax(dim=1)
    total = 0.0
    for part in torch.split(rows, CHUNK):
        tokens = data.tokens[part, 0]
        one = module.attention(tokens, data.text[part, first[part]])
        two = module.attention(tokens, data.text[part, last[part]])
        total += float((one - two).abs().sum(dim=1).double().sum()) / 2
    return total / len(rows)


def _prototype_use(logits: Tensor) -> tuple[float, int]:
    """Entropy of the mean assignment as a share of its maximum, and prototypes in use."""
    mean = logits.flatten(0, -2).double().softmax(dim=-1).mean(dim=0)
    count = len(mean)
    if count < 2:
        return math.nan, count
    entropy = float(torch.special.entr(mean).sum()) / math.log(count)
    return entropy, int((mean > 1 / (10 * count)).sum())
