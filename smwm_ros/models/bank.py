"""A bank of action sequences out of the training data, found again by where they led from and to."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ActionBank(nn.Module):
    """N sequences of H action blocks, with the latents before and after each; nothing in it is learned."""

    starts: Tensor
    ends: Tensor
    blocks: Tensor

    def __init__(self, *, latent: int, block: int, size: int = 1024, horizon: int = 8) -> None:
        """
        Make an empty bank.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            size: N, sequences.
            horizon: H, model steps of each.
        """
        super().__init__()
        self.horizon = horizon
        self.register_buffer("starts", torch.zeros(size, latent))
        self.register_buffer("ends", torch.zeros(size, latent))
        self.register_buffer("blocks", torch.zeros(size, horizon, block))

    def nearest(
        self, start: Float[Tensor, "problems latent"], goal: Float[Tensor, "problems latent"], count: int
    ) -> Float[Tensor, "problems count time block"]:
        """Return the sequences that began and ended nearest to a start and a goal, nearest first."""
        away = torch.cdist(start, self.starts).square() + torch.cdist(goal, self.ends).square()
        return self.blocks[away.topk(count, dim=1, largest=False, sorted=True).indices]
