"""`smwm train`: a world model from an episode store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, progress_bar, show_result
from smwm_ros.cli.settings import Settings, override

if TYPE_CHECKING:
    from rich.progress import TaskID


def train(
    store: Annotated[Path, typer.Argument(help="Episode store, as smwm ingest writes it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the run.")],
    model: Annotated[str, typer.Option(help="Preset of config/models, or a YAML file.")] = "smwm",
    stage: Annotated[
        str,
        typer.Option(
            help="model; or what is trained on a finished one (--checkpoint): proposal, bank, macro."
        ),
    ] = "model",
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="Finished world model, for a later stage.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws weights, split and order.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1 …")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; small models are fastest with one.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write its files as well.")] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a world model; leaves model.safetensors, log.csv and curves.png in the folder."""
    import torch

    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.errors import ConfigError
    from smwm_ros.models.config import ModelConfig, load_model_config
    from smwm_ros.training.curves import plot_training
    from smwm_ros.training.engine import keep_freed_memory
    from smwm_ros.training.trainer import train as run
    from smwm_ros.validation import check

    torch.set_num_threads(threads)
    keep_freed_memory()
    if (stage == "model") != (checkpoint is None):
        raise ConfigError("--checkpoint is the model that a later stage is trained on: give both, or neither")
    if checkpoint is not None:
        _train_stage(stage, store, checkpoint, output, seed, device, settings or [], as_json)
        return
    preset = load_model_config(model)
    workers = f"training.workers={preset.training.workers}"  # which no dump of a preset holds
    changed = override(preset.model_dump(), [workers, *(settings or [])])
    config = check(ModelConfig, changed, "--set", ConfigError)
    name = Path(model).stem
    with EpisodeStore(store) as episodes, progress_bar() as bar:
        task = bar.add_task(f"training {name}", total=config.training.steps)

        def show(step: int, figures: dict[str, float]) -> None:
            shown = "  ".join(f"{key[4:]} {value:.4f}" for key, value in figures.items() if key[:4] == "val_")
            bar.update(task, completed=step, description=f"training {name}  {shown}")

        result = run(
            episodes,
            name,
            config,
            output,
            seed=seed,
            device=device,
            resume=resume,
            tensorboard=tensorboard,
            progress=show,
        )
    if result is None:
        return  # one of torchrun's further processes: the first one tells
    plot_training(output / "log.csv", output / "curves.png")
    console.print(f"checkpoint {result.identity} is in {result.checkpoint}", soft_wrap=True)
    show_result(
        {
            "checkpoint": str(result.checkpoint),
            "id": result.identity,
            "seconds": round(result.seconds, 1),
            "steps": config.training.steps,
            "seed": seed,
            "data_wait_percent": round(result.data_wait_percent, 1),
            **{key: round(value, 6) for key, value in result.figures.items()},
        },
        as_json,
        title=f"smwm train {name}",
    )


def _train_stage(
    stage: str,
    store: Path,
    checkpoint: Path,
    output: Path,
    seed: int,
    device: str,
    settings: Sequence[str],
    as_json: bool,
) -> None:
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.training.run_stage import run_stage, stage_config

    config = stage_config(stage, override({}, settings))
    with EpisodeStore(store) as episodes, progress_bar() as bar:
        shown: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = bar.add_task(what, total=total)
            bar.update(shown[what], completed=done)

        result = run_stage(
            stage, episodes, checkpoint, config, output, seed=seed, device=device, progress=show
        )
    console.print(f"checkpoint {result.identity} is in {result.checkpoint}", soft_wrap=True)
    show_result(
        {
            "checkpoint": str(result.checkpoint),
            "id": result.identity,
            "seconds": round(result.seconds, 1),
            "steps": config.steps,
            "seed": seed,
            **{key: round(value, 6) for key, value in result.figures.items()},
        },
        as_json,
        title=f"smwm train --stage {stage}",
    )
