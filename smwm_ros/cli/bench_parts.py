"""What the benches of planning share: latents to plan from, times, and the least that arithmetic takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from smwm_ros.evaluation.episodes import explore_episodes
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.world_model import WorldModel
from smwm_ros.tasks import make_task

EPISODE = 25
"""Ticks of an episode that latents are taken from."""
LARGEST = 4096
"""Side of the largest product that is measured; the time of a larger one is reckoned from it."""


def explored_latents(checkpoint: Checkpoint, count: int, seed: int) -> NDArray[np.float32]:
    """Encode pictures of the exploration in random order: latents of the robot, shape (count, D)."""
    with make_task(checkpoint.contract) as task:
        episodes = explore_episodes(task, -(-count // EPISODE), EPISODE, seed)
    rows = np.random.default_rng([seed, 3]).permutation(len(episodes.pixels))[:count]
    return np.stack([checkpoint.encode(shown) for shown in episodes.observations(rows, checkpoint.frames)])


@torch.inference_mode()
def transition_flops(model: WorldModel, block: int) -> int:
    """
    Count the floating-point operations of one predicted transition: those of its matrix products.

    Args:
        model: whose forward model it is.
        block: k*A, numbers in an action block.
    """
    device = model.action_mean.device
    with FlopCounterMode(display=False) as counter:
        model.dynamics(torch.zeros(1, model.latent_size, device=device), torch.zeros(1, block, device=device))
    return counter.get_total_flops()


def product_seconds(
    flops: float, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, repeats: int = 3
) -> float:
    """Time one matrix product of so many floating-point operations: what a predictor could reach."""
    side = max(1, min(LARGEST, round((flops / 2) ** (1 / 3))))
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(first)
    seconds = []
    for _ in range(repeats + 1):
        began = now(device)
        torch.mm(first, second, out=result)
        seconds.append(now(device) - began)
    return statistics.median(seconds[1:]) * flops / (2 * side**3)


def now(device: torch.device | str = "cpu") -> float:
    """Return the time in seconds at which everything on a device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def times(name: str, seconds: Sequence[float] | NDArray[np.float64]) -> dict[str, Any]:
    """Return median and quartiles of times, in milliseconds."""
    low, middle, high = (1e3 * np.quantile(np.asarray(seconds), [0.25, 0.5, 0.75])).tolist()
    return {name: round(middle, 3), f"{name}_quartiles": [round(low, 3), round(high, 3)]}
