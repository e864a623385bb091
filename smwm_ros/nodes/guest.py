"""A node that joins the graph of a robot from outside, to look on or to ask."""

from __future__ import annotations

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from typing_extensions import Self


class Guest:
    """
    A node in a context of its own, which offers nothing and logs to nobody; use it as a context manager.

    The process may have other nodes, or none: its default context is left alone, and so are its signals.
    """

    def __init__(self, name: str, namespace: str = "") -> None:
        """
        Join the graph.

        Args:
            name: of the node.
            namespace: of the robot.
        """
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self.node = Node(
            name,
            namespace=namespace or None,
            context=self._context,
            enable_rosout=False,
            start_parameter_services=False,
        )
        self.executor = SingleThreadedExecutor(context=self._context)
        self.executor.add_node(self.node)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the graph."""
        self.executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()
