"""Training a world model: one loop, deterministic for a seed, resumable to the step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.models.checkpoint import CheckpointInfo, save_checkpoint
from smwm_ros.models.config import ModelConfig, TrainingConfig
from smwm_ros.models.pretrained import PretrainedEncoder
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.dataset import Feed, Windows, load_windows
from smwm_ros.training.engine import Share, arithmetic, make_engine, seed_step, set_up_networks
from smwm_ros.training.health import check_row, check_step
from smwm_ros.training.learner import Learner
from smwm_ros.training.log import Log
from smwm_ros.training.measure import calibrate, fit_statistics, validate
from smwm_ros.training.state import load_state, save_state

GRACE = 0.2
"""Share of the steps in which a latent may still look collapsed: it begins so."""

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
    tensorboard: bool = False,
    progress: Progress = lambda step, figures: None,
) -> TrainingResult | None:
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
        tensorboard: write its files as well, in ``output/tensorboard``.
        progress: called after each step with the step's number and the newest figures.

    Returns:
        What was left behind; None in all but the first of torchrun's processes.

    Raises:
        ConfigError: ``output`` holds a run already, or one that does not fit what is resumed.
        DataError: the store is too small, or its actions do not vary.
        TrainingError: the loss is not finite or explodes, or the latent collapses.
    """
    began = time.perf_counter()
    settings = config.training
    engine = make_engine(device)
    state_path, path = output / "state.safetensors", output / "model.safetensors"
    if not resume and (state_path.exists() or path.exists()):
        raise ConfigError(
            f"{output}: holds a training run already; resume it (--resume) or choose another folder"
        )
    torch.manual_seed(seed)
    training, validation = load_windows(store, config, seed)
    if settings.batch > len(training) or settings.batch < 2 * engine.processes:
        raise ConfigError(
            f"training.batch {settings.batch} must be at least 2 for each of {engine.processes} processes, "
            f"and at most the {len(training)} training windows of {store.path}"
        )
    model = WorldModel(config, store.contract)
    fit_statistics(model, training)
    learner = Learner(model, config).to(engine.device)
    if isinstance(model.encoder, PretrainedEncoder) and not resume:
        model.encoder.load_pretrained()
    average = _average(model, settings.ema)
    set_up_networks(model, settings)
    optimiser = torch.optim.AdamW(
        learner.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    kept: dict[str, nn.Module] = {"learner": learner} | ({"average": average} if average else {})
    run = {
        "state_format": "2",
        "config": config.model_dump_json(),
        "data": store.fingerprint,
        "seed": str(seed),
        "processes": str(engine.processes),
    }
    first = load_state(state_path, kept, optimiser, run) if resume else 0
    called, stepped = engine.prepare(learner, optimiser)
    leads = engine.rank == 0
    # What was logged after the state was saved is logged again.
    log = Log(output / "log.csv", first, tensorboard and leads)
    if leads:
        output.mkdir(parents=True, exist_ok=True)
    # To look at a number of the GPU is to wait for it.
    look_every = 1 if engine.device.type == "cpu" else 20

    feed = Feed(
        Share.of(training, engine), settings.batch, seed, range(first, settings.steps), settings.workers
    )
    looped = time.perf_counter()
    for step, batch in enumerate(feed, start=first):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings)
        learner.train()
        seed_step(seed, step, engine.rank)
        frames, actions = (part.to(engine.device, non_blocking=True) for part in batch)
        with arithmetic(settings.precision, engine.device):
            loss, terms = called(frames, actions)
        stepped.zero_grad(set_to_none=True)
        engine.backward(loss)
        gradient = nn.utils.clip_grad_norm_(learner.parameters(), settings.clip)
        done = step + 1
        logs, saves = (done % every == 0 or done == settings.steps for every in (log_every, save_every))
        if logs or saves or done % look_every == 0:
            check_step(step, float(loss.detach()), float(gradient), settings.learning_rate)
        stepped.step()
        if average:
            average.update_parameters(model)
        if leads and logs:
            values = {"loss": loss, **terms}
            row = {"step": float(done)} | {name: float(value.detach()) for name, value in values.items()}
            row |= {f"weight_{name}": weight for name, weight in learner.weights.items()}
            with _averaged(learner, average):
                row |= validate(learner, validation)
            lowest = log.lowest_loss
            log.write(row)
            check_row(row, lowest, settings.stop_at_collapse and done >= GRACE * settings.steps)
        if leads and saves:
            save_state(state_path, kept, optimiser, run, done)
        progress(done, log.newest)
    looped = time.perf_counter() - looped
    if not leads:
        return None

    with _averaged(learner, average):
        figures = _judge(learner, validation)
        info = CheckpointInfo(
            preset=preset,
            config=config,
            contract=store.contract,
            calibration=calibrate(learner.model, validation),
            data_fingerprint=store.fingerprint,
            seed=seed,
            code_version=_code_version(),
            figures=figures,
        )
        identity = save_checkpoint(path, info, learner.model)
    waited = 100 * feed.waited / looped if first < settings.steps else 0.0
    return TrainingResult(path, identity, figures, time.perf_counter() - began, waited)


def learning_rate(step: int, settings: TrainingConfig) -> float:
    """Return the rate at a step: linear warm-up, then a cosine to zero."""
    warmup = settings.warmup * settings.steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1.0, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _judge(learner: Learner, windows: Windows) -> dict[str, float]:
    """Return the figures of a trained model, with the test of the actions' alignment."""
    figures = validate(learner, windows)
    if "inverse" in learner.names:
        shifted = validate(learner, windows, shift=learner.model.block)
        figures["val_inverse_shifted"] = shifted["val_inverse"]
    return figures


def _average(model: WorldModel, decay: float) -> AveragedModel | None:
    """Return a copy of a model that follows its weights as an exponential moving average."""
    if not decay:
        return None
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)


@contextmanager
def _averaged(learner: Learner, average: AveragedModel | None) -> Iterator[None]:
    """Put the averaged model, where there is one, into the learner's place for it."""
    model = learner.model
    if average:
        learner.model = cast(WorldModel, average.module)
    try:
        yield
    finally:
        learner.model = model


def _code_version() -> str:
    try:
        return version("smwm_ros")
    except PackageNotFoundError as error:
        raise SmwmError("smwm_ros is not installed; run 'make venv' or 'pip install .'") from error
