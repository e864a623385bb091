"""What is optimised: a world model under the weighted terms of its preset."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from smwm_ros.models.config import ModelConfig
from smwm_ros.models.world_model import WorldModel

BALANCE_RATE = 0.02
"""How fast an automatic weight follows the gradients: a mean over about 50 steps."""
BALANCE_LIMIT = 10.0
"""Largest |log weight| that an automatic weight takes."""


class Learner(nn.Module):
    """
    A world model and the terms it is trained by; its parameters are those of both.

    A weight that is ``auto`` is balanced by gradients: it is the one at which the term's gradient with
    respect to the latents is ``share`` times as large as that of all other terms together, smoothed
    over steps. Only the small networks behind the latents are gone through for it, not the encoder.
    """

    log_weight: Tensor

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
        self.balanced = next((name for name, term in config.terms.items() if term.weight == "auto"), None)
        self._weights = {name: term.weight for name, term in config.terms.items() if name != self.balanced}
        if self.balanced:
            self._share = config.terms[self.balanced].share
            self.register_buffer("log_weight", torch.zeros(()))

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
            (cast(float, weight) * values[name] for name, weight in self._weights.items()),
            torch.zeros((), device=latents.device),
        )
        if self.balanced:
            if self.training and latents.requires_grad:
                self._balance(latents, loss, values[self.balanced])
            loss = loss + self.log_weight.exp() * values[self.balanced]
        return loss, values

    @property
    def weight(self) -> float | None:
        """The automatic weight as it is now; None when there is none."""
        return float(self.log_weight.exp()) if self.balanced else None

    def _balance(self, latents: Tensor, others: Tensor, value: Tensor) -> None:
        """Move the automatic weight towards the one that balances this batch's gradients."""
        against, own = (
            torch.autograd.grad(part, latents, retain_graph=True)[0].norm() for part in (others, value)
        )
        # A collapsed latent has no gradients to balance: the limit keeps the weight finite.
        target = (self._share * against / own.clamp_min(1e-30)).clamp_min(1e-30).log()
        target = target.clamp(-BALANCE_LIMIT, BALANCE_LIMIT)
        # Not in place: the graph of the step before may still hold the old weight.
        self.log_weight = torch.lerp(self.log_weight, target, BALANCE_RATE).detach()
