"""
The processes of a running system: described once in config/stack.yaml, for `smwm up` and the launch files.

No ROS in here: nodes are told their parameters on the command line, as every ROS 2 node is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from smwm_ros.contract import load_contract
from smwm_ros.errors import CheckpointError, ConfigError
from smwm_ros.models.identity import read_identity
from smwm_ros.resources import checkpoint_path, contract_path, share_directory
from smwm_ros.runtime.gate import time_to_rest
from smwm_ros.stack.transport import large_messages
from smwm_ros.validation import Settings, parse, parse_value, read_text

StackName = Literal["sim", "robot", "record", "explore", "perceive", "guard"]
Value = bool | int | float | str


@dataclass(frozen=True)
class ProcessSpec:
    """One process: a node, and what it is told."""

    name: str
    """The node's name."""
    module: str
    """Python module that runs it; its last part is the executable's name on an installed ROS 2."""
    parameters: Mapping[str, Value]
    namespace: str = ""
    ends: bool = False
    """Ends by itself, with exit code 0, when its work is done."""
    restart: bool = True
    """Can be started again when it died, and will find its place."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables to set for it, besides those that it inherits."""
    remappings: Mapping[str, str] = field(default_factory=dict)
    """Topics that go by another name."""
    enclave: str = ""
    """Where its SROS2 credentials lie in the keystore; empty: nothing is said of it."""
    again: Mapping[str, Value] = field(default_factory=dict)
    """Other parameters of a process that is started again after it died."""
    settling: float = 0.0
    """Seconds that its end may take besides the usual ones: those that the robot needs to come to rest."""

    def after_death(self) -> ProcessSpec:
        """Return what is started in place of a process that died."""
        return replace(self, parameters={**self.parameters, **self.again})

    @property
    def executable(self) -> str:
        """Name of the executable in ``lib/smwm_ros``."""
        return self.module.rpartition(".")[2]

    @property
    def ros_arguments(self) -> list[str]:
        """What follows the executable on a command line."""
        arguments = ["--ros-args", "-r", f"__node:={self.name}"]
        if self.namespace:
            arguments += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        for name, other in self.remappings.items():
            arguments += ["-r", f"{name}:={other}"]
        for name, value in self.parameters.items():
            arguments += ["-p", f"{name}:={json.dumps(value)}"]  # JSON is YAML with the type made plain
        if self.enclave:
            arguments += ["--enclave", self.enclave]
        return arguments


LARGE_IMAGE = 1 << 17
"""Bytes in a camera's image beyond which UDP, or Fast DDS's half a megabyte of shared memory, gets tight."""
BYTES_PER_PIXEL = 4
"""At the most: in a depth image."""


class Argument(Settings):
    """Something a user of the stack may set."""

    default: Value
    help: str


class NodeEntry(Settings):
    """One node, the stacks it belongs to, and its parameters (``$name`` stands for an argument)."""

    name: str
    stacks: Annotated[tuple[StackName, ...], Field(min_length=1)]
    needs: str | None = None
    ends: bool = False
    restart: bool = True
    images: bool = False
    parameters: dict[str, Value] = Field(default_factory=dict)
    again: dict[str, Value] = Field(default_factory=dict)


class StackFile(Settings):
    """The whole of config/stack.yaml."""

    arguments: dict[str, Argument]
    lock_step: dict[str, Value]
    defaults: dict[StackName, dict[str, Value]] = Field(default_factory=dict)
    nodes: tuple[NodeEntry, ...]


def load_stack_file(path: Path | None = None) -> StackFile:
    """
    Read the description of the stacks; the package's own unless a path is given.

    Raises:
        ConfigError: unreadable or not valid; names the file and the reason.
    """
    path = path or share_directory() / "config" / "stack.yaml"
    text = read_text(path, "a description of the stacks", ConfigError)
    return parse(StackFile, text, str(path), ConfigError)


