"""A Vision Transformer as the encoder of the official SMWM and LeWM, in plain torch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.layers import TransformerBlock, initialise, normed_perceptron


class ViTEncoder(nn.Module):
    """
    A ViT (arXiv 2010.11929) whose class token goes through a BatchNorm projector to the latent.

    The defaults are ViT-Tiny/14 at 224 px with a latent of 192, as in SMWM (arXiv 2606.20104).
    """

    def __init__(
        self,
        *,
        frames: int,
        size: int,
        resolution: int = 224,
        patch: int = 14,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        mlp: int = 768,
        hidden: int = 2048,
        latent: int = 192,
    ) -> None:
        """
        Build the layers.

        Args:
            frames: n, images per observation, stacked as channels.
            size: side of the square images in pixels.
            resolution: side that they are resized to, when they are not of it.
            patch: side of a patch in pixels.
            width: size of a token.
            depth: number of transformer blocks.
            heads: attention heads in each.
            mlp: width of their MLPs' hidden layers.
            hidden: width of the projector's hidden layer.
            latent: D, size of the latent.

        Raises:
            ConfigError: patches do not fill the image, or heads do not divide the width.
        """
        super().__init__()
        if resolution % patch or width % heads:
            raise ConfigError(
                f"encoder vit: resolution {resolution} must be a multiple of patch {patch}, "
                f"and width {width} one of heads {heads}"
            )
        self.resolution = resolution if resolution != size else None
        self.latent_size = latent
        self.patches = nn.Conv2d(3 * frames, width, patch, patch)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, (resolution // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, mlp) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        initialise(self)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.projector = normed_perceptron(width, hidden, latent)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch latent"]:
        """Encode centred images; ``channels`` is 3 n, oldest frame first."""
        if self.resolution:
            images = resized(images, self.resolution)
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.summary.expand(len(patches), -1, -1), patches], dim=1) + self.positions
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        # Nobody looks at what the last block would make of the patches.
        return self.projector(self.norm(last(tokens, first=1))[:, 0])


def resized(
    images: Float[Tensor, "batch channels height width"], side: int
) -> Float[Tensor, "batch channels {side} {side}"]:
    """Return the images at another size (bilinear, smoothed when smaller)."""
    return nn.functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
