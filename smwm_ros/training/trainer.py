"""Training a world model: one loop, deterministic for a seed, resumable to the step."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError, DataError, SmwmError
from smwm_ros.models.checkpoint import Calibration, CheckpointInfo, save_checkpoint
from smwm_ros.models.config import ModelConfig, TrainingConfig
from smwm_ros.models.objectives import TERMS
from smwm_ros.models.statistics import effective_rank, latent_scale, median_rms
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.dataset import Feed, Windows, load_windows
from smwm_ros.training.state import load_state, save_state

VALIDATION_WINDOWS = 2048
"""Held-out windows (at most) that the figures and the calibration are measured on."""

Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a training run left behind."""

    checkpoint: Path
    identity: str
    figures: dict[str, float]
    seconds: float
    data_wait_percent: float
    """Share of the loop's time in which it waited for windows; more workers lower it."""


class Objective(nn.Module):
    """The weighted sum of a preset's terms."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the terms that the preset lists."""
        super().__init__()
        self.terms = nn.ModuleList(TERMS[name]() for name in config.terms)
        self.weights = config.terms

    def forward(self, model: WorldModel, frames: Tensor, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and each term's unweighted value, for a batch of windows."""
        blocks = model.standardise(actions)
        latents = model.encode(frames.flatten(0, 1)).view(*frames.shape[:2], -1)
        values = {
            name: term(model, latents, blocks) for name, term in zip(self.weights, self.terms, strict=True)
        }
        loss = sum((self.weights[name] * value for name, value in values.items()), torch.zeros(()))
        return loss, values


def train(
    store: EpisodeStore,
    preset: str,
    config: ModelConfig,
    output: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    resume: bool = False,
    log_every: int = 200,
    save_every: int = 2000,
    progress: Progress = lambda step, figures: None,
) -> TrainingResult:
    """
    Train a preset on a store.

    Args:
        store: the episodes, with the contract they were recorded under.
        preset: the name that the checkpoint will carry.
        config: the preset.
        output: folder for ``model.safetensors``, ``log.csv`` and the state to resume from.
        seed: draws the initial weights, the split and the order of the windows.
        device: where to train.
        resume: go on from the state in ``output``.
        log_every: steps between two rows of the log.
        save_every: steps between two saved states.
        progress: called after each step with the step's number and the newest figures.

    Raises:
        ConfigError: ``output`` holds a run already, or one that does not fit what is resumed.
        DataError: the store is too small, or the loss is not finite.
    """
    began = time.perf_counter()
    settings = config.training
    torch.manual_seed(seed)
    training, validation = load_windows(store, config, seed)
    model = WorldModel(config, store.contract).to(device)
    _fit_statistics(model, training)
    objective = Objective(config)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    run = {"config": config.model_dump_json(), "data": store.fingerprint, "seed": str(seed)}
    state_path, log_path = output / "state.safetensors", output / "log.csv"
    if state_path.exists() and not resume:
        raise ConfigError(
            f"{output}: holds a training run already; resume it (--resume) or choose another folder"
        )
    first = load_state(state_path, model, optimiser, run) if resume else 0
    output.mkdir(parents=True, exist_ok=True)

    # What was logged after the state was saved is logged again.
    log = [row for row in read_log(log_path) if row["step"] <= first] if resume else []
    feed = Feed(training, settings.batch, seed, range(first, settings.steps), settings.workers)
    looped = time.perf_counter()
    for step, batch in enumerate(feed, start=first):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings)
        model.train()
        frames, actions = (part.to(device) for part in batch)
        loss, terms = objective(model, frames, actions)
        if not torch.isfinite(loss):
            raise DataError(
                f"step {step}: the loss is {float(loss)}; lower training.learning_rate "
                f"(now {settings.learning_rate:g}) or look for odd values with 'smwm ingest --json'"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.step()
        done = step + 1
        if done % log_every == 0 or done == settings.steps:
            values = {"loss": loss, **terms}
            row = {"step": float(done)} | {name: float(value.detach()) for name, value in values.items()}
            log.append(row | validate(model, objective, validation))
            _write_log(log_path, log)
        if done % save_every == 0 or done == settings.steps:
            save_state(state_path, model, optimiser, run, done)
        progress(done, log[-1] if log else {})
    looped = time.perf_counter() - looped

    figures = validate(model, objective, validation)
    if "inverse" in config.terms:
        shifted = validate(model, objective, validation, shift=store.contract.block)
        figures["val_inverse_shifted"] = shifted["val_inverse"]
    info = CheckpointInfo(
        preset=preset,
        config=config,
        contract=store.contract,
        calibration=calibrate(model, validation),
        data_fingerprint=store.fingerprint,
        seed=seed,
        code_version=_code_version(),
        figures=figures,
    )
    path = output / "model.safetensors"
    identity = save_checkpoint(path, info, model)
    waited = 100 * feed.waited / looped if first < settings.steps else 0.0
    return TrainingResult(path, identity, figures, time.perf_counter() - began, waited)


def learning_rate(step: int, settings: TrainingConfig) -> float:
    """Return the rate at a step: linear warm-up, then a cosine to zero."""
    warmup = settings.warmup * settings.steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1.0, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


@torch.inference_mode()
def validate(model: WorldModel, objective: Objective, windows: Windows, shift: int = 0) -> dict[str, float]:
    """
    Measure the terms and the latent's health on held-out windows.

    Args:
        model: the world model; put into evaluation mode.
        objective: the terms.
        windows: held-out windows.
        shift: rows by which actions are (wrongly) taken late; for the alignment test.

    Returns:
        ``val_<term>`` for each term, ``effective_rank`` and ``latent_scale``. The trainer adds
        ``val_inverse_shifted``, the inverse loss with the actions one model step late: unless it
        is clearly worse, images and actions do not belong together.
    """
    model.eval()
    frames, actions = (part.to(model.action_mean.device) for part in windows.take(_sample(windows), shift))
    _, terms = objective(model, frames, actions)
    latents = model.encode(frames[:, 0]).float().cpu()
    return {f"val_{name}": float(value) for name, value in terms.items()} | {
        "effective_rank": effective_rank(latents),
        "latent_scale": latent_scale(latents),
    }


@torch.inference_mode()
def calibrate(model: WorldModel, windows: Windows) -> Calibration:
    """Measure how far a latent moves in a model step, and how far predictions miss."""
    model.eval()
    frames, actions = (part.to(model.action_mean.device) for part in windows.take(_sample(windows)))
    before, after = model.encode(frames[:, 0]), model.encode(frames[:, 1])
    predicted = model.dynamics(before, model.standardise(actions[:, 0]))
    tiny = 1e-12  # a collapsed latent moves by nothing, and still needs a unit
    return Calibration(
        step_distance=max(median_rms(after - before), tiny),
        step_error=max(median_rms(predicted - after), tiny),
    )


def _sample(windows: Windows) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(len(windows))[:VALIDATION_WINDOWS]


def _fit_statistics(model: WorldModel, windows: Windows) -> None:
    """Set the buffers that standardise actions and centre images, from the training windows."""
    ticks = windows.starts[:, None] + np.arange(windows.window * windows.block)
    actions = torch.from_numpy(windows.actions[ticks]).flatten(0, 1)
    std = actions.std(0)
    if (std < 1e-6).any():
        raise DataError(
            f"the recorded actions do not vary (standard deviation {std.tolist()} per dimension): "
            "there is nothing to learn from; record bags in which every dimension moves"
        )
    model.action_mean.copy_(actions.mean(0))
    model.action_std.copy_(std)
    images = windows.pixels[windows.starts[_sample(windows)]].astype(np.float32)
    mean = images.mean(0)
    model.pixel_mean.copy_(torch.from_numpy(mean))
    model.pixel_std.fill_(max(1.0, float((images - mean).std())))


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the rows of a trainer's ``log.csv``; none when there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _write_log(path: Path, log: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, log[0])
        writer.writeheader()
        writer.writerows(log)


def _code_version() -> str:
    try:
        return version("smwm_ros")
    except PackageNotFoundError as error:
        raise SmwmError("smwm_ros is not installed; run 'make venv' or 'pip install .'") from error
