"""Short videos that every browser plays: VP8 in WebM, which OpenCV's wheels can write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.errors import ConfigError

GUTTER = 8
TEXT_HEIGHT = 28
BACKGROUND = 24
"""Grey level between and below the pictures."""


def beside(pictures: list[NDArray[np.uint8]], caption: str, side: int = 256) -> NDArray[np.uint8]:
    """
    Put pictures beside one another, with a line of text below.

    Args:
        pictures: RGB, any sizes, shape (h, w, 3) each.
        caption: the line; ASCII.
        side: height and width each is scaled to, pixels.

    Returns:
        RGB, shape (side + text, n * side + gutters, 3).
    """
    width = len(pictures) * (side + GUTTER) - GUTTER
    frame = np.full((side + TEXT_HEIGHT, width, 3), BACKGROUND, np.uint8)
    for number, picture in enumerate(pictures):
        left = number * (side + GUTTER)
        frame[:side, left : left + side] = cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)
    cv2.putText(
        frame, caption, (6, side + 19), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (230, 230, 230), 1, cv2.LINE_AA
    )
    return frame


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], rate: float) -> None:
    """
    Write a video.

    Args:
        path: ends in .webm.
        frames: RGB, all of one size with even sides, shape (h, w, 3) each.
        rate: frames per second.

    Raises:
        ConfigError: this OpenCV cannot write such videos; nothing is left behind.
    """
    writer: cv2.VideoWriter | None = None
    try:
        for frame in frames:
            if writer is None:
                writer = _open(path, frame.shape[1], frame.shape[0], rate)
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()


def _open(path: Path, width: int, height: int, rate: float) -> cv2.VideoWriter:
    with _silence():
        writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), rate, (width, height)
        )
    if not writer.isOpened():
        path.unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: this OpenCV ({cv2.__version__}) cannot write VP8 video; "
            "'pip install opencv-python-headless' brings one that can"
        )
    return writer


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what C code writes to stderr: OpenCV complains there of a tag that WebM does not use."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
