"""What every simulated robot offers, whatever simulates it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from smwm_ros.contract import Contract
from smwm_ros.errors import SimulationError

Observation = dict[str, Any]
StateKind = Literal["position", "angle", "velocity"]


@dataclass(frozen=True)
class CameraInfo:
    """A pinhole camera without distortion."""

    width: int
    height: int
    matrix: NDArray[np.float64]
    """K, shape (3, 3), in pixels; the centre of the first pixel is (0, 0) (OpenCV's convention)."""


class RobotTask(gymnasium.Env[Observation, NDArray[np.float64]]):
    """
    A robot as its contract describes it: A actions in, an image and J joints out.

    One :meth:`step` is one control tick. There is no reward (always 0) and no end: goals are
    states, judged by :meth:`errors`. The observation holds ``pixels``, uint8 (height, width, 3) RGB,
    and ``joints``, float64 (J,), positions in rad or m; ``info["state"]`` is the full state,
    float64 (S,), which ``reset(options={"state": ...})`` accepts.

    A subclass gives the physics: see the abstract methods.
    """

    threshold: float
    """The task's usual bound for :meth:`success`, in the unit of :meth:`errors`."""
    unit: str
    """Of :meth:`errors`, in short."""
    timestep_ns: int
    """Length of one physics step, ns."""
    disturbance: NDArray[np.float64]
    """An outside force on the robot, as what it adds to every action, shape (A,); usually zero."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        action, image = contract.action, contract.observation.image
        self.action_space = gymnasium.spaces.Box(action.low, action.high, dtype=np.float64)
        spaces: dict[str, gymnasium.Space[Any]] = {
            "pixels": gymnasium.spaces.Box(0, 255, (image.height, image.width, 3), np.uint8),
            "joints": gymnasium.spaces.Box(-np.inf, np.inf, (len(self.joint_names),), np.float64),
        }
        self.observation_space = gymnasium.spaces.Dict(spaces)
        self.disturbance = np.zeros(action.size)
        self._owed_ns = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """
        Begin an episode in a random state, or in ``options["state"]``, shape (S,).

        Raises:
            SimulationError: the given state has the wrong length, is not finite or is impossible.
        """
        super().reset(seed=seed)
        # Drawn in any case, so that what is random afterwards depends on the seed alone.
        state = self._draw_state(self.np_random)
        if options is not None and options.get("state") is not None:
            state = self.check_state(options["state"])
        self._owed_ns = 0
        self._begin(state, self.np_random)
        return self.observe(), {"state": self.state}

    def step(self, action: NDArray[np.float64]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """
        Hold an action (A,), in the contract's units, for one control tick.

        Raises:
            SimulationError: the action has the wrong length or is not finite.
        """
        self._advance(action, self.contract.period_ns)
        return self.observe(), 0.0, False, False, {"state": self.state}

    def advance(self, action: ArrayLike, seconds: float) -> None:
        """
        Hold an action (A,), in the contract's units, for any time.

        Physics goes in whole steps; what is left of ``seconds`` counts towards the next call,
        so that many short calls take as long as one long one.

        Raises:
            SimulationError: the action has the wrong length or is not finite.
        """
        self._advance(action, round(seconds * 1e9))

    def _advance(self, action: ArrayLike, duration_ns: int) -> None:
        values = np.asarray(action, np.float64)
        size = self.contract.action.size
        if values.shape != (size,) or not np.isfinite(values).all():
            raise SimulationError(f"expected an action of {size} finite numbers; found {values.tolist()}")
        steps, self._owed_ns = divmod(self._owed_ns + duration_ns, self.timestep_ns)
        if steps > 0:
            commanded = np.clip(values, self.contract.action.low, self.contract.action.high)
            self._simulate(commanded + self.disturbance, steps)

    def observe(self) -> Observation:
        """Return ``pixels`` and ``joints`` as they are now (see the class)."""
        return {"pixels": self.render_state(None), "joints": self.joints}

    def check_state(self, state: ArrayLike) -> NDArray[np.float64]:
        """
        Return the state as float64 (S,).

        Raises:
            SimulationError: wrong length, not finite, or impossible for this robot.
        """
        try:
            values = np.asarray(state, np.float64)
        except (TypeError, ValueError) as error:
            raise SimulationError(f"the state is not a list of numbers: {error}") from error
        expected = self.state_names
        if values.shape != (len(expected),) or not np.isfinite(values).all():
            raise SimulationError(
                f"expected a state of {len(expected)} finite numbers ({', '.join(expected)}); "
                f"found {values.tolist()}"
            )
        return values

    def draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Draw a random state (S,) such as an episode starts from."""
        return self._draw_state(generator)

    def success(self, state: ArrayLike, goal: ArrayLike, threshold: float | None = None) -> bool:
        """Tell whether every one of :meth:`errors` is at most the threshold (default: the task's)."""
        bound = self.threshold if threshold is None else threshold
        return bool((self.errors(state, goal) <= bound).all())

    def must_move_object(self, start: ArrayLike, goal: ArrayLike, threshold: float | None = None) -> bool:
        """Tell whether the goal stays unreached if the objects stay where they are at the start."""
        left = np.array(goal, np.float64)
        rows = [self.state_names.index(name) for name in self.objects]
        left[rows] = np.asarray(start)[rows]
        return not self.success(left, goal, threshold)

    @property
    @abstractmethod
    def joint_names(self) -> tuple[str, ...]:
        """Names of the J joints."""

    @property
    @abstractmethod
    def joints(self) -> NDArray[np.float64]:
        """Positions of the joints, shape (J,), rad or m."""

    @property
    @abstractmethod
    def joint_velocities(self) -> NDArray[np.float64]:
        """Velocities of the joints, shape (J,), rad/s or m/s."""

    @property
    @abstractmethod
    def state_names(self) -> tuple[str, ...]:
        """Names of the S numbers of the state."""

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of those numbers of the state that tell where things are that are no part of the robot."""
        return ()

    @property
    def landmarks(self) -> tuple[str, ...]:
        """Names of the points that show where the robot, and what it moves, is; none without a geometry."""
        return ()

    def places(self, state: ArrayLike) -> NDArray[np.float64]:
        """Return where the landmarks are in any state (S,), in metres in the world's frame, shape (L, 3)."""
        return np.zeros((0, 3))

    @property
    def state_kinds(self) -> tuple[StateKind, ...]:
        """What each number of the state is; angles are in rad and may count turns."""
        positions: list[StateKind] = ["position"] * len(self.state_names)
        return tuple(positions)

    @property
    @abstractmethod
    def state(self) -> NDArray[np.float64]:
        """The full state, shape (S,), a copy."""

    @property
    @abstractmethod
    def camera_info(self) -> CameraInfo:
        """The camera's size and calibration."""

    @abstractmethod
    def render_state(self, state: ArrayLike | None, seconds: float | None = None) -> NDArray[np.uint8]:
        """
        Render a state, e.g. for a goal image, without disturbing the robot.

        Args:
            state: shape (S,); None: the present one.
            seconds: since the reset, before or after it: moves what moves by itself; None: now.

        Returns:
            uint8 (height, width, 3) RGB.
        """

    @abstractmethod
    def depth(self) -> NDArray[np.float32]:
        """Distance along the optical axis at each pixel, metres, shape (height, width)."""

    @abstractmethod
    def errors(self, state: ArrayLike, goal: ArrayLike) -> NDArray[np.float64]:
        """Absolute error of each judged quantity between two states (S,), be they possible or not."""

    @abstractmethod
    def criterion(self, threshold: float) -> str:
        """Tell in words what is judged to be within a threshold, in the unit of :meth:`errors`."""

    @abstractmethod
    def _draw_state(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Draw a random state (S,) to start from."""

    @abstractmethod
    def _begin(self, state: NDArray[np.float64], generator: np.random.Generator) -> None:
        """Put the robot into a state; whatever else is random takes a child of the generator."""

    @abstractmethod
    def _simulate(self, action: NDArray[np.float64], steps: int) -> None:
        """Hold an action (A,) for some physics steps."""
