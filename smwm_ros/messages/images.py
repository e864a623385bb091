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
from smwm_ros.errors import DataError
from smwm_ros.messages.stamps import header

RAW_IMAGE = "sensor_msgs/msg/Image"
JPEG_QUALITY = 95


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
        DataError: another size than the contract's.
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
    pixels = {
        "rgb8": lambda: image,
        "bgr8": lambda: image[..., ::-1],
        "rgba8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        "bgra8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2BGRA),
        "mono8": lambda: cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
    }[stream.encoding]()
    return Image(
        header=header(stamp, frame_id),
        height=stream.height,
        width=stream.width,
        encoding=stream.encoding,
        step=pixels[0].size,
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
        return images.decode_compressed(message.format, message.data)
    return images.decode_image(message.encoding, message.height, message.width, message.step, message.data)


def decode_goal(contract: Contract, message: Image) -> NDArray[np.uint8]:
    """
    Read a goal image as the encoder sees it; goals are raw images whatever the camera sends.

    Returns:
        RGB, shape (size, size, 3).

    Raises:
        DataError: another size or encoding than the contract's, or damaged.
    """
    return images.picture(message, contract.observation.image.model_copy(update={"type": RAW_IMAGE}))
