"""The stacks for ``ros2 launch``; imported by the launch files alone, as it needs launch and launch_ros."""

from __future__ import annotations

from itertools import count

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from smwm_ros.stack.description import (
    ProcessSpec,
    StackName,
    describe,
    explain_arguments,
    load_stack_file,
    parse_settings,
)
from smwm_ros.stack.restarts import RestartPolicy

RESPAWN_DELAY = 2.0
"""Seconds."""


def launch_description(stack: StackName) -> LaunchDescription:
    """
    Return a launch description of a stack, with its arguments declared.

    ``node.parameter:=value`` on the command line sets any other parameter of a node. A node that ends is
    started again, unless the description of the stacks forbids it or it was so too often; then the launch
    ends, as with `smwm up`. That one waits ever longer between restarts, launch can only wait the same.
    """
    source = load_stack_file()

    def start(context: LaunchContext) -> list[Node]:
        given = context.launch_configurations.items()
        settings = [
            (name, text) for name, text in given if text and (name in source.arguments or "." in name)
        ]
        return [_node(spec) for spec in describe(stack, *parse_settings(settings))]

    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in explain_arguments(source, stack)
            ),
            OpaqueFunction(function=start),
        ]
    )


def _node(spec: ProcessSpec) -> Node:
    final = Shutdown(reason=f"{spec.name} ended")
    ends = count(1)

    def on_exit(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
        return final if next(ends) > RestartPolicy.most else None

    return Node(
        package="smwm_ros",
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        # With the type made plain: launch_ros reads bare text as YAML, and a path called 2024 as a number.
        parameters=[
            {key: ParameterValue(value, value_type=type(value)) for key, value in spec.parameters.items()}
        ],
        remappings=list(spec.remappings.items()),
        ros_arguments=["--enclave", spec.enclave] if spec.enclave else None,
        additional_env=dict(spec.environment),
        output="screen",
        respawn=spec.restart,
        respawn_delay=RESPAWN_DELAY,
        respawn_max_retries=RestartPolicy.most,
        on_exit=on_exit if spec.restart else final,
    )
