"""
Exploration policies that look at the state: where noise alone would hardly ever reach what matters.

Each is a mixture, drawn anew every second or so, of going somewhere on purpose and of coloured noise,
and noise is on top of all of it: purposes make the rare things happen, noise shows what the same
things look like when other actions are taken. The states come from whoever runs the policy: in-process
from the task, in the explorer node from the simulator's joint states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.tasks.noise import ColouredNoise, limit_change

Sense = Callable[[], NDArray[np.float64]]
"""Gives the present state, shape (S,)."""
Steps = Iterator[NDArray[np.float64]]
"""Wanted actions (A,), one per tick."""


class Scripted(ABC):
    """
    A policy written as a script: a generator that yields one wanted action per tick.

    The wanted actions are clipped to the contract's range and its largest change.
    """

    def __init__(self, contract: Contract, generator: np.random.Generator, sense: Sense) -> None:
        """
        Prepare; nothing is sensed before the first action.

        Args:
            contract: limits and rate.
            generator: the only source of randomness.
            sense: gives the present state.
        """
        self._contract = contract
        self._generator = generator
        self._sense = sense
        self._noise = ColouredNoise(contract, generator)
        self.reset()

    def reset(self) -> None:
        """Forget the past, for a new episode."""
        self._noise.reset()
        self._steps = self._script()
        self._last: NDArray[np.float64] | None = None

    def next(self) -> NDArray[np.float64]:
        """Return the action of the next tick, shape (A,), in the contract's units."""
        limits = self._contract.action
        action = np.clip(next(self._steps), limits.low, limits.high)
        if self._last is not None:
            action = limit_change(action, self._last, self._contract)
        self._last = action
        return action

    @abstractmethod
    def _script(self) -> Steps:
        """Yield the wanted actions, without end."""

    def _wander(self, shortest: float, longest: float) -> Steps:
        """Move by noise alone, for a time drawn between the two, seconds."""
        for _ in range(self._ticks(shortest, longest)):
            yield self._noise.next()

    def _ticks(self, shortest: float, longest: float) -> int:
        return round(self._generator.uniform(shortest, longest) * self._contract.rate)

    def _chance(self, probability: float) -> bool:
        return bool(self._generator.random() < probability)


class GoingScript(Scripted):
    """A script for robots whose first actions are the velocity of a place that the state tells."""

    NOISE = 0.3
    """Share of the noise that is added to what is done on purpose."""

    def _place(self) -> NDArray[np.float64]:
        """Return where the robot is, m: by default in the plane, and the state's first two numbers."""
        return self._sense()[:2]

    def _go(self, point: NDArray[np.float64], speed: float, seconds: float, within: float) -> Steps:
        """
        Go straight towards a point, m, until it is near or the time is over.

        Args:
            point: where to.
            speed: m/s.
            seconds: at most.
            within: m, what counts as there.
        """
        for _ in range(round(seconds * self._contract.rate)):
            way = point - self._place()
            distance = float(np.linalg.norm(way))
            if distance < within:
                return
            # No faster than gets it there in one tick.
            velocity = way / distance * min(speed, distance * self._contract.rate)
            noise = self.NOISE * self._noise.next()
            noise[: len(way)] += velocity
            yield noise

    def _speed(self) -> float:
        """Draw a speed between a third of the largest and the largest, m/s."""
        return float(self._generator.uniform(0.33, 1.0) * self._contract.action.high[0])


class Travel(GoingScript):
    """
    For TwoRoom: travels to places drawn anywhere in both rooms, through the door where it is on the way.

    A third of the time is noise alone. Pure noise presses the base against a wall for a third of
    its time and takes it through the door in a third of the episodes only.
    """

    SIDE, REACH, DOOR = 0.137, 0.85, 0.44
    """m: see two_room.py; y of the door's middle."""
    BEFORE_DOOR = 0.25
    """m in front of the dividing wall, where a way through the door begins and ends."""

    def _script(self) -> Steps:
        while True:
            if self._chance(1 / 3):
                yield from self._wander(1.0, 4.0)
                continue
            side = self._generator.choice([-1.0, 1.0])
            place = np.array(
                [
                    side * self._generator.uniform(self.SIDE, self.REACH),
                    self._generator.uniform(-self.REACH, self.REACH),
                ]
            )
            speed = self._speed()
            here = float(np.sign(self._sense()[0]))
            if here != side:
                for x in (here * self.BEFORE_DOOR, side * self.BEFORE_DOOR):
                    yield from self._go(np.array([x, self.DOOR]), speed, 5.0, 0.05)
            yield from self._go(place, speed, 5.0, 0.05)


