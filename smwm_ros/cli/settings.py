"""Settings on the command line: ``NAME=VALUE``, with dots into what is nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Optional

import typer

from smwm_ros.errors import ConfigError

Settings = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer evaluates it, and Python 3.10's typing must understand it
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting; may be given again."),
]


def override(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """
    Return nested values with some of them changed.

    Args:
        values: nested mappings.
        settings: such as ``training.steps=500``; the value is YAML.

    Raises:
        ConfigError: not of that form, or a name that leads through something that is no mapping.
    """
    from smwm_ros.validation import parse_value

    changed = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for setting in settings:
        name, sign, text = setting.partition("=")
        *path, last = name.split(".")
        place: Any = changed
        for key in path:
            place = place.get(key) if isinstance(place, dict) else None
        value = parse_value(text, f"--set {setting}", ConfigError)
        if not (sign and last and isinstance(place, dict)):
            raise ConfigError(f"--set {setting}: expected NAME=VALUE, for example training.steps=5000")
        place[last] = value
    return changed
