"""Inverse models h: two consecutive latents in, the action block between them out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.layers import perceptron


class InverseMLP(nn.Module):
    """
    An MLP on the latent and the scaled change of the latent.

    [z, s (z' - z)] spans the same space as [z, z'], but one model step changes z by little: with
    the change as an input of its own, scaled up, the action is learned far sooner.
    """

    def __init__(
        self, *, latent: int, block: int, hidden: int = 256, layers: int = 2, change_scale: float = 5.0
    ) -> None:
        """
        Build the layers.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            hidden: width of the hidden layers.
            layers: number of hidden layers.
            change_scale: s, the factor on the change of the latent.
        """
        super().__init__()
        self.action = perceptron(2 * latent, hidden, layers, block)
        self.change_scale = change_scale

    def forward(
        self, latent: Float[Tensor, "*batch latent"], next_latent: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch block"]:
        """Infer â = MLP([z, s (z' - z)])."""
        return self.action(torch.cat([latent, self.change_scale * (next_latent - latent)], dim=-1))


class NoInverse(nn.Module):
    """For presets that have no use for an inverse model."""

    def __init__(self, *, latent: int, block: int) -> None:
        """Take the sizes that every inverse model is given."""
        super().__init__()

    def forward(
        self, latent: Float[Tensor, "*batch latent"], next_latent: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch block"]:
        """Refuse: ConfigError."""
        raise ConfigError(
            "this model has no inverse model (inverse: {type: none}); use a preset that has one"
        )


INVERSES: dict[str, Callable[..., nn.Module]] = {"mlp": InverseMLP, "none": NoInverse}
