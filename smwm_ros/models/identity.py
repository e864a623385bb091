"""Which model a checkpoint's file holds, without reading its weights: needs no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from smwm_ros.errors import CheckpointError

LARGEST_FILE = 4 << 30
"""Bytes; a larger file is refused unread."""
HINT = "Train one with 'smwm train', or give the path of another."


def read_content(path: Path) -> bytes:
    """
    Read a checkpoint's file.

    Raises:
        CheckpointError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise CheckpointError(f"{path}: over {LARGEST_FILE >> 30} GiB; this is no checkpoint. {HINT}")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint ({error.strerror}). {HINT}") from error


def metadata(content: bytes) -> dict[str, Any]:
    """
    Return the JSON that :func:`smwm_ros.models.checkpoint.save_checkpoint` put into the safetensors header.

    Raises:
        ValueError, KeyError, struct.error: there is none.
    """
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    return json.loads(header["__metadata__"]["smwm"])


def identity(preset: str, robot: str, content: bytes) -> str:
    """Return the id of the model in a file: no two models share one."""
    return f"{preset}-{robot}-{hashlib.sha256(content).hexdigest()[:8]}"


def read_identity(path: Path) -> str:
    """
    Return the id of the model in a file, as plans and latents carry it.

    Raises:
        CheckpointError: the file cannot be read, or is no checkpoint.
    """
    content = read_content(path)
    try:
        found = metadata(content)
        return identity(found["preset"], found["contract"]["name"], content)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise CheckpointError(f"{path}: not a whole smwm checkpoint ({error!r}). {HINT}") from error
