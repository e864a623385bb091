"""What can be trained on a finished world model, and travels in its checkpoint."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from smwm_ros.contract import Contract
from smwm_ros.models.bank import ActionBank
from smwm_ros.models.config import Arguments
from smwm_ros.models.macro import MacroActions
from smwm_ros.models.proposal import GoalInverse

PARTS: dict[str, Callable[..., nn.Module]] = {
    "proposal": GoalInverse,
    "bank": ActionBank,
    "macro": MacroActions,
}
"""By the stage of ``smwm train`` that makes each."""


def build_part(name: str, arguments: Arguments, latent: int, contract: Contract) -> nn.Module:
    """
    Build an untrained part.

    Args:
        name: one of ``PARTS``.
        arguments: of its class.
        latent: D, of the world model it belongs to.
        contract: gives the sizes of the actions.

    Raises:
        ConfigError: the class does not take one of the arguments.
        KeyError: no such part.
    """
    return arguments.call(f"parts.{name}", PARTS[name], latent=latent, block=contract.block_size)
