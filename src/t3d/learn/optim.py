"""AdamW groups and the rate of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from t3d.learn.recipe import Optim

SIDES = ("image", "text", "objectives")


def make_optimiser(
    modules: Mapping[str, nn.Module], optim: Optim, *, by_layer: bool = False
) -> torch.optim.AdamW:
    """Make AdamW with two groups a side or layer: decayed matrices and undecayed vectors.

    Args:
        modules: "image", "text" (lists: an encoder, then its head), "objectives"; a side that is
            absent has no group.
        optim: Settings of the first stage; rates and decay are set anew at every step.
        by_layer: Groups for every layer of the encoders, for layer-wise rates.
    """
    groups = []
    for side in SIDES:
        if side not in modules:
            continue
        for above, params in _by_height(side, modules[side], by_layer=by_layer):
            for decayed in (True, False):
                chosen = [p for p in params if (p.ndim > 1) == decayed]
                if chosen:
                    told = {"side": side, "above": above, "decayed": decayed}
                    groups.append({"params": chosen, **told})
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)


def layers_of(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """Group an encoder's parameters into layers, the input's first.

    Layers are taken in the order in which the encoder registers its parts: a part is a layer; a
    list of modules, and a part that holds one, are entered instead. A part without a matrix (a
    norm) belongs to the layer before it. What lies directly in an encoder belongs to the first.
    So `statstem` has 5 layers, `resnet` its stem and 4 stages, a BERT its embeddings and blocks.

    Args:
        encoder: Image or text encoder.

    Returns:
        Every parameter once.
    """
    layers: list[list[nn.Parameter]] = []
    for part in encoder.children():
        if any(isinstance(module, nn.ModuleList) for module in part.modules()):
            layers += layers_of(part)
            continue
        params = list(part.parameters())
        if layers and all(p.ndim < 2 for p in params):
            layers[-1] += params
        elif params:
            layers.append(params)
    own = list(encoder.parameters(recurse=False))
    if own:
        layers[:1] = [own + (layers[0] if layers else [])]
    return layers


def _by_height(
    side: str, module: nn.Module, *, by_layer: bool
) -> list[tuple[int, list[nn.Parameter]]]:
    """Parameters with the number of layers from the head down to theirs; 0 = no encoder's."""
    if not by_layer or side == "objectives":
        return [(0, list(module.parameters()))]
    encoder, *heads = module.children()
    layers = layers_of(encoder)
    rows = [(len(layers) - i, params) for i, params in enumerate(layers)]
    return [*rows, (0, [p for head in heads for p in head.parameters()])]


def set_rates(optimiser: torch.optim.Optimizer, optim: Optim, step: int, num_steps: int) -> float:
    """Set every group's rate and decay for a step of a stage; give the unscaled rate."""
    rate = optim.lr * schedule(step, num_steps, optim.warmup)
    for group in optimiser.param_groups:
        scale = optim.image_lr_scale if group["side"] == "image" else 1.0
        group["lr"] = rate * scale * optim.layer_decay ** group["above"]
        group["weight_decay"] = optim.weight_decay if group["decayed"] else 0.0
        group["betas"] = optim.betas
    return rate


def schedule(step: int, num_steps: int, warmup: float) -> float:
    """Give the factor of the rate at a step counted from 0.

    Linear from 1/w to 1 over w = warmup x steps, then half a cosine towards 0.
    Check: 10 steps, warmup .2: 0.5, 1, then cos^2 falls to (1 + cos(7 pi / 8)) / 2 = 0.038.
    """
    warm = max(1, round(warmup * num_steps))
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1, num_steps - warm)
    return 0.5 * (1.0 + math.cos(math.pi * share))


def state_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Give the optimiser's state as flat names, `group.index.moment`."""
    tensors: dict[str, Tensor] = {}
    for number, group in enumerate(optimiser.param_groups):
        for index, param in enumerate(group["params"]):
            for name, value in optimiser.state.get(param, {}).items():
                tensors[f"optim.{number}.{index}.{name}"] = torch.as_tensor(value)
    return tensors


def load_state_tensors(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a state from `state_tensors` back."""
    for name, value in tensors.items():
        if not name.startswith("optim."):
            continue
        _, number, index, moment = name.split(".")
        param = optimiser.param_groups[int(number)]["params"][int(index)]
        optimiser.state[param][moment] = value.clone()
