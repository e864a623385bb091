"""What a bag holds for learning: the contract's topics, found by name and aligned row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.data.alignment import Aligner, Row
from smwm_ros.data.bags import BagReader
from smwm_ros.errors import DataError

CONTRACT_KEY = "robot_contract"
"""Name under which the recorder notes the contract (JSON) in a bag's metadata."""
APPLIED_ACTION = "applied_action"
APPLIED_ACTION_TYPE = "smwm_ros/msg/AppliedAction"
JOINT_STATE_TYPE = "sensor_msgs/msg/JointState"

Progress = Callable[[int, int], None]
"""Called with the messages of a bag read so far, and how many there are."""
PROGRESS_EVERY = 500


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


def aligned_rows(
    bag: BagReader,
    aligner: Aligner[Any],
    contract: Contract,
    namespace: str = "",
    progress: Progress | None = None,
) -> Iterator[Row[Any]]:
    """
    Read a bag's messages through an aligner.

    Yields:
        Rows whose ``image`` is the message, not yet decoded.

    Raises:
        DataError: a topic is missing or has another type, or actions of another size than the contract's.
    """
    observation = contract.observation
    images = find_topic(bag, observation.image.topic, observation.image.type, namespace)
    actions = find_topic(bag, APPLIED_ACTION, APPLIED_ACTION_TYPE, namespace)
    topics = [images, actions]
    joints: JointReader | None = None
    if observation.joints:
        joints = JointReader(observation.joints.names)
        topics.append(find_topic(bag, observation.joints.topic, JOINT_STATE_TYPE, namespace))
    total = bag.count(topics)
    for done, (topic, _, message) in enumerate(bag.messages(topics)):
        stamp = stamp_of(message)
        if topic == images:
            yield from aligner.add_image(stamp, message)
        elif topic == actions:
            if len(message.values) != contract.action.size:
                raise DataError(
                    f"{bag.path}: {topic} holds actions of {len(message.values)} numbers, but the contract "
                    f"{contract.name!r} says {contract.action.size}; give the contract of this robot"
                )
            yield from aligner.add_action(stamp, message.values)
        elif joints is not None:
            positions = joints.read(message)
            if positions is not None:
                yield from aligner.add_joints(stamp, positions)
        if progress is not None and done % PROGRESS_EVERY == 0:
            progress(done, total)
    yield from aligner.finish()
    if progress is not None:
        progress(total, total)


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
    return found[0]


def stamp_of(message: Any) -> int:
    """Return the stamp of a message with a header, in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


class JointReader:
    """Pick the contract's joints out of JointState messages."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._layout: list[str] = []
        self._places: list[int] | None = None

    def read(self, message: Any) -> NDArray[np.float64] | None:
        """Return the positions, shape (J,); None if the message is of other joints, or lacks positions."""
        if message.name != self._layout:
            self._layout = list(message.name)
            known = set(self._names) <= set(self._layout)
            self._places = [self._layout.index(name) for name in self._names] if known else None
        if self._places is None or len(message.position) != len(self._layout):
            return None
        return np.asarray(message.position, np.float64)[self._places]
