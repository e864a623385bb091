"""Camera messages and goal images, as the contract describes them."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from smwm_ros.contract import Contract
from smwm_ros.data import images
from smwm_ros.data.encodings import decode_compressed
from smwm_ros.data.encodings import decode_image as decode_raw
from smwm_ros.errors import DataError
from smwm_ros.messages.stamps import header

RAW_IMAGE = "sensor_msgs/msg/Image"
JPEG_QUALITY = 95
CONVERSIONS = {
    "rgba": cv2.COLOR_RGB2RGBA,
    "bgra": cv2.COLOR_RGB2BGRA,
    "mono": cv2.COLOR_RGB2GRAY,
}
YUV_ORDER = {"yuv422": "cy", "uyvy": "cy", "yuv422_yuy2": "yc", "yuyv": "yc"}
"""Of brightness and colour, in each pixel's two bytes."""
YUV = np.array([[65.738, 129.057, 25.064], [-37.945, -74.494, 112.439], [112.439, -94.154, -18.285]]) / 256
"""From RGB to Y, U, V (BT.601)."""


def image_type(contract: Contract) -> Any:
    """Return the message class of the contract's camera topic."""
    return Image if contract.observation.image.type == RAW_IMAGE else CompressedImage


def encode_image(
    contract: Contract, image: NDArray[np.uint8], stamp: int, frame_id: str = "", *, raw: bool = False
) -> Any:
    """
    Return a camera message of the contract's type and encoding.

    Args:
        contract: the robot.
        image: RGB, shape (height, width, 3).
        stamp: nanoseconds.
        frame_id: of the camera.
        raw: make an Image also where the camera sends compressed ones, as for a goal.

    Raises:
        DataError: another size than the contract's, or a depth camera's encoding.
    """
    stream = contract.observation.image
    if image.shape != (stream.height, stream.width, 3) or image.dtype != np.uint8:
        raise DataError(
            f"image has shape {image.shape} of {image.dtype}, expected ({stream.height}, {stream.width}, 3) "
            "of uint8, RGB, as the contract says"
        )
    if stream.type != RAW_IMAGE and not raw:
        jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )[1]
        return CompressedImage(header=header(stamp, frame_id), format="jpeg", data=array("B", jpeg.tobytes()))
    pixels = _pixels(image, stream.encoding)
    return Image(
        header=header(stamp, frame_id),
        height=stream.height,
        width=stream.width,
        encoding=stream.encoding,
        step=pixels[0].nbytes,
        data=array("B", pixels.tobytes()),
    )


def decode_image(contract: Contract, message: Any) -> NDArray[np.uint8]:
    """
    Read a camera message as the camera sent it.

    Returns:
        RGB, shape (height, width, 3).

    Raises:
        DataError: damaged, or an unknown encoding.
    """
    if contract.observation.image.type != RAW_IMAGE:
        return decode_compressed(message.format, message.data)
    shape = (message.height, message.width, message.step)
    return decode_raw(message.encoding, *shape, message.data, message.is_bigendian)


def decode_goal(contract: Contract, message: Image) -> NDArray[np.uint8]:
    """
    Read a goal image as the encoder sees it; goals are raw images whatever the camera sends.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        DataError: another size or encoding than the contract's, or damaged.
    """
    return images.picture(message, contract.observation.image.model_copy(update={"type": RAW_IMAGE}))


def _pixels(image: NDArray[np.uint8], encoding: str) -> NDArray[Any]:
    """Lay out an RGB image as an encoding says: rows first, little-endian."""
    if encoding in YUV_ORDER:
        return _yuv422(image, YUV_ORDER[encoding])
    name, bits = encoding.rstrip("0123456789"), encoding[-2:]
    if name == "rgb":
        pixels = image
    elif name == "bgr":
        pixels = image[..., ::-1]
    elif name in CONVERSIONS:
        pixels = cv2.cvtColor(image, CONVERSIONS[name]).astype(np.uint8, copy=False)
    elif name.startswith("bayer_"):
        pixels = np.empty(image.shape[:2], np.uint8)
        for place, colour in enumerate(name[-4:]):
            rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
            pixels[rows, columns] = image[rows, columns, "rgb".index(colour)]
    else:
        raise DataError(f"colours cannot be sent as {encoding}: the contract's camera measures depth")
    return pixels if bits != "16" else pixels * np.dtype("<u2").type(257)


def _yuv422(image: NDArray[np.uint8], order: str) -> NDArray[np.uint8]:
    """Return BT.601's limited range, shape (H, W, 2): two pixels of a row share their colour."""
    if image.shape[1] % 2:
        raise DataError(f"an image of {image.shape[1]} pixels in a row: yuv422 needs an even number")
    yuv = image @ YUV.T + (16, 128, 128)
    pairs = yuv.reshape(len(image), -1, 2, 3)
    colour = pairs[:, :, :, 1:].mean(2)
    parts = {"y": pairs[..., 0].reshape(len(image), -1), "c": colour.reshape(len(image), -1)}
    pixels = np.stack([parts[part] for part in order], axis=-1)
    return np.rint(pixels).clip(0, 255).astype(np.uint8)
