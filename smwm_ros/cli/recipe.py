"""Recipes: how a shipped checkpoint was made, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from smwm_ros.cli.settings import override
from smwm_ros.errors import ConfigError
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.resources import share_directory
from smwm_ros.validation import Settings, check, parse, read_text

Percent = Annotated[float, Field(ge=0, le=100)]
Interval = tuple[Percent, Percent]


class Data(Settings):
    """What the robot was made to do."""

    source: Literal["collect", "record"]
    """`smwm collect`, without ROS; or `smwm record` through it, then `smwm ingest`."""
    episodes: Annotated[int, Field(ge=2)]
    ticks: Annotated[int, Field(ge=2)]
    seed: Annotated[int, Field(ge=0)] = 0
    distractors: bool = False


class Training(Settings):
    """What differs from the preset, and what a run is given besides."""

    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 1
    settings: tuple[str, ...] = ()
    """As `smwm train --set` takes them."""


class Stage(Settings):
    """What was trained on the finished model."""

    stage: str
    settings: tuple[str, ...] = ()
    """As `smwm train --set` takes them."""


class Figures(Settings):
    """What `smwm eval` said; percentages, with the 95 % intervals."""

    success_any: Percent
    interval: Interval
    success_last: Percent
    interval_last: Interval
    random_any: Percent
    random_last: Percent

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Figures:
        """Take them out of what the command printed."""
        return cls.model_validate({name: result[name] for name in cls.model_fields})

    def agree(self, other: Figures) -> bool:
        """Tell whether the other's rates lie within these intervals."""
        pairs = ((self.interval, other.success_any), (self.interval_last, other.success_last))
        return all(low <= rate <= high for (low, high), rate in pairs)


class Evaluation(Settings):
    """One `smwm eval`."""

    pairs: Annotated[int, Field(ge=1)] = 100
    pair_seed: int = 0
    offset: Annotated[int, Field(ge=1)] = 25
    distractors: bool = False
    settings: tuple[str, ...] = ()
    """Of the planner, as `smwm eval --set` takes them."""
    figures: Figures | None = None

    def arguments(self, task: str, checkpoint: Path) -> list[str]:
        """Return the command's arguments."""
        return [
            "--task", task, "--checkpoint", str(checkpoint), "--pairs", str(self.pairs),
            "--pair-seed", str(self.pair_seed), "--offset", str(self.offset),
            *(["--distractors"] if self.distractors else []), *_set(self.settings),
        ]  # fmt: skip


class Recipe(Settings):
    """How one checkpoint was made: everything that `smwm reproduce` needs, and what it should find."""

    task: str
    """Name of the robot's contract."""
    model: str
    """Preset."""
    data: Data
    training: Training = Training()
    stages: tuple[Stage, ...] = ()
    """In this order, each on the checkpoint that the one before it left."""
    evaluations: Annotated[tuple[Evaluation, ...], Field(min_length=1)] = (Evaluation(),)
    fingerprint: str | None = None
    """Of the data; None as long as it was not made."""
    checkpoint: str | None = None
    """The checkpoint's id."""

    def data_steps(self, bag: Path, store: Path) -> dict[str, list[str]]:
        """Return the commands that make the data, by name: their arguments."""
        data = self.data
        made = ["--task", self.task, "--seed", str(data.seed),
                "--episodes", str(data.episodes), "--ticks", str(data.ticks),
                *(["--distractors"] if data.distractors else [])]  # fmt: skip
        if data.source == "collect":
            return {"collect": ["--output", str(store), *made]}
        return {"record": [str(bag), *made], "ingest": [str(bag), "--output", str(store)]}

    def train_steps(self, store: Path, folder: Path) -> tuple[dict[str, list[str]], Path]:
        """
        Return the commands that train, by name: their arguments; and the checkpoint that they leave.

        Args:
            store: of the data.
            folder: for the runs, one for each command.
        """
        training, run = self.training, folder / "train"
        same = ["--seed", str(training.seed), "--threads", str(training.threads)]
        steps = {
            "train": [
                str(store), "--output", str(run), "--model", self.model, *same, *_set(training.settings)
            ]
        }  # fmt: skip
        for stage in self.stages:
            before, run = run / "model.safetensors", folder / stage.stage
            steps[f"train {stage.stage}"] = [
                str(store), "--output", str(run), "--stage", stage.stage, "--checkpoint", str(before),
                *same, *_set(stage.settings),
            ]  # fmt: skip
        return steps, run / "model.safetensors"

    def config(self) -> ModelConfig:
        """
        Return the preset as this recipe changes it.

        Raises:
            ConfigError: no such preset, or a setting that it does not take.
        """
        changed = override(load_model_config(self.model).model_dump(), self.training.settings)
        return check(ModelConfig, changed, "training.settings", ConfigError)


def _set(settings: tuple[str, ...]) -> list[str]:
    return [argument for setting in settings for argument in ("--set", setting)]


def recipe_path(task: str, model: str) -> Path:
    """
    Find the recipe of a shipped checkpoint.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    folder = share_directory() / "config" / "checkpoints"
    path = folder / task / f"{model}.yaml"
    if not path.is_file():
        known = sorted(f"{found.parent.name}/{found.stem}" for found in folder.glob("*/*.yaml"))
        raise ConfigError(
            f"no recipe for the robot {task!r} and the preset {model!r}; there are "
            f"{', '.join(known) or 'none'}. Give one of these, or a file of your own with --recipe."
        )
    return path


def load_recipe(path: Path) -> Recipe:
    """
    Read a recipe.

    Raises:
        ConfigError: no such file, or not a valid one; names the key and the reason.
    """
    return parse(Recipe, read_text(path, "this recipe", ConfigError), str(path), ConfigError)


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe, for people to read as well."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    command = f"smwm reproduce --task {recipe.task} --model {recipe.model}"
    head = f"# How {path.stem}.safetensors was made; `{command}` makes it again.\n"
    path.write_text(head + yaml.safe_dump(content, sort_keys=False, width=110), encoding="utf-8")


def differences(config: ModelConfig, model: str) -> tuple[str, ...]:
    """
    Return the settings that make a configuration of a preset.

    Raises:
        ConfigError: no such preset, or settings cannot do it.
    """
    wanted, preset = config.model_dump(mode="json"), load_model_config(model).model_dump(mode="json")
    settings = tuple(_differences(wanted, preset, ""))
    made = check(ModelConfig, override(preset, settings), model, ConfigError)
    if made != config:
        raise ConfigError(
            f"the checkpoint's settings cannot be had from the preset {model!r} by --set: parts of the "
            "preset were removed. Write them down as a preset of its own, and train with that."
        )
    return settings


def _differences(wanted: Mapping[str, Any], preset: Mapping[str, Any], path: str) -> list[str]:
    found = []
    for key, value in wanted.items():
        before = preset.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found += _differences(value, before, f"{path}{key}.")
        elif value != before or key not in preset:
            text = (
                yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("\n...\n").strip()
            )
            found.append(f"{path}{key}={text}")
    return found
