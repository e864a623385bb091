"""`smwm`: the commands, and what becomes of an error."""

from __future__ import annotations

import faulthandler
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer
from rich.markup import escape

from smwm_ros.cli import bag, bench, environment, store
from smwm_ros.cli.collect import collect
from smwm_ros.cli.demo import demo
from smwm_ros.cli.doctor import doctor
from smwm_ros.cli.eval import evaluate
from smwm_ros.cli.export import export
from smwm_ros.cli.goal import goal
from smwm_ros.cli.ingest import ingest
from smwm_ros.cli.output import console
from smwm_ros.cli.play import play
from smwm_ros.cli.probe import probe
from smwm_ros.cli.record import record
from smwm_ros.cli.report import report
from smwm_ros.cli.reproduce import reproduce
from smwm_ros.cli.search import search
from smwm_ros.cli.ship import ship
from smwm_ros.cli.surprise import surprise
from smwm_ros.cli.train import train
from smwm_ros.cli.up import up
from smwm_ros.errors import SmwmError

USER_ERROR, BUG, INTERRUPTED, TERMINATED = 2, 1, 130, 143

app = typer.Typer(
    name="smwm",
    help="A sensorimotor world model for ROS 2 robots: record, train without rewards, reach goal images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(doctor)
app.command()(up)
app.command()(goal)
app.command()(record)
app.command()(collect)
app.command()(ingest)
app.command()(play)
app.command()(train)
app.command()(search)
app.command("eval")(evaluate)
app.command()(probe)
app.command()(surprise)
app.command()(report)
app.command()(demo)
app.command()(reproduce)
app.command()(ship)
app.command()(export)
app.add_typer(store.app, name="data")
app.add_typer(bag.app, name="bag")
app.add_typer(bench.app, name="bench")


def main() -> NoReturn:
    """Run the command line; every way out has its exit code, and a traceback is never the only answer."""
    environment.prepare()
    # A fault in a native library (GL, DDS) shall leave a traceback, too.
    faulthandler.enable(2)
    # A shell starts background jobs with SIGINT ignored, and Python leaves it so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except SmwmError as error:
        console.print(f"[bold red]smwm:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(_report_bug(error))
    sys.exit(0)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Turn SIGTERM into an exception, so that what was started is ended."""
    sys.exit(TERMINATED)


def _report_bug(error: Exception) -> int:
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    with tempfile.NamedTemporaryFile("w", prefix="smwm-", suffix=".log", delete=False) as file:
        file.write(trace)
    console.print(
        f"[bold red]smwm:[/] {escape(repr(error))}\nThis is a fault of smwm_ros itself. "
        f"The traceback is in {Path(file.name)}; please report it.",
        soft_wrap=True,
    )
    return BUG


if __name__ == "__main__":
    main()
