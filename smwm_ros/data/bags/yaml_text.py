"""YAML from files that may be damaged, or made to do harm."""

from __future__ import annotations

from typing import Any

import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""YAML without objects, in C where that was built."""
DEEPEST = 32
"""Levels of nesting; libyaml's loader overflows the stack at some ten thousand."""


def load_yaml(text: str) -> Any:
    """
    Read YAML.

    Lists and mappings may be shared by references, as some writers do: take care not to walk through
    one that refers to itself.

    Raises:
        ValueError: it is not YAML, or nested too deeply, or merges mappings, which can be repeated until
            the memory is full.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.ScalarEvent) and event.value == "<<":
                raise ValueError("mappings are merged in it")
            if depth > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)[:200] or type(error).__name__) from error
