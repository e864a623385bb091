"""The lifecycle base: no failure is silent, nothing is left behind, and a process ends as it should."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from robot import write_contract
from std_msgs.msg import Float64, String
from toy import ToyModel, ToyPlanner

from smwm_ros.errors import ConfigError, DataError
from smwm_ros.msg import Latent
from smwm_ros.nodes import modelled
from smwm_ros.nodes.lifecycle import SmwmNode
from smwm_ros.nodes.modelled import ModelNode
from smwm_ros.nodes.perception_node import PerceptionNode
from smwm_ros.nodes.planner_node import PlannerNode
from smwm_ros.nodes.qos import NEWEST
from smwm_ros.nodes.rounds import run_rounds
from smwm_ros.nodes.world_model_node import WorldModelNode
from smwm_ros.srv import Predict

SHUTDOWNS = {("shutdown", state): f"{state}_shutdown" for state in ("unconfigured", "inactive", "active")}
TOY = str(Path(__file__).with_name("toy.py"))
SLOW = """
import sys, time
from smwm_ros.nodes import process
from smwm_ros.nodes.lifecycle import SmwmNode

class Slow(SmwmNode):
    def start(self):
        print("started", flush=True)

    def stop(self):
        print("stopping", flush=True)
        time.sleep(float(sys.argv[1]))
        print("stopped", flush=True)

process.TOGETHER = float(sys.argv[2])
process.run(lambda: Slow("slow"))
"""
"""A node that takes its time to stop; told how long, and how long signals count as one."""


class Fragile(SmwmNode):
    """Does in its transitions and callbacks what it is told."""

    def __init__(self) -> None:
        super().__init__("fragile")
        self.steps: list[str] = []
        self.failures: dict[str, Exception] = {}

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.failures:
            raise self.failures[name]

    def set_up(self) -> None:
        self.offer(String, "said", NEWEST)
        self.listen(Float64, "heard", lambda _: self._step("heard"), NEWEST)
        self.every(0.01, lambda: self._step("tick"))
        self._step("set_up")

    def start(self) -> None:
        self._step("start")

    def stop(self) -> None:
        self._step("stop")

    def tear_down(self) -> None:
        self._step("tear_down")

    def entities(self) -> int:
        return len(self._entities())


@pytest.fixture
def node() -> Iterator[Fragile]:
    rclpy.init()
    made = Fragile()
    yield made
    made.destroy_node()
    rclpy.shutdown()


def test_a_destroyed_node_leaves_the_graph() -> None:
    """Pins that its participant ends with it: rclpy alone keeps it, and others still see it."""
    rclpy.init()
    process = psutil.Process()
    before = len(process.net_connections("udp"))
    node = Fragile()
    assert node.bring_up()
    assert len(process.net_connections("udp")) > before
    node.destroy_node()
    assert len(process.net_connections("udp")) == before
    rclpy.shutdown()


def change_state(node: Fragile, transition: str) -> bool:
    """Ask for a transition as another process would."""
    client = rclpy.create_node("operator")
    executor = SingleThreadedExecutor()
    for one in (node, client):
        executor.add_node(one)
    service = client.create_client(ChangeState, f"{node.get_name()}/change_state")
    while not service.service_is_ready():
        executor.spin_once(0.05)
    number = getattr(Transition, f"TRANSITION_{SHUTDOWNS.get((transition, node.state), transition).upper()}")
    future = service.call_async(ChangeState.Request(transition=Transition(id=number)))
    executor.spin_until_future_complete(future)
    executor.shutdown()
    client.destroy_node()
    return bool(future.result().success)


def spin(node: Fragile, seconds: float) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(0.01)
    executor.shutdown()


def test_rounds_of_transitions_leave_nothing_behind(node: Fragile) -> None:
    """Pins that cleanup destroys what set-up made, without the node's help."""
    before = node.entities()
    for _ in range(20):
        assert node.bring_up()
        assert node.entities() == before + 3
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert node.entities() == before
    assert node.steps == ["set_up", "start", "stop", "tear_down"] * 20


def test_rounds_of_transitions_leave_the_process_as_it_was(node: Fragile) -> None:
    """The short form of `smwm bench lifecycle`; rclpy itself keeps something of every entity in its group."""
    left = run_rounds(node, 20)
    assert (left["threads"], left["files"], left["entities"]) == (0, 0, 0)
    assert left["objects"] < 20


