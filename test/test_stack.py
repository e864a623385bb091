"""The description of the stacks, and the processes made from it; no ROS in these tests."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
import yaml
from checkpoints import write_header

from smwm_ros.errors import CheckpointError, ConfigError, ContractError, StackError
from smwm_ros.models.identity import read_identity
from smwm_ros.resources import contract_path
from smwm_ros.stack.description import (
    ProcessSpec,
    StackFile,
    describe,
    explain_arguments,
    load_stack_file,
    parse_settings,
)
from smwm_ros.stack.restarts import RestartPolicy
from smwm_ros.stack.supervisor import Supervisor
from smwm_ros.stack.transport import large_messages, no_shared_memory

ROOT = Path(__file__).parents[1]
FAKE_NODE = """
import os, pathlib, signal, sys, time
from smwm_ros.stack.notify import notify_failed, notify_ready
mode = sys.argv[sys.argv.index("-p") + 1].partition(":=")[2].strip('"')
print("mode", mode)
if mode == "refuse":
    notify_failed("no contract:\\nit is missing")
    sys.exit(1)
if mode == "crash":
    sys.exit("the library is missing")
if mode == "stubborn":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
if mode != "late":
    notify_ready()
if mode == "done":
    sys.exit(0)
if mode == "die":
    time.sleep(0.3)
    sys.exit("out of memory")
if mode == "fragile":
    sys.exit("again")
if mode == "orderly":
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print("in good order")
        sys.exit(0)
