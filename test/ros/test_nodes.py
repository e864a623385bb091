"""The four nodes as processes on real DDS, with a toy world: goals, faults, transitions, lock-step."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from robot import REACHER, Robot, processes, wait_for, write_contract
from sensor_msgs.msg import Image

from smwm_ros import msg
from smwm_ros.action import ReachGoal
from smwm_ros.messages import encode_image, from_time, to_time
from smwm_ros.nodes import qos
from smwm_ros.srv import Predict

Code = ReachGoal.Result


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """A robot in real time, with all its nodes up."""
    folder = tmp_path_factory.mktemp("nodes")
    contract = write_contract(folder / "toy.yaml")
    with processes(folder / "toy.yaml", folder), Robot(contract) as made:
        wait_for(lambda: made.ready, "the nodes", 60)
        yield made


def fresh(items: list[Any], what: str, count: int = 1) -> list[Any]:
    """Wait for new items of a list that another thread fills, and return them."""
    seen = len(items)
    wait_for(lambda: len(items) >= seen + count, what)
    return items[seen:]


def fault(robot: Robot, node: str, kind: str) -> int:
    return int(robot.diagnostics.get(node, {}).get(kind, 0))


def test_goal_image_is_reached_and_the_robot_stopped(robot: Robot) -> None:
    target = robot.position + np.array([0.6, -0.4])
    goal = robot.goal(target)
    result = goal.result()
    assert (result.success, result.error_code) == (True, Code.NONE), result.message
    assert result.final_distance <= 0.5
    assert result.plans >= 1
    assert np.linalg.norm(robot.position - target) < 0.25
    distances = [feedback.distance for feedback in goal.feedback]
    assert distances[-1] < distances[0]
    assert list(goal.feedback[0].subgoal) == pytest.approx(target, abs=1e-3)
    wait_for(lambda: robot.applied[-1].source == msg.AppliedAction.SAFE, "the safe action")
    assert robot.applied[-1].reason == "stopped"
    wait_for(lambda: not np.any(robot.commands[-1][1]), "standstill")
    wait_for(lambda: robot.statuses[-1].state == msg.PlannerStatus.SUCCEEDED, "the status")


def test_latent_and_belief_carry_the_stamp_of_their_image(robot: Robot) -> None:
    stamps: list[int] = []

    def camera(image: Image) -> Image:
        stamps.append(from_time(image.header.stamp))
        return image

    robot.camera = camera
    belief = fresh(robot.beliefs, "beliefs", 10)[-1]
    assert from_time(belief.header.stamp) == from_time(belief.evidence)
    assert from_time(belief.header.stamp) in stamps
    assert belief.header.frame_id == "camera"
    assert {from_time(latent.header.stamp) for latent in robot.latents[-5:]} <= set(stamps)


def test_applied_actions_explain_what_is_seen(robot: Robot) -> None:
    """Pins the chain from the applied actions to the surprise: small while the robot really moves."""
    goal = robot.goal(robot.position + np.array([0.0, 1.5]), tolerance=0.0, time_limit=1.5)
    beliefs = fresh(robot.beliefs, "beliefs", 25)
    assert np.ptp([belief.latent[1] for belief in beliefs]) > 1.0, "the robot moved"
    # A late image begins the belief anew, without a surprise: on a busy machine there are a few of those.
    surprises = [belief.surprise for belief in beliefs if np.isfinite(belief.surprise)]
    assert len(surprises) >= 15
    # One unit is 0.02 of position: the robot acts on a command some ms after it was stamped.
    assert np.median(surprises) < 2.0
    assert goal.result().error_code == Code.TIME_LIMIT


def test_tolerance_zero_holds_the_goal_until_the_time_limit(robot: Robot) -> None:
    began = time.monotonic()
    result = robot.goal(robot.position, tolerance=0.0, time_limit=0.8).result()
    assert time.monotonic() - began >= 0.75
    assert (result.success, result.error_code) == (False, Code.TIME_LIMIT)


def test_cancel_stops_the_robot(robot: Robot) -> None:
    goal = robot.goal(robot.position + np.array([3.0, 0.0]))
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    goal.handle.cancel_goal_async()
    assert goal.result().error_code == Code.CANCELED
    wait_for(lambda: not np.any(robot.commands[-1][1]), "standstill", 2.0)


def test_newer_goal_takes_over_without_a_stop_between(robot: Robot) -> None:
    first = robot.goal(robot.position + np.array([3.0, 0.0]))
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    seen = len(robot.applied)
    second = robot.goal(robot.position + np.array([-0.5, 0.0]))
    assert first.result().error_code == Code.PREEMPTED
    taken_over = len(robot.applied)
    assert not [a.reason for a in robot.applied[seen:taken_over] if a.source == msg.AppliedAction.SAFE]
    assert second.result().success


def test_bad_goal_ends_at_once_and_preempts_nothing(robot: Robot) -> None:
    running = robot.goal(robot.position + np.array([2.0, 0.0]), time_limit=2.0)
    bad = {
        "size": {"image": Image(width=8, height=8, step=24, encoding="rgb8", data=bytes(192))},
        "encoding": {"image": Image(width=16, height=16, step=32, encoding="mono16", data=bytes(512))},
        "latent of another size": {"image": Image(), "latent": [1.0, 2.0, 3.0]},
        "latent not finite": {"image": Image(), "latent": [1.0, float("nan")]},
        "latent of another model": {"image": Image(), "latent": [1.0, 2.0], "model": "other"},
        "image that the encoder cannot bear": {
            "image": encode_image(robot.contract, toy.draw(np.zeros(2), 16, nan=True), 0)
        },
        "nothing": {"image": Image()},
        "tolerance": {"tolerance": float("nan")},
    }
    for what, request in bad.items():
        result = robot.goal((0.0, 0.0), **request).result()
        assert result.error_code == Code.BAD_GOAL, what
        assert result.message, what
    assert not running.done
    running.handle.cancel_goal_async()
    assert running.result().error_code == Code.CANCELED


def test_latent_goal_is_reached_too(robot: Robot) -> None:
    target = robot.position + np.array([0.3, 0.3])
    assert robot.goal((0, 0), image=Image(), latent=target.astype(np.float32), model="toy").result().success


@pytest.mark.parametrize(
    ("edge", "said"),
    [([8.0, 0.0], "no sequence of actions has a finite cost"), ([0.0, 8.0], "ZeroDivisionError")],
)
def test_search_that_fails_ends_the_goal_and_the_robot_is_safe(
    robot: Robot, edge: list[float], said: str
) -> None:
    """Pins what becomes of a PlanningError, and of what a cost plugin raises: a code, a reason, a stop."""
    moving = robot.goal(robot.position + np.array([3.0, 0.0]))
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    result = robot.goal(edge).result()
    assert moving.result().error_code == Code.PREEMPTED
    assert result.error_code == Code.INTERNAL
    assert said in result.message
    wait_for(lambda: robot.applied[-1].reason == "stopped", "the safe action")
    assert robot.applied[-1].source == msg.AppliedAction.SAFE
    wait_for(lambda: not np.any(robot.commands[-1][1]), "standstill")
    assert robot.goal(robot.position + np.array([0.2, 0.0])).result().success, (
        "the next goal is none the worse"
    )


def test_missed_deadlines_are_counted_and_their_plans_are_played(robot: Robot) -> None:
    """Pins that a plan without a round of search is a plan: it is the rest of the last one."""
    before = fault(robot, "planner", "missed.deadline")
    goal = robot.goal([-8.0, robot.position[1]])
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    status = fresh(robot.statuses, "statuses", 3)[-1]
    assert status.state == msg.PlannerStatus.ACTIVE
    assert status.missed == status.plans >= 3
    assert status.iterations == 0
    assert status.slack == pytest.approx(-0.01)
    assert np.isnan(status.cost)
    wait_for(lambda: fault(robot, "planner", "missed.deadline") >= before + 3, "the diagnostics")
    assert robot.diagnostics["planner"]["slack_ms"] == "-10.000"
    goal.handle.cancel_goal_async()
    assert goal.result().error_code == Code.CANCELED
    assert robot.goal(robot.position + np.array([0.2, 0.0])).result().success
    wait_for(lambda: robot.statuses[-1].state == msg.PlannerStatus.SUCCEEDED, "the status")
    assert robot.statuses[-1].missed == 0


def test_what_planning_takes_is_made_up_for(robot: Robot) -> None:
    """Pins that a slow plan is stamped for when it is there, and as many ticks after its image as it says."""
    plans: list[msg.Plan] = []
    listener = robot.node.create_subscription(msg.Plan, "plan", plans.append, qos.NEWEST)
    goal = robot.goal([robot.position[0], -8.0])
    wait_for(lambda: robot.statuses[-1].delay >= 2, "what planning took to be learned")
    goal.handle.cancel_goal_async()
    assert goal.result().error_code == Code.CANCELED
    robot.node.destroy_subscription(listener)
    delays = []
    for plan in plans:
        if len(plan.actions):
            late = from_time(plan.header.stamp) - from_time(plan.evidence)
            assert late % robot.contract.period_ns == 0
            delays.append(late // robot.contract.period_ns)
            assert len(plan.actions) == 2 * (10 - delays[-1])
    assert 2 <= delays[-1] <= 5


@pytest.mark.parametrize(
    "wrong",
    [{"latent": [0.0, float("nan")]}, {"latent": [0.0]}, {"model": "other"}],
    ids=["not finite", "of another size", "of another model"],
)
def test_beliefs_that_cannot_be_planned_from_end_the_goal_as_if_there_were_none(
    robot: Robot, wrong: dict[str, Any]
) -> None:
    """Pins that a bad belief never becomes a plan: it is dropped and counted, and the robot is safe."""
    goal = robot.goal(robot.position + np.array([3.0, 0.0]))
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    robot.camera = lambda image: None
    bad = robot.node.create_publisher(msg.Belief, "belief", qos.NEWEST)
    before = fault(robot, "planner", "dropped.belief")
    while not goal.done:
        belief = msg.Belief(**{"model": "toy", "latent": [0.0, 0.0], "observations": 9} | wrong)
        belief.header.stamp = belief.evidence = robot.node.get_clock().now().to_msg()
        bad.publish(belief)
        time.sleep(0.05)
    robot.node.destroy_publisher(bad)
    assert goal.result().error_code == Code.NO_BELIEF
    wait_for(lambda: fault(robot, "planner", "dropped.belief") > before, "the diagnostics")
    assert robot.applied[-1].source == msg.AppliedAction.SAFE
    robot.camera = lambda image: image
    fresh(robot.beliefs, "beliefs")


def test_padded_rows_are_read_and_bad_images_dropped(robot: Robot) -> None:
    """Pins each bad image: counted, no latent made of it, and all well again with the next good one."""

    def padded(image: Image) -> Image:
        rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
        image.data = np.pad(rows, ((0, 0), (0, 7)), constant_values=99).tobytes()
        image.step += 7
        return image

    robot.camera = padded
    time.sleep(0.1)
    np.testing.assert_allclose(fresh(robot.latents, "latents")[-1].values, robot.position, atol=1e-3)

    def small(image: Image) -> Image:
        image.width, image.height, image.step, image.data = 8, 8, 24, bytes(192)
        return image

    def grey(image: Image) -> Image:
        image.encoding, image.step, image.data = "mono8", 16, bytes(256)
        return image

    def torn(image: Image) -> Image:
        image.data = image.data[:100]
        return image

    for bad in (small, grey, torn):
        robot.camera = bad
        time.sleep(0.2)
        before, count = fault(robot, "perception", "dropped.image"), len(robot.latents)
        wait_for(lambda before=before: fault(robot, "perception", "dropped.image") > before, bad.__name__)
        assert len(robot.latents) == count, bad.__name__
    robot.camera = lambda image: image
    fresh(robot.latents, "latents")


def test_latents_that_are_not_finite_are_dropped(robot: Robot) -> None:
    robot.nan = True
    before = fault(robot, "perception", "dropped.latent")
    wait_for(lambda: fault(robot, "perception", "dropped.latent") > before, "the diagnostics")
    robot.nan = False
    fresh(robot.latents, "latents")
    assert all(np.isfinite(latent.values).all() for latent in robot.latents)


def test_world_model_drops_latents_that_do_not_fit(robot: Robot) -> None:
    robot.camera = lambda image: None
    time.sleep(0.2)
    before, count = fault(robot, "world_model", "dropped.latent"), len(robot.beliefs)
    robot.latent.publish(msg.Latent(model="other", values=[0.0, 0.0]))
    wait_for(lambda: fault(robot, "world_model", "dropped.latent") == before + 1, "the diagnostics")
    robot.latent.publish(msg.Latent(model="toy", values=[0.0, float("nan")]))
    wait_for(lambda: fault(robot, "world_model", "dropped.latent") == before + 2, "the diagnostics")
    assert len(robot.beliefs) == count
    robot.camera = lambda image: image
    assert fresh(robot.beliefs, "beliefs")[0].observations == 1, "the silence was a gap"


def test_silent_camera_ends_the_goal_and_the_robot_is_safe(robot: Robot) -> None:
    goal = robot.goal(robot.position + np.array([3.0, 0.0]))
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    robot.camera = lambda image: None
    seen = len(robot.applied)

    def safe() -> list[msg.AppliedAction]:
        return [action for action in robot.applied[seen:] if action.source == msg.AppliedAction.SAFE]

    wait_for(safe, "the safe action")
    assert safe()[0].reason == "too old", "the gate acts before the planner gives up"
    assert goal.result().error_code == Code.NO_BELIEF
    robot.camera = lambda image: image
    assert robot.goal(robot.position + np.array([0.2, 0.0])).result().success, "it recovers by itself"


@pytest.mark.parametrize(("seconds", "kind"), [(-5, "dropped.old"), (5, "dropped.future")])
def test_images_of_another_time_are_refused(robot: Robot, seconds: int, kind: str) -> None:
    """Pins that no latent is made of them, in either direction, so that the robot is safe."""

    def shifted(image: Image) -> Image:
        image.header.stamp.sec += seconds
        return image

    goal = robot.goal(robot.position + np.array([3.0, 0.0]))
    robot.camera = shifted
    # On a busy machine the last good belief was already stale when it came.
    assert goal.result().error_code in (Code.NO_BELIEF, Code.STALE_BELIEF)
    wait_for(lambda: fault(robot, "perception", kind) > 0, "the diagnostics")
    assert robot.applied[-1].source == msg.AppliedAction.SAFE
    robot.camera = lambda image: image
    fresh(robot.beliefs, "beliefs")


def test_beliefs_with_old_stamps_end_the_goal_as_stale(robot: Robot) -> None:
    goal = robot.goal(robot.position + np.array([3.0, 0.0]))
    robot.camera = lambda image: None
    old = robot.node.create_publisher(msg.Belief, "belief", qos.NEWEST)
    while not goal.done:
        belief = msg.Belief(model="toy", latent=[0.0, 0.0], observations=9)
        belief.header.stamp = belief.evidence = to_time(robot.node.get_clock().now().nanoseconds - 5 * 10**9)
        old.publish(belief)
        time.sleep(0.05)
    robot.node.destroy_publisher(old)
    assert goal.result().error_code == Code.STALE_BELIEF
    robot.camera = lambda image: image
    fresh(robot.beliefs, "beliefs")


def test_push_is_a_surprise_that_ends_the_goal(robot: Robot) -> None:
    """Pins the chain from the world not following the model to the goal's error code."""

    def push(image: Image) -> Image:
        # Away from the goal, up to where a wall would be: however long it takes, the robot stays in view.
        robot.position = np.minimum(robot.position + 0.3, 7.0)
        return image

    robot.position = np.array([-5.0, -5.0])
    goal = robot.goal([-7.0, -7.0], tolerance=0.0, time_limit=10.0)
    robot.camera = push
    assert goal.result().error_code == Code.SURPRISED
    robot.camera = lambda image: image
    robot.position = np.zeros(2)
    wait_for(lambda: not robot.beliefs[-1].surprised, "calm")


