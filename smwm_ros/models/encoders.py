"""Encoders f: the last n camera frames in, one latent out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.models.pretrained import PretrainedEncoder
from smwm_ros.models.vit import ViTEncoder


class ConvEncoder(nn.Module):
    """
    A small convolutional encoder with a BatchNorm projector, made for CPUs and 64 px.

    Three strided convolutions, one hidden layer, one linear map to the latent. BatchNorm on
    the latent keeps its scale from shrinking (method: LayerNorm or none lets a small inverse
    weight collapse it); ``latent_norm`` switches it.
    """

    def __init__(
        self,
        *,
        frames: int,
        size: int,
        channels: Sequence[int] = (16, 32, 32),
        hidden: int = 256,
        latent: int = 64,
        norm: bool = True,
        latent_norm: bool = True,
    ) -> None:
        """
        Build the layers.

        Args:
            frames: n, images per observation, stacked as channels.
            size: side of the square images in pixels.
            channels: output channels of the convolutions; the first strides 4, the rest 2.
            hidden: width of the hidden layer.
            latent: D, size of the latent.
            norm: put a BatchNorm after each convolution.
            latent_norm: put a BatchNorm (without scale and shift) on the latent.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise((3 * frames, *channels))):
            kernel, stride = (6, 4) if number == 0 else (3, 2)
            layers.append(nn.Conv2d(before, after, kernel, stride, padding=1, bias=not norm))
            layers += [nn.BatchNorm2d(after), nn.ReLU()] if norm else [nn.ReLU()]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            features = self.convolutions.eval()(torch.zeros(1, 3 * frames, size, size)).shape[1]
        self.convolutions.train()
        self.projector = nn.Sequential(
            nn.Linear(features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, latent),
        )
        if latent_norm:
            self.projector.append(nn.BatchNorm1d(latent, affine=False))
        self.latent_size = latent

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch latent"]:
        """Encode centred images; ``channels`` is 3 n, oldest frame first."""
        return self.projector(self.convolutions(images))


ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "conv": ConvEncoder,
    "vit": ViTEncoder,
    "pretrained": PretrainedEncoder,
}
