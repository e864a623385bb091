"""What a bag holds besides messages: which topics, under which robot contract."""

from __future__ import annotations

from typing import Any

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.data.bags.definitions import lacking
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.errors import DataError

CONTRACT_KEY = "robot_contract"
"""Name under which the recorder notes the contract (JSON) in a bag's metadata."""
APPLIED_ACTION = "applied_action"
APPLIED_ACTION_TYPE = "smwm_ros/msg/AppliedAction"
JOINT_STATE_TYPE = "sensor_msgs/msg/JointState"
EPISODE_EVENTS = "episode_events"
EPISODE_EVENT_TYPE = "smwm_ros/msg/EpisodeEvent"


def noted_contract(bag: BagReader) -> Contract:
    """
    Return the contract that the recorder noted in a bag.

    Raises:
        DataError: there is none.
        ContractError: it is not valid.
    """
    if CONTRACT_KEY not in bag.custom_data:
        raise DataError(
            f"{bag.path}: the bag does not say under which robot contract it was recorded; "
            "give the contract with --contract"
        )
    return parse_contract(bag.custom_data[CONTRACT_KEY], f"{bag.path}: {CONTRACT_KEY}")


def find_topic(bag: BagReader, topic: str, kind: str, namespace: str = "") -> str:
    """
    Find the full name under which a bag holds a topic of the contract.

    Args:
        bag: an open bag.
        topic: relative name.
        kind: message type that it must have.
        namespace: of the robot; without one, any namespace will do if only one has the topic.

    Raises:
        DataError: it is not there, has another type, or is there in several namespaces; lists the topics.
    """
    there = ", ".join(f"{name} ({held})" for name, held in sorted(bag.topics.items())) or "none"
    name = "/" + "/".join(part for part in (namespace.strip("/"), topic.strip("/")) if part)
    found = [name] if name in bag.topics else []
    if not found and not namespace:
        found = sorted(candidate for candidate in bag.topics if candidate.endswith(name))
    if not found:
        hint = "; it is recorded while the action node runs" if topic == APPLIED_ACTION else ""
        raise DataError(f"{bag.path}: the bag has no topic {name} ({kind}){hint}. Topics in it: {there}")
    if len(found) > 1:
        raise DataError(
            f"{bag.path}: several topics could be {topic}: {', '.join(found)}; "
            "choose the robot with --namespace"
        )
    if bag.topics[found[0]] != kind:
        raise DataError(
            f"{bag.path}: {found[0]} has the type {bag.topics[found[0]]}, but {kind} is expected; "
            "correct the contract"
        )
    lacked = lacking(kind, bag.channel(found[0]).definition)
    if lacked:
        raise DataError(
            f"{bag.path}: in this bag, {kind} ({found[0]}) is defined otherwise than in ROS 2: "
            f"{lacked} is missing or of another type"
        )
    return found[0]


def stamp_of(message: Any) -> int:
    """Return the stamp of a message with a header, in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
