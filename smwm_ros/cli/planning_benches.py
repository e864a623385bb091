"""The commands of `smwm bench` that are about planning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Json, Model, Robot
from smwm_ros.cli.output import progress_bar, show_result
from smwm_ros.cli.settings import Settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from smwm_ros.contract import Contract
    from smwm_ros.models.checkpoint import Checkpoint as Loaded
    from smwm_ros.planning.config import PlannerConfig

PeerPython = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option(help="Interpreter that has stable-worldmodel, for comparison.", show_default=False),
]
Plot = Annotated[
    Optional[Path],  # noqa: UP045 - typer evaluates it
    typer.Option(help="Picture to draw the figures into.", show_default=False),
]
Pairs = Annotated[int, typer.Option(min=1, help="Start-goal pairs, none solved at the start.")]
PairSeed = Annotated[int, typer.Option(help="Draws the pairs.")]
Offset = Annotated[int, typer.Option(min=1, help="Ticks from start to goal; the budget is twice.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the arithmetic.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is random.")]


def planning(
    tasks: Annotated[str, typer.Option(help="Robots, by commas.")] = "two_room,reacher,push_t",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    planner: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(
            metavar="NAME:SETTING,…", help="One more planner: what differs from the robot's; may come again."
        ),
    ] = None,
    only: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Of our planners only these, by commas.", show_default=False),
    ] = None,
    pairs: Pairs = 100,
    pair_seed: PairSeed = 0,
    offset: Offset = 25,
    threads: Threads = 1,
    peer_python: PeerPython = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Planners side by side on the same pairs: success, time, predictor evaluations."""
    from smwm_ros.cli.bench_planning import bench_planning, entrant_configs, plot_planning
    from smwm_ros.errors import ConfigError

    names = list(dict.fromkeys(tasks.split(",")))
    if checkpoint and len(names) > 1:
        raise ConfigError(
            f"--checkpoint is of one robot, and --tasks {tasks} names {len(names)}; name its own"
        )
    results = {}
    with progress_bar() as bar:
        for name in names:
            contract, loaded = _load(name, model, checkpoint)
            configs = entrant_configs(contract, planner or [])
            if only is not None:
                if unknown := set(only.split(",")) - configs.keys():
                    raise ConfigError(f"--only {','.join(sorted(unknown))}: there are {', '.join(configs)}")
                configs = {key: configs[key] for key in only.split(",")}
            results[name] = bench_planning(
                loaded,
                configs,
                pairs=pairs,
                offset=offset,
                seed=pair_seed,
                threads=threads,
                peer_python=peer_python,
                watch=lambda what, total: _step(bar, what, total),
            )
            if plot:
                plot_planning(results, plot)
    if as_json:
        show_result({"tasks": results, "peer": results[names[0]]["peer"]}, True)
    else:
        for name, result in results.items():
            rows = {
                entrant: f"{_rates(figures)}; {_time(figures)}" if figures else result["peer"]
                for entrant, figures in result["planners"].items()
            }
            show_result({**rows, "random": _rates(result["random"])}, False, name)


