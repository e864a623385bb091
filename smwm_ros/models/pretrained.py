"""Frozen image backbones from the timm library, with weights from a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.vit import resized


class PretrainedEncoder(nn.Module):
    """
    The patch tokens of a frozen ViT, one after another, as the latent (DINO-WM, arXiv 2411.04983).

    Images come from 0 to 1 and are normalised as the backbone was trained. A checkpoint holds the
    backbone as well, so that the weight file is only needed for training.
    """

    pretrained = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        frames: int,
        size: int,
        name: str = "vit_small_patch14_dinov2",
        weights: str = "",
        resolution: int = 196,
    ) -> None:
        """
        Build the backbone, without its weights; see :meth:`load_pretrained`.

        Args:
            frames: n, images per observation; their tokens follow one another.
            size: side of the square images in pixels.
            name: of the model in timm.
            weights: path of its safetensors file.
            resolution: side that images are resized to, a multiple of the patches'.

        Raises:
            ConfigError: timm is not installed, or has no such model.
        """
        super().__init__()
        self._name = name
        self._weights = weights
        self._frames = frames
        self._resolution = resolution
        self.backbone = self._create()
        self.backbone.requires_grad_(False)
        settings = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(settings["std"]).view(3, 1, 1))
        with torch.no_grad():
            tokens = self._tokens(torch.zeros(1, 3, resolution, resolution))
        self.token_size: int = tokens.shape[2]
        self.latent_size: int = frames * tokens.shape[1] * tokens.shape[2]

    def load_pretrained(self) -> None:
        """
        Read the backbone's weights from the file.

        Raises:
            ConfigError: none given, not there, of a format that can hold code, or of another model.
        """
        path = Path(self._weights).expanduser()
        where = (
            f"the safetensors file of timm's {self._name}, such as model.safetensors of timm/{self._name}.*"
        )
        if not self._weights or not path.is_file():
            found = f"{path} is missing" if self._weights else "none is set"
            raise ConfigError(
                f"encoder.weights: {found}; give {where} (--set encoder.weights=PATH). Nothing is downloaded."
            )
        if path.suffix != ".safetensors":
            raise ConfigError(
                f"encoder.weights: {path} is not a .safetensors file; other formats can run code when they "
                f"are read. Give {where}."
            )
        try:
            loaded = self._create(pretrained=True, pretrained_cfg_overlay={"file": str(path)})
        except Exception as error:  # timm and safetensors raise whatever they trip over
            raise ConfigError(f"encoder.weights: {path} does not fit timm's {self._name}: {error}") from error
        self.backbone.load_state_dict(loaded.state_dict())

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Leave the backbone as it is: frozen, also in what it normalises by."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch latent"]:
        """Encode images from 0 to 1; ``channels`` is 3 n, oldest frame first."""
        single = images.reshape(-1, 3, *images.shape[2:])
        if single.shape[-1] != self._resolution:
            single = resized(single, self._resolution)
        return self._tokens((single - self.mean) / self.std).reshape(len(images), -1)

    def _tokens(self, images: Tensor) -> Tensor:
        """Return the patch tokens, shape (B, P, W), without those for class and registers."""
        features: Tensor = self.backbone.forward_features(images)
        return features[:, self.backbone.num_prefix_tokens :]

    def _create(self, **options: Any) -> Any:
        try:
            import timm  # noqa: PLC0415 - an extra
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                f"encoder pretrained needs timm ({error}); pip install 'smwm_ros[pretrained]'"
            ) from error
        try:
            return timm.create_model(self._name, img_size=self._resolution, num_classes=0, **options)
        except (RuntimeError, TypeError, AssertionError) as error:
            if options:
                raise
            raise ConfigError(
                f"encoder pretrained: timm cannot make {self._name!r} for {self._resolution} px: {error}"
            ) from error
