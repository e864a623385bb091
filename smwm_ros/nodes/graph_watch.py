"""Look at a running graph for some seconds, from outside its nodes: what `smwm doctor` judges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState

from smwm_ros.contract import Contract
from smwm_ros.messages import from_time, image_type
from smwm_ros.messages.images import RAW_IMAGE
from smwm_ros.nodes.guest import Guest
from smwm_ros.nodes.qos import CLOCK
from smwm_ros.stack.graph import Endpoint, Graph, Report, Sample, Topic

NAME = "smwm_doctor"
DISCOVERY = 1.5
"""Seconds until the others are known."""
ANSWERS = 2.0
"""Longest wait for the nodes' services, seconds."""
ANY = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
"""Fits every publisher."""


def look_at_graph(
    contract: Contract, names: Iterable[str], namespace: str = "", seconds: float = 3.0
) -> Graph:
    """
    Join the graph, look, and leave.

    Args:
        contract: whose topics are listened to.
        names: of the package's nodes, without namespace: those that are there are asked.
        namespace: of the robot.
        seconds: for which sensors and diagnostics are listened to (steady).
    """
    with Guest(NAME, namespace) as guest:
        return _Look(contract, guest).graph(set(names), seconds)


class _Look:
    def __init__(self, contract: Contract, guest: Guest) -> None:
        self._contract = contract
        self._node = guest.node
        self._executor = guest.executor
        self._now: int | None = None
        self._times: set[int] = set()
        self._reports: dict[str, Report] = {}
        self._images: list[Sample] = []
        self._joints: list[Sample] = []

    def graph(self, names: set[str], seconds: float) -> Graph:
        node, observation = self._node, self._contract.observation
        self._spin(DISCOVERY)
        prefix = node.get_namespace().rstrip("/")
        ours = sorted({full for full in self._nodes() if full.removeprefix(f"{prefix}/") in names})
        states, sim_time = self._ask(ours)
        clock = next((t for t in (f"{prefix}/clock", "/clock") if node.count_publishers(t)), "")
        by_clock = any(sim_time.values()) if sim_time else bool(clock)
        if clock and by_clock:
            node.create_subscription(Clock, clock, self._on_clock, CLOCK)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self._sample(
            image_type(self._contract), observation.image.topic, self._images, self._picture, by_clock
        )
        if observation.joints is not None:
            self._sample(JointState, observation.joints.topic, self._joints, _joint_names, by_clock)
        self._spin(seconds)
        topics = {name: self._topic(name) for name, _ in node.get_topic_names_and_types()}
        clocks = {end.node for end in self._topic(clock).publishers} if clock else set()
        return Graph(
            domain=node.context.get_domain_id(),
            seconds=seconds,
            topics=topics,
            nodes=tuple(self._nodes()),
            states=states,
            sim_time=sim_time,
            clocks=tuple(sorted(clocks)),
            time_stands=bool(clock) and by_clock and len(self._times) <= 1,
            reports=self._reports,
            images=tuple(self._images),
            joints=tuple(self._joints),
        )

    def _spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until():
            self._executor.spin_once(min(left, 0.05))

    def _nodes(self) -> list[str]:
        found = self._node.get_node_names_and_namespaces()
        return sorted(_full(name, namespace) for name, namespace in found if name != NAME)

    def _ask(self, nodes: list[str]) -> tuple[dict[str, str], dict[str, bool]]:
        """Ask nodes for their lifecycle state, and whether they go by /clock."""
        answers: dict[tuple[str, str], Any] = {}
        clients = []
        for full in nodes:
            for kind, name, request in (
                (GetState, "get_state", GetState.Request()),
                (GetParameters, "get_parameters", GetParameters.Request(names=["use_sim_time"])),
            ):
                client = self._node.create_client(kind, f"{full}/{name}")
                clients.append(client)
                self._spin(ANSWERS, client.service_is_ready)
                if client.service_is_ready():
                    client.call_async(request).add_done_callback(
                        partial(lambda key, future: answers.update({key: future.result()}), (full, name))
                    )
        self._spin(ANSWERS, lambda: len(answers) == len(clients))
        for client in clients:
            self._node.destroy_client(client)
        states = {f: a.current_state.label for (f, name), a in answers.items() if name == "get_state"}
        times = {
            f: a.values[0].bool_value
            for (f, name), a in answers.items()
            if name == "get_parameters" and a.values
        }
        return states, times

    def _sample(
        self, kind: Any, topic: str, into: list[Sample], describe: Callable[[Any], Any], by_clock: bool
    ) -> None:
        """Listen to a sensor, if it is published with the type that the contract says."""
        wanted = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        full = self._node.resolve_topic_name(topic)
        if not all(end.type == wanted for end in self._topic(full).publishers):
            return

        def take(message: Any) -> None:
            now = self._now if by_clock else time.time_ns()
            if now is not None:  # else /clock is yet to come
                stamp = from_time(message.header.stamp)
                content, names = describe(message)
                into.append(Sample(stamp, (now - stamp) / 1e9, content, names))

        self._node.create_subscription(kind, full, take, ANY)

    def _picture(self, message: Any) -> tuple[str, tuple[str, ...]]:
        if self._contract.observation.image.type != RAW_IMAGE:
            return "", ()
        return f"{message.encoding} {message.width}x{message.height}", ()

    def _on_clock(self, message: Clock) -> None:
        self._now = from_time(message.clock)
        self._times.add(self._now)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._reports[status.name] = Report(int.from_bytes(status.level, "little"), status.message)

    def _topic(self, name: str) -> Topic:
        publishers = self._others(self._node.get_publishers_info_by_topic(name))
        subscribers = self._others(self._node.get_subscriptions_info_by_topic(name))
        mismatches = []
        for publisher in publishers:
            for subscriber in subscribers:
                verdict, reason = qos_check_compatible(publisher.qos_profile, subscriber.qos_profile)
                if verdict == QoSCompatibility.ERROR:
                    offers, asks = _endpoint(publisher), _endpoint(subscriber)
                    said = f"{offers.node} offers {offers.qos}, {asks.node} asks for {asks.qos}"
                    mismatches.append(f"{said} ({reason.strip()})")
        return Topic(tuple(map(_endpoint, publishers)), tuple(map(_endpoint, subscribers)), tuple(mismatches))

    def _others(self, infos: list[TopicEndpointInfo]) -> list[TopicEndpointInfo]:
        return [info for info in infos if info.node_name != NAME]


def _full(name: str, namespace: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"


def _endpoint(info: TopicEndpointInfo) -> Endpoint:
    qos = info.qos_profile
    return Endpoint(
        _full(info.node_name, info.node_namespace),
        info.topic_type,
        f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}".replace("_", " "),
    )


def _joint_names(message: JointState) -> tuple[str, tuple[str, ...]]:
    return "", tuple(message.name)
