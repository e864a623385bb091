"""Does ROS 2 work here at all? A message sent to oneself."""

from __future__ import annotations

import importlib
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import String

from smwm_ros.errors import StackError

TIMEOUT = 5.0


def check_middleware() -> str:
    """
    Send a message to oneself through the middleware.

    Returns:
        What works, for people.

    Raises:
        StackError: the message did not come back.
    """
    context = rclpy.Context()
    rclpy.init(context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = rclpy.create_node("smwm_doctor", context=context, enable_rosout=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    came: list[String] = []
    node.create_subscription(String, "~/loopback", came.append, 1)
    publisher = node.create_publisher(String, "~/loopback", 1)
    domain = context.get_domain_id()
    try:
        end = time.monotonic() + TIMEOUT
        while not came and time.monotonic() < end:
            publisher.publish(String(data="hello"))
            executor.spin_once(0.05)
    finally:
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    if not came:
        raise StackError(
            f"a message sent to oneself through {get_rmw_implementation_identifier()} did not come back "
            f"within {TIMEOUT:.0f} s. Is the network up (`lo` at least), and multicast allowed on it?"
        )
    return f"{get_rmw_implementation_identifier()}, domain {domain}"


def check_messages() -> str:
    """
    Import the package's own messages.

    Raises:
        StackError: they are not built.
    """
    try:
        for kind in ("msg", "srv", "action"):
            importlib.import_module(f"smwm_ros.{kind}")
    except ImportError as error:
        raise StackError(f"{error}. Build them: 'pip install -e .' or 'colcon build'.") from error
    return "built"
