"""
Checking what people write (YAML, settings): every error names source, key and reason.

What is read may also be damaged, or made to do harm: its size and its nesting are bounded.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from smwm_ros.errors import SmwmError

LARGEST_TEXT = 64 * 1024
"""Characters in a YAML file; a contract has a fiftieth of it."""
DEEPEST = 32
"""Levels of nesting in YAML."""
MOST_VALUES = 20_000
"""Values in YAML, each counted as often as it is referred to."""


class Settings(BaseModel):
    """Settings are immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Unit:
    """The unit of a setting, as a part of its annotation."""

    name: str


Kind = TypeVar("Kind", bound=BaseModel)


def read_text(path: Path, what: str, error: type[SmwmError]) -> str:
    """
    Read a text file that is not too large.

    Args:
        path: the file.
        what: what it should be, for the message.
        error: the class of error to raise.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST_TEXT + 1)
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path}: cannot read {what} ({reason})") from reason
    if len(text) > LARGEST_TEXT:
        raise error(f"{path}: more than {LARGEST_TEXT} characters; expected {what}")
    return text


def parse(kind: type[Kind], text: str, source: str, error: type[SmwmError]) -> Kind:
    """
    Read YAML (or JSON) text as a model.

    Args:
        kind: the pydantic model.
        text: the YAML.
        source: where it came from, for the messages.
        error: the class of error to raise: not YAML, or not valid; a line for each fault.
    """
    content = parse_value(text, source, error)
    if not isinstance(content, dict):
        raise error(
            f"{source}: expected a mapping with the keys {', '.join(kind.model_fields)}; "
            f"found {type(content).__name__}"
        )
    return check(kind, content, source, error)


def parse_value(text: str, source: str, error: type[SmwmError]) -> Any:
    """Read YAML (or JSON) text as plain values of any kind; arguments and errors as :func:`parse`."""
    if len(text) > LARGEST_TEXT:
        raise error(f"{source}: more than {LARGEST_TEXT} characters of YAML")
    try:
        return yaml.load(text, Loader=_BoundedLoader)
    except Exception as reason:  # PyYAML's constructors raise whatever they trip over
        raise error(f"{source}: not valid YAML: {reason}") from reason


def check(kind: type[Kind], content: Any, source: str, error: type[SmwmError]) -> Kind:
    """Validate plain values as a model; arguments and errors as :func:`parse`."""
    try:
        return kind.model_validate(content)
    except ValidationError as reason:
        raise error("\n".join(_reason(source, fault) for fault in reason.errors())) from reason


def _reason(source: str, fault: Any) -> str:
    """Turn one of pydantic's errors into ``source: key: reason``."""
    place = f"{source}: {'.'.join(str(part) for part in fault['loc'])}".removesuffix(": ")
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key; remove it or correct its spelling"
    if fault["type"] == "missing":
        return f"{place}: missing; this key is required"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{place}: {message}"
    found = fault["input"]
    # Not what is in a collection: through YAML's aliases a small one can be endless to print.
    shown = f"a {type(found).__name__}" if isinstance(found, (dict, list)) else repr(found)
    return f"{place}: {message} (found {shown})"


class _BoundedLoader(yaml.SafeLoader):
    """
    YAML's safe loader with two differences.

    A key given twice is an error instead of the last one winning. And what would grow when it is walked
    through is refused: references (aliases) that multiply or lead back, merged mappings, deep nesting.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(problem=f"nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "mappings are merged (<<); write their keys out", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """
    Return how many values a node has and how deep it is, as if each reference were written out.

    Raises:
        yaml.composer.ComposerError: too many, too deep, or without end.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise yaml.composer.ComposerError(problem="a value contains itself", problem_mark=node.start_mark)
        return measured
    known[id(node)] = None
    values, depth = 1, 1
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(child,) for child in node.value]
    for pair in pairs:
        for child in pair:
            more, deeper = _measure(child, known)
            values, depth = values + more, max(depth, deeper + 1)
    if values > MOST_VALUES or depth > DEEPEST:
        limits = f"{MOST_VALUES} values or {DEEPEST} levels"
        problem = f"with its references written out, it has more than {limits}"
        raise yaml.composer.ComposerError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = values, depth
    return values, depth
