"""Checking what people write (YAML, settings): every error names source, key and reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from smwm_ros.errors import SmwmError


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
    Read a text file.

    Args:
        path: the file.
        what: what it should be, for the message.
        error: the class of error to raise.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path}: cannot read {what} ({reason})") from reason


def parse(kind: type[Kind], text: str, source: str, error: type[SmwmError]) -> Kind:
    """
    Read YAML (or JSON) text as a model.

    Args:
        kind: the pydantic model.
        text: the YAML.
        source: where it came from, for the messages.
        error: the class of error to raise: not YAML, or not valid; a line for each fault.
    """
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except Exception as reason:  # PyYAML's constructors raise whatever they trip over
        raise error(f"{source}: not valid YAML: {reason}") from reason
    if not isinstance(content, dict):
        raise error(
            f"{source}: expected a mapping with the keys {', '.join(kind.model_fields)}; "
            f"found {type(content).__name__}"
        )
    return check(kind, content, source, error)


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


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
        return super().construct_mapping(node, deep)
