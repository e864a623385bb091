"""`smwm up`: start a stack and keep it running; what `ros2 launch` does on an installed ROS 2."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from smwm_ros.cli.output import console
from smwm_ros.errors import ConfigError

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "white")


class Stack(str, Enum):
    """The stacks of config/stack.yaml."""

    sim = "sim"
    robot = "robot"
    record = "record"
    explore = "explore"
    perceive = "perceive"


def up(
    stack: Annotated[Stack, typer.Argument(help="Which one.")] = Stack.sim,
    settings: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Argument(
            metavar="NAME:=VALUE ...", help="Arguments as for ros2 launch, or NODE.PARAMETER:=VALUE."
        ),
    ] = None,
    show_args: Annotated[bool, typer.Option("--show-args", help="List the arguments and leave.")] = False,
    logs: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Directory for the log files.", show_default="a temporary one"),
    ] = None,
) -> None:
    """Start the nodes of a simulated or real robot, and keep them running until Ctrl-C."""
    from smwm_ros.stack.description import describe, explain_arguments, load_stack_file, parse_settings
    from smwm_ros.stack.supervisor import Supervisor

    if show_args:
        for name, default, text in explain_arguments(load_stack_file(), stack.value):
            console.print(f"[bold]{name}[/]:={escape(default)}\n    {text}", soft_wrap=True)
        return
    specs = describe(stack.value, *parse_settings(split_setting(setting) for setting in settings or []))
    colours = {spec.name: COLOURS[i % len(COLOURS)] for i, spec in enumerate(specs)}
    with Supervisor(specs, logs=logs) as running:
        console.print(f"starting the {stack.value} stack; log files are in {running.logs}")
        began = time.monotonic()
        running.wait_ready(progress=lambda name: console.print(f"[{colours[name]}]{name:>12}[/] is ready"))
        console.print(f"up after {time.monotonic() - began:.1f} s; Ctrl-C ends it")
        for name, line in running.follow():
            if name:
                console.print(f"[{colours[name]}]{name:>12}[/] {escape(line)}", soft_wrap=True)
            else:
                running.check()
                time.sleep(0.1)


def split_setting(setting: str) -> tuple[str, str]:
    """
    Split ``name:=value``.

    Raises:
        ConfigError: another form.
    """
    name, sign, value = setting.partition(":=")
    if not (name and sign):
        raise ConfigError(
            f"{setting!r}: expected NAME:=VALUE, for example lock_step:=true or planner.seed:=3"
        )
    return name, value
