"""The player as a process, over DDS: what lies in the bag goes out, byte for byte, in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from recordings import PERIOD, TYPES, action, header, joints, numbered, record
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.messages import from_time
from smwm_ros.msg import AppliedAction

SPACE = f"played_{os.getpid()}"
"""Another program in the same ROS domain must not hear this."""
KINDS = {"camera/image_raw": Image, "joint_states": JointState, "applied_action": AppliedAction}
EVERYTHING = QoSProfile(depth=5000, reliability=ReliabilityPolicy.RELIABLE)
CLOCK = QoSProfile(depth=5000, reliability=ReliabilityPolicy.BEST_EFFORT)
NO_TIME = QosTime(0, 0)
BEST_EFFORT = Qos(
    QosHistory.UNKNOWN,
    0,
    QosReliability.BEST_EFFORT,
    QosDurability.VOLATILE,
    NO_TIME,
    NO_TIME,
    QosLiveliness.AUTOMATIC,
    NO_TIME,
    False,
)
LATCHED = BEST_EFFORT._replace(reliability=QosReliability.RELIABLE, durability=QosDurability.TRANSIENT_LOCAL)


class Listener:
    """Somebody who listens to the player, in a thread."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self.node = Node("listener", context=self._context, namespace=SPACE)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def hear(self, kind: Any, topic: str, profile: QoSProfile = EVERYTHING, *, raw: bool = True) -> list[Any]:
        """Return a list that fills with a topic's messages."""
        heard: list[Any] = []
        self.node.create_subscription(kind, topic, heard.append, profile, raw=raw)
        return heard

    def offers(self, topic: str) -> list[QoSProfile]:
        """Return what a topic's publishers offer."""
        return [info.qos_profile for info in self.node.get_publishers_info_by_topic(f"/{SPACE}/{topic}")]

    def pause(self, paused: bool) -> str:
        """Pause the player, or let it go on; return what it says."""
        client = self.node.create_client(SetBool, "player/pause")
        assert client.wait_for_service(30)
        future = client.call_async(SetBool.Request(data=paused))
        wait(future.done)
        assert future.result().success
        return str(future.result().message)

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        self._context.try_shutdown()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def play(bag: Path, *options: str) -> subprocess.Popen[str]:
    """Start `smwm play` in a namespace of the tests' own."""
    command = [sys.executable, "-m", "smwm_ros.cli.main", "play", str(bag), "--json", "--namespace", SPACE]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """Wait for the end; return exit code, JSON and what it told people."""
    output, told = process.communicate(timeout=90)
    return process.returncode, json.loads(output) if output else {}, told


def padded(data: bytes) -> bytes:
    """Return a message as RTPS sends it, with a length that is divisible by four."""
    return data + bytes(-len(data) % 4)


def test_every_message_goes_out_byte_for_byte(listener: Listener, tmp_path: Path) -> None:
    """In order, in another namespace, counted; and /clock shows the time at which they were received."""
    bag = tmp_path / "bag"
    written: dict[str, list[bytes]] = {topic: [] for topic in KINDS}
    with BagWriter(bag) as writer:
        for number in range(100):
            stamp = number * PERIOD
            messages = (numbered(stamp, number), joints(stamp, [number, 0.5]), action(stamp, [number, -1.0]))
            for (topic, kind), message in zip(written.items(), messages, strict=True):
                if number == 0:
                    writer.add_topic(f"/{topic}", message.__msgtype__)
                data = bytes(message_types().serialize_cdr(message, message.__msgtype__))
                writer.write(f"/{topic}", 10**18 + number * 10_000_000, data)
                kind.append(padded(data))
    heard = {topic: listener.hear(kind, topic) for topic, kind in KINDS.items()}
    clocks = listener.hear(Clock, "/clock", CLOCK, raw=False)
    code, result, told = finish(play(bag, "--rate", "2", "--clock", "50", "--wait", "60"))
    assert code == 0, told
    wait(lambda: all(len(messages) == 100 for messages in heard.values()))
    assert {topic: list(map(padded, messages)) for topic, messages in heard.items()} == written
    assert result["messages"] == 300
    assert result["topics"] == {f"/{topic}": 100 for topic in KINDS}
    assert (result["rounds"], result["interrupted"], result["skipped"]) == (1, False, {})
    assert result["seconds"] >= 0.495
    assert 0 <= result["median_lateness_ms"] <= result["worst_lateness_ms"]
    stamps = [from_time(clock.clock) - 10**18 for clock in clocks]
    assert stamps == sorted(stamps)
    assert 0 <= stamps[0] <= stamps[-1] <= 990_000_000
    assert len(set(stamps)) > 1


