"""
Checkpoints: one safetensors file with the weights, and everything a node needs as JSON inside.

Never a pickle: reading one runs no code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from smwm_ros.contract import Contract
from smwm_ros.errors import CheckpointError, ConfigError
from smwm_ros.models.adaln import SingleKeyAttention
from smwm_ros.models.config import Arguments, ModelConfig
from smwm_ros.models.identity import HINT, identity, metadata, read_content
from smwm_ros.models.parts import build_part
from smwm_ros.models.world_model import WorldModel
from smwm_ros.validation import Settings

ModuleT = TypeVar("ModuleT", bound=nn.Module)

FORMAT = 1
_PARTS = "parts."


class Calibration(Settings):
    """What the validation data says of the trained latent; gives distances and errors a unit."""

    step_distance: Annotated[float, Field(gt=0)]
    """Median root-mean-square change of the latent in one model step."""
    step_error: Annotated[float, Field(gt=0)]
    """Median root-mean-square error of a one-step prediction."""


class PartInfo(Settings):
    """What was trained on a finished model, and how."""

    arguments: Arguments
    """Of its class."""
    training: Mapping[str, float]
    """Settings of the stage that differ from its defaults."""
    data_fingerprint: str
    """Content hash of the episode store it was trained on."""
    seed: int


class CheckpointInfo(Settings):
    """Everything in a checkpoint that is not a tensor."""

    format: int = FORMAT
    preset: str
    config: ModelConfig
    contract: Contract
    calibration: Calibration
    data_fingerprint: str
    """Content hash of the episode store it was trained on."""
    seed: int
    code_version: str
    figures: dict[str, float]
    """Losses and latent statistics on the validation data."""
    parts: Mapping[str, PartInfo] = Field(default_factory=dict)
    """By the stage that made them."""


class Checkpoint:
    """
    A trained world model and what it was trained under, ready to use.

    Arrays are NumPy on the outside; the model runs on ``device`` in inference mode.
    """

    def __init__(
        self,
        info: CheckpointInfo,
        model: WorldModel,
        identity: str,
        parts: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """Wrap a model; :func:`load_checkpoint` is the usual way to get one."""
        self.info = info
        self.parts = {name: part.eval().requires_grad_(False) for name, part in (parts or {}).items()}
        self.model = model.eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, SingleKeyAttention):
                module.fold()
        self.id = identity

    @property
    def contract(self) -> Contract:
        """The robot contract it was trained under."""
        return self.info.contract

    @property
    def latent_size(self) -> int:
        """D, numbers in one latent."""
        return self.model.latent_size

    @property
    def frames(self) -> int:
        """n, images in one observation."""
        return self.info.config.frames

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.action_mean.device

    def part(self, name: str) -> Any:
        """
        Return what a later stage of the training made.

        Raises:
            CheckpointError: it was not trained.
        """
        if name not in self.parts:
            raise CheckpointError(
                f"checkpoint {self.id} has no {name}; train one on the same data: "
                f"smwm train STORE --stage {name} --checkpoint ITS_FILE --output FOLDER"
            )
        return self.parts[name]

    def require(self, contract: Contract) -> None:
        """
        Refuse a robot that the model was not trained for.

        Raises:
            CheckpointError: observation, action, rate or block differ; names each field.
        """
        if differences := contract.differences(self.contract):
            raise CheckpointError(
                f"checkpoint {self.id} was trained for another robot than {contract.name!r}:\n  "
                + "\n  ".join(differences)
                + "\nUse the contract it was trained under, or train on bags of this robot (smwm train)."
            )

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Encode one observation.

        Args:
            images: n RGB images as the contract's ``size`` says, oldest first, shape (n, S, S, 3).

        Returns:
            The latent, shape (D,).
        """
        frames = torch.from_numpy(np.ascontiguousarray(images))[None].to(self.device)
        return self.model.encode(frames)[0].float().cpu().numpy()

    @torch.inference_mode()
    def predict(self, latents: NDArray[np.float32], actions: NDArray[np.float64]) -> NDArray[np.float32]:
        """
        Roll latents forward, open loop.

        Args:
            latents: shape (B, D).
            actions: in the contract's units, shape (B, H, k, A).

        Returns:
            The latents after each of the H model steps, shape (B, H, D).
        """
        start = torch.from_numpy(np.asarray(latents, np.float32)).to(self.device)
        blocks = self.model.standardise(torch.from_numpy(np.asarray(actions, np.float32)).to(self.device))
        return self.model.rollout(start, blocks).float().cpu().numpy()

    def distance(self, latent: NDArray[np.float32], goal: NDArray[np.float32]) -> float:
        """Return the root-mean-square distance of two latents (D,), in model steps."""
        return float(np.sqrt(np.mean((latent - goal) ** 2))) / self.info.calibration.step_distance

    def surprise(
        self, latent: NDArray[np.float32], block: NDArray[np.float64], next_latent: NDArray[np.float32]
    ) -> float:
        """
        Return the error of a one-step prediction, as a multiple of the validation median.

        Args:
            latent: where the step began, shape (D,).
            block: the k actions applied, in the contract's units, shape (k, A).
            next_latent: where it ended, shape (D,).
        """
        predicted = self.predict(latent[None], block[None, None])[0, 0]
        error = float(np.sqrt(np.mean((predicted - next_latent) ** 2)))
        return error / self.info.calibration.step_error


