"""The simulated robot and the explorer as ROS nodes, over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
import yaml
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool, Trigger

from smwm_ros.messages import decode_image, encode_command, from_time, to_time
from smwm_ros.msg import AppliedAction, Plan
from smwm_ros.nodes.explorer_node import ExplorerNode
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.qos import CLOCK, EVERY, NEWEST, sensor
from smwm_ros.nodes.sim_node import SimNode
from smwm_ros.resources import contract_path, find_contract
from smwm_ros.srv import Reset
from smwm_ros.tasks import make_task
from smwm_ros.tasks.exploration import make_policy

CONTRACT = find_contract("reacher")
PERIOD = CONTRACT.period_ns
ACTIONS = np.random.default_rng(1).uniform(-2, 2, (12, 2))


class Bench:
    """The nodes under test and a node that plays the rest of the stack, on one executor."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[Node] = []
        self.node = self.add(Node("probe", context=self.context))
        self.images: list[Image] = []
        self.joints: list[JointState] = []
        self.clocks: list[Clock] = []
        reliable = sensor("reliable")
        self.node.create_subscription(Image, "camera/image_raw", self.images.append, reliable)
        self.node.create_subscription(JointState, "joint_states", self.joints.append, reliable)
        self.node.create_subscription(Clock, "/clock", self.clocks.append, CLOCK)
        self.commands = self.node.create_publisher(Float64MultiArray, CONTRACT.action.topic, NEWEST)
        self.applied = self.node.create_publisher(AppliedAction, "applied_action", EVERY)

    def add(self, node: Node) -> Node:
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def start(self, kind: type[SmwmNode], **parameters: object) -> SmwmNode:
        overrides = {
            "contract": str(contract_path("reacher")),
            "lock_step": True,
            "sensor_reliability": "reliable",
        } | parameters
        node = kind(
            kind.__name__.lower(),
            context=self.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
        )
        self.add(node)
        assert node.bring_up()
        return node

    def spin(self, until: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.05)

    def settle(self) -> None:
        """Handle whatever is on its way."""
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def send(self, values: np.ndarray, stamp: int, *, command: bool = True, applied: bool = True) -> None:
        if applied:
            message = AppliedAction(values=values)
            message.header.stamp = to_time(stamp)
            self.applied.publish(message)
        if command:
            self.commands.publish(encode_command(CONTRACT, values, stamp))

    def act(self, values: np.ndarray) -> None:
        """Answer the newest image, and wait for the next one."""
        count = len(self.images)
        self.send(values, self.stamps[-1])
        self.spin(lambda: len(self.images) > count and self.complete)

    def call(self, kind: type, name: str, **request: object) -> object:
        client = self.node.create_client(kind, name)
        self.spin(client.service_is_ready)
        future = client.call_async(kind.Request(**request))
        self.spin(future.done)
        self.node.destroy_client(client)
        return future.result()

    @property
    def complete(self) -> bool:
        """Whether the joints of the newest image are there: topics may overtake one another."""
        return bool(self.joints) and self.joints[-1].header.stamp == self.images[-1].header.stamp

    @property
    def stamps(self) -> list[int]:
        return [from_time(image.header.stamp) for image in self.images]

    @property
    def states(self) -> np.ndarray:
        return np.array([[*message.position, *message.velocity] for message in self.joints])

    def close(self) -> None:
        self.executor.shutdown()
        for node in self.nodes:
            if isinstance(node, SmwmNode):
                node.trigger_shutdown()
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_lock_step_is_exactly_the_task(bench):
    """One tick too many or too few, an action a tick late, or a stamp that is not the state's."""
    bench.start(SimNode, seed=3)
    bench.spin(lambda: bench.images)
    for action in ACTIONS:
        bench.act(action)
    task = make_task(CONTRACT)
    observation, info = task.reset(seed=3)
    expected = [info["state"]]
    pixels = [observation["pixels"]]
    for action in ACTIONS:
        observation, _, _, _, info = task.step(action)
        expected.append(info["state"])
        pixels.append(observation["pixels"])
    task.close()
    np.testing.assert_array_equal(bench.states, expected)
    for image, picture in zip(bench.images, pixels, strict=True):
        np.testing.assert_array_equal(decode_image(CONTRACT, image), picture)
    assert bench.stamps == [PERIOD * (1 + tick) for tick in range(len(ACTIONS) + 1)]
    assert [from_time(message.header.stamp) for message in bench.joints] == bench.stamps
    assert {from_time(message.clock) for message in bench.clocks} <= set(bench.stamps)


