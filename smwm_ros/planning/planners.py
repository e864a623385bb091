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
    from smwm_ros.planning.protocol import FleetPlanner


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


def require(checkpoint: Checkpoint, config: PlannerConfig) -> None:
    """
    Refuse settings that do not go with a checkpoint.

    Raises:
        ConfigError: ``replan`` is longer than the horizon, or a cost needs what the checkpoint has not.
    """
    block = checkpoint.contract.block
    if config.replan > config.horizon * block:
        raise ConfigError(
            f"replan {config.replan} ticks is longer than the plan "
            f"({config.horizon} steps of {block} ticks); lower replan or raise horizon"
        )
    if config.action_consistency and checkpoint.info.config.inverse.type == "none":
        raise ConfigError(
            f"action_consistency needs an inverse model, and {checkpoint.id} has none; set it to 0, or "
            "use a model trained with one"
        )


def make_planner(checkpoint: Checkpoint, config: PlannerConfig, seed: int = 0) -> FleetPlanner:
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

    if config.planner == "hierarchical":
        return HierarchicalPlanner(checkpoint, config, seed)
    return MPC(checkpoint, config, seed)
