"""Record training data from the simulated robot, through ROS."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from smwm_ros.cli.environment import isolate
from smwm_ros.contract import Contract
from smwm_ros.data.alignment import Tick, TickGate
from smwm_ros.data.bag_rows import find_topic, stamp_of
from smwm_ros.data.bags import BagReader
from smwm_ros.errors import DataError
from smwm_ros.resources import find_contract
from smwm_ros.stack.description import describe
from smwm_ros.stack.supervisor import Supervisor

LOOK = 0.25
"""Seconds between two looks at how the recording goes."""
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

    Simulator, explorer, action and recorder nodes run as separate processes in lock-step, so every
    image and every action is recorded, however slow the machine is.

    Args:
        contract: name or path of the robot's contract.
        output: folder of the bag; it must not exist.
        episodes: how many.
        episode_ticks: images in each.
        seed: of the states that the episodes begin with, and of the noise.
        distractors: show moving blobs and a flickering light.
        progress: called with the episodes recorded so far and the number wanted.

    Returns:
        ``bag``, ``episodes``, ``frames``, ``seconds``, ``frames_per_s``.

    Raises:
        DataError: the folder exists, or the bag is not what was asked for.
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
            "explorer": {"episodes": episodes, "episode_ticks": episode_ticks},
            "recorder": {"content": "training"},
            "sim": {"distractors": distractors},
        },
    )
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="smwm-record-") as logs,
        Supervisor(specs, logs=Path(logs)) as running,
        StatusWatch("/explorer") as explorer,
    ):
        running.wait_ready()
        while not running.finished("explorer"):
            running.check()
            explorer.wait(LOOK)
            if progress is not None:
                progress(int(explorer.values.get("episode", 0)), episodes)
        time.sleep(SETTLE)
        running.check()
    seconds = time.monotonic() - started
    lengths = list(_episode_lengths(output, find_contract(contract)))
    whole = lengths.count(episode_ticks)
    if whole != episodes:
        raise DataError(
            f"{output}: asked for {episodes} episodes of {episode_ticks} images, but the bag holds {whole} "
            f"(all lengths: {sorted(set(lengths))}). Images were lost; record again on a less busy machine."
        )
    frames = episodes * episode_ticks
    return {
        "bag": str(output),
        "episodes": episodes,
        "frames": frames,
        "seconds": seconds,
        "frames_per_s": frames / seconds,
    }


def _episode_lengths(bag: Path, contract: Contract) -> Iterator[int]:
    """Count the images of each uninterrupted stretch in a bag."""
    stream = contract.observation.image
    gate = TickGate(contract)
    length = 0
    with BagReader(bag) as reader:
        for _, _, message in reader.messages([find_topic(reader, stream.topic, stream.type)]):
            tick = gate.offer(stamp_of(message))
            if tick is Tick.START and length:
                yield length
                length = 0
            length += tick in (Tick.START, Tick.NEXT)
    yield length
