"""How a robot moves to gather training data, and the loop that gathers it without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.tasks.base import RobotTask
from smwm_ros.tasks.noise import ColouredNoise
from smwm_ros.tasks.scripted import PickAround, PushAround, Sense, Travel

__all__ = ["POLICIES", "ColouredNoise", "Policy", "collect", "make_policy"]

Episode = dict[str, NDArray[Any]]


class Policy(Protocol):
    """An exploration policy: what the explorer node and in-process collection need of one."""

    def reset(self) -> None:
        """Forget the past, for a new episode."""

    def next(self) -> NDArray[np.float64]:
        """Return the action of the next tick, shape (A,), in the contract's units."""


POLICIES: Mapping[str, Callable[[Contract, np.random.Generator, Sense], Policy]] = {
    "smwm/TwoRoom-v0": Travel,
    "smwm/PushT-v0": PushAround,
    "smwm/PushTStiff-v0": PushAround,
    "smwm/PickCube-v0": PickAround,
}
"""Of the tasks that noise alone does not explore; by gymnasium id."""


def make_policy(contract: Contract, generator: np.random.Generator, sense: Sense) -> Policy:
    """
    Return the robot's exploration policy: the one for its task, or else coloured noise.

    Args:
        contract: the robot.
        generator: the only source of randomness.
        sense: gives the task's present state, shape (S,); called from ``next`` only, and by some
            policies not at all.
    """
    scripted = POLICIES.get(contract.task or "")
    return ColouredNoise(contract, generator) if scripted is None else scripted(contract, generator, sense)


def collect(task: RobotTask, episodes: Iterable[int], length: int, seed: int) -> Iterator[Episode]:
    """
    Run the exploration policy in the simulation, in-process.

    An episode depends on the seed and on its own number alone, so that several processes that
    share the numbers gather what one would.

    Args:
        task: the robot.
        episodes: their numbers.
        length: T, images in each.
        seed: of them all.

    Yields:
        ``pixels`` uint8 (T, height, width, 3); ``action`` float32 (T, A), where row t is applied
        from image t to image t+1 and the last row is NaN; ``state`` float64 (T, S) and ``joints``
        float64 (T, J), both at the time of the image.
    """
    for episode in episodes:
        generator = np.random.default_rng([seed, episode])
        policy = make_policy(task.contract, generator, lambda: task.state)
        observation, info = task.reset(seed=int(generator.integers(2**31)))
        rows = [(observation["pixels"], info["state"], observation["joints"])]
        actions = []
        for _ in range(length - 1):
            actions.append(policy.next())
            observation, _, _, _, info = task.step(actions[-1])
            rows.append((observation["pixels"], info["state"], observation["joints"]))
        actions.append(np.full(task.contract.action.size, np.nan))
        pixels, state, joints = (np.stack(column) for column in zip(*rows, strict=True))
        yield {"pixels": pixels, "action": np.array(actions, np.float32), "state": state, "joints": joints}
