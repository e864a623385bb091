"""Planners and their settings: what each robot is planned with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from smwm_ros.contract import Contract
from smwm_ros.errors import ConfigError
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.validation import check

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint
    from smwm_ros.planning.mpc import Planner


def planner_config(
    contract: Contract, overrides: Mapping[str, Any] | None = None, source: str = "planner"
) -> PlannerConfig:
    """
    Return a robot's planner settings: the defaults, changed by its contract, changed by the overrides.

    Args:
        contract: of the robot.
        overrides: by name.
        source: where they come from, for the messages.

    Raises:
        ConfigError: unknown names or impossible values; names the robot, or the overrides' source.
    """
    section = contract.planner
    check(PlannerConfig, section, f"the contract of {contract.name!r}, planner", ConfigError)
    return check(PlannerConfig, {**section, **(overrides or {})}, source, ConfigError)


def make_planner(checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0) -> Planner:
    """
    Make the planner that a configuration names.

    Args:
        checkpoint: of the world model to plan in.
        config: all its settings.
        seed: of the search's samples.

    Raises:
        ConfigError: a setting needs what the checkpoint, or this machine, does not have.
    """
    from smwm_ros.planning.hierarchy import HierarchicalPlanner  # noqa: PLC0415 - torch, which
    from smwm_ros.planning.mpc import MPC  # noqa: PLC0415 - settings do without

    if config.planner == "flat":
        return MPC(checkpoint, config, seed)
    if config.planner == "inverse":
        chosen = config.model_copy(update={"proposals": "inverse", "optimiser": "choice", "time_budget": 0.0})
        return MPC(checkpoint, chosen, seed)
    return HierarchicalPlanner(checkpoint, config, seed)
