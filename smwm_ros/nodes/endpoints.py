"""A node's publishers and subscriptions: their quality of service as parameters, and who does not suit it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from smwm_ros.nodes.diagnostics import Monitor
from smwm_ros.nodes.parameters import Param, Parameters

POLICIES = ("reliability", "durability", "deadline", "liveliness", "liveliness_lease_duration")
"""What a subscription may ask for that a publisher does not offer."""
RELIABILITIES = ("reliable", "best_effort")


def overrides(topic: str, profile: QoSProfile, *, publisher: bool) -> tuple[Param, ...]:
    """
    Return the parameters of an endpoint's quality of service.

    They have the names that rclcpp and rclpy give them. Not by rclpy's own QoSOverridingOptions, which
    write into the profile they are given (one for many topics here), and take wrong values for defects.

    Args:
        topic: its full name.
        profile: the values where nothing else is given.
        publisher: it is one, and no subscription.
    """
    end = f"qos_overrides.{topic}.{_kind(publisher)}"
    made = [
        Param(
            name=f"{end}.reliability",
            default=profile.reliability.name.lower(),
            choices=RELIABILITIES,
            description="Whether lost messages are sent again.",
            fixed=True,
        ),
        Param(
            name=f"{end}.depth",
            default=profile.depth,
            unit="messages",
            low=1,
            high=100_000,
            description="How many of the newest may wait.",
            fixed=True,
        ),
        Param(
            name=f"{end}.deadline",
            default=profile.deadline.nanoseconds,
            unit="ns",
            low=0,
            description="Longest time between two messages, a longer one is counted; 0: any.",
            fixed=True,
        ),
    ]
    if publisher:
        made.append(
            Param(
                name=f"{end}.lifespan",
                default=profile.lifespan.nanoseconds,
                unit="ns",
                low=0,
                description="Age from which on a message is not delivered any more; 0: any.",
                fixed=True,
            )
        )
    return tuple(made)


class Endpoints:
    """
    Makes publishers and subscriptions.

    Endpoints of others that do not suit their quality of service are shown in diagnostics, for as long as
    they are there: who offers what, who asks for what, and what to do.
    """

    def __init__(self, node: Node, parameters: Parameters, monitor: Monitor) -> None:
        """
        Serve a node.

        Args:
            node: whose endpoints they will be.
            parameters: of the node.
            monitor: for mismatches and missed deadlines.
        """
        self._node = node
        self._parameters = parameters
        self._monitor = monitor
        self._suspects: dict[tuple[str, bool], str] = {}
        self._declared: set[str] = set()

    def publisher(self, kind: Any, topic: str, profile: QoSProfile) -> Publisher[Any]:
        """
        Make a publisher.

        Raises:
            ConfigError: a parameter of its quality of service has a wrong value.
        """
        name, profile = self._configure(topic, profile, publisher=True)
        events = PublisherEventCallbacks(
            deadline=self._late(name, profile), incompatible_qos=self._suspect(name, publisher=True)
        )
        return self._node.create_publisher(kind, topic, profile, event_callbacks=events)

    def subscription(
        self, kind: Any, topic: str, callback: Callable[[Any], None], profile: QoSProfile
    ) -> Subscription[Any]:
        """
        Make a subscription.

        Raises:
            ConfigError: a parameter of its quality of service has a wrong value.
        """
        name, profile = self._configure(topic, profile, publisher=False)
        events = SubscriptionEventCallbacks(
            deadline=self._late(name, profile), incompatible_qos=self._suspect(name, publisher=False)
        )
        return self._node.create_subscription(kind, topic, callback, profile, event_callbacks=events)

    def examine(self) -> None:
        """
        Say what is wrong with those that did not suit, as long as they are there.

        To be called now and then: the middleware tells of them before the graph knows who they are, and
        does not tell when they have gone.
        """
        for (topic, publisher), known in self._suspects.items():
            wrong = " ".join(_mismatches(self._node, topic, publisher=publisher))
            if wrong == known:
                continue
            self._suspects[topic, publisher] = wrong
            key = f"qos.{_kind(publisher)}.{topic}"
            if wrong:
                # Nothing comes to this node, or only not to somebody else.
                level = DiagnosticStatus.WARN if publisher else DiagnosticStatus.ERROR
                self._monitor.stand(key, wrong, level)
                self._node.get_logger().warning(wrong)
            else:
                self._monitor.clear(key)

    def forget(self) -> None:
        """Take note that the endpoints are gone."""
        for topic, publisher in self._suspects:
            self._monitor.clear(f"qos.{_kind(publisher)}.{topic}")
        self._suspects.clear()
        # Other endpoints, or other defaults, may come next time.
        self._parameters.undeclare(self._declared)
        self._declared.clear()

    def _configure(self, topic: str, profile: QoSProfile, *, publisher: bool) -> tuple[str, QoSProfile]:
        """Return the topic's full name, and the profile with what the parameters say."""
        name = self._node.resolve_topic_name(topic)
        table = overrides(name, profile, publisher=publisher)
        new = [param for param in table if param.name not in self._declared]
        self._parameters.declare(new)
        self._declared |= {param.name for param in new}
        values = {
            param.name.rpartition(".")[2]: self._node.get_parameter(param.name).value for param in table
        }
        return name, QoSProfile(
            history=profile.history,
            depth=values["depth"],
            reliability=ReliabilityPolicy[values["reliability"].upper()],
            durability=profile.durability,
            deadline=Duration(nanoseconds=values["deadline"]),
            lifespan=Duration(nanoseconds=values.get("lifespan", 0)),
        )

    def _suspect(self, topic: str, *, publisher: bool) -> Callable[[Any], None]:
        def suspect(_: Any) -> None:
            self._suspects.setdefault((topic, publisher), "")

        return suspect

    def _late(self, topic: str, profile: QoSProfile) -> Callable[[Any], None] | None:
        if not profile.deadline.nanoseconds:
            return None

        def late(_: Any) -> None:
            self._monitor.fault("missed.qos_deadline", f"{topic}: no message within its deadline")

        return late


