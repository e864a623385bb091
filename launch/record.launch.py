"""
A simulated robot that an exploration policy moves, to record training data.

`ros2 launch smwm_ros record.launch.py --show-args` lists the arguments; they stand in config/stack.yaml.
"""

from launch import LaunchDescription

from smwm_ros.nodes.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    """Return the description that `ros2 launch` asks for."""
    return launch_description("record")
