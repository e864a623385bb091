"""One planner node for several robots, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from robot import NODES, Robot, processes, wait_for, write_contract

from smwm_ros import msg
from smwm_ros.action import ReachGoal

Code = ReachGoal.Result
NAMES = ("alpha", "beta")


@pytest.fixture(scope="module")
def robots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Robot]]:
    """Two robots in namespaces, each with nodes of its own but for the planner, which they share."""
    folder = tmp_path_factory.mktemp("fleet")
    contract = write_contract(folder / "toy.yaml")
    path = folder / "toy.yaml"
    with ExitStack() as stack:
        stack.enter_context(processes(path, folder, "-p", "robots:=alpha,beta", nodes=["planner"]))
        for name in NAMES:
            own = [node for node in NODES if node != "planner"]
            stack.enter_context(processes(path, folder / name, "-r", f"__ns:=/{name}", nodes=own))
        made = [stack.enter_context(Robot(contract, namespace=name)) for name in NAMES]
        for robot in made:
            wait_for(lambda robot=robot: robot.ready, "the nodes", 90)
        yield made


def test_each_robot_reaches_its_own_goal_at_the_same_time(robots: list[Robot]) -> None:
    """Pins that goals, beliefs, plans and statuses of the robots do not get mixed up."""
    targets = [
        robot.position + offset for robot, offset in zip(robots, ([0.6, -0.4], [-0.5, 0.7]), strict=True)
    ]
    sent = [robot.goal(target) for robot, target in zip(robots, targets, strict=True)]
    for robot, target, goal in zip(robots, targets, sent, strict=True):
        result = goal.result()
        assert result.success, result.message
        assert np.linalg.norm(robot.position - target) < 0.25
        assert list(goal.feedback[0].subgoal) == pytest.approx(target, abs=1e-3)
        wait_for(lambda robot=robot: robot.applied[-1].reason == "stopped", "the stop")
        assert robot.statuses[-1].state == msg.PlannerStatus.SUCCEEDED


def test_what_goes_wrong_for_one_robot_is_none_of_the_others_concern(robots: list[Robot]) -> None:
    """A search that fails and a camera that falls silent end one goal; the other robot goes on."""
    alpha, beta = robots
    moving = beta.goal(beta.position + np.array([0.0, 1.0]), tolerance=0.0, time_limit=6.0)
    wait_for(lambda: np.any(beta.commands[-1][1]), "motion")
    assert alpha.goal([8.0, 0.0]).result().error_code == Code.INTERNAL
    goal = alpha.goal(alpha.position + np.array([3.0, 0.0]))
    alpha.camera = lambda image: None
    assert goal.result().error_code == Code.NO_BELIEF
    alpha.camera = lambda image: image
    assert moving.result().error_code == Code.TIME_LIMIT
    wait_for(lambda: beta.statuses[-1].state == msg.PlannerStatus.FAILED, "the status")
    assert beta.statuses[-1].plans > 10
    assert alpha.goal(alpha.position + np.array([-0.3, 0.0])).result().success


def test_a_newer_goal_preempts_that_of_its_own_robot_only(robots: list[Robot]) -> None:
    alpha, _ = robots
    first, other = (robot.goal(robot.position + np.array([0.0, -2.0])) for robot in robots)
    second = alpha.goal(alpha.position + np.array([-0.3, 0.0]))
    assert first.result().error_code == Code.PREEMPTED
    assert second.result().success
    assert not other.done or other.result().success
    other.handle.cancel_goal_async()
    assert other.result().error_code in (Code.CANCELED, Code.NONE)
