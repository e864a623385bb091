"""Planning costs: how good imagined futures are. They are objects that add up to what a search minimises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.errors import ConfigError, PlanningError
from smwm_ros.planning.imagined import Imagined

Costs = Float[Tensor, "problems samples"]
Cost = Callable[[Imagined], Costs]
"""A lower number is better, infinity forbids, NaN counts as infinity."""

PLUGINS = "smwm_ros.costs"
"""Group of entry points in which other packages offer costs by name."""


def final(imagined: Imagined) -> Costs:
    """(ẑ_H - z_g)²: only the end counts."""
    return imagined.distances[..., -1]


def running(imagined: Imagined) -> Costs:
    """Mean over the steps of (ẑ_t - z_g)²: be there soon, and stay."""
    return imagined.distances.mean(-1)


def min_over_horizon(imagined: Imagined) -> Costs:
    """Minimum over the steps of (ẑ_t - z_g)²: pass by at some time."""
    return imagined.distances.amin(-1)


def soon(imagined: Imagined) -> Costs:
    """
    Minimum over the steps, and 3 % of the mean over them: be there at some time, but do not dawdle.

    The minimum alone allows the detours that a running cost forbids (a pusher has to go round the block),
    and says nothing of what comes after: a plan that leaves the goal and comes back is as good as one
    that stays.
    """
    return min_over_horizon(imagined) + 0.03 * running(imagined)


def action_consistency(imagined: Imagined) -> Costs:
    """
    Mean of (h(ẑ_t, ẑ_{t+1}) - a_t)²: whether the inverse model finds the actions again in the futures.

    Where it does not, the forward model is being made to imagine things (ACID, arXiv 2607.02403).
    """
    path = imagined.path
    inferred = imagined.model.inverse(path[:, :, :-1], path[:, :, 1:])
    return (inferred - imagined.blocks).square().mean((-1, -2))


def smoothness(imagined: Imagined) -> Costs:
    """Mean squared change from tick to tick, in standard deviations of the training actions."""
    changes = imagined.actions.diff(dim=2) / imagined.model.action_std
    return changes.square().mean((-1, -2)) if changes.shape[2] else changes.sum((-1, -2))


COSTS: dict[str, Cost] = {
    "final": final,
    "running": running,
    "min_over_horizon": min_over_horizon,
    "soon": soon,
}
"""What a goal can be: how the distances to it count."""
EXTRAS: dict[str, Cost] = {"action_consistency": action_consistency, "smoothness": smoothness}
"""What can be wished for besides."""


class Objective:
    """
    The sum that one search minimises: the goal's cost, weighted extras, and constraints.

    An extra of weight w varies among the first candidates w times as much as the goal's cost does
    (its scale is set then, and stays): so a weight means the same for every model and goal.
    """

    def __init__(
        self, goal: Cost, extras: Mapping[str, float] | None = None, constraint: Cost | None = None
    ) -> None:
        """
        Add costs up.

        Args:
            goal: one of ``COSTS``, or any other.
            extras: weight of each of ``EXTRAS``; those of 0 are left out.
            constraint: added as it is.
        """
        self._goal = goal
        self._extras = {name: weight for name, weight in (extras or {}).items() if weight}
        self._constraint = constraint
        self._scales: dict[str, Tensor] = {}

    def __call__(self, imagined: Imagined) -> Costs:
        """Return the cost of each candidate."""
        goal = self._goal(imagined)
        total = goal
        for name, weight in self._extras.items():
            values = EXTRAS[name](imagined)
            if name not in self._scales:
                spread = values.std(1, keepdim=True).clamp_min(1e-12)
                self._scales[name] = (goal.std(1, keepdim=True) / spread).detach()
            total = total + weight * self._scales[name] * values
        if self._constraint is not None:
            try:
                added = self._constraint(imagined)
            except Exception as error:
                raise PlanningError(f"the constraint failed: {error!r}") from error
            if added.shape != goal.shape:
                raise ConfigError(
                    f"the constraint returned a cost of shape {tuple(added.shape)}, expected one number for "
                    f"each problem and candidate, {tuple(goal.shape)}"
                )
            total = total + added
        return torch.nan_to_num(total, nan=torch.inf, posinf=torch.inf)


def find_constraint(name: str) -> Cost | None:
    """
    Find a cost that an installed package offers as an entry point of the group ``smwm_ros.costs``.

    Args:
        name: of the entry point; empty for none.

    Raises:
        ConfigError: none of that name, or it cannot be imported.
    """
    if not name:
        return None
    offered = {entry.name: entry for entry in entry_points(group=PLUGINS)}
    if name not in offered:
        raise ConfigError(
            f"constraint {name!r} is unknown; installed packages offer {sorted(offered) or 'none'} as entry "
            f"points of the group {PLUGINS!r}"
        )
    try:
        cost: Cost = offered[name].load()
    except Exception as error:
        raise ConfigError(f"constraint {name!r} cannot be loaded: {error!r}") from error
    return cost
