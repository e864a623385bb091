"""The closed-loop protocol: which problems, who sees what of them, and verdicts that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import information

from smwm_ros.errors import ConfigError
from smwm_ros.evaluation.judging import errors, judge, wilson
from smwm_ros.evaluation.pairs import Pair, Pairs, draw_pairs
from smwm_ros.evaluation.protocol import Rollouts, run_planner, run_random, run_recorded
from smwm_ros.models.checkpoint import Checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.mpc import MPC
from smwm_ros.planning.protocol import PlanResult
from smwm_ros.resources import find_contract
from smwm_ros.tasks import RobotTask, make_task


@pytest.fixture(scope="module")
def task() -> Iterator[RobotTask]:
    with make_task(find_contract("reacher")) as task:
        yield task


def state(shoulder: float, elbow: float = 0.0) -> np.ndarray:
    return np.array([shoulder, elbow, 0, 0])


def pair(start: np.ndarray, goal: np.ndarray) -> Pair:
    """A pair of which only the states matter."""
    image = np.zeros((64, 64, 3), np.uint8)
    return Pair(start, goal, image, before=image[None][:0], actions=np.empty((0, 2)), seed=0)


def problem(*trajectories: list[float]) -> tuple[Pairs, Rollouts]:
    """Pairs whose goal is 0, and rollouts in which the shoulder has the given angles."""
    pairs = tuple(pair(state(angles[0]), state(0)) for angles in trajectories)
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


def test_a_pair_that_a_wide_threshold_calls_solved_is_none(task: RobotTask) -> None:
    """Judged by a wider threshold than the task's own, such pairs would count as reached by doing nothing."""
    pairs = draw_pairs(task, 5, 10, seed=7, threshold=0.5)
    assert pairs.already_solved > 0
    assert not any(task.success(pair.start_state, pair.goal_state, 0.5) for pair in pairs.pairs)


ROBOTS = ("reacher", "reacher_torque", "two_room", "push_t", "push_t_stiff", "pick_cube")


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_goal_can_be_reached_from_its_start(robot: str) -> None:
    """By doing what the exploration did, in half the time, unless a reset forgets something."""
    with make_task(find_contract(robot)) as task:
        pairs = draw_pairs(task, 3, 25, seed=2)
        towards = errors(task, pairs, run_recorded(task, pairs))
        assert towards.shape == (3, 26)
        assert (towards[:, 0] > task.threshold).all()
        assert (towards[:, -1] < 0.01 * task.threshold).all()


