"""Follow what a node reports of itself on /diagnostics, from outside the graph's nodes."""

from __future__ import annotations

import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from typing_extensions import Self


class StatusWatch:
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
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self._node = rclpy.create_node(
            "smwm_watch", context=self._context, enable_rosout=False, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_status, 10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait(self, seconds: float) -> None:
        """Handle messages for some time (steady seconds)."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(left)

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._name:
                self.values = {pair.key: pair.value for pair in status.values}
