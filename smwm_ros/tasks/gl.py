"""Import MuJoCo so that it renders without a display. Import it from here, never directly."""

from __future__ import annotations

import atexit
import os
import weakref
from functools import cache

from smwm_ros.errors import SimulationError


def _no_gl(error: Exception) -> SimulationError:
    return SimulationError(
        f"cannot render: OpenGL is missing or does not work with MUJOCO_GL={os.environ['MUJOCO_GL']} "
        f"({error}). Install the Debian packages libegl1, libgl1 and libgl1-mesa-dri, and leave MUJOCO_GL "
        "unset or set it to egl."
    )


# MuJoCo chooses its GL library once, while it is imported.
os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
except Exception as error:  # PyOpenGL raises whatever it trips over, AttributeError for one
    raise _no_gl(error) from error

__all__ = ["make_renderer", "mujoco"]

_RENDERERS: weakref.WeakSet[mujoco.Renderer] = weakref.WeakSet()


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """
    Make an off-screen renderer.

    Raises:
        SimulationError: GL does not work here; says what to install.
    """
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # the GL libraries raise classes of their own
        raise _no_gl(error) from error
    _close_at_exit()
    _RENDERERS.add(renderer)
    return renderer


@cache
def _close_at_exit() -> None:
    """
    Close what renderers there are before MuJoCo ends GL at the interpreter's exit.

    After that, one can no longer be freed in silence. What is registered later runs earlier, and MuJoCo
    registers its own before the first renderer is made. Closing twice does no harm.
    """
    atexit.register(lambda: [renderer.close() for renderer in tuple(_RENDERERS)])
