"""
Declared parameters: each node lists its own in one table of :class:`Param`.

The table is where a default, a unit, a range and a description live; ``ros2 param describe`` shows them,
and the tables of docs/nodes.md are written from it.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Collection, Sequence
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

from smwm_ros.errors import ConfigError, SmwmError

_LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


@dataclass(frozen=True, kw_only=True)
class Param:
    """
    One parameter of a node. Its type is that of the default.

    A node reads its parameters when it is configured, so they may be set while it is unconfigured. Two
    kinds differ: those that may change at any time, and those that are fixed when the process starts.
    """

    name: str
    default: bool | int | float | str
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    """May change while the node is configured; see ``SmwmNode.change``."""
    fixed: bool = False
    """Read only once, when the process starts."""

    @property
    def when(self) -> str:
        """When it may be set, in words."""
        if self.fixed:
            return "at the start of the process"
        return "at any time" if self.dynamic else "while unconfigured"

    def descriptor(self) -> ParameterDescriptor:
        """Return the ROS descriptor: type, range, description with the unit, and when it may be set."""
        constraints = [f"one of: {', '.join(self.choices)}"] if self.choices else []
        made = ParameterDescriptor(
            description=self.description + (f" Unit: {self.unit}." if self.unit else ""),
            additional_constraints="; ".join([*constraints, f"may be set {self.when}"]),
        )
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
    fixed=True,
)
CONTRACT = Param(name="contract", default="", description="Path of the robot contract (YAML).", fixed=True)
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


class Parameters:
    """
    The declared parameters of a node: refuses what cannot be, and hands over what changes.

    Those set together, by the service ``set_parameters_atomically``, are accepted together or not at all.
    """

    def __init__(
        self,
        node: Node,
        configured: Callable[[], bool],
        check: Callable[[dict[str, Any]], None],
        change: Callable[[dict[str, Any]], None],
    ) -> None:
        """
        Watch over the parameters that will be declared.

        Args:
            node: whose they are.
            configured: whether it has read them.
            check: raises a SmwmError if values of the dynamic parameters do not go together.
            change: takes them over. Both get the values of all dynamic parameters, by name.
        """
        self.table: dict[str, Param] = {}
        self._node = node
        self._configured = configured
        self._check = check
        self._change = change
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._apply)

    def declare(self, table: Sequence[Param]) -> None:
        """
        Declare the parameters of a table.

        Raises:
            ConfigError: a value given at start has the wrong type or lies outside its range.
        """
        self.table |= {param.name: param for param in table}
        for param in table:
            try:
                self._node.declare_parameter(param.name, param.default, param.descriptor())
            except rclpy.exceptions.ParameterException as error:
                raise ConfigError(
                    f"{self._node.get_fully_qualified_name()}: {error}. {param.description}"
                ) from error

    def refuse_unknown(self) -> None:
        """
        Make sure that each parameter given at start is declared by now; rclpy drops others without a word.

        Those of a topic's quality of service are declared with the topic, and are left out.

        Raises:
            ConfigError: one is not; names the nearest of those that are.
        """
        node, known = self._node, (*self.table, "use_sim_time")
        flaws = []
        for name in node._parameter_overrides:
            if not (node.has_parameter(name) or name.startswith("qos_overrides.")):
                near = difflib.get_close_matches(name, known, n=1)
                flaws.append(f"unknown parameter {name}" + (f" (the nearest is {near[0]})" if near else ""))
        if flaws:
            raise ConfigError(
                f"{node.get_fully_qualified_name()}: {', '.join(flaws)}. docs/nodes.md lists each node's, "
                "`ros2 param list` those of one that runs; what a file has under /** reaches every node"
            )

    def undeclare(self, names: Collection[str]) -> None:
        """Forget parameters, as those of topics that are gone."""
        for name in names:
            self._node.undeclare_parameter(name)
            del self.table[name]

    def _judge(self, changes: list[Parameter[Any]]) -> SetParametersResult:
        reason = next(filter(None, map(self._refusal, changes)), "")
        if not reason and self._dynamic(changes):
            try:
                self._check(self._values(changes))
            except SmwmError as error:
                reason = str(error)
        return SetParametersResult(successful=not reason, reason=reason)

    def _refusal(self, change: Parameter[Any]) -> str | None:
        param = self.table.get(change.name)
        if param is None:  # one of rclpy's own
            return None
        if reason := param.refusal(change.value):
            return reason
        name = self._node.get_fully_qualified_name()
        if not self._node.has_parameter(param.name):  # it is being declared
            return None
        if change.value == self._node.get_parameter(param.name).value:  # tools load whole files
            return None
        if param.fixed:
            return (
                f"parameter {param.name} is read once, when the process starts; start it anew with "
                f"-p {param.name}:={change.value}"
            )
        if not param.dynamic and self._configured():
            return (
                f"parameter {param.name} was read when the node was configured; set it while the node is "
                f"unconfigured (ros2 lifecycle set {name} deactivate, then cleanup), or start it anew with "
                f"-p {param.name}:={change.value}"
            )
        return None

    def _apply(self, changes: list[Parameter[Any]]) -> None:
        if self._dynamic(changes):
            self._change(self._values(changes))

    def _dynamic(self, changes: list[Parameter[Any]]) -> bool:
        """Whether a node that has read its parameters is to take over others."""
        table = self.table
        return self._configured() and any(one.name in table and table[one.name].dynamic for one in changes)

    def _values(self, changes: list[Parameter[Any]]) -> dict[str, Any]:
        """Return the values of all dynamic parameters, as they will be."""
        dynamic = [name for name, param in self.table.items() if param.dynamic]
        now = {name: self._node.get_parameter(name).value for name in dynamic}
        return now | {change.name: change.value for change in changes if change.name in now}


def from_settings(
    settings: type[BaseModel], *, without: Collection[str] = (), dynamic: Collection[str] = ()
) -> tuple[Param, ...]:
    """
    Return a parameter for each field of a settings class, so that ranges and defaults stay in one place.

    Args:
        settings: fields of plain types, each with a default.
        without: fields to leave out.
        dynamic: fields that may change while the node is configured.
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
                unit=bounds["unit"].name if "unit" in bounds else "",
                dynamic=name in dynamic,
                low=low,
                high=high,
                choices=get_args(field.annotation) if get_origin(field.annotation) is Literal else (),
            )
        )
    return tuple(made)
