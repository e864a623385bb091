"""
A robot that sends as much as it is told to, for measuring the recorder.

A process of its own: ``python -m smwm_ros.nodes.recording_load``. Every message says its number in its
stamp, so that the bag tells which ones are missing; what it sent, it prints as JSON.
"""

from __future__ import annotations

import argparse
import heapq
import json
import time
from collections.abc import Iterator

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState

from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.topics import APPLIED_ACTION
from smwm_ros.errors import StackError
from smwm_ros.msg import AppliedAction

WIDTH, HEIGHT = 640, 480
IMAGE, JOINTS = "camera/image_raw", "joint_states"
JOINTS_HZ, ACTIONS_HZ = 200.0, 50.0
SCENES = 60
"""Different pictures; after them, the film begins anew."""
NOISE = 2.0
"""Of the pictures: standard deviation in grey levels, as a small camera has indoors."""
WARM_UP = 2.0
"""Seconds of messages with the number 0, until sender and recorder have found each other."""
WAIT = 30.0
"""Longest wait for the recorder, seconds."""
STAMP = slice(4, 12)
"""Where the header's stamp lies in a serialized message; the first four bytes tell the encoding."""


def number_of(message: bytes | memoryview) -> int:
    """Return the number that a serialized message says."""
    return int.from_bytes(message[STAMP], "little")


def numbered(message: bytes, number: int) -> bytes:
    """Return a serialized message that says a number."""
    return b"".join((message[: STAMP.start], number.to_bytes(8, "little"), message[STAMP.stop :]))


def film() -> Iterator[bytes]:
    """Yield the pixels of a smooth scene that moves past, with the noise of a sensor."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, : WIDTH + 4 * SCENES].astype(np.float32)
    scene = np.stack(
        (
            120 + 60 * np.sin(x / 40) + 30 * np.cos(y / 30),
            100 + 50 * np.sin((x + y) / 55),
            110 + 70 * np.cos(x / 70 - y / 45),
        ),
        axis=-1,
    )
    for number in range(SCENES):
        seen = scene[:, 4 * number : 4 * number + WIDTH]
        noisy = seen + generator.normal(scale=NOISE, size=seen.shape)
        yield noisy.clip(0, 255).astype(np.uint8).tobytes()


def messages() -> dict[str, list[bytes]]:
    """Return what is sent on each topic, serialized, in turn."""
    types = message_types()
    made = types.types
    stamp = made["builtin_interfaces/msg/Time"](0, 0)
    header = made["std_msgs/msg/Header"](stamp, "camera")
    names = [f"joint_{number}" for number in range(7)]
    values = np.zeros(len(names))
    content = {
        IMAGE: [
            made["sensor_msgs/msg/Image"](
                header, HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, np.frombuffer(pixels, np.uint8)
            )
            for pixels in film()
        ],
        JOINTS: [made["sensor_msgs/msg/JointState"](header, names, values, values, values)],
        APPLIED_ACTION: [made["smwm_ros/msg/AppliedAction"](header, stamp, values, 0, "")],
    }
    return {
        topic: [bytes(types.serialize_cdr(message, message.__msgtype__)) for message in turn]
        for topic, turn in content.items()
    }


def send(seconds: float, images_hz: float) -> tuple[dict[str, int], float]:
    """
    Send for some time to the recorder; print a line when it begins in earnest.

    Returns:
        Messages sent on each topic: with the numbers 1, 2, ... up to this one; and the seconds it took.

    Raises:
        StackError: no recorder listens.
    """
    node = rclpy.create_node("recording_load")
    best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    publishers = {
        IMAGE: node.create_publisher(Image, IMAGE, best_effort),
        JOINTS: node.create_publisher(JointState, JOINTS, best_effort),
        APPLIED_ACTION: node.create_publisher(AppliedAction, APPLIED_ACTION, 100),
    }
    content = messages()
    rates = {IMAGE: images_hz, JOINTS: JOINTS_HZ, APPLIED_ACTION: ACTIONS_HZ}
    sent = dict.fromkeys(publishers, 0)
    deadline = time.monotonic() + WAIT
    while not all(publisher.get_subscription_count() for publisher in publishers.values()):
        if time.monotonic() > deadline:
            raise StackError(f"no recorder listened for {WAIT:.0f} s")
        time.sleep(0.05)
    begin = time.monotonic()
    due = [(begin + number / 1000, topic) for number, topic in enumerate(publishers)]
    while due[0][0] < begin + WARM_UP + seconds:
        moment, topic = due[0]
        heapq.heapreplace(due, (moment + 1 / rates[topic], topic))
        time.sleep(max(0.0, moment - time.monotonic()))
        if moment >= begin + WARM_UP:
            if not any(sent.values()):
                print("begin", flush=True)
            sent[topic] += 1
        turn = content[topic]
        publishers[topic].publish(numbered(turn[sent[topic] % len(turn)], sent[topic]))
    took = time.monotonic() - begin - WARM_UP
    node.destroy_node()
    return sent, took


def main() -> None:
    """Send, and print how many messages were sent and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--images-hz", type=float, default=30.0)
    arguments, ros = parser.parse_known_args()
    rclpy.init(args=ros)
    sent, seconds = send(arguments.seconds, arguments.images_hz)
    print(json.dumps({"sent": sent, "seconds": seconds}), flush=True)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
