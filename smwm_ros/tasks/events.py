"""
Things that happen to a simulated robot without its doing, for tests of what a model expects.

Each is a context manager: it happens when the context is entered, and what would last (a force, a
colour) ends with it. What has moved meanwhile stays where it is.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from smwm_ros.errors import SimulationError
from smwm_ros.tasks.gl import mujoco
from smwm_ros.tasks.mujoco_task import MujocoTask

FAR = 3.0
"""Times the task's threshold that a teleport leads away at least."""
DRAWS = 1000
"""States tried for a teleport."""
OVERLAP = 0.003
"""m that things may overlap after a teleport; a push presses them together as far."""
HUE = 20.0
"""Degrees of a change of colour."""

Event = Callable[[MujocoTask, np.random.Generator], AbstractContextManager[None]]


@contextmanager
def teleport(task: MujocoTask, generator: np.random.Generator) -> Iterator[None]:
    """
    Put the thing that the robot can move, or else the robot, somewhere else, at rest.

    Raises:
        SimulationError: no place was found.
    """
    before = task.state
    rows = _rows_of_thing(task)
    for _ in range(DRAWS):
        state = before.copy()
        state[rows] = task.draw_state(generator)[rows]
        try:
            far = task.errors(before, task.check_state(state)).max() >= FAR * task.threshold
        except SimulationError:  # something else is there
            continue
        if far and _place(task, state):
            break
        _place(task, before)
    else:
        raise SimulationError(f"found no place to teleport to in {DRAWS} draws, from {before.tolist()}")
    yield


@contextmanager
def push(task: MujocoTask, generator: np.random.Generator) -> Iterator[None]:
    """
    Push the robot: as hard as its drives would for the largest action, in a random direction.

    The drives take it as an offset of what they are commanded, so a stiff and a compliant robot are
    moved by as much.
    """
    task.disturbance[:] = generator.choice([-1.0, 1.0], task.contract.action.size) * task.contract.action.high
    try:
        yield
    finally:
        task.disturbance[:] = 0


@contextmanager
def recolour(task: MujocoTask, generator: np.random.Generator, degrees: float = HUE) -> Iterator[None]:
    """Turn the hue of the thing that the robot can move, or else of the robot, to one side or the other."""
    colours = task.model.geom_rgba
    geoms = np.flatnonzero(_bodies_of_thing(task)[task.model.geom_bodyid])
    before = colours[geoms].copy()
    turn = float(generator.choice([-1, 1])) * degrees / 360
    for geom in geoms:
        hue, saturation, value = colorsys.rgb_to_hsv(*colours[geom, :3])
        colours[geom, :3] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    try:
        yield
    finally:
        colours[geoms] = before


EVENTS: Mapping[str, Event] = {"teleport": teleport, "push": push, "colour": recolour}


def save_physics(task: MujocoTask) -> NDArray[np.float64]:
    """Return all that the physics will depend on, for :func:`restore_physics`."""
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    saved: NDArray[np.float64] = np.empty(mujoco.mj_stateSize(task.model, kind))
    mujoco.mj_getState(task.model, task.data, saved, kind)
    return saved


def restore_physics(task: MujocoTask, saved: NDArray[np.float64]) -> None:
    """Go back to a moment: the same actions lead to the same states again."""
    mujoco.mj_setState(task.model, task.data, saved, mujoco.mjtState.mjSTATE_INTEGRATION)


def _place(task: MujocoTask, state: NDArray[np.float64]) -> bool:
    """Set the state (S,), and tell whether nothing overlaps."""
    task.data.qpos[:], task.data.qvel[:] = np.split(state, [task.model.nq])
    mujoco.mj_forward(task.model, task.data)
    return min((contact.dist for contact in task.data.contact), default=0.0) > -OVERLAP


def _bodies_of_thing(task: MujocoTask) -> NDArray[np.bool_]:
    """Tell which bodies belong to the thing that moves: by default to whatever has joints."""
    model = task.model
    if task.thing is not None:
        return np.arange(model.nbody) == model.body(task.thing).id
    jointed = np.zeros(model.nbody, bool)
    for body in range(1, model.nbody):  # parents come first
        jointed[body] = model.body_jntnum[body] > 0 or jointed[model.body_parentid[body]]
    return jointed


def _rows_of_thing(task: MujocoTask) -> NDArray[np.int64]:
    """Return where in the state the thing's positions and velocities are."""
    joints = np.flatnonzero(_bodies_of_thing(task)[task.model.jnt_bodyid])
    return np.concatenate([joints, task.model.nq + joints])
