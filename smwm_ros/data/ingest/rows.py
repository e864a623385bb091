"""What a bag holds for learning: the contract's topics, found by name and aligned row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.alignment import Aligner, Row
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import (
    APPLIED_ACTION,
    APPLIED_ACTION_TYPE,
    EPISODE_EVENT_TYPE,
    EPISODE_EVENTS,
    JOINT_STATE_TYPE,
    find_topic,
    stamp_of,
)
from smwm_ros.data.commands import decode_command
from smwm_ros.data.depth import depth_picture
from smwm_ros.data.encodings import Picture
from smwm_ros.data.images import picture
from smwm_ros.data.ingest.decode import Event, decoded
from smwm_ros.errors import ContractError, DataError

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
MOST_BAD = 50
"""Messages of a topic, from the first on, that may be unusable until the whole bag is refused."""
CAN_BE_BAD = ("image", "command", "depth")
THREADS_FROM = 128 * 128
"""Pixels of a raw image from which on handing it to another thread pays."""

Progress = Callable[[int, int], None]
"""Called with the messages of a bag read so far, and how many there are."""
PROGRESS_EVERY = 200


@dataclass(frozen=True)
class Topics:
    """Full names of what is read from a bag."""

    images: str
    actions: str
    commands: bool
    """Whether ``actions`` is the contract's command topic, in place of the actions applied."""
    joints: str | None
    depth: str | None
    events: str | None

    @property
    def all(self) -> list[str]:
        """Those that are there."""
        names = (self.images, self.actions, self.joints, self.depth, self.events)
        return [name for name in names if name is not None]


def find_topics(bag: BagReader, contract: Contract, namespace: str = "", depth: bool = False) -> Topics:
    """
    Find the topics of a contract in a bag.

    A bag that holds no ``applied_action`` was not made by this package's recorder: there, the
    contract's commands are taken for what was applied.

    Raises:
        DataError: one is missing, has another type, or is there in several namespaces.
        ContractError: depth is wanted, but the contract has none.
    """
    observation = contract.observation
    images = find_topic(bag, observation.image.topic, observation.image.type, namespace)
    commands = False
    try:
        actions = find_topic(bag, APPLIED_ACTION, APPLIED_ACTION_TYPE, namespace)
    except DataError:
        if any(topic.endswith(f"/{APPLIED_ACTION}") for topic in bag.topics):
            raise
        try:
            actions = find_topic(bag, contract.action.topic, contract.action.type, namespace)
        except DataError as error:
            raise DataError(
                f"{error} (nor {APPLIED_ACTION}, which is recorded while the action node runs)"
            ) from error
        commands = True
    joints = events = None
    if observation.joints:
        joints = find_topic(bag, observation.joints.topic, JOINT_STATE_TYPE, namespace)
    with suppress(DataError):
        events = find_topic(bag, EPISODE_EVENTS, EPISODE_EVENT_TYPE, namespace)
    found = _find_depth(bag, contract, namespace) if depth else None
    return Topics(images, actions, commands, joints, found, events)


def _find_depth(bag: BagReader, contract: Contract, namespace: str) -> str:
    stream = contract.observation.depth
    if stream is None:
        raise ContractError(
            f"the contract {contract.name!r} has no observation.depth; add it, or leave out --depth"
        )
    try:
        return find_topic(bag, stream.topic, IMAGE_TYPE, namespace)
    except DataError:
        for topic in (stream.topic, f"{stream.topic}/compressedDepth"):
            with suppress(DataError):
                return find_topic(bag, topic, COMPRESSED_TYPE, namespace)
        raise


