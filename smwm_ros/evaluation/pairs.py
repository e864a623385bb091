"""
Problems to judge a planner by: start and goal are two moments of one fresh exploration episode.

No model was trained on these episodes. A pair that is solved before the first action is drawn again and
counted, so it never adds to a success rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smwm_ros.errors import ConfigError
from smwm_ros.tasks.base import RobotTask
from smwm_ros.tasks.exploration import make_policy

Progress = Callable[[int], None]

WARM_UP = 50
"""Start moments are drawn from the first this many ticks of an episode."""
DRAWS_PER_PAIR = 100
"""Episodes tried for one unsolved pair before giving up."""
LATER = 30.0
"""
Seconds after the end of the robot's time at which the goal's picture is taken. Distractors, which go on
moving, are then in other places than the robot ever sees them in.
"""


@dataclass(frozen=True)
class Pair:
    """One problem: where the robot starts, and what it shall bring about."""

    start_state: NDArray[np.float64]
    """The task's full state, shape (S,)."""
    goal_state: NDArray[np.float64]
    """Shape (S,); only the judge sees it."""
    goal_image: NDArray[np.uint8]
    """Shape (H, W, 3), RGB; what the robot is given."""
    before: NDArray[np.uint8]
    """Images of the ticks before the start, oldest first, shape (n, H, W, 3): what shows velocities."""
    actions: NDArray[np.float64]
    """What the exploration did between start and goal, shape (offset, A); no planner sees it."""
    seed: int
    """Of the task's reset at the start: draws what the robot does not control."""


@dataclass(frozen=True)
class Pairs:
    """Problems, and how many draws were thrown away because they were solved at the start."""

    pairs: tuple[Pair, ...]
    already_solved: int
    offset: int

    @property
    def budget(self) -> int:
        """Ticks the robot gets for each."""
        return 2 * self.offset


def draw_pairs(
    task: RobotTask,
    count: int,
    offset: int,
    seed: int,
    *,
    history: int = 0,
    threshold: float | None = None,
    progress: Progress = lambda done: None,
) -> Pairs:
    """
    Draw problems from fresh exploration episodes.

    Args:
        task: the robot.
        count: N, pairs that are not solved at the start.
        offset: ticks between start and goal.
        seed: draws the episodes; one that no training data was recorded with.
        history: images wanted of the ticks before the start; fewer where the episode has just begun.
        threshold: largest error that counts as solved; the task's own when absent.
        progress: called after each pair with the number drawn.

    Raises:
        ConfigError: nearly all draws are solved at the start.
    """
    if count < 1 or offset < 1:
        raise ConfigError(f"pairs and offset must be at least 1; found {count} and {offset}")
    generator = np.random.default_rng([seed, 0])
    pairs: list[Pair] = []
    solved = 0
    while len(pairs) < count:
        if solved > DRAWS_PER_PAIR * count:
            raise ConfigError(
                f"{solved} of {solved + len(pairs)} pairs drawn {offset} ticks apart are solved at the "
                "start; choose a larger --offset"
            )
        pair = _draw(task, offset, generator, history)
        if task.success(pair.start_state, pair.goal_state, threshold):
            solved += 1
        else:
            pairs.append(pair)
            progress(len(pairs))
    return Pairs(tuple(pairs), solved, offset)


def _draw(task: RobotTask, offset: int, generator: np.random.Generator, history: int) -> Pair:
    """Run one episode, and take its pictures afterwards, as nobody looks at most of its ticks."""
    period = task.contract.period
    policy = make_policy(task.contract, generator, lambda: task.state)
    seed = int(generator.integers(2**31))
    task.reset(seed=seed)
    start = int(generator.integers(WARM_UP))
    states, actions = [task.state], []
    for _ in range(start + offset):
        actions.append(policy.next())
        task.advance(actions[-1], period)
        states.append(task.state)
    # The start is the time 0 of whatever moves by itself, as it will be for the robot.
    before = [task.render_state(states[start - k], -k * period) for k in range(min(history, start), 0, -1)]
    goal_image = task.render_state(states[-1], 2 * offset * period + LATER)
    return Pair(
        start_state=states[start],
        goal_state=states[-1],
        goal_image=goal_image,
        before=np.array(before, np.uint8).reshape(-1, *goal_image.shape),
        actions=np.array(actions[start:]),
        seed=seed,
    )
