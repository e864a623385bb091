"""What a bag holds for learning: the contract's topics, found by name and aligned row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.alignment import Aligner, Row
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import (
    APPLIED_ACTION,
    APPLIED_ACTION_TYPE,
    JOINT_STATE_TYPE,
    find_topic,
    stamp_of,
)
from smwm_ros.errors import DataError

Progress = Callable[[int, int], None]
"""Called with the messages of a bag read so far, and how many there are."""
PROGRESS_EVERY = 500


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
