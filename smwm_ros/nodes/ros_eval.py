"""The closed-loop protocol through the ROS graph: the whole stack in lock-step, in its own processes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smwm_ros.errors import StackError
from smwm_ros.evaluation.pairs import Pair, Pairs, Progress
from smwm_ros.evaluation.protocol import Rollouts
from smwm_ros.nodes.client import RobotClient
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.stack.description import describe
from smwm_ros.stack.supervisor import Supervisor
from smwm_ros.tasks.base import RobotTask

PATIENCE = 300.0
"""Steady seconds that one pair may take; planning may be slow, and time stands still meanwhile."""
ARRIVAL = 10.0
"""Steady seconds that the last joint state may take after the goal's end."""
ATTEMPTS = 3
"""
Times a pair is begun. The robot waits for its commands, not for whoever watches: on a machine with
more work than processors, a joint state may be lost on its way to this process.
"""


class MissedStateError(StackError):
    """A joint state of a pair did not arrive, so the pair cannot be judged."""


def run_through_ros(
    task: RobotTask,
    robot: str,
    checkpoint: Path,
    config: PlannerConfig,
    problems: Pairs,
    seed: int = 0,
    distractors: bool = False,
    progress: Progress = lambda done: None,
) -> Rollouts:
    """
    Let the planner node work on each pair; the counterpart of ``run_planner``, which needs no ROS.

    Args:
        task: tells what the states are; the robot itself is simulated by the sim node.
        robot: name or path of its contract.
        checkpoint: path.
        config: of the planner.
        problems: the pairs.
        seed: of the planner.
        distractors: whether the simulator shows them, as it did to the pairs.
        progress: called after each pair with the number done.

    Raises:
        StackError: a process died, did not answer, or joint states were lost again and again.
    """
    specs = describe(
        "sim",
        {"contract": robot, "checkpoint": str(checkpoint), "lock_step": True, "seed": seed},
        {"planner": config.model_dump(), "sim": {"distractors": distractors}},
    )
    seconds: list[float] = []
    trajectories = []
    with (
        Supervisor(specs) as stack,
        RobotClient(task.contract, reliable=True, check=stack.check) as client,
    ):
        stack.wait_ready()
        client.wait_ready()
        for number, pair in enumerate(problems.pairs):
            states, solve_times = run_pair(client, task, pair, problems.budget)
            trajectories.append(states)
            seconds += solve_times
            progress(number + 1)
        status = client.status
    return Rollouts(np.stack(trajectories), np.array(seconds), status.evaluations if status else 0)


def run_pair(
    client: RobotClient, task: RobotTask, pair: Pair, budget: int
) -> tuple[NDArray[np.float64], list[float]]:
    """
    Reset to the start, send the goal, and watch the joints; again when a state was lost (see ``ATTEMPTS``).

    Returns:
        The states at the ticks 0 (before the first action) to ``budget``, shape (budget + 1, S), and
        the seconds that each plan took.

    Raises:
        MissedStateError: joint states were lost each time.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return _run_pair(client, task, pair, budget)
        except MissedStateError:
            continue
    return _run_pair(client, task, pair, budget)


def _run_pair(
    client: RobotClient, task: RobotTask, pair: Pair, budget: int
) -> tuple[NDArray[np.float64], list[float]]:
    contract = client.contract
    begin = client.reset(pair.start_state, pair.seed)
    limit = budget * contract.period
    goal = client.send_goal(pair.goal_image, tolerance=0.0, time_limit=limit, begin=begin)
    client.wait_until(lambda: goal.done, PATIENCE, "end of the goal")
    last, end = begin + contract.period_ns * budget, time.monotonic() + ARRIVAL
    while client.joints[-1].stamp < last and time.monotonic() < end:
        client.wait(0.1)
    rows = [row for row in client.joints if row.stamp <= last]
    ticks = [(row.stamp - begin) / contract.period_ns for row in rows]
    if ticks != list(range(budget + 1)):
        raise MissedStateError(f"of the joint states at the ticks 0 to {budget}, these arrived: {ticks}")
    names = contract.observation.joints.names
    states = np.stack([row.as_state(names, task.state_names) for row in rows])
    return states, [feedback.solve_time for feedback in goal.feedback]
