"""Joint states: positions by name."""

from __future__ import annotations

from sensor_msgs.msg import JointState

from smwm_ros.errors import DataError


def joint_positions(message: JointState) -> dict[str, float]:
    """
    Read the positions of a JointState, rad or m, by name; one without positions tells none.

    Raises:
        DataError: another number of positions than of names.
    """
    names, positions = message.name, message.position
    if len(positions) not in (0, len(names)):
        raise DataError(f"joint states: {len(positions)} positions for {len(names)} names")
    return dict(zip(names, positions, strict=False))
