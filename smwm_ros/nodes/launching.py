"""The stacks for ``ros2 launch``; imported by the launch files alone, as it needs launch and launch_ros."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction, Shutdown, TimerAction
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
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
from smwm_ros.stack.supervisor import GRACE

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
        enter = _entrance(context)
        return [_node(spec, enter, count(1)) for spec in describe(stack, *parse_settings(settings))]

    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in explain_arguments(source, stack)
            ),
            OpaqueFunction(function=start),
        ]
    )


def _entrance(context: LaunchContext) -> Callable[[LaunchContext], None]:
    """Return what brings back the namespace, the remaps and so on of the group that a launch file is in."""
    configurations, environment = dict(context.launch_configurations), dict(context.environment)

    def enter(context: LaunchContext) -> None:
        context.launch_configurations.update(configurations)
        context.environment.update(environment)

    return enter


def _node(spec: ProcessSpec, enter: Callable[[LaunchContext], None], ends: Iterator[int]) -> Node:
    """
    Return a node that is started again when it ends.

    Args:
        spec: the process.
        enter: brings back the group that it belongs to.
        ends: counts its ends.
    """
    final = Shutdown(reason=f"{spec.name} ended")
    # launch's own way starts the same command again, and cannot tell it anything else.
    respawn = spec.restart and not spec.again

    def on_exit(event: ProcessExited, context: LaunchContext) -> Shutdown | TimerAction | None:
        if next(ends) > RestartPolicy.most:
            return final
        if respawn or context.is_shutdown:
            return None
        again = GroupAction([OpaqueFunction(function=enter), _node(spec.after_death(), enter, ends)])
        return TimerAction(period=RESPAWN_DELAY, actions=[again])

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
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY,
        respawn_max_retries=RestartPolicy.most,
        on_exit=on_exit if spec.restart else final,
        sigterm_timeout=LaunchConfiguration("sigterm_timeout", default=str(GRACE[0][1] + spec.settling)),
    )
