"""The messages of this package: Latent, Belief, Plan, AppliedAction."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros import msg
from smwm_ros.contract import Contract
from smwm_ros.errors import DataError
from smwm_ros.messages.commands import check_action
from smwm_ros.messages.stamps import fill_time, from_time, header, to_time
from smwm_ros.runtime.belief import Belief, Latent
from smwm_ros.runtime.gate import Command
from smwm_ros.runtime.plan import Plan


def latent_to_message(latent: Latent) -> msg.Latent:
    """Return msg/Latent."""
    return msg.Latent(
        header=header(latent.stamp, latent.frame_id), model=latent.model, values=_floats("f", latent.values)
    )


def latent_from_message(message: msg.Latent) -> Latent:
    """Read msg/Latent; whether its size and values are right is the belief's to judge."""
    return Latent(
        stamp=from_time(message.header.stamp),
        frame_id=message.header.frame_id,
        model=message.model,
        values=np.array(message.values, np.float32),
    )


def belief_to_message(belief: Belief) -> msg.Belief:
    """Return msg/Belief."""
    return msg.Belief(
        header=header(belief.stamp, belief.frame_id),
        evidence=to_time(belief.evidence),
        model=belief.model,
        latent=_floats("f", belief.latent),
        surprise=belief.surprise,
        surprised=belief.surprised,
        observations=belief.observations,
    )


def belief_from_message(message: msg.Belief) -> Belief:
    """Read msg/Belief."""
    return Belief(
        stamp=from_time(message.header.stamp),
        evidence=from_time(message.evidence),
        frame_id=message.header.frame_id,
        model=message.model,
        latent=np.array(message.latent, np.float32),
        surprise=float(message.surprise),
        surprised=bool(message.surprised),
        observations=int(message.observations),
    )


def plan_to_message(plan: Plan) -> msg.Plan:
    """Return msg/Plan."""
    return msg.Plan(
        header=header(plan.stamp),
        evidence=to_time(plan.evidence),
        model=plan.model,
        sequence=plan.sequence,
        period=plan.period,
        action_size=plan.actions.shape[1],
        execute=plan.execute,
        actions=_floats("d", plan.actions),
        cost=plan.cost,
    )


def plan_from_message(message: msg.Plan) -> Plan:
    """
    Read msg/Plan; whether it may be played is the gate's to judge.

    Raises:
        DataError: the actions do not divide into rows of ``action_size``.
    """
    size, count = int(message.action_size), len(message.actions)
    if count and (size < 1 or count % size):
        raise DataError(f"plan {message.sequence}: {count} numbers are no rows of action_size {size}")
    return Plan(
        stamp=from_time(message.header.stamp),
        evidence=from_time(message.evidence),
        model=message.model,
        sequence=int(message.sequence),
        period=float(message.period),
        execute=int(message.execute),
        actions=np.array(message.actions, np.float64).reshape(-1, max(size, 1)),
        cost=float(message.cost),
    )


def applied_to_message(command: Command, into: msg.AppliedAction | None = None) -> msg.AppliedAction:
    """
    Return msg/AppliedAction.

    Args:
        command: what was sent.
        into: an earlier message, to be filled anew: making one takes longer than filling it.
    """
    message = into or msg.AppliedAction()
    fill_time(message.header.stamp, command.stamp)
    fill_time(message.evidence, command.evidence)
    message.values = _floats("d", command.values)
    message.source = msg.AppliedAction.SAFE if command.safe else msg.AppliedAction.PLAN
    message.reason = command.reason
    return message


def applied_from_message(contract: Contract, message: msg.AppliedAction) -> tuple[int, NDArray[np.float64]]:
    """
    Read msg/AppliedAction.

    Returns:
        When it took effect (ns), and the action in the contract's units, shape (A,).

    Raises:
        DataError: another number of values than the contract's, or not finite.
    """
    return from_time(message.header.stamp), check_action(contract, message.values, "applied action")


def _floats(code: str, values: NDArray[Any]) -> array[float]:
    """Return numbers as the array that rclpy takes without looking at each one."""
    return array(code, np.ascontiguousarray(values, np.dtype(code)).tobytes())
