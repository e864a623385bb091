"""The report and the video: what they show is what was measured."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from smwm_ros.evaluation.report import GoalTrace, Rate, Report, plot_errors, plot_rates, write_report
from smwm_ros.evaluation.video import beside, write_video


def picture(level: int) -> np.ndarray:
    return np.full((64, 64, 3), level, np.uint8)


def trace(name: str, errors: list[float]) -> GoalTrace:
    return GoalTrace(name, np.array(errors), 0.1, picture(10), picture(20), picture(30))


def report(**changes: object) -> Report:
    content: dict[str, object] = {
        "title": "Reacher <live>",
        "summary": "10 goals",
        "figures": [("goals reached", "1 of 2")],
        "rates": [Rate("SMWM", 0.5, (0.1, 0.9)), Rate("random", 0.0, (0.0, 0.3))],
        "goals": [trace("goal 1", [1.0, 0.4, 0.1, 0.2]), trace("goal 2", [1.0, 0.6, 0.35])],
        "period": 0.05,
        "unit": "rad",
        "settings": [("checkpoint", "abc")],
    }
    return Report(**{**content, **changes})  # type: ignore[arg-type]


def test_a_goal_counts_at_the_threshold_and_at_any_tick():
    """The protocol: at most the threshold, at some tick; a later overshoot does not undo it."""
    assert trace("g", [1.0, 0.1, 0.5]).verdict("rad") == "reached at tick 1"
    assert trace("g", [1.0, 0.1201]).verdict("rad") == "missed, 0.12 rad away"
    assert trace("g", [1.0, 0.1001]).verdict("") == "missed, 0.1 away"


def test_report_is_one_file_that_needs_no_other(tmp_path: Path):
    """It is sent by mail and opened without a network."""
    video = tmp_path / "run.webm"
    video.write_bytes(b"webm content")
    path = tmp_path / "out" / "report.html"
    write_report(report(video=video), path)
    html = path.read_text()
    links = re.findall(r'(?:src|href)="([^"]{0,40})', html)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"https?://", html.split("<svg")[0])
    assert base64.b64encode(b"webm content").decode() in html
    assert list(path.parent.iterdir()) == [path]


def test_report_tells_each_goal_and_escapes_what_it_is_given(tmp_path: Path):
    """Names come from users' contracts."""
    path = tmp_path / "report.html"
    write_report(report(), path)
    html = path.read_text()
    assert "Reacher &lt;live&gt;" in html
    assert "<video" not in html
    assert html.count("reached at tick 2") == 1
    assert html.count("missed, 0.35 rad away") == 1


def test_report_is_the_same_twice(tmp_path: Path):
    """Matplotlib salts the ids in an SVG, unless told not to."""
    for name in ("a.html", "b.html"):
        write_report(report(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_pictures_in_the_report_are_those_given(tmp_path: Path):
    """BGR and RGB are easily swapped on the way through OpenCV."""
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    path = tmp_path / "report.html"
    goal = GoalTrace("g", np.array([1.0]), 0.1, red, picture(0), picture(0))
    write_report(report(goals=[goal]), path)
    png = base64.b64decode(re.findall(r'image/png;base64,([^"]+)"', path.read_text())[0])
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded[96, 96].tolist() == [0, 0, 255]


def test_plots_show_the_figures():
    """Curves over seconds, rates in percent."""
    axes = plot_errors(report().goals, 0.05, "rad").axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 1], [0.05, 0.4], [0.1, 0.1], [0.15, 0.2]])
    assert [bar.get_width() for bar in plot_rates(report().rates).axes[0].patches] == [50.0, 0.0]


def test_video_holds_the_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Every frame, in RGB order, at the rate given; and OpenCV's grumbling is kept from the terminal."""
    frames = [beside([picture(200), picture(50)], f"tick {i}", side=64) for i in range(7)]
    for frame in frames:
        frame[:64, :64] = (250, 20, 20)
    path = tmp_path / "run.webm"
    write_video(path, frames, 20.0)
    assert capfd.readouterr().err == ""
    read = cv2.VideoCapture(str(path))
    assert read.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0)
    images = []
    while (got := read.read())[0]:
        images.append(got[1])
    read.release()
    assert len(images) == 7
    blue, green, red = images[0][32, 32].tolist()
    assert (red > 180, green < 90, blue < 90) == (True, True, True)


def test_pictures_stand_side_by_side():
    """The left one is the camera, the right one the goal."""
    frame = beside([picture(200), picture(50)], "", side=64)
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert (frame[32, 10, 0], frame[32, -10, 0]) == (200, 50)
