"""Quality of service: a parameter for each topic, and a mismatch names both sides and what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
import toy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from robot import write_contract
from std_msgs.msg import Float64

from smwm_ros.nodes import qos
from smwm_ros.nodes.lifecycle import SmwmNode

HEARD = "qos_overrides./left/heard.subscription"
SAID = "qos_overrides./left/said.publisher"


class Talker(SmwmNode):
    """Listens and speaks."""

    def __init__(self) -> None:
        super().__init__("talker", namespace="left")
        self.heard: list[float] = []

    def set_up(self) -> None:
        self.listen(Float64, "heard", lambda message: self.heard.append(message.data), qos.NEWEST)
        self.said = self.offer(Float64, "said", qos.sensor("best_effort"))
        self.latched = self.offer(Float64, "latched", qos.LATCHED)


@contextmanager
def graph(*parameters: str) -> Iterator[tuple[Talker, Node, Callable[[Callable[[], bool]], None]]]:
    """Make a talker, another node, and what spins both until something is true."""
    rclpy.init(args=["--ros-args", *(text for one in parameters for text in ("-p", one))])
    talker, other = Talker(), rclpy.create_node("other", use_global_arguments=False)
    executor = SingleThreadedExecutor()
    executor.add_node(talker)
    executor.add_node(other)

    def spin(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            executor.spin_once(0.05)

    try:
        yield talker, other, spin
    finally:
        talker.shut_down()
        executor.shutdown()
        talker.destroy_node()
        other.destroy_node()
        rclpy.shutdown()


def test_a_mismatch_names_both_sides_and_the_remedy_until_it_is_gone() -> None:
    with graph() as (talker, other, spin):
        talker.bring_up()
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        publisher = other.create_publisher(Float64, "/left/heard", best_effort)

        def status() -> DiagnosticStatus:
            return talker.monitor.status("talker")

        spin(lambda: status().level == DiagnosticStatus.ERROR)
        assert status().message == (
            "/left/heard: /other offers reliability best_effort, /left/talker asks for reliable: no message "
            f"passes between them; start /left/talker with -p {HEARD}.reliability:=best_effort, or change "
            "the other."
        )
        other.destroy_publisher(publisher)
        spin(lambda: status().level == DiagnosticStatus.OK)


def test_a_subscriber_that_asks_for_too_much_is_a_warning() -> None:
    """It is somebody else who hears nothing. Two policies at once are both named."""
    with graph() as (talker, other, spin):
        talker.bring_up()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        other.create_subscription(Float64, "/left/said", lambda _: None, latched)
        spin(lambda: talker.monitor.status("talker").level == DiagnosticStatus.WARN)
        said = talker.monitor.status("talker").message
        assert f"start /left/talker with -p {SAID}.reliability:=reliable" in said
        assert "offers durability volatile, /other asks for transient_local" in said


def test_the_remedy_that_is_told_mends_it() -> None:
    with graph(f"{HEARD}.reliability:=best_effort") as (talker, other, spin):
        talker.bring_up()
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        publisher = other.create_publisher(Float64, "/left/heard", best_effort)

        def heard() -> bool:
            publisher.publish(Float64(data=1.0))
            return bool(talker.heard)

        spin(heard)


def test_every_policy_can_be_given_and_the_shared_profiles_stay_as_they_are() -> None:
    given = (f"{SAID}.reliability:=reliable", f"{SAID}.depth:=7", f"{SAID}.lifespan:=200000000")
    with graph(*given, f"{SAID}.deadline:=100000000") as (talker, other, spin):
        for _ in range(2):  # declared anew with the topics
            assert talker.bring_up()
            profile = talker.said.qos_profile
            assert (profile.depth, profile.reliability) == (7, ReliabilityPolicy.RELIABLE)
            assert (profile.lifespan.nanoseconds, profile.deadline.nanoseconds) == (2e8, 1e8)
            assert qos.NEWEST.depth == 1
            assert talker.value(f"{HEARD}.reliability") == "reliable"
            assert "start of the process" in talker.describe_parameter(f"{SAID}.depth").additional_constraints
            talker.trigger_deactivate()
            talker.trigger_cleanup()
            assert not talker.has_parameter(f"{SAID}.depth")
        talker.bring_up()
        other.create_subscription(Float64, "/left/said", lambda _: None, qos.NEWEST)
        talker.said.publish(Float64())
        spin(lambda: talker.monitor.count("missed.qos_deadline") > 0)  # nothing more is said


@pytest.mark.parametrize("wrong", ["reliability:=sloppy", "depth:=0", "deadline:=-1"])
def test_wrong_policies_are_told_when_the_node_is_configured(wrong: str) -> None:
    with graph(f"{SAID}.{wrong}") as (talker, _, _spin):
        assert talker.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert f"{SAID}.{wrong.partition(':')[0]}" in talker.failure


def test_a_late_joiner_gets_what_is_latched() -> None:
    with graph() as (talker, other, spin):
        talker.bring_up()
        talker.latched.publish(Float64(data=3.0))
        heard: list[float] = []
        other.create_subscription(Float64, "/left/latched", lambda one: heard.append(one.data), qos.LATCHED)
        spin(lambda: heard == [3.0])


@pytest.mark.parametrize("kind", ["perception", "world_model", "planner", "action"])
def test_all_names_but_two_lie_in_the_namespace(kind: str, tmp_path: Path) -> None:
    """Pins that two robots side by side share nothing but diagnostics (and /clock, in simulated time)."""
    contract = tmp_path / "robot.yaml"
    write_contract(contract)
    model = [] if kind == "action" else ["-p", f"checkpoint:={contract}"]
    rclpy.init(args=["--ros-args", "-r", "__ns:=/left", "-p", f"contract:={contract}", *model])
    try:
        node = toy.make(kind)
        assert node.bring_up()
        names = {end.topic_name for end in (*node.publishers, *node.subscriptions)}
        names |= {end.srv_name for end in (*node.services, *node.clients)}
        own = {node.resolve_topic_name(name) for name in names}
        assert {name for name in own if not name.startswith("/left/")} <= {
            "/diagnostics",
            "/parameter_events",
        }
        assert f"/left/heartbeat/{kind}" in own
        node.shut_down()
        node.destroy_node()
    finally:
        rclpy.shutdown()
