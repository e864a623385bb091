"""
The closed-loop protocol: goal images from held-out episodes, a fixed budget, the task's own judgement.

Start and goal are two moments of one fresh exploration episode, ``offset`` ticks apart; the robot
gets ``2 * offset`` ticks. A pair that is solved before the first action is drawn again and
counted, so it never adds to a success rate.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.images import model_input
from smwm_ros.errors import ConfigError
from smwm_ros.tasks.base import RobotTask
from smwm_ros.tasks.exploration import make_policy
from smwm_ros.tasks.noise import ColouredNoise

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint
    from smwm_ros.planning.mpc import PlannerConfig

WARM_UP = 50
"""Start moments are drawn from the first this many ticks of an episode."""
DRAWS_PER_PAIR = 100
"""Episodes tried for one unsolved pair before giving up."""

Progress = Callable[[int], None]
View = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""What a camera makes of a picture that the encoder is to see, uint8 RGB (S, S, 3)."""


@dataclass(frozen=True)
class Pair:
    """One problem: where the robot starts, and what it shall bring about."""

    start_state: NDArray[np.float64]
    """The task's full state, shape (S,)."""
    goal_state: NDArray[np.float64]
    """Shape (S,); only the judge sees it."""
    goal_image: NDArray[np.uint8]
    """Shape (H, W, 3), RGB; what the robot is given."""


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


@dataclass(frozen=True)
class Rollouts:
    """What happened: one trajectory per pair."""

    states: NDArray[np.float64]
    """Shape (N, budget + 1, S); row 0 is the start."""
    plan_seconds: NDArray[np.float64]
    """Time of each plan made, shape (plans,)."""
    evaluations: int = 0
    """Latent transitions predicted per plan."""


def draw_pairs(task: RobotTask, count: int, offset: int, seed: int) -> Pairs:
    """
    Draw problems from fresh exploration episodes.

    Args:
        task: the robot.
        count: N, pairs that are not solved at the start.
        offset: ticks between start and goal.
        seed: draws the episodes; one that no training data was recorded with.

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
        policy = make_policy(task.contract, generator, lambda: task.state)
        task.reset(seed=int(generator.integers(2**31)))
        for _ in range(int(generator.integers(WARM_UP))):
            task.advance(policy.next(), task.contract.period)
        start = task.state
        for _ in range(offset):
            task.advance(policy.next(), task.contract.period)
        goal = task.state
        if task.success(start, goal):
            solved += 1
        else:
            pairs.append(Pair(start, goal, task.observe()["pixels"]))
    return Pairs(tuple(pairs), solved, offset)


def run_planner(
    task: RobotTask,
    checkpoint: Checkpoint,
    config: PlannerConfig,
    problems: Pairs,
    seed: int = 0,
    progress: Progress = lambda done: None,
    view: Callable[[int], View] = lambda pair: lambda image: image,
) -> Rollouts:
    """
    Let a planner work on each pair, in this process; the same steps as the ROS graph in lock-step.

    Args:
        task: the robot.
        checkpoint: the world model.
        config: the planner.
        problems: the pairs.
        seed: draws what the planner tries.
        progress: called with the pairs done.
        view: gives for each pair, by its number, what the camera makes of the pictures on the way;
            the goal's picture stays as it is.
    """
    from smwm_ros.planning.mpc import MPC  # noqa: PLC0415 - torch, which drawing and judging do without

    mpc = MPC(checkpoint, config, seed)
    stream, count = checkpoint.contract.observation.image, checkpoint.frames
    trajectories, seconds, evaluations = [], [], 0
    for number, pair in enumerate(problems.pairs):
        goal = checkpoint.encode(np.stack([model_input(pair.goal_image, stream)] * count))
        observation, info = task.reset(options={"state": pair.start_state})
        seen = view(number)
        frames = deque([seen(model_input(observation["pixels"], stream))] * count, maxlen=count)
        mpc.reset()
        states = [info["state"]]
        actions: NDArray[np.float64] = np.empty((0, task.contract.action.size))
        for tick in range(problems.budget):
            since = tick % config.replan
            if since == 0:
                plan = mpc.plan(checkpoint.encode(np.stack(frames)), goal)
                actions, evaluations = plan.actions, plan.evaluations
                seconds.append(plan.seconds)
            observation, _, _, _, info = task.step(actions[since])
            frames.append(seen(model_input(observation["pixels"], stream)))
            states.append(info["state"])
        trajectories.append(np.stack(states))
        progress(number + 1)
    return Rollouts(np.stack(trajectories), np.array(seconds), evaluations)


def run_random(task: RobotTask, problems: Pairs, seed: int = 0) -> Rollouts:
    """Let coloured noise, which knows neither goal nor state, work on each pair: the floor."""
    policy = ColouredNoise(task.contract, np.random.default_rng([seed, 1]))
    trajectories = []
    for pair in problems.pairs:
        _, info = task.reset(options={"state": pair.start_state})
        policy.reset()
        states = [info["state"]]
        for _ in range(problems.budget):
            task.advance(policy.next(), task.contract.period)
            states.append(task.state)
        trajectories.append(np.stack(states))
    return Rollouts(np.stack(trajectories), np.empty(0))


def reached(
    task: RobotTask, problems: Pairs, rollouts: Rollouts, threshold: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """
    Judge each pair by its true states.

    Returns:
        Whether all errors were within the threshold at some tick after the start, and at the
        last tick; shapes (N,).
    """
    within = errors(task, problems, rollouts).max(-1) <= threshold
    return within[:, 1:].any(1), within[:, -1]


def errors(task: RobotTask, problems: Pairs, rollouts: Rollouts) -> NDArray[np.float64]:
    """Return the task's errors towards the goal at each tick, shape (N, budget + 1, quantities)."""
    return np.array(
        [
            [task.errors(state, pair.goal_state) for state in states]
            for pair, states in zip(problems.pairs, rollouts.states, strict=True)
        ]
    )


