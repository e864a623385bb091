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


class PlanarScript(Scripted):
    """A script for robots whose first two state variables are a position that the actions move."""

    NOISE = 0.3
    """Share of the noise that is added to what is done on purpose."""

    def _go(self, point: NDArray[np.float64], speed: float, seconds: float, within: float) -> Steps:
        """
        Go straight towards a point (2,), m, until it is near or the time is over.

        Args:
            point: where to.
            speed: m/s.
            seconds: at most.
            within: m, what counts as there.
        """
        for _ in range(round(seconds * self._contract.rate)):
            way = point - self._sense()[:2]
            distance = float(np.hypot(*way))
            if distance < within:
                return
            # No faster than gets it there in one tick.
            velocity = way / distance * min(speed, distance * self._contract.rate)
            yield velocity + self.NOISE * self._noise.next()

    def _speed(self) -> float:
        """Draw a speed between a third of the largest and the largest, m/s."""
        return float(self._generator.uniform(0.33, 1.0) * self._contract.action.high.min())


class Travel(PlanarScript):
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


class PushAround(PlanarScript):
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