def test_pictures_before_the_start_are_the_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They show the velocity that the arm starts with; there are fewer when it has hardly begun."""
    with make_task(find_contract("reacher_torque")) as task:
        states: list[np.ndarray] = []
        advance = task.advance
        monkeypatch.setattr(task, "advance", lambda *args: (states.append(task.state), advance(*args)))
        pairs = draw_pairs(task, 6, 5, seed=4, history=9).pairs
        lengths = set()
        for pair in pairs:
            start = next(i for i, state in enumerate(states) if np.array_equal(state, pair.start_state))
            episode = pair.before.shape[0]
            lengths.add(episode)
            assert episode <= 9
            expected = [task.render_state(state) for state in states[start - episode : start]]
            np.testing.assert_array_equal(pair.before, np.array(expected).reshape(pair.before.shape))
        assert 9 in lengths
        assert draw_pairs(task, 2, 5, seed=4).pairs[0].before.shape == (0, 64, 64, 3)


class Spy(Checkpoint):
    """An untrained model of three frames that notes what it is shown."""

    def __init__(self, robot: str = "reacher_torque") -> None:
        contract = find_contract(robot)
        config = load_model_config("smwm").model_copy(update={"frames": 3})
        super().__init__(information(config, contract), WorldModel(config, contract), "spy")
        self.seen: list[np.ndarray] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images)
        return super().encode(images)


def test_the_planner_sees_the_newest_frames_and_the_goal_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An image of the wrong tick, or one too few, would make every evaluation of several frames wrong.

    Pictures that no plan is made from are not taken: they cost most of the simulator's time.
    """
    spy = Spy()
    with make_task(spy.contract) as task:
        pairs = draw_pairs(task, 4, 5, seed=4, history=2)
        looks: list[int] = []
        observe = task.observe
        monkeypatch.setattr(task, "observe", lambda: (looks.append(1), observe())[1])
        config = PlannerConfig(samples=8, elites=4, iterations=1, replan=5)
        rollouts = run_planner(task, spy, config, pairs)
        assert len(looks) == 4 * (1 + 3)  # at the reset, and at the ticks 3, 4 and 5
        for pair, states, shown in zip(
            pairs.pairs, rollouts.states, np.split(np.array(spy.seen), 4), strict=True
        ):
            goal, first, second = shown
            np.testing.assert_array_equal(goal, [pair.goal_image] * 3)
            past = [*pair.before, task.render_state(states[0])]
            np.testing.assert_array_equal(first, [past[0]] * (3 - len(past)) + past)
            np.testing.assert_array_equal(second, [task.render_state(state) for state in states[3:6]])
        seen = spy.seen.copy()
        spy.seen.clear()
        views: dict[int, list[int]] = {}

        def darker(number: int) -> Callable[[np.ndarray], np.ndarray]:
            ticks = views[number] = []
            return lambda image: (ticks.append(1), image // 2)[1]

        run_planner(task, spy, config, pairs, view=darker)
        past = [min(2, len(pair.before)) for pair in pairs.pairs]
        assert [len(views[number]) for number in range(4)] == [n + 1 + pairs.budget for n in past]
        np.testing.assert_array_equal(spy.seen[0], seen[0])  # the goal
        np.testing.assert_array_equal(spy.seen[1], seen[1] // 2)


class Counting:
    """A planner whose n-th plan, from 1, has the actions 100 n, 100 n + 1, …; it notes what it is told."""

    def __init__(self) -> None:
        self.delays: list[int] = []

    def reset(self) -> None:
        self.delays.clear()

    def plan(
        self, latent: np.ndarray, goal: np.ndarray, elapsed: int | None = None, delay: int = 0
    ) -> PlanResult:
        self.delays.append(delay)
        actions = np.repeat(100.0 * len(self.delays) + np.arange(15.0)[:, None], 2, axis=1)
        return PlanResult(actions, np.array(0.0), 1, 0.0, 1, np.inf)

    plan_batch = plan


@pytest.mark.parametrize(
    ("delay", "compensate", "played"),
    [
        (0, True, [100, 101, 102, 103, 104, 200, 201, 202, 203, 204]),
        (0, False, [100, 101, 102, 103, 104, 200, 201, 202, 203, 204]),
        (2, False, [0, 0, 100, 101, 102, 103, 104, 200, 201, 202]),
        (2, True, [0, 0, 102, 103, 104, 105, 106, 202, 203, 204]),
        (7, True, [0, 0, 0, 0, 0, 0, 0, 107, 108, 109]),
    ],
)
def test_a_plan_is_played_when_the_delay_is_over(
    task: RobotTask, monkeypatch: pytest.MonkeyPatch, delay: int, compensate: bool, played: list[float]
) -> None:
    """
    Before the first plan the safe action, then each plan from where it is due.

    A compensated plan goes on with the action of the tick that has come; without, it begins with its first.
    """
    actions: list[float] = []
    monkeypatch.setattr(task, "advance", lambda action, period: actions.append(action[0]))
    pairs = Pairs((pair(state(0.0), state(1.0)),), already_solved=0, offset=5)
    counting = Counting()
    spy = Spy("reacher")
    run_planner(task, spy, PlannerConfig(), pairs, planner=counting, delay=delay, compensate=compensate)
    assert actions == played
    assert counting.delays == [delay if compensate else 0] * 2


@pytest.mark.parametrize("delay", [3, 7])
def test_a_compensating_planner_knows_what_is_played_meanwhile(
    task: RobotTask, monkeypatch: pytest.MonkeyPatch, delay: int
) -> None:
    """Also with a delay longer than from plan to plan: else it would plan from where the robot is not."""
    torch.manual_seed(0)  # of the spy's weights
    spy = Spy("reacher")
    config = PlannerConfig(samples=8, elites=4, iterations=1)
    mpc = MPC(spy, config)
    plans: list[np.ndarray] = []
    played: list[np.ndarray] = []

    def plan(*arguments: Any, **options: Any) -> PlanResult:
        result = MPC.plan(mpc, *arguments, **options)
        plans.append(result.actions)
        return result

    monkeypatch.setattr(mpc, "plan", plan)
    monkeypatch.setattr(task, "advance", lambda action, period: played.append(action))
    pairs = Pairs((pair(state(0.0), state(1.0)),), already_solved=0, offset=15)
    run_planner(task, spy, config, pairs, planner=mpc, delay=delay)
    for number, actions in enumerate(plans):
        begin = number * config.replan
        meanwhile = np.array(played[begin : begin + delay])
        np.testing.assert_array_equal(actions[: len(meanwhile)], meanwhile)
    assert len({tuple(action) for action in played[delay:]}) > 5


def test_distractors_are_elsewhere_in_the_goals_picture() -> None:
    """
    The same things are in view as for the robot, but never where the goal's picture shows them.

    A goal that could be recognised by where they are would be another problem. The states are
    those without distractors, so that the two can be compared pair by pair.
    """
    with make_task(find_contract("two_room"), distractors=True) as task:
        clean = make_task(find_contract("two_room"))
        pairs = draw_pairs(task, 2, 10, seed=3, history=1)
        for pair, other in zip(pairs.pairs, draw_pairs(clean, 2, 10, seed=3).pairs, strict=True):
            np.testing.assert_array_equal(pair.goal_state, other.goal_state)
            assert (pair.goal_image != other.goal_image).any(-1).mean() > 0.02
            task.reset(seed=pair.seed, options={"state": pair.start_state})
            start = task.observe()["pixels"]
            np.testing.assert_array_equal(start, task.render_state(pair.start_state, 0.0))
            if len(pair.before):
                assert difference(pair.before[-1], start) < 0.5 * difference(pair.goal_image, start)
            seconds = task.contract.period * np.arange(pairs.budget + 1)
            nearest = min(
                difference(task.render_state(pair.goal_state, at), pair.goal_image) for at in seconds
            )
            assert nearest > 2
        clean.close()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Tell how much two pictures differ, however bright the light is, in percent of it."""
    return float(100 * np.abs(first / first.mean() - second / second.mean()).mean())


def test_pairs_in_which_an_object_must_move() -> None:
    """Bringing the pusher to its place does not solve them; the others are no evidence of pushing."""
    with make_task(find_contract("push_t")) as task:
        start, moved, pushed, turned, swapped = (np.zeros(10) for _ in range(5))
        start[:2] = -0.2, -0.2
        moved[:2] = 0.2, 0.2  # the pusher alone
        pushed[:4] = -0.2, -0.2, 0.05, 0.0
        turned[:5] = -0.2, -0.2, 0, 0, 0.5
        swapped[:4] = 0, 0, 0.12, 0.12  # the pusher ends where the block was
        goals = (moved, pushed, turned, swapped)
        assert [task.must_move_object(start, goal) for goal in goals] == [False, True, True, True]
        pairs = Pairs(tuple(pair(start, goal) for goal in goals), already_solved=0, offset=1)
        rest = np.array([start, start])
        rollouts = Rollouts(
            np.array([[start, start, moved], [*rest, pushed], [start, turned, start], [*rest, start]]),
            np.empty(0),
        )
        figures = judge(task, pairs, rollouts, rollouts)
        assert figures["success_any"] == 75.0
        assert figures["must_move_pairs"] == 3
        assert (figures["must_move_any"], figures["must_move_last"]) == (66.7, 33.3)
        assert figures["must_move_random_any"] == 66.7
        first = Rollouts(rollouts.states[:1], np.empty(0))
        none = judge(task, Pairs(pairs.pairs[:1], 0, 1), first, first)
        assert (none["must_move_pairs"], none["must_move_any"]) == (0, None)


def test_robots_without_objects_have_no_such_figures(task: RobotTask) -> None:
    pairs, rollouts = problem([1.0, 0.0])
    assert not any(key.startswith("must_move") for key in judge(task, pairs, rollouts, rollouts))


def test_objects_are_what_is_not_the_robot() -> None:
    """Were an arm's joints among them, pairs would count in which nothing was pushed."""
    expected = {
        "reacher": (),
        "push_t_stiff": ("block_x", "block_y", "block_yaw"),
        "pick_cube": ("cube_x", "cube_y", "cube_z", "cube_yaw"),
    }
    for robot, objects in expected.items():
        with make_task(find_contract(robot)) as task:
            assert task.objects == objects
