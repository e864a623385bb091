"""Small bags of each format, with the same messages: what is damaged to test those who read bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as PlainWriter

from smwm_ros.contract import Contract
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import APPLIED_ACTION, APPLIED_ACTION_TYPE, CONTRACT_KEY, JOINT_STATE_TYPE
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.resources import find_contract

Files = dict[str, bytes]
"""A bag: the contents of its files by their names."""


def small_bags(folder: Path, ticks: int = 8) -> tuple[Contract, dict[str, Files]]:
    """
    Make one small bag of each format, with the same messages.

    Args:
        folder: to make them in.
        ticks: joints, image and action of each.

    Returns:
        The contract, and the bags: MCAP with zstd, without compression, without chunks; SQLite.
    """
    whole = find_contract("reacher")
    stream = whole.observation.image.model_copy(update={"width": 8, "height": 8, "size": 8})
    observation = whole.observation.model_copy(update={"image": stream})
    contract = whole.model_copy(update={"observation": observation})
    noted = {CONTRACT_KEY: contract.model_dump_json()}
    writers = {
        "zstd": BagWriter(folder / "zstd" / "bag", custom_data=noted),
        "none": BagWriter(folder / "none" / "bag", custom_data=noted, compression="none"),
        "sqlite3": BagWriter(folder / "sqlite3" / "bag", custom_data=noted, storage="sqlite3"),
    }
    bags = {}
    for name, writer in writers.items():
        _record(writer, contract, ticks)
        bags[name] = read_files(folder / name / "bag")
    bags["bare"] = {**bags["none"], "bag_0.mcap": _without_chunks(folder / "none" / "bag")}
    return contract, bags


def _record(bag: BagWriter, contract: Contract, ticks: int) -> None:
    """Write joints, images and actions; a chunk of two ticks each."""
    types = message_types()
    made = types.types
    stream, joints = contract.observation.image, contract.observation.joints
    assert joints is not None
    generator = np.random.default_rng(0)
    topics = {joints.topic: JOINT_STATE_TYPE, stream.topic: stream.type, APPLIED_ACTION: APPLIED_ACTION_TYPE}
    with bag:
        for topic, kind in topics.items():
            bag.add_topic(f"/{topic}", kind)
        for number in range(ticks):
            stamp = (number + 1) * contract.period_ns
            time = made["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
            header = made["std_msgs/msg/Header"](time, "camera")
            pixels = generator.integers(0, 256, 3 * stream.width * stream.height, np.uint8)
            positions = generator.normal(size=len(joints.names))
            values = generator.normal(size=contract.action.size)
            messages = (
                made[JOINT_STATE_TYPE](header, list(joints.names), positions, np.zeros(0), np.zeros(0)),
                made[stream.type](header, stream.height, stream.width, "rgb8", 0, 3 * stream.width, pixels),
                made[APPLIED_ACTION_TYPE](header, time, values, 0, ""),
            )
            for topic, message in zip(topics, messages, strict=True):
                bag.write(f"/{topic}", stamp, types.serialize_cdr(message, message.__msgtype__))
            if number % 2:
                bag.flush()


def read_files(folder: Path) -> Files:
    """Take a bag into memory."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write_files(folder: Path, files: Files) -> None:
    """Write a bag."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _without_chunks(bag: Path) -> bytes:
    path = bag.parent / "bare.mcap"
    with path.open("wb") as file, BagReader(bag) as reader:
        writer = PlainWriter(file, use_chunking=False, compression=CompressionType.NONE)
        writer.start(profile="ros2")
        numbers = {}
        for topic in reader.topics:
            channel = reader.channel(topic)
            schema = writer.register_schema(channel.kind, "ros2msg", channel.definition.data.encode())
            numbers[topic] = writer.register_channel(topic, "cdr", schema)
        for topic, received, data in reader.raw(reader.topics):
            writer.add_message(numbers[topic], received, data, received)
        writer.finish()  # type: ignore[no-untyped-call]
    return path.read_bytes()
