"""`smwm ingest`: bags to training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape
from rich.table import Table

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, progress_bar, show_result

if TYPE_CHECKING:
    from smwm_ros.data.ingest.report import IngestReport

MOST_EPISODES = 30
"""Episodes that are listed one by one; of more, the report tells."""


def ingest(
    bags: Annotated[list[Path], typer.Argument(help="Bags, folders that hold bags, or patterns of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Episode store to write (HDF5).")],
    contract: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Robot; by default the one noted in each bag.", show_default=False),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the robot, where a bag holds several.")] = "",
    depth: Annotated[bool, typer.Option("--depth", help="Keep depth images as a column.")] = False,
    jobs: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=1, help="Bags, or images, at a time; by default one per core.", show_default=False),
    ] = None,
    report: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Quality report to write (HTML).", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Align the images of bags with the actions applied, and write the episode store."""
    from smwm_ros.data.ingest.ingest import ingest as run
    from smwm_ros.resources import find_contract

    with progress_bar() as bar:
        shown = bar.add_task("looking at the bags", total=None)
        result = run(
            bags,
            output,
            contract=find_contract(contract) if contract else None,
            namespace=namespace,
            depth=depth,
            jobs=jobs,
            progress=lambda what, done, total: bar.update(
                shown, description=what, completed=done, total=total
            ),
        )
    if report is not None:
        from smwm_ros.evaluation.quality_report import write_quality_report

        write_quality_report(result, report)
    for item in result.bags:
        for note in item.notes:
            console.print(f"[yellow]{escape(item.bag)}:[/] {escape(note)}", soft_wrap=True)
    if result.unchanged:
        console.print(f"nothing has changed: {escape(result.path)} is left as it is", soft_wrap=True)
    content = result.to_json()
    if not as_json:
        console.print(_bags(result))
        if result.total("episodes") <= MOST_EPISODES:
            console.print(_episodes(result))
        content = {name: value for name, value in content.items() if name not in ("bags", "read")}
    show_result(content, as_json, "smwm ingest")


def _bags(result: IngestReport) -> Table:
    table = Table(title="bags")
    for name in ("bag", "ep.", "frames", "Hz", "p99 ms", "dropped", "splits", "known %", "frozen"):
        table.add_column(name, justify="left" if name == "bag" else "right")
    for bag in result.bags:
        table.add_row(
            escape(Path(bag.bag).name),
            *(f"{count}" for count in (bag.episodes, bag.frames)),
            *(f"{value:.4g}" for value in (bag.rate, bag.p99_ms)),
            *(f"{count}" for count in (bag.drops, bag.splits)),
            f"{100 * bag.known:.3g}",
            f"{bag.frozen}",
        )
    return table


def _episodes(result: IngestReport) -> Table:
    table = Table(title="episodes")
    for name in ("", "rows", "Hz", "p50 ms", "p99 ms", "max ms", "frozen"):
        table.add_column(name, justify="right")
    for name in ("outcome", "ended by"):
        table.add_column(name)
    quality = (episode for bag in result.bags for episode in bag.quality)
    for number, episode in enumerate(quality):
        table.add_row(
            *(f"{count}" for count in (number, episode.rows)),
            *(f"{v:.4g}" for v in (episode.rate, episode.p50_ms, episode.p99_ms, episode.max_ms)),
            f"{episode.frozen}",
            escape(" ".join(filter(None, (("", "success", "failure")[episode.outcome], episode.label)))),
            episode.ended,
        )
    return table
