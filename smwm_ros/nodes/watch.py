"""Follow what a node reports of itself on /diagnostics, from outside the graph's nodes."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray

from smwm_ros.nodes.guest import Guest


class StatusWatch(Guest):
    """The newest status of one node; use it as a context manager. Messages are handled in ``wait``."""

    def __init__(self, node: str) -> None:
        """
        Join the graph.

        Args:
            node: full name of the node to watch.
        """
        self.values: dict[str, str] = {}
        """The key/value pairs of the newest status; empty before the first."""
        self._name = node
        super().__init__("smwm_watch")
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)

    def wait(self, seconds: float) -> None:
        """Handle messages for some time (steady seconds)."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(left)

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._name:
                self.values = {pair.key: pair.value for pair in status.values}
