"""What was seen of a running graph, as plain values: nodes/graph_watch.py looks, inspection.py judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """One publisher or subscriber of a topic."""

    node: str
    """Full name."""
    type: str
    """As sensor_msgs/msg/Image."""
    qos: str = "reliable, volatile"
    """For people."""


@dataclass(frozen=True)
class Topic:
    """Who is at its two ends."""

    publishers: tuple[Endpoint, ...] = ()
    subscribers: tuple[Endpoint, ...] = ()
    mismatches: tuple[str, ...] = ()
    """Pairs whose quality of service does not fit, each with both names and the reason."""


@dataclass(frozen=True)
class Sample:
    """One message of a sensor topic."""

    stamp: int
    """ns"""
    age: float
    """Seconds, at its arrival, by the clock that the nodes go by; negative: from the future."""
    content: str
    """What should be the same in each of them: an image's encoding and size, joint names."""
    names: tuple[str, ...] = ()
    """Of joints."""


@dataclass(frozen=True)
class Report:
    """A node's newest word on /diagnostics."""

    level: int
    """0: ok, 1: warning, 2: error, 3: stale."""
    message: str


@dataclass(frozen=True)
class Graph:
    """All that was seen, in one ROS domain, for some seconds. Topics go by their full names."""

    domain: int
    seconds: float
    topics: Mapping[str, Topic] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    """Full names; a name twice is two nodes."""
    states: Mapping[str, str] = field(default_factory=dict)
    """Lifecycle state (``active``) of the nodes that told it."""
    sim_time: Mapping[str, bool] = field(default_factory=dict)
    """Whether a node goes by /clock, of those that told it."""
    clocks: tuple[str, ...] = ()
    """Publishers of /clock, or of the namespace's own."""
    time_stands: bool = False
    """The nodes go by /clock, and it did not move: paused, or in lock-step until a command comes."""
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By node."""
    images: tuple[Sample, ...] = ()
    joints: tuple[Sample, ...] = ()

    def topic(self, name: str) -> Topic:
        """Return a topic; an empty one if nobody has it."""
        return self.topics.get(name, Topic())
