"""How a robot moves to gather training data, and the loop that gathers it without ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.tasks.base import RobotTask

Episode = dict[str, NDArray[Any]]


class ColouredNoise:
    """
    An exploration policy: coloured noise, independent in each action dimension.

    Each dimension follows an Ornstein-Uhlenbeck process with the given correlation time, sampled
    exactly at the control rate: its spectrum is flat up to 1/(2 pi correlation_time) and falls with
    the square of the frequency above. White noise of the same power would average out within a few
    ticks and leave the robot where it started; this one keeps a direction long enough to cross the joint
    space, yet passes through every speed. The values are scaled to the contract's range and clipped to
    it, so that a part of the time (16 % at the default spread) is spent at the very limits, where
    a planner's actions often lie too; then the change per tick is bounded by ``max_change``.
    """

    def __init__(
        self,
        contract: Contract,
        generator: np.random.Generator,
        *,
        correlation_time: float = 0.5,
        spread: float = 0.7,
    ) -> None:
        """
        Start the process.

        Args:
            contract: limits and rate.
            generator: the only source of randomness.
            correlation_time: seconds after which the correlation has fallen to 1/e.
            spread: standard deviation before clipping, as a share of half the range.
        """
        action = contract.action
        self._low, self._high = action.low, action.high
        self._largest_change = action.max_change * contract.period
        self._spread = spread
        self._memory = np.exp(-contract.period / correlation_time)
        self._generator = generator
        self.reset()

    def reset(self) -> None:
        """Forget the past, for a new episode: the next action is an independent draw."""
        self._noise = self._generator.standard_normal(len(self._low))
        self._last: NDArray[np.float64] | None = None

    def next(self) -> NDArray[np.float64]:
        """Return the action of the next tick, shape (A,), in the contract's units."""
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        action = np.clip(middle + half * self._spread * self._noise, self._low, self._high)
        if self._last is not None:
            change = np.clip(action - self._last, -self._largest_change, self._largest_change)
            action = np.clip(self._last + change, self._low, self._high)
        fresh = self._generator.standard_normal(len(self._low))
        self._noise = self._memory * self._noise + np.sqrt(1 - self._memory**2) * fresh
        self._last = action
        return action


def collect(
    task: RobotTask,
    policy: ColouredNoise,
    episodes: int,
    length: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Episode]:
    """
    Run a policy in the simulation, in-process.

    Args:
        task: the robot.
        policy: what moves it; its generator goes on from episode to episode.
        episodes: how many.
        length: T, images in each.
        seed: episode e is reset with seed + e.
        progress: called after every episode with the number done.

    Yields:
        ``pixels`` uint8 (T, height, width, 3); ``action`` float32 (T, A), where row t is applied
        from image t to image t+1 and the last row is NaN; ``state`` float64 (T, S) and ``joints``
        float64 (T, J), both at the time of the image.
    """
    for episode in range(episodes):
        observation, info = task.reset(seed=seed + episode)
        policy.reset()
        rows = [(observation["pixels"], info["state"], observation["joints"])]
        actions = []
        for _ in range(length - 1):
            actions.append(policy.next())
            observation, _, _, _, info = task.step(actions[-1])
            rows.append((observation["pixels"], info["state"], observation["joints"]))
        actions.append(np.full(task.contract.action.size, np.nan))
        pixels, state, joints = (np.stack(column) for column in zip(*rows, strict=True))
        yield {"pixels": pixels, "action": np.array(actions, np.float32), "state": state, "joints": joints}
        if progress is not None:
            progress(episode + 1)
