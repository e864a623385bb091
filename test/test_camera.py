"""What is believed of a camera: the age of its pictures, whether they change, and its calibration."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import robot

from smwm_ros.data.calibration import square_calibration
from smwm_ros.errors import DataError
from smwm_ros.nodes.perception_node import IMAGE_AGE, TIMEOUT
from smwm_ros.resources import find_contract
from smwm_ros.runtime.camera import FreezeDetector, age_fault

SECOND = 10**9
ACTION = find_contract("reacher").action
REST, FAST, SLOW = np.zeros(2), np.array([1.0, 0.0]), np.array([0.1, 0.0])


@pytest.mark.parametrize(
    ("age", "limit", "kind"),
    [(0.2, 0.25, ""), (-0.2, 0.25, ""), (0.26, 0.25, "old"), (-0.26, 0.25, "future"), (99.0, 0.0, "")],
)
def test_ages_are_judged_in_both_directions(age: float, limit: float, kind: str) -> None:
    now = 1000 * SECOND
    assert age_fault(now - round(age * SECOND), now, limit) == kind


def test_without_a_clock_no_image_is_old() -> None:
    """Pins the beginning of a simulation: ROS time is zero until the first /clock."""
    assert age_fault(1000 * SECOND, 0, 0.25) == ""


@pytest.mark.parametrize("age", [-0.5, -1e-9, -0.999])
def test_ages_that_mean_nothing_are_refused(age: float) -> None:
    """Pins that a negative age is not taken for one that every image exceeds: all would be dropped."""
    assert f"image_age is {age}; expected -1.0" in (IMAGE_AGE.refusal(age) or "")
    assert not any(IMAGE_AGE.refusal(right) for right in (TIMEOUT, -0.0, 0.0, 0.25))
    assert "finite" in (IMAGE_AGE.refusal(float("nan")) or "")


def data(number: int) -> Any:
    return array("B", bytes([number] * 12))


def moved(action: np.ndarray, *, images: int = 3, planned: bool = True) -> FreezeDetector:
    detector = FreezeDetector(ACTION, images)
    detector.act(action, planned)
    return detector


def test_a_frozen_camera_is_noticed_while_the_robot_moves() -> None:
    detector = moved(FAST)
    assert [detector.look(data(1)) for _ in range(5)] == [False, False, False, True, True]
    assert detector.repeated == 4
    detector.act(REST, False)
    assert detector.look(data(1)), "the safe action does not thaw it"
    assert not detector.look(data(2))
    assert detector.repeated == 0


@pytest.mark.parametrize(
    "detector",
    [moved(REST), moved(SLOW), moved(FAST, planned=False), moved(FAST, images=0)],
    ids=["at rest", "nearly", "safe action", "off"],
)
def test_equal_images_are_counted_but_no_fault_while_they_may_be_right(detector: FreezeDetector) -> None:
    """A simulated camera without noise repeats itself while nothing moves."""
    assert not any(detector.look(data(1)) for _ in range(50))
    assert detector.repeated == 49


def test_images_count_in_a_row_only() -> None:
    detector = moved(FAST)
    for _ in range(20):
        assert [detector.look(data(number)) for number in (1, 1, 1, 2)] == [False] * 4
    for _ in range(20):  # nor does standing still in between
        detector.act(REST, True)
        assert not detector.look(data(2))
        detector.act(FAST, True)
        assert not detector.look(data(2))


def test_where_holding_is_safe_a_change_of_the_action_is_motion() -> None:
    """A robot commanded by positions is at rest with any action."""
    detector = FreezeDetector(ACTION.model_copy(update={"safe": "hold"}), 3)
    for _ in range(9):
        detector.act(FAST, True)
        assert not detector.look(data(1))
    for number in range(3):
        detector.act(FAST * number / 3, True)
        frozen = detector.look(data(1))
    assert frozen


def info(**changes: Any) -> Any:
    """A camera of 640x480 pixels, whose axis meets the centre of the image."""
    content = {
        "width": 640,
        "height": 480,
        "k": [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0],
        "p": [500.0, 0.0, 319.5, -50.0, 0.0, 500.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**content | changes)


@given(
    st.integers(0, 200),
    st.integers(0, 100),
    st.integers(100, 380),
    st.integers(8, 300),
    st.integers(0, 10**6),
)
def test_what_the_square_shows_lies_where_its_calibration_says(
    left: int, top: int, side: int, size: int, seed: int
) -> None:
    """A point in space meets the same spot of the scene in the camera's image and in the square."""
    image = f"{{width: 640, height: 480, crop: [{left}, {top}, {side}, {side}], size: {size}}}"
    matrix, projection = square_calibration(info(), robot(image=image).observation.image)
    point = np.array([*np.random.default_rng(seed).uniform(-1, 1, 2), 2.0])
    camera = info().k[0] * point[:2] / point[2] + (319.5, 239.5)
    seen = (matrix @ point)[:2] / point[2]
    # From the edge of the cut, in its lengths: pixel n covers n - 0.5 to n + 0.5.
    np.testing.assert_allclose((seen + 0.5) / size, (camera + 0.5 - (left, top)) / side, atol=1e-9)
    np.testing.assert_allclose(projection[:, :3], matrix, atol=1e-9)
    assert projection[0, 3] == pytest.approx(-50.0 * size / side)


def test_what_the_camera_itself_cut_and_binned_is_made_up_for() -> None:
    """K is that of the full sensor, the image is a part of it."""
    roi = SimpleNamespace(x_offset=160, y_offset=120, width=320, height=240)
    stream = robot(image="{width: 160, height: 120, size: 120, crop: [20, 0, 120, 120]}").observation.image
    matrix, _ = square_calibration(info(roi=roi, binning_x=2, binning_y=2), stream)
    np.testing.assert_allclose(matrix, [[250, 0, 59.5], [0, 250, 59.5], [0, 0, 1]])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 320}, r"320x480.*640x480"),
        ({"binning_x": 2, "binning_y": 2}, r"320x240.*640x480"),
        ({"k": [float("nan")] * 9}, "not finite"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        square_calibration(
            info(**changes), robot(image="{width: 640, height: 480, size: 64}").observation.image
        )
