"""Options that several commands share, so that they read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last thing on stdout.")]
Robot = Annotated[str, typer.Option("--task", help="Robot: the name of a shipped contract, or a YAML file.")]
Checkpoint = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it, and Python 3.10's typing must understand it
    typer.Option(help="Trained world model; by default the one shipped for the robot.", show_default=False),
]
Model = Annotated[
    str, typer.Option(help="Preset of the shipped world model to use; --checkpoint goes before it.")
]
"""The default is ``smwm``; the path is ``checkpoint or checkpoint_path(contract.name, model)``."""
Distractors = Annotated[
    bool, typer.Option("--distractors", help="Show things that move without the robot's doing.")
]
