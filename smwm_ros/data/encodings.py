"""
What cameras send, and the RGB pixels in it: sensor_msgs' encodings, JPEG and PNG.

The colours are those of cv_bridge, whose conversions these are. These functions take the messages' fields
and know nothing of ROS.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from smwm_ros.errors import DataError

Picture = NDArray[np.uint8]
"""Shape (H, W, 3), RGB."""


class Layout(NamedTuple):
    """How an encoding lays out a pixel."""

    number: str
    """Type of a number, without its byte order."""
    channels: int
    to_rgb: int | None
    """OpenCV's conversion; None: it is RGB."""
    even: bool = False
    """Whether two pixels of a row share their colour."""


# What a message calls an order of its colour filters is that of the first two rows; OpenCV goes by the second
# row and column.
_COLOURS: dict[str, tuple[int, int | None]] = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2RGB),
}
ENCODINGS: dict[str, Layout] = {
    **{
        f"{name}{bits}": Layout(number, *layout)
        for bits, number in ((8, "u1"), (16, "u2"))
        for name, layout in _COLOURS.items()
    },
    "yuv422": Layout("u1", 2, cv2.COLOR_YUV2RGB_UYVY, even=True),
    "uyvy": Layout("u1", 2, cv2.COLOR_YUV2RGB_UYVY, even=True),
    "yuv422_yuy2": Layout("u1", 2, cv2.COLOR_YUV2RGB_YUYV, even=True),
    "yuyv": Layout("u1", 2, cv2.COLOR_YUV2RGB_YUYV, even=True),
}
"""The encodings of pictures; those of depth are in :mod:`smwm_ros.data.depth`."""
LEAST_BAYER = 4
"""Pixels on a side from which colours can be told."""
JPEG_START, JPEG_END, PNG_START = b"\xff\xd8", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
# JPEG's markers of a frame's header: all of C0 to CF, but for tables, an extension and conditioning.
FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def decode_image(
    encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: int = 0
) -> Picture:
    """
    Unpack the fields of a sensor_msgs/msg/Image.

    Args:
        encoding: one of ``ENCODINGS``. Of 16 bits, the full scale becomes that of 8.
        height: pixels.
        width: pixels.
        step: bytes from one row to the next; more than a row needs means padding, which is skipped.
        data: any buffer of at least ``step * height`` bytes.
        is_bigendian: whether the high bytes of numbers of 16 bits come first.

    Returns:
        RGB, shape (height, width, 3); may share memory with ``data``.

    Raises:
        DataError: unknown encoding, empty image, or sizes that contradict each other.
    """
    if encoding not in ENCODINGS:
        raise DataError(f"image encoding {encoding!r} is not supported; use one of {', '.join(ENCODINGS)}")
    number, channels, to_rgb, even = ENCODINGS[encoding]
    kind = np.dtype(number).newbyteorder(">" if is_bigendian else "<")
    rows = pixel_rows(encoding, height, width, step, data, channels * kind.itemsize)
    if even and width % 2:
        raise DataError(f"image of {width}x{height} pixels: {encoding} needs an even width")
    if encoding.startswith("bayer") and min(height, width) < LEAST_BAYER:
        raise DataError(f"image of {width}x{height} pixels is too small for {encoding}")
    pixels = np.ascontiguousarray(rows).view(kind).reshape(height, width, channels)
    if to_rgb is not None:
        pixels = cv2.cvtColor(pixels.astype(kind.newbyteorder("="), copy=False), to_rgb)
    if kind.itemsize > 1:
        pixels = cv2.convertScaleAbs(pixels.astype(kind.newbyteorder("="), copy=False), alpha=255 / 65535)
    return pixels.astype(np.uint8, copy=False)


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
        raise undecodable(kind, data)
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


def undecodable(kind: str, data: Any) -> DataError:
    """Return the error for a compressed image that nobody can read."""
    return DataError(
        f"compressed image ({kind!r}, {memoryview(data).nbytes} bytes) cannot be decoded; JPEG and PNG with "
        "8-bit channels are supported, and the data may be damaged"
    )


def _number(view: memoryview) -> int:
    return int.from_bytes(view, "big")
