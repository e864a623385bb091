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

from smwm_ros.contract import DepthStream
from smwm_ros.data.depth import decode_compressed_depth, decode_depth, depth_input, depth_picture
from smwm_ros.data.encodings import coded_size, decode_compressed, decode_image
from smwm_ros.data.images import model_input, picture
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


# JPEG in a hurry

CAMERA = "{width: 640, height: 480, size: 64, type: sensor_msgs/msg/CompressedImage}"


def jpeg(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def scene(height: int, width: int) -> np.ndarray:
    """Return what a camera may see: soft light, a sharp edge, a little noise."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([100 + 80 * np.sin(x / 60), 120 + 60 * np.cos(y / 45), 90 + 0.1 * (x + y)], axis=-1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = 30, 200, 90
    return np.clip(pixels + np.random.default_rng(0).normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("crop", ["", ", crop: [80, 0, 480, 480]", ", crop: [81, 3, 471, 473]"])
def test_a_reduced_jpeg_is_as_true_as_a_whole_one(crop: str) -> None:
    """Half-size decoding must stay as near to the camera's own pixels as full decoding is."""
    stream = robot(image=CAMERA.replace("}", crop + "}")).observation.image
    pixels = scene(480, 640)
    original = model_input(pixels, stream).astype(float)
    whole = model_input(decode_compressed("jpeg", jpeg(pixels)), stream)
    reduced = picture(Message(data=jpeg(pixels)), stream)
    assert reduced.shape == (64, 64, 3)
    assert np.abs(reduced - original).mean() <= np.abs(whole - original).mean() + 0.1
    assert np.abs(reduced - original).mean() < 1


def test_a_jpeg_is_reduced_exactly_or_not_at_all() -> None:
    """The mean of each 2x2 block of a picture that JPEG keeps exactly, wherever the crop begins."""
    image = "{width: 64, height: 64, crop: [16, 32, 32, 32], size: 8, type: sensor_msgs/msg/CompressedImage}"
    pixels = np.full((64, 64, 3), 40, np.uint8)
    pixels[32:, 16:48] = 200
    assert (
        np.abs(picture(Message(data=jpeg(pixels)), robot(image=image).observation.image) - 200.0) < 3
    ).all()


def test_a_jpeg_of_another_size_is_refused_by_its_true_size() -> None:
    """Reduced, 639 pixels look like 640: the size is read from the header."""
    with pytest.raises(DataError, match=r"639x480.*640x480"):
        picture(Message(data=jpeg(scene(480, 639))), robot(image=CAMERA).observation.image)


def test_a_png_that_claims_to_be_huge_is_not_decoded() -> None:
    """One damaged header must not take all memory."""
    data = bytearray(cv2.imencode(".png", noise(4, 4))[1].tobytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    assert coded_size(bytes(data)) == (60_000, 60_000)
    with pytest.raises(DataError, match="60000x60000"):
        picture(Message(data=bytes(data)), robot(image=CAMERA).observation.image)


@pytest.mark.parametrize("left", [0.02, 0.5, 0.999])
def test_a_jpeg_that_was_cut_off_is_refused(left: float) -> None:
    """Some decoders fill the rest with grey, which looks like a picture."""
    data = jpeg(scene(480, 640))
    with pytest.raises(DataError, match="may be damaged"):
        picture(Message(data=data[: int(len(data) * left)]), robot(image=CAMERA).observation.image)
    padded = picture(Message(data=data + bytes(100)), robot(image=CAMERA).observation.image)
    np.testing.assert_array_equal(padded, picture(Message(data=data), robot(image=CAMERA).observation.image))


def test_other_coded_formats_are_refused() -> None:
    data = cv2.imencode(".bmp", noise(12, 12))[1].tobytes()
    image = "{width: 12, height: 12, size: 12, type: sensor_msgs/msg/CompressedImage}"
    with pytest.raises(DataError, match="JPEG and PNG"):
        picture(Message(data=data, format="bmp"), robot(image=image).observation.image)


# Depth


@given(st.sampled_from(["<", ">"]), st.sampled_from(["16UC1", "32FC1"]), st.integers(0, 5))
def test_depth_is_in_metres_and_nan_where_unknown(order: str, encoding: str, padding: int) -> None:
    """Known answers; a drone's big-endian camera and padded rows give the same."""
    if encoding == "16UC1":
        raw = np.array([[1500, 0], [65535, 1]], f"{order}u2")
        metres = [[1.5, np.nan], [65.535, 0.001]]
    else:
        raw = np.array([[1.5, 0.0], [np.inf, -2.0]], f"{order}f4")
        metres = [[1.5, np.nan], [np.nan, np.nan]]
    rows = np.pad(raw.view(np.uint8).reshape(2, -1), ((0, 0), (0, padding)))
    depth = decode_depth(encoding, 2, 2, rows.shape[1], rows.tobytes(), int(order == ">"))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, metres, rtol=1e-6)


def test_compressed_depth_with_and_without_a_header() -> None:
    """image_transport puts twelve bytes before the PNG; other drivers do not."""
    raw = np.arange(16, dtype=np.uint16).reshape(4, 4) * 100
    png = cv2.imencode(".png", raw)[1].tobytes()
    for data in (png, bytes(12) + png):
        depth = decode_compressed_depth("16UC1; compressedDepth png", data)
        np.testing.assert_allclose(depth[1], [0.4, 0.5, 0.6, 0.7], rtol=1e-6)
        assert np.isnan(depth[0, 0])


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("png", b""),
        ("png", bytes(12)),
        ("png", cv2.imencode(".png", noise(4, 4))[1].tobytes()),
        ("32FC1; compressedDepth png", cv2.imencode(".png", np.ones((4, 4), np.uint16))[1].tobytes()),
    ],
)
def test_what_is_no_compressed_depth_is_refused(kind: str, data: bytes) -> None:
    with pytest.raises(DataError, match="16-bit"):
        decode_compressed_depth(kind, data)


def test_depth_is_taken_from_where_the_picture_is() -> None:
    """The centre of each pixel of the square, within the crop; neighbours are not mixed."""
    stream = robot(image="{width: 16, height: 12, crop: [4, 2, 8, 8], size: 8}").observation.image
    depth = np.arange(12 * 16, dtype=np.float32).reshape(12, 16)
    np.testing.assert_array_equal(depth_input(depth, stream), depth[2:10, 4:12])
    half = robot(image="{width: 16, height: 16, size: 8}").observation.image
    assert set(depth_input(np.tile([1.0, 9.0], (16, 8)).astype(np.float32), half).ravel()) <= {1.0, 9.0}


def test_depth_that_does_not_fit_the_camera_is_refused() -> None:
    stream = robot().observation.image
    other = Message(encoding="32FC1", height=6, width=6, step=24, data=bytes(144))
    with pytest.raises(DataError, match=r"6x6.*12x12.*registered"):
        depth_picture(Raw(other), DepthStream(topic="depth"), stream)
    with pytest.raises(DataError, match=r"'32FC1'.*'16UC1'"):
        depth_picture(Raw(other), DepthStream(topic="depth", encoding="16UC1"), stream)


class Raw:
    """A message without the field that only compressed ones have."""

    def __init__(self, message: Message) -> None:
        self.__dict__.update({key: value for key, value in vars(message).items() if key != "format"})