@pytest.mark.parametrize(
    ("error", "result", "trace"),
    [
        (ConfigError("set the colour to blue"), TransitionCallbackReturn.FAILURE, False),
        (ZeroDivisionError("boo"), TransitionCallbackReturn.ERROR, True),
    ],
)
def test_failed_set_up_is_told_undone_and_can_be_tried_again(
    node: Fragile,
    error: Exception,
    result: TransitionCallbackReturn,
    trace: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Pins what rclpy alone would swallow: a user's error as one message, a defect with its traceback."""
    before = node.entities()
    node.failures |= {"set_up": error, "tear_down": KeyError("a consequence")}
    assert node.trigger_configure() == result
    assert (node.state, node.entities()) == ("unconfigured", before)
    assert node.steps == ["set_up", "tear_down"]
    assert str(error) in node.failure
    status = node.monitor.status("fragile", state=node.state)
    assert (status.level, status.message) == (DiagnosticStatus.ERROR, node.failure)
    told = capfd.readouterr().err
    assert str(error) in told
    assert ("Traceback" in told.partition("a consequence")[0]) == trace
    node.failures.clear()
    assert node.bring_up()
    assert node.monitor.status("fragile").level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("step", "transitions", "left"),
    [
        ("set_up", ["configure"], "unconfigured"),
        ("start", ["configure", "activate"], "unconfigured"),
        ("stop", ["configure", "activate", "deactivate"], "unconfigured"),
        ("tear_down", ["configure", "cleanup"], "unconfigured"),
        ("stop", ["configure", "activate", "shutdown"], "finalized"),
        ("tear_down", ["configure", "shutdown"], "finalized"),
    ],
)
@pytest.mark.parametrize("error", [ConfigError("no"), ZeroDivisionError("boo")])
def test_whoever_asked_for_a_transition_is_told_that_it_failed(
    node: Fragile, step: str, transitions: list[str], left: str, error: Exception
) -> None:
    """Pins the answer over the lifecycle service, and that a node half stopped does not count as active."""
    node.failures[step] = error
    answers = [change_state(node, transition) for transition in transitions]
    assert answers == [True] * (len(answers) - 1) + [False]
    if (step, type(error)) == ("start", ConfigError):
        left = "inactive"
    assert node.state == left
    assert not node.active
    assert str(error) in node.monitor.status("fragile", state=node.state).message


def test_a_node_that_breaks_down_is_torn_down_and_can_begin_again(node: Fragile) -> None:
    node.bring_up()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.break_down("the GPU is out of memory")
    while node.active:
        executor.spin_once(0.1)
    executor.shutdown()
    assert node.steps[-2:] == ["stop", "tear_down"]
    assert (node.state, node.failure) == ("unconfigured", "the GPU is out of memory")
    assert node.monitor.status("fragile").message == "the GPU is out of memory"
    assert node.bring_up()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_shut_down_from_any_state_tears_down_once(node: Fragile, steps: int) -> None:
    for trigger in (node.trigger_configure, node.trigger_activate)[:steps]:
        trigger()
    node.shut_down()
    node.shut_down()
    assert node.steps.count("tear_down") == (steps > 0)
    assert node.steps.count("stop") == (steps == 2)


def test_failed_start_leaves_the_node_inactive(node: Fragile) -> None:
    node.failures["start"] = ConfigError("no")
    assert not node.bring_up()
    assert node.state == "inactive"
    assert not node.active


def test_callbacks_run_only_while_active_and_outlive_exceptions(node: Fragile) -> None:
    node.trigger_configure()
    spin(node, 0.1)
    assert "tick" not in node.steps
    node.trigger_activate()
    for error in (DataError("a bad message"), ZeroDivisionError("boo")):
        node.failures["tick"] = error
        spin(node, 0.2)
    assert node.monitor.count("fault.message") > 1
    assert node.monitor.count("fault.exception") > 1
    node.trigger_deactivate()
    count = node.steps.count("tick")
    spin(node, 0.1)
    assert node.steps.count("tick") == count


