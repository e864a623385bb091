"""Definitions of ROS messages for reading and writing bags without ROS: the standard ones and our own."""

from __future__ import annotations

from functools import cache

from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from smwm_ros.resources import PACKAGE, share_directory


@cache
def own_types() -> Typesdict:
    """Return the definitions of this package's messages, from its ``msg`` folder."""
    types: Typesdict = {}
    for path in sorted((share_directory() / "msg").glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    return types


@cache
def message_types() -> Typestore:
    """Return the messages of the oldest ROS 2 distribution that is supported, and this package's."""
    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(own_types())
    return types