def save_checkpoint(
    path: Path | str, info: CheckpointInfo, model: WorldModel, parts: Mapping[str, nn.Module] | None = None
) -> str:
    """
    Write a checkpoint, all or nothing.

    Args:
        path: of the file.
        info: its ``parts`` are those of ``parts``.
        model: the world model.
        parts: what was trained on it.

    Returns:
        Its id.
    """
    path = Path(path)
    named = model.state_dict()
    for name, part in (parts or {}).items():
        named |= {f"{_PARTS}{name}.{key}": tensor for key, tensor in part.state_dict().items()}
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in named.items()}
    content = save_tensors(tensors, metadata={"smwm": info.model_dump_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return identity(info.preset, info.contract.name, content)


def load_checkpoint(path: Path | str, device: str | torch.device = "cpu") -> Checkpoint:
    """
    Read a checkpoint.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, of another format version, or of a
            model that needs what is not installed.
    """
    path = Path(path)
    content = read_content(path)
    try:
        tensors = load_tensors(content)
        found = metadata(content)
        if found.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: checkpoint format {found.get('format')}, expected {FORMAT}. "
                "Train it again with this version, or use the version of smwm_ros that made it."
            )
        info = CheckpointInfo.model_validate(found)
        held = sum(tensor.numel() for tensor in tensors.values())
        model = _build(lambda: WorldModel(info.config, info.contract), held)
        model.load_state_dict({name: value for name, value in tensors.items() if not name.startswith(_PARTS)})
        parts = {}
        for name, part in info.parts.items():
            build = partial(build_part, name, part.arguments, model.latent_size, info.contract)
            parts[name] = _build(build, held)
            prefix = f"{_PARTS}{name}."
            own = {
                key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
            }
            parts[name].load_state_dict(own)
    except ConfigError as error:
        raise CheckpointError(f"{path}: its model cannot be built here: {error}") from error
    except (SafetensorError, ValidationError, RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole smwm checkpoint ({error}). {HINT}") from error
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"{path}: holds weights that are not finite. {HINT}")
    try:
        placed = {name: part.to(device) for name, part in parts.items()}
        return Checkpoint(info, model.to(device), identity(info.preset, info.contract.name, content), placed)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"{path}: cannot be put on device {device!r}: {error}") from error


def _build(build: Callable[[], ModuleT], held: int) -> ModuleT:
    """
    Build a module, but not from settings that lie about sizes: they would fill the memory.

    Args:
        build: makes it; called twice, at first where numbers take no memory (torch's device meta).
        held: numbers in the file. Twice as many may be made: a layer may replace its parameters.

    Raises:
        ConfigError: it has more parameters than that.
    """
    built = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal built
        built += 0 if parameter is None else parameter.numel()
        if built > 2 * held:
            raise ConfigError(f"its settings describe a larger one than the {held} numbers in it")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            build()
    finally:
        hook.remove()
    return build()
