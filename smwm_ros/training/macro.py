"""The stage that trains macro-actions and the high-level predictor."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from smwm_ros.models.macro import SURPLUS, MacroActions
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.stages import Recorded, StageConfig

JUDGED = 2048
"""Held-out macro-actions of each length that the figures are of."""


class MacroConfig(StageConfig):
    """How it is trained, and its size."""

    steps: Annotated[int, Field(ge=1)] = 4000
    batch: Annotated[int, Field(ge=2)] = 256
    size: Annotated[int, Field(ge=1, le=32)] = 8
    """Numbers in a macro-action."""
    longest: Annotated[int, Field(ge=1, le=50)] = 8
    """Most model steps in one."""
    hidden: Annotated[int, Field(ge=1)] = 256
    layers: Annotated[int, Field(ge=1)] = 2
    bank: Annotated[int, Field(ge=2, le=65536)] = 4096
    """Macro-actions kept for the search."""


class MacroStage:
    """Waypoints of an episode, macro-actions of any length apart, are predicted from the first one."""

    WAYPOINTS = 2
    """Macro-actions that follow one another, each from where the last one is predicted to end."""

    def __init__(self, recorded: Recorded, module: MacroActions) -> None:
        """Take what was recorded, and what is to be trained."""
        self.module: nn.Module = module
        self._macro = module
        self._recorded = recorded
        ticks = self.WAYPOINTS * module.longest * recorded.block
        self._starts = {held: recorded.starts(ticks, held) for held in (False, True)}

    def loss(self, generator: np.random.Generator, batch: int, *, held_out: bool) -> dict[str, Tensor]:
        """Return the mean squared error of the waypoints, predicted one from another."""
        recorded, macro = self._recorded, self._macro
        rows = generator.choice(self._starts[held_out], batch)
        start = self._latents(rows)
        macros, waypoints = [], []
        for _ in range(self.WAYPOINTS):
            lengths = generator.integers(1, macro.longest, batch, endpoint=True)
            macros.append(macro.encode(self._blocks(rows), self._device(lengths)))
            rows = rows + lengths * recorded.block
            waypoints.append(self._latents(rows))
        predicted = macro.rollout(start, torch.stack(macros, dim=1))
        return {"macro": nn.functional.mse_loss(predicted, torch.stack(waypoints, dim=1))}

    @torch.inference_mode()
    def finish(self, model: WorldModel, generator: np.random.Generator) -> dict[str, float]:
        """
        Fill the bank, and compare on held-out episodes with the world model, rolled out block by block.

        Args:
            model: whose latents these are.
            generator: draws macro-actions.

        Returns:
            For each n the root-mean-square errors of the latent n model steps on, from the same starts:
            ``val_macro_error_n`` in one go, ``val_model_error_n`` by n predictions.
        """
        macro, block = self._macro, self._recorded.block
        offered = SURPLUS * len(macro.bank)
        rows = generator.choice(self._starts[False], offered)
        macro.fill(
            self._blocks(rows), self._device(generator.integers(1, macro.longest, offered, endpoint=True))
        )
        figures = {}
        for steps in range(1, macro.longest + 1):
            rows = generator.choice(self._starts[True], JUDGED)
            start, end, blocks = self._latents(rows), self._latents(rows + steps * block), self._blocks(rows)
            leap = macro(start, macro.encode(blocks, torch.full((JUDGED,), steps, device=blocks.device)))
            walk = model.rollout(start, blocks[:, :steps])[:, -1]
            for name, predicted in (("macro", leap), ("model", walk)):
                figures[f"val_{name}_error_{steps}"] = float((predicted - end).square().mean().sqrt())
        return figures

    def _device(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._macro.bank.device)

    def _latents(self, rows: NDArray[np.int64]) -> Tensor:
        return self._recorded.latents[torch.from_numpy(rows)].to(self._macro.bank.device)

    def _blocks(self, rows: NDArray[np.int64]) -> Tensor:
        """Return as many blocks as the longest macro-action has, from each row on."""
        return self._recorded.blocks(rows, self._macro.longest).to(self._macro.bank.device)
