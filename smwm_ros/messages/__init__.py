"""
Between ROS messages and the package's own values: numpy arrays, int nanoseconds, small dataclasses.

Decoding raises DataError on what does not fit.
"""

from smwm_ros.messages.commands import (
    CommandEncoder,
    command_stamp,
    command_type,
    decode_command,
    encode_command,
)
from smwm_ros.messages.images import decode_goal, decode_image, encode_image, image_type
from smwm_ros.messages.joints import joint_positions
from smwm_ros.messages.markers import markers_to_message
from smwm_ros.messages.own import (
    applied_from_message,
    applied_to_message,
    belief_from_message,
    belief_to_message,
    latent_from_message,
    latent_to_message,
    plan_from_message,
    plan_to_message,
)
from smwm_ros.messages.stamps import from_time, header, to_duration, to_time

__all__ = [
    "CommandEncoder",
    "applied_from_message",
    "applied_to_message",
    "belief_from_message",
    "belief_to_message",
    "command_stamp",
    "command_type",
    "decode_command",
    "decode_goal",
    "decode_image",
    "encode_command",
    "encode_image",
    "from_time",
    "header",
    "image_type",
    "joint_positions",
    "latent_from_message",
    "latent_to_message",
    "markers_to_message",
    "plan_from_message",
    "plan_to_message",
    "to_duration",
    "to_time",
]
