"""`smwm play`: a bag's messages on the wire again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, show_result

if TYPE_CHECKING:
    from smwm_ros.nodes.player_node import PlayerNode


def play(
    bag: Annotated[Path, typer.Argument(help="A bag's folder, or an .mcap or .db3 file.")],
    rate: Annotated[float, typer.Option(min=0.001, max=1000.0, help="Speed; 2 is twice as fast.")] = 1.0,
    start: Annotated[float, typer.Option(min=0.0, help="Seconds of the bag to leave out.")] = 0.0,
    duration: Annotated[float, typer.Option(min=0.0, help="Seconds of the bag to play; 0: all.")] = 0.0,
    by_stamps: Annotated[
        bool,
        typer.Option("--by-stamps", help="Go by the messages' stamps, as for bags recorded in lock-step."),
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end, until Ctrl-C.")] = False,
    clock: Annotated[
        float,
        typer.Option(min=0.0, max=10_000.0, metavar="HZ", help="Publish the bag's time on /clock."),
    ] = 0.0,
    topics: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Play only this topic, or those like it (/camera/*); may be given again."),
    ] = None,
    without: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Leave this topic out, or those like it; may be given again."),
    ] = None,
    qos: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="YAML file with QoS overrides, as for ros2 bag play.", show_default=False),
    ] = None,
    reliable: Annotated[
        bool, typer.Option("--reliable", help="Offer all topics reliably, whatever the bag says.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait, at most, for a subscriber of each topic.")
    ] = 1.0,
    namespace: Annotated[str, typer.Option(help="Put before every topic's name.")] = "",
    remap: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(metavar="FROM:=TO", help="Publish a topic under another name; may be given again."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish a bag's messages with their own timing, unchanged, under their recorded QoS."""
    from rich.progress import BarColumn, Progress, TextColumn

    from smwm_ros.nodes.playing import play as run

    parameters = {
        "bag": str(bag),
        "rate": rate,
        "start": start,
        "duration": duration,
        "by_stamps": by_stamps,
        "loop": loop,
        "clock": clock,
        "topics": " ".join(topics or []),
        "without": " ".join(without or []),
        "qos": str(qos or ""),
        "reliable": reliable,
        "wait": wait,
    }
    arguments = [text for rule in remap or [] for text in ("-r", rule)]
    if namespace:
        arguments += ["-r", f"__ns:=/{namespace.strip('/')}"]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[place]}"),
    )
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("waiting for subscribers", total=None, place="")
        noted = False

        def look(node: PlayerNode) -> None:
            nonlocal noted
            if not noted:
                for note in node.notes:
                    console.print(f"[yellow]{escape(str(bag))}:[/] {escape(note)}", soft_wrap=True)
                noted = True
            playback = node.playback
            if playback.rounds:
                what = f"playing, round {playback.rounds}" if loop else "playing"
                what = "paused" if node.paused else what
                at, length = playback.position, playback.length
                place = f"{at:.1f} of {length:.1f} s"
                bar.update(shown, description=what, completed=at, total=length, place=place)

        result = run(parameters, arguments, look)
        if not result["interrupted"]:
            bar.update(shown, completed=1, total=1, place="")
    show_result(result, as_json, "smwm play")
    if result["interrupted"]:
        raise KeyboardInterrupt
