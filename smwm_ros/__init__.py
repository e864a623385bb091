"""A sensorimotor world model for ROS 2 robots: record, train without rewards, plan to goal images."""

from pkgutil import extend_path

# Run from a checkout, this directory holds no generated code: smwm_ros.msg,
# smwm_ros.srv and smwm_ros.action are then taken from the installed package.
__path__ = extend_path(__path__, __name__)
