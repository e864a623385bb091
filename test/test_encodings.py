"""Every encoding against a straight calculation, against cv_bridge, and with headers that lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cv_bridge import CvBridge
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import robot
from sensor_msgs.msg import Image

from smwm_ros.data.depth import ENCODINGS as DEPTHS
from smwm_ros.data.encodings import ENCODINGS, LEAST_BAYER, decode_image
from smwm_ros.data.images import enlarge, model_input, picture
from smwm_ros.errors import ContractError, DataError
from smwm_ros.messages import encode_image

EIGHT = [name for name in ENCODINGS if name.endswith("8")]
PLAIN = [name for name in ENCODINGS if name.rstrip("168") in ("rgb", "bgr", "rgba", "bgra", "mono")]
BAYER = [name for name in ENCODINGS if name.startswith("bayer")]
YUV = [name for name in ENCODINGS if name.startswith(("yuv", "uyvy"))]


def raw(encoding: str, height: int, width: int, seed: int = 0) -> NDArray[Any]:
    """Return what a camera may send, shape (height, width, channels), little-endian."""
    number, channels, _, _ = ENCODINGS[encoding]
    kind = np.dtype(number).newbyteorder("<")
    return (
        np.random.default_rng(seed)
        .integers(0, np.iinfo(kind).max + 1, (height, width, channels))
        .astype(kind)
    )


def decoded(encoding: str, pixels: NDArray[Any], *, big: bool = False, padding: int = 0) -> NDArray[np.uint8]:
    pixels = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(len(pixels), pixels[:1].nbytes)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return decode_image(encoding, *pixels.shape[:2], rows.shape[1], rows.tobytes(), int(big))


def to_eight(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * (255 / 65535))


@given(
    st.sampled_from(PLAIN),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_colours_are_those_that_were_sent(
    encoding: str, height: int, width: int, padding: int, big: bool, seed: int
) -> None:
    """Order of the channels, numbers of 16 bits in either order of bytes, padded rows."""
    pixels = raw(encoding, height, width, seed)
    names = encoding.rstrip("168")
    channels = [0, 0, 0] if names == "mono" else [names.index(colour) for colour in "rgb"]
    expected = to_eight(pixels[..., channels])
    np.testing.assert_array_equal(decoded(encoding, pixels, big=big, padding=padding), expected)


@given(st.sampled_from(BAYER), st.integers(LEAST_BAYER, 12), st.integers(LEAST_BAYER, 12), st.integers(0, 99))
@settings(deadline=None)
def test_a_colour_filter_array_is_filled_in_from_its_neighbours(
    encoding: str, height: int, width: int, seed: int
) -> None:
    """Inside, each colour is measured, or the mean of the two or four next to it that measured it."""
    pixels = raw(encoding, height, width, seed)
    shown = decoded(encoding, pixels)
    order = encoding.split("_")[1][:4]
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            for number, colour in enumerate("rgb"):
                near = [
                    (abs(down) + abs(right), pixels[row + down, column + right, 0])
                    for down in (-1, 0, 1)
                    for right in (-1, 0, 1)
                    if order[2 * ((row + down) % 2) + (column + right) % 2] == colour
                ]
                least = min(distance for distance, _ in near)
                mean = np.mean([float(value) for distance, value in near if distance == least])
                scale = 1.0 if encoding.endswith("8") else 255 / 65535
                assert abs(shown[row, column, number] - mean * scale) <= 1


@given(st.sampled_from(YUV), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_brightness_and_shared_colour_follow_bt_601(encoding: str, height: int, half: int, seed: int) -> None:
    bytes_of = raw(encoding, height, 2 * half, seed)
    brightness, colour = (1, 0) if encoding in ("yuv422", "uyvy") else (0, 1)
    y = 1.164 * (bytes_of[..., brightness].astype(float) - 16).clip(0)
    pairs = bytes_of[..., colour].reshape(height, half, 2).astype(float) - 128
    u, v = (np.repeat(pairs[..., part], 2, axis=1) for part in (0, 1))
    expected = np.stack([y + 1.596 * v, y - 0.813 * v - 0.392 * u, y + 2.017 * u], axis=-1).clip(0, 255)
    assert np.abs(decoded(encoding, bytes_of) - expected).max() <= 2


# The package on PyPI knows no bayer_grbg8.
@pytest.mark.parametrize("encoding", [name for name in EIGHT if name != "bayer_grbg8"])
def test_the_pixels_are_those_of_cv_bridge(encoding: str) -> None:
    """What a model learned from bags read by other tools, it must meet again here."""
    pixels = raw(encoding, 12, 16)
    height, width, channels = pixels.shape
    message = Image(
        encoding=encoding, height=height, width=width, step=width * channels, data=pixels.tobytes()
    )
    expected = np.atleast_3d(CvBridge().imgmsg_to_cv2(message, "rgb8"))
    np.testing.assert_array_equal(decoded(encoding, pixels), expected)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_simulated_camera_sends_what_is_read_again(encoding: str) -> None:
    """Sim and goal images go out in the contract's encoding: a soft picture comes back nearly as it was."""
    contract = robot(image=f"{{width: 32, height: 32, size: 32, encoding: {encoding}}}")
    ramp = np.linspace(30, 220, 32).astype(np.uint8)
    soft = np.stack([*np.meshgrid(ramp, ramp), np.full((32, 32), 90, np.uint8)], axis=-1)
    expected = soft.astype(float)
    if "mono" in encoding:
        expected = np.repeat((soft @ [0.299, 0.587, 0.114])[..., None], 3, axis=-1)
    message = encode_image(contract, soft, 0)
    assert len(message.data) == message.step * 32
    seen = picture(message, contract.observation.image)
    edge = 1 if "bayer" in encoding else 0
    inner = slice(edge, 32 - edge)
    assert np.abs(seen - expected)[inner, inner].max() <= (0 if encoding[-5:] in ("rgb8", "bgr8") else 4)


