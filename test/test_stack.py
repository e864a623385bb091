"""The description of the stacks, and the processes made from it; no ROS in these tests."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from checkpoints import write_header

from smwm_ros.errors import CheckpointError, ConfigError, ContractError
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
from smwm_ros.stack.transport import large_messages, no_shared_memory

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return write_header(tmp_path / "model.safetensors")


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
    (guard,) = describe("guard", {"lock_step": True})
    assert guard.name == "action"
    assert guard.parameters["safety_only"] is guard.parameters["lock_step"] is True


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


@pytest.mark.parametrize("stack", ["sim", "robot", "record", "explore", "guard"])
def test_a_gate_that_died_is_to_come_back_stopped(checkpoint: str, stack):
    """An emergency stop was perhaps in force, and nobody knows. Who says so himself may have it otherwise."""
    given = {"checkpoint": checkpoint} if stack in ("sim", "robot") else {}
    gate = describe(stack, given)[-1]
    assert gate.restart
    assert "start_stopped" not in gate.parameters
    assert gate.after_death().parameters == {**gate.parameters, "start_stopped": True}
    gate = describe(stack, given, {"action": {"start_stopped": False}})[-1]
    assert gate.after_death().parameters["start_stopped"] is False


@pytest.mark.parametrize(
    ("safe", "seconds"), [("zero", 4.0), ("decelerate", 4.0), ("hold", 0.0), ("[0.0, -1.0]", 6.0)]
)
def test_a_slow_robot_has_time_to_come_to_rest(tmp_path: Path, safe: str, seconds: float):
    """From anywhere within 2 rad/s, at 0.5 rad/s in a second; others of the stack end as fast as ever."""
    slow = contract_path("reacher").read_text().replace("max_change: 40.0", "max_change: 0.5")
    (tmp_path / "slow.yaml").write_text(slow.replace("safe: zero", f"safe: {safe}"))
    explorer, action = describe("explore", {"contract": str(tmp_path / "slow.yaml")})
    assert (explorer.settling, action.settling) == (0.0, seconds)


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


def test_images_have_room_in_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: str):
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
    looking = describe("perceive", {"contract": arguments["contract"], "checkpoint": checkpoint})
    assert [spec.name for spec in looking if spec.environment] == ["perception"]
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
    (beyond,) = no_shared_memory("rmw_fastrtps_cpp", {}).values()
    assert "SHM" not in Path(beyond).read_text()
    assert no_shared_memory("rmw_zenoh_cpp", here) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", here | {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", here | {"ROS_STATIC_PEERS": "10.0.0.2"}) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}) == {}
    assert no_shared_memory("rmw_fastrtps_cpp", {"FASTDDS_DEFAULT_PROFILES_FILE": "mine.xml"}) == {}
