"""How fast bags become training data."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from smwm_ros.contract import Contract
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.topics import APPLIED_ACTION, APPLIED_ACTION_TYPE, CONTRACT_KEY, JOINT_STATE_TYPE
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.resources import find_contract

FRAMES = 20_000
EPISODE = 200
REPEATS = 3


def bench_ingest(frames: int = FRAMES) -> dict[str, float | int]:
    """
    Measure ingest, from an MCAP bag (zstd) of 64x64 raw images, joints and actions to the store's file.

    Args:
        frames: in the bag that is made for it.

    Returns:
        ``frames_per_s``, the median of the repeats; ``frames`` in the store; ``bag_mb``.
    """
    contract = find_contract("reacher")
    with tempfile.TemporaryDirectory(prefix="smwm-bench-") as folder:
        bag = Path(folder) / "bag"
        write_bag(bag, contract, frames)
        rates = []
        for _ in range(REPEATS):
            report = ingest([bag], Path(folder) / "store.h5")
            rates.append(report.total("frames") / report.seconds)
        size = sum(path.stat().st_size for path in bag.iterdir())
    return {
        "frames_per_s": statistics.median(rates),
        "frames": report.total("frames"),
        "bag_mb": size / 1e6,
    }


def write_bag(path: Path, contract: Contract, frames: int) -> None:
    """
    Write a bag as the recorder would in lock-step, with noisy moving pictures.

    Args:
        path: of the new bag.
        contract: of a robot with a raw camera and joints.
        frames: how many; a gap follows every ``EPISODE``.
    """
    types = message_types()
    made = types.types
    stream, joints = contract.observation.image, contract.observation.joints
    assert joints is not None
    topics = {
        f"/{joints.topic}": JOINT_STATE_TYPE,
        f"/{stream.topic}": stream.type,
        f"/{APPLIED_ACTION}": APPLIED_ACTION_TYPE,
    }
    generator = np.random.default_rng(0)
    scene = generator.integers(90, 110, (stream.height, 4 * stream.width, 3), np.uint8)
    scene[:, : stream.width] += 60
    with BagWriter(path, custom_data={CONTRACT_KEY: contract.model_dump_json()}) as bag:
        for topic, kind in topics.items():
            bag.add_topic(topic, kind)
        for number in range(frames):
            stamp = (number + 10 * (number // EPISODE)) * contract.period_ns
            time = made["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
            header = made["std_msgs/msg/Header"](stamp=time, frame_id="camera")
            pixels = np.roll(scene, number, axis=1)[:, : stream.width]
            messages = (
                made[JOINT_STATE_TYPE](
                    header=header,
                    name=list(joints.names),
                    position=generator.normal(size=len(joints.names)),
                    velocity=np.zeros(0),
                    effort=np.zeros(0),
                ),
                made[stream.type](
                    header=header,
                    height=stream.height,
                    width=stream.width,
                    encoding=stream.encoding,
                    is_bigendian=0,
                    step=3 * stream.width,
                    data=pixels.reshape(-1),
                ),
                made[APPLIED_ACTION_TYPE](
                    header=header,
                    evidence=time,
                    values=generator.normal(size=contract.action.size),
                    source=0,
                    reason="",
                ),
            )
            for topic, message in zip(topics, messages, strict=True):
                bag.write(topic, stamp, types.serialize_cdr(message, message.__msgtype__))
