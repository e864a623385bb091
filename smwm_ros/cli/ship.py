"""`smwm ship`: a trained run becomes a shipped checkpoint, with its figures and the recipe that makes it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from smwm_ros.cli.options import Distractors, Json
from smwm_ros.cli.output import show_result
from smwm_ros.cli.reproduce import run_step
from smwm_ros.cli.settings import Settings
from smwm_ros.errors import ConfigError

if TYPE_CHECKING:
    from smwm_ros.cli.recipe import Data, Stage
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.models.checkpoint import CheckpointInfo

LARGEST = 4 << 20
"""Bytes of a shipped checkpoint."""


def ship(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as smwm train leaves it.")],
    store: Annotated[Path, typer.Option(help="The episode store that it was trained on.")],
    pairs: Annotated[int, typer.Option(min=1, help="Start-goal pairs to evaluate on.")] = 100,
    pair_seed: Annotated[int, typer.Option(help="Draws the pairs.")] = 0,
    offset: Annotated[
        Optional[list[int]],  # noqa: UP045 - typer evaluates it
        typer.Option(min=1, help="Ticks from start to goal; several are several evaluations.  [default: 25]"),
    ] = None,
    distractors: Distractors = False,
    settings: Settings = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads that it was trained with.")] = 1,
    recorded: Annotated[
        Optional[str],  # noqa: UP045 - typer evaluates it
        typer.Option(metavar="EPISODES,TICKS,SEED", help="Of data that was recorded through ROS."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option("--output", "-o", help="Instead of config/checkpoints.", show_default=False),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="A checkpoint that is there already.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a run (planner's settings: --set samples=128 …), and put checkpoint and recipe in place."""
    from smwm_ros.cli.recipe import Evaluation, Figures, Recipe, Training, differences, save_recipe
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.models.checkpoint import load_checkpoint
    from smwm_ros.resources import share_directory

    source = run / "model.safetensors"
    trained = load_checkpoint(source)
    task, model = trained.contract.name, trained.info.preset
    place = (output or share_directory() / "config" / "checkpoints") / task / f"{model}.safetensors"
    if place.exists() and not replace:
        raise ConfigError(f"{place} exists already; give --replace, or another --output")
    if source.stat().st_size > LARGEST:
        raise ConfigError(f"{source}: {source.stat().st_size} bytes, and at most {LARGEST} are shipped")
    with EpisodeStore(store) as episodes:
        if episodes.fingerprint != trained.info.data_fingerprint:
            raise ConfigError(
                f"{source} was trained on data of fingerprint {trained.info.data_fingerprint}, and that of "
                f"{store} is {episodes.fingerprint}; give the store it was trained on"
            )
        data = _data(episodes, recorded)
    recipe = Recipe(
        task=task,
        model=model,
        data=data,
        training=Training(
            seed=trained.info.seed, threads=threads, settings=differences(trained.info.config, model)
        ),
        stages=_stages(trained.info),
        fingerprint=trained.info.data_fingerprint,
        checkpoint=trained.id,
    )
    evaluations = []
    for distance in offset or [25]:
        evaluation = Evaluation(
            pairs=pairs,
            pair_seed=pair_seed,
            offset=distance,
            distractors=distractors,
            settings=tuple(settings or ()),
        )
        result, _ = run_step("eval", evaluation.arguments(task, source))
        evaluations.append(evaluation.model_copy(update={"figures": Figures.of(result)}))
    recipe = recipe.model_copy(update={"evaluations": tuple(evaluations)})
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)
    save_recipe(recipe, place.with_suffix(".yaml"))
    found = {"checkpoint": str(place), "recipe": str(place.with_suffix(".yaml")), "id": trained.id}
    if as_json:
        shown: dict[str, Any] = {"evaluations": [one.model_dump(mode="json") for one in evaluations]}
    else:
        shown = {
            f"offset {one.offset}": one.figures.model_dump(mode="json") for one in evaluations if one.figures
        }
    show_result({**found, **shown}, as_json, "smwm ship")


def _stages(info: CheckpointInfo) -> tuple[Stage, ...]:
    """Return how a checkpoint's parts were trained, if a recipe can say that."""
    from smwm_ros.cli.recipe import Stage

    stages = []
    for name, part in info.parts.items():
        if (part.data_fingerprint, part.seed) != (info.data_fingerprint, info.seed):
            raise ConfigError(
                f"the {name} was trained with seed {part.seed} on data {part.data_fingerprint}, the model "
                f"with seed {info.seed} on data {info.data_fingerprint}; a recipe has one of each: train the "
                f"{name} again"
            )
        settings = tuple(f"{key}={value:g}" for key, value in sorted(part.training.items()))
        stages.append(Stage(stage=name, settings=settings))
    return tuple(stages)


def _data(store: EpisodeStore, recorded: str | None) -> Data:
    """Return how a store was made: it says so itself, unless it came from bags."""
    from smwm_ros.cli.recipe import Data
    from smwm_ros.validation import check

    if recorded is not None:
        names = ("episodes", "ticks", "seed")
        values = recorded.split(",")
        if len(values) != len(names):
            raise ConfigError(f"--recorded {recorded}: expected EPISODES,TICKS,SEED, such as 300,200,0")
        return check(
            Data, {"source": "record", **dict(zip(names, values, strict=True))}, "--recorded", ConfigError
        )
    order = store.source.get("collected")
    if not isinstance(order, dict):
        raise ConfigError(
            f"{store.path} does not say that smwm collect made it; if it was recorded through ROS by "
            "`smwm record --task`, say how: --recorded EPISODES,TICKS,SEED"
        )
    content = {key: order[key] for key in ("ticks", "seed", "distractors") if key in order}
    return check(
        Data, {"source": "collect", "episodes": len(store.lengths), **content}, str(store.path), ConfigError
    )
