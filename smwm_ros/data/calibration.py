"""The camera's calibration, for the square that the encoder sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smwm_ros.contract import ImageStream
from smwm_ros.errors import DataError


def square_calibration(info: Any, stream: ImageStream) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Move a calibration along with its picture: through the camera's own cut and binning, crop and resizing.

    Pixels are counted from the centre of the first one, as OpenCV does. The distortion is of the lens and
    stays as it is.

    Args:
        info: a sensor_msgs/msg/CameraInfo.
        stream: the contract's camera image.

    Returns:
        The camera matrix K (3, 3) and the projection P (3, 4) of the square; zero where uncalibrated.

    Raises:
        DataError: the calibration is of another size than the contract's image, or not finite.
    """
    roi = info.roi
    binning = max(1, info.binning_x), max(1, info.binning_y)
    size = (roi.width or info.width) // binning[0], (roi.height or info.height) // binning[1]
    if size != (stream.width, stream.height):
        raise DataError(
            f"camera info is of {size[0]}x{size[1]} pixels, but the contract says "
            f"{stream.width}x{stream.height} for {stream.topic}; calibrate the camera at that size"
        )
    matrix, projection = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))
    if not (np.isfinite(matrix).all() and np.isfinite(projection).all()):
        raise DataError("camera info is not finite; calibrate the camera anew")
    left, top, width, height = stream.crop or (0, 0, stream.width, stream.height)
    sent = _map((roi.x_offset, roi.y_offset), np.divide(1, binning))
    seen = _map((left, top), np.divide(stream.size, (width, height))) @ sent
    return seen @ matrix, seen @ projection


def _map(corner: ArrayLike, scale: ArrayLike) -> NDArray[np.float64]:
    """Return the map, shape (3, 3), from pixels to those of a part that begins at a corner and is resized."""
    scale = np.asarray(scale, float)
    made = np.diag([*scale, 1.0])
    made[:2, 2] = (0.5 - np.asarray(corner, float)) * scale - 0.5
    return made
