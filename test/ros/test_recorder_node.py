"""The recorder as a process, over DDS: what was sent is in the bag, whatever ends the recorder."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from recordings import action, image, joints, robot
from rosbags.interfaces import QosReliability
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from smwm_ros.cli.recording import record
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError
from smwm_ros.msg import AppliedAction, EpisodeEvent
from smwm_ros.nodes import recording_load
from smwm_ros.resources import find_contract
from smwm_ros.srv import MarkEpisode, Snapshot, StartRecording

CONTRACT = robot()
SPACE = f"/recorded_{os.getpid()}"
"""Of the robot: another program in the same ROS domain must not be recorded."""
KINDS = {"camera/image_raw": Image, "joint_states": JointState, "applied_action": AppliedAction}


class Sender:
    """A robot that sends numbered messages, and remembers them serialized."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node("robot", context=self.context, namespace=SPACE)
        profile = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        self.publishers = {
            topic: self.node.create_publisher(kind, topic, profile) for topic, kind in KINDS.items()
        }
        self.sent: dict[str, list[bytes]] = {f"{SPACE}/{topic}": [] for topic in KINDS}
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.statuses: list[DiagnosticStatus] = []
        """What the recorder has said of itself."""
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda message: self.statuses.extend(message.status), 100
        )

    def call(self, kind: Any, name: str, **request: Any) -> Any:
        """Call a service of the recorder; return its response."""
        client = self.node.create_client(kind, f"recorder/{name}")
        assert client.wait_for_service(40)
        future = client.call_async(kind.Request(**request))
        self.executor.spin_until_future_complete(future, 40)
        self.node.destroy_client(client)
        assert future.done(), f"{name} was not answered"
        return future.result()

    def wait_for_recorder(self, folder: Path) -> None:
        """
        Send the number 0 until it is recorded on every topic; then nothing is sent yet.

        A publisher knows a subscription before that knows the publisher, and what is sent in between
        is lost.
        """

        def arrived() -> bool:
            self.tick(0)
            time.sleep(0.1)
            return all(len(numbers(folder, topic)) > 0 for topic in KINDS)

        wait(arrived)
        time.sleep(0.5)
        self.sent = {topic: [] for topic in self.sent}

    def tick(self, number: int, noise: int = 0) -> None:
        stamp = number * 10**9
        picture = np.full((12, 12, 3), number % 256, np.uint8)
        if noise:
            picture = np.random.default_rng(number).integers(0, 256, (1, noise, 3), np.uint8)
        messages = {
            "camera/image_raw": image(stamp, picture),
            "joint_states": joints(stamp, [number, 0.0]),
            "applied_action": action(stamp, [number, 0.5]),
        }
        for topic, message in messages.items():
            # By rosbags and not by rclpy, which appends whatever was in memory.
            data = bytes(message_types().serialize_cdr(message, message.__msgtype__))
            data += bytes(-len(data) % 4)  # as RTPS does on the wire
            self.publishers[topic].publish(data)
            self.sent[f"{SPACE}/{topic}"].append(data)


@pytest.fixture
def sender() -> Iterator[Sender]:
    """Return a robot that sends."""
    made = Sender()
    yield made
    made.executor.shutdown()
    made.node.destroy_node()
    made.context.try_shutdown()


