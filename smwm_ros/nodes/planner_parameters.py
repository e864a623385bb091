"""The planner node's parameters: the planner's settings, with the robot's own as their defaults."""

from __future__ import annotations

import re
from dataclasses import replace

from smwm_ros.contract import load_contract
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.nodes.parameters import Param, from_settings
from smwm_ros.planning.config import CHANGEABLE, PlannerConfig
from smwm_ros.planning.planners import planner_config
from smwm_ros.runtime.replanning import MEASURED

LATENCY = Param(
    name="latency",
    default=MEASURED,
    low=MEASURED,
    high=60.0,
    unit="s",
    description="Time from image to command that plans make up for; -1: as measured, 0: none. In lock-step, "
    "where time waits for the planner, always none.",
)
SEED = Param(name="seed", default=0, low=0, description="Draws the search's samples.")
ROBOTS = Param(
    name="robots",
    default="",
    description="Namespaces of the robots that it plans for, by commas; empty: the one in its own. They are "
    "alike: of one contract, with one model.",
)
_NAMESPACE = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def namespaces(robots: str) -> list[str]:
    """
    Return the namespaces that the parameter ``robots`` names; the empty one if it is empty.

    Raises:
        ConfigError: one is no namespace, or comes twice.
    """
    names = [name.strip() for name in robots.split(",")] if robots.strip() else []
    for name in names:
        if not _NAMESPACE.fullmatch(name) or names.count(name) > 1:
            raise ConfigError(f"robots '{robots}': expected namespaces by commas, each once; found '{name}'")
    return names or [""]


def settings_of(contract: str) -> tuple[Param, ...]:
    """
    Return a parameter for each of the planner's settings.

    Args:
        contract: path of the robot's, whose settings are the defaults. One that cannot be used is left to
            the transition that needs it, which says why.
    """
    try:
        config = planner_config(load_contract(contract))
    except SmwmError:
        config = PlannerConfig()
    return tuple(
        replace(param, default=getattr(config, param.name))
        for param in from_settings(PlannerConfig, dynamic=CHANGEABLE)
    )