@settings(max_examples=400, deadline=None)
@given(
    encoding=st.one_of(st.sampled_from([*ENCODINGS, *DEPTHS]), st.text(max_size=12)),
    height=st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
    width=st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
    step=st.one_of(st.integers(0, 100), st.integers(0, 2**32 - 1)),
    is_bigendian=st.integers(0, 255),
    data=st.binary(max_size=2000),
    expected=st.sampled_from([*ENCODINGS, *DEPTHS]),
)
def test_headers_that_lie_are_refused_or_read(expected: str, **fields: Any) -> None:
    """Whatever a message says of itself: a picture of the contract's size, or a DataError, never a crash."""
    depth = ", depth_range: [0.5, 2.0]" if expected in DEPTHS else ""
    stream = robot(
        image=f"{{width: 12, height: 12, size: 12, encoding: {expected}{depth}}}"
    ).observation.image
    message = SimpleNamespace(**fields)
    try:
        seen = picture(message, stream)
    except DataError:
        return
    assert seen.shape == (12, 12, 3)
    assert (fields["height"], fields["width"], fields["encoding"]) == (12, 12, expected)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*ENCODINGS]), st.integers(0, 9), st.integers(0, 9))
def test_small_images_are_read_or_refused(encoding: str, height: int, width: int) -> None:
    """Pins that no conversion is asked for what it cannot do: OpenCV would raise, or worse."""
    pixels = raw(encoding, height, width)
    try:
        assert decoded(encoding, pixels).shape == (height, width, 3)
    except DataError as error:
        assert "pixels" in str(error)  # noqa: PT017 - either outcome is right


def test_a_depth_camera_is_seen_in_grey() -> None:
    """Known answers: white where it is near, black where it is far or nothing is known."""
    image = "{width: 8, height: 8, size: 8, encoding: 32FC1, depth_range: [0.5, 2.5]}"
    metres = np.full((8, 8), 1.5, "<f4")
    metres[0, :5] = 0.4, 0.5, 2.5, 9.0, np.nan
    message = SimpleNamespace(
        encoding="32FC1", height=8, width=8, step=32, data=metres.tobytes(), is_bigendian=0
    )
    seen = picture(message, robot(image=image).observation.image)
    assert seen[0, :6].tolist() == [[grey] * 3 for grey in (255, 255, 0, 0, 0, 128)]


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("encoding: 16UC1", "needs depth_range"),
        ("encoding: 32FC1, depth_range: [2.0, 1.0]", "nearest must be less"),
        ("encoding: rgb8, depth_range: [1.0, 2.0]", "depth cameras"),
        ("encoding: rgb10", "encoding"),
    ],
)
def test_contracts_say_what_depth_looks_like(rest: str, reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        robot(image=f"{{width: 8, height: 8, size: 8, {rest}}}")


def test_enlarging_is_undone_by_cropping_and_averaging() -> None:
    """The large cameras of `smwm bench latency` show the encoder what it has always seen."""
    image = "{width: 64, height: 48, crop: [8, 8, 32, 32], size: 8}"
    stream = robot(image=image).observation.image
    square = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    large = enlarge(square, stream)
    assert large.shape == (48, 64, 3)
    np.testing.assert_array_equal(model_input(large, stream), square)
