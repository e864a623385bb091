"""A bag's topics in rclpy's terms: message classes by name, quality of service as noted in the bag."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rclpy.type_support import check_for_type_support
from rosbags.interfaces import Qos, QosTime

from smwm_ros.data.bags.reader import BagReader
from smwm_ros.errors import DataError

LONGEST_NS = 2**63 - 1


def message_class(bag: BagReader, kind: str) -> Any:
    """
    Find the class of a message type, the same that the bag was recorded with.

    Raises:
        DataError: it is not installed, or another version of it is: subscribers would read nonsense.
    """
    package, _, name = kind.partition("/msg/")
    try:
        found = getattr(importlib.import_module(f"{package}.msg"), name)
        check_for_type_support(found)
    except (ImportError, AttributeError) as error:
        raise DataError(f"the message type {kind} is not installed here") from error
    recorded, installed = bag.type_hash(kind), _installed_hash(package, name)
    if recorded and installed and recorded != installed:
        raise DataError(f"the message type {kind} has another definition here than in the bag")
    return found


def _installed_hash(package: str, name: str) -> str:
    """Return the hash (REP-2016) of an installed message type; empty where it cannot be found."""
    try:
        path = Path(get_package_share_directory(package)) / "msg" / f"{name}.json"
        hashes = json.loads(path.read_text(encoding="utf-8"))["type_hashes"]
    except (PackageNotFoundError, OSError, ValueError, KeyError):
        return ""
    wanted = f"{package}/msg/{name}"
    return next((entry["hash_string"] for entry in hashes if entry["type_name"] == wanted), "")


def has_header(kind: Any) -> bool:
    """Tell whether the messages of a class begin with a std_msgs/msg/Header."""
    first = next(iter(kind.get_fields_and_field_types().items()), None)
    return first == ("header", "std_msgs/Header")


def profile(qos: Qos) -> QoSProfile:
    """Return what a bag notes as what rclpy takes."""
    return QoSProfile(
        history=HistoryPolicy(qos.history.value),
        depth=qos.depth,
        reliability=ReliabilityPolicy(qos.reliability.value),
        durability=DurabilityPolicy(qos.durability.value),
        deadline=_duration(qos.deadline),
        lifespan=_duration(qos.lifespan),
        liveliness=LivelinessPolicy(qos.liveliness.value),
        liveliness_lease_duration=_duration(qos.liveliness_lease_duration),
        avoid_ros_namespace_conventions=qos.avoid_ros_namespace_conventions,
    )


def _duration(time: QosTime) -> Duration:
    return Duration(nanoseconds=min(time.sec * 1_000_000_000 + time.nsec, LONGEST_NS))
