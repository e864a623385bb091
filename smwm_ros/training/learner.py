"""What is optimised: a world model under the weighted terms of its preset."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smwm_ros.models.config import ModelConfig
from smwm_ros.models.world_model import WorldModel

BALANCE_RATE = 0.02
"""How fast an automatic weight follows the gradients: a mean over about 50 steps."""
BALANCE_LIMIT = 10.0
"""Largest absolute logarithm of an automatic weight."""


class Learner(nn.Module):
    """
    A world model and the terms it is trained by; its parameters are those of both.

    A weight that is ``auto`` is balanced by gradients: it is the one at which the term's gradient with
    respect to the latents is ``share`` times as large as that of all terms with fixed weights together,
    smoothed over steps. Only the small networks behind the latents are gone through for it, not the
    encoder.
    """

    log_weights: Tensor

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
        self._shares = {name: term.share for name, term in config.terms.items() if term.weight == "auto"}
        self.register_buffer("log_weights", torch.zeros(len(self._shares)))

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
        if self._shares:
            balanced = [values[name] for name in self._shares]
            if self.training and latents.requires_grad:
                self._balance(latents, loss, balanced)
            loss = loss + (self.log_weights.exp() * torch.stack(balanced)).sum()
        return loss, values

    @property
    def weights(self) -> dict[str, float]:
        """The automatic weights as they are now, by term."""
        return dict(zip(self._shares, self.log_weights.exp().tolist(), strict=True))

    def _balance(self, latents: Tensor, fixed: Tensor, balanced: list[Tensor]) -> None:
        """Move the automatic weights towards those that balance this batch's gradients."""
        against, *own = (
            torch.autograd.grad(part, latents, retain_graph=True)[0].norm() for part in (fixed, *balanced)
        )
        shares = torch.tensor(list(self._shares.values()), device=latents.device)
        # A collapsed latent has no gradients to balance: the limit keeps the weights finite.
        target = (shares * against / torch.stack(own).clamp_min(1e-30)).clamp_min(1e-30).log()
        target = target.clamp(-BALANCE_LIMIT, BALANCE_LIMIT)
        # Not in place: the graph of the step before may still hold the old weights.
        self.log_weights = torch.lerp(self.log_weights, target, BALANCE_RATE).detach()
