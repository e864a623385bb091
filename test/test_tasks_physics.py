"""Known answers of each robot's physics, and what its exploration policy brings about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smwm_ros.errors import SimulationError
from smwm_ros.resources import find_contract
from smwm_ros.tasks import RobotTask, make_task
from smwm_ros.tasks.exploration import make_policy
from smwm_ros.tasks.push_t import distance_to_block


def robot(name: str) -> Iterator[RobotTask]:
    with make_task(find_contract(name)) as made:
        yield made


@pytest.fixture(scope="module")
def rooms() -> Iterator[RobotTask]:
    yield from robot("two_room")


@pytest.fixture(scope="module")
def table() -> Iterator[RobotTask]:
    yield from robot("push_t")


@pytest.fixture(scope="module")
def stiff() -> Iterator[RobotTask]:
    yield from robot("push_t_stiff")


@pytest.fixture(scope="module")
def arm() -> Iterator[RobotTask]:
    yield from robot("pick_cube")


def put(task: RobotTask, *state: float) -> None:
    padding = [0.0] * (len(task.state_names) - len(state))
    task.reset(seed=0, options={"state": [*state, *padding]})


def explore(task: RobotTask, seeds: range, ticks: int) -> np.ndarray:
    """Return the states (episodes, ticks, S) of the exploration policy."""
    episodes = []
    for seed in seeds:
        policy = make_policy(task.contract, np.random.default_rng(seed), lambda: task.state)
        task.reset(seed=seed)
        states = []
        for _ in range(ticks):
            task.advance(policy.next(), task.contract.period)
            states.append(task.state)
        episodes.append(states)
    return np.array(episodes)


class TestTwoRoom:
    @pytest.mark.parametrize(
        ("action", "stop"),
        [
            ((0.625, 0), (0.85, 0)),
            ((-0.625, 0), (0.137, 0)),
            ((0, 0.625), (0.3, 0.85)),
            ((0, -0.625), (0.3, -0.85)),
        ],
    )
    def test_walls_stop_the_base(self, rooms, action, stop):
        """The dividing wall, too: a way through it would make every problem a short one."""
        put(rooms, 0.3, 0.0)
        rooms.advance(action, 4.0)
        np.testing.assert_allclose(rooms.state[:2], stop, atol=2e-3)

    def test_the_door_lets_the_base_through(self, rooms):
        put(rooms, 0.3, 0.44)
        rooms.advance([-0.5, 0], 1.0)
        np.testing.assert_allclose(rooms.state[:2], [-0.2, 0.44], atol=0.03)

    def test_it_slides_along_a_wall(self, rooms):
        put(rooms, 0.85, -0.5)
        rooms.advance([0.625, 0.3], 2.0)
        np.testing.assert_allclose(rooms.state[:2], [0.85, 0.1], atol=0.02)

    def test_one_tick_moves_it_as_far_as_it_is_told(self, rooms):
        put(rooms, 0.5, 0.0)
        rooms.advance([0.3, -0.6], 0.5)
        rooms.advance([0.3, -0.6], 0.1)
        np.testing.assert_allclose(rooms.state[2:], [0.3, -0.6], atol=1e-3)

    @pytest.mark.parametrize("place", [(0.0, 0.0), (0.0, 0.3), (0.9, 0.0), (0.3, -0.95), (0.1, 0.8)])
    def test_places_in_walls_are_refused(self, rooms, place):
        with pytest.raises(SimulationError, match="wall"):
            put(rooms, *place)

    def test_the_threshold_is_the_peers(self, rooms):
        assert rooms.success([0.3, 0, 0, 0], [0.3, 0.14, 9, 9])
        assert not rooms.success([0.3, 0, 0, 0], [0.4, 0.1, 0, 0])

    def test_travel_goes_through_the_door(self, rooms):
        """Noise does so in one of three episodes of this length; goals at offset 100 need it."""
        x = explore(rooms, range(6), 150)[..., 0]
        assert (np.sign(x.min(1)) != np.sign(x.max(1))).sum() >= 5


class TestPushT:
    START = (0.0, 0.15, 0.0, 0.0, 0.0)
    """The pusher above the bar, at its middle."""

    def push(self, task: RobotTask, speed: float, seconds: float) -> np.ndarray:
        put(task, *self.START)
        task.advance([0, -speed], seconds)
        return task.state

    def test_the_stiff_pusher_does_as_it_is_told(self, stiff):
        state = self.push(stiff, 0.1, 1.5)
        assert state[1] == pytest.approx(0.0, abs=2e-3)
        assert state[3] == pytest.approx(state[1] - 0.015 - 0.0543, abs=2e-3)  # it touches the bar
        np.testing.assert_allclose(state[[2, 4]], 0, atol=1e-3)

    def test_the_block_slows_the_compliant_pusher(self, table):
        """10 N s/m of the drive against 5 N s/m of the table: two thirds of the speed."""
        self.push(table, 0.12, 1.5)
        assert table.state[6] == pytest.approx(-0.08, abs=3e-3)
        assert table.state[8] == pytest.approx(-0.08, abs=3e-3)

    def test_the_block_stops_when_it_is_not_pushed(self, table):
        self.push(table, 0.12, 1.5)
        before = table.state
        table.advance([0, 0.1], 1.0)
        assert np.abs(table.state[2:5] - before[2:5]).max() < 4e-3
        assert np.abs(table.state[7:]).max() < 1e-3

    def test_a_push_beside_the_centre_turns_it(self, table):
        put(table, 0.06, 0.15, 0.0, 0.0, 0.0)
        table.advance([0, -0.12], 1.5)
        assert table.state[4] < -0.3

    def test_nothing_leaves_the_table(self, table, stiff):
        for task in (table, stiff):
            put(task, *self.START)
            task.advance([0, -0.2], 4.0)
            task.check_state(task.state)
            task.advance([0.2, -0.2], 4.0)
            task.check_state(task.state)

    def test_yaw_counts_in_metres_and_the_short_way_round(self, table):
        """20 degrees are allowed, as 20 mm are, and a block that made a whole turn looks the same."""
        goal = [0, 0.2, 0, 0, np.pi - 0.1, 0, 0, 0, 0, 0]
        state = [0, 0.2, 0, 0, -np.pi + 0.2, 0, 0, 0, 0, 0]
        np.testing.assert_allclose(table.errors(state, goal), [0, 0.3 * 0.02 / np.radians(20)], atol=1e-9)
        assert table.success(state, goal)
        state[4] = -np.pi + 0.3
        assert not table.success(state, goal)

    def test_pusher_and_block_share_the_20_mm(self, table):
        goal = [0, 0.2, 0, 0, 0, 0, 0, 0, 0, 0]
        assert table.success([0.015, 0.2, 0.012, 0, 0, 0, 0, 0, 0, 0], goal)
        assert not table.success([0.015, 0.2, 0.015, 0, 0, 0, 0, 0, 0, 0], goal)

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            ((0.3, 0, 0, 0, 0), "pusher.*rim"),
            ((0.2, 0.2, 0.2, 0, 0), "block.*rim"),
            ((0.01, 0.03, 0, 0, 0), "pusher.*block"),
        ],
    )
    def test_overlaps_are_refused(self, table, state, message):
        with pytest.raises(SimulationError, match=message):
            put(table, *state)

    @settings(max_examples=30, deadline=None)
    @given(
        yaw=st.floats(-7, 7),
        x=st.floats(-0.1, 0.1),
        y=st.floats(-0.1, 0.1),
        along=st.floats(-0.08, 0.08),
        away=st.floats(0, 0.1),
    )
    def test_distance_to_the_block(self, yaw, x, y, along, away):
        """A point so far off the middle of the bar's upper side is so far from the block."""
        point = np.array([along, 0.0543 + away])
        turned = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]) @ point
        assert distance_to_block(turned + np.array([x, y]), np.array([x, y]), yaw) == pytest.approx(
            away, abs=1e-9
        )

    def test_the_policy_moves_the_block(self, table):
        """Noise moves it in 7 % of the ticks."""
        states = explore(table, range(4), 100)
        moved = np.linalg.norm(np.diff(states[..., 2:4], axis=1), axis=-1) > 5e-4
        assert moved.mean() > 0.25

    def test_one_picture_tells_the_yaw(self, table):
        """Pictures of all yaws differ, those of opposite ones too."""
        yaws = np.arange(0, 2 * np.pi, np.pi / 9)
        pictures = [table.render_state([0.2, 0.2, 0, 0, yaw, 0, 0, 0, 0, 0]).astype(int) for yaw in yaws]
        for index, picture in enumerate(pictures):
            for other in pictures[index + 1 :]:
                assert (np.abs(picture - other) > 60).any(axis=-1).sum() > 30


