"""Presets: which class fills each slot of a world model, with what sizes, and how it is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smwm_ros.errors import ConfigError
from smwm_ros.models.dynamics import DYNAMICS
from smwm_ros.models.encoders import ENCODERS
from smwm_ros.models.inverse import INVERSES
from smwm_ros.models.objectives import TERMS
from smwm_ros.resources import share_directory
from smwm_ros.validation import Settings, parse, read_text

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Slot(BaseModel):
    """One slot: ``type`` names the class in the slot's registry, the other keys are its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments for the class."""
        return dict(self.__pydantic_extra__ or {})

    def build(self, registry: Mapping[str, Callable[..., Any]], **given: Any) -> Any:
        """
        Make the slot's object.

        Args:
            registry: classes by name.
            given: arguments that the data or other slots decide.

        Raises:
            ConfigError: no such class, or it does not take one of the keys.
        """
        if self.type not in registry:
            raise ConfigError(f"type: {self.type!r} is unknown; there are {', '.join(sorted(registry))}")
        accepted = inspect.signature(registry[self.type]).parameters.keys() - given.keys()
        if unknown := self.arguments.keys() - accepted:
            raise ConfigError(
                f"{self.type}: unknown {', '.join(sorted(unknown))}; it takes {', '.join(sorted(accepted))}"
            )
        return registry[self.type](**given, **self.arguments)


class TrainingConfig(Settings):
    """How a preset is trained (SMWM: AdamW, cosine schedule with warm-up, gradients clipped at 1)."""

    steps: Count = 10_000
    """Gradient steps."""
    batch: Annotated[int, Field(ge=2)] = 256
    """Windows per gradient step."""
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the steps in which the learning rate rises from zero."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the episodes held out."""
    # Not in what is written down: it changes nothing in the result.
    workers: Annotated[int, Field(ge=0, le=256, exclude=True)] = 0
    """Processes that gather windows ahead of the trainer; with none it does so itself."""


class ModelConfig(Settings):
    """A whole preset. ``terms`` maps a term of the objective to its weight."""

    frames: Annotated[int, Field(ge=1, le=16)] = 1
    """n, the newest images in one observation, one control tick apart."""
    window: Count = 1
    """Model steps per training window."""
    encoder: Slot
    dynamics: Slot
    inverse: Slot
    terms: dict[str, Positive]
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _known_types(self) -> ModelConfig:
        for key, slot, registry in (
            ("encoder", self.encoder, ENCODERS),
            ("dynamics", self.dynamics, DYNAMICS),
            ("inverse", self.inverse, INVERSES),
        ):
            if slot.type not in registry:
                raise ValueError(f"{key}.type {slot.type!r} is unknown; there are {sorted(registry)}")
        if unknown := self.terms.keys() - TERMS.keys():
            raise ValueError(f"terms {sorted(unknown)} are unknown; there are {sorted(TERMS)}")
        return self


def load_model_config(preset: str | Path) -> ModelConfig:
    """
    Read a preset.

    Args:
        preset: a name in ``config/models`` or the path of a YAML file.

    Raises:
        ConfigError: no such preset, or not a valid one; names file, key and reason.
    """
    if Path(preset).suffix == ".yaml":
        path = Path(preset)
    else:
        folder = share_directory() / "config" / "models"
        path = folder / f"{preset}.yaml"
        if not path.is_file():
            names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            raise ConfigError(f"no preset named {str(preset)!r}; there are {names}")
    return parse(ModelConfig, read_text(path, "this preset", ConfigError), str(path), ConfigError)
