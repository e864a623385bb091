"""A forward model for latents that are the patch tokens of an image."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.layers import TransformerBlock


class PatchTransformer(nn.Module):
    """
    A ViT over patch tokens and the action predicts the next tokens.

    ``action`` is the way in of the action block: ``concatenate`` puts its embedding beside every token
    (DINO-WM, arXiv 2411.04983), ``token`` adds a token for it (V-JEPA 2-AC, arXiv 2506.09985).
    """

    def __init__(
        self,
        *,
        latent: int,
        block: int,
        token: int,
        action: Literal["concatenate", "token"] = "concatenate",
        action_size: int = 10,
        width: int = 384,
        depth: int = 6,
        heads: int = 16,
        head: int = 64,
        mlp: int = 2048,
    ) -> None:
        """
        Build the layers.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            token: size of one patch token; D is a multiple of it.
            action: how the action block comes in.
            action_size: size of its embedding beside a token.
            width: size of a token inside.
            depth: number of transformer blocks.
            heads: attention heads in each.
            head: size of a head.
            mlp: width of the blocks' hidden layers.

        Raises:
            ConfigError: the latent is not made of such tokens.
        """
        super().__init__()
        if latent % token:
            raise ConfigError(
                f"dynamics patches: a latent of {latent} numbers is not made of tokens of {token}; "
                "dynamics.token must be the token size of the encoder"
            )
        self.token = token
        beside = action == "concatenate"
        self.action = nn.Linear(block, action_size if beside else width)
        self.beside = beside
        self.input = nn.Linear(token + action_size if beside else token, width)
        self.positions = nn.Parameter(torch.empty(1, latent // token, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, mlp, head) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, token)

    def forward(
        self, latent: Float[Tensor, "*batch latent"], block: Float[Tensor, "*batch block"]
    ) -> Float[Tensor, "*batch latent"]:
        """Predict ẑ' = z + what the transformer makes of z and a."""
        tokens = latent.reshape(-1, latent.shape[-1] // self.token, self.token)
        action = self.action(block.flatten(0, -2))[:, None]
        if self.beside:
            inputs = self.input(torch.cat([tokens, action.expand(-1, tokens.shape[1], -1)], -1))
            mixed = self.blocks(inputs + self.positions)
        else:
            mixed = self.blocks(torch.cat([action, self.input(tokens) + self.positions], 1))[:, 1:]
        return latent + self.output(self.norm(mixed)).view(latent.shape)
