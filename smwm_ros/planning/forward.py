"""How the forward model runs in a search: in which arithmetic, and as a graph of the GPU or not."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.models.adaln import SingleKeyAttention
from smwm_ros.models.world_model import WorldModel

Rollout = Callable[[Tensor, Tensor], Tensor]
"""From latents (*batch, D) and standardised blocks (*batch, H, k*A) to the latents after each block."""

_log = logging.getLogger(__name__)


def forward(model: WorldModel, *, half: bool = False, compiled: bool = False) -> Rollout:
    """
    Return how a model is rolled out.

    Args:
        model: stays as it is.
        half: compute in bfloat16.
        compiled: run as a CUDA graph, on CUDA devices.
    """
    rollout: Rollout = _Half(model.dynamics) if half else model.rollout
    if not compiled:
        return rollout
    if model.action_mean.device.type != "cuda":
        _log.warning("compiled: is for CUDA only; on a CPU the forward model runs as it is")
        return rollout
    return _Compiled(rollout)


class _Half:
    """
    Transitions in bfloat16, with float32 between them.

    The weights are copies, converted once. What is predicted comes out in float32, and so distances and
    costs are computed in it.
    """

    def __init__(self, dynamics: nn.Module) -> None:
        self._dynamics = copy.deepcopy(dynamics).to(torch.bfloat16)
        for module in self._dynamics.modules():
            if isinstance(module, SingleKeyAttention) and module.folded is not None:
                module.folded = module.folded.to(torch.bfloat16)

    def __call__(
        self, latent: Float[Tensor, "*batch latent"], blocks: Float[Tensor, "*batch time block"]
    ) -> Float[Tensor, "*batch time latent"]:
        futures = []
        for block in blocks.to(torch.bfloat16).unbind(-2):
            latent = self._dynamics(latent.to(torch.bfloat16), block).to(blocks.dtype)
            futures.append(latent)
        return torch.stack(futures, dim=-2)


class _Compiled:
    """
    A rollout as a CUDA graph for each number of candidates, so that launching kernels takes no time.

    Where compiling fails (no compiler, an operation that it does not know), the rollout goes on as it is.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._plain = rollout
        self._rollout: Rollout = torch.compile(rollout, mode="reduce-overhead", dynamic=False)

    def __call__(self, latent: Tensor, blocks: Tensor) -> Tensor:
        try:
            # The graph's output is overwritten when it runs again.
            return self._rollout(latent.contiguous(), blocks).clone()
        except Exception as error:  # torch raises of many kinds
            if self._rollout is self._plain:
                raise
            _log.warning("compiling the forward model failed, it runs as it is: %r", error)
            self._rollout = self._plain
            return self._plain(latent, blocks)
