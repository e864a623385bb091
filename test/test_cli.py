"""The command line: exit codes, what goes to which stream, and the environment; without ROS processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from smwm_ros.cli import demo, environment, main
from smwm_ros.cli.goal import read_picture, render
from smwm_ros.cli.output import show_result
from smwm_ros.cli.up import split_setting
from smwm_ros.errors import ConfigError, DataError, SimulationError

SMWM = [sys.executable, "-m", "smwm_ros.cli.main"]


def smwm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run([*SMWM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def run_with(monkeypatch: pytest.MonkeyPatch, action) -> int:
    """Run main() with one command that does as told; return its exit code."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(action)
    app.callback()(lambda: None)
    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr(sys, "argv", ["smwm", action.__name__])
    monkeypatch.setattr(environment, "prepare", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    return int(ended.value.code or 0)


def test_help_needs_no_heavy_import():
    """`smwm --help` took four seconds when it imported torch."""
    script = (
        "import sys, smwm_ros.cli.main\n"
        "print(sys.modules.keys() & {'torch', 'mujoco', 'rclpy', 'numpy', 'cv2', 'pydantic', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "command",
    ["doctor", "up", "goal", "record", "ingest", "train", "search", "eval", "demo", "reproduce", "ship",
     "bench latency", "bench ingest", "bench sim"],
)  # fmt: skip
def test_every_command_explains_itself(command: str):
    """All the commands of the README are there."""
    done = smwm(*command.split(), "--help")
    assert done.returncode == 0
    assert command in done.stdout


def test_a_users_error_is_one_message_and_code_2(monkeypatch, capsys):
    """No traceback, whole lines, and brackets as they are."""

    def fail() -> None:
        raise ConfigError("a.yaml: dimensions[0]: low [red] must be less " + "x" * 200)

    assert run_with(monkeypatch, fail) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["smwm: a.yaml: dimensions[0]: low [red] must be less " + "x" * 200]


def test_a_fault_of_the_package_is_told_as_such(monkeypatch, capsys):
    """One line for the user, the traceback in a file for the maintainers."""

    def fail() -> None:
        raise ZeroDivisionError("oops")

    assert run_with(monkeypatch, fail) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError('oops')" in error
    assert "Traceback" not in error
    path = Path(re.search(r"\S+\.log", error)[0])  # type: ignore[index]
    assert "Traceback" in path.read_text()
    path.unlink()


def test_an_interrupt_has_its_own_code(monkeypatch):
    """As every shell expects."""

    def fail() -> None:
        raise KeyboardInterrupt

    assert run_with(monkeypatch, fail) == 130


def test_sigterm_unwinds(monkeypatch):
    """`kill` must end what was started as Ctrl-C does: context managers have to run."""
    unwound = []

    def fail() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            unwound.append(True)

    assert run_with(monkeypatch, fail) == 143
    assert unwound


def test_exit_codes_of_commands_come_through(monkeypatch):
    """`smwm goal` ends with 3 when the goal was given up."""

    def leave() -> None:
        raise typer.Exit(3)

    assert run_with(monkeypatch, leave) == 3


def test_errors_end_real_commands_with_code_2():
    """From the outside: wrong usage, a wrong argument, a missing file."""
    assert smwm("launch").returncode == 2
    done = smwm("up", "sim", "checkpoint=x")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "smwm: 'checkpoint=x': expected NAME:=VALUE, for example lock_step:=true or planner.seed:=3"
    )
    done = smwm("ingest", "/nowhere/bag", "-o", "/nowhere/x.h5", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "/nowhere/bag" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_one_object_on_stdout_alone(capsys):
    """Machines read the last line of stdout; people read stderr."""
    show_result({"a": 1.5, "b": {"c": "d"}}, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": 1.5, "b": {"c": "d"}}
    assert captured.out.count("\n") == 1
    assert captured.err == ""
    show_result({"a": 1.23456, "b": {"c": "d"}}, as_json=False, title="figures")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1.235" in captured.err
    with pytest.raises(ValueError, match="JSON"):
        show_result({"a": float("nan")}, as_json=True)


def test_settings_are_split_at_the_sign():
    """A path may hold an equals sign, and a value another `:=`."""
    assert split_setting("bag:=/a=b/c:=d") == ("bag", "/a=b/c:=d")
    for wrong in ("bag", "bag=x", ":=x"):
        with pytest.raises(ConfigError, match="NAME:=VALUE"):
            split_setting(wrong)


def make_prefix(path: Path) -> str:
    (path / "share" / "ament_index").mkdir(parents=True)
    return str(path)


def test_the_environment_is_completed_for_the_wheels(tmp_path: Path):
    """Without AMENT_PREFIX_PATH, `ros2` and plugins do not find the package."""
    prefix = make_prefix(tmp_path)
    given = {"AMENT_PREFIX_PATH": "/opt/ros/kilted"}
    environment.prepare(given, prefix)
    assert given == {"AMENT_PREFIX_PATH": f"{prefix}:/opt/ros/kilted"}
    environment.prepare(given, prefix)
    assert given == {"AMENT_PREFIX_PATH": f"{prefix}:/opt/ros/kilted"}


def test_an_installed_ros_is_left_alone(tmp_path: Path):
    """There the user has sourced a workspace, and Python has no ROS in its prefix."""
    given = {"AMENT_PREFIX_PATH": "/opt/ros/kilted", "LD_LIBRARY_PATH": "/opt/ros/kilted/lib"}
    before = dict(given)
    environment.prepare(given, str(tmp_path))
    assert given == before


def test_the_mark_of_another_environment_is_not_believed(tmp_path: Path, monkeypatch):
    """Started from another environment's Python, the wheels think that the libraries are found already."""
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, env: started.append(env))
    prefix = make_prefix(tmp_path)
    other = {environment.MARK: "1", "LD_LIBRARY_PATH": "/other/lib", "HOME": "/root"}
    environment.prepare(other, prefix)
    assert started == [{"AMENT_PREFIX_PATH": prefix, "HOME": "/root"}]
    own = {environment.MARK: "1", "LD_LIBRARY_PATH": f"/x:{prefix}/lib"}
    environment.prepare(own, prefix)
    assert len(started) == 1


def test_ros_works_without_sourcing_anything():
    """A new user types `.venv/bin/smwm` in a fresh shell."""
    bare = {name: os.environ[name] for name in ("HOME", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_DOMAIN_ID")}
    script = (
        "from smwm_ros.cli import environment; environment.prepare()\n"
        "from smwm_ros.nodes.loopback import check_messages, check_middleware\n"
        "import os; print(check_messages(), check_middleware(), os.environ['AMENT_PREFIX_PATH'])"
    )
    for extra in ({}, {environment.MARK: "1", "LD_LIBRARY_PATH": "/somewhere/else"}):
        done = subprocess.run(
            [sys.executable, "-c", script], env=bare | extra,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("built rmw_")


def test_a_run_of_its_own_gets_a_domain_of_its_own():
    """Demo and benchmarks must not talk to a robot on the same network; a domain that was chosen is kept."""
    given: dict[str, str] = {}
    environment.isolate(given)
    domain = int(given["ROS_DOMAIN_ID"])
    assert 1 <= domain <= 100
    assert given["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 7400 + 250 * domain + 10))
        other: dict[str, str] = {}
        environment.isolate(other)
        assert other["ROS_DOMAIN_ID"] != given["ROS_DOMAIN_ID"]
    chosen = {"ROS_DOMAIN_ID": "0", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    environment.isolate(chosen)
    assert chosen == {"ROS_DOMAIN_ID": "0", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}


def test_goal_pictures_keep_their_colours(tmp_path: Path):
    """OpenCV reads blue first."""
    path = tmp_path / "goal.png"
    cv2.imwrite(str(path), np.full((4, 4, 3), (0, 0, 255), np.uint8))
    assert read_picture(path)[0, 0].tolist() == [255, 0, 0]
    (tmp_path / "text.png").write_text("no picture")
    for wrong in ("text.png", "missing.png"):
        with pytest.raises(DataError, match=wrong.split(".")[0] if wrong == "missing.png" else "decoded"):
            read_picture(tmp_path / wrong)


def test_goal_states_are_checked():
    """A state that cannot be is found before anything is sent."""
    assert render("reacher", "0.5,1.2,0,0").shape == (64, 64, 3)
    with pytest.raises(ConfigError, match="numbers with commas"):
        render("reacher", "0.5 1.2")
    with pytest.raises(SimulationError, match="4 finite numbers"):
        render("reacher", "0.5,1.2")


def test_demo_clears_only_what_it_made(tmp_path: Path):
    """The folder may be one that the user keeps other things in."""
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "x.mcap").touch()
    (tmp_path / "report.html").touch()
    (tmp_path / "mine.txt").touch()
    demo.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        demo.clear(tmp_path / "mine.txt")


def test_sparklines_fall_with_the_error():
    """Full at the start, empty at the goal, and never wider than the column."""
    line = demo.sparkline(np.linspace(1, 0, 51))
    assert (line[0], line[-1]) == ("█", " ")
    assert len(line) <= 26
    assert demo.sparkline(np.array([0.5])) == "█"
