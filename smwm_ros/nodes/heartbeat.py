"""Whether the nodes that one depends on are alive, told by small messages and judged in steady time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from lifecycle_msgs.msg import State
from rclpy.node import Node

from smwm_ros.nodes.qos import HEARTBEAT
from smwm_ros.nodes.uncalled import Uncalled, never_called

PERIOD = 0.1
"""Seconds from one heartbeat to the next, and between two looks at those of others."""
MISSED = 3
"""
Looks in a row without a heartbeat until a node counts as silent: at most PERIOD * (MISSED + 1) s after it
died. Looks are counted, and not seconds, so that a node that was held up itself accuses nobody.
"""


class Life(Enum):
    """What is known of another node."""

    UNHEARD = "not heard yet"
    ALIVE = "alive"
    SILENT = "silent"
    """Its process has died, is stopped, or its executor hangs."""
    INACTIVE = "inactive"
    """It said so: it was deactivated or ended in good order."""


@dataclass
class Peer:
    """A node that another one depends on."""

    subscription: Any
    life: Life = Life.UNHEARD
    missed: int = field(default=0)

    def look(self) -> Life:
        """Take what has come since the last look."""
        taken = self.subscription.handle.take_message(State, False)
        if taken is not None:
            self.missed = 0
            active = taken[0].id == State.PRIMARY_STATE_ACTIVE
            return Life.ALIVE if active else Life.INACTIVE
        self.missed += 1
        return Life.SILENT if self.life is Life.ALIVE and self.missed >= MISSED else self.life


class Heartbeat:
    """
    Tells that a node is active, ten times a second, and listens to the same from others.

    The topic is ``heartbeat/NAME``, with the name that a node has in this package whatever it is remapped
    to. Heartbeats come from the executor, so that one that hangs is silent, too.
    """

    def __init__(
        self, node: Node, name: str, peers: Sequence[str], noticed: Callable[[str, Life, Life], None]
    ) -> None:
        """
        Make the topics.

        Args:
            node: whose heart it is.
            name: of its topic.
            peers: names of those to listen to.
            noticed: called with a name, what was known of it, and what is known now.
        """
        self._publisher = node.create_publisher(State, f"heartbeat/{name}", HEARTBEAT)
        group = Uncalled()
        self.peers = {
            peer: Peer(
                node.create_subscription(
                    State, f"heartbeat/{peer}", never_called, HEARTBEAT, callback_group=group
                )
            )
            for peer in peers
        }
        self._noticed = noticed

    def tell(self, *, active: bool) -> None:
        """Send one."""
        if active:
            self._publisher.publish(State(id=State.PRIMARY_STATE_ACTIVE, label="active"))
        else:
            self._publisher.publish(State(id=State.PRIMARY_STATE_INACTIVE, label="inactive"))

    def look(self) -> None:
        """Look at the others; to be called each PERIOD."""
        for name, peer in self.peers.items():
            life = peer.look()
            if life is not peer.life:
                before, peer.life = peer.life, life
                self._noticed(name, before, life)
