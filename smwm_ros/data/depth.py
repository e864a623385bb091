"""Depth messages to metres on the square that the encoder sees."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import DepthStream, ImageStream
from smwm_ros.data.encodings import PNG_START, coded_size, pixel_rows
from smwm_ros.errors import DataError

Depth = NDArray[np.float32]
"""Shape (H, W), metres; NaN where nothing is known."""

# Of depth images (REP 118): type of a number, metres per unit.
ENCODINGS: dict[str, tuple[str, float]] = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 0.001)}
LARGEST = 8192
"""Pixels on a side."""


def decode_depth(encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: int) -> Depth:
    """
    Unpack the fields of a sensor_msgs/msg/Image that holds depth (REP 118).

    Args:
        encoding: ``32FC1`` (metres) or ``16UC1`` (millimetres).
        height: pixels.
        width: pixels.
        step: bytes from one row to the next.
        data: any buffer of at least ``step * height`` bytes.
        is_bigendian: whether the numbers' high bytes come first.

    Returns:
        Metres, shape (height, width); NaN where the camera measured nothing (zero or not finite).

    Raises:
        DataError: unknown encoding, empty image, or sizes that contradict each other.
    """
    if encoding not in ENCODINGS:
        raise DataError(f"depth encoding {encoding!r} is not supported; use one of {', '.join(ENCODINGS)}")
    number, metres = ENCODINGS[encoding]
    kind = np.dtype(number).newbyteorder(">" if is_bigendian else "<")
    rows = pixel_rows(encoding, height, width, step, data, kind.itemsize)
    return _metres(np.ascontiguousarray(rows).view(kind), metres)


def decode_compressed_depth(kind: str, data: Any) -> Depth:
    """
    Unpack a sensor_msgs/msg/CompressedImage that holds depth: a 16-bit PNG of millimetres.

    image_transport's ``compressedDepth`` puts twelve bytes before it, which are skipped.

    Raises:
        DataError: damaged, or not such a PNG.
    """
    buffer = np.frombuffer(data, np.uint8)
    png = buffer[max(0, buffer[: 12 + len(PNG_START)].tobytes().find(PNG_START)) :]
    size = coded_size(png)
    # A damaged header must not ask for all the memory there is.
    decodable = size is not None and max(size) <= LARGEST and png[0] == PNG_START[0]
    decoded = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if decodable else None
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 2 or kind.startswith("32FC1"):
        raise DataError(
            f"compressed depth ({kind!r}, {len(buffer)} bytes) cannot be decoded; a PNG of 16-bit "
            "millimetres (16UC1) is supported, and the data may be damaged"
        )
    return _metres(decoded, ENCODINGS["16UC1"][1])


def depth_input(depth: Depth, stream: ImageStream) -> Depth:
    """
    Crop a depth image as its camera image, and take the nearest pixels of the encoder's square.

    Nothing is averaged: between an object and what lies behind it there is nothing.

    Args:
        depth: metres, shape (height, width), of the camera image's size.
        stream: the contract's camera image.

    Returns:
        Metres, shape (size, size).

    Raises:
        DataError: another size than the camera image's.
    """
    if depth.shape != (stream.height, stream.width):
        raise DataError(
            f"depth image is {depth.shape[1]}x{depth.shape[0]} pixels, but the camera image "
            f"{stream.width}x{stream.height}; record depth that is registered to the camera"
        )
    left, top, width, height = stream.crop or (0, 0, stream.width, stream.height)
    centres = (np.arange(stream.size) + 0.5) / stream.size
    rows, columns = (top + (centres * height).astype(int)), (left + (centres * width).astype(int))
    return depth[np.ix_(rows, columns)]


def depth_picture(message: Any, depth: DepthStream, image: ImageStream) -> Depth:
    """
    Turn a depth message into metres on the encoder's square.

    Args:
        message: a sensor_msgs/msg/Image or CompressedImage.
        depth: the contract's depth image.
        image: the contract's camera image, on which the square is cut out.

    Returns:
        Metres, shape (size, size); NaN where nothing is known.

    Raises:
        DataError: see the other functions here; also another encoding than the contract's.
    """
    if hasattr(message, "format"):
        return depth_input(decode_compressed_depth(message.format, message.data), image)
    if message.encoding != depth.encoding:
        raise DataError(
            f"depth encoding is {message.encoding!r}, but the contract says {depth.encoding!r} for "
            f"{depth.topic}; correct the contract or the camera"
        )
    shape = (message.height, message.width, message.step)
    return depth_input(decode_depth(message.encoding, *shape, message.data, message.is_bigendian), image)


def _metres(numbers: NDArray[Any], unit: float) -> Depth:
    depth = numbers.astype(np.float32) * np.float32(unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth
