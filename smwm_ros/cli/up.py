"""`smwm up`: start a stack and keep it running; what `ros2 launch` does on an installed ROS 2."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape
from rich.text import Text

from smwm_ros.cli.output import console
from smwm_ros.errors import ConfigError
from smwm_ros.stack.restarts import NEVER, RestartPolicy

if TYPE_CHECKING:
    from smwm_ros.stack.supervisor import Supervisor

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "white")


class Stack(str, Enum):
    """The stacks of config/stack.yaml."""

    sim = "sim"
    robot = "robot"
    record = "record"
    explore = "explore"
    perceive = "perceive"
    guard = "guard"


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
    restart: Annotated[
        bool, typer.Option(help="Start a node again that died; else its death ends all.")
    ] = True,
    restarts: Annotated[
        int, typer.Option(min=1, help="Restarts of one node, with less than a minute of life between.")
    ] = RestartPolicy.most,
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

    def show(name: str, text: str, style: str = "") -> None:
        console.print(Text.assemble((f"{name:>12}", colours[name]), " ", (text, style)), soft_wrap=True)

    with Supervisor(
        specs,
        logs=logs,
        restarts=RestartPolicy(most=restarts) if restart else NEVER,
        tell=lambda name, event: show(name, event, "bold"),
    ) as running:
        console.print(f"starting the {stack.value} stack; log files are in {running.logs}")
        began = time.monotonic()
        running.wait_ready(progress=lambda name: show(name, "is ready", "bold"))
        console.print(f"up after {time.monotonic() - began:.1f} s; Ctrl-C ends it, a second one kills it")
        try:
            follow(running, show)
        finally:
            console.print(f"ending {', '.join(running.processes)} ...")


def follow(running: Supervisor, show: Callable[[str, str], None]) -> None:
    """Show what the nodes say, and look after them, until one may not be started again."""
    for name, line in running.follow():
        if name:
            show(name, line)
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
