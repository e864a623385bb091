"""Proposals: where a search begins. They are objects that add up: it begins around each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.errors import ConfigError
from smwm_ros.models.checkpoint import Checkpoint

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
    raise ConfigError(f"proposal {name!r} is unknown; there are zero, warm_start, inverse and bank")