time.sleep(60)
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return write_header(tmp_path / "model.safetensors")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a maker of specs whose processes behave as told."""
    (tmp_path / "fake_node.py").write_text(FAKE_NODE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    def make(mode: str, name: str = "", **options: bool) -> ProcessSpec:
        return ProcessSpec(name or mode, "fake_node", {"mode": mode}, **options)

    return make


def names(specs: list[ProcessSpec]) -> list[str]:
    return [spec.name for spec in specs]


def test_stacks_hold_the_nodes_of_the_design(checkpoint: str):
    """The robot stack is the sim stack without the simulator; recording needs no model."""
    given = {"checkpoint": checkpoint}
    sim = names(describe("sim", given))
    assert sim == ["sim", "perception", "world_model", "planner", "action"]
    assert names(describe("robot", given)) == sim[1:]
    assert names(describe("record", {"bag": "x"})) == ["recorder", "sim", "explorer", "action"]
    assert names(describe("explore", {"bag": "x"})) == ["recorder", "explorer", "action"]
    assert names(describe("sim", {**given, "bag": "x"})) == ["recorder", *sim]


def test_every_node_of_the_file_has_a_module():
    """A node renamed in one place only would be found when a user starts it."""
    for entry in load_stack_file().nodes:
        assert (ROOT / "smwm_ros" / "nodes" / f"{entry.name}_node.py").is_file(), entry.name


def test_paths_reach_the_nodes_absolute(checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nodes may run in another directory than the user's."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config/robots/reacher.yaml", tmp_path / "mine.yaml")
    given = {"contract": "mine.yaml", "checkpoint": Path(checkpoint).name, "bag": "run"}
    specs = {spec.name: spec for spec in describe("sim", given)}
    assert specs["perception"].parameters["contract"] == str(tmp_path / "mine.yaml")
    assert specs["perception"].parameters["checkpoint"] == checkpoint
    assert specs["action"].parameters["model"] == read_identity(Path(checkpoint))
    assert specs["recorder"].parameters["bag"] == str(tmp_path / "run")


def test_lock_step_brings_its_settings_unless_they_are_given(checkpoint: str):
    """Lock-step with best-effort sensors loses the one image it waits for, and hangs."""
    given = {"checkpoint": checkpoint, "lock_step": True}
    sim = describe("sim", given)[0].parameters
    assert (sim["use_sim_time"], sim["sensor_reliability"]) == (True, "reliable")
    sim = describe("sim", {**given, "sensor_reliability": "best_effort"})[0].parameters
    assert (sim["use_sim_time"], sim["sensor_reliability"]) == (True, "best_effort")
    sim = describe("sim", {"checkpoint": checkpoint})[0].parameters
    assert (sim["use_sim_time"], sim["sensor_reliability"]) == (False, "best_effort")


def test_text_is_read_as_the_arguments_type(checkpoint: str):
    """Launch files and command lines give everything as text."""
    arguments, overrides = parse_settings(
        [("lock_step", "true"), ("seed", "7"), ("checkpoint", checkpoint), ("planner.samples", "64")]
    )
    specs = {spec.name: spec.parameters for spec in describe("sim", arguments, overrides)}
    assert specs["sim"]["lock_step"] is True
    assert specs["sim"]["seed"] == 7
    assert specs["planner"]["samples"] == 64


@pytest.mark.parametrize(
    ("arguments", "overrides", "error", "says"),
    [
        ({"lockstep": True}, {}, ConfigError, "lockstep"),
        ({"seed": "many"}, {}, ConfigError, "seed: expected int, found 'many'"),
        ({}, {"driver": {"x": 1}}, ConfigError, "no node driver"),
        ({"contract": "nobody"}, {}, ContractError, "reacher"),
        ({"checkpoint": "/nowhere/model"}, {}, CheckpointError, "/nowhere/model: no such file"),
    ],
)
def test_what_cannot_be_described_is_refused(checkpoint: str, arguments, overrides, error, says):
    """Before any process is started, and with the name of what is wrong."""
    with pytest.raises(error, match=says):
        describe("sim", {"checkpoint": checkpoint, **arguments}, overrides)


def test_parameters_keep_their_type_on_the_command_line():
    """A namespace of digits must stay text, and 2.0 a float: rcl reads the values as YAML."""
    spec = ProcessSpec("sim", "m.sim_node", {"text": "12", "flag": True, "real": 2.0, "none": ""}, "robot1")
    arguments = spec.ros_arguments
    assert spec.executable == "sim_node"
    assert "__ns:=/robot1" in arguments
    values = dict(a.split(":=", 1) for a in arguments[1:] if not a.startswith(("-", "__")))
    assert {k: yaml.safe_load(v) for k, v in values.items()} == spec.parameters
    assert type(yaml.safe_load(values["real"])) is float


def test_simulated_robots_side_by_side_have_a_clock_each(checkpoint: str):
    """Two simulators in lock-step on one /clock: time would jump to and fro. A real robot's is everyone's."""
    given = {"checkpoint": checkpoint, "namespace": "/left"}
    for spec in describe("sim", given):
        assert "/clock:=/left/clock" in spec.ros_arguments
        assert "__ns:=/left" in spec.ros_arguments
    for specs in (describe("sim", {"checkpoint": checkpoint}), describe("robot", given)):
        assert not any("/clock" in argument for spec in specs for argument in spec.ros_arguments)


def test_each_node_has_an_enclave_of_its_own(checkpoint: str):
    """Only the action node's may publish commands; without SROS2 nothing is said of them."""
    specs = {s.name: s for s in describe("sim", {"checkpoint": checkpoint, "enclaves": "/robots/left/"})}
    assert specs["action"].ros_arguments[-2:] == ["--enclave", "/robots/left/action"]
    assert len({spec.enclave for spec in specs.values()}) == len(specs)
    assert not any("--enclave" in spec.ros_arguments for spec in describe("sim", {"checkpoint": checkpoint}))


def test_defaults_that_lock_step_changes_are_shown_empty():
    """A launch argument's default counts as given, and would undo lock-step's."""
    shown = {name: (default, text) for name, default, text in explain_arguments(load_stack_file(), "sim")}
    assert shown["sensor_reliability"][0] == ""
    assert "default best_effort; in lock-step reliable" in shown["sensor_reliability"][1]
    assert shown["lock_step"][0] == "false"


def test_a_stack_may_have_defaults_of_its_own(checkpoint: str):
    """Perceiving goes by the time of the bag that is played, unless told otherwise; nothing may move."""
    given = {"checkpoint": checkpoint}
    specs = describe("perceive", given)
    assert names(specs) == ["perception", "world_model"]
    assert all(spec.parameters["use_sim_time"] is True for spec in specs)
    assert describe("perceive", {**given, "use_sim_time": False})[0].parameters["use_sim_time"] is False
    assert describe("robot", given)[0].parameters["use_sim_time"] is False
    source = load_stack_file()
    shown = {name: text for name, _, text in explain_arguments(source, "perceive")}
    assert "default true" in shown["use_sim_time"]
    for changes in (source.lock_step, *source.defaults.values()):
        assert changes.keys() <= source.arguments.keys()


