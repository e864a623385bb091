"""What a planned action may be: the contract's limits, applied inside the search."""

from __future__ import annotations

from dataclasses import dataclass

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
        if bool((self.max_change >= self.high - self.low).all()):
            return actions
        ticks = list(actions.unbind(-2))
        before = ticks[0] if previous is None else previous[:, None]
        for number, tick in enumerate(ticks):
            before = torch.clamp(tick, before - self.max_change, before + self.max_change)
            ticks[number] = before
        return torch.stack(ticks, dim=-2)
