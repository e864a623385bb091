"""What the commands show: everything for people on stderr, one JSON object for machines on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """Return a progress bar for work that takes longer than two seconds; a context manager."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def show_result(result: Mapping[str, Any], as_json: bool, title: str = "") -> None:
    """
    Print the result of a command, last of all.

    Args:
        result: what was found; only what JSON knows, and no NaN.
        as_json: one JSON object on stdout instead of a table on stderr.
        title: of the table.
    """
    if as_json:
        print(json.dumps(result, allow_nan=False), file=sys.stdout, flush=True)
        return
    table = Table(title=title or None, show_header=False)
    for key, value in result.items():
        table.add_row(key, _text(value))
    console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return str(value)