def test_a_description_with_an_unknown_key_is_refused(tmp_path: Path):
    """A misspelt `needs` would start the recorder for everyone."""
    path = tmp_path / "stack.yaml"
    path.write_text("arguments: {}\nlock_step: {}\nnodes:\n  - {name: sim, stacks: [sim], need: bag}\n")
    with pytest.raises(ConfigError, match="need"):
        load_stack_file(path)


def test_a_parameter_must_name_an_argument():
    """`$seeed` would reach the node as text."""
    source = load_stack_file().model_dump()
    source["nodes"][0]["parameters"]["contract"] = "$contrakt"
    with pytest.raises(ConfigError, match=r"\$contrakt is not an argument"):
        describe("record", {"bag": "x"}, source=StackFile.model_validate(source))


def watch(stack: Supervisor) -> None:
    """Look after the processes until one is found dead."""
    for _ in range(200):
        stack.check()
        time.sleep(0.05)


def test_supervisor_starts_waits_and_ends(fake, tmp_path: Path):
    """Processes get SIGINT first, so that they can say their last word."""
    ready: list[str] = []
    with Supervisor([fake("orderly"), fake("orderly", "second")], logs=tmp_path / "logs") as stack:
        stack.wait_ready(20, ready.append)
        stack.check()
        processes = [psutil.Process(pid) for pid in stack.processes.values()]
    assert sorted(ready) == ["orderly", "second"]
    assert not any(process.is_running() for process in processes)
    assert "in good order" in (tmp_path / "logs" / "second.log").read_text()


def test_one_that_refuses_to_start_tells_why_and_takes_the_others_along(fake, tmp_path: Path):
    """The node's own sentence, not the end of a log."""
    with Supervisor([fake("orderly"), fake("refuse")], logs=tmp_path) as stack:
        pid = stack.processes["orderly"]
        with pytest.raises(StackError, match="refuse could not start: no contract: it is missing"):
            stack.wait_ready(20)
    assert not psutil.pid_exists(pid)


def test_one_that_crashes_at_the_start_shows_its_last_lines(fake, tmp_path: Path):
    """Before it could say anything: the reason is in a log file that nobody would look into."""
    told = pytest.raises(StackError, match=r"crash ended with code 1.*\n  mode crash\n.*library is missing")
    with Supervisor([fake("crash")], logs=tmp_path) as stack, told:
        stack.wait_ready(20)


def test_one_that_dies_later_is_noticed(fake, tmp_path: Path):
    """A stack with a dead planner looks alive from outside."""
    with Supervisor([fake("die"), fake("orderly")], logs=tmp_path) as stack:
        stack.wait_ready(20)
        with pytest.raises(StackError, match=r"die ended with code 1.*\n.*\n.*out of memory"):
            watch(stack)


def test_one_that_is_killed_is_noticed(fake, tmp_path: Path):
    """A signal is no exit code; the message names it."""
    with Supervisor([fake("orderly")], logs=tmp_path) as stack:
        stack.wait_ready(20)
        os.kill(stack.processes["orderly"], signal.SIGKILL)
        with pytest.raises(StackError, match="SIGKILL"):
            watch(stack)


def until(stack: Supervisor, condition: Callable[[], bool]) -> None:
    """Look after the processes until something is true."""
    for _ in range(400):
        stack.check()
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


SOON = RestartPolicy(most=2, first=0.01)


