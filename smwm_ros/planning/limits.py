"""What a planned action may be: the contract's limits, applied inside the search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from smwm_ros.contract import Contract


@dataclass(frozen=True)
class ActionLimits:
    """Limits on each action and on its change from one tick to the next, in the contract's units."""

    low: Float[Tensor, " action"]
    high: Float[Tensor, " action"]
    max_change: Float[Tensor, " action"]
    """Largest change per tick."""

    @cached_property
    def _free(self) -> bool:
        """Whether from tick to tick anything goes."""
        return bool((self.max_change >= self.high - self.low).all())

    @classmethod
    def of(cls, contract: Contract, device: torch.device | str = "cpu") -> ActionLimits:
        """Take the limits of a contract."""
        action = contract.action
        return cls(
            *(
                torch.tensor(values, dtype=torch.float32, device=device)
                for values in (action.low, action.high, action.max_change * contract.period)
            )
        )

    def apply(
        self,
        actions: Float[Tensor, "problems samples ticks action"],
        previous: Float[Tensor, "problems action"] | None = None,
        settled: Float[Tensor, "problems ticks action"] | None = None,
    ) -> Float[Tensor, "problems samples ticks action"]:
        """
        Clamp sequences to the values, then from tick to tick to the change.

        Args:
            actions: the sequences.
            previous: the action in force before the first tick, NaN where there is none; None when there is
                none for any problem.
            settled: actions that stay as they are, NaN where they are free; None when all are.
        """
        actions = actions.clamp(self.low, self.high)
        fixed = None
        if settled is not None:
            fixed = ~settled.isnan()[:, None]
            actions = torch.where(fixed, settled[:, None], actions)
        if self._free:
            return actions
        before = actions[:, :, 0]
        if previous is not None:
            before = torch.where(previous.isnan()[:, None], before, previous[:, None])
        earlier = torch.cat([before[:, :, None], actions[:, :, :-1]], dim=2)
        within = (actions >= earlier - self.max_change) & (actions <= earlier + self.max_change)
        if bool(within.all()):  # as smooth noise often is: it would stay as it is, tick by tick
            return actions
        ticks = list(actions.unbind(-2))
        for number, tick in enumerate(ticks):
            slowly = torch.clamp(tick, before - self.max_change, before + self.max_change)
            before = slowly if fixed is None else torch.where(fixed[:, :, number], tick, slowly)
            ticks[number] = before
        return torch.stack(ticks, dim=-2)


@dataclass(frozen=True)
class Feasible:
    """What the sequences of one search may be: within the limits, after what is settled already."""

    limits: ActionLimits
    previous: Float[Tensor, "problems action"] | None = None
    """The action in force before the first tick; NaN, or None, where there is none."""
    settled: Float[Tensor, "problems ticks action"] | None = None
    """Actions that will have been played when the plan is ready, NaN for those after; None: none."""

    def __call__(
        self, actions: Float[Tensor, "problems samples ticks action"]
    ) -> Float[Tensor, "problems samples ticks action"]:
        """Return the nearest sequences that can be."""
        return self.limits.apply(actions, self.previous, self.settled)
