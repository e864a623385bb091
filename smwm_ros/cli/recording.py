"""Record training data from the simulated robot, through ROS."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smwm_ros.cli.environment import isolate
from smwm_ros.contract import Contract
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import find_topic, stamp_of
from smwm_ros.data.ticks import Tick, TickGate
from smwm_ros.errors import DataError
from smwm_ros.resources import find_contract
from smwm_ros.stack.description import describe
from smwm_ros.stack.supervisor import Supervisor

LOOK = 0.25
"""Seconds between two looks at how the recording goes."""
LOSS_ALLOWED = 0.01
"""Part of the images that may be missing; ingest splits the episode there."""
SETTLE = 0.5
"""Seconds for the last messages to arrive, after the last episode."""


def record(
    contract: str | Path,
    output: Path | str,
    *,
    episodes: int,
    episode_ticks: int,
    seed: int = 0,
    distractors: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """
    Record episodes of exploration (coloured noise) into a bag.

    Simulator, explorer, action and recorder nodes run as separate processes in lock-step, so the
    simulator waits for every action, however slow the machine is.

    Args:
        contract: name or path of the robot's contract.
        output: folder of the bag; it must not exist.
        episodes: how many.
        episode_ticks: images in each.
        seed: of the states that the episodes begin with, and of the noise.
        distractors: show moving blobs and a flickering light.
        progress: called with the episodes recorded so far and the number wanted.

    Returns:
        ``bag``, ``episodes``, ``frames``, ``lost``, ``seconds``, ``frames_per_s``.

    Raises:
        DataError: the folder exists, or more than ``LOSS_ALLOWED`` of the images are missing.
        StackError: a process failed; with the end of its log.
    """
    from smwm_ros.nodes.watch import StatusWatch

    output = Path(output).absolute()
    if output.exists():
        raise DataError(f"{output} exists already, and a bag is never overwritten; give another folder")
    isolate()
    specs = describe(
        "record",
        {"contract": str(contract), "bag": str(output), "seed": seed, "lock_step": True},
        {
            # These two go by the images' stamps: listening to the clock would only cost them time.
            "explorer": {"episodes": episodes, "episode_ticks": episode_ticks, "use_sim_time": False},
            "recorder": {"content": "training", "use_sim_time": False},
            "sim": {"distractors": distractors},
        },
    )
    others = [spec for spec in specs if spec.name != "explorer"]
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="smwm-record-") as logs,
        Supervisor(others, logs=Path(logs)) as recording,
        StatusWatch("/explorer") as watch,
    ):
        recording.wait_ready()
        # Last, so that the recorder has long found the robot's topics when the first episode begins.
        with Supervisor([spec for spec in specs if spec.name == "explorer"], logs=Path(logs)) as exploring:
            while not exploring.finished("explorer"):
                watch.wait(LOOK)
                recording.check()
                if progress is not None:
                    progress(int(watch.values.get("episode", 0)), episodes)
            exploring.check()
        time.sleep(SETTLE)
        recording.check()
    seconds = time.monotonic() - started
    frames = _count_images(output, find_contract(contract))
    lost = episodes * episode_ticks - frames
    if lost > LOSS_ALLOWED * episodes * episode_ticks:
        raise DataError(
            f"{output}: asked for {episodes} episodes of {episode_ticks} images, but {lost} of them are not "
            "in the bag; record again on a less busy machine."
        )
    return {
        "bag": str(output),
        "episodes": episodes,
        "frames": frames,
        "lost": lost,
        "seconds": seconds,
        "frames_per_s": frames / seconds,
    }


def _count_images(bag: Path, contract: Contract) -> int:
    """Count a bag's images, but for those without a neighbour in time, as the one before the first reset."""
    stream = contract.observation.image
    gate = TickGate(contract)
    count = stretch = 0
    with BagReader(bag) as reader:
        for _, _, message in reader.messages([find_topic(reader, stream.topic, stream.type)]):
            tick = gate.offer(stamp_of(message))
            if tick is Tick.START:
                stretch = 0
            if tick.accepted:
                stretch += 1
                count += {1: 0, 2: 2}.get(stretch, 1)
    return count
