"""
The episode store: aligned episodes in one HDF5 file, laid out as LeWM and stable-worldmodel do it.

Every column is a dataset with one row per tick, all episodes after one another; ``ep_len`` and
``ep_offset`` (int64, one per episode) say where each lies:

========  ======================  ===============================================================
pixels    (N, S, S, 3) uint8      RGB, as the encoder sees it
action    (N, A) float32          applied from this image until the next, in the contract's units;
                                  NaN in the last row of an episode, where no next image is
stamp     (N,) int64              of the image, nanoseconds
others    (N, ...)                state columns such as ``joints``
========  ======================  ===============================================================

The file's attributes hold the contract (JSON), a fingerprint of the contents, and where they came
from (JSON).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.errors import DataError

REQUIRED = ("pixels", "action")
INDEX = ("ep_len", "ep_offset")
CHUNK_BYTES = 1 << 18
"""Bytes in one chunk: large enough for fast sequential writes, small enough for random windows."""


def check_columns(columns: Mapping[str, Any], contract: Contract, source: str) -> None:
    """Raise a DataError if pixels or actions are not as the contract says."""
    size = contract.observation.image.size
    pixels, action = columns["pixels"], columns["action"]
    if pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
        raise DataError(
            f"{source}: pixels are {pixels.shape[1:]} {pixels.dtype}; the contract {contract.name!r} expects "
            f"{(size, size, 3)} uint8"
        )
    if action.shape[1:] != (contract.action.size,) or action.dtype.kind != "f":
        raise DataError(
            f"{source}: actions are {action.shape[1:]} {action.dtype}; the contract {contract.name!r} "
            f"expects {(contract.action.size,)} floats"
        )


def check_actions(actions: NDArray[Any], source: str) -> None:
    """Raise a DataError unless exactly the last row lacks its action."""
    if not np.isfinite(actions[:-1]).all():
        row = int(np.flatnonzero(~np.isfinite(actions[:-1]).all(axis=1))[0])
        raise DataError(f"{source}: the action of row {row} is not finite; only the last row may lack one")
    if not np.isnan(actions[-1]).all():
        raise DataError(
            f"{source}: the last row has an action, but no image follows it; set the action to NaN, "
            "or give the last image"
        )
