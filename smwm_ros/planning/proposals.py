"""Proposals: where a search begins. They are objects that add up: it begins around each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.errors import ConfigError
from smwm_ros.models.bank import ActionBank
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
    """The action in force, NaN where there is no last plan; None when none has one."""


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


NEAREST = 8
"""Sequences of the bank that a search begins at."""


class Bank:
    """Proposes what was done in the training data between a start and a goal like these."""

    def __init__(self, checkpoint: Checkpoint, horizon: int) -> None:
        """
        Take the model's part.

        Raises:
            CheckpointError: it has none.
            ConfigError: its sequences are shorter than the horizon.
        """
        self._part: ActionBank = checkpoint.part("bank")
        self._model = checkpoint.model
        if self._part.horizon < horizon:
            raise ConfigError(
                f"the bank of {checkpoint.id} holds sequences of {self._part.horizon} model steps, and the "
                f"horizon is {horizon}; lower it, or fill the bank with --set horizon={horizon}"
            )

    def __call__(self, situation: Situation) -> Sequences:
        """Propose the nearest sequences, as far as the horizon goes."""
        problems, ticks, size = situation.rest.shape
        model = self._model
        blocks = self._part.nearest(situation.start, situation.goal, min(NEAREST, len(self._part.starts)))
        actions = blocks[:, :, : ticks // model.block].reshape(problems, -1, ticks, size)
        return actions * model.action_std + model.action_mean


def propose(names: str, checkpoint: Checkpoint, horizon: int) -> Proposal:
    """
    Add proposals up.

    Args:
        names: joined by +, or auto; see :class:`smwm_ros.planning.config.PlannerConfig`.
        checkpoint: of the model that proposes, where it does.
        horizon: H, model steps that a sequence is long.

    Raises:
        ConfigError: unknown, or the checkpoint has not been trained for it.
    """
    if names == "auto":
        names = "warm_start+inverse" if "proposal" in checkpoint.parts else "warm_start"
    return together(*(_find(name, checkpoint, horizon) for name in names.split("+")))


def together(*parts: Proposal) -> Proposal:
    """Propose what each of some proposals does."""
    return lambda situation: torch.cat([part(situation) for part in parts], dim=1)


def _find(name: str, checkpoint: Checkpoint, horizon: int) -> Proposal:
    if name == "zero":
        return zero
    if name == "warm_start":
        return warm_start
    if name == "inverse":
        return Inverse(checkpoint)
    if name == "bank":
        return Bank(checkpoint, horizon)
    raise ConfigError(f"proposal {name!r} is unknown; there are zero, warm_start, inverse, bank and auto")
