"""The QoS profiles of the package's topics."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


NEWEST = _profile(ReliabilityPolicy.RELIABLE, 1)
"""Latent, belief, plan, command: only the newest one matters."""
EVERY = _profile(ReliabilityPolicy.RELIABLE, 100)
"""Applied actions: each one is part of the history."""
HEARTBEAT = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
"""Heartbeats: the next one makes up for one that was lost, and nobody waits for a reader that is stopped."""
LATCHED = _profile(ReliabilityPolicy.RELIABLE, 1, latched=True)
"""Planner status: a late subscriber gets the newest one."""
CLOCK = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
"""/clock, as rclpy subscribes to it."""


def sensor(reliability: str) -> QoSProfile:
    """Return the profile with which camera and joint topics are read: the newest message only."""
    return _profile(ReliabilityPolicy[reliability.upper()], 1)


def sensor_source(reliability: str) -> QoSProfile:
    """
    Return the profile with which a simulated robot publishes them.

    A reliable writer keeps what its readers have yet to acknowledge: with a history of one, the next
    image would push out the one that a busy recorder is still waiting for.
    """
    reliable = reliability == "reliable"
    return _profile(ReliabilityPolicy[reliability.upper()], 100 if reliable else 1)
