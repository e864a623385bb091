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
LATCHED = _profile(ReliabilityPolicy.RELIABLE, 1, latched=True)
"""Planner status: a late subscriber gets the newest one."""
CLOCK = _profile(ReliabilityPolicy.BEST_EFFORT, 1)
"""/clock, as rclpy subscribes to it."""


def sensor(reliability: str) -> QoSProfile:
    """Return the profile of camera and joint topics; ``best_effort`` or ``reliable``."""
    return _profile(ReliabilityPolicy[reliability.upper()], 1)
