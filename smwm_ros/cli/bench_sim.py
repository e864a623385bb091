"""How fast the simulated robot is, without ROS."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from smwm_ros.resources import find_contract
from smwm_ros.tasks import make_task
from smwm_ros.tasks.noise import ColouredNoise

REPEATS = 5


def bench_sim(seconds: float = 5.0, robot: str = "reacher") -> dict[str, float | int | str]:
    """
    Measure control ticks per second of a simulated robot in this process, under exploration noise.

    Args:
        seconds: to measure each figure for, over all repeats.
        robot: name or path of the contract.

    Returns:
        ``frames_per_s`` (ticks with an image) and ``physics_steps_per_s`` (ticks without), each
        the median of the repeats; ``width`` and ``height`` of the image, ``task``.

    Raises:
        ContractError: no such robot.
        SimulationError: it has no simulation, or GL is missing.
    """
    contract = find_contract(robot)
    task = make_task(contract)
    policy = ColouredNoise(contract, np.random.default_rng(0))
    task.reset(seed=0)
    image = contract.observation.image
    rates = {
        "frames_per_s": _rate(lambda: task.step(policy.next()), seconds),
        "physics_steps_per_s": _rate(lambda: task.advance(policy.next(), contract.period), seconds),
    }
    task.close()
    return {**rates, "width": image.width, "height": image.height, "task": str(contract.task)}


def _rate(tick: Callable[[], object], seconds: float) -> float:
    """Return calls per second, the median of the repeats; slow outliers are other programs' doing."""
    tick()
    rates = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        count = 0
        while (passed := time.perf_counter() - begin) < seconds / REPEATS:
            tick()
            count += 1
        rates.append(count / passed)
    return statistics.median(rates)
