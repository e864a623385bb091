"""Training data from a simulated robot, in-process and in parallel, without ROS."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smwm_ros.contract import Contract, parse_contract
from smwm_ros.errors import DataError, SimulationError

if TYPE_CHECKING:
    from smwm_ros.tasks import RobotTask
    from smwm_ros.tasks.exploration import Episode

BATCH = 4
"""Episodes that a process makes at a time."""
AHEAD = 2
"""Batches per process that may be under way or wait to be written, so that memory stays bounded."""


@dataclass(frozen=True)
class Order:
    """What is to be collected; all that an episode depends on, besides its number."""

    contract: str
    """JSON."""
    ticks: int
    """Images in each episode."""
    seed: int
    distractors: bool


def collect(
    contract: Contract,
    output: Path,
    *,
    episodes: int,
    ticks: int,
    seed: int = 0,
    jobs: int = 1,
    distractors: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """
    Collect episodes of the robot's exploration policy.

    The rows depend on the contract, the seed and the numbers of episodes and ticks, and not on the
    number of processes: the store's fingerprint is the same.

    Args:
        contract: of a simulated robot.
        output: store to write.
        episodes: how many.
        ticks: images in each.
        seed: of it all.
        jobs: processes.
        distractors: show moving things and a flickering light.
        progress: called with the episodes done.

    Returns:
        ``path``, ``fingerprint``, ``episodes``, ``frames``, ``jobs``, ``seconds``, ``frames_per_s``.

    Raises:
        DataError: the store exists already, or cannot be written.
        SimulationError: the robot cannot be simulated, or a process died.
    """
    from smwm_ros.data.store.assemble import Piece, assemble
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.data.store.writer import EpisodeWriter

    if output.exists():
        raise DataError(f"{output} exists already, and a store is never overwritten; give another name")
    if not output.parent.is_dir():
        raise DataError(f"the folder {output.parent} does not exist; make it first")
    order = Order(contract.model_dump_json(), ticks, seed, distractors)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        with EpisodeWriter(Path(folder) / "episodes.h5", contract) as writer:
            for number, episode in enumerate(_episodes(order, episodes, jobs)):
                writer.append(_columns(episode, contract, number), origin=f"{contract.task} {seed}/{number}")
                progress(number + 1)
        # As contiguous columns, which training maps into memory.
        with EpisodeStore(writer.path) as written:
            source = {"collected": {**asdict(order), "contract": contract.name, "task": contract.task}}
            fingerprint = assemble([Piece(written)], output, source=source)
    seconds = time.monotonic() - started
    frames = episodes * ticks
    return {
        "path": str(output),
        "fingerprint": fingerprint,
        "episodes": episodes,
        "frames": frames,
        "jobs": jobs,
        "seconds": round(seconds, 2),
        "frames_per_s": round(frames / seconds, 1),
    }


def _episodes(order: Order, count: int, jobs: int) -> Iterator[Episode]:
    """Yield all episodes in order, however many processes make them."""
    batches = [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
    if jobs == 1 or len(batches) == 1:
        for batch in batches:
            yield from _gather(order, batch)
        return
    # Spawned: GL does not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(batches)), mp_context=spawn) as pool:
        waiting: deque[Future[list[Episode]]] = deque()
        try:
            while batches or waiting:
                while batches and len(waiting) < AHEAD * jobs:
                    waiting.append(pool.submit(_gather, order, batches.pop(0)))
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise SimulationError(
                "a process that collected episodes died; is there too little memory? Try fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _gather(order: Order, numbers: range) -> list[Episode]:
    """Make some episodes; runs in the processes."""
    from smwm_ros.data.images import model_input
    from smwm_ros.tasks.exploration import collect as explore

    task = _task(order.contract, order.distractors)
    stream = task.contract.observation.image
    made = []
    for episode in explore(task, numbers, order.ticks, order.seed):
        pixels = np.stack([model_input(image, stream) for image in episode["pixels"]])
        made.append({**episode, "pixels": pixels})
    return made


@lru_cache(maxsize=1)
def _task(contract: str, distractors: bool) -> RobotTask:
    """Build the robot once in each process."""
    from smwm_ros.tasks import make_task

    options = {"distractors": True} if distractors else {}
    return make_task(parse_contract(contract, "the contract"), **options)


def _columns(episode: Episode, contract: Contract, number: int) -> dict[str, Any]:
    """Add stamps, and keep what the store of a recording has: joints only where the contract names them."""
    ticks = len(episode["action"])
    # Episodes lie as far apart as a simulator's resets.
    first = 1 + number * (ticks + round(2 * contract.max_gap))
    columns = {**episode, "stamp": (first + np.arange(ticks, dtype=np.int64)) * contract.period_ns}
    joints = columns.pop("joints").astype(np.float32)
    return columns | ({"joints": joints} if contract.observation.joints else {})
