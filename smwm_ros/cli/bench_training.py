"""How many images per second are trained on, beside the official training code of SMWM."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from smwm_ros.cli.peer import Peer, figures, write_noise
from smwm_ros.cli.peer_training import PEER
from smwm_ros.contract import Contract
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.resources import find_contract
from smwm_ros.training.engine import keep_freed_memory
from smwm_ros.training.trainer import train

ROWS = {"smwm": 4000, "vit_tiny_224": 1000}
SIDE = {"smwm": 64, "vit_tiny_224": 224}
SLOW_BATCH = 16
"""Windows in a batch of ``vit_tiny_224`` on a CPU, where one of its own size takes half a minute."""
ENDLESS = 1 << 30
ADVICE = "it needs what --peer-code asks for: stable-pretraining, stable-worldmodel, hydra-core, transformers"


def bench_training(
    model: str,
    *,
    repeats: int,
    seconds: float,
    batch: int | None = None,
    device: str = "cpu",
    threads: int = 1,
    workers: int = 0,
    peer_python: Path | None = None,
    peer_code: Path | None = None,
) -> dict[str, Any]:
    """
    Measure whole training loops, from the episode store to the changed weights.

    Both train on the same file of noise, in processes of their own that take turns, with the same
    batch, arithmetic, threads and workers. The peer runs its own data set, transforms, model, loss and
    Lightning loop; see :data:`PEER`. ``vit_tiny_224`` is compared with the official model, which has its
    size; for ``smwm`` the official parts are built with the preset's sizes. The ViT is trained in
    bfloat16, as by its authors, and ``smwm`` in what it takes by itself: float32 on CPUs.

    Args:
        model: ``smwm`` or ``vit_tiny_224``.
        repeats: rounds; one more comes first and is not counted.
        seconds: of a round, which ends with a step.
        batch: windows in one; None for the preset's, or 16 of the ViT on a CPU.
        device: where.
        threads: of the arithmetic of each.
        workers: processes of each that gather batches.
        peer_python: interpreter of an environment for the official code.
        peer_code: checkout of petr-ivashkov/sensorimotor-world-model.

    Returns:
        ``images_per_s`` and ``peer_images_per_s`` with their spreads, ``speedup`` (of the medians) and
        what was compared; the peer's are None without it.

    Raises:
        ConfigError: the peer's interpreter, packages or checkout do not work.
    """
    if peer_python and (peer_code is None or not (peer_code / "planning" / "train.py").is_file()):
        raise ConfigError(
            f"--peer-code {peer_code}: no planning/train.py there; give a checkout of "
            "https://github.com/petr-ivashkov/sensorimotor-world-model"
        )
    contract = _at_side(find_contract("reacher"), SIDE[model])
    config = _config(model, batch, device, workers)
    settings = config.training
    question = {
        "window": config.window,
        "block": contract.block,
        "block_size": contract.block_size,
        "batch": settings.batch,
        "vit": model == "vit_tiny_224",
        "device": device,
        "bfloat16": settings.precision == "bfloat16",
        "threads": threads,
        "workers": workers,
    }
    torch.set_num_threads(threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="smwm-bench-") as folder:
        path = Path(folder) / "store.h5"
        write_noise(path, contract, max(ROWS[model], 2 * settings.batch))
        start = Peer.start(
            peer_python,
            PEER,
            [str(peer_code), str(path), json.dumps(question)],
            absent="not measured: give --peer-python and --peer-code, see docs/models.md",
            advice=ADVICE,
            threads=threads,
        )
        with EpisodeStore(path) as store, start as peer:
            rounds = _Rounds(settings.batch * (config.window + 1), repeats + 1, seconds, device, peer.ask)
            with suppress(_Done):
                train(
                    store,
                    model,
                    config,
                    Path(folder) / "run",
                    device=device,
                    log_every=ENDLESS,
                    save_every=ENDLESS,
                    progress=rounds.step,
                )
    own, peers = figures("images_per_s", rounds.own[1:]), figures("peer_images_per_s", rounds.peers[1:])
    known = peers["peer_images_per_s"]
    return {
        **own,
        **peers,
        "speedup": own["images_per_s"] / known if known else None,
        "peer": peer.name,
        "precision": settings.precision,
        "batch_images": rounds.images,
        "side": SIDE[model],
        "device": device,
        "threads": threads,
        "workers": workers,
        "torch": torch.__version__,
        "repeats": repeats,
        "seconds": seconds,
    }


def bench_models(models: Sequence[str], **options: Any) -> dict[str, Any]:
    """
    Measure several presets by :func:`bench_training`.

    Returns:
        The first one's figures as they are, and the others' with the preset's name before them.

    Raises:
        ConfigError: a preset that is not compared.
    """
    if unknown := [model for model in models if model not in ROWS]:
        raise ConfigError(f"--models {','.join(unknown)}: there is a comparison for {', '.join(ROWS)} only")
    found = {model: bench_training(model, **options) for model in dict.fromkeys(models)}
    first, *others = found
    return found[first] | {f"{model}_{key}": value for model in others for key, value in found[model].items()}


class _Done(Exception):
    """All rounds are over; the training run need not end."""


class _Rounds:
    """Clocks the steps of a training run in rounds, after each of which the peer has one."""

    def __init__(
        self, images: int, rounds: int, seconds: float, device: str, ask: Callable[[float], Any]
    ) -> None:
        self.images = images
        self.own: list[float] = []
        self.peers: list[float | None] = []
        self._rounds, self._seconds, self._device, self._ask = rounds, seconds, device, ask
        self._steps, self._began = 0, time.perf_counter()

    def step(self, done: int, logged: dict[str, float]) -> None:
        """Take note of a step."""
        self._steps += 1
        if time.perf_counter() < self._began + self._seconds:
            return
        if self._device != "cpu":
            torch.cuda.synchronize()
        self.own.append(self._steps * self.images / (time.perf_counter() - self._began))
        self.peers.append(self._ask(self._seconds))
        if len(self.own) == self._rounds:
            raise _Done
        self._steps, self._began = 0, time.perf_counter()


def _config(model: str, batch: int | None, device: str, workers: int) -> ModelConfig:
    """Return the preset as it is measured."""
    config = load_model_config(model)
    changed: dict[str, Any] = {"workers": workers, "steps": ENDLESS, "validation": 0.2}
    if model == "vit_tiny_224":
        changed |= {"precision": "bfloat16"} | ({"batch": SLOW_BATCH} if device == "cpu" else {})
    else:
        changed["precision"] = "float32" if device == "cpu" else "bfloat16"
    if batch:
        changed["batch"] = batch
    return config.model_copy(update={"training": config.training.model_copy(update=changed)})


def _at_side(contract: Contract, side: int) -> Contract:
    """Return a contract with images of another size."""
    image = contract.observation.image.model_copy(update={"size": side})
    observation = contract.observation.model_copy(update={"image": image})
    return contract.model_copy(update={"observation": observation})
