"""Adding a part to a checkpoint: the later stages of ``smwm train``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import PartInfo, load_checkpoint, save_checkpoint
from smwm_ros.models.config import Arguments
from smwm_ros.models.parts import build_part
from smwm_ros.training.bank import BankConfig, BankStage
from smwm_ros.training.macro import MacroConfig, MacroStage
from smwm_ros.training.proposal import ProposalConfig, ProposalStage
from smwm_ros.training.stages import Progress, Stage, StageConfig, fit, look
from smwm_ros.training.trainer import TrainingResult
from smwm_ros.validation import check


@dataclass(frozen=True)
class Kind:
    """A stage: its settings, and how a part is trained by it."""

    config: type[StageConfig]
    make: Callable[..., Stage]
    """From what was recorded, and the part."""


STAGES: Mapping[str, Kind] = {
    "proposal": Kind(ProposalConfig, ProposalStage),
    "bank": Kind(BankConfig, BankStage),
    "macro": Kind(MacroConfig, MacroStage),
}


def stage_config(name: str, changed: Mapping[str, Any]) -> StageConfig:
    """
    Return the settings of a stage.

    Args:
        name: of the stage.
        changed: what differs from the defaults.

    Raises:
        ConfigError: no such stage or setting, or a wrong value.
    """
    if name not in STAGES:
        raise ConfigError(f"stage {name!r} is unknown; there are model, {', '.join(STAGES)}")
    return check(STAGES[name].config, dict(changed), "--set", ConfigError)


def run_stage(
    name: str,
    store: EpisodeStore,
    checkpoint: Path,
    config: StageConfig,
    output: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = lambda what, done, total: None,
) -> TrainingResult:
    """
    Train a part on a checkpoint's frozen latents, and write a checkpoint with both.

    Args:
        name: of the stage.
        store: the episodes; those that the model was trained on are right.
        checkpoint: path of the finished world model; parts that it has already stay, but for this one.
        config: see :func:`stage_config`.
        output: folder for the new ``model.safetensors``.
        seed: draws weights, batches and the held-out episodes.
        device: where to train.
        progress: see :data:`smwm_ros.training.stages.Progress`.

    Raises:
        CheckpointError: it cannot be read, or is for another robot than the store's.
        ConfigError: ``output`` holds a checkpoint already.
        DataError: the episodes are too few or too short.
        TrainingError: the loss is not finite.
    """
    began = time.perf_counter()
    path = output / "model.safetensors"
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another folder, or remove it")
    loaded = load_checkpoint(checkpoint, device)
    torch.manual_seed(seed)
    own = type(config).model_fields.keys() - StageConfig.model_fields.keys()
    arguments = Arguments.model_validate(config.model_dump(include=set(own)))
    part = build_part(name, arguments, loaded.latent_size, loaded.contract)
    recorded = look(loaded, store, config.validation, seed, progress)
    stage = STAGES[name].make(recorded, part)
    figures = fit(stage, config, seed, device, progress)
    figures |= stage.finish(loaded.model, np.random.default_rng([seed, 6]))
    made = PartInfo(
        arguments=arguments,
        training=config.model_dump(exclude_defaults=True),
        data_fingerprint=store.fingerprint,
        seed=seed,
    )
    info = loaded.info.model_copy(
        update={
            "parts": {**loaded.info.parts, name: made},
            "figures": {**loaded.info.figures, **figures},
        }
    )
    identity = save_checkpoint(path, info, loaded.model, {**loaded.parts, name: part})
    return TrainingResult(path, identity, figures, time.perf_counter() - began, 0.0)
