"""
Camera messages to the square RGB pictures that the encoder sees.

The live perception and the reader of bags both call :func:`picture`, so a model meets the same pixels
in training and on the robot. These functions take the messages' fields and know nothing of ROS.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import cv2
import numpy as np

from smwm_ros.contract import DepthStream, ImageStream
from smwm_ros.data.depth import ENCODINGS as DEPTH_ENCODINGS
from smwm_ros.data.depth import Depth, depth_picture
from smwm_ros.data.encodings import (
    JPEG_START,
    REDUCED,
    Picture,
    coded_size,
    decode_compressed,
    decode_image,
    undecodable,
)
from smwm_ros.errors import DataError


class ImageMessage(Protocol):
    """What a sensor_msgs/msg/Image has, whether rclpy or a bag reader made it."""

    encoding: str
    height: int
    width: int
    step: int
    data: Any
    is_bigendian: int


class CompressedImageMessage(Protocol):
    """What a sensor_msgs/msg/CompressedImage has, whether rclpy or a bag reader made it."""

    format: str
    data: Any


def model_input(image: Picture, stream: ImageStream) -> Picture:
    """
    Crop an image and resize it (area averaging) to the encoder's square, as the contract says.

    Args:
        image: RGB, shape (height, width, 3), of the contract's size.
        stream: the contract's image.

    Returns:
        RGB, shape (size, size, 3), contiguous; may be ``image`` itself.

    Raises:
        DataError: another size than the contract's; says both.
    """
    _check_size(image.shape[:2], stream)
    return _square(image, stream, 1)


def enlarge(square: Picture, stream: ImageStream) -> Picture:
    """
    Make a camera's image of what the encoder would see of it: the inverse of :func:`model_input`.

    Args:
        square: RGB, shape (size, size, 3).
        stream: the contract's image.

    Returns:
        RGB, shape (height, width, 3); black outside the crop.
    """
    left, top, width, height = stream.crop or (0, 0, stream.width, stream.height)
    image = np.zeros((stream.height, stream.width, 3), np.uint8)
    part = image[top : top + height, left : left + width]
    part[:] = cv2.resize(square, (width, height), interpolation=cv2.INTER_NEAREST)
    return image


def picture(message: ImageMessage | CompressedImageMessage, stream: ImageStream) -> Picture:
    """
    Turn a camera message into what the encoder sees: decode, check against the contract, crop, resize.

    A JPEG of at least four times the encoder's pixels is decoded to half its size or less at once. Depth
    becomes grey: white at the contract's ``depth_range[0]``, black at ``depth_range[1]`` and where nothing
    is known.

    Args:
        message: of the type the contract names.
        stream: the contract's image.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        DataError: damaged, or another size or encoding than the contract's.
    """
    if stream.encoding in DEPTH_ENCODINGS:
        source = DepthStream.model_construct(topic=stream.topic, encoding=stream.encoding)
        return _grey(depth_picture(message, source, stream), stream)
    if stream.type == "sensor_msgs/msg/CompressedImage":
        compressed = cast("CompressedImageMessage", message)
        size = coded_size(compressed.data)
        if size is None:
            raise undecodable(compressed.format, compressed.data)
        _check_size(size, stream)
        jpeg = memoryview(compressed.data).cast("B")[:2] == JPEG_START
        reduction = _reduction(stream) if jpeg else 1
        return _square(decode_compressed(compressed.format, compressed.data, reduction), stream, reduction)
    raw = cast("ImageMessage", message)
    if raw.encoding != stream.encoding:
        raise DataError(
            f"image encoding is {raw.encoding!r}, but the contract says {stream.encoding!r} for "
            f"{stream.topic}; correct the contract or the camera"
        )
    image = decode_image(raw.encoding, raw.height, raw.width, raw.step, raw.data, raw.is_bigendian)
    return model_input(image, stream)


def _check_size(size: tuple[int, ...], stream: ImageStream) -> None:
    if size != (stream.height, stream.width):
        raise DataError(
            f"image is {size[1]}x{size[0]} pixels, but the contract says "
            f"{stream.width}x{stream.height} for {stream.topic}; correct the contract or the camera"
        )


def _reduction(stream: ImageStream) -> int:
    """Return by how much a JPEG may be reduced: exactly, and to no less than twice the square's side."""
    bounds = (*(stream.crop or ()), stream.width, stream.height)
    side = min(bounds[-2:] if stream.crop is None else stream.crop[2:])
    fits = [by for by in REDUCED if side >= 2 * by * stream.size and not any(n % by for n in bounds)]
    return max(fits, default=1)


def _square(image: Picture, stream: ImageStream, reduction: int) -> Picture:
    """Crop and resize an image of the contract's size, or one reduced from it."""
    if stream.crop is not None:
        left, top, width, height = (number // reduction for number in stream.crop)
        image = image[top : top + height, left : left + width]
    if image.shape[:2] != (stream.size, stream.size):
        image = cv2.resize(image, (stream.size, stream.size), interpolation=cv2.INTER_AREA).astype(
            np.uint8, copy=False
        )
    return np.ascontiguousarray(image)


def _grey(depth: Depth, stream: ImageStream) -> Picture:
    if stream.depth_range is None:
        raise DataError(f"the contract gives no depth_range for {stream.topic}")
    near, far = stream.depth_range
    nearness = np.nan_to_num((far - depth) / (far - near), nan=0.0)
    grey = np.rint(255 * np.clip(nearness, 0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