@pytest.mark.parametrize("kind", [PerceptionNode, WorldModelNode, PlannerNode])
def test_cleanup_lets_go_of_the_network_before_the_gpu_gives_its_memory_back(
    kind: type[ModelNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins that nothing holds on to the network then; a cache emptied earlier would give back nothing."""
    contract = write_contract(tmp_path / "robot.yaml")
    models: list[weakref.ref[ToyModel]] = []
    gone: list[bool] = []

    def load(*_: Any) -> ToyModel:
        model = ToyModel(contract)
        models.append(weakref.ref(model))
        return model

    gpu = SimpleNamespace(
        mem_get_info=lambda: (3e9, 8e9),
        memory_allocated=lambda: 4e6,
        memory_reserved=lambda: 6e6,
        empty_cache=lambda: gone.append(models[-1]() is None),
    )
    monkeypatch.setattr(modelled, "_cuda", lambda: gpu)
    parameters = (f"contract:={tmp_path / 'robot.yaml'}", "checkpoint:=toy")
    rclpy.init(args=["--ros-args", *(text for one in parameters for text in ("-p", one))])
    try:
        options = {"planner": ToyPlanner} if kind is PlannerNode else {}
        node = kind("tested", load=load, **options)
        for _ in range(2):
            assert node.bring_up()
            node.report()
            values = {pair.key: pair.value for pair in node.monitor.status("tested").values}
            assert (values["gpu_memory_mb"], values["gpu_free_mb"]) == ("4.0", "3000 of 8000")
            node.trigger_deactivate()
            node.trigger_cleanup()
        assert gone == [True, True]
        node.destroy_node()
    finally:
        rclpy.shutdown()


def test_a_request_that_rclpy_chokes_on_does_not_end_the_process() -> None:
    """Pins the answer to a parameter of a type that there is not: none, a counted fault, and life goes on."""
    command = [sys.executable, TOY, "action", "--ros-args", "-p", "contract:=config/robots/reacher.yaml"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        rclpy.init()
        client = rclpy.create_node("client")
        executor = SingleThreadedExecutor()
        executor.add_node(client)
        service = client.create_client(SetParameters, "action/set_parameters")
        assert service.wait_for_service(30)
        for number in (135, ParameterType.PARAMETER_STRING, 135, ParameterType.PARAMETER_STRING):
            value = ParameterValue(type=number, string_value="any")
            request = SetParameters.Request(parameters=[Parameter(name="model", value=value)])
            future = service.call_async(request)
            executor.spin_until_future_complete(future, timeout_sec=0.5 if number == 135 else 30)
            assert future.done() == (number != 135)
        executor.shutdown()
        client.destroy_node()
        rclpy.shutdown()
        process.terminate()
    assert process.returncode == 0


@contextmanager
def hang_up_is(handler: signal.Handlers) -> Iterator[None]:
    """Let processes that are started meanwhile inherit whether SIGHUP is ignored; nohup may run tests."""
    before = signal.signal(signal.SIGHUP, handler)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_process_in_good_order(number: signal.Signals) -> None:
    """Pins Ctrl-C: exit code 0, no traceback, and the robot's safe action as the last word."""
    command = [sys.executable, TOY, "action", "--ros-args", "-p", "contract:=config/robots/reacher.yaml"]
    with hang_up_is(signal.SIG_DFL):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "no plan" in process.stderr.readline()
    process.send_signal(number)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "safe action: stopped" in told
    assert "Traceback" not in told


def end_slowly(*numbers: signal.Signals, stop: float, together: float) -> tuple[int, str]:
    """Send a slow node one signal and, while it stops, the others; return its exit code and last words."""
    command = [sys.executable, "-c", SLOW, str(stop), str(together)]
    with hang_up_is(signal.SIG_DFL), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(numbers[0])
        assert process.stdout.readline() == "stopping\n"
        for number in numbers[1:]:
            process.send_signal(number)
        told = process.stdout.read()
    return process.returncode, told


def test_signals_that_come_together_count_as_one() -> None:
    """Pins an end under systemd (each process is signalled, nodes twice) and of a terminal (SIGHUP twice)."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP)
    assert end_slowly(*numbers, stop=1.0, together=60.0) == (0, "stopped\n")


def test_a_later_signal_ends_the_process_at_once() -> None:
    """Pins that who insists, as `smwm up` does, need not wait for a node that does not come to its end."""
    assert end_slowly(signal.SIGINT, signal.SIGTERM, stop=60.0, together=0.0) == (128 + signal.SIGTERM, "")


def test_under_nohup_the_end_of_the_terminal_is_ignored() -> None:
    """Pins that SIGHUP is not the first signal there, which would make the next one end it at once."""
    command = [sys.executable, "-c", SLOW, "0.5", "0.0"]
    with hang_up_is(signal.SIG_IGN):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=20)
    assert (process.returncode, told) == (0, "stopping\nstopped\n")


@pytest.mark.parametrize("use", ["observe", "predict"])
def test_a_lost_gpu_ends_the_process_of_the_world_model(
    use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins that it does not go on for ever with a GPU that refuses all it asks for."""
    contract = write_contract(tmp_path / "robot.yaml")

    def fail(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    parameters = (f"contract:={tmp_path / 'robot.yaml'}", "checkpoint:=toy")
    rclpy.init(args=["--ros-args", *(text for one in parameters for text in ("-p", one))])
    try:
        node = WorldModelNode("tested", load=lambda *_: ToyModel(contract))
        assert node.bring_up()
        latent = Latent(model="toy", values=[0.0] * 2)
        actions = [0.0] * contract.block * contract.action.size
        request = Predict.Request(batch=1, horizon=1, latents=latent.values, actions=actions)
        assert node._on_predict(request, Predict.Response()).success
        monkeypatch.setattr(node._model, "predict", fail)
        monkeypatch.setattr(node._tracker, "observe", fail)
        calls = {
            "observe": lambda: node._on_latent(latent),
            "predict": lambda: node._on_predict(request, Predict.Response()),
        }
        with pytest.raises(RuntimeError, match="illegal"):
            calls[use]()
        assert node.finished.result() == 1
        node.shut_down()
        node.destroy_node()
    finally:
        rclpy.shutdown()
