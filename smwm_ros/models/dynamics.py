"""Forward models g: a latent and an action block in, the next latent out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.models.adaln import AdaLNTransformer
from smwm_ros.models.layers import perceptron
from smwm_ros.models.patches import PatchTransformer


class ResidualMLP(nn.Module):
    """The next latent as the latent plus what an MLP makes of latent and action."""

    def __init__(self, *, latent: int, block: int, hidden: int = 512, layers: int = 2) -> None:
        """
        Build the layers.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            hidden: width of the hidden layers.
            layers: number of hidden layers.
        """
        super().__init__()
        self.change = perceptron(latent + block, hidden, layers, latent)

    def forward(
        self, latent: Float[Tensor, "*batch latent"], block: Float[Tensor, "*batch block"]
    ) -> Float[Tensor, "*batch latent"]:
        """Predict ẑ' = z + MLP([z, a])."""
        return latent + self.change(torch.cat([latent, block], dim=-1))


DYNAMICS: dict[str, Callable[..., nn.Module]] = {
    "residual_mlp": ResidualMLP,
    "adaln": AdaLNTransformer,
    "patches": PatchTransformer,
}