class PushAround(GoingScript):
    """
    For PushT: goes round the block to a side of it, and pushes through it.

    The side is the one from which a push moves the block towards a place drawn near the middle, so that it
    does not end up at the rim; the push is aimed beside the block's centre as often as at it, so that
    it turns. A quarter of the time is noise alone.
    """

    AROUND = 0.125
    """m from the block's centre: here the pusher does not touch it."""
    AIM = 0.035
    """m, standard deviation of where the push is aimed at, from the block's centre."""
    MIDDLE, EDGE = 0.12, 0.225
    """m: half the sides of the squares where the block is pushed to and the pusher may go."""

    def _script(self) -> Steps:
        while True:
            if self._chance(0.25):
                yield from self._wander(0.5, 2.0)
                continue
            speed = self._speed()
            place = self._generator.uniform(-self.MIDDLE, self.MIDDLE, 2)
            away = self._sense()[2:4] - place
            yield from self._round(float(np.arctan2(away[1], away[0])), speed)
            pusher, block = self._sense()[:2], self._sense()[2:4]
            push = block + self._generator.normal(0, self.AIM, 2) - pusher
            length = self._generator.uniform(0.06, 0.3)
            yield from self._go(self._on_table(pusher + push / np.hypot(*push) * length), speed, 3.0, 0.01)

    def _round(self, side: float, speed: float) -> Steps:
        """Go round the block to one side of it, an angle in the table's frame, rad."""
        for _ in range(5):
            way = self._sense()[:2] - self._sense()[2:4]
            here = float(np.arctan2(way[1], way[0]))
            turn = (side - here + np.pi) % (2 * np.pi) - np.pi
            angle = here + np.clip(turn, -np.pi / 4, np.pi / 4)
            beside = self._sense()[2:4] + self.AROUND * np.array([np.cos(angle), np.sin(angle)])
            yield from self._go(self._on_table(beside), speed, 1.5, 0.03)
            if abs(turn) < np.pi / 4:
                return

    def _on_table(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(point, -self.EDGE, self.EDGE)


class PickAround(GoingScript):
    """
    For PickCube: grasps the cube and carries it somewhere, or sweeps through it with closed fingers.

    Grasps are aimed a little beside the cube's middle, so that some fail; what was grasped is let go
    of in the air sometimes. A quarter of the time is noise alone, with the grip as it happens to be.
    """

    NOISE = 0.15
    LOW, HIGH = np.array([0.32, -0.16, 0.02]), np.array([0.52, 0.16, 0.2])
    """m: where the grip goes on purpose."""
    ABOVE, GRASP = 0.09, 0.02
    """m, heights of the grip above the cube before it goes down, and when it closes."""
    MISS = 0.006
    """m, standard deviation in x and y of where it goes down."""
    EFFORT = 8.0
    """N."""

    def __init__(self, contract: Contract, generator: np.random.Generator, sense: Sense) -> None:
        """
        Prepare; see :class:`Scripted`.

        The state holds the arm's angles: where the grip is follows from a model of the arm.
        """
        from smwm_ros.tasks.gl import mujoco  # noqa: PLC0415 - which needs OpenGL; other policies do without
        from smwm_ros.tasks.mujoco_task import load_model  # noqa: PLC0415

        self._kinematics = mujoco.mj_kinematics
        self._model = load_model("pick_cube").compile()
        self._data = mujoco.MjData(self._model)
        super().__init__(contract, generator, sense)

    def _place(self) -> NDArray[np.float64]:
        self._data.qpos[:] = self._sense()[: self._model.nq]
        self._kinematics(self._model, self._data)
        return self._data.site("grip").xpos.copy()

    def _script(self) -> Steps:
        while True:
            kind = self._generator.random()
            if kind < 0.25:
                yield from self._wander(0.5, 1.5)
            elif kind < 0.4:
                yield from self._sweep(self._speed())
            else:
                yield from self._carry(self._speed())

    def _carry(self, speed: float) -> Steps:
        aim = self._cube()[:2] + self._generator.normal(0, self.MISS, 2)
        for height, seconds, within in ((self.ABOVE, 2.0, 0.02), (self.GRASP, 1.5, 0.006)):
            down = self._go(np.append(aim, height), speed, seconds, within)
            yield from self._gripping(-self.EFFORT, down)
        yield from self._gripping(self.EFFORT, self._stay(0.4))
        for _ in range(int(self._generator.integers(1, 3))):
            place = self._generator.uniform(self.LOW, self.HIGH)
            yield from self._gripping(self.EFFORT, self._go(place, speed, 2.0, 0.02))
        if self._chance(0.5):  # put it down rather than drop it
            place[2] = self.GRASP
            yield from self._gripping(self.EFFORT, self._go(place, speed, 1.5, 0.01))
        yield from self._gripping(-self.EFFORT, self._stay(0.3))

    def _sweep(self, speed: float) -> Steps:
        cube = self._cube()
        angle = self._generator.uniform(-np.pi, np.pi)
        way = 0.08 * np.array([np.cos(angle), np.sin(angle), 0])
        for point, seconds in ((cube - way + [0, 0, self.ABOVE], 2.0), (cube - way, 1.0), (cube + way, 2.0)):
            inside = np.clip(point, self.LOW, self.HIGH)
            yield from self._gripping(self.EFFORT, self._go(inside, speed, seconds, 0.01))

    def _cube(self) -> NDArray[np.float64]:
        return self._sense()[8:11].copy()

    def _stay(self, seconds: float) -> Steps:
        for _ in range(round(seconds * self._contract.rate)):
            yield self.NOISE * self._noise.next()

    def _gripping(self, effort: float, steps: Steps) -> Steps:
        """Add an effort of the fingers, N, to what is done meanwhile."""
        for action in steps:
            action[3] += effort
            yield action
