"""
A robot whose messages can be made again from their numbers, for finding out what a recorder lost.

A process of its own: ``python -m smwm_ros.nodes.numbered_sender --seed 0 --log sent.bin``. It sends
until it is ended, and notes every message in the log before sending it.
"""

from __future__ import annotations

import argparse
import heapq
import os
import struct
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState

from smwm_ros.contract import Contract
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.topics import APPLIED_ACTION
from smwm_ros.msg import AppliedAction
from smwm_ros.resources import find_contract

ROBOT = "reacher"
RATES = (25.0, 200.0, 50.0)
"""Images, joint states and actions in a second."""
LOGGED = struct.Struct("<BQq")
"""A message in the log: which topic, its number, and when it was sent (ns of the system's clock)."""
STAMP = slice(4, 12)
"""Where the header's stamp lies in a serialized message; it says the number."""


def topics(contract: Contract) -> tuple[str, str, str]:
    """Return the topics of images, joint states and actions, relative."""
    assert contract.observation.joints is not None
    return contract.observation.image.topic, contract.observation.joints.topic, APPLIED_ACTION


def numbered(contract: Contract, seed: int, topic: int, number: int) -> bytes:
    """
    Make a message, the same bytes each time.

    Args:
        contract: of the robot.
        seed: of all messages.
        topic: its place in :func:`topics`.
        number: of the message on its topic.
    """
    types = message_types()
    made = types.types
    generator = np.random.default_rng([seed, topic, number])
    stamp = made["builtin_interfaces/msg/Time"](number & 0x7FFFFFFF, 0)
    header = made["std_msgs/msg/Header"](stamp, "camera")
    stream, joints = contract.observation.image, contract.observation.joints
    assert joints is not None
    if topic == 0:
        pixels = generator.integers(0, 256, 3 * stream.width * stream.height, np.uint8)
        message = made["sensor_msgs/msg/Image"](
            header, stream.height, stream.width, "rgb8", 0, 3 * stream.width, pixels
        )
    elif topic == 1:
        values = generator.normal(size=(3, len(joints.names)))
        message = made["sensor_msgs/msg/JointState"](header, list(joints.names), *values)
    else:
        values = generator.normal(size=contract.action.size)
        message = made["smwm_ros/msg/AppliedAction"](header, stamp, values, 0, "")
    data = bytes(types.serialize_cdr(message, message.__msgtype__))
    return data + bytes(-len(data) % 4)  # as on the wire (RTPS)


def number_of(message: bytes) -> int:
    """Return the number that a serialized message says."""
    return int.from_bytes(message[STAMP], "little")


def send(seed: int, log: Path) -> None:
    """Send until the process is ended."""
    contract = find_contract(ROBOT)
    node = rclpy.create_node("numbered_sender")
    profile = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
    kinds = (Image, JointState, AppliedAction)
    publishers = [
        node.create_publisher(kind, topic, profile)
        for kind, topic in zip(kinds, topics(contract), strict=True)
    ]
    due = [(time.monotonic() + 0.001 * topic, topic, 1) for topic in range(len(kinds))]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while rclpy.ok():
        moment, topic, number = due[0]
        heapq.heapreplace(due, (moment + 1 / RATES[topic], topic, number + 1))
        data = numbered(contract, seed, topic, number)
        time.sleep(max(0.0, moment - time.monotonic()))
        os.write(file, LOGGED.pack(topic, number, time.time_ns()))
        publishers[topic].publish(data)


def main() -> None:
    """Send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments, ros = parser.parse_known_args()
    rclpy.init(args=ros)
    send(arguments.seed, arguments.log)


if __name__ == "__main__":
    main()
