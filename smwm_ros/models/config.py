"""Presets: which class fills each slot of a world model, with what sizes, and how it is trained."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from smwm_ros.errors import ConfigError
from smwm_ros.models.dynamics import DYNAMICS
from smwm_ros.models.encoders import ENCODERS
from smwm_ros.models.inverse import INVERSES
from smwm_ros.models.objectives import TERMS
from smwm_ros.resources import share_directory
from smwm_ros.validation import Settings, parse, read_text

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Arguments(BaseModel):
    """A class named elsewhere and its arguments: the keys that are not fields."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments for the class."""
        return dict(self.__pydantic_extra__ or {})

    def call(self, kind: str, builder: Callable[..., Any], **given: Any) -> Any:
        """
        Call the class.

        Args:
            kind: its name, for messages.
            builder: the class.
            given: arguments that the data or other slots decide.

        Raises:
            ConfigError: it does not take one of the keys, or takes no such value.
        """
        accepted = inspect.signature(builder).parameters.keys() - given.keys()
        if unknown := self.arguments.keys() - accepted:
            raise ConfigError(
                f"{kind}: unknown {', '.join(sorted(unknown))}; it takes {', '.join(sorted(accepted))}"
            )
        try:
            return builder(**given, **self.arguments)
        except (TypeError, ValueError, KeyError, RuntimeError, ZeroDivisionError) as error:
            raise ConfigError(f"{kind}: cannot be built with {self.arguments or given}: {error}") from error


class Slot(Arguments):
    """One slot: ``type`` names the class in the slot's registry, the other keys are its arguments."""

    type: str

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
        return self.call(self.type, registry[self.type], **given)


class Term(Arguments):
    """A term of the objective: its weight, and arguments for its class."""

    weight: float | Literal["auto"]
    """Factor in the loss, or ``auto``: the smallest that keeps the term near its lowest value."""
    slack: Positive = 0.1
    """With ``auto``: share by which the term may exceed its lowest value."""
    start: Positive = 10.0
    """With ``auto``: the weight to begin with."""

    @field_validator("weight", mode="before")
    @classmethod
    def _known_weight(cls, weight: Any) -> Any:
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if weight == "auto" or (number and 0 < weight < math.inf):
            return weight
        raise ValueError(f"expected a number greater than 0, or auto; found {weight!r}")

    def build(self, name: str, **offered: Any) -> Any:
        """
        Make the term's object.

        Args:
            name: in :data:`TERMS`.
            offered: of these it is given those that it takes.
        """
        taken = inspect.signature(TERMS[name]).parameters
        given = {key: value for key, value in offered.items() if key in taken}
        return self.call(f"terms.{name}", TERMS[name], **given)


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
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the networks' arithmetic; ``auto`` is bfloat16 on CUDA and float32 elsewhere."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an average of the weights, which the checkpoint then holds; 0: none."""
    compile: bool = False
    """Let torch.compile make encoder and forward model faster, where it can."""
    channels_last: bool = False
    """Keep the encoder's convolutions in the order that GPUs' tensor cores like."""
    stop_at_collapse: bool = True
    """Stop when the latent collapses; a control experiment goes on."""
    # Not in what is written down: it changes nothing in the result.
    workers: Annotated[int, Field(ge=0, le=256, exclude=True)] = 0
    """Processes that gather windows ahead of the trainer; with none it does so itself."""


class ModelConfig(Settings):
    """A whole preset. ``terms`` maps a term of the objective to its weight, or to weight and settings."""

    frames: Annotated[int, Field(ge=1, le=16)] = 1
    """n, the newest images in one observation, one control tick apart."""
    window: Count = 1
    """Model steps per training window."""
    encoder: Slot
    dynamics: Slot
    inverse: Slot
    terms: Annotated[dict[str, Term], Field(min_length=1)]
    training: TrainingConfig = TrainingConfig()

    @field_validator("terms", mode="before")
    @classmethod
    def _weights_alone(cls, terms: Any) -> Any:
        """Take ``forward: 1.0`` for ``forward: {weight: 1.0}``."""
        if not isinstance(terms, dict):
            return terms
        return {
            name: term if isinstance(term, (dict, Term)) else {"weight": term} for name, term in terms.items()
        }

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
        if "inverse" in self.terms and self.inverse.type == "none":
            raise ValueError("terms.inverse needs an inverse model; inverse.type is none")
        if all(term.weight == "auto" for term in self.terms.values()):
            raise ValueError("terms: at least one weight must be a number")
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
