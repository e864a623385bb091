"""What the world model makes of candidate action sequences: all that a planning cost may look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.forward import Rollout


@dataclass(frozen=True)
class Imagined:
    """S candidates for each of P problems, and the futures predicted for them."""

    model: WorldModel
    unit: float
    """Length of a model step: the median root-mean-square change of the latent in one."""
    start: Float[Tensor, "problems latent"]
    goals: Float[Tensor, "problems latent"]
    actions: Float[Tensor, "problems samples ticks action"]
    """Contract units, within the limits."""
    blocks: Float[Tensor, "problems samples time block"]
    """The same, standardised, one row for each model step."""
    futures: Float[Tensor, "problems samples time latent"]
    """Latents predicted after each model step."""

    @classmethod
    def of(
        cls,
        model: WorldModel,
        unit: float,
        start: Float[Tensor, "problems latent"],
        goals: Float[Tensor, "problems latent"],
        actions: Float[Tensor, "problems samples ticks action"],
        rollout: Rollout | None = None,
    ) -> Imagined:
        """
        Roll the model forward under each candidate; the ticks are a whole number of model steps.

        Args:
            model: that imagines.
            unit: length of a model step.
            start: where each problem starts.
            goals: where each is to end.
            actions: the candidates.
            rollout: how the model is rolled out; its own way when absent.
        """
        problems, samples, _, size = actions.shape
        blocks = model.standardise(actions.view(problems, samples, -1, model.block, size))
        begin = start[:, None].expand(-1, samples, -1)
        return cls(model, unit, start, goals, actions, blocks, (rollout or model.rollout)(begin, blocks))

    @cached_property
    def distances(self) -> Float[Tensor, "problems samples time"]:
        """Mean squared distance of each predicted latent to the goal, in squared model steps."""
        return (self.futures - self.goals[:, None, None]).square().mean(-1) / self.unit**2

    @property
    def path(self) -> Float[Tensor, "problems samples latents latent"]:
        """The futures with the start before them, H + 1 latents."""
        begin = self.start[:, None, None].expand(-1, self.futures.shape[1], 1, -1)
        return torch.cat([begin, self.futures], dim=2)
