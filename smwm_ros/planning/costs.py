"""Planning costs: how far imagined futures are from the goal. Each takes futures and goals."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Futures = Float[Tensor, "problems samples time latent"]
Goals = Float[Tensor, "problems latent"]
Costs = Float[Tensor, "problems samples"]


def _distances(futures: Futures, goals: Goals) -> Float[Tensor, "problems samples time"]:
    return (futures - goals[:, None, None]).square().mean(-1)


def final(futures: Futures, goals: Goals) -> Costs:
    """Mean (ẑ_H - z_g)²: only the end counts."""
    return _distances(futures[:, :, -1:], goals)[..., 0]


def running(futures: Futures, goals: Goals) -> Costs:
    """Mean over the steps of mean (ẑ_t - z_g)²: be there soon, and stay."""
    return _distances(futures, goals).mean(-1)


def min_over_horizon(futures: Futures, goals: Goals) -> Costs:
    """Minimum over the steps of mean (ẑ_t - z_g)²: pass by at some time."""
    return _distances(futures, goals).amin(-1)


def soon(futures: Futures, goals: Goals) -> Costs:
    """
    Minimum over the steps, and 3 % of the mean over them: be there at some time, but do not dawdle.

    The minimum alone allows the detours that a running cost forbids (a pusher has to go round the block),
    and says nothing of what comes after: a plan that leaves the goal and comes back is as good as one
    that stays.
    """
    return min_over_horizon(futures, goals) + 0.03 * running(futures, goals)


COSTS: dict[str, Callable[[Futures, Goals], Costs]] = {
    "final": final,
    "running": running,
    "min_over_horizon": min_over_horizon,
    "soon": soon,
}
