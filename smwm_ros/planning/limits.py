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
        previous: Float[Tensor, "problems action"] | None,
    ) -> Float[Tensor, "problems samples ticks action"]:
        """
        Clamp sequences to the values, then from tick to tick to the change.

        Args:
            actions: the sequences.
            previous: the action in force before the first tick; None when there is none.
        """
        actions = actions.clamp(self.low, self.high)
        if self._free:
            return actions
        ticks = list(actions.unbind(-2))
        before = ticks[0] if previous is None else previous[:, None]
        earlier = torch.cat([before[:, :, None].expand_as(actions[:, :, :1]), actions[:, :, :-1]], dim=2)
        within = (actions >= earlier - self.max_change) & (actions <= earlier + self.max_change)
        if bool(within.all()):  # as smooth noise often is: it would stay as it is, tick by tick
            return actions
        for number, tick in enumerate(ticks):
            before = torch.clamp(tick, before - self.max_change, before + self.max_change)
            ticks[number] = before
        return torch.stack(ticks, dim=-2)


@dataclass(frozen=True)
class Feasible:
    """What the sequences of one search may be: within the limits, after what is settled already."""

    limits: ActionLimits
    previous: Float[Tensor, "problems action"] | None = None
    """The action in force before the first tick; None when there is none."""
    settled: Float[Tensor, "problems first action"] | None = None
    """The first actions, which will have been played when the plan is ready; None when there are none."""

    def __call__(
        self, actions: Float[Tensor, "problems samples ticks action"]
    ) -> Float[Tensor, "problems samples ticks action"]:
        """Return the nearest sequences that can be."""
        if self.settled is None:
            return self.limits.apply(actions, self.previous)
        first = self.settled.shape[1]
        settled = self.settled[:, None].expand(-1, actions.shape[1], -1, -1)
        rest = self.limits.apply(actions[:, :, first:], self.settled[:, -1])
        return torch.cat([settled, rest], dim=2)