def test_bad_plan_on_the_wire_is_answered_by_the_safe_action(robot: Robot) -> None:
    good = {"model": "toy", "period": 0.05, "action_size": 2, "execute": 1}
    plans = {
        "not finite": msg.Plan(**good, actions=[float("nan"), 0.0]),
        "unreadable": msg.Plan(**good, actions=[1.0, 2.0, 3.0]),
        "wrong period": msg.Plan(**good | {"period": 1.0}, actions=[1.0, 1.0]),
        "too old": msg.Plan(**good, actions=[1.0, 1.0]),
    }
    for reason, plan in plans.items():
        if reason != "too old":
            plan.header.stamp = robot.node.get_clock().now().to_msg()
        robot.plan.publish(plan)
        wait_for(lambda reason=reason: robot.applied[-1].reason == reason, reason)
        assert robot.applied[-1].source == msg.AppliedAction.SAFE


def test_predict_rolls_the_model_forward_and_refuses_nonsense(robot: Robot) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 3, 5, 2))
    latents = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    good = {"batch": 2, "horizon": 3, "latents": latents.ravel(), "actions": actions.ravel()}
    response = robot.call(Predict, "predict", Predict.Request(model="toy", **good))
    expected = latents[:, None] + actions.sum(2).cumsum(1) * 0.05
    assert response.success, response.message
    np.testing.assert_allclose(np.reshape(response.futures, (2, 3, 2)), expected, rtol=1e-5)
    for bad in (
        {"model": "other"},
        {"batch": 3},
        {"batch": 0},
        {"horizon": 2**31},
        {"latents": [np.nan] * 4},
    ):
        response = robot.call(Predict, "predict", Predict.Request(**good | bad))
        assert not response.success
        assert response.message
        assert not response.futures


