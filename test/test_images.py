"""Camera messages become the same RGB squares, whatever they were sent as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import robot

from smwm_ros.data.images import decode_compressed, decode_image, model_input, picture
from smwm_ros.errors import DataError

# One pixel that says which byte is which.
RED, GREEN, BLUE, ALPHA = 200, 100, 50, 7
ONE_PIXEL = {
    "rgb8": [RED, GREEN, BLUE],
    "bgr8": [BLUE, GREEN, RED],
    "rgba8": [RED, GREEN, BLUE, ALPHA],
    "bgra8": [BLUE, GREEN, RED, ALPHA],
}


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def smooth(side: int) -> np.ndarray:
    """Return a picture that JPEG keeps nearly unchanged."""
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return np.stack([*np.meshgrid(ramp, ramp), np.full((side, side), 128, np.uint8)], axis=-1)


@pytest.mark.parametrize("encoding", ONE_PIXEL)
def test_channels_come_out_as_rgb(encoding: str) -> None:
    """A swap of red and blue trains well and fails on the robot."""
    pixel = ONE_PIXEL[encoding]
    image = decode_image(encoding, 1, 1, len(pixel), bytes(pixel))
    assert image.tolist() == [[[RED, GREEN, BLUE]]]


def test_grey_fills_all_channels() -> None:
    assert decode_image("mono8", 1, 2, 2, bytes([9, 8])).tolist() == [[[9, 9, 9], [8, 8, 8]]]


@given(
    st.sampled_from(["rgb8", "bgr8", "rgba8", "bgra8", "mono8"]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.booleans(),
)
def test_padded_rows_change_nothing(
    encoding: str, height: int, width: int, padding: int, whole_last_row: bool
) -> None:
    """Cameras pad rows for alignment; some leave the padding of the last one out."""
    channels = {"mono8": 1}.get(encoding, int(encoding[-1] == "8") + len(encoding) - 2)
    rows = noise(height, width, channels).reshape(height, -1)
    tight = decode_image(encoding, height, width, rows.shape[1], rows.tobytes())
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99).tobytes()
    if not whole_last_row and padding:
        padded = padded[:-padding]
    image = decode_image(encoding, height, width, rows.shape[1] + padding, padded)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, tight)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_any_buffer_will_do(kind: Any) -> None:
    """ROS gives array.array, bag readers give numpy arrays."""
    pixels = noise(3, 4)
    np.testing.assert_array_equal(decode_image("rgb8", 3, 4, 12, kind(pixels.tobytes())), pixels)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (("16UC1", 2, 2, 4, bytes(8)), "16UC1.*rgb8"),
        (("rgb8", 0, 2, 6, b""), "empty"),
        (("rgb8", 2, 2, 5, bytes(10)), "step 5.*6 bytes"),
        (("rgb8", 2, 2, 6, bytes(11)), "11 bytes.*12"),
        (("rgb8", 10**9, 10**9, 3 * 10**9, bytes(12)), "12 bytes"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: Any, reason: str) -> None:
    """Above all: no read beyond the buffer, whatever sizes a message claims."""
    with pytest.raises(DataError, match=reason):
        decode_image(*fields)


def test_png_keeps_every_pixel() -> None:
    pixels = noise(5, 6)
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("rgb8; png compressed bgr8", data), pixels)


def test_jpeg_keeps_the_channels_apart() -> None:
    pixels = smooth(32)
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert np.abs(decode_compressed("jpeg", data).astype(int) - pixels).mean() < 3


def test_a_grey_png_becomes_rgb() -> None:
    data = cv2.imencode(".png", np.full((2, 2), 9, np.uint8))[1].tobytes()
    assert decode_compressed("png", data).tolist() == [[[9, 9, 9]] * 2] * 2


@pytest.mark.parametrize(
    "data", [b"", b"not an image", cv2.imencode(".png", noise(64, 64))[1].tobytes()[:60]]
)
def test_damaged_data_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=rf"{len(data)} bytes.*JPEG and PNG"):
        decode_compressed("png", data)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = noise(12, 12)
    np.testing.assert_array_equal(model_input(pixels, robot().observation.image), pixels)


def test_resizing_averages_areas() -> None:
    """Each pixel is the mean of its 2x2 block; sampling instead would alias thin objects away."""
    stream = robot(image="{width: 16, height: 16, size: 8}").observation.image
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[::2, ::2] = 100
    assert (model_input(pixels, stream) == 25).all()


def test_cropping_takes_left_top_width_height() -> None:
    stream = robot(image="{width: 16, height: 12, crop: [3, 1, 8, 8], size: 8}").observation.image
    pixels = noise(12, 16)
    cropped = model_input(pixels, stream)
    np.testing.assert_array_equal(cropped, pixels[1:9, 3:11])
    assert cropped.flags.c_contiguous


def test_another_size_than_the_contracts_is_refused() -> None:
    """Resizing silently would hide a camera in the wrong mode."""
    with pytest.raises(DataError, match=r"16x10.*12x12.*camera/image_raw"):
        model_input(noise(10, 16), robot().observation.image)


@dataclass
class Message:
    encoding: str = "rgb8"
    height: int = 12
    width: int = 12
    step: int = 36
    data: bytes = bytes(12 * 36)
    is_bigendian: int = 0
    format: str = "png"


def test_another_encoding_than_the_contracts_is_refused() -> None:
    stream = robot().observation.image
    assert picture(Message(), stream).shape == (12, 12, 3)
    with pytest.raises(DataError, match=r"'bgr8'.*'rgb8'"):
        picture(Message(encoding="bgr8"), stream)


def test_compressed_images_are_told_by_the_contract() -> None:
    stream = robot(
        image="{width: 12, height: 12, size: 12, type: sensor_msgs/msg/CompressedImage}"
    ).observation.image
    pixels = noise(12, 12)
    data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(picture(Message(data=data), stream), pixels)