def test_lock_step_waits_for_command_and_applied_action(bench):
    """A step on half an answer applies the action of the tick before."""
    bench.start(SimNode)
    bench.spin(lambda: bench.images)
    bench.act(ACTIONS[0])
    now, count = bench.stamps[-1], len(bench.images)
    bench.send(ACTIONS[1], now, command=False)
    bench.settle()
    bench.send(ACTIONS[2], now, applied=False)  # not the command that the applied action speaks of
    bench.settle()
    assert len(bench.images) == count
    bench.send(ACTIONS[1], now, applied=False)
    bench.spin(lambda: len(bench.images) > count)
    bench.send(ACTIONS[1], now)  # of a tick that is over
    bench.settle()
    assert len(bench.images) == count + 1


def test_first_image_is_shown_again_until_it_is_answered(bench):
    """A node that connects late would otherwise leave the whole stack waiting for ever."""
    bench.start(SimNode)
    bench.spin(lambda: len(bench.images) >= 2)
    assert len(set(bench.stamps)) == 1
    bench.act(ACTIONS[0])
    count = len(bench.images)
    end = time.monotonic() + 1.5
    bench.spin(lambda: time.monotonic() > end)
    assert len(bench.images) == count


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [0.0, np.inf], [1.0], [1.0, 2.0, 3.0], []])
def test_bad_command_is_ignored_and_counted(bench, bad):
    """A NaN that reaches the physics ends the simulation; a wrong length moves the wrong joint."""
    sim = bench.start(SimNode)
    bench.spin(lambda: bench.images)
    bench.act(ACTIONS[0])
    count = len(bench.images)
    bench.commands.publish(Float64MultiArray(data=bad))
    bench.spin(lambda: sim.monitor.count("dropped.command") == 1)
    bench.act(ACTIONS[1])
    assert len(bench.images) == count + 1
    assert np.isfinite(bench.states).all()


def test_distractors_are_a_parameter(bench):
    bench.start(SimNode, seed=3, distractors=True)
    bench.spin(lambda: bench.images)
    task = make_task(CONTRACT, distractors=True)
    picture = task.reset(seed=3)[0]["pixels"]
    task.close()
    np.testing.assert_array_equal(decode_image(CONTRACT, bench.images[0]), picture)


def test_reset_shows_as_a_gap(bench):
    """An episode that goes on across a reset teaches the model a teleport."""
    bench.start(SimNode)
    bench.spin(lambda: bench.images)
    bench.act(ACTIONS[0])
    before, count = bench.stamps[-1], len(bench.images)
    state = [0.3, -0.4, 0.1, 0.0]
    response = bench.call(Reset, "sim/reset", seed=5, state=state)
    assert response.success
    bench.spin(lambda: len(bench.images) > count and bench.complete)
    assert bench.stamps[-1] == from_time(response.stamp)
    assert bench.stamps[-1] - before > CONTRACT.max_gap_ns
    np.testing.assert_array_equal(bench.states[-1], state)
    bench.send(ACTIONS[1], before)  # meant for the time before the reset
    bench.settle()
    np.testing.assert_array_equal(bench.states[-1], state)
    bench.act(ACTIONS[2])
    assert bench.stamps[-1] == from_time(response.stamp) + PERIOD


