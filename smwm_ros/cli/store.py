"""`smwm data`: what is in episode stores, whether they are whole, and new ones out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, progress_bar, show_result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from smwm_ros.data.store.reader import EpisodeStore

app = typer.Typer(help="Look at, check and rearrange episode stores.", no_args_is_help=True)

DAMAGED = 2
Store = Annotated[Path, typer.Argument(help="Episode store, as smwm ingest writes it.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Episode store to write.")]


@app.command()
def info(
    store: Store,
    episodes: Annotated[bool, typer.Option("--episodes", help="List every episode too.")] = False,
    as_json: Json = False,
) -> None:
    """Rows, episodes, columns, robot, outcomes and origins of a store."""
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.data.store.summary import list_episodes, summarise

    with EpisodeStore(store) as opened:
        found = summarise(opened)
        listed = list_episodes(opened) if episodes else []
    if as_json:
        show_result(found | ({"list": listed} if episodes else {}), True)
        return
    found["columns"] = {name: _column(column) for name, column in found["columns"].items()}
    show_result(
        {name: value for name, value in found.items() if value not in ({}, "")}, False, "smwm data info"
    )
    if listed:
        table = Table(*listed[0])
        for episode in listed:
            table.add_row(*(escape(str(value)) for value in episode.values()))
        console.print(table)


@app.command()
def check(store: Store, as_json: Json = False) -> None:
    """Read all of a store and say whether it is whole; exit status 2 if it is not."""
    from dataclasses import asdict

    from smwm_ros.data.store.check import check_store

    with _bytes_read("checking") as progress:
        report = check_store(store, progress)
    if not as_json:
        for kind, lines in (("red]damaged", report.problems), ("yellow]note", report.notes)):
            for line in lines:
                console.print(f"[bold {kind}:[/] {escape(line)}", soft_wrap=True)
    content = asdict(report)
    shown = content if as_json else {"whole": not report.problems, **report.counts}
    show_result({"whole": not report.problems, **shown}, as_json, "smwm data check")
    if report.problems:
        raise typer.Exit(DAMAGED)


@app.command()
def merge(
    stores: Annotated[list[Path], typer.Argument(help="Episode stores of one robot.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Put the episodes of several stores into one; of a single one, into a file that can be mapped."""
    from contextlib import ExitStack

    from smwm_ros.data.store.assemble import Piece, assemble
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.errors import DataError

    with ExitStack() as stack, _bytes_read("merging") as progress:
        opened = [stack.enter_context(EpisodeStore(path)) for path in stores]
        prints = [store.fingerprint for store in opened]
        if twice := [str(s.path) for s in opened if prints.count(s.fingerprint) > 1]:
            raise DataError(f"{' and '.join(twice)} have the same contents; give each once")
        source = {
            "merged": [
                {"store": str(s.path), "fingerprint": s.fingerprint, "source": s.source} for s in opened
            ]
        }
        fingerprint = assemble([Piece(store) for store in opened], output, source=source, progress=progress)
        counts = {"episodes": sum(s.episodes for s in opened), "rows": sum(map(len, opened))}
    show_result({"path": str(output), "fingerprint": fingerprint, **counts}, as_json, "smwm data merge")


@app.command()
def split(
    store: Store,
    output: Output,
    rest: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Episode store to write the other episodes to.", show_default=False),
    ] = None,
    share: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Draw this share of the episodes, more than 0 and at most 1.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws them.")] = 0,
    episodes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Take these, for example 0,3,10-20.", show_default=False),
    ] = None,
    outcome: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Take those with it: success, failure or unknown.", show_default=False),
    ] = None,
    label: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Take those with this label.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take some whole episodes into a store, and the others into another one if that is wanted."""
    import numpy as np

    from smwm_ros.data.store.assemble import Piece, assemble
    from smwm_ros.data.store.choose import choose_known, choose_numbers, choose_share, the_others
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.errors import ConfigError

    ways = [share is not None, episodes is not None, outcome is not None or label is not None]
    if sum(ways) != 1:
        raise ConfigError(
            "say which episodes to take: by --share, by --episodes, or by --outcome and --label"
        )
    if rest is not None and rest.resolve() == output.resolve():
        raise ConfigError(f"--output and --rest are the same file, {output}")
    with EpisodeStore(store) as opened, _bytes_read("copying") as progress:
        if share is not None:
            chosen = choose_share(opened, share, np.random.default_rng(seed))
        elif episodes is not None:
            chosen = choose_numbers(opened, episodes)
        else:
            chosen = choose_known(opened, outcome, label)

        def write(path: Path, numbers: NDArray[np.int64]) -> dict[str, Any]:
            origin = {"store": str(store), "fingerprint": opened.fingerprint, "source": opened.source}
            fingerprint = assemble(
                [Piece(opened, numbers.tolist())], path, source={"split": origin}, progress=progress
            )
            return _written(path, fingerprint, opened, numbers)

        others = the_others(opened, chosen)
        if rest is not None and not len(others):
            raise ConfigError(f"all {opened.episodes} episodes were taken: none is left for {rest}")
        result = write(output, chosen)
        if rest is not None:
            result["rest"] = write(rest, others)
    show_result(result, as_json, "smwm data split")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="HDF5 file in the layout of LeWM and stable-worldmodel.")],
    contract: Annotated[str, typer.Option(help="Robot: the name of a shipped contract, or a YAML file.")],
    output: Output,
    actions: Annotated[
        str, typer.Option(help="A row's action was applied 'from' its image on, or led 'to' it.")
    ] = "auto",
    frameskip: Annotated[
        int, typer.Option(min=1, help="Keep every so manyth image, and the mean of the actions between.")
    ] = 1,
    resize: Annotated[bool, typer.Option("--resize", help="Squeeze images of another size.")] = False,
    as_json: Json = False,
) -> None:
    """Make an episode store of a file that others made in LeWM's layout."""
    from dataclasses import asdict
    from typing import cast

    from smwm_ros.data.store.lewm_import import Actions, import_lewm
    from smwm_ros.errors import ConfigError
    from smwm_ros.resources import find_contract

    if actions not in ("auto", "from", "to"):
        raise ConfigError(f"--actions {actions}: expected auto, from or to")
    with progress_bar() as bar:
        shown = bar.add_task("importing episodes", total=None)
        report = import_lewm(
            file,
            find_contract(contract),
            output,
            actions=cast("Actions", actions),
            frameskip=frameskip,
            resize=resize,
            progress=lambda done, total: bar.update(shown, completed=done, total=total),
        )
    for note in report.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", soft_wrap=True)
    content = asdict(report)
    if not as_json:
        del content["notes"]
    show_result(content, as_json, "smwm data import")


def _written(path: Path, fingerprint: str, store: EpisodeStore, numbers: NDArray[Any]) -> dict[str, Any]:
    return {
        "path": str(path),
        "fingerprint": fingerprint,
        "episodes": len(numbers),
        "rows": int(store.lengths[numbers].sum()),
    }


def _short(text: str, length: int = 200) -> str:
    return text if len(text) <= length else f"{text[:length]} … (all with --json)"


def _column(column: Mapping[str, Any]) -> str:
    row = " x ".join(map(str, column["row"])) or "1"
    return f"{row} {column['type']}, {column['layout']}, {column['bytes'] / 1e6:.1f} MB"


@contextmanager
def _bytes_read(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many bytes were read."""
    with progress_bar() as bar:
        shown = bar.add_task(f"{what} (MB)", total=None)
        yield lambda done, total: bar.update(shown, completed=done // 10**6, total=total // 10**6)
