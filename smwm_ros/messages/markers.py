"""visualization_msgs/MarkerArray: what a planner foresees, for RViz and Foxglove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from smwm_ros.messages.stamps import header

FRAME = "world"
COLOURS = {
    "path": ColorRGBA(r=0.1, g=0.5, b=1.0, a=1.0),
    "subgoal": ColorRGBA(r=1.0, g=0.6, b=0.0, a=0.8),
    "goal": ColorRGBA(r=0.1, g=0.8, b=0.2, a=0.8),
}
"""By namespace of the markers."""


def markers_to_message(
    scene: Mapping[str, NDArray[np.float64]], landmarks: Sequence[str], stamp: int, size: float
) -> MarkerArray:
    """
    Return a MarkerArray in which each landmark has a line for the path and a ball for each other thing.

    It replaces whatever was shown before; an empty scene shows nothing.

    Args:
        scene: metres in the world's frame: ``path``, shape (T, L, 3); ``goal`` and ``subgoal``, (1, L, 3).
        landmarks: L names, which are told as the markers' text.
        stamp: in ns.
        size: diameter of a ball, in metres; a line is a quarter as wide.
    """
    markers = [Marker(header=header(stamp, FRAME), action=Marker.DELETEALL)]
    for what, places in scene.items():
        for number, name in enumerate(landmarks):
            marker = Marker(header=header(stamp, FRAME), ns=what, id=number, text=name, color=COLOURS[what])
            marker.pose.orientation.w = 1.0
            marker.scale.x = size / 4 if what == "path" else size
            if what == "path":
                marker.type = Marker.LINE_STRIP
                marker.points = [Point(x=x, y=y, z=z) for x, y, z in places[:, number].tolist()]
            else:
                marker.type = Marker.SPHERE
                marker.scale.y = marker.scale.z = size
                position = marker.pose.position
                position.x, position.y, position.z = places[0, number].tolist()
            markers.append(marker)
    return MarkerArray(markers=markers)
