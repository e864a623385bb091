"""
Perception and world model with a model that writes down what it is asked, for test_parity.

The latent of an image is the number that the image says. Run as a program it is one of the two nodes:
``python witness.py perception FILE --ros-args ...``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, ReliabilityPolicy

from smwm_ros import msg
from smwm_ros.contract import Contract, load_contract
from smwm_ros.messages import from_time
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.perception_node import PerceptionNode
from smwm_ros.nodes.process import run
from smwm_ros.nodes.world_model_node import WorldModelNode

EVERY = QoSProfile(depth=5000, reliability=ReliabilityPolicy.RELIABLE)
"""On a busy machine a node may not run for seconds."""


class Notes:
    """Lines of [what, value], each in the file as soon as it is noted."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)

    def note(self, what: str, value: Any) -> None:
        self._file.write(json.dumps([what, value]) + "\n")


def read_notes(path: Path, *what: str) -> list[Any]:
    """Return what was noted under some names."""
    lines = map(json.loads, path.read_text().splitlines())
    return [value for kind, value in lines if kind in what]


def number_of(image: NDArray[np.uint8]) -> int:
    """Read the number of an image of recordings.numbered, shape (H, W, 3)."""
    return int(image[0, 0, 0]) + 251 * int(image[0, 0, 1])


class WitnessModel:
    """Has what the two nodes use of a checkpoint."""

    id = "witness"
    latent_size = 1
    frames = 1

    def __init__(self, contract: Contract, notes: Notes) -> None:
        self._contract = contract
        self._notes = notes

    def require(self, contract: Contract) -> None:
        assert contract == self._contract

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        number = number_of(images[-1])
        if number:  # the black one is perception's own, at its start
            self._notes.note("encoded", number)
        return np.array([number], np.float32)

    def surprise(self, latent: Any, block: NDArray[np.float64], next_latent: Any) -> float:
        self._notes.note("step", [int(latent[0]), block.tolist(), int(next_latent[0])])
        return 0.0


class Perception(PerceptionNode):
    """Looks at every image and sends every latent, where the real one keeps only the newest of each."""

    notes: Notes

    def listen(self, kind: Any, topic: str, callback: Any, profile: QoSProfile) -> Any:
        return super().listen(kind, topic, callback, EVERY)

    def create_publisher(self, kind: Any, topic: str, profile: Any, **options: Any) -> Any:
        return super().create_publisher(kind, topic, EVERY, **options)

    def _on_image(self, message: Any) -> None:
        self.notes.note("image", from_time(message.header.stamp))
        self._work((message, time.monotonic()))


class WorldModel(WorldModelNode):
    """Notes each latent and each action, in the order in which they were taken."""

    notes: Notes

    def listen(self, kind: Any, topic: str, callback: Any, profile: QoSProfile) -> Any:
        return super().listen(kind, topic, callback, EVERY)

    def _on_latent(self, message: msg.Latent) -> None:
        super()._on_latent(message)
        self.notes.note("latent", from_time(message.header.stamp))

    def _on_applied(self, message: msg.AppliedAction) -> None:
        super()._on_applied(message)
        self.notes.note("action", from_time(message.header.stamp))


def make(name: str, path: Path) -> SmwmNode:
    """Make one of the nodes; it writes into a file."""
    notes = Notes(path)

    def load(checkpoint: str, device: str, threads: int) -> Any:
        return WitnessModel(load_contract(checkpoint), notes)

    kind = {"perception": Perception, "world_model": WorldModel}[name]
    kind.notes = notes
    return kind(name, load=load)


if __name__ == "__main__":
    run(lambda: make(sys.argv[1], Path(sys.argv[2])))