def peer(
    repeats: Annotated[int, typer.Option(min=1, help="Problems.")] = 5,
    threads: Threads = 1,
    device: Device = "cpu",
    peer_python: PeerPython = None,
    seed: Seed = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """A plan of CEM 300x30 with the official-size predictor, beside stable-worldmodel and the floor."""
    from smwm_ros.cli.bench_peer import bench_peer
    from smwm_ros.cli.bench_planning import REFERENCE
    from smwm_ros.cli.settings import override
    from smwm_ros.errors import ConfigError
    from smwm_ros.planning.config import PlannerConfig
    from smwm_ros.validation import check

    changed = override(REFERENCE.model_dump(exclude_unset=True), settings or [])
    config = check(PlannerConfig, changed, "--set", ConfigError)
    with progress_bar() as bar:
        figures = bench_peer(
            config,
            repeats=repeats,
            threads=threads,
            device=device,
            peer_python=peer_python,
            seed=seed,
            progress=_step(bar, "planning", repeats + 1),
        )
    show_result(figures, as_json, "plans of the official size")


def deadline(
    budget_ms: Annotated[float, typer.Option(min=0.1, help="Time for a plan.")] = 20.0,
    plans: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    busy: Annotated[int, typer.Option(min=0, help="Busy processes beside it.")] = 1,
    task: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    threads: Threads = 1,
    device: Device = "cpu",
    seed: Seed = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Plans against the clock, as many samples as there is time for, beside busy processes."""
    import torch

    from smwm_ros.cli.bench_deadline import MOST, bench_deadline

    torch.set_num_threads(threads)
    contract, loaded = _load(task, model, checkpoint, device)
    config = _config(contract, [f"samples={MOST}", *(settings or []), f"time_budget={budget_ms / 1e3}"])
    with progress_bar() as bar:
        figures = bench_deadline(
            loaded, config, plans=plans, busy=busy, seed=seed, progress=_step(bar, "planning", plans)
        )
    show_result(figures, as_json, "plans in time")


def delay(
    ms: Annotated[
        str, typer.Option(help="From a picture to the first action planned from it; several by commas.")
    ] = "0,50,100,150,200",
    task: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    pairs: Pairs = 100,
    pair_seed: PairSeed = 0,
    offset: Offset = 25,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Success under a delay, with and without the planner's knowing of it."""
    import torch

    from smwm_ros.cli.bench_delay import bench_delay
    from smwm_ros.errors import ConfigError

    try:
        delays = [float(part) for part in ms.split(",")]
    except ValueError as error:
        raise ConfigError(f"--ms {ms}: expected milliseconds, separated by commas") from error
    if not all(0 <= value < float("inf") for value in delays):
        raise ConfigError(f"--ms {ms}: a delay is at least 0")
    torch.set_num_threads(1)
    contract, loaded = _load(task, model, checkpoint)
    with progress_bar() as bar:
        figures = bench_delay(
            loaded,
            _config(contract, settings or []),
            delays,
            pairs=pairs,
            offset=offset,
            seed=pair_seed,
            progress=_step(bar, "reaching goals", pairs * (1 + 2 * len(delays))),
        )
    if as_json:
        show_result(figures, True)
        return
    rows = {
        f"{row['ms']:g} ms, {name}": _rates(row[name])
        for row in figures["by_delay"]
        for name in ("with", "without")
    }
    show_result({"no delay": _rates(figures["undelayed"]), **rows}, False, "with and without compensation")


def scaling(
    task: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    repeats: Annotated[int, typer.Option(min=1, help="Plans of each size.")] = 20,
    threads: Threads = 1,
    device: Device = "cpu",
    seed: Seed = 0,
    settings: Settings = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Time of a plan as samples, horizon and robots grow."""
    from smwm_ros.cli.bench_scaling import GROWTH, bench_scaling, plot_scaling

    contract, loaded = _load(task, model, checkpoint, device)
    with progress_bar() as bar:
        figures = bench_scaling(
            loaded,
            _config(contract, settings or []),
            repeats=repeats,
            threads=threads,
            seed=seed,
            progress=_step(bar, "planning", repeats + 1),
        )
    if plot:
        plot_scaling(figures, plot)
    if as_json:
        show_result(figures, True)
        return
    rows = {
        f"{what} {row['value']}": f"{_time(row)}, floor {row['floor_ms']:.3g} ms"
        for what in GROWTH
        for row in figures[what]
    }
    show_result(rows, False, "time of a plan")


def hierarchy(
    task: Robot = "two_room",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    pairs: Pairs = 100,
    pair_seed: PairSeed = 0,
    offset: Offset = 100,
    scales: Annotated[
        str, typer.Option(help="Samples are multiplied by these, by commas: success over compute.")
    ] = "1",
    cross_room: Annotated[
        bool, typer.Option("--cross-room", help="Of the pairs, those that lead from one room to the other.")
    ] = False,
    flat: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(metavar="NAME=VALUE", help="A setting of the flat planner; --set is the other's."),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """The hierarchical planner, naive and not, beside the flat one at as many evaluations of a plan."""
    import torch

    from smwm_ros.cli.bench_hierarchy import bench_hierarchy
    from smwm_ros.errors import ConfigError

    try:
        factors = [float(part) for part in scales.split(",")]
    except ValueError as error:
        raise ConfigError(f"--scales {scales}: expected numbers, separated by commas") from error
    if not all(0 < factor <= 100 for factor in factors):
        raise ConfigError(f"--scales {scales}: each is more than 0, and 100 at most")
    torch.set_num_threads(1)
    contract, loaded = _load(task, model, checkpoint)
    with progress_bar() as bar:
        figures = bench_hierarchy(
            loaded,
            _config(contract, settings or []),
            _config(contract, flat or []),
            pairs=pairs,
            offset=offset,
            seed=pair_seed,
            scales=factors,
            cross_room=cross_room,
            watch=lambda what, total: _step(bar, what, total),
        )
    if not as_json:
        for row in figures.pop("rows"):
            show_result(row, False, f"{row.pop('planner')}, samples x {row.pop('scale'):g}")
    show_result(figures, as_json, f"hierarchy: {contract.name}")


def _step(bar: Progress, what: str, total: int) -> Callable[[int], None]:
    """Begin to tell people of some work; what is done goes to the result."""
    shown = bar.add_task(what, total=total)
    return lambda done: bar.update(shown, completed=done)


def _rates(figures: Mapping[str, Any]) -> str:
    last = figures["success_last"]
    return f"{figures['success_any']} % reached it ({_span(figures['interval'])}), {last} % there at the end"


def _time(figures: Mapping[str, Any]) -> str:
    return f"{figures['plan_ms']:.3g} ms ({_span(figures['plan_ms_quartiles'])})"


def _span(ends: Sequence[float]) -> str:
    return " to ".join(f"{end:.3g}" for end in ends)


def _load(robot: str, model: str, checkpoint: Path | None, device: str = "cpu") -> tuple[Contract, Loaded]:
    """Return a robot's contract, which says what it is planned with, and a world model for it."""
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import checkpoint_path, find_contract

    contract = find_contract(robot)
    loaded = load_checkpoint(checkpoint or checkpoint_path(contract.name, model), device)
    loaded.require(contract)
    return contract, loaded


def _config(contract: Contract, settings: list[str]) -> PlannerConfig:
    from smwm_ros.cli.settings import override
    from smwm_ros.planning.planners import planner_config

    return planner_config(contract, override({}, settings), "--set")
