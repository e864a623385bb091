"""
The closed-loop protocol: what a planner, chance, or the exploration itself does from where a pair starts.

The robot gets ``2 * offset`` ticks for each of the problems of :mod:`smwm_ros.evaluation.pairs`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smwm_ros.data.images import model_input
from smwm_ros.evaluation.pairs import Pair, Pairs, Progress
from smwm_ros.planning.planners import make_planner
from smwm_ros.tasks.base import RobotTask
from smwm_ros.tasks.noise import ColouredNoise

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint
    from smwm_ros.planning.config import PlannerConfig
    from smwm_ros.planning.protocol import Planner

View = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""What a camera makes of a picture that the encoder is to see, uint8 RGB (S, S, 3)."""


@dataclass(frozen=True)
class Rollouts:
    """What happened: one trajectory per pair."""

    states: NDArray[np.float64]
    """Shape (N, budget + 1, S); row 0 is the start."""
    plan_seconds: NDArray[np.float64]
    """Time of each plan made, shape (plans,)."""
    evaluations: int = 0
    """Latent transitions predicted per plan."""


def run_planner(
    task: RobotTask,
    checkpoint: Checkpoint,
    config: PlannerConfig,
    problems: Pairs,
    seed: int = 0,
    progress: Progress = lambda done: None,
    view: Callable[[int], View] | None = None,
    *,
    planner: Planner | None = None,
    delay: int = 0,
    compensate: bool = True,
) -> Rollouts:
    """
    Let a planner work on each pair, in this process; the same steps as the ROS graph in lock-step.

    A model of several frames sees those before the start, as far as the pairs have them; in the ROS
    graph, whose simulator knows no past, it sees the first one again, as at the beginning of an episode.
    The goal is to be held: its image is shown as often.

    Args:
        task: the robot.
        checkpoint: of the world model.
        config: of the planner.
        problems: the pairs.
        seed: of the planner.
        progress: called after each pair with the number done.
        view: gives for each pair, by its number, what the camera makes of the pictures on the way, of every
            tick in turn; the goal's picture stays as it is.
        planner: what plans, every ``config.replan`` ticks; by default what the configuration says.
        delay: ticks from a picture to the first action that the plan made from it can decide. Until then
            the plan before it goes on, and before the first one the safe action.
        compensate: let the planner know of the delay, so that its plan begins where the robot will be by
            then. Without, a plan made for where the robot was is played from its first action on.
    """
    planner = planner or make_planner(checkpoint, config, seed)
    known = delay if compensate else 0
    stream, count = checkpoint.contract.observation.image, checkpoint.frames
    trajectories, seconds, evaluations = [], [], 0
    for number, pair in enumerate(problems.pairs):
        goal = checkpoint.encode(np.stack([model_input(pair.goal_image, stream)] * count))
        seen = view(number) if view else _as_it_is
        observation, info = task.reset(seed=pair.seed, options={"state": pair.start_state})
        pictures = [*pair.before, observation["pixels"]][-count:]
        frames = deque((seen(model_input(picture, stream)) for picture in pictures), maxlen=count)
        while len(frames) < count:
            frames.appendleft(frames[0])
        planner.reset()
        states = [info["state"]]
        begun, actions = 0, task.contract.action.safe_values[None]
        waiting: deque[tuple[int, NDArray[np.float64]]] = deque()
        for tick in range(problems.budget):
            since = tick % config.replan
            if since == 0:
                plan = planner.plan(checkpoint.encode(np.stack(frames)), goal, delay=known)
                waiting.append((tick + delay, plan.actions[known:]))
                evaluations = plan.evaluations
                seconds.append(plan.seconds)
            if waiting and waiting[0][0] == tick:
                begun, actions = waiting.popleft()
            task.advance(actions[min(tick - begun, len(actions) - 1)], task.contract.period)
            states.append(task.state)
            # Pictures take most of the simulator's time: none is taken that no plan will be made from.
            ahead = config.replan - 1 - since
            if view or (ahead < count and tick + 1 + ahead < problems.budget):
                frames.append(seen(model_input(task.observe()["pixels"], stream)))
        trajectories.append(np.stack(states))
        progress(number + 1)
    return Rollouts(np.stack(trajectories), np.array(seconds), evaluations)


def _as_it_is(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image


def run_random(task: RobotTask, problems: Pairs, seed: int = 0) -> Rollouts:
    """Let coloured noise, which knows neither goal nor state, work on each pair: the floor."""
    policy = ColouredNoise(task.contract, np.random.default_rng([seed, 1]))
    trajectories = []
    for pair in problems.pairs:
        policy.reset()
        actions = (policy.next() for _ in range(problems.budget))
        trajectories.append(_play(task, pair, actions))
    return Rollouts(np.stack(trajectories), np.empty(0))


def run_recorded(task: RobotTask, problems: Pairs) -> Rollouts:
    """
    Do again from each start what the exploration did there: the ceiling.

    It reaches the goal at tick ``offset``, unless the physics depends on what a state does not tell.
    """
    return Rollouts(np.stack([_play(task, pair, pair.actions) for pair in problems.pairs]), np.empty(0))


def _play(task: RobotTask, pair: Pair, actions: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Apply actions from the start of a pair; return the states, shape (T + 1, S)."""
    task.reset(seed=pair.seed, options={"state": pair.start_state})
    states = [task.state]
    for action in actions:
        task.advance(action, task.contract.period)
        states.append(task.state)
    return np.stack(states)
