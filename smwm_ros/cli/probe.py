"""`smwm probe`: what a world model's latents hold, and how that lasts when the pictures get worse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from smwm_ros.cli.options import Checkpoint, Distractors, Json, Model, Robot
from smwm_ros.cli.output import progress_bar, show_result
from smwm_ros.cli.settings import Settings, override

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.progress import Progress

    from smwm_ros.contract import Contract
    from smwm_ros.evaluation.episodes import Episodes
    from smwm_ros.evaluation.robustness import Curves, Run
    from smwm_ros.models.checkpoint import Checkpoint as Loaded
    from smwm_ros.planning.config import PlannerConfig
    from smwm_ros.tasks import RobotTask


def probe(
    task: Robot = "reacher",
    model: Model = "smwm",
    checkpoint: Checkpoint = None,
    store: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Episodes to probe on; by default fresh ones.", show_default=False),
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="How many to probe on.")] = 300,
    ticks: Annotated[int, typer.Option(min=2, help="Images of each episode.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Draws episodes, splits, weights, corruptions.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Splits of the episodes to average over.")] = 3,
    distractors: Distractors = False,
    supervised: Annotated[
        bool, typer.Option("--supervised", help="The same encoder, trained to tell the state, as control.")
    ] = False,
    supervised_steps: Annotated[int, typer.Option(min=1, help="Its gradient steps.")] = 2000,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Probes and success on pictures made worse.")
    ] = False,
    pairs: Annotated[int, typer.Option(min=0, help="Start-goal pairs for each point; 0: none.")] = 10,
    offset: Annotated[int, typer.Option(min=1, help="Ticks from start to goal.")] = 25,
    against: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(
            help="Second model to set beside: a preset, or a checkpoint's path.", show_default=False
        ),
    ] = None,
    figures: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Folder to draw the figures into.", show_default=False),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Probe latents for the state and the actions (docs/probes.md); --set changes the planner's settings."""
    import torch

    from smwm_ros.evaluation.episodes import encode_episodes
    from smwm_ros.evaluation.probing import plot_latents, plot_probes, split_episodes
    from smwm_ros.evaluation.probing import probe as run
    from smwm_ros.evaluation.robustness import gaps, plot_curves
    from smwm_ros.evaluation.supervised import train_supervised
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.planning.planners import planner_config
    from smwm_ros.resources import checkpoint_path, find_contract
    from smwm_ros.tasks import make_task

    torch.set_num_threads(1)
    contract = find_contract(task)
    paths = [checkpoint or checkpoint_path(contract.name, model)]
    if against is not None:
        paths.append(_find(against, contract))
    models = [load_checkpoint(path) for path in paths]
    for loaded in models:
        loaded.require(contract)
    planner = planner_config(contract, override({}, settings or []), "--set")
    options = {"distractors": True} if distractors else {}
    # A real robot has no simulation, but may have a store.
    recorded = contract.task is None and store is not None
    opened: AbstractContextManager[Any] = nullcontext() if recorded else make_task(contract, **options)
    with opened as robot, progress_bar() as bar:
        data = _episodes(robot, models[0], store, episodes, ticks, seed, bar)
        latents = [encode_episodes(loaded, data) for loaded in models]
        probes = {
            loaded.id: run(loaded, data, own, seed=seed, repeats=repeats)
            for loaded, own in zip(models, latents, strict=True)
        }
        found = [each.figures() for each in probes.values()]
        result: dict[str, Any] = {"checkpoint": models[0].id, "seed": seed, **found[0]}
        control = None
        if supervised:
            control = train_supervised(
                models[0],
                data,
                split_episodes(data, seed),
                steps=supervised_steps,
                seed=seed,
                progress=_shown(bar, "training the supervised control", supervised_steps),
            )
            result["supervised"] = {name: round(r2, 4) for name, r2 in control.items()}
        if against is not None:
            result["against"] = {"checkpoint": models[1].id, **found[1]}
        drawings = {
            "probes": lambda: plot_probes(probes, control),
            "latents": lambda: plot_latents(data, latents[0], seed),
        }
        if corruptions:
            runs = _runners(robot, models, planner, pairs, offset, seed)
            curves = {
                loaded.id: _corrupted(loaded, data, own, runner, seed, bar)
                for loaded, own, runner in zip(models, latents, runs, strict=True)
            }
            result["corruptions"] = curves[models[0].id].figures()
            if against is not None:
                result["against"]["corruptions"] = curves[models[1].id].figures()
                result["gap"] = gaps(*curves.values())
            drawings["corruptions"] = lambda: plot_curves(curves)
    if figures is not None:
        _draw(figures, drawings)
    show_result(result, as_json, title=f"smwm probe {task}")


def _find(against: str, contract: Contract) -> Path:
    """Return the path of a checkpoint: a file, or a preset shipped for the robot."""
    from smwm_ros.resources import checkpoint_path

    path = Path(against)
    return path if path.suffix or len(path.parts) > 1 else checkpoint_path(contract.name, against)


def _episodes(
    robot: RobotTask | None,
    loaded: Loaded,
    store: Path | None,
    count: int,
    ticks: int,
    seed: int,
    bar: Progress,
) -> Episodes:
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.evaluation.episodes import explore_episodes, read_episodes

    if store is None:
        assert robot is not None
        return explore_episodes(robot, count, ticks, seed, _shown(bar, "drawing episodes", count))
    with EpisodeStore(store) as opened:
        return read_episodes(opened, loaded, robot, count, ticks, seed)


def _runners(
    robot: RobotTask | None, models: list[Loaded], planner: PlannerConfig, pairs: int, offset: int, seed: int
) -> list[Run | None]:
    """Return what runs each model's planner on the same pairs."""
    from smwm_ros.evaluation.judging import errors, reached
    from smwm_ros.evaluation.pairs import draw_pairs
    from smwm_ros.evaluation.protocol import run_planner

    if not pairs or robot is None:
        return [None] * len(models)
    history = max(loaded.frames for loaded in models) - 1
    problems = draw_pairs(robot, pairs, offset, seed, history=history)

    def runner(loaded: Loaded) -> Run:
        def run(views: Any) -> Any:
            rollouts = run_planner(robot, loaded, planner, problems, view=views)
            return reached(errors(robot, problems, rollouts), robot.threshold)[0]

        return run

    return [runner(loaded) for loaded in models]


def _corrupted(
    loaded: Loaded, data: Episodes, latents: Any, run: Run | None, seed: int, bar: Progress
) -> Curves:
    from smwm_ros.evaluation.robustness import POINTS, probe_corrupted

    shown = _shown(bar, f"corrupting what {loaded.id} sees", POINTS)
    return probe_corrupted(loaded, data, latents, run, seed=seed, progress=shown)


def _shown(bar: Progress, what: str, total: int) -> Callable[[int], None]:
    shown = bar.add_task(what, total=total)
    return lambda done: bar.update(shown, completed=done)


def _draw(folder: Path, drawings: dict[str, Callable[[], Figure]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in drawings.items():
        draw().savefig(folder / f"{name}.png", dpi=130)
