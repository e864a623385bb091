"""
The safety gate alone: the commands of another node, on `unsafe_command`, pass through it to the robot.

`ros2 launch smwm_ros guard.launch.py --show-args` lists the arguments; they stand in config/stack.yaml.
"""

from launch import LaunchDescription

from smwm_ros.nodes.launching import launch_description


def generate_launch_description() -> LaunchDescription:
    """Return the description that `ros2 launch` asks for."""
    return launch_description("guard")
