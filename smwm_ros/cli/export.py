"""`smwm export`: episode stores in the formats of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import progress_bar, show_result

FORMATS = ("lewm", "lerobot")


def export(
    store: Annotated[Path, typer.Argument(help="Episode store, as smwm ingest writes it.")],
    output: Annotated[Path, typer.Argument(help="HDF5 file (lewm) or new folder (lerobot) to write.")],
    kind: Annotated[str, typer.Option("--format", help="lewm or lerobot.")],
    as_json: Json = False,
) -> None:
    """Write a store as LeWM's HDF5 (stable-worldmodel), or as a LeRobotDataset v3."""
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.errors import ConfigError

    if kind not in FORMATS:
        raise ConfigError(f"--format {kind}: expected one of {', '.join(FORMATS)}")
    with EpisodeStore(store) as opened, progress_bar() as bar:
        shown = bar.add_task("writing rows", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(shown, completed=done, total=total)

        if kind == "lewm":
            from smwm_ros.data.store.lewm_export import export_lewm

            export_lewm(opened, output, progress)
            result = {"episodes": opened.episodes, "rows": len(opened)}
        else:
            from smwm_ros.data.lerobot.export import export_lerobot

            result = export_lerobot(opened, output, progress)
    show_result({"path": str(output), "format": kind, **result}, as_json, "smwm export")
