"""The whole graph, every node a process over real DDS, with a model that was never trained."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from checkpoints import information
from visualization_msgs.msg import Marker, MarkerArray

from smwm_ros.errors import DataError, StackError
from smwm_ros.evaluation.pairs import draw_pairs
from smwm_ros.evaluation.protocol import run_planner
from smwm_ros.messages import from_time
from smwm_ros.models.checkpoint import load_checkpoint, save_checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.msg import AppliedAction
from smwm_ros.nodes.client import RobotClient
from smwm_ros.nodes.latency import measure_latency
from smwm_ros.nodes.qos import EVERY
from smwm_ros.nodes.ros_eval import run_pair
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.planning.planners import planner_config
from smwm_ros.resources import find_contract
from smwm_ros.stack.description import describe
from smwm_ros.stack.supervisor import Supervisor
from smwm_ros.tasks import make_task

SMWM = [sys.executable, "-m", "smwm_ros.cli.main"]
CONTRACT = find_contract("reacher")
REACHED, TIME_LIMIT, PREEMPTED, CANCELED = 0, 6, 7, 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of an untrained world model: quick to make, and as quick to run as a trained one."""
    torch.manual_seed(0)
    config = load_model_config("smwm")
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(path, information(config, CONTRACT), WorldModel(config, CONTRACT))
    return str(path)


@pytest.fixture(scope="module")
def robot(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RobotClient]:
    """Yield a client of a stack in real time, in a namespace."""
    arguments = {"checkpoint": checkpoint, "namespace": "left"}
    # A surprised planner gives up, and an untrained model is always surprised.
    overrides = {
        "planner": {"samples": 8, "iterations": 1, "replan": 1},
        "world_model": {"surprise_threshold": 1e9},
    }
    specs = describe("sim", arguments, overrides)
    with (
        Supervisor(specs, logs=tmp_path_factory.mktemp("logs")) as stack,
        RobotClient(CONTRACT, namespace="left", images=True, check=stack.check) as client,
    ):
        stack.wait_ready()
        client.wait_ready()
        yield client


