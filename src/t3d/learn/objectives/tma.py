"""Text-informed Multi-view Alignment: crops of one volume agree on prototypes, text may steer.

A re-implementation from the abstract of T3D v3: what is stated there is that volumetric data
are clustered, that views of one volume-report pair are made consistent and that text features
enter the fine-grained visual representation. How, is our choice (`docs/concepts/tma.md`).

The danger of this family is a leak: fuse the same report into both views and the loss is solved
by reading the report twice. So one side of each pair is always free of text (`PAIRS`), text
chooses where to look and never enters what is seen, and `learn/meters.py` watches.

Legend: B studies, V views, P places (tokens of a view), S sentences, K queries, C features of an
encoder, D width, Z size of an agreement vector.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from t3d.errors import RecipeError, T3DWarning
from t3d.learn.losses import sinkhorn, swapped_prediction, token_match_loss
from t3d.learn.pairing import places, sentences_by_study, valid_places
from t3d.learn.parts import Dims, Needs, Scope, Supervision
from t3d.model.tensors import Batch, Encoded, ViewBlock

NUM_TARGET_VIEWS = 2  # codes come from the first two views, as in SwAV
HIDDEN_FACTOR = 4  # D - 4 D - Z: 512 - 2048 - 128 at paper size


@dataclass(frozen=True, slots=True, kw_only=True)
class TMA:
    """Settings of the agreement term (the global contrast is another objective).

    Source:
        Every number is our choice, after SwAV (arXiv:2006.09882) and MGCA (arXiv:2210.06044);
        0 fields from the paper. Demo size: `prototypes=32`.
    """

    kind: ClassVar[str] = "tma"
    scope: ClassVar[Scope] = "batch"
    supervision: ClassVar[Supervision] = "reports"

    views: str = "crops"
    text: str = "report"
    queries: int = 8
    heads: int = 8
    dim: int = 128  # Z
    prototypes: int = 512
    tau: float = 0.1
    eps: float = 0.05
    sinkhorn_steps: int = 3
    text_drop: float = 0.5  # share of studies whose student reads the null token
    freeze_steps: int = 300  # prototypes stand still for the smaller of this ...
    freeze_share: float = 0.1  # ... and this share of the stage
    queue: int = 0  # past rows of each view slot that share in a code
    queue_start_step: int = 0
    within_report: bool = False  # agreement of places inside one volume instead of prototypes

    @property
    def needs(self) -> Needs:
        """Two crops or more, the report, and numbers for the text drop."""
        return Needs(views=(self.views,), texts=(self.text,), targets=("uniform",))

    def build(self, dims: Dims) -> nn.Module:
        """Make the module.

        Raises:
            RecipeError: The shared space cannot be split into the heads.
        """
        if dims.embed % self.heads:
            raise RecipeError(
                f"tma: {self.heads} heads do not divide the shared space of {dims.embed}",
                expected="heads that divide the dim of the model's heads",
                fix="change tma.heads",
            )
        return WithinReportNet(self, dims) if self.within_report else TMANet(self, dims)


class QueryReader(nn.Module):
    """Queries that have read a report: q + MHA(q; sentences), or the null token if it has none."""

    def __init__(self, config: TMA, dims: Dims) -> None:
        super().__init__()
        self.project = nn.Linear(dims.text, dims.embed)
        self.null = nn.Parameter(torch.randn(dims.embed) * dims.embed**-0.5)
        self.read = nn.MultiheadAttention(dims.embed, config.heads, batch_first=True)

    def forward(self, query_BKD: Tensor, text_BSC: Tensor, mask_BS: Tensor) -> Tensor:
        """Give (B, K, D); a study with no sentence reads the null token, never nothing."""
        memory_BSD = self.project(text_BSC)
        null_B1D = self.null.to(memory_BSD.dtype).expand(len(memory_BSD), 1, -1)
        memory_BSD = torch.cat([null_B1D, memory_BSD], dim=1)
        used_BS = torch.cat([~mask_BS.any(dim=1, keepdim=True), mask_BS], dim=1)
        found, _ = self.read(
            query_BKD, memory_BSD, memory_BSD, key_padding_mask=~used_BS, need_weights=False
        )
        informed: Tensor = query_BKD + found
        return informed


class TokenProjection(nn.Module):
    """Grid of an image encoder to tokens of width D: 1x1x1 convolution and layer norm."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.project = nn.Linear(dims.grid, dims.embed)
        self.norm = nn.LayerNorm(dims.embed)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, V, C, z, y, x) -> (B, V, P, D)."""
        tokens: Tensor = self.norm(self.project(places(grid)))
        return tokens


class TMANet(nn.Module):
    """Agreement of views through prototypes.

    Attributes:
        PAIRS: (student, target) roles. "free" has seen no text; "drop" has read the report
            unless it was dropped; "text" has read it. No pair has text on both sides.
    """

    PAIRS: ClassVar[tuple[tuple[str, str], ...]] = (("free", "text"), ("drop", "free"))

    past: Tensor
    num_past: Tensor

    def __init__(self, config: TMA, dims: Dims) -> None:
        super().__init__()
        self.config = config
        width, hidden = dims.embed, HIDDEN_FACTOR * dims.embed
        self.to_tokens = TokenProjection(dims)
        self.reader = QueryReader(config, dims)
        self.queries = nn.Parameter(torch.randn(config.queries, width) * width**-0.5)
        self.look = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, config.dim),
        )
        self.prototypes = nn.Parameter(F.normalize(torch.randn(config.prototypes, config.dim)))
        queues = (len(self.PAIRS), NUM_TARGET_VIEWS, config.queue)
        self.register_buffer("past", torch.zeros(*queues, config.dim))
        self.register_buffer("num_past", torch.zeros(queues[:2], dtype=torch.long))
        self.step = 0
        self.frozen = False
        self.warned = False

    def before_step(self, step: int, num_steps: int) -> None:
        """Put the prototypes back on the sphere and decide whether they may move.

        Args:
            step: The coming step, counted from 0.
            num_steps: Steps of the stage.
        """
        limit = min(self.config.freeze_steps, self.config.freeze_share * num_steps)
        self.step, self.frozen = step, step < limit
        with torch.no_grad():
            self.prototypes.copy_(F.normalize(self.prototypes))

    def encode_image(self, tokens_BVPD: Tensor, place_BVP: Tensor | None = None) -> Tensor:
        """Agreement vectors (B, V, Z) for evaluation; there is no text to give."""
        query_BKD = self.queries.expand(len(tokens_BVPD), -1, -1)
        return self._agree(self._see(query_BKD, tokens_BVPD, place_BVP))

    def embed_with_text(
        self,
        tokens_BVPD: Tensor,
        text_BSC: Tensor,
        mask_BS: Tensor,
        place_BVP: Tensor | None = None,
    ) -> Tensor:
        """Agreement vectors (B, V, Z) where the report chose where to look.

        Args:
            tokens_BVPD: From `tokens`.
            text_BSC: (B, S, C) sentences, C the text encoder's channels.
            mask_BS: (B, S) bool; a study without any reads the null token.
            place_BVP: (B, V, P) bool, True = inside the scan.
        """
        query_BKD = self.queries.expand(len(tokens_BVPD), -1, -1)
        query_BKD = self.reader(query_BKD, text_BSC, mask_BS)
        return self._agree(self._see(query_BKD, tokens_BVPD, place_BVP))

    def tokens(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, V, P, D) of the views and which are inside the scan (None = all)."""
        features = encoded.images[self.config.views]
        place_BVP = valid_places(batch.views[self.config.views], features)
        tokens: Tensor = self.to_tokens(features.grid)
        return tokens, place_BVP

    def sentences(self, batch: Batch, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Sentences (B, S, C) of each study's report and which exist."""
        num_studies = len(encoded.images[self.config.views].grid)
        name = self.config.text
        return sentences_by_study(batch.texts[name], encoded.texts[name], num_studies)

    def scores(self, z: Tensor) -> Tensor:
        """Cosines (..., prototypes) in float32; while frozen no gradient moves a prototype."""
        with torch.autocast(z.device.type, enabled=False):
            prototypes = F.normalize(self.prototypes.float())
            if self.frozen:
                # Zero, not absent: distributed training wants every parameter in the graph.
                prototypes = prototypes.detach() + 0.0 * prototypes
            return z.float() @ prototypes.T

    def attention(self, tokens_BPD: Tensor, sentence_BC: Tensor) -> Tensor:
        """Where one sentence makes the queries look, (B, P): mean of heads and queries."""
        query_BKD = self.queries.expand(len(tokens_BPD), -1, -1)
        present = torch.ones(len(tokens_BPD), 1, dtype=torch.bool, device=tokens_BPD.device)
        query_BKD = self.reader(query_BKD, sentence_BC[:, None], present)
        _, weight_BKP = self.look(query_BKD, tokens_BPD, tokens_BPD, need_weights=True)
        attention: Tensor = weight_BKP.mean(dim=1)
        return attention

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Swapped prediction over all ordered pairs of views.

        Returns:
            "loss", one gauge a pair of roles, "chance" (log of the number of prototypes) and
            "entropy" (of the mean assignment, 1 = all prototypes used alike).
        """
        tokens_BVPD, place_BVP = self.tokens(batch, encoded)
        _require_two_views(tokens_BVPD)
        self._warn_if_few_rows(tokens_BVPD)
        roles = self._roles(batch, encoded, tokens_BVPD, place_BVP)
        out: dict[str, Tensor] = {}
        for number, (student, target) in enumerate(self.PAIRS):
            codes = self._codes(roles[target].detach()[:, :NUM_TARGET_VIEWS], number)
            out[f"{student}_to_{target}"] = self._predict(roles[student], codes)
        loss = torch.stack(list(out.values())).mean()
        mean_P = (self.scores(roles["free"]).detach() / self.config.tau).softmax(-1).mean((0, 1))
        entropy = torch.special.entr(mean_P).sum() / math.log(self.config.prototypes)
        chance = loss.new_tensor(math.log(self.config.prototypes))
        return {"loss": loss, **{k: v.detach() for k, v in out.items()}} | {
            "chance": chance,
            "entropy": entropy,
        }

    def _roles(
        self, batch: Batch, encoded: Encoded, tokens_BVPD: Tensor, place_BVP: Tensor | None
    ) -> dict[str, Tensor]:
        """Agreement vectors (B, V, Z) by role; batch norm sees each role by itself."""
        text_BSC, mask_BS = self.sentences(batch, encoded)
        kept_B = batch.targets["uniform"][:, 0] >= self.config.text_drop
        free = self.queries.expand(len(tokens_BVPD), -1, -1)
        drop = self.reader(free, text_BSC, mask_BS & kept_B[:, None])
        with torch.no_grad():
            text = self.reader(free, text_BSC, mask_BS)
        # Queries do not see each other, so one pass over the places serves all three roles.
        seen = self._see(torch.cat([free, drop, text], dim=1), tokens_BVPD, place_BVP)
        seen_free, seen_drop, seen_text = seen.chunk(3, dim=2)
        with torch.no_grad():
            z_text = self._agree(seen_text)
        return {"free": self._agree(seen_free), "drop": self._agree(seen_drop), "text": z_text}

    def _see(self, query_BKD: Tensor, tokens_BVPD: Tensor, place_BVP: Tensor | None) -> Tensor:
        """(B, V, K, D): what each query finds; no residual, so a query cannot be the answer."""
        num_views = tokens_BVPD.shape[1]
        query = query_BKD.repeat_interleave(num_views, dim=0)
        tokens = tokens_BVPD.flatten(0, 1)
        outside = None if place_BVP is None else ~place_BVP.flatten(0, 1)
        seen, _ = self.look(query, tokens, tokens, key_padding_mask=outside, need_weights=False)
        by_view: Tensor = seen.reshape(-1, num_views, *seen.shape[1:])
        return by_view

    def _agree(self, seen_BVKD: Tensor) -> Tensor:
        """Unit vectors (B, V, Z) from what the queries found."""
        z = F.normalize(self.head(seen_BVKD.mean(dim=2).flatten(0, 1)).float(), dim=-1)
        return z.reshape(*seen_BVKD.shape[:2], z.shape[-1])

    def _codes(self, z_BVZ: Tensor, number: int) -> list[Tensor]:
        """One code (B, prototypes) a target view, past rows taking part, no gradient."""
        codes = []
        for slot in range(NUM_TARGET_VIEWS):
            z_BZ = z_BVZ[:, slot]
            past = self.past[number, slot, : int(self.num_past[number, slot])]
            scores = self.scores(torch.cat([z_BZ, past])).detach()
            code = sinkhorn(scores, eps=self.config.eps, steps=self.config.sinkhorn_steps)
            codes.append(code[: len(z_BZ)])
            self._remember(z_BZ, number, slot)
        return codes

    @torch.no_grad()
    def _remember(self, z_BZ: Tensor, number: int, slot: int) -> None:
        """Push rows to the front of a queue, the oldest fall out."""
        if not (self.training and self.config.queue and self.step >= self.config.queue_start_step):
            return
        old = self.past[number, slot, : int(self.num_past[number, slot])]
        rows = torch.cat([z_BZ, old])[: self.config.queue]
        self.past[number, slot, : len(rows)] = rows
        self.num_past[number, slot] = len(rows)

    def _predict(self, z_BVZ: Tensor, codes: list[Tensor]) -> Tensor:
        """Mean swapped prediction of every view against the codes of the other target views."""
        terms = [
            swapped_prediction(self.scores(z_BVZ[:, a]), codes[b], tau=self.config.tau)
            for b in range(NUM_TARGET_VIEWS)
            for a in range(z_BVZ.shape[1])
            if a != b
        ]
        return torch.stack(terms).mean()

    def _warn_if_few_rows(self, tokens_BVPD: Tensor) -> None:
        """Say once that the codes cannot be balanced over so many prototypes."""
        num_studies, num_views = tokens_BVPD.shape[:2]
        ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        rows = ranks * num_views * (num_studies + self.config.queue)
        if self.training and not self.warned and self.config.prototypes > 4 * rows:
            self.warned = True
            warnings.warn(
                f"tma: {self.config.prototypes} prototypes for {rows} rows; a code spreads over "
                f"at most 4 a row. Lower tma.prototypes or set tma.queue",
                T3DWarning,
                stacklevel=2,
            )


class WithinReportNet(nn.Module):
    """Places of one crop find themselves in another crop of the same volume.

    All candidates share one report, so a predictor that reads only text scores exactly one in
    P: the leak is zero by construction.
    """

    def __init__(self, config: TMA, dims: Dims) -> None:
        super().__init__()
        self.config = config
        self.to_tokens = TokenProjection(dims)
        self.reader = QueryReader(config, dims)
        self.head = nn.Linear(dims.embed, config.dim)

    def forward(self, batch: Batch, encoded: Encoded) -> dict[str, Tensor]:
        """Cross entropy of the place in the other view that holds a token's centre.

        Returns:
            "loss", and "partners": the share of tokens that lie in the other view at all.
        """
        view = batch.views[self.config.views]
        if not isinstance(view, ViewBlock):
            raise RecipeError(
                "tma: within_report was given frozen features, which carry no boxes",
                expected="views with boxes in mm",
                fix="train the image encoder, or set within_report=False",
            )
        features = encoded.images[self.config.views]
        tokens_BVPD = self.to_tokens(features.grid)
        _require_two_views(tokens_BVPD)
        text_BSC, mask_BS = sentences_by_study(
            batch.texts[self.config.text], encoded.texts[self.config.text], len(tokens_BVPD)
        )
        kept_B = batch.targets["uniform"][:, 0] >= self.config.text_drop
        student = self._student(tokens_BVPD, text_BSC, mask_BS & kept_B[:, None])
        target = F.normalize(self.head(tokens_BVPD).float(), dim=-1).detach()
        terms, partners = [], []
        for a in range(tokens_BVPD.shape[1]):
            for b in range(NUM_TARGET_VIEWS):
                if a == b:
                    continue
                positive_BP = partner_cells(view.box_mm[:, a], view.box_mm[:, b], features.grid)
                terms.append(
                    token_match_loss(
                        student[:, a], target[:, b], tau=self.config.tau, positive_BM=positive_BP
                    )
                )
                partners.append((positive_BP >= 0).float().mean())
        return {"loss": torch.stack(terms).mean(), "partners": torch.stack(partners).mean()}

    def _student(self, tokens_BVPD: Tensor, text_BSC: Tensor, mask_BS: Tensor) -> Tensor:
        """(B, V, P, Z): every token after reading its report."""
        num_views, num_places = tokens_BVPD.shape[1:3]
        read = self.reader(tokens_BVPD.flatten(1, 2), text_BSC, mask_BS)
        z = F.normalize(self.head(read).float(), dim=-1)
        return z.reshape(-1, num_views, num_places, z.shape[-1])


def partner_cells(from_B23: Tensor, to_B23: Tensor, grid: Tensor) -> Tensor:
    """Cell of one box that holds the centre of each cell of another box.

    The nearest centre is then at most half a cell away on every axis.

    Args:
        from_B23: (B, 2, 3) low and high edges in mm, axes (z, y, x).
        to_B23: The other box, likewise.
        grid: Any tensor whose last three sizes are the cells of both boxes.

    Returns:
        (B, P) int64 cell of the other box, z slowest; -1 where the centre lies outside.
    """
    size_3 = torch.tensor(grid.shape[-3:], device=from_B23.device)
    axes = [(torch.arange(n, device=from_B23.device) + 0.5) / n for n in grid.shape[-3:]]
    share_P3 = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    low_B13, high_B13 = from_B23[:, :1].double(), from_B23[:, 1:].double()
    centre_BP3 = low_B13 + share_P3 * (high_B13 - low_B13)
    other_B13 = to_B23[:, :1].double()
    pitch_B13 = (to_B23[:, 1:].double() - other_B13) / size_3
    cell_BP3 = ((centre_BP3 - other_B13) / pitch_B13).floor().long()
    inside_BP = ((cell_BP3 >= 0) & (cell_BP3 < size_3)).all(dim=2)
    index_BP = (cell_BP3[..., 0] * size_3[1] + cell_BP3[..., 1]) * size_3[2] + cell_BP3[..., 2]
    return torch.where(inside_BP, index_BP, -1)


def _require_two_views(tokens_BVPD: Tensor) -> None:
    """Raise unless there is another view to agree with."""
    if tokens_BVPD.shape[1] < NUM_TARGET_VIEWS:
        raise RecipeError(
            f"tma: {tokens_BVPD.shape[1]} view of each study",
            expected="2 views or more",
            fix="set count=2 on the view that tma.views names",
        )


def check_tma(net: TMANet, batch: Batch, encoded: Encoded) -> None:
    """Make sure that no (student, target) pair has text on both sides.

    Measured, not read from names: each role is computed with the batch's reports and with
    other reports, and the gradient of the text-free vector is taken for every text parameter.

    Args:
        net: The module; left as it was found.
        batch: A batch of at least 2 studies with different reports.
        encoded: What the model made of it.

    Raises:
        RecipeError: A pair reads text on both sides, or text reaches the text-free vector.
    """
    tokens_BVPD, place_BVP = net.tokens(batch, encoded)
    text_BSC, mask_BS = net.sentences(batch, encoded)
    was_training = net.training
    net.eval()
    free = net.encode_image(tokens_BVPD, place_BVP)
    own = net.embed_with_text(tokens_BVPD, text_BSC, mask_BS, place_BVP)
    other = net.embed_with_text(tokens_BVPD, text_BSC.roll(1, 0), mask_BS.roll(1, 0), place_BVP)
    net.train(was_training)
    reads = {"free": False, "drop": not own.equal(other), "text": not own.equal(other)}
    both = [pair for pair in net.PAIRS if all(reads[role] for role in pair)]
    leaks = [name for name, value in _text_gradients(net, free).items() if value != 0]
    if both or leaks:
        raise RecipeError(
            f"tma: text on both sides of {both}; text parameters behind the text-free "
            f"vector: {leaks}",
            expected="one side of each pair free of text",
            fix="change TMANet.PAIRS or the way queries are made",
        )


def _text_gradients(net: TMANet, free_BVZ: Tensor) -> dict[str, float]:
    """Largest gradient of the text-free vectors for each parameter that reads text."""
    named = list(net.reader.named_parameters(prefix="reader"))
    grads = torch.autograd.grad(
        free_BVZ.square().mul(torch.arange(free_BVZ.shape[-1], device=free_BVZ.device)).sum(),
        [parameter for _, parameter in named],
        allow_unused=True,
    )
    return {
        name: 0.0 if grad is None else float(grad.abs().max())
        for (name, _), grad in zip(named, grads, strict=True)
    }
