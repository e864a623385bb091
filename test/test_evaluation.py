"""The closed-loop protocol, against cases whose verdict is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.protocol import Pair, Pairs, Rollouts, draw_pairs, judge, run_random, wilson
from smwm_ros.resources import find_contract
from smwm_ros.tasks import RobotTask, make_task


@pytest.fixture(scope="module")
def task() -> Iterator[RobotTask]:
    with make_task(find_contract("reacher")) as task:
        yield task


def state(shoulder: float, elbow: float = 0.0) -> np.ndarray:
    return np.array([shoulder, elbow, 0, 0])


def problem(*trajectories: list[float]) -> tuple[Pairs, Rollouts]:
    """Pairs whose goal is 0, and rollouts in which the shoulder has the given angles."""
    image = np.zeros((64, 64, 3), np.uint8)
    pairs = tuple(Pair(state(angles[0]), state(0), image) for angles in trajectories)
    states = np.array([[state(angle) for angle in t] for t in trajectories])
    problems = Pairs(pairs, already_solved=1, offset=len(trajectories[0]) // 2)
    return problems, Rollouts(states, np.array([0.001, 0.002, 0.009]), 10)


def test_judging_by_hand(task: RobotTask) -> None:
    """Any tick, last tick, wrapped angles, two thresholds: each pair's verdict is known."""
    pairs, rollouts = problem(
        [1.0, 0.5, 0.09, 0.04],  # reached at the last tick
        [1.0, 0.08, 0.5, 0.5],  # passed by
        [1.0, 0.5, 0.5, 2 * np.pi + 0.07],  # reached the long way round
        [0.05, 0.5, 0.5, 0.5],  # there at the start only: does not count
    )
    figures = judge(task, pairs, rollouts, rollouts)
    assert figures["success_any"] == 75.0
    assert figures["success_last"] == 50.0
    assert figures["threshold"] == 0.1
    assert figures["by_threshold"][1]["success_any"] == 25.0  # type: ignore[index]
    assert figures["already_solved"] == 20.0
    assert figures["plan_ms"] == 2.0


def test_both_joints_count(task: RobotTask) -> None:
    """A shoulder at its goal does not make up for an elbow that is not."""
    pairs, rollouts = problem([1.0, 0.0])
    rollouts.states[0, 1, 1] = 0.2
    assert judge(task, pairs, rollouts, rollouts)["success_any"] == 0.0


def test_wilson_interval() -> None:
    """Known values of the 95 % interval, at the edge and in the middle."""
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_pairs_are_seeded_and_unsolved(task: RobotTask) -> None:
    """A seed gives the same pairs twice; none is solved at the start; the goal image shows the goal."""
    first, second, other = (draw_pairs(task, 5, 10, seed) for seed in (7, 7, 8))
    for a, b in zip(first.pairs, second.pairs, strict=True):
        np.testing.assert_array_equal(a.start_state, b.start_state)
        np.testing.assert_array_equal(a.goal_image, b.goal_image)
        assert not task.success(a.start_state, a.goal_state)
        np.testing.assert_array_equal(task.render_state(a.goal_state), a.goal_image)
    assert not np.array_equal(first.pairs[0].start_state, other.pairs[0].start_state)
    assert first.budget == 20


def test_random_floor_starts_where_the_pairs_start(task: RobotTask) -> None:
    """The floor has one row per tick, the first one the start, and is seeded."""
    pairs = draw_pairs(task, 2, 5, seed=1)
    floor = run_random(task, pairs, seed=3)
    assert floor.states.shape == (2, 11, 4)
    np.testing.assert_allclose(floor.states[:, 0], [pair.start_state for pair in pairs.pairs])
    np.testing.assert_array_equal(floor.states, run_random(task, pairs, seed=3).states)


def test_no_pairs_is_refused(task: RobotTask) -> None:
    """Zero pairs or a zero offset is an error, not a division by zero."""
    with pytest.raises(ConfigError, match="at least 1"):
        draw_pairs(task, 0, 25, 0)
