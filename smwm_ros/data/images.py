"""
Image messages to the square RGB pictures that the encoder sees.

The live perception and the reader of bags both call :func:`picture`, so a model meets the same pixels
in training and on the robot. These functions take the messages' fields and know nothing of ROS.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import ImageStream
from smwm_ros.errors import DataError

Picture = NDArray[np.uint8]
"""Shape (H, W, 3), RGB."""

# Bytes per pixel, and which of them are red, green and blue.
ENCODINGS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}
JPEG_START, JPEG_END, PNG_START = b"\xff\xd8", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
# JPEG's markers of a frame's header: all of C0 to CF, but for tables, an extension and conditioning.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


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


def decode_image(
    encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: int = 0
) -> Picture:
    """
    Unpack the fields of a sensor_msgs/msg/Image.

    Args:
        encoding: one of ``ENCODINGS``.
        height: pixels.
        width: pixels.
        step: bytes from one row to the next; more than a row needs means padding, which is skipped.
        data: any buffer of at least ``step * height`` bytes.
        is_bigendian: of no consequence for 8-bit channels.

    Returns:
        RGB, shape (height, width, 3); may share memory with ``data``.

    Raises:
        DataError: unknown encoding, empty image, or sizes that contradict each other.
    """
    if encoding not in ENCODINGS:
        raise DataError(f"image encoding {encoding!r} is not supported; use one of {', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[encoding]
    rows = pixel_rows(encoding, height, width, step, data, channels)
    if encoding == "rgb8" and step == width * channels:
        return rows.reshape(height, width, 3)
    return np.ascontiguousarray(rows.reshape(height, width, channels)[..., order])


def pixel_rows(encoding: str, height: int, width: int, step: int, data: Any, pixel: int) -> NDArray[np.uint8]:
    """
    Return the bytes of an image's pixels, without padding and without copying.

    Args:
        encoding: for messages.
        height: pixels.
        width: pixels.
        step: bytes from one row to the next.
        data: any buffer.
        pixel: bytes of a pixel.

    Returns:
        Shape (height, width * pixel); a view of ``data``.

    Raises:
        DataError: empty image, or sizes that contradict each other.
    """
    if height < 1 or width < 1:
        raise DataError(f"image of {width}x{height} pixels is empty")
    if step < width * pixel:
        raise DataError(
            f"image step {step} is less than the {width * pixel} bytes that {width} {encoding} pixels need"
        )
    buffer = np.frombuffer(data, np.uint8)
    # The last row need not carry its padding.
    needed = step * (height - 1) + width * pixel
    if len(buffer) < needed:
        raise DataError(
            f"image holds {len(buffer)} bytes; {width}x{height} {encoding} with step {step} needs {needed}"
        )
    if step == width * pixel:
        return buffer[:needed].reshape(height, step)
    return np.lib.stride_tricks.as_strided(buffer, (height, width * pixel), (step, 1), writeable=False)


def decode_compressed(kind: str, data: Any, reduction: int = 1) -> Picture:
    """
    Unpack the fields of a sensor_msgs/msg/CompressedImage (JPEG or PNG).

    Args:
        kind: the field ``format``; only for messages, as the data say themselves what they are.
        data: any buffer.
        reduction: decode to 1/2, 1/4 or 1/8 of the size, of JPEG only: its cosine transform gives the
            means of blocks of pixels without the pixels themselves, in less time.

    Returns:
        RGB, shape (height, width, 3).

    Raises:
        DataError: empty, damaged or cut off data, or a format that OpenCV cannot read.
    """
    buffer = np.frombuffer(data, np.uint8)
    # OpenCV raises on an empty buffer, and old releases fill up what was cut off with grey. Some
    # cameras pad the data with zeros.
    whole = len(buffer) > 0
    if whole and buffer[:2].tobytes() == JPEG_START and buffer[-2:].tobytes() != JPEG_END:
        whole = buffer.tobytes().rstrip(b"\0").endswith(JPEG_END)
    # What a camera says of its orientation is not heeded: the contract's size is that of the pixels.
    flags = REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(buffer, flags) if whole else None
    if decoded is None:
        raise _undecodable(kind, data)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def coded_size(data: Any) -> tuple[int, int] | None:
    """Return the height and width that the header of a JPEG or PNG says; None if the data are neither."""
    view = memoryview(data).cast("B")
    if view[:8] == PNG_START and len(view) >= 24:
        return _number(view[20:24]), _number(view[16:20])
    place = 2 if view[:2] == JPEG_START else len(view)
    while place + 9 <= len(view) and view[place] == 0xFF:
        marker = view[place + 1]
        if marker in FRAME_HEADERS:
            return _number(view[place + 5 : place + 7]), _number(view[place + 7 : place + 9])
        filler = marker == 0xFF
        place += 1 if filler else 2 + _number(view[place + 2 : place + 4])
    return None


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


def picture(message: ImageMessage | CompressedImageMessage, stream: ImageStream) -> Picture:
    """
    Turn a camera message into what the encoder sees: decode, check against the contract, crop, resize.

    A JPEG of at least four times the encoder's pixels is decoded to half its size or less at once.

    Args:
        message: of the type the contract names.
        stream: the contract's image.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        DataError: see the other functions here; also another encoding than the contract's.
    """
    if stream.type == "sensor_msgs/msg/CompressedImage":
        compressed = cast("CompressedImageMessage", message)
        size = coded_size(compressed.data)
        if size is None:
            raise _undecodable(compressed.format, compressed.data)
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


def _undecodable(kind: str, data: Any) -> DataError:
    return DataError(
        f"compressed image ({kind!r}, {memoryview(data).nbytes} bytes) cannot be decoded; JPEG and PNG with "
        "8-bit channels are supported, and the data may be damaged"
    )


def _number(view: memoryview) -> int:
    return int.from_bytes(view, "big")


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