def test_loop_pause_and_ctrl_c(listener: Listener, tmp_path: Path) -> None:
    """The clock and the stamps are set back with each round; a pause stops both, and Ctrl-C ends it."""
    images = listener.hear(Image, "camera/image_raw", raw=False)
    clocks = listener.hear(Clock, "/clock", CLOCK, raw=False)
    bag = record(tmp_path / "bag", ticks=50)  # 0.15 s
    process = play(bag, "--loop", "--clock", "200", "--topics", "camera/*", "--wait", "60")
    try:
        wait(lambda: len(images) > 120)
        assert listener.pause(True).startswith("paused at 0.")
        wait(lambda: len(clocks) > 10 and len({from_time(clock.clock) for clock in clocks[-10:]}) == 1)
        paused = len(images)
        seen = len(clocks)
        wait(lambda: len(clocks) > seen + 20)
        assert len(images) == paused
        assert listener.pause(False).startswith("playing at 0.")
        wait(lambda: len(images) > paused + 120)
        process.send_signal(signal.SIGINT)
        code, result, told = finish(process)
    finally:
        process.kill()
    assert code == 130, told
    assert "Traceback" not in told
    assert result["interrupted"]
    assert result["rounds"] >= 4
    assert set(result["topics"]) == {"/camera/image_raw"}
    numbers = [from_time(image.header.stamp) // PERIOD - 1 for image in images]
    assert numbers == [number % 50 for number in range(len(numbers))]
    stamps = [from_time(clock.clock) for clock in clocks]
    backwards = sum(after < before for before, after in pairwise(stamps))
    assert 1 <= backwards <= result["rounds"]


def test_quality_of_service_is_the_recorded_one_unless_overridden(listener: Listener, tmp_path: Path) -> None:
    """And who comes late gets what was latched."""
    with BagWriter(tmp_path / "bag") as bag:
        for topic, kind, qos in (
            ("/camera/image_raw", "sensor_msgs/msg/Image", BEST_EFFORT),
            ("/joint_states", "sensor_msgs/msg/JointState", BEST_EFFORT),
            ("/label", "std_msgs/msg/String", LATCHED),
        ):
            bag.add_topic(topic, kind, qos)
        label = TYPES["std_msgs/msg/String"](data="a cup")
        bag.write("/label", 10**9, bytes(message_types().serialize_cdr(label, "std_msgs/msg/String")))
        for topic, message in (
            ("/camera/image_raw", numbered(0, 1)),
            ("/joint_states", joints(0, [1.0, 2.0])),
        ):
            data = bytes(message_types().serialize_cdr(message, message.__msgtype__))
            bag.write(topic, 2 * 10**9, data)
    overrides = tmp_path / "qos.yaml"
    overrides.write_text("/joint_states: {reliability: reliable, depth: 7}\n")
    clocks = listener.hear(Clock, "/clock", CLOCK, raw=False)
    process = play(tmp_path / "bag", "--loop", "--wait", "0", "--qos", str(overrides), "--clock", "50")
    try:
        wait(lambda: all(map(listener.offers, ("camera/image_raw", "joint_states", "label"))))
        (camera,), (joint,), (label,) = map(listener.offers, ("camera/image_raw", "joint_states", "label"))
        assert camera.reliability is ReliabilityPolicy.BEST_EFFORT
        assert joint.reliability is ReliabilityPolicy.RELIABLE
        assert label.durability is DurabilityPolicy.TRANSIENT_LOCAL
        wait(lambda: clocks and from_time(clocks[-1].clock) > 10**9)  # the label has gone out
        listener.pause(True)
        latched = QoSProfile(
            depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        heard = listener.hear(String, "label", latched, raw=False)
        wait(lambda: heard)
        assert heard[0].data == "a cup"
        process.send_signal(signal.SIGTERM)
        assert finish(process)[0] == 143
    finally:
        process.kill()
    process = play(tmp_path / "bag", "--reliable", "--wait", "60")
    heard = listener.hear(Image, "camera/image_raw")
    listener.hear(JointState, "joint_states")
    assert finish(process)[0] == 0
    wait(lambda: len(heard) == 1)


def test_types_that_are_not_here_are_left_out_unless_asked_for(listener: Listener, tmp_path: Path) -> None:
    """One unknown type must not keep all others from playing; a type that has changed counts as unknown."""
    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(get_types_from_msg("uint8 x", "nowhere_msgs/msg/Thing"))
    changed = get_typestore(Stores.EMPTY)
    changed.register(get_types_from_msg("string data\nuint8 colour", "std_msgs/msg/String"))
    bag = tmp_path / "bag"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for topic, kind, store, value in (
            ("/thing", "nowhere_msgs/msg/Thing", types, {"x": 3}),
            ("/text", "std_msgs/msg/String", changed, {"data": "a", "colour": 1}),
            ("/header", "std_msgs/msg/Header", types, {"stamp": header(5).stamp, "frame_id": "f"}),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            data = store.serialize_cdr(store.types[kind](**value), kind)
            writer.write(connection, 10**9, data)
    code, result, told = finish(play(bag, "--wait", "0"))
    assert code == 0, told
    assert result["topics"] == {"/header": 1}
    assert result["skipped"] == {
        "/text": "the message type std_msgs/msg/String has another definition here than in the bag",
        "/thing": "the message type nowhere_msgs/msg/Thing is not installed here",
    }
    assert "/thing is left out: the message type" in told
    code, result, told = finish(play(bag, "--topics", "/header", "--topics", "thing"))
    assert code == 2
    assert "cannot play /thing: the message type nowhere_msgs/msg/Thing is not installed" in told
    code, result, told = finish(play(bag, "--topics", "/th*"))
    assert code == 2
    assert "nothing can be played" in told


def test_a_damaged_bag_is_an_error_with_its_name(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag", ticks=300)
    (file,) = bag.glob("*.mcap")
    content = bytearray(file.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 64] = bytes(64)
    file.write_bytes(content)
    code, result, told = finish(play(bag, "--wait", "0", "--rate", "10"))
    assert code == 2
    assert not result
    assert str(bag) in "".join(told.split())
    assert "Traceback" not in told


def test_the_node_ends_by_itself(listener: Listener, tmp_path: Path) -> None:
    """`ros2 run smwm_ros player_node`: parameters, remaps, exit codes."""
    bag = record(tmp_path / "bag", ticks=20)
    images = listener.hear(Image, "other")

    def run(*parameters: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "smwm_ros.nodes.player_node", "--ros-args", "-r", f"__ns:=/{SPACE}"]
        for parameter in (f"bag:={bag}", "wait:=60.0", "topics:=camera/*", *parameters):
            command += ["-p", parameter]
        command += ["-r", "camera/image_raw:=other"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    wrong = {
        "rate:=0.0": "rate",
        "start:=9.0": "cannot start at 9 s",
        f"bag:={tmp_path / 'nowhere'}": "no such bag",
        "qos:=nowhere.yaml": "cannot read the QoS overrides",
    }
    running = {parameter: run(parameter) for parameter in wrong}
    right = run()
    _, said = right.communicate(timeout=90)
    assert right.returncode == 0, said
    wait(lambda: len(images) == 20)
    for parameter, process in running.items():
        _, said = process.communicate(timeout=90)
        assert process.returncode == 1
        assert wrong[parameter] in said
        assert "Traceback" not in said
