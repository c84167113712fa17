"""Where a run computes, and which number format is fast there."""

from __future__ import annotations

import time

import torch
from torch import nn

PROBE_RUNS = 3


def resolve_precision(asked: str) -> str:
    """Turn "auto" into "bf16" where a small convolution is faster in it, else "fp32".

    A processor without bf16 instructions emulates them: 20 times slower was measured.
    """
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not cpu_has_bf16():
        return "fp32"
    conv: nn.Module = nn.Conv3d(32, 32, 3, padding=1)
    conv = conv.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x = torch.zeros(4, 32, 8, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    return "bf16" if _seconds(conv, x, bf16=True) < _seconds(conv, x, bf16=False) else "fp32"


def pick_device() -> torch.device:
    """Take the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cpu_has_bf16() -> bool:
    """Say whether the processor has bf16 instructions, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return "bf16" in file.read()
    except OSError:
        return False


def _seconds(conv: nn.Module, x: torch.Tensor, *, bf16: bool) -> float:
    best = float("inf")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for _ in range(PROBE_RUNS):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                conv(x)
            best = min(best, time.perf_counter() - start)
    return best
