"""Does ROS 2 work here at all? A message sent to oneself."""

from __future__ import annotations

import importlib
import time

from rclpy.utilities import get_rmw_implementation_identifier
from std_msgs.msg import String

from smwm_ros.errors import StackError
from smwm_ros.nodes.guest import Guest

TIMEOUT = 5.0


def check_middleware(namespace: str = "") -> str:
    """
    Send a message to oneself through the middleware.

    Args:
        namespace: of the robot: where this node may be, if there is an SROS2 policy.

    Returns:
        What works, for people.

    Raises:
        StackError: the message did not come back.
    """
    came: list[String] = []
    with Guest("smwm_doctor", namespace) as guest:
        guest.node.create_subscription(String, "~/loopback", came.append, 1)
        publisher = guest.node.create_publisher(String, "~/loopback", 1)
        domain = guest.node.context.get_domain_id()
        end = time.monotonic() + TIMEOUT
        while not came and time.monotonic() < end:
            publisher.publish(String(data="hello"))
            guest.executor.spin_once(0.05)
    if not came:
        raise StackError(
            f"a message sent to oneself through {get_rmw_implementation_identifier()} did not come back "
            f"within {TIMEOUT:.0f} s"
        )
    return f"{get_rmw_implementation_identifier()}, domain {domain}"


def check_messages() -> str:
    """
    Import the package's own messages.

    Raises:
        ImportError: they are not built.
    """
    for kind in ("msg", "srv", "action"):
        importlib.import_module(f"smwm_ros.{kind}")
    return "built"
