"""The sensorimotor world model: encoder f, forward model g and inverse model h in one module."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from smwm_ros.contract import Contract
from smwm_ros.models.config import ModelConfig
from smwm_ros.models.dynamics import DYNAMICS
from smwm_ros.models.encoders import ENCODERS
from smwm_ros.models.inverse import INVERSES


class WorldModel(nn.Module):
    """
    z = f(o), ẑ' = g(z, a), â = h(z, z')  (SMWM, arXiv 2606.20104).

    Actions come in and go out in the contract's units; inside, they are standardised with
    the training data's statistics, and images centred on their mean; both are buffers.
    """

    action_mean: Tensor
    action_std: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig, contract: Contract) -> None:
        """
        Build an untrained model.

        Args:
            config: the preset.
            contract: gives the image side, the block length k and the action size A.

        Raises:
            ConfigError: a slot does not take one of its keys.
        """
        super().__init__()
        size, frames = contract.observation.image.size, config.frames
        self.encoder = config.encoder.build(ENCODERS, frames=frames, size=size)
        self.latent_size: int = self.encoder.latent_size
        self.block = contract.block
        # An encoder trained elsewhere brings its own way of centring, and takes images from 0 to 1.
        self.centres_images: bool = not getattr(self.encoder, "pretrained", False)
        shape = {"latent": self.latent_size, "block": contract.block_size}
        self.dynamics = config.dynamics.build(DYNAMICS, **shape)
        self.inverse = config.inverse.build(INVERSES, **shape)
        self.register_buffer("action_mean", torch.zeros(contract.action.size))
        self.register_buffer("action_std", torch.ones(contract.action.size))
        mean, std = (127.5, 64.0) if self.centres_images else (0.0, 255.0)
        self.register_buffer("pixel_mean", torch.full((size, size, 3), mean))
        self.register_buffer("pixel_std", torch.tensor(std))

    def encode(self, frames: UInt8[Tensor, "batch frames height width 3"]) -> Float[Tensor, "batch latent"]:
        """Encode observations: n RGB images each, oldest first."""
        # Converted first: arithmetic between two types is many times slower on a CPU.
        centred = frames.to(torch.float32, copy=True).sub_(self.pixel_mean).div_(self.pixel_std)
        return self.encoder(centred.permute(0, 1, 4, 2, 3).flatten(1, 2))

    def standardise(
        self, actions: Float[Tensor, "*batch block action"]
    ) -> Float[Tensor, "*batch block*action"]:
        """Turn k actions in the contract's units into one standardised action block."""
        return ((actions - self.action_mean) / self.action_std).flatten(-2)

    def rollout(
        self, latent: Float[Tensor, "*batch latent"], blocks: Float[Tensor, "*batch time block"]
    ) -> Float[Tensor, "*batch time latent"]:
        """Predict the latents after each of the standardised action blocks, open loop."""
        futures = []
        for block in blocks.unbind(-2):
            latent = self.dynamics(latent, block)
            futures.append(latent)
        return torch.stack(futures, dim=-2)
