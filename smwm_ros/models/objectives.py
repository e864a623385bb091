"""
Objective terms: what a world model is trained to do.

A term is a class with one ``forward(model, latents, blocks) -> scalar``; a preset lists terms
with their weights, and the loss is the weighted sum. Gradients flow through every latent:
there is no stop-gradient and no target network (SMWM, arXiv 2606.20104).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Models(Protocol):
    """What a term needs of a world model: g(z, a) and h(z, z')."""

    dynamics: nn.Module
    inverse: nn.Module


class ForwardTerm(nn.Module):
    """mean (ẑ_{t+1} - z_{t+1})²: the next latent must be predictable."""

    def forward(
        self,
        model: Models,
        latents: Float[Tensor, "batch moments latent"],
        blocks: Float[Tensor, "batch time block"],
    ) -> Float[Tensor, ""]:
        """Return the mean squared one-step prediction error."""
        predicted = model.dynamics(latents[:, :-1], blocks)
        return nn.functional.mse_loss(predicted, latents[:, 1:])


class InverseTerm(nn.Module):
    """mean (â_t - a_t)²: two consecutive latents must tell the action between them."""

    def forward(
        self,
        model: Models,
        latents: Float[Tensor, "batch moments latent"],
        blocks: Float[Tensor, "batch time block"],
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the inferred, standardised action block."""
        inferred = model.inverse(latents[:, :-1], latents[:, 1:])
        return nn.functional.mse_loss(inferred, blocks)


TERMS = {"forward": ForwardTerm, "inverse": InverseTerm}
