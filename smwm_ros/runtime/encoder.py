"""The encoder at work: one observation after another, on a GPU from pinned memory on a stream of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint


class Encoder:
    """Encodes observations, and frees the device's cached memory once before it gives up."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """
        Make ready; on a GPU, reserve what one observation needs.

        Args:
            checkpoint: of the world model.
        """
        self._checkpoint = checkpoint
        self._encode = checkpoint.encode
        self.freed = 0
        """How often memory had to be freed."""
        device = getattr(checkpoint, "device", None)
        if device is not None and device.type == "cuda":
            from smwm_ros.models.staged import StagedEncoder  # noqa: PLC0415 - torch, which a stand-in lacks

            self._encode = StagedEncoder(checkpoint).encode

    def encode(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """
        Encode one observation.

        Args:
            frames: n RGB pictures, oldest first, each of shape (S, S, 3).

        Returns:
            The latent, shape (D,).

        Raises:
            torch.OutOfMemoryError: twice in a row, with the cached memory freed in between.
        """
        images = np.stack(frames)
        try:
            return self._encode(images)
        except Exception as error:
            if not out_of_memory(error):
                raise
        self.freed += 1
        _torch().cuda.empty_cache()
        return self._encode(images)


def out_of_memory(error: Exception) -> bool:
    """Tell whether an exception says that the device's memory is used up, in the words of torch or CUDA."""
    kinds = getattr(_torch(), "OutOfMemoryError", ())
    return isinstance(error, kinds) or str(error).startswith("CUDA error: out of memory")


def device_lost(error: Exception) -> bool:
    """
    Tell whether an exception says that the GPU has failed, and not merely that its memory is used up.

    After most such errors (an illegal memory access, a failed assertion, a fault of the hardware) CUDA
    refuses all that the process asks for, until it ends. Older torch raises a RuntimeError for them.
    """
    kinds = getattr(_torch(), "AcceleratorError", ())
    failed = isinstance(error, kinds) or str(error).startswith("CUDA error: ")
    return failed and not out_of_memory(error)


def _torch() -> Any:
    """Return torch if it is loaded: only then can it have raised anything."""
    return sys.modules.get("torch")
