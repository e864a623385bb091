"""What is optimised: a world model under the weighted terms of its preset."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smwm_ros.models.config import ModelConfig
from smwm_ros.models.world_model import WorldModel

MEMORY = 0.02
"""How fast the running means of the losses follow: over about 50 steps."""
RATE = 0.02
"""How fast an automatic weight moves: by at most 2 % a step."""
LIGHTEST, HEAVIEST = 1e-3, 1e3
"""Bounds of an automatic weight."""


class Learner(nn.Module):
    """
    A world model and the terms it is trained by; its parameters are those of both.

    A weight that is ``auto`` is the smallest at which its term stays within ``slack`` of the lowest
    value (a running mean) that it has had: while it does, the weight falls, and when it does not, the
    weight rises. So the other terms are minimised under the constraint that this one does not suffer
    (GECO, arXiv 1810.00597), and no weight has to be searched for each task.
    """

    log_weights: Tensor
    means: Tensor
    lowest: Tensor

    def __init__(self, model: WorldModel, config: ModelConfig) -> None:
        """
        Build the terms of a preset.

        Raises:
            ConfigError: a term does not take one of its settings, or does not fit the window.
        """
        super().__init__()
        self.model = model
        shape = {
            "latent": model.latent_size,
            "block": len(model.action_mean) * model.block,
            "window": config.window,
        }
        self.names = tuple(config.terms)
        self.terms = nn.ModuleList(term.build(name, **shape) for name, term in config.terms.items())
        self._fixed = {name: term.weight for name, term in config.terms.items() if term.weight != "auto"}
        automatic = {name: term for name, term in config.terms.items() if term.weight == "auto"}
        self._automatic = tuple(automatic)
        self._slack = tuple(term.slack for term in automatic.values())
        starts = torch.tensor([term.start for term in automatic.values()])
        self.register_buffer("log_weights", starts.log())
        self.register_buffer("means", torch.full_like(starts, torch.inf))
        self.register_buffer("lowest", torch.full_like(starts, torch.inf))

    def forward(self, frames: Tensor, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Compute the loss for a batch of windows.

        Args:
            frames: shape (B, T + 1, n, S, S, 3), uint8.
            actions: in the contract's units, shape (B, T, k, A).

        Returns:
            The loss, and each term's unweighted value.
        """
        blocks = self.model.standardise(actions)
        latents = self.model.encode(frames.flatten(0, 1)).view(*frames.shape[:2], -1).float()
        values = {
            name: term(self.model, latents, blocks) for name, term in zip(self.names, self.terms, strict=True)
        }
        loss = sum(
            (weight * values[name] for name, weight in self._fixed.items()),
            torch.zeros((), device=latents.device),
        )
        if self._automatic:
            own = torch.stack([values[name] for name in self._automatic])
            if self.training:
                self._follow(own.detach())
            loss = loss + (self.log_weights.exp() * own).sum()
        return loss, values

    @property
    def weights(self) -> dict[str, float]:
        """The automatic weights as they are now, by term."""
        return dict(zip(self._automatic, self.log_weights.exp().tolist(), strict=True))

    @torch.no_grad()
    def _follow(self, values: Tensor) -> None:
        """Move the automatic weights, given their terms' values in this batch."""
        self.means.copy_(torch.where(self.means.isinf(), values, self.means.lerp(values, MEMORY)))
        torch.minimum(self.lowest, self.means, out=self.lowest)
        slack = torch.tensor(self._slack, device=values.device)
        excess = self.means / self.lowest.clamp_min(1e-30) - 1 - slack
        self.log_weights.add_(RATE * excess.clamp(-1, 1))
        self.log_weights.clamp_(math.log(LIGHTEST), math.log(HEAVIEST))