def wait(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextmanager
def recorder(folder: Path, /, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a recorder that writes into ``folder/bag``."""
    contract = folder / "tiny.yaml"
    contract.write_text(CONTRACT.model_dump_json())
    limit = options.pop("file_size", None)
    parameters = {"contract": contract, "bag": folder / "bag", "sensor_reliability": "reliable", **options}
    command = [sys.executable, "-m", "smwm_ros.nodes.recorder_node", "--ros-args", "-r", f"__ns:={SPACE}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if limit:  # as a disk that is full
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def recorded(folder: Path) -> dict[str, list[bytes]]:
    """Read the bag's messages, serialized, by rosbags alone."""
    with Reader(folder / "bag") as reader:
        found: dict[str, list[bytes]] = {}
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(bytes(data))
    return found


def numbers(folder: Path, topic: str = "camera/image_raw") -> list[int]:
    """Read what a topic's messages say, also from a bag that was cut off; nothing if it is still empty."""
    if not any((folder / "bag").glob("*.mcap")):
        return []
    try:
        bag = BagReader(folder / "bag")
    except DataError:
        return []
    with bag:
        return [message.header.stamp.sec for _, _, message in bag.messages([f"{SPACE}/{topic}"])]


def images(folder: Path) -> list[int]:
    """Read the numbers of the images, but for the zeros that are sent while waiting for the recorder."""
    return [number for number in numbers(folder) if number]


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    process.send_signal(number)
    output, _ = process.communicate(timeout=40)
    return process.returncode, output


def test_the_load_of_the_benchmark_says_its_numbers() -> None:
    """In the stamp, as ROS reads it, and nowhere else: what the benchmark counts must be what was sent."""
    plain = bytes(message_types().serialize_cdr(joints(0, [1.0, 2.0]), "sensor_msgs/msg/JointState"))
    changed = recording_load.numbered(plain, 70_000)
    assert recording_load.number_of(changed) == 70_000
    message = message_types().deserialize_cdr(changed, "sensor_msgs/msg/JointState")
    assert (message.header.stamp.sec, message.name, message.position.tolist()) == (70_000, ["a", "b"], [1, 2])


def test_every_message_is_kept_byte_for_byte(sender: Sender, tmp_path: Path) -> None:
    """In order, with the publisher's QoS and the contract, and the bag is whole after Ctrl-C."""
    with recorder(tmp_path) as process:
        sender.wait_for_recorder(tmp_path)
        for tick in range(1, 301):
            sender.tick(tick)
            time.sleep(0.001)
        wait(lambda: len(images(tmp_path)) == 300)
        code, output = end(process, signal.SIGINT)
    assert code == 0, output
    assert f"of {SPACE}/camera/image_raw" in output
    assert "0 messages were lost" in output
    assert {topic: messages[-300:] for topic, messages in recorded(tmp_path).items()} == sender.sent
    with BagReader(tmp_path / "bag") as bag:
        assert bag.notes == []
        assert "robot_contract" in bag.custom_data
        received = [stamp for _, stamp, _ in bag.messages(bag.topics)]
    assert abs(received[0] - time.time_ns()) < 3600 * 10**9, "log times are the system clock's"
    with Reader(tmp_path / "bag") as reader:
        for connection in reader.connections:
            assert connection.ext.offered_qos_profiles[0].reliability == QosReliability.RELIABLE  # type: ignore[union-attr]


def test_a_killed_recorder_leaves_what_it_had(sender: Sender, tmp_path: Path) -> None:
    """Nothing but time passing brings messages to the disk: no more of them, and no orderly end."""
    with recorder(tmp_path) as process:
        sender.wait_for_recorder(tmp_path)
        for tick in range(1, 51):
            sender.tick(tick)
        wait(lambda: len(images(tmp_path)) == 50)
        process.kill()
        process.wait(10)
    assert images(tmp_path) == list(range(1, 51))
    with BagReader(tmp_path / "bag") as bag:
        assert "cut off" in bag.notes[0]
        assert "robot_contract" in bag.custom_data


def test_a_backlog_is_bounded_and_counted(sender: Sender, tmp_path: Path) -> None:
    """Memory must not grow without end; but what is lost has to be told: kept and lost make sent."""
    with recorder(tmp_path, queue=4) as process:
        sender.wait_for_recorder(tmp_path)
        before = sum(len(numbers(tmp_path, topic)) for topic in KINDS)
        process.send_signal(signal.SIGSTOP)  # as a disk that stalls
        for tick in range(1, 61):
            sender.tick(tick)
        time.sleep(0.5)
        process.send_signal(signal.SIGCONT)
        wait(lambda: bool(images(tmp_path)) and images(tmp_path)[-1] == 60)
        code, output = end(process, signal.SIGTERM)
    kept = sum(map(len, recorded(tmp_path).values())) - before
    assert code == 0
    assert len(images(tmp_path)) < 60
    lost = int(output.rpartition(" messages were lost")[0].rpartition(" ")[2])
    assert kept + lost == 3 * 60
    assert "were lost on the way to the recorder" in output


def test_a_full_disk_ends_the_recording_with_an_error(sender: Sender, tmp_path: Path) -> None:
    """The exit code and the last diagnostics tell why, and what was written before can be read."""
    with recorder(tmp_path, file_size=300_000) as process:
        sender.wait_for_recorder(tmp_path)
        tick = 0
        while process.poll() is None and tick < 5000:
            tick += 1
            sender.tick(tick, noise=700)
            sender.executor.spin_once(0.005)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    wait(lambda: (sender.executor.spin_once(0.1), sender.statuses[-1].level == DiagnosticStatus.ERROR)[1])
    assert "File too large" in sender.statuses[-1].message
    assert "recording has stopped" in output
    assert "make room on the disk" in output
    assert "Traceback" not in output
    kept = images(tmp_path)
    assert len(kept) > 20
    assert kept == list(range(1, 1 + len(kept)))


def test_services_start_mark_and_stop(sender: Sender, tmp_path: Path) -> None:
    """Two bags from one recorder, each with its own messages; what is said of an episode lies in its bag."""
    with recorder(tmp_path, record=False, folder=tmp_path, snapshot_seconds=3600.0) as process:
        assert not sender.call(Trigger, "stop").success
        sender.call(StartRecording, "start", bag="bag")
        sender.wait_for_recorder(tmp_path)
        again = sender.call(StartRecording, "start", bag="other")
        assert not again.success
        assert "already recording" in again.message
        sender.tick(1)
        wait(lambda: images(tmp_path) == [1])
        marked = sender.call(
            MarkEpisode, "mark_episode", outcome=EpisodeEvent.SUCCESS, label="cup", ends=True
        )
        assert marked.success
        assert not sender.call(MarkEpisode, "mark_episode", outcome=9).success
        sender.tick(2)
        wait(lambda: images(tmp_path) == [1, 2])
        stopped = sender.call(Trigger, "stop")
        assert (stopped.success, stopped.message) == (True, str(tmp_path / "bag"))
        sender.tick(3)
        wait(lambda: sender.call(Snapshot, "snapshot", bag=f"kept_{time.monotonic_ns()}").messages >= 3)
        second = sender.call(StartRecording, "start")
        assert Path(second.bag).name.startswith("tiny_2")
        sender.tick(4)
        snapshot = sender.call(Snapshot, "snapshot", bag="last")
        for kind, name in ((StartRecording, "start"), (Snapshot, "snapshot")):
            for astray in ("../astray", str(tmp_path.parent / "astray"), "~/astray", "bag/../../astray"):
                refused = sender.call(kind, name, bag=astray)
                assert not refused.success
                assert "not within the recorder's folder" in refused.message
        assert not (tmp_path.parent / "astray").exists()
        code, output = end(process, signal.SIGINT)
    assert code == 0, output
    with BagReader(tmp_path / "bag") as bag:
        assert bag.notes == [], "the bag is whole after stop"
        events = [message for _, _, message in bag.messages([f"{SPACE}/episode_events"])]
        topics = [topic for topic, _, _ in bag.messages(bag.topics)]
    assert [(event.outcome, event.label, event.ends) for event in events] == [(1, "cup", True)]
    assert events[0].header.stamp.sec == marked.stamp.sec
    event = topics.index(f"{SPACE}/episode_events")
    assert topics[event:].count(f"{SPACE}/camera/image_raw") == 1, "between the images 1 and 2"
    with BagReader(Path(second.bag)) as bag:
        assert [m.header.stamp.sec for _, _, m in bag.messages([f"{SPACE}/camera/image_raw"])] == [4]
    with BagReader(tmp_path / "last") as bag:
        kept = [message.header.stamp.sec for _, _, message in bag.messages([f"{SPACE}/camera/image_raw"])]
        assert snapshot.messages == bag.count(bag.topics)
    assert [number for number in kept if number][:3] == [1, 2, 3], "also what came between recordings"


def test_a_recording_is_split_and_in_the_storage_asked_for(sender: Sender, tmp_path: Path) -> None:
    with recorder(tmp_path, format="sqlite3", split_seconds=0.5) as process:
        wait(lambda: (sender.tick(0), time.sleep(0.1), (tmp_path / "bag" / "bag_1.db3").exists())[2])
        code, output = end(process, signal.SIGINT)
    assert code == 0, output
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count > 3


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with recorder(tmp_path) as process:
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 1
    assert "exists already" in output
    assert "Traceback" not in output
    assert list((tmp_path / "bag").iterdir()) == []


def test_exploration_is_recorded_whole_and_aligned(tmp_path: Path) -> None:
    """
    The whole path: simulator, explorer, action node and recorder, then ingest.

    Known answer: the arm is driven by velocities, so the joints move by action times period. Actions
    taken one tick early or late explain the movement far worse.
    """
    result = record("reacher", tmp_path / "bag", episodes=3, episode_ticks=40, seed=5)
    assert (result["episodes"], result["frames"]) == (3, 120)
    report = ingest([tmp_path / "bag"], tmp_path / "store.h5")
    assert (report.total("frames"), report.total("without_action"), report.total("bad_joints")) == (120, 0, 0)
    period = find_contract("reacher").period
    with EpisodeStore(tmp_path / "store.h5") as store:
        assert store.lengths.tolist() == [40, 40, 40]
        # How the robot is planned for says nothing about the data.
        assert store.contract == find_contract("reacher").model_copy(update={"planner": {}})
        episodes = [store.episode(number) for number in range(3)]
    errors = {shift: [] for shift in (-1, 0, 1)}
    for episode in episodes:
        moved = np.diff(episode["joints"], axis=0)[1:-1]
        for shift, found in errors.items():
            acted = episode["action"][1 + shift : len(moved) + 1 + shift]
            found.append(np.abs(moved - acted * period).mean())
    assert np.mean(errors[0]) < 0.2 * min(np.mean(errors[-1]), np.mean(errors[1]))
    with pytest.raises(DataError, match="exists already"):
        record("reacher", tmp_path / "bag", episodes=1, episode_ticks=10)
