"""What `smwm doctor` says of the installation; of a running robot: ros/test_graph_watch.py."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from smwm_ros.cli import doctor, installation
from smwm_ros.cli.installation import CAP_SYS_NICE, Check, capable, installation_checks
from smwm_ros.errors import SimulationError
from smwm_ros.resources import checkpoint_path, contract_path
from smwm_ros.stack.findings import Level


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """Return the contract of a robot of which no model is shipped."""
    path = tmp_path / "my_robot.yaml"
    path.write_text(contract_path("reacher").read_text().replace("name: reacher\n", "name: mine\n", 1))
    return path


def check(name: str, robot: str = "reacher", checkpoint: Path | None = None) -> Check:
    (found,) = (each for each in installation_checks(robot, checkpoint, "") if each.name == name)
    return found


def run(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code and the findings, without looking for a running robot."""
    with pytest.raises(typer.Exit) as ended:
        doctor.doctor(**({"checkpoint": None, "seconds": 0.0} | options), as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is (ended.value.exit_code == 0)
    return ended.value.exit_code, result["checks"]


def test_it_goes_on_after_a_failed_check(tmp_path: Path, monkeypatch, capsys):
    """The second fault is found together with the first; what needs a contract is left out without one."""

    def no_middleware(namespace: str) -> str:
        raise ModuleNotFoundError("No module named 'rclpy'")

    monkeypatch.setattr(installation, "check_ros", no_middleware)
    (tmp_path / "bad.yaml").write_text("name: x")
    code, checks = run(capsys, robot=str(tmp_path / "bad.yaml"))
    assert code == 1
    assert checks["ROS 2"]["level"] == checks["contract"]["level"] == "fault"
    assert checks["ROS 2"]["found"] == "No module named 'rclpy'"
    assert "setup.bash" in checks["ROS 2"]["mend"]
    assert "bad.yaml: action: missing" in checks["contract"]["found"]
    assert checks["torch"]["level"] == "ok"
    assert checks["torch"]["expected"] == checks["torch"]["mend"] == ""
    assert not {"rendering", "checkpoint"} & checks.keys()


def test_every_check_that_can_fail_says_what_was_expected_and_what_to_do():
    """`smwm doctor` said only what was wrong, while the manual promised more."""
    for each in installation_checks("reacher", None, ""):
        assert each.name == "python" or (each.expected and each.mend), each.name


@pytest.mark.parametrize(
    ("name", "broken", "error", "mend"),
    [
        ("rendering", "smwm_ros.tasks.make_task", SimulationError("cannot render"), "MUJOCO_GL"),
        ("messages", "smwm_ros.nodes.loopback.check_messages", ImportError("no msg"), "colcon build"),
    ],
)
def test_a_failing_check_comes_with_its_remedy(
    name: str, broken: str, error: Exception, mend: str, monkeypatch
):
    """Each in the words for what it looks at."""

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(broken, fail)
    finding = check(name).finding()
    assert (finding.level, finding.found) == (Level.fault, str(error))
    assert finding.expected
    assert mend in finding.mend


def test_missing_torch_is_one_finding(monkeypatch):
    """The first thing that a new installation may lack."""
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = check("torch").finding()
    assert finding.level is Level.fault
    assert "pip install 'torch" in finding.mend


def test_an_untrained_robot_is_healthy(untrained: Path, tmp_path: Path, monkeypatch, capsys):
    """It can explore and record. A checkpoint that was given must be there, and be trained for it."""
    monkeypatch.setattr(installation, "check_ros", lambda namespace: "fine")
    code, checks = run(capsys, robot=str(untrained))
    assert code == 0, checks
    assert "none is shipped for mine" in checks["checkpoint"]["found"]
    assert "--checkpoint" in checks["checkpoint"]["found"]
    absent = check("checkpoint", str(untrained), tmp_path / "absent.safetensors").finding()
    assert not absent.ok
    assert "absent.safetensors" in absent.found
    assert "smwm train" in absent.mend
    assert not check("checkpoint", str(untrained), checkpoint_path("push_t")).finding().ok


def test_a_shipped_checkpoint_is_looked_at():
    """By default, as the other commands take it."""
    found = check("checkpoint").finding()
    assert found.ok
    assert str(checkpoint_path("reacher")) in found.found


@pytest.mark.parametrize(
    ("capability", "limit", "allowed"),
    [
        (False, 0, ""),
        (False, 49, ""),
        (False, 50, "rtprio"),
        (False, resource.RLIM_INFINITY, "rtprio"),
        (True, 0, "CAP_SYS_NICE"),
    ],
)
def test_whether_the_gate_may_have_its_priority(capability: bool, limit: int, allowed: str, monkeypatch):
    """Without it the robot is driven all the same: a warning, with what to do."""
    monkeypatch.setattr(installation, "capable", lambda status, number: capability)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    finding = check("gate priority").finding()
    assert finding.ok
    assert "SCHED_FIFO 50" in finding.found
    if allowed:
        assert finding.level is Level.ok
        assert finding.found.endswith(allowed)
    else:
        assert finding.level is Level.warning
        assert f"rtprio is {limit}" in finding.found
        assert "limits.conf" in finding.mend


@pytest.mark.parametrize(
    ("mask", "has"), [("000001ffffffffff", True), ("0000000000800000", True), ("00000000a80425fb", False)]
)
def test_capabilities_are_read_from_the_kernels_text(mask: str, has: bool):
    """The last one is what Docker gives by default."""
    status = f"Name:\tpython\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\nCapBnd:\t0000000000000000\n"
    assert capable(status, CAP_SYS_NICE) is has
