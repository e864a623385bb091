"""All lifecycle nodes by name: for what goes through them one by one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smwm_ros.nodes.lifecycle import SmwmNode

KINDS = ("perception", "world_model", "planner", "action", "sim", "explorer", "recorder", "player")


def node_class(kind: str) -> type[SmwmNode]:
    """Return the class of a kind of node; each is in a module of its name."""
    module = importlib.import_module(f"smwm_ros.nodes.{kind}_node")
    return getattr(module, "".join(word.capitalize() for word in kind.split("_")) + "Node")
