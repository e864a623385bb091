"""Heartbeats: a node that died, was stopped or ended is noticed by its dependents, and so is its return."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from rclpy.executors import SingleThreadedExecutor

from smwm_ros.nodes.heartbeat import MISSED, Life, Peer
from smwm_ros.nodes.lifecycle import SmwmNode

TOY = str(Path(__file__).with_name("toy.py"))
ALIVE, INACTIVE = (State(id=number) for number in (State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE))


class Queue:
    """Stands for a subscription."""

    def __init__(self) -> None:
        self.handle = self
        self.waiting: list[State] = []

    def take_message(self, *_: Any) -> tuple[State, None] | None:
        return (self.waiting.pop(0), None) if self.waiting else None


def test_only_looks_in_a_row_without_a_heartbeat_make_a_node_silent() -> None:
    """Known answers; also that one which was never heard, or said that it ends, is not called silent."""
    queue = Queue()
    peer = Peer(queue)

    def look(*came: State) -> Life:
        queue.waiting = list(came)
        peer.life = peer.look()
        return peer.life

    assert [look() for _ in range(9)] == [Life.UNHEARD] * 9
    assert look(ALIVE) is Life.ALIVE
    for _ in range(3):
        assert [look() for _ in range(MISSED - 1)] == [Life.ALIVE] * (MISSED - 1)
        assert look(ALIVE) is Life.ALIVE
    assert [look() for _ in range(MISSED)][-1] is Life.SILENT
    assert look(ALIVE) is Life.ALIVE
    assert look(INACTIVE) is Life.INACTIVE
    assert [look() for _ in range(9)] == [Life.INACTIVE] * 9


class Dependent(SmwmNode):
    """Needs the action node."""

    depends_on = ("action",)


class Graph:
    """A dependent node, and what is heard of it on /diagnostics."""

    def __init__(self) -> None:
        rclpy.init()
        self.node = Dependent("dependent")
        self.status = DiagnosticStatus()
        self.listener = rclpy.create_node("listener")
        self.listener.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)
        self._executor = SingleThreadedExecutor()
        for node in (self.node, self.listener):
            self._executor.add_node(node)
        assert self.node.bring_up()

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "/dependent":
                self.status = status

    def wait(self, level: bytes, message: str) -> None:
        """Wait for a status."""
        self._spin(lambda: self.status.level == level and message in self.status.message, message)

    def _spin(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what!r}; newest: {self.status}"
            self._executor.spin_once(0.05)

    def life(self) -> str:
        return next(pair.value for pair in self.status.values if pair.key == "peer.action")

    def close(self) -> None:
        self.node.shut_down()
        self._executor.shutdown()
        self.node.destroy_node()
        self.listener.destroy_node()
        rclpy.shutdown()


@pytest.fixture
def graph() -> Iterator[Graph]:
    made = Graph()
    yield made
    made.close()


def test_a_node_that_is_stopped_killed_or_ends_is_noticed_and_so_is_its_return(graph: Graph) -> None:
    """Pins what diagnostics say; not within which time, as that is for the benchmark."""
    command = [sys.executable, TOY, "action", "--ros-args", "-p", "contract:=config/robots/reacher.yaml"]
    silent = "action is silent"
    graph.wait(DiagnosticStatus.OK, "ok")  # never heard: perhaps it is not there yet
    with subprocess.Popen(command) as first:
        graph._spin(lambda: "peer.action" in {pair.key for pair in graph.status.values}, "a heartbeat")
        first.send_signal(signal.SIGSTOP)
        graph.wait(DiagnosticStatus.ERROR, silent)
        assert graph.life() == "silent"
        first.send_signal(signal.SIGCONT)
        graph.wait(DiagnosticStatus.OK, "ok")
        assert graph.life() == "alive"
        first.kill()
    graph.wait(DiagnosticStatus.ERROR, silent)
    with subprocess.Popen(command) as second:
        graph.wait(DiagnosticStatus.OK, "ok")
        second.terminate()
    graph.wait(DiagnosticStatus.WARN, "action is inactive")
    assert graph.node.monitor.count("lost.action") == 2
