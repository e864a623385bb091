"""`smwm bag`: what a bag holds, and making a damaged one whole."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, progress_bar, show_result

app = typer.Typer(help="Look into bags, and mend them.", no_args_is_help=True)

Bag = Annotated[Path, typer.Argument(help="A bag's folder, or an .mcap or .db3 file.")]


@app.command()
def info(
    bag: Bag,
    check: Annotated[bool, typer.Option("--check", help="Read all of it and verify every checksum.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what a bag holds, and whether it is whole."""
    from smwm_ros.data.bags.summary import summarise

    with console.status("reading ..."):
        found = summarise(bag, check=check)
    if as_json:
        show_result(found, as_json)
        return
    topics = Table("topic", "type", "messages", "Hz", "offered")
    for name, topic in found["topics"].items():
        offered = "; ".join(topic["qos"])
        topics.add_row(name, topic["type"], str(topic["messages"]), f"{topic['rate_hz']:.1f}", offered)
    show_result(_readable(found), as_json, "smwm bag info")
    console.print(topics)
    _show_faults(found["losses"], found["notes"])


@app.command()
def recover(
    bag: Bag,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option("--output", "-o", help="Folder of the new bag; by default in the old one's place."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a bag that was cut off or damaged whole again; the damaged one is kept."""
    from smwm_ros.data.bags.recover import recover as run

    with progress_bar() as bar:
        shown = bar.add_task("keeping messages", total=None)
        made = run(bag, output, progress=lambda done, total: bar.update(shown, completed=done, total=total))
    if as_json:
        show_result(made.to_json(), as_json)
        return
    _show_faults(map(str, made.losses), made.notes)
    if not made.original:
        console.print(f"{escape(made.path)} is whole: nothing was done", soft_wrap=True)
        return
    kept = ", ".join(f"{count} of {topic}" for topic, count in made.topics.items())
    state = "damaged" if made.losses or made.notes else "old"
    console.print(
        f"{escape(made.path)}: kept {made.messages} messages, {made.seconds:.2f} s: {escape(kept)}.\n"
        f"The {state} bag is in {escape(made.original)}; delete it when you no longer need it.",
        soft_wrap=True,
    )


def _readable(found: dict[str, Any]) -> dict[str, Any]:
    begun = datetime.fromtimestamp(found["start_ns"] / 1e9, tz=timezone.utc)
    return {
        "bag": found["path"],
        "state": "whole" if found["whole"] else "not whole, see below",
        "storage": " ".join(filter(None, (found["storage"], found["compression"]))),
        "size": f"{found['bytes'] / 1e6:.2f} MB",
        "begun": begun.isoformat(sep=" ", timespec="seconds"),
        "seconds": found["seconds"],
        "messages": found["messages"],
        "contract": found["contract"] or "none",
        **({"custom data": found["custom_data"]} if found["custom_data"] else {}),
        "files": {name: f"{size / 1e6:.2f} MB" for name, size in found["files"].items()},
    }


def _show_faults(losses: Any, notes: Any) -> None:
    for loss in losses:
        console.print(f"[bold red]lost:[/] {escape(loss)}", soft_wrap=True)
    for note in notes:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