def describe(
    stack: StackName,
    arguments: Mapping[str, Value] | None = None,
    overrides: Mapping[str, Mapping[str, Value]] | None = None,
    source: StackFile | None = None,
) -> list[ProcessSpec]:
    """
    Work out the processes of a stack.

    Args:
        stack: which one.
        arguments: values by argument name; text is read as the argument's type. The rest have defaults.
        overrides: parameters by node name, on top of the file's, also of those after a death.
        source: the description; the package's own if absent.

    Returns:
        The processes, in the order in which they start.

    Raises:
        ConfigError: an unknown argument or node, or a value of the wrong type.
        ContractError, CheckpointError: the contract or checkpoint to run with is not there.
    """
    source = source or load_stack_file()
    values = _values(source, stack, arguments or {})
    entries = [e for e in source.nodes if stack in e.stacks and (e.needs is None or values[e.needs] != "")]
    _resolve_paths(values, entries)
    contract = load_contract(str(values["contract"]))
    image = contract.observation.image
    large = BYTES_PER_PIXEL * image.width * image.height > LARGE_IMAGE
    overrides = overrides or {}
    if unknown := overrides.keys() - {e.name for e in entries}:
        raise ConfigError(
            f"the {stack} stack has no node {', '.join(sorted(unknown))}; "
            f"it has {', '.join(e.name for e in entries)}"
        )
    namespace, enclaves = str(values["namespace"]).strip("/"), str(values["enclaves"]).rstrip("/")
    # Each simulator has a time of its own: side by side, they must not share a clock.
    own_clock = namespace and any(entry.name == "sim" for entry in entries)
    return [
        ProcessSpec(
            name=entry.name,
            module=f"smwm_ros.nodes.{entry.name}_node",
            parameters={
                **{key: _substitute(value, values) for key, value in entry.parameters.items()},
                "use_sim_time": values["use_sim_time"],
                **overrides.get(entry.name, {}),
            },
            namespace=namespace,
            ends=entry.ends,
            restart=entry.restart,
            environment=large_messages() if large and entry.images else {},
            remappings={"/clock": f"/{namespace}/clock"} if own_clock else {},
            enclave=f"{enclaves}/{entry.name}" if enclaves else "",
            again={k: v for k, v in entry.again.items() if k not in overrides.get(entry.name, {})},
            settling=time_to_rest(contract) if entry.name == "action" else 0.0,
        )
        for entry in entries
    ]


def explain_arguments(source: StackFile, stack: StackName) -> list[tuple[str, str, str]]:
    """
    List the arguments of a stack for people.

    Returns:
        (name, default as one would type it, help). A default that lock-step changes is left empty,
        since one that was typed would win over lock-step's; the help then tells both.
    """
    lines = []
    for name, argument in source.arguments.items():
        default = _as_typed(source.defaults.get(stack, {}).get(name, argument.default))
        text = argument.help
        if name in source.lock_step:
            text += f" (default {default}; in lock-step {_as_typed(source.lock_step[name])})"
            default = ""
        lines.append((name, default, text))
    return lines


def _as_typed(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def parse_settings(
    settings: Iterable[tuple[str, str]],
) -> tuple[dict[str, Value], dict[str, dict[str, Value]]]:
    """
    Sort what a user typed into arguments and overrides, as :func:`describe` takes them.

    Args:
        settings: (name, text) pairs; ``node.parameter`` names a parameter of one node, and its text
            is read as YAML, as for ROS parameters.
    """
    arguments: dict[str, Value] = {}
    overrides: dict[str, dict[str, Value]] = {}
    for name, text in settings:
        node, dot, parameter = name.partition(".")
        if dot:
            overrides.setdefault(node, {})[parameter] = parse_value(text, name, ConfigError)
        else:
            arguments[name] = text
    return arguments, overrides


def _values(source: StackFile, stack: StackName, given: Mapping[str, Value]) -> dict[str, Value]:
    """Return a value for every argument: the given one, else lock-step's, the stack's, the default."""
    if unknown := given.keys() - source.arguments.keys():
        raise ConfigError(
            f"unknown stack argument {', '.join(sorted(unknown))}; known: {', '.join(source.arguments)}"
        )
    chosen = {name: _as_type(name, value, source.arguments[name].default) for name, value in given.items()}
    values = {name: argument.default for name, argument in source.arguments.items()}
    values |= source.defaults.get(stack, {}) | chosen
    return values | source.lock_step | chosen if values["lock_step"] else values


def _as_type(name: str, value: Any, default: Value) -> Value:
    """Return the value as the default's type; launch files give everything as text."""
    if isinstance(value, str) and not isinstance(default, str):
        value = parse_value(value, f"stack argument {name}", ConfigError)
    if type(value) is not type(default):
        raise ConfigError(f"stack argument {name}: expected {type(default).__name__}, found {value!r}")
    return value


def _substitute(value: Value, values: Mapping[str, Value]) -> Value:
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in values:
            raise ConfigError(f"stack.yaml: {value} is not an argument")
        return values[value[1:]]
    return value


def _resolve_paths(values: dict[str, Value], entries: list[NodeEntry]) -> None:
    """Make the contract, the checkpoint and the bag absolute: nodes may run anywhere. Add the model's id."""
    contract = contract_path(str(values["contract"]))
    values["contract"], values["model"] = str(contract), ""
    if any("$checkpoint" in entry.parameters.values() for entry in entries):
        given = Path(str(values["checkpoint"])).expanduser().absolute()
        shipped = values["checkpoint"] == ""
        checkpoint = checkpoint_path(load_contract(contract).name) if shipped else given
        if not checkpoint.is_file():
            raise CheckpointError(
                f"{checkpoint}: no such file. Give the path of a checkpoint, or none to use the shipped one."
            )
        values["checkpoint"], values["model"] = str(checkpoint), read_identity(checkpoint)
    if values["bag"]:
        values["bag"] = str(Path(str(values["bag"])).expanduser().absolute())
