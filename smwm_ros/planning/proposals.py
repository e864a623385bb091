"""Proposals: where a search begins. They are objects that add up: it begins around each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.proposal import GoalInverse

Sequences = Float[Tensor, "problems proposals ticks action"]


@dataclass(frozen=True)
class Situation:
    """What a proposal may go by, for P problems."""

    start: Float[Tensor, "problems latent"]
    goal: Float[Tensor, "problems latent"]
    rest: Float[Tensor, "problems ticks action"]
    """What is left of the last plan, its last action repeated; zero when there is none."""
    previous: Float[Tensor, "problems action"] | None
    """The action in force; None when there is no last plan."""


Proposal = Callable[[Situation], Sequences]


def zero(situation: Situation) -> Sequences:
    """Propose to do nothing."""
    return torch.zeros_like(situation.rest)[:, None]


def warm_start(situation: Situation) -> Sequences:
    """Propose to go on with the last plan; without one, to do nothing."""
    return situation.rest[:, None]


STEPS_LEFT = (1.0, 2.0, 3.0, 5.0, 8.0)
"""Model steps in which an inverse proposal may be meant to arrive; nobody knows how far the goal is."""


class Inverse:
    """Proposes what the goal-conditioned inverse model would do, with the goal so many model steps away."""

    def __init__(self, checkpoint: Checkpoint, steps: Sequence[float] = STEPS_LEFT) -> None:
        """
        Take the model's part.

        Raises:
            CheckpointError: it has none.
        """
        self._part: GoalInverse = checkpoint.part("proposal")
        self._model = checkpoint.model
        self._steps = [step for step in steps if step <= self._part.reach]

    def __call__(self, situation: Situation) -> Sequences:
        """Propose one sequence for each number of steps."""
        problems, ticks, size = situation.rest.shape
        count, model = len(self._steps), self._model
        steps = situation.start.new_tensor(self._steps).expand(problems, count)
        start, goal = (latent[:, None].expand(-1, count, -1) for latent in (situation.start, situation.goal))
        blocks = self._part.unroll(model, start, goal, steps, ticks // model.block)
        actions = blocks.reshape(problems, count, ticks, size)
        return actions * model.action_std + model.action_mean


def propose(names: str, checkpoint: Checkpoint) -> Proposal:
    """
    Add proposals up.

    Args:
        names: joined by +.
        checkpoint: of the model that proposes, where it does.

    Raises:
        ConfigError: unknown, or the checkpoint has not been trained for it.
    """
    parts = [_find(name, checkpoint) for name in names.split("+")]
    return lambda situation: torch.cat([part(situation) for part in parts], dim=1)


def _find(name: str, checkpoint: Checkpoint) -> Proposal:
    if name == "zero":
        return zero
    if name == "warm_start":
        return warm_start
    if name == "inverse":
        return Inverse(checkpoint)
    raise ConfigError(f"proposal {name!r} is unknown; there are zero, warm_start, inverse and bank")
