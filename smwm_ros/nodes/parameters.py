"""
Declared parameters: each node lists its own in one table of :class:`Param`.

The table is where a default, a range and a description live; ``ros2 param describe`` shows them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import rclpy.exceptions
from pydantic import BaseModel
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from smwm_ros.errors import ConfigError

_LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


@dataclass(frozen=True, kw_only=True)
class Param:
    """One parameter of a node. Its type is that of the default."""

    name: str
    default: bool | int | float | str
    description: str
    """What it is, with its unit."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    """May change while the node runs; otherwise it is fixed at start."""

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS descriptor: type, range, description, read-only flag."""
        description = self.description
        if self.choices:
            description += f" One of: {', '.join(self.choices)}."
        made = ParameterDescriptor(description=description, read_only=not self.dynamic)
        kind = type(self.default)
        if kind in _LARGEST and (self.low is not None or self.high is not None):
            low = kind(-_LARGEST[kind] if self.low is None else self.low)
            high = kind(_LARGEST[kind] if self.high is None else self.high)
            if kind is int:
                made.integer_range = [IntegerRange(from_value=low, to_value=high)]
            else:
                made.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        return made

    def refusal(self, value: Any) -> str | None:
        """Say why a value of the right type and range is still wrong; None if it is right."""
        if isinstance(value, float) and not math.isfinite(value):
            return f"parameter {self.name} is {value}; expected a finite number"
        if self.choices and value not in self.choices:
            return f"parameter {self.name} is {value!r}; expected one of: {', '.join(self.choices)}"
        return None


AUTOSTART = Param(
    name="autostart",
    default=True,
    description="Configure and activate at start; otherwise wait for lifecycle transitions.",
)
CONTRACT = Param(name="contract", default="", description="Path of the robot contract (YAML).")
CHECKPOINT = Param(name="checkpoint", default="", description="Path of the checkpoint (.safetensors).")
DEVICE = Param(
    name="device",
    default="auto",
    description="Where the network runs; auto takes CUDA when it is there.",
    choices=("auto", "cpu", "cuda"),
)
THREADS = Param(
    name="threads",
    default=1,
    low=1,
    high=256,
    description="CPU threads of the network; 1 is best where several nodes share few cores.",
)
SENSOR_RELIABILITY = Param(
    name="sensor_reliability",
    default="best_effort",
    description="QoS reliability of the sensor topics.",
    choices=("best_effort", "reliable"),
)
LOCK_STEP = Param(
    name="lock_step",
    default=False,
    description="The simulator waits for every command; ROS time stands still between them.",
)


def declare(node: Node, table: Sequence[Param]) -> None:
    """
    Declare the parameters of a table on a node, and refuse wrong values from then on.

    Raises:
        ConfigError: a value given at start has the wrong type or lies outside its range.
    """
    by_name = {param.name: param for param in table}

    def check(changes: list[Parameter[Any]]) -> SetParametersResult:
        for change in changes:
            param = by_name.get(change.name)
            reason = param.refusal(change.value) if param else None
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(check)
    for param in table:
        try:
            node.declare_parameter(param.name, param.default, param.descriptor())
        except rclpy.exceptions.ParameterException as error:
            raise ConfigError(f"{node.get_fully_qualified_name()}: {error}. {param.description}") from error


def from_settings(settings: type[BaseModel], *, without: Collection[str] = ()) -> tuple[Param, ...]:
    """
    Return a parameter for each field of a settings class, so that ranges and defaults stay in one place.

    Args:
        settings: fields of plain types, each with a default.
        without: fields to leave out.
    """
    made = []
    for name, field in settings.model_fields.items():
        if name in without:
            continue
        bounds = {type(bound).__name__.lower(): bound for bound in field.metadata}
        low = next((getattr(bounds[key], key) for key in ("ge", "gt") if key in bounds), None)
        high = next((getattr(bounds[key], key) for key in ("le", "lt") if key in bounds), None)
        made.append(
            Param(
                name=name,
                default=field.default,
                description=" ".join((field.description or settings.__name__).split()),
                low=low,
                high=high,
                choices=get_args(field.annotation) if get_origin(field.annotation) is Literal else (),
            )
        )
    return tuple(made)
