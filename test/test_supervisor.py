"""The supervisor of a stack's processes, with processes that behave as told; no ROS in these tests."""

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
from typing import Any

import psutil
import pytest

from smwm_ros.errors import StackError
from smwm_ros.stack.description import ProcessSpec
from smwm_ros.stack.restarts import RestartPolicy
from smwm_ros.stack.supervisor import Supervisor


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    """Return a maker of specs whose processes behave as told."""
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))

    def make(mode: str, name: str = "", **options: Any) -> ProcessSpec:
        return ProcessSpec(name or mode, "fake_node", {"mode": mode}, **options)

    return make


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


def test_one_that_died_is_told_what_holds_after_a_death(fake, tmp_path: Path):
    """The gate comes back stopped; and as at first where a caller ends it in good order."""
    spec = fake("fragile", again={"mode": "orderly"})
    with Supervisor([spec], logs=tmp_path, restarts=SOON) as stack:
        stack.wait_ready(20)
        until(stack, lambda: "mode orderly" in (tmp_path / "fragile.log").read_text())
        stack.wait_ready(20)
        os.kill(stack.processes["fragile"], signal.SIGKILL)
        stack.restart("fragile")
        stack.wait_ready(20)
        assert (tmp_path / "fragile.log").read_text().count("mode orderly") == 2
        stack.restart("fragile")
        until(stack, lambda: (tmp_path / "fragile.log").read_text().count("mode fragile") == 2)


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


def test_one_that_is_killed_before_it_is_ready_is_started_again(fake, tmp_path: Path):
    """Though it could not be later: it had begun nothing yet. And it is told what it was told at first."""
    told: list[str] = []
    spec = fake("killed", restart=False, again={"mode": "orderly"})
    with (
        Supervisor([spec], logs=tmp_path, restarts=SOON, tell=lambda _, event: told.append(event)) as stack,
        pytest.raises(StackError, match="killed was ended by SIGKILL after 2 restarts in a row"),
    ):
        stack.wait_ready(20)
    assert told[0] == "was ended by SIGKILL; starts again in 0.01 s (1 of 2)"


@pytest.mark.parametrize(
    ("spec", "says"),
    [(("die", "sim", False), "sim ended with code 1"), (("crash", "x", True), "x ended with code 1")],
)
def test_some_deaths_are_final(fake, tmp_path: Path, spec, says):
    """A simulator's world is gone with it; and what gave up at its start would do so again."""
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


@pytest.mark.parametrize("settling", [0.0, 10.0])
def test_a_robot_that_has_to_settle_is_waited_for(fake, tmp_path: Path, monkeypatch, settling: float):
    """The action node brings a slow robot to its safe action for as long as the contract lets it take."""
    monkeypatch.setattr(
        "smwm_ros.stack.supervisor.GRACE",
        ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.1), (signal.SIGKILL, 5.0)),
    )
    with Supervisor([fake("settling", settling=settling), fake("orderly")], logs=tmp_path) as stack:
        stack.wait_ready(20)
    assert ("in good order" in (tmp_path / "settling.log").read_text()) == bool(settling)


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
