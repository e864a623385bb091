"""The stage that trains the goal-conditioned inverse model."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from smwm_ros.models.proposal import GoalInverse
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.stages import Recorded, StageConfig


class ProposalConfig(StageConfig):
    """How it is trained, and its size."""

    hidden: Annotated[int, Field(ge=1)] = 256
    layers: Annotated[int, Field(ge=1)] = 3
    reach: Annotated[int, Field(ge=1)] = 12
    """Most model steps from start to goal."""


class ProposalStage:
    """Any two images of an episode, up to ``reach`` model steps apart, are a start and a goal."""

    def __init__(self, recorded: Recorded, module: GoalInverse) -> None:
        """Take what was recorded, and what is to be trained."""
        self.module: nn.Module = module
        self._recorded = recorded
        self._reach = module.reach * recorded.block
        self._starts = {held: recorded.starts(recorded.block, held) for held in (False, True)}

    def loss(self, generator: np.random.Generator, batch: int, *, held_out: bool) -> dict[str, Tensor]:
        """Return the mean squared error of the next action block, in standard deviations."""
        recorded = self._recorded
        rows = generator.choice(self._starts[held_out], batch)
        most = np.minimum(recorded.last[rows] - rows, self._reach)
        ticks = generator.integers(recorded.block, most, endpoint=True)
        device = next(self.module.parameters()).device
        steps = torch.from_numpy(ticks.astype(np.float32) / recorded.block)
        start, goal = recorded.latents[torch.from_numpy(rows)], recorded.goals[torch.from_numpy(rows + ticks)]
        inferred = self.module(start.to(device), goal.to(device), steps.to(device))
        return {"proposal": nn.functional.mse_loss(inferred, recorded.blocks(rows)[:, 0].to(device))}

    def finish(self, model: WorldModel, generator: np.random.Generator) -> dict[str, float]:
        """Do nothing: it is complete."""
        return {}
