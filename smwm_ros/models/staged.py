"""Encoding on a GPU without holding up others: pinned memory and a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from smwm_ros.models.checkpoint import Checkpoint


class StagedEncoder:
    """
    Encodes one observation at a time; not for several threads at once.

    The pictures go through memory that the GPU reads by itself, and copies and network run on a stream
    of their own: what other users of the GPU in this process have queued up is not waited for.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """
        Reserve the memory.

        Args:
            checkpoint: on a CUDA device.
        """
        size = checkpoint.contract.observation.image.size
        shape = (1, checkpoint.frames, size, size, 3)
        self._model = checkpoint.model
        self._stream = torch.cuda.Stream(checkpoint.device)  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._images = torch.empty(shape, dtype=torch.uint8, device=checkpoint.device)
        self._latent = torch.empty(checkpoint.latent_size, pin_memory=True)
        # The weights may still be on their way, on the default stream.
        torch.cuda.synchronize(checkpoint.device)

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As :meth:`Checkpoint.encode`."""
        self._pinned.numpy()[0] = images
        with torch.cuda.stream(self._stream):
            self._images.copy_(self._pinned, non_blocking=True)
            latent = self._model.encode(self._images)[0]
            self._latent.copy_(latent, non_blocking=True)
        self._stream.synchronize()
        return self._latent.numpy().copy()