class TestReacherTorque:
    def test_it_is_the_suites_arm(self):
        """The end of 100 ticks of dm_control 1.0.30's own reacher.xml, under the same torques."""
        with make_task(find_contract("reacher_torque")) as task:
            put(task, 0.5, -1.0)
            for tick in range(100):
                task.advance([0.05 * np.sin(0.1 * tick), 0.05 * np.cos(0.13 * tick)], task.contract.period)
            expected = [2.2478092596838453, -0.6584563841479013, -0.6565108967375194, 5.408522387200354]
            np.testing.assert_allclose(task.state, expected, rtol=1e-6)

    def test_one_picture_does_not_tell_the_velocity(self):
        with make_task(find_contract("reacher_torque")) as task:
            still, moving = (task.render_state([0.5, -1.0, *speed]) for speed in ((0, 0), (3, -3)))
            np.testing.assert_array_equal(still, moving)


class TestPickCube:
    def grip(self, task: RobotTask) -> np.ndarray:
        policy = make_policy(task.contract, np.random.default_rng(0), lambda: task.state)
        return policy._place()

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_the_grip_moves_as_it_is_told(self, arm, axis):
        """... and in no other direction; inverse kinematics with a wrong sign go anywhere."""
        arm.reset(seed=3)
        arm.advance([0, 0, 0.1, 0], 1.0)
        before = self.grip(arm)
        action = np.zeros(4)
        action[axis] = -0.1
        arm.advance(action, 0.5)
        np.testing.assert_allclose(self.grip(arm) - before, 0.5 * action[:3], atol=6e-3)

    def test_grasp_lift_hold_and_release(self, arm):
        """The safe action must not drop what is held; a robot whose plans end would."""
        arm.reset(seed=0)
        state = arm.state
        state[8:12] = 0.42, 0.0, 0.02, 0.0
        state[6:8] = 0.04
        state[:6] = arm._reach(np.array([0.42, 0.0, 0.1]))
        arm.reset(options={"state": state})
        arm.advance([0, 0, -0.16, -10], 0.5)
        arm.advance([0, 0, 0, 8], 0.4)
        arm.advance([0, 0, 0.15, 8], 0.8)
        lifted = arm.state[10]
        assert lifted > 0.1
        arm.advance(arm.contract.action.safe_values, 1.0)
        assert arm.state[10] == pytest.approx(lifted, abs=5e-3)
        arm.advance([0, 0, 0, -10], 1.0)
        assert arm.state[10] == pytest.approx(0.02, abs=2e-3)

    def test_the_grip_stays_in_its_box(self, arm):
        arm.reset(seed=1)
        arm.advance([0.2, 0.2, 0.2, 0], 4.0)
        np.testing.assert_allclose(self.grip(arm), [0.54, 0.18, 0.22], atol=2e-3)
        arm.advance([-0.2, -0.2, -0.2, 0], 4.0)
        np.testing.assert_allclose(self.grip(arm), [0.3, -0.18, 0.015], atol=2e-3)

    def test_only_the_cube_counts(self, arm):
        arm.reset(seed=1)
        goal = arm.state
        goal[:8] = 0
        goal[10] += 0.039
        assert arm.success(arm.state, goal)
        goal[9] += 0.01
        assert not arm.success(arm.state, goal)

    @pytest.mark.parametrize(("index", "value"), [(8, 0.7), (9, -0.3), (10, 0.0), (6, 0.06)])
    def test_impossible_places_are_refused(self, arm, index, value):
        arm.reset(seed=1)
        state = arm.state
        state[index] = value
        with pytest.raises(SimulationError, match="cannot be at"):
            arm.check_state(state)

    def test_the_policy_lifts_the_cube(self, arm):
        """Noise moves it in less than 1 % of the ticks, and never lifts it."""
        cube = explore(arm, range(4), 100)[..., 8:11]
        assert (np.linalg.norm(np.diff(cube, axis=1), axis=-1) > 5e-4).mean() > 0.15
        assert (cube[..., 2].max(1) > 0.05).sum() >= 2