def test_nodes_report_rate_and_latency(robot: Robot) -> None:
    for node in ("perception", "world_model"):
        wait_for(lambda node=node: float(robot.diagnostics[node]["rate_hz"]) > 15, f"the rate of {node}")
        assert 0 < float(robot.diagnostics[node]["latency_p50_ms"]) < 1000


def test_transitions_can_be_walked_through_and_back(robot: Robot) -> None:
    """Pins that a node can be stopped and started again, and that deactivation leaves the robot safe."""

    def change(node: str, transition: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.call(ChangeState, f"{node}/change_state", request).success

    goal = robot.goal(robot.position + np.array([3.0, 0.0]))
    wait_for(lambda: np.any(robot.commands[-1][1]), "motion")
    for node in ("action", "planner", "world_model", "perception"):
        change(node, Transition.TRANSITION_DEACTIVATE)
    assert not np.any(robot.commands[-1][1])
    assert goal.result().error_code == Code.INTERNAL
    assert not robot.goal((0.0, 0.0)).accepted, "an inactive planner takes no goals"
    for node in ("action", "planner", "world_model", "perception"):
        change(node, Transition.TRANSITION_CLEANUP)
        change(node, Transition.TRANSITION_CONFIGURE)
        change(node, Transition.TRANSITION_ACTIVATE)
        state = robot.call(GetState, f"{node}/get_state", GetState.Request())
        assert state.current_state.label == "active"
    fresh(robot.beliefs, "beliefs", 5)
    wait_for(robot.goals.server_is_ready, "the action server")
    assert robot.goal(robot.position + np.array([0.3, 0.0])).result().success


def test_parameters_refuse_changes(robot: Robot) -> None:
    for node, name, value in (("planner", "horizon", 4), ("perception", "device", "tpu")):
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        (result,) = robot.call(SetParameters, f"{node}/set_parameters", request).results
        assert not result.successful
        assert result.reason


@pytest.mark.parametrize("replan", [1, 5])
def test_lock_step_gives_each_tick_its_action(tmp_path: Path, replan: int) -> None:
    """
    Pins the exact path of the evaluation through ROS: 50 ticks are 50 planned actions, one per tick.

    And that a second robot in a namespace, with a clock of its own, runs beside the first.
    """
    contract = write_contract(tmp_path / "toy.yaml")
    parameters = {
        "/**": {"use_sim_time": True},
        "/**/perception": {"sensor_reliability": "reliable"},
        "/**/planner": {"lock_step": True, "replan": replan},
        "/**/action": {"lock_step": True, "sensor_reliability": "reliable"},
    }
    file = tmp_path / "parameters.yaml"
    file.write_text(yaml.safe_dump({node: {"ros__parameters": told} for node, told in parameters.items()}))
    ros = ["-r", "__ns:=/second", "--params-file", str(file)]
    with (
        processes(tmp_path / "toy.yaml", tmp_path, *ros),
        Robot(contract, lock_step=True, namespace="second") as robot,
    ):
        wait_for(lambda: robot.ready, "the nodes", 60)
        for target in ([1.0, -1.0], [0.0, 0.0]):
            seen = len(robot.applied)
            result = robot.goal(target, tolerance=0.0, time_limit=2.5).result()
            assert (result.error_code, result.plans) == (Code.TIME_LIMIT, 50 // replan), result.message
            np.testing.assert_allclose(robot.position, target, atol=1e-3)
            wait_for(lambda: robot.applied[-1].reason == "stopped", "the stop")
            *planned, stop = robot.applied[seen:]
            stamps = [from_time(action.header.stamp) for action in planned]
            assert {action.source for action in planned} == {msg.AppliedAction.PLAN}
            assert set(np.diff(stamps)) == {contract.period_ns}
            assert len(stamps) == 50
            end = stamps[-1] + contract.period_ns
            assert from_time(stop.header.stamp) == end
            wait_for(lambda end=end: from_time(robot.beliefs[-1].header.stamp) > end, "the last belief")
        begun = {from_time(belief.header.stamp) for belief in robot.beliefs if belief.observations == 1}
        # Not even one, if this process heard of the world model after its first belief.
        assert len(begun) <= 1, "no image was left out"
        surprises = [belief.surprise for belief in robot.beliefs]
        assert np.nanmax(surprises) < 0.1, "lock-step is exact"


def test_nodes_that_cannot_start_say_why_in_one_message(tmp_path: Path) -> None:
    """Pins the exit code and that there is no traceback, for each thing a user may get wrong."""
    write_contract(tmp_path / "other.yaml", rate=10.0)
    (tmp_path / "broken.yaml").write_text("name: [")
    toy = str(Path(__file__).with_name("toy.py"))
    good = f"contract:={REACHER}"
    cases = {
        "the parameter 'contract' is empty": ["perception"],
        "the parameter 'checkpoint' is empty": ["planner", good],
        "cannot read the robot contract": ["action", "contract:=nowhere.yaml"],
        "not valid YAML": ["action", f"contract:={tmp_path / 'broken.yaml'}"],
        "made for another robot": ["world_model", good, f"checkpoint:={tmp_path / 'other.yaml'}"],
        "expecting type": ["action", good, "lock_step:=7"],
        "out of range": ["perception", good, "threads:=0"],
        "(the nearest is start_stopped)": ["action", good, "start_stoped:=true"],
    }
    running = {
        message: subprocess.Popen(
            [sys.executable, toy, node, "--ros-args", *(text for p in given for text in ("-p", p))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for message, (node, *given) in cases.items()
    }
    for message, process in running.items():
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1, output
        assert message in output
        assert "Traceback" not in output
