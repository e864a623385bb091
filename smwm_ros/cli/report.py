"""`smwm report`: world models beside one another on one robot, as one HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from smwm_ros.cli.options import Distractors, Json, Robot
from smwm_ros.cli.output import console, progress_bar, show_result
from smwm_ros.cli.settings import Settings, override

if TYPE_CHECKING:
    from smwm_ros.contract import Contract
    from smwm_ros.models.checkpoint import Checkpoint


def report(
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path("report.html"),
    task: Robot = "reacher",
    model: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Preset of a shipped world model; may be given again. By default all of them."),
    ] = None,
    checkpoint: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Another trained world model; may be given again."),
    ] = None,
    offset: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(min=1, help="Ticks from start to goal; may be given again. By default 25."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Start-goal pairs for each offset.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Draws pairs, episodes and all else.")] = 0,
    episodes: Annotated[int, typer.Option(min=5, help="Episodes to probe on.")] = 300,
    full: Annotated[
        bool, typer.Option("--full", help="Corruptions and surprise, too; this takes long.")
    ] = False,
    distractors: Distractors = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Compare world models by the same pairs and episodes (docs/evaluation.md); --set is for the planner."""
    import torch

    from smwm_ros.evaluation.comparison import Extent, compare
    from smwm_ros.evaluation.comparison_page import write_comparison
    from smwm_ros.planning.planners import planner_config
    from smwm_ros.resources import find_contract
    from smwm_ros.tasks import make_task

    torch.set_num_threads(1)
    contract = find_contract(task)
    models = load(contract, model or [], checkpoint or [])
    config = planner_config(contract, override({}, settings or []), "--set")
    offsets = tuple(dict.fromkeys(offset or [25]))
    extent = Extent(offsets=offsets, pairs=pairs, seed=seed, episodes=episodes, full=full)
    # Not every task has distractors: say so only when they are wanted.
    options = {"distractors": True} if distractors else {}
    with make_task(contract, **options) as robot:
        with progress_bar() as bar:

            def watch(what: str, total: int) -> Callable[[int], None]:
                shown = bar.add_task(what, total=total)
                return lambda done: bar.update(shown, completed=done)

            comparison = compare(robot, models, config, extent, watch)
        asked = {
            "robot": contract.name + (", with distractors" if distractors else ""),
            "checkpoints": ", ".join(
                f"{each.id} (training seed {each.info.seed})" for each in models.values()
            ),
            "drawn by seed": str(seed),
            "planner": ", ".join(f"{key} {value}" for key, value in config.model_dump().items()),
            "probed on": f"{extent.episodes} exploration episodes of {extent.ticks} pictures",
        }
        if full:
            points = f"{min(pairs, extent.corrupted_pairs)} pairs, {offsets[0]} ticks apart, at each point"
            asked |= {"success under corruption": points, "surprise": f"{extent.surprises} episodes"}
        write_comparison(output, robot, comparison, list(asked.items()))
    console.print(f"report: {output}", soft_wrap=True)
    figures = comparison.figures()
    result = {"task": contract.name, "distractors": distractors, "report": str(output), "models": figures}
    show_result(result if as_json else _brief(figures), as_json, f"smwm report {task}")


def load(contract: Contract, presets: list[str], paths: list[Path]) -> dict[str, Checkpoint]:
    """
    Load what is to be compared.

    Args:
        contract: the robot.
        presets: of the shipped models.
        paths: of others; with neither, all that are shipped.

    Returns:
        By name: the preset, or for a path the checkpoint's id.
    """
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import checkpoint_path, shipped_models

    if not presets and not paths:
        presets = shipped_models(contract.name) or ["smwm"]
    models = {preset: load_checkpoint(checkpoint_path(contract.name, preset)) for preset in presets}
    for path in paths:
        loaded = load_checkpoint(path)
        models[loaded.id] = loaded
    for loaded in models.values():
        loaded.require(contract)
    return models


def _brief(figures: dict[str, Any]) -> dict[str, str]:
    """Return for people who will look at the page what was reached at some tick."""
    return {
        name: ", ".join(
            f"{row['success_any']:g} % at {offset} ticks" for offset, row in each["success"].items()
        )
        for name, each in figures.items()
    }