def test_same_seed_same_episode(bench):
    bench.start(SimNode)
    states = [bench.call(Reset, "sim/reset", seed=seed).state.tolist() for seed in (7, 8, 7)]
    assert states[0] == states[2] != states[1]


@pytest.mark.parametrize(
    ("state", "reason"),
    [([0.0] * 3, "4 finite numbers"), ([0.0, 3.0, 0.0, 0.0], "elbow"), ([np.nan] * 4, "finite")],
)
def test_bad_reset_changes_nothing(bench, state, reason):
    bench.start(SimNode)
    bench.spin(lambda: bench.images)
    bench.act(ACTIONS[0])
    before, count = bench.stamps[-1], len(bench.images)
    response = bench.call(Reset, "sim/reset", state=state)
    assert not response.success
    assert reason in response.message
    assert len(bench.images) == count
    bench.act(ACTIONS[1])
    assert bench.stamps[-1] == before + PERIOD


def test_pause_and_single_steps(bench):
    bench.start(SimNode)
    bench.spin(lambda: bench.images)
    bench.act(ACTIONS[0])
    assert not bench.call(Trigger, "sim/step").success  # it runs
    assert bench.call(SetBool, "sim/pause", data=True).success
    count = len(bench.images)
    bench.send(ACTIONS[1], bench.stamps[-1])
    bench.settle()
    assert len(bench.images) == count
    assert bench.call(Trigger, "sim/step").success
    bench.spin(lambda: len(bench.images) == count + 1)
    assert bench.call(SetBool, "sim/pause", data=False).success
    bench.act(ACTIONS[2])
    task = make_task(CONTRACT)
    task.reset(seed=0)
    for action in ACTIONS[:3]:
        task.step(action)
    np.testing.assert_array_equal(bench.states[-1], task.state)
    task.close()


def test_real_time_follows_the_clock(bench):
    """However late its timer fires, the robot must be where the command and the stamps say."""
    bench.start(SimNode, lock_step=False)
    bench.spin(lambda: bench.images)
    bench.send(np.array([2.0, 0.0]), 0)
    bench.spin(lambda: len(bench.joints) > 2 and abs(bench.joints[-1].velocity[0] - 2.0) < 1e-3)
    first = len(bench.joints)
    bench.spin(lambda: len(bench.joints) > first + 30)
    times = np.array([from_time(message.header.stamp) for message in bench.joints[first:]]) * 1e-9
    angles = bench.states[first:, 0]
    slope = np.polyfit(times - times[0], angles, 1)[0]
    assert slope == pytest.approx(2.0, abs=0.02)
    assert abs(time.time() - times[-1]) < 5


def test_real_time_reset_is_silent_for_a_while(bench):
    bench.start(SimNode, lock_step=False)
    bench.spin(lambda: len(bench.images) > 3)
    response = bench.call(Reset, "sim/reset", seed=1)
    bench.spin(lambda: bench.stamps[-1] >= from_time(response.stamp) and bench.complete)
    gaps = np.diff(bench.stamps)
    assert gaps.max() > CONTRACT.max_gap_ns
    np.testing.assert_allclose(bench.states[-1], response.state, atol=1e-9)


def test_depth_and_calibration_on_demand(bench):
    """They are sent with the image's stamp, and describe the same camera."""
    depths: list[Image] = []
    infos: list[CameraInfo] = []
    profile = sensor("reliable")
    bench.node.create_subscription(Image, "camera/depth", depths.append, profile)
    bench.node.create_subscription(CameraInfo, "camera/camera_info", infos.append, profile)
    bench.start(SimNode)
    bench.spin(lambda: bench.images and depths and infos)
    depth, info, image = depths[-1], infos[-1], bench.images[-1]
    assert depth.header == info.header == image.header
    metres = np.frombuffer(depth.data, np.float32).reshape(depth.height, depth.width)
    assert metres.shape == (64, 64)
    assert metres.max() == pytest.approx(0.9, abs=1e-3)
    assert (info.width, info.height, info.k[0], info.k[2]) == (64, 64, pytest.approx(87.9, abs=0.1), 31.5)