def judge(
    task: RobotTask,
    problems: Pairs,
    rollouts: Rollouts,
    floor: Rollouts,
    thresholds: Sequence[float] | None = None,
) -> dict[str, object]:
    """
    Turn rollouts into the figures of the protocol; rates are percentages.

    Args:
        task: the judge.
        problems: the pairs.
        rollouts: the planner's.
        floor: the random policy's, on the same pairs.
        thresholds: the first is the headline's, the others stand beside it; the task's own and
            half of it when absent.
    """
    bounds = tuple(thresholds or (task.threshold, task.threshold / 2))
    figures: dict[str, object] = {}
    for bound in bounds:
        planner = reached(task, problems, rollouts, bound)
        random = reached(task, problems, floor, bound)
        row = {
            "success_any": _percent(planner[0]),
            "success_last": _percent(planner[1]),
            "interval": [round(100 * end, 1) for end in wilson(int(planner[0].sum()), len(planner[0]))],
            "interval_last": [round(100 * end, 1) for end in wilson(int(planner[1].sum()), len(planner[1]))],
            "random_any": _percent(random[0]),
            "random_last": _percent(random[1]),
            "threshold": bound,
        }
        if bound == bounds[0]:
            figures |= row
        figures.setdefault("by_threshold", []).append(row)  # type: ignore[attr-defined]
    drawn = len(problems.pairs) + problems.already_solved
    return figures | {
        "pairs": len(problems.pairs),
        "already_solved": round(100 * problems.already_solved / drawn, 1),
        "offset": problems.offset,
        "budget": problems.budget,
        "plan_ms": _milliseconds(rollouts.plan_seconds),
        "predictor_evaluations": rollouts.evaluations,
    }


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson, JASA 1927)."""
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def _milliseconds(seconds: NDArray[np.float64]) -> float | None:
    return round(1e3 * float(np.median(seconds)), 2) if len(seconds) else None


def _percent(flags: NDArray[np.bool_]) -> float:
    return round(100 * float(flags.mean()), 1)