def _kind(publisher: bool) -> str:
    return "publisher" if publisher else "subscription"


def _mismatches(node: Node, topic: str, *, publisher: bool) -> Iterator[str]:
    """Say for each pair of endpoints of a topic, one of them the node's, what keeps them apart."""
    me = node.get_fully_qualified_name()
    for offering in node.get_publishers_info_by_topic(topic):
        for asking in node.get_subscriptions_info_by_topic(topic):
            if me != _name(offering if publisher else asking):
                continue
            for policy in POLICIES:
                offered, asked = (getattr(end.qos_profile, policy) for end in (offering, asking))
                if _suits(policy, offered, asked):
                    continue
                parameter = f"qos_overrides.{topic}.{_kind(publisher)}.{policy}"
                remedy = "change one of them"
                if node.has_parameter(parameter):
                    suiting = _value(asked if publisher else offered)
                    remedy = f"start {me} with -p {parameter}:={suiting}, or change the other"
                yield (
                    f"{topic}: {_name(offering)} offers {policy} {_show(offered)}, {_name(asking)} asks for "
                    f"{_show(asked)}: no message passes between them; {remedy}."
                )


def _suits(policy: str, offered: Any, asked: Any) -> bool:
    """Whether one policy alone keeps nobody apart, by the middleware's own rules."""
    offer, request = (QoSProfile(depth=1, **{policy: value}) for value in (offered, asked))
    return qos_check_compatible(offer, request)[0] != QoSCompatibility.ERROR


def _name(end: TopicEndpointInfo) -> str:
    return f"{end.node_namespace.rstrip('/')}/{end.node_name}"


def _value(policy: Any) -> str:
    """Write a policy as its parameter has it."""
    return str(policy.nanoseconds) if isinstance(policy, Duration) else policy.name.lower()


def _show(policy: Any) -> str:
    return f"of {policy.nanoseconds * 1e-9:g} s" if isinstance(policy, Duration) else policy.name.lower()