def test_one_that_is_killed_is_started_again(fake, tmp_path: Path):
    """The others live on, the log goes on, and every step is told."""
    told: list[tuple[str, str]] = []
    specs = [fake("orderly"), fake("orderly", "other")]
    with Supervisor(specs, logs=tmp_path, restarts=SOON, tell=lambda *event: told.append(event)) as stack:
        stack.wait_ready(20)
        before = stack.processes
        os.kill(before["orderly"], signal.SIGKILL)
        until(stack, lambda: len(told) == 2)
        after = stack.processes
        assert psutil.pid_exists(after["orderly"])
    assert told[0] == ("orderly", "was ended by SIGKILL; starts again in 0.01 s (1 of 2)")
    assert told[1] == ("orderly", "is ready again")
    assert after["orderly"] != before["orderly"]
    assert after["other"] == before["other"]
    assert not psutil.pid_exists(after["orderly"])
    assert (tmp_path / "orderly.log").read_text().count("mode orderly") == 2


def test_one_that_dies_again_and_again_is_given_up(fake, tmp_path: Path):
    """A crash loop must not go on unseen, and not for ever; the end tells how often it was tried."""
    told: list[str] = []
    with Supervisor(
        [fake("fragile"), fake("orderly")],
        logs=tmp_path,
        restarts=SOON,
        tell=lambda _, event: told.append(event),
    ) as stack:
        with pytest.raises(StackError, match=r"fragile ended with code 1 after 2 restarts in a row.*\n.*"):
            watch(stack)
        assert [event for event in told if "starts again" in event] == [
            "ended with code 1; starts again in 0.01 s (1 of 2)",
            "ended with code 1; starts again in 0.02 s (2 of 2)",
        ]


def test_a_row_of_restarts_ends_with_a_healthy_life(fake, tmp_path: Path):
    """A node that dies once a day is not given up after ten days."""
    told: list[str] = []
    forgiving = RestartPolicy(most=1, first=0.01, healthy=0.0)
    with Supervisor(
        [fake("fragile")], logs=tmp_path, restarts=forgiving, tell=lambda _, event: told.append(event)
    ) as stack:
        until(stack, lambda: len([event for event in told if "(1 of 1)" in event]) == 3)


def test_delays_double_up_to_a_limit():
    """As documented; and no overflow after a year of restarts."""
    policy = RestartPolicy()
    assert [policy.delay(n) for n in (0, 1, 2, 5, 6, 7, 10_000)] == [0.5, 1, 2, 16, 30, 30, 30]


@pytest.mark.parametrize(
    ("spec", "says"),
    [(("die", "sim", False), "sim ended with code 1"), (("crash", "x", True), "x ended with code 1")],
)
def test_some_deaths_are_final(fake, tmp_path: Path, spec, says):
    """A simulator's world is gone with it; and what never came up would fail the same way again."""
    mode, name, restart = spec
    with (
        Supervisor([fake(mode, name, restart=restart)], logs=tmp_path, restarts=SOON) as stack,
        pytest.raises(StackError, match=says),
    ):
        watch(stack)


def test_a_node_can_be_restarted_by_hand(fake, tmp_path: Path):
    """In good order, dead or alive, and only it."""
    with Supervisor([fake("orderly"), fake("orderly", "other")], logs=tmp_path) as stack:
        stack.wait_ready(20)
        before = stack.processes
        stack.restart("orderly")
        stack.wait_ready(20)
        os.kill(stack.processes["orderly"], signal.SIGKILL)
        stack.restart("orderly")
        stack.wait_ready(20)
        after = stack.processes
        with pytest.raises(StackError, match="no node planner runs here; there are orderly, other"):
            stack.restart("planner")
    assert after["orderly"] != before["orderly"]
    assert after["other"] == before["other"]
    assert (tmp_path / "orderly.log").read_text().count("in good order") == 2


def test_one_that_may_end_is_no_fault(fake, tmp_path: Path):
    """The explorer ends when its episodes are done; everything else must not."""
    with Supervisor([fake("done", ends=True), fake("orderly")], logs=tmp_path) as stack:
        stack.wait_ready(20)
        while not stack.finished("done"):
            time.sleep(0.02)
        stack.check()
        assert not stack.finished("orderly")
    with (
        Supervisor([fake("done")], logs=tmp_path) as stack,
        pytest.raises(StackError, match="ended with code 0"),
    ):
        watch(stack)


def test_one_that_is_never_ready_is_given_up(fake, tmp_path: Path):
    """Waiting for ever is no answer."""
    late = pytest.raises(StackError, match="late was not ready after 1 s")
    with Supervisor([fake("late")], logs=tmp_path) as stack, late:
        stack.wait_ready(1)


