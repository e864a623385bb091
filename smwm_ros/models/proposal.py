"""The goal-conditioned inverse model: what to do next on the way from one latent to another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.models.layers import perceptron
from smwm_ros.models.world_model import WorldModel


class GoalInverse(nn.Module):
    """
    (z, z_goal, model steps left) → the next action block  (GC-IDM, arXiv 2605.08732).

    Trained on frozen latents: any two images of an episode are a start and a goal, and the actions
    between them an answer. It knows what the robot did in the data, and nothing of what is best.
    """

    def __init__(
        self, *, latent: int, block: int, hidden: int = 256, layers: int = 3, reach: int = 12
    ) -> None:
        """
        Build the layers.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            hidden: width of the hidden layers.
            layers: number of hidden layers.
            reach: most model steps from start to goal that it is trained on.
        """
        super().__init__()
        self.reach = reach
        self.action = perceptron(2 * latent + 2, hidden, layers, block)

    def forward(
        self,
        latent: Float[Tensor, "*batch latent"],
        goal: Float[Tensor, "*batch latent"],
        steps: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch block"]:
        """Return the standardised action block that leads on; ``steps`` is at least one."""
        return self._act(latent, goal, _time(steps))

    def _act(self, latent: Tensor, goal: Tensor, time: Tensor) -> Tensor:
        return self.action(torch.cat([latent, goal - latent, time], dim=-1))

    def unroll(
        self,
        model: WorldModel,
        latent: Float[Tensor, "*batch latent"],
        goal: Float[Tensor, "*batch latent"],
        steps: Float[Tensor, "*batch"],
        horizon: int,
    ) -> Float[Tensor, "*batch time block"]:
        """
        Return ``horizon`` standardised action blocks, imagining where each one leads.

        Args:
            model: imagines.
            latent: where it starts.
            goal: where it is to end.
            steps: model steps until then; beyond them it keeps to the goal.
            horizon: H, blocks.
        """
        left = (steps[..., None] - torch.arange(horizon, device=steps.device)).clamp_min(1.0)
        first, *times = _time(left).unbind(-2)
        blocks = [self._act(latent, goal, first)]
        for time in times:
            latent = model.dynamics(latent, blocks[-1])
            blocks.append(self._act(latent, goal, time))
        return torch.stack(blocks, dim=-2)


def _time(steps: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    return torch.stack([steps.log(), 1 / steps], dim=-1)