class BagRows:
    """
    The rows of a bag's episodes, and what was left out on the way.

    Attributes:
        aligner: its counts.
        reasons: why the first unusable message of a kind (image, command, depth) is unusable.
    """

    def __init__(
        self,
        bag: BagReader,
        contract: Contract,
        *,
        namespace: str = "",
        depth: bool = False,
        threads: int = 0,
    ) -> None:
        """
        Find the topics.

        Args:
            bag: open.
            contract: how to read it.
            namespace: of the robot, where a bag holds several.
            depth: read the depth topic as well.
            threads: decode so many images at a time; 0 decodes one after another.

        Raises:
            DataError: see :func:`find_topics`.
        """
        self.topics = find_topics(bag, contract, namespace, depth)
        self.aligner: Aligner[Picture] = Aligner(contract, depth=depth)
        self.reasons: dict[str, str] = {}
        self._good = dict.fromkeys(CAN_BE_BAD, 0)
        self._bad = dict.fromkeys(CAN_BE_BAD, 0)
        self._bag = bag
        self._contract = contract
        stream = contract.observation.image
        small = stream.type == IMAGE_TYPE and stream.width * stream.height < THREADS_FROM
        self._threads = 0 if small else threads

    def read(self, progress: Progress | None = None) -> Iterator[Row[Picture]]:
        """
        Read the bag; once.

        Raises:
            DataError: the bag is damaged, none of its images or commands can be used, or its actions
                are of another size than the contract's.
        """
        aligner = self.aligner
        for event in decoded(self._events(progress), self._threads):
            kind, stamp, value = event.kind, event.stamp, event.value
            if isinstance(value, DataError):
                self._refuse(kind, value)
                if kind == "command":
                    yield from aligner.add_action(stamp, np.full(self._contract.action.size, np.nan))
                continue
            if kind in self._good:
                self._good[kind] += 1
            if kind == "image":
                yield from aligner.add_image(stamp, value)
            elif kind == "event":
                aligner.add_event(stamp, outcome=value.outcome, label=value.label, ends=value.ends)
            elif kind == "depth":
                yield from aligner.add_depth(stamp, value)
            elif kind == "joints":
                yield from aligner.add_joints(stamp, value)
            else:
                yield from aligner.add_action(stamp, value)
        for kind in CAN_BE_BAD:
            if self._bad[kind] and not self._good[kind]:
                raise self._none_usable(kind)
        yield from aligner.finish()

    def bad(self, kind: str) -> int:
        """
        Count the messages that cannot be decoded, or are not as the contract says.

        Args:
            kind: ``image`` and ``depth``, which are left out; ``command``, which leaves the action unknown.
        """
        return self._bad[kind]

    def _events(self, progress: Progress | None) -> Iterator[Event]:
        bag, contract, topics = self._bag, self._contract, self.topics
        observation = contract.observation
        to_picture = partial(picture, stream=observation.image)
        to_command = partial(decode_command, contract)
        joints = JointReader(observation.joints.names if observation.joints else ())
        total = bag.count(topics.all)
        for done, (topic, received, message) in enumerate(bag.messages(topics.all)):
            if topic == topics.images:
                yield Event("image", stamp_of(message), message, to_picture, len(message.data))
            elif topic == topics.actions:
                if topics.commands:
                    yield Event("command", _stamp_or(received, message), message, to_command)
                else:
                    yield Event("action", stamp_of(message), self._applied(message))
            elif topic == topics.joints:
                positions = joints.read(message)
                if positions is not None:
                    yield Event("joints", stamp_of(message), positions)
            elif topic == topics.depth and observation.depth is not None:
                to_depth = partial(depth_picture, depth=observation.depth, image=observation.image)
                yield Event("depth", stamp_of(message), message, to_depth, len(message.data))
            else:
                yield Event("event", stamp_of(message), message)
            if progress is not None and done % PROGRESS_EVERY == 0:
                progress(done, total)
        if progress is not None:
            progress(total, total)

    def _applied(self, message: Any) -> NDArray[np.float64]:
        if len(message.values) != self._contract.action.size:
            raise DataError(
                f"{self._bag.path}: {self.topics.actions} holds actions of {len(message.values)} numbers, "
                f"but the contract {self._contract.name!r} says {self._contract.action.size}; give the "
                "contract of this robot"
            )
        values: NDArray[np.float64] = message.values
        return values

    def _refuse(self, kind: str, error: DataError) -> None:
        self.reasons.setdefault(kind, str(error))
        self._bad[kind] += 1
        if self._bad[kind] == MOST_BAD and not self._good[kind]:
            raise self._none_usable(kind)

    def _none_usable(self, kind: str) -> DataError:
        topics = {"image": self.topics.images, "command": self.topics.actions, "depth": self.topics.depth}
        return DataError(
            f"{self._bag.path}: not one of the first {self._bad[kind]} messages of {topics[kind]} can be "
            f"used: {self.reasons[kind]}"
        )


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


def _stamp_or(received: int, message: Any) -> int:
    """Return the stamp of a command; the time of reception where there is none, or zero for "now"."""
    return (stamp_of(message) if hasattr(message, "header") else 0) or received
