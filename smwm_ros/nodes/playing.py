"""The player inside the command line: one process, one Ctrl-C, and the result at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter

from smwm_ros.errors import ConfigError, DataError
from smwm_ros.nodes.player_node import PlayerNode
from smwm_ros.stack.transport import large_messages

LOOK = 0.1
"""Seconds between two looks at how far it has come, and the longest that a Ctrl-C waits."""


def play(
    parameters: Mapping[str, Any], ros_arguments: Sequence[str], look: Callable[[PlayerNode], None]
) -> dict[str, Any]:
    """
    Play a bag, to its end or until Ctrl-C.

    Args:
        parameters: of the player.
        ros_arguments: what follows ``--ros-args`` on a node's command line, such as remaps.
        look: called now and then with the node, at least once.

    Returns:
        See :meth:`PlayerNode.result`; and ``interrupted``, whether Ctrl-C ended it.

    Raises:
        ConfigError, DataError: a setting or the bag cannot be used, or the bag is damaged.
    """
    os.environ.update(large_messages())
    context = rclpy.Context()
    arguments = ["--ros-args", *ros_arguments]
    try:
        rclpy.init(args=arguments, context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:
        raise ConfigError(f"{' '.join(ros_arguments)}: {error}") from error
    interrupted = False
    executor = SingleThreadedExecutor(context=context)
    node = None
    try:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = PlayerNode("player", context=context, parameter_overrides=overrides)
        node.get_logger().set_level(LoggingSeverity.FATAL)  # the command line says it in its own way
        executor.add_node(node)
        if not node.bring_up():
            raise DataError(node.failure)
        try:
            look(node)  # also where a short bag is over already
            while not node.finished.done():
                executor.spin_once(LOOK)
                look(node)
        except KeyboardInterrupt:
            interrupted = True
        node.stop()
        if node.error is not None:
            raise node.error
        return {**node.result(), "interrupted": interrupted}
    finally:
        if node is not None:
            node.shut_down()
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        context.try_shutdown()
