"""Import MuJoCo so that it renders without a display. Import it from here, never directly."""

from __future__ import annotations

import atexit
import os
import weakref

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
    # MuJoCo ends GL at the interpreter's exit, after which a renderer can no longer be freed in silence.
    # This runs before that, as it is registered later; closing twice does no harm.
    reference = weakref.ref(renderer)
    atexit.register(lambda: (alive := reference()) and alive.close())
    return renderer
