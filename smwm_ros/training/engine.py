"""Where the arithmetic happens: one process, or several that torchrun started."""

from __future__ import annotations

import ctypes
import os
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from smwm_ros.errors import ConfigError
from smwm_ros.models.config import TrainingConfig
from smwm_ros.models.world_model import WorldModel
from smwm_ros.training.dataset import Windows


class Engine:
    """One process on one device."""

    rank = 0
    processes = 1

    def __init__(self, device: str) -> None:
        """
        Take a device.

        Raises:
            ConfigError: there is no such device.
        """
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"device {device!r} cannot be used here ({error}); give one that is there, such as cpu"
            ) from error

    def prepare(self, learner: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Return the module to call and the optimiser to step in the training loop."""
        return learner, optimiser

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients, the mean over all processes."""
        loss.backward()  # type: ignore[no-untyped-call]


class FabricEngine(Engine):
    """
    One of the processes that torchrun started: Lightning Fabric's distributed data parallel.

    Each process works on its part of every batch. BatchNorm sees that part alone, unless on CUDA,
    where its statistics are those of the whole batch.
    """

    def __init__(self, device: str) -> None:
        """
        Join the other processes.

        Raises:
            ConfigError: Lightning Fabric is not installed.
        """
        try:
            from lightning_fabric import Fabric  # noqa: PLC0415 - an extra
            from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(
                f"training by torchrun needs Lightning Fabric ({error}): pip install "
                "'smwm_ros[distributed]', or start 'smwm train' without torchrun"
            ) from error
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        kind = torch.device(device).type
        # A preset need not use all it has: forward_only never asks its inverse model.
        strategy = DDPStrategy(find_unused_parameters=True)
        nodes = int(os.environ["WORLD_SIZE"]) // local
        self._fabric = Fabric(accelerator=kind, devices=local, num_nodes=nodes, strategy=strategy)
        self._fabric.launch()
        self.device = self._fabric.device
        self.rank, self.processes = self._fabric.global_rank, self._fabric.world_size

    def prepare(self, learner: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Wrap both; the learner's own parameters are those of the wrapped one."""
        if self.device.type == "cuda":
            learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)  # type: ignore[no-untyped-call]
        return cast(tuple[nn.Module, Any], self._fabric.setup(learner, optimiser))

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients, the mean over all processes."""
        self._fabric.backward(loss)


def make_engine(device: str) -> Engine:
    """Return the engine for this process: torchrun's, when it started it."""
    return FabricEngine(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Engine(device)


@dataclass(frozen=True)
class Share(Windows):
    """The windows as one of several processes sees them: its part of each batch."""

    rank: int
    processes: int

    @classmethod
    def of(cls, windows: Windows, engine: Engine) -> Share:
        """Take an engine's share of windows."""
        return cls(**vars(windows), rank=engine.rank, processes=engine.processes)

    def batches(self, batch: int, seed: int, first: int = 0) -> Any:
        """Yield this process's part of each batch; together they are those of one process."""
        for which in super().batches(batch, seed, first):
            yield which[self.rank :: self.processes]


def set_up_networks(model: WorldModel, settings: TrainingConfig) -> None:
    """Arrange the networks for speed, as the settings say; where compiling fails, they run as they are."""
    if settings.channels_last:
        model.encoder.to(memory_format=torch.channels_last)
    if settings.compile:
        from torch._dynamo import config as dynamo  # noqa: PLC0415 - slow, and seldom wanted

        # A missing C++ compiler or an unsupported operation costs speed, not the run.
        dynamo.suppress_errors = True
        model.encoder.compile()
        model.dynamics.compile()


def arithmetic(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """
    Return the context in which the loss is computed.

    Args:
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 on CUDA devices that have it.
        device: where.
    """
    has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "bfloat16" and device.type == "cuda" and not has_bfloat16:
        warnings.warn(f"{device} has no bfloat16; training in float32", stacklevel=2)
    wanted = has_bfloat16 if precision == "auto" or device.type == "cuda" else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and precision != "float32")


def keep_freed_memory() -> None:
    """
    Let this process keep the memory that it frees, for the next step to use again.

    Each step frees as much as it takes; to have the system clear the same pages again and again costs
    a CPU 5 to 20 % of the time. Nothing happens where the C library is not glibc.
    """
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt") and hasattr(allocator, "gnu_get_libc_version"):
        trim_threshold, map_threshold = -1, -3  # as malloc.h numbers them
        allocator.mallopt(map_threshold, 1 << 30)
        allocator.mallopt(trim_threshold, (1 << 31) - 1)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that a resumed run draws what the uninterrupted one would have drawn."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))
