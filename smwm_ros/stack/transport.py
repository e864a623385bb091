"""
How a process exchanges messages with others of its machine through Fast DDS: what its environment must say.

Other middleware ignores all this; and a profile that the user has chosen stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from smwm_ros.resources import share_directory

OLD_NAME, NAME = "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"
RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"


def large_messages(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what a process that sends or receives large images needs in its environment (fastdds.xml)."""
    return _profile("fastdds.xml", environment)


def no_shared_memory(middleware: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """
    Return what a process needs in its environment to share no memory, and so no locks, with other processes.

    One that is stopped or killed, or that begins, can hold up nobody then (docs/safety.md).

    Args:
        middleware: the RMW implementation in use. Only Fast DDS shares memory without being asked to.
        environment: of the process.
    """
    if not middleware.startswith("rmw_fastrtps"):
        return {}
    if environment.get(RANGE) != "LOCALHOST":
        return {} if TRANSPORTS in environment else _profile("fastdds_network.xml", environment)
    if environment.get("ROS_STATIC_PEERS"):
        return {}  # only ROS 2's own LOCALHOST knows them
    profile = _profile("fastdds_loopback.xml", environment)
    return profile and {**profile, RANGE: "SYSTEM_DEFAULT"}


def _profile(file: str, environment: Mapping[str, str]) -> dict[str, str]:
    if OLD_NAME in environment or NAME in environment:
        return {}
    # Fast DDS 2 knows the old name only, Fast DDS 3 warns of it.
    name = OLD_NAME if environment.get("ROS_DISTRO") == "jazzy" else NAME
    return {name: str(share_directory() / "config" / file)}