def goal_image(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with make_task(CONTRACT) as task:
        return task.reset(seed=seed)[0]["pixels"]


def test_lock_step_is_the_same_protocol_as_without_ros(checkpoint: str, tmp_path: Path):
    """
    An off-by-one anywhere in the graph, or a lost tick, makes evaluation through ROS another protocol.

    Every tick has the action meant for it, and the trajectories are those of
    the planner in-process, to the last bit.
    """
    torch.set_num_threads(1)  # as the nodes: the order of a sum depends on it
    budget, config = 12, PlannerConfig(samples=8, iterations=1, replan=3)
    specs = describe("sim", {"checkpoint": checkpoint, "lock_step": True}, {"planner": config.model_dump()})
    with make_task(CONTRACT) as task:
        problems = draw_pairs(task, 2, budget // 2, seed=0)
        expected = run_planner(task, load_checkpoint(checkpoint), config, problems)
        applied: list[AppliedAction] = []
        with (
            Supervisor(specs, logs=tmp_path) as stack,
            RobotClient(CONTRACT, reliable=True, check=stack.check) as client,
        ):
            client.listen(AppliedAction, "applied_action", applied.append, EVERY)
            stack.wait_ready()
            client.wait_ready()
            for number, pair in enumerate(problems.pairs):
                states, solve_times = run_pair(client, task, pair, budget)
                ticks = [client.joints[0].stamp + tick * CONTRACT.period_ns for tick in range(budget)]
                last = ticks[-1]
                client.wait_until(lambda: from_time(applied[-1].header.stamp) >= last, 10, "last action")  # noqa: B023
                # Each once: a command is sent again while the simulator is slow to answer it.
                by_stamp = {from_time(action.header.stamp): action for action in applied}
                played = [by_stamp[stamp] for stamp in sorted(by_stamp) if stamp in ticks]
                assert [from_time(action.header.stamp) for action in played] == ticks
                planned = [ticks[tick - tick % config.replan] for tick in range(budget)]
                assert [from_time(action.evidence) for action in played] == planned
                assert 0 < len(solve_times) <= budget
                np.testing.assert_array_equal(states, expected.states[number])
                assert not np.array_equal(states[0], states[-1])


def test_a_goal_is_pursued_until_its_time_is_up(robot: RobotClient):
    """Tolerance 0 holds the goal; the result says how it ended."""
    robot.reset(seed=1)
    goal = robot.send_goal(goal_image(2), tolerance=0.0, time_limit=3.0)
    robot.wait_until(lambda: goal.done, 20, "end of the goal")
    assert goal.result is not None
    assert (goal.result.success, goal.result.error_code) == (False, TIME_LIMIT)
    # One at each of 60 ticks, where the machine keeps up.
    assert 5 <= goal.result.plans <= 65
    assert goal.feedback
    assert np.isfinite(goal.feedback[-1].distance)


def test_a_goal_can_be_cancelled_and_overtaken(robot: RobotClient):
    """Within a plan or so, not at the time limit."""
    first = robot.send_goal(goal_image(2), tolerance=0.0, time_limit=60.0)
    second = robot.send_goal(goal_image(3), tolerance=0.0, time_limit=60.0)
    robot.wait_until(lambda: first.done, 10, "end of the first goal")
    robot.cancel(second)
    assert first.result is not None
    assert second.result is not None
    assert (first.result.error_code, second.result.error_code) == (PREEMPTED, CANCELED)


def test_a_goal_picture_of_another_size_is_refused(robot: RobotClient):
    """Before it is sent, with both sizes."""
    with pytest.raises(DataError, match=r"32, 32, 3.*64, 64, 3"):
        robot.send_goal(np.zeros((32, 32, 3), np.uint8))


def test_an_impossible_reset_is_refused(robot: RobotClient):
    """With the simulator's own reason."""
    with pytest.raises(StackError, match=r"the elbow cannot be at 9\.000 rad"):
        robot.reset(np.array([0.0, 9.0, 0.0, 0.0]))


def test_observations_begin_with_the_reset(robot: RobotClient):
    """What was seen before belongs to another episode."""
    stamp = robot.reset(np.array([0.5, -1.0, 0.0, 0.0]))
    assert min(robot.joints[0].stamp, robot.images[0][0]) >= stamp
    np.testing.assert_allclose(robot.joints[0].positions, [0.5, -1.0], atol=0.05)
    names = ("elbow", "shoulder_velocity")
    state = robot.joints[0].as_state(CONTRACT.observation.joints.names, names)  # type: ignore[union-attr]
    np.testing.assert_allclose(state, [-1.0, 0.0], atol=0.05)
    with pytest.raises(StackError, match="do not tell box"):
        robot.joints[0].as_state(("a", "b"), ("box",))


def test_latency_is_measured_of_every_node(robot: RobotClient):
    """The figures of the benchmark: all there, finite, and in order."""
    figures = measure_latency(robot, [goal_image(4), goal_image(5)], 2.0)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]  # type: ignore[operator]
    assert figures["actions"] > 10  # type: ignore[operator]
    assert {"perception", "world_model", "planner", "action"} <= set(figures["per_node"])  # type: ignore[call-overload]


def test_markers_show_path_and_goal_while_a_goal_is_pursued(robot: RobotClient):
    """They come some seconds after the first look, as places have to be learned, and go with the goal."""
    shown: list[MarkerArray] = []
    robot.listen(MarkerArray, "markers", shown.append, EVERY)
    robot.reset(seed=1)
    goal = robot.send_goal(goal_image(2), tolerance=0.0, time_limit=60.0)
    robot.wait_until(lambda: bool(shown), 30, "markers")
    markers = {marker.ns: marker for marker in shown[-1].markers}
    assert {"path", "goal"} <= markers.keys()
    assert len(markers["path"].points) == planner_config(CONTRACT, {}).horizon + 1
    assert {marker.text for marker in shown[-1].markers} == {"", "fingertip"}
    robot.cancel(goal)
    robot.wait_until(lambda: len(shown[-1].markers) == 1, 10, "the markers' end")
    assert shown[-1].markers[0].action == Marker.DELETEALL


def test_a_checkpoint_of_another_robot_ends_the_stack_with_its_reason(checkpoint: str, tmp_path: Path):
    """And not with a node that waits, unconfigured, for ever."""
    content = yaml.safe_load(Path("config/robots/reacher.yaml").read_text())
    content["block"] = 4
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(content))
    specs = describe("sim", {"checkpoint": checkpoint, "contract": str(tmp_path / "other.yaml")})
    with (
        Supervisor([spec for spec in specs if spec.name == "planner"], logs=tmp_path) as stack,
        pytest.raises(StackError, match=r"planner could not start: .*block: 4 here, 5 there"),
    ):
        stack.wait_ready()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield a running `smwm up`; of the recording stack, which is up quickly as it needs no torch."""
    command = [*SMWM, "up", "record", f"bag:={tmp_path / 'bag'}", "--logs", str(tmp_path / "logs")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "Ctrl-C ends it" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process
        process.kill()


def test_up_ends_with_one_interrupt(up: subprocess.Popen[str], tmp_path: Path):
    """Ctrl-C: exit code 130, no process left, and a bag that is whole."""
    nodes = psutil.Process(up.pid).children()
    assert len(nodes) == 4
    up.send_signal(signal.SIGINT)
    up.communicate()
    assert up.wait(30) == 130
    assert not psutil.wait_procs(nodes, timeout=1)[1]
    assert (tmp_path / "bag" / "metadata.yaml").exists()


def listen_for(up: subprocess.Popen[str], text: str) -> str:
    """Read what `smwm up` says, until a line holds a text; return that line."""
    assert up.stderr is not None
    said = ""
    while line := up.stderr.readline():
        if text in line:
            return line
        said += line
    raise AssertionError(f"no {text!r} in: {said}")


def node_process(up: subprocess.Popen[str], name: str) -> psutil.Process:
    nodes = psutil.Process(up.pid).children()
    return next(node for node in nodes if f"smwm_ros.nodes.{name}_node" in node.cmdline())


def test_up_starts_a_dead_node_again_and_ends_when_the_simulator_dies(up: subprocess.Popen[str]):
    """A planner that crashed comes back by itself; a stack with a hole in it must not look alive."""
    node_process(up, "action").kill()
    assert "action was ended by SIGKILL; starts again in 0.5 s (1 of 10)" in listen_for(
        up, "action was ended"
    )
    listen_for(up, "action is ready again")
    nodes = psutil.Process(up.pid).children()
    node_process(up, "sim").kill()
    said = up.communicate()[1]
    assert up.wait(30) == 2
    assert "sim was ended by SIGKILL" in said
    assert not psutil.wait_procs(nodes, timeout=1)[1]


def test_demo_leaves_report_video_bag_and_result(checkpoint: str, tmp_path: Path):
    """An untrained model reaches nothing, and the demo says so without failing."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "result.json").write_text("of an earlier run")
    (output / "notes.txt").write_text("the user's own")
    done = subprocess.run(
        [*SMWM, "demo", "--goals", "1", "--checkpoint", checkpoint, "-o", str(output), "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "COLUMNS": "80"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads((output / "result.json").read_text())
    assert {"goals", "reached", "floor", "seconds"} <= result.keys()
    assert result["goals"] == 1
    assert (output / "run.webm").stat().st_size < 2_000_000
    assert "goal 1" in (output / "report.html").read_text()
    assert list((output / "bag").glob("*.mcap"))
    assert (output / "notes.txt").exists()
