"""Things in view that the robot does not control: drifting blobs, a wandering box, a flickering light."""

from __future__ import annotations

import colorsys

import numpy as np

from smwm_ros.tasks.gl import mujoco

BLOBS = 4
FLICKER_HZ = np.array([3.1, 7.3, 8.9])
"""Far from multiples of one another and of the control rate, so that the flicker looks irregular."""


class Distractors:
    """
    Coloured discs that wander over the floor, a box above them, and a light whose brightness flickers.

    Everything is a function of the simulated time and of what :meth:`draw` drew, so rendering
    twice shows the same. Nothing touches the robot: there are no contacts.
    """

    def __init__(self, reach: float, height: float, box: float = 0.0) -> None:
        """
        Set where the discs move.

        Args:
            reach: half the side of the square they cover, metres.
            height: of their upper side above the floor, metres; below the robot.
            box: side of a box that moves and turns like an object of its own, metres; 0: none.
        """
        self._reach = reach
        self._height = height
        self._box = box
        self.draw(None, np.random.default_rng(0))

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the discs to a model that has a light called ``lamp``."""
        for number in range(BLOBS):
            body = spec.worldbody.add_body(name=f"blob{number}", mocap=True)
            body.add_geom(
                name=f"blob{number}",
                type=mujoco.mjtGeom.mjGEOM_CYLINDER,
                size=[0.12 * self._reach + 0.04 * self._reach * number, self._height / 2, 0],
                contype=0,
                conaffinity=0,
            )

        if self._box:
            body = spec.worldbody.add_body(name="intruder", mocap=True)
            body.add_geom(
                name="intruder",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[self._box / 2] * 3,
                rgba=[0.1, 0.6, 0.5, 1],
                contype=0,
                conaffinity=0,
            )

    def draw(self, model: mujoco.MjModel | None, generator: np.random.Generator) -> None:
        """Draw new colours, paths and a new flicker."""
        # Two sines per axis with periods of 4 to 20 s: smooth, slower than the arm, never repeating soon.
        self._frequency = generator.uniform(0.05, 0.25, (2, BLOBS, 2))
        self._phase = generator.uniform(0, 2 * np.pi, (2, BLOBS, 2))
        self._flicker_phase = generator.uniform(0, 2 * np.pi, len(FLICKER_HZ))
        hues = generator.uniform(0, 1, BLOBS)
        if self._box:
            self._box_frequency = generator.uniform(0.05, 0.25, (2, 3))
            self._box_phase = generator.uniform(0, 2 * np.pi, (2, 3))
        if model is not None:
            for number, hue in enumerate(hues):
                model.geom(f"blob{number}").rgba[:3] = colorsys.hsv_to_rgb(hue, 0.6, 0.8)

    def move(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Put discs and light where they are at ``data.time``."""
        waves = np.sin(2 * np.pi * self._frequency * data.time + self._phase)
        data.mocap_pos[:BLOBS, :2] = self._reach * waves.mean(axis=0)
        data.mocap_pos[:BLOBS, 2] = self._height / 2
        if self._box:
            x, y, turn = np.sin(2 * np.pi * self._box_frequency * data.time + self._box_phase).mean(axis=0)
            data.mocap_pos[BLOBS] = self._reach * x, self._reach * y, self._box / 2
            data.mocap_quat[BLOBS] = np.cos(np.pi * turn), 0, 0, np.sin(np.pi * turn)
        flicker = np.sin(2 * np.pi * FLICKER_HZ * data.time + self._flicker_phase).mean()
        model.light("lamp").diffuse[:] = 0.6 + 0.3 * flicker
