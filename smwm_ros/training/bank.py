"""The stage that fills the bank of action sequences."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from smwm_ros.models.bank import ActionBank
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.stages import Recorded, StageConfig


class BankConfig(StageConfig):
    """How large the bank is; nothing is trained."""

    size: Annotated[int, Field(ge=1, le=65536)] = 1024
    """Sequences."""
    horizon: Annotated[int, Field(ge=1, le=50)] = 8
    """Model steps of each."""


class BankStage:
    """Draws sequences from the training episodes, each row as likely as any other."""

    def __init__(self, recorded: Recorded, module: ActionBank) -> None:
        """Fill the bank."""
        self.module: nn.Module = module
        ticks = module.horizon * recorded.block
        rows = np.random.default_rng(0).choice(recorded.starts(ticks, held_out=False), len(module.starts))
        module.starts.copy_(recorded.latents[torch.from_numpy(rows)])
        module.ends.copy_(recorded.goals[torch.from_numpy(rows + ticks)])
        module.blocks.copy_(recorded.blocks(rows, module.horizon))

    def loss(self, generator: np.random.Generator, batch: int, *, held_out: bool) -> dict[str, Tensor]:
        """Return nothing: there is nothing to train."""
        return {}

    def finish(self, model: WorldModel, generator: np.random.Generator) -> dict[str, float]:
        """Do nothing: it is complete."""
        return {}
