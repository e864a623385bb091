"""Macro-actions: several action blocks as one vector, and where each of them leads."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from smwm_ros.models.dynamics import ResidualMLP
from smwm_ros.models.layers import perceptron

PERCENTILES = (0.01, 0.99)
"""Between which, in each dimension, the macro-actions of the bank lie."""
SURPLUS = 4
"""Times as many macro-actions as the bank takes are to be offered to it: some lie beyond the percentiles."""


class MacroActions(nn.Module):
    """
    m = e(a_t, …, a_{t+n-1}) and ẑ_{t+n} = G(z_t, m), with n from 1 to N  (HWM, arXiv 2604.03208).

    The encoder is told n, so that m carries the duration, too. The bank holds macro-actions of the training
    data: a search that keeps near them imagines nothing that no sequence of actions encodes to
    (arXiv 2607.12547).
    """

    bank: Tensor
    """Macro-actions of the training data, shape (K, M)."""
    lengths: Tensor
    """n of each, shape (K,)."""
    blocks: Tensor
    """The standardised action blocks of each, zero from its n-th on, shape (K, N, k*A)."""
    low: Tensor
    """Lowest value of each dimension that a search may use, shape (M,)."""
    high: Tensor

    def __init__(
        self,
        *,
        latent: int,
        block: int,
        size: int = 8,
        longest: int = 8,
        hidden: int = 256,
        layers: int = 2,
        bank: int = 4096,
    ) -> None:
        """
        Build the layers, and an empty bank.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            size: M, numbers in a macro-action.
            longest: N, most model steps in one.
            hidden: width of the hidden layers.
            layers: number of hidden layers.
            bank: K, macro-actions kept.
        """
        super().__init__()
        self.size, self.longest = size, longest
        self.encoder = perceptron(longest * (block + 1), hidden, layers, size)
        self.predictor = ResidualMLP(latent=latent, block=size, hidden=hidden, layers=layers)
        self.register_buffer("bank", torch.zeros(bank, size))
        self.register_buffer("lengths", torch.ones(bank, dtype=torch.int64))
        self.register_buffer("blocks", torch.zeros(bank, longest, block))
        self.register_buffer("low", torch.zeros(size))
        self.register_buffer("high", torch.zeros(size))

    def encode(
        self, blocks: Float[Tensor, "*batch longest block"], lengths: Int[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch size"]:
        """
        Encode the first ``lengths`` of the standardised action blocks; those after them do not count.

        Args:
            blocks: N of them.
            lengths: n, from 1 to N.
        """
        steps = torch.arange(self.longest, device=blocks.device)
        used = steps < lengths[..., None]
        last = (steps == lengths[..., None] - 1).to(blocks.dtype)
        return self.encoder(torch.cat([torch.where(used[..., None], blocks, 0.0).flatten(-2), last], dim=-1))

    def forward(
        self, latent: Float[Tensor, "*batch latent"], macro: Float[Tensor, "*batch size"]
    ) -> Float[Tensor, "*batch latent"]:
        """Predict the latent at the end of a macro-action."""
        predicted: Tensor = self.predictor(latent, macro)
        return predicted

    def rollout(
        self, latent: Float[Tensor, "*batch latent"], macros: Float[Tensor, "*batch time size"]
    ) -> Float[Tensor, "*batch time latent"]:
        """Predict the latents at the ends of macro-actions that follow one another."""
        waypoints = []
        for macro in macros.unbind(-2):
            latent = self(latent, macro)
            waypoints.append(latent)
        return torch.stack(waypoints, dim=-2)

    @torch.no_grad()
    def fill(self, blocks: Float[Tensor, "offered longest block"], lengths: Int[Tensor, " offered"]) -> None:
        """
        Fill the bank with the first macro-actions that lie within the percentiles of all that are offered.

        Args:
            blocks: standardised; ``SURPLUS`` times as many as the bank takes.
            lengths: n of each.
        """
        macros = self.encode(blocks, lengths)
        bounds = torch.quantile(macros, macros.new_tensor(PERCENTILES), dim=0)
        inside = ((macros >= bounds[0]) & (macros <= bounds[1])).all(-1).nonzero()[: len(self.bank), 0]
        # Where fewer are inside than the bank takes, they are taken again.
        chosen = inside[torch.arange(len(self.bank), device=inside.device) % len(inside)]
        used = torch.arange(self.longest, device=blocks.device) < lengths[:, None]
        for buffer, values in (
            (self.bank, macros[chosen]),
            (self.lengths, lengths[chosen]),
            (self.blocks, torch.where(used[..., None], blocks, 0.0)[chosen]),
            (self.low, bounds[0]),
            (self.high, bounds[1]),
        ):
            buffer.copy_(values)