def test_one_that_will_not_end_is_killed(fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A node stuck in a driver ignores signals."""
    monkeypatch.setattr(
        "smwm_ros.stack.supervisor.GRACE",
        ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)),
    )
    with Supervisor([fake("stubborn")], logs=tmp_path) as stack:
        stack.wait_ready(20)
        pid = stack.processes["stubborn"]
    assert not psutil.pid_exists(pid)


def test_nothing_outlives_a_killed_supervisor(fake, tmp_path: Path):
    """After a SIGKILL nobody is left to clean up: the kernel ends the nodes."""
    script = """
import json, pathlib, sys, time
from smwm_ros.stack.description import ProcessSpec
from smwm_ros.stack.supervisor import Supervisor
with Supervisor([ProcessSpec("x", "fake_node", {"mode": "sleep"})], logs=pathlib.Path(sys.argv[1])) as stack:
    stack.wait_ready(20)
    print(json.dumps(stack.processes), flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(json.loads(parent.stdout.readline())["x"])
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive


def test_temporary_logs_are_kept_for_those_who_need_them(fake):
    """The message of a failure names the log file: it must be there. Otherwise /tmp fills up."""
    with Supervisor([fake("orderly")]) as stack:
        stack.wait_ready(20)
        assert (stack.logs / "orderly.log").exists()
    assert not stack.logs.exists()
    with pytest.raises(StackError) as told, Supervisor([fake("crash")]) as stack:
        stack.wait_ready(20)
    log = stack.logs / "crash.log"
    assert str(log) in str(told.value)
    assert "library is missing" in log.read_text()
    shutil.rmtree(stack.logs)


def test_log_lines_are_followed(fake, tmp_path: Path):
    """`smwm up` shows what the nodes say."""
    with Supervisor([fake("orderly")], logs=tmp_path) as stack:
        stack.wait_ready(20)
        assert next(stack.follow()) == ("orderly", "mode orderly")


def test_images_have_room_in_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Fast DDS loses large images by default; but a profile that the user has chosen stays."""
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    assert not any(spec.environment for spec in describe("record", {"bag": "x"})), "64 px need no room"
    small = contract_path("reacher").read_text()
    large = small.replace("width: 64", "width: 640").replace("height: 64", "height: 480")
    (tmp_path / "large.yaml").write_text(large)
    arguments = {"bag": "x", "contract": str(tmp_path / "large.yaml")}
    chosen = {spec.name: spec.environment for spec in describe("record", arguments)}
    assert set(chosen["sim"]) == {"FASTDDS_DEFAULT_PROFILES_FILE"} == set(chosen["recorder"])
    assert chosen["action"] == chosen["explorer"] == {}
    profile = ElementTree.parse(chosen["sim"]["FASTDDS_DEFAULT_PROFILES_FILE"])
    assert int(profile.findtext(".//{*}segment_size") or 0) > 2 * 640 * 480 * 3
    assert set(large_messages({"ROS_DISTRO": "jazzy"})) == {"FASTRTPS_DEFAULT_PROFILES_FILE"}
    assert large_messages({"FASTRTPS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}
    assert large_messages({"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}


def test_no_memory_is_shared_and_nobody_beyond_is_reached():
    """Pins what a node's process says to Fast DDS, and that it says nothing to others or against the user."""
    here = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    chosen = no_shared_memory("rmw_fastrtps_cpp", here)
    assert chosen.pop("ROS_AUTOMATIC_DISCOVERY_RANGE") == "SYSTEM_DEFAULT"
    profile = ElementTree.parse(chosen.pop("FASTDDS_DEFAULT_PROFILES_FILE"))
    assert not chosen
    assert [kind.text for kind in profile.iterfind(".//{*}transport_descriptor/{*}type")] == ["UDPv4"]
    assert {address.text for address in profile.iterfind(".//{*}address")} == {"127.0.0.1"}
    assert no_shared_memory("rmw_fastrtps_cpp", {}) == {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}
    assert no_shared_memory("rmw_zenoh_cpp", here) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", here | {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", here | {"ROS_STATIC_PEERS": "10.0.0.2"}) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}
