"""The quality of service with which a bag's topics are offered when they are played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from smwm_ros.errors import ConfigError
from smwm_ros.validation import parse_value, read_text

RELIABLE_DEPTH = 100
"""Messages kept for slow subscribers of a reliable topic, where the bag does not say how many."""
BEST_EFFORT_DEPTH = 10
UNSPECIFIED = QosTime(0, 0)
"""No deadline, no end of life, no lease."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Span(_Part):
    """A duration."""

    sec: int = Field(default=0, ge=0)
    nsec: int = Field(default=0, ge=0, lt=1_000_000_000)


class QosOverride(_Part):
    """What to offer instead of what the bag says; what is absent stays as in the bag."""

    history: Literal["keep_last", "keep_all", "system_default"] | None = None
    depth: int | None = Field(default=None, ge=0, le=1_000_000)
    reliability: Literal["reliable", "best_effort", "system_default"] | None = None
    durability: Literal["volatile", "transient_local", "system_default"] | None = None
    deadline: Span | None = None
    lifespan: Span | None = None
    liveliness: Literal["automatic", "manual_by_topic", "system_default"] | None = None
    liveliness_lease_duration: Span | None = None
    avoid_ros_namespace_conventions: bool | None = None


Overrides = Mapping[str, QosOverride]
"""By the topic's full name."""


def load_overrides(path: Path | str) -> Overrides:
    """
    Read a file of overrides, of the form that ``ros2 bag play --qos-profile-overrides-path`` takes.

    Raises:
        ConfigError: unreadable or not of that form; names the file, the topic and the key.
    """
    try:
        text = read_text(Path(path), "the QoS overrides", ConfigError)
        content = parse_value(text, str(path), ConfigError) or {}
        return TypeAdapter(dict[str, QosOverride]).validate_python(content)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)
        )
        raise ConfigError(
            f"{path}: not a file of QoS overrides: {wrong}. "
            "Expected for each topic a mapping such as {reliability: reliable, depth: 10}"
        ) from error


def to_offer(recorded: Sequence[Qos], override: QosOverride | None = None, *, reliable: bool = False) -> Qos:
    """
    Choose what to offer for a topic.

    Args:
        recorded: what its publishers offered. Where they differ, what satisfies all their subscribers:
            reliable if one was, transient local if one was, and no promises of time.
        override: what to offer instead.
        reliable: offer reliably even where the bag and the override do not.
    """
    qos = _merged(recorded)
    if override is not None:
        qos = qos._replace(**_changes(override))
    if reliable:
        qos = qos._replace(reliability=QosReliability.RELIABLE)
    if qos.history not in (QosHistory.KEEP_LAST, QosHistory.KEEP_ALL):
        # So it is in most bags: the history is not part of what publishers and subscribers tell each other.
        qos = qos._replace(history=QosHistory.KEEP_LAST)
    if qos.depth == 0:
        best_effort = qos.reliability is QosReliability.BEST_EFFORT
        qos = qos._replace(depth=BEST_EFFORT_DEPTH if best_effort else RELIABLE_DEPTH)
    return qos


def _merged(recorded: Sequence[Qos]) -> Qos:
    """Return what satisfies whoever any of the recorded offers satisfied."""
    if recorded and all(qos == recorded[0] for qos in recorded):
        qos = recorded[0]
        return qos._replace(
            reliability=_known(qos.reliability, QosReliability.RELIABLE),
            durability=_known(qos.durability, QosDurability.VOLATILE),
            liveliness=_known(qos.liveliness, QosLiveliness.AUTOMATIC),
        )
    best_effort = bool(recorded) and all(qos.reliability is QosReliability.BEST_EFFORT for qos in recorded)
    latched = any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in recorded)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=max((qos.depth for qos in recorded), default=0),
        reliability=QosReliability.BEST_EFFORT if best_effort else QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=UNSPECIFIED,
        lifespan=UNSPECIFIED,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=UNSPECIFIED,
        avoid_ros_namespace_conventions=any(qos.avoid_ros_namespace_conventions for qos in recorded),
    )


def _known(policy: Any, otherwise: Any) -> Any:
    """Return a policy that a publisher can offer: some recorders note that they do not know."""
    return otherwise if policy.name in ("UNKNOWN", "BEST_AVAILABLE", "MANUAL_BY_NODE") else policy


def _changes(override: QosOverride) -> dict[str, Any]:
    policies = {
        "history": QosHistory,
        "reliability": QosReliability,
        "durability": QosDurability,
        "liveliness": QosLiveliness,
    }
    changes: dict[str, Any] = {}
    for name in override.model_fields_set:
        value = getattr(override, name)
        if value is None:
            continue
        if name in policies:
            value = policies[name][value.upper()]
        elif isinstance(value, Span):
            value = QosTime(value.sec, value.nsec)
        changes[name] = value
    return changes
