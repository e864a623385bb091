"""How fast bags become training data, and how much memory that takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract, ImageStream
from smwm_ros.data.bags.message_types import message_types
from smwm_ros.data.bags.topics import APPLIED_ACTION, APPLIED_ACTION_TYPE, CONTRACT_KEY, JOINT_STATE_TYPE
from smwm_ros.data.bags.writer import BagWriter
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.errors import DataError
from smwm_ros.resources import find_contract

EPISODE = 200
"""Frames between two gaps."""
SCENES = 60
"""Different pictures in a bag, which come again and again."""
QUALITY = 90
"""Of JPEG."""
LOOK = 0.02
"""Seconds between two looks at the memory."""

Encode = Callable[[Any, NDArray[np.uint8]], Any]


def bench_ingest(
    frames: int = 20_000, jpeg_frames: int = 4_000, repeats: int = 5, big_gb: float = 0.3
) -> dict[str, Any]:
    """
    Measure ingest from a bag to the finished store, with all cores.

    Three bags are made: 64x64 raw images in zstd chunks; 640x480 JPEG of camera-like pictures; and a
    big one of 640x480 raw images, for the memory. Each has joints and actions as well.

    Args:
        frames: of the first bag.
        jpeg_frames: of the second.
        repeats: ingests of these two, each into a new store; the medians are given.
        big_gb: size of the third.

    Returns:
        ``raw_64_frames_per_s``, ``jpeg_vga_frames_per_s`` and for each ``…_spread`` (lowest, highest)
        and ``…_frames``; ``again_s``, what it takes to see that nothing has changed; ``peak_rss_mb`` of
        all the processes of an ingest of the big bag, with ``big_gb`` and ``big_frames_per_s``; ``cores``.
    """
    small, camera = find_contract("reacher"), vga_contract(jpeg=True)
    with tempfile.TemporaryDirectory(prefix="smwm-bench-") as name:
        folder = Path(name)
        figures: dict[str, Any] = {}
        for key, contract, count in (("raw_64", small, frames), ("jpeg_vga", camera, jpeg_frames)):
            bag = folder / key
            write_bag(bag, contract, count)
            rates = []
            for number in range(repeats):
                report = ingest([bag], folder / f"{key}-{number}.h5")
                rates.append(report.frames_per_s)
            figures |= {
                f"{key}_frames_per_s": statistics.median(rates),
                f"{key}_spread": [min(rates), max(rates)],
                f"{key}_frames": report.total("frames"),
                f"{key}_bag_mb": _size(bag) / 1e6,
            }
        store = folder / "raw_64-0.h5"
        figures["again_s"] = statistics.median(
            ingest([folder / "raw_64"], store).seconds for _ in range(repeats)
        )
        figures |= _memory(folder, big_gb)
    return {**figures, "cores": len(os.sched_getaffinity(0))}


def vga_contract(*, jpeg: bool) -> Contract:
    """Return the contract of an arm with a camera of 640x480 pixels."""
    contract = find_contract("reacher")
    image = contract.observation.image.model_copy(
        update={
            "width": 640,
            "height": 480,
            "type": "sensor_msgs/msg/CompressedImage" if jpeg else "sensor_msgs/msg/Image",
        }
    )
    return contract.model_copy(
        update={"observation": contract.observation.model_copy(update={"image": image})}
    )


def write_bag(
    path: Path, contract: Contract, frames: int, *, compress: bool = True, different: int = SCENES
) -> None:
    """
    Write a bag as the recorder would in lock-step.

    Args:
        path: of the new bag.
        contract: of a robot with a camera and joints.
        frames: how many; a gap follows every ``EPISODE``.
        compress: its chunks.
        different: pictures in it.
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
    encode = _jpeg if stream.type.endswith("CompressedImage") else _raw
    pictures = [encode(None, scene) for scene in scenes(stream, min(different, frames), generator)]
    with BagWriter(path, custom_data={CONTRACT_KEY: contract.model_dump_json()}, compress=compress) as bag:
        for topic, kind in topics.items():
            bag.add_topic(topic, kind)
        for number in range(frames):
            stamp = (number + 10 * (number // EPISODE)) * contract.period_ns
            time_ = made["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
            header = made["std_msgs/msg/Header"](stamp=time_, frame_id="camera")
            picture = pictures[number % len(pictures)]
            picture.header = header
            messages = (
                made[JOINT_STATE_TYPE](
                    header=header,
                    name=list(joints.names),
                    position=generator.normal(size=len(joints.names)),
                    velocity=np.zeros(0),
                    effort=np.zeros(0),
                ),
                picture,
                made[APPLIED_ACTION_TYPE](
                    header=header,
                    evidence=time_,
                    values=generator.uniform(-1, 1, contract.action.size),
                    source=0,
                    reason="",
                ),
            )
            for topic, message in zip(topics, messages, strict=True):
                bag.write(topic, stamp, types.serialize_cdr(message, message.__msgtype__))


def scenes(stream: ImageStream, count: int, generator: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Draw what a camera may see: soft light, moving objects with edges, and the sensor's noise."""
    y, x = np.mgrid[: stream.height, : stream.width] * (480 / stream.height)
    for number in range(count):
        light = [128 + 80 * np.sin(x / 60 + number / 5) * np.cos(y / 45), 120 + 60 * np.sin(y / 30 + x / 200)]
        image = np.stack([light[0], 128 + 70 * np.cos((x + y) / 80 - number / 7), light[1]], axis=-1)
        left = (100 + 5 * number) % 400
        image[(y > 100) & (y < 260) & (x > left) & (x < left + 100)] = 30, 200, 90
        image[(x - 400) ** 2 + (y - 250 - number) ** 2 < 70**2] = 220, 40, 60
        yield np.clip(image + generator.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _raw(header: Any, pixels: NDArray[np.uint8]) -> Any:
    height, width = pixels.shape[:2]
    return message_types().types["sensor_msgs/msg/Image"](
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=pixels.reshape(-1),
    )


def _jpeg(header: Any, pixels: NDArray[np.uint8]) -> Any:
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return message_types().types["sensor_msgs/msg/CompressedImage"](
        header=header, format="jpeg", data=data.reshape(-1)
    )


def _memory(folder: Path, gigabytes: float) -> dict[str, float]:
    contract = vga_contract(jpeg=False)
    stream = contract.observation.image
    frames = max(2, round(gigabytes * 1e9 / (3 * stream.width * stream.height)))
    bag = folder / "big"
    write_bag(bag, contract, frames, compress=False)
    command = [sys.executable, "-m", "smwm_ros.cli.main", "ingest", str(bag), "-o", str(folder / "big.h5")]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, _resident(process.pid))
            time.sleep(LOOK)
    if process.returncode:
        raise DataError(f"`{' '.join(command)}` failed with status {process.returncode}")
    seconds = time.perf_counter() - started
    return {
        "peak_rss_mb": peak / 1e6,
        "big_gb": _size(bag) / 1e9,
        "big_frames_per_s": frames / seconds,
    }


def _resident(pid: int) -> int:
    """Return the bytes that a process and its descendants hold in memory; 0 for those that have ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        children = [
            int(child)
            for file in Path(f"/proc/{pid}/task").glob("*/children")
            for child in file.read_text(encoding="ascii").split()
        ]
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(_resident, children))


def _size(bag: Path) -> int:
    return sum(path.stat().st_size for path in bag.iterdir())