def test_contract_of_a_real_robot_cannot_be_simulated(bench, tmp_path):
    """A lifecycle failure with a reason, not a traceback or a node that pretends to run."""
    path = tmp_path / "real.yaml"
    path.write_text(yaml.safe_dump(CONTRACT.model_dump(mode="json") | {"task": None}))
    node = SimNode("sim", context=bench.context, parameter_overrides=[Parameter("contract", value=str(path))])
    assert not node.bring_up()
    node.destroy_node()


class Player(Node):
    """What the action node does, at its simplest: plays every plan's first action at once."""

    def __init__(self, bench: Bench) -> None:
        super().__init__("player", context=bench.context)
        self.plans: list[Plan] = []
        self._bench = bench
        self.create_subscription(Plan, "plan", self._play, NEWEST)

    def _play(self, plan: Plan) -> None:
        self.plans.append(plan)
        self._bench.send(np.array(plan.actions), from_time(plan.header.stamp))


def test_explorer_makes_episodes_and_ends(bench):
    """Episodes of another length, actions for the last image, or a node that never ends."""
    player = bench.add(Player(bench))
    bench.start(SimNode)
    explorer = bench.start(ExplorerNode, seed=11, episodes=3, episode_ticks=6)
    bench.spin(explorer.finished.done)
    bench.settle()
    assert explorer.finished.result() == 0
    stamps = np.array(sorted(set(bench.stamps)))
    starts = np.flatnonzero(np.diff(stamps) > CONTRACT.max_gap_ns) + 1
    episodes = [episode for episode in np.split(stamps, starts) if len(episode) > 1]
    assert [len(episode) for episode in episodes] == [6, 6, 6]
    planned = sorted({from_time(plan.header.stamp) for plan in player.plans})
    assert planned == [stamp for episode in episodes for stamp in episode[:-1]]
    for plan in player.plans:
        assert (plan.model, plan.execute, plan.action_size, plan.evidence) == (
            "explorer",
            1,
            2,
            plan.header.stamp,
        )
        assert plan.period == CONTRACT.period
    task = make_task(CONTRACT)
    first = {from_time(message.header.stamp): [*message.position] for message in bench.joints}
    for number, episode in enumerate(episodes):
        task.reset(seed=11 + number)
        np.testing.assert_array_equal(first[episode[0]], task.joints)
    task.close()


def test_explorer_follows_a_policy_that_looks_at_the_state(bench):
    """Actions drawn from the state of the tick before, or of the last episode, go somewhere else."""
    contract, path = find_contract("push_t"), str(contract_path("push_t"))
    player = bench.add(Player(bench))
    bench.start(SimNode, contract=path)
    explorer = bench.start(ExplorerNode, contract=path, seed=11, episodes=2, episode_ticks=8)
    bench.spin(explorer.finished.done)
    sent = {from_time(plan.header.stamp): [*plan.actions] for plan in player.plans}
    with make_task(contract) as task:
        policy = make_policy(contract, np.random.default_rng(11), lambda: task.state)
        expected = []
        for episode in range(2):
            task.reset(seed=11 + episode)
            policy.reset()
            for _ in range(7):
                expected.append(policy.next())
                task.step(expected[-1])
    np.testing.assert_allclose([sent[stamp] for stamp in sorted(sent)], expected, atol=1e-9)


def test_explorer_without_lock_step_counts_images(bench):
    player = bench.add(Player(bench))
    bench.start(SimNode, lock_step=False)
    explorer = bench.start(ExplorerNode, lock_step=False, episodes=2, episode_ticks=5)
    bench.spin(explorer.finished.done)
    assert explorer.finished.result() == 0
    assert len(player.plans) >= 8
