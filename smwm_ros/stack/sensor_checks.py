"""Hold what came on the sensor topics against the contract."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from smwm_ros.contract import Contract
from smwm_ros.stack.findings import Finding, Level, fault, fine
from smwm_ros.stack.graph import Sample

SLACK = 0.1
"""Part of the contract's rate by which a camera may be slower before it is worth a word."""
SYNCHRONISE = "synchronise the clocks of the machines (chrony, PTP)"


def judge_pictures(contract: Contract, images: Sequence[Sample]) -> Finding:
    """Judge encoding and size; those of a compressed image are its sender's affair."""
    stream = contract.observation.image
    expected = f"{stream.encoding} {stream.width}x{stream.height}"
    seen = sorted({image.content for image in images})
    if any(content not in (expected, "") for content in seen):
        return fault(
            ", ".join(seen),
            expected,
            "correct encoding, width and height in the contract, or the camera's settings",
        )
    return fine(", ".join(filter(None, seen)) or "compressed")


def judge_rate(contract: Contract, images: Sequence[Sample], time_stands: bool) -> Finding:
    """
    Judge the rate of the stamps.

    Args:
        contract: of the robot.
        images: what came.
        time_stands: the robot goes by /clock, which did not move.
    """
    rate = measured_rate(images)
    if rate is None:
        if time_stands:
            return fine("time stands still, as in lock-step until a command comes")
        return fault(
            f"{len(images)} images, all with one stamp",
            f"{contract.rate:g} stamps a second",
            "see whether the camera is frozen, and that the driver stamps each image",
        )
    found, expected = f"{rate:.3g} Hz by the stamps", f"{contract.rate:g} Hz, as the contract says"
    mend = "set the camera's rate; or correct the rate in the contract, and train for it"
    if rate * contract.max_gap < contract.rate:
        return fault(f"{found}: each image begins a new episode, as it comes late", expected, mend)
    if rate < (1 - SLACK) * contract.rate:
        return Finding(Level.warning, found, expected, mend)
    return fine(f"{found}{', the surplus is dropped' if rate > (1 + SLACK) * contract.rate else ''}")


def judge_stamps(contract: Contract, samples: Sequence[Sample], by_clock: bool) -> Finding:
    """Judge how old messages are at their arrival, in both directions; ``by_clock``: by /clock's time."""
    oldest, newest = max(sample.age for sample in samples), min(sample.age for sample in samples)
    early = contract.period * (2 if by_clock else 1)  # an image of a simulator may overtake its /clock
    late = contract.action.timeout
    if -newest > early:
        return fault(
            f"up to {-newest:.3f} s in the future",
            f"at most {early:g} s",
            f"{SYNCHRONISE}; or the driver stamps with another clock than ROS time",
        )
    if median(sample.age for sample in samples) > late:
        return fault(
            f"up to {oldest:.3f} s old",
            f"less than {late:g} s: after that, the safe action is sent",
            f"{SYNCHRONISE}; or the driver holds images back, or stamps with another clock than ROS time",
        )
    return fine(f"{1e3 * newest:.0f} to {1e3 * oldest:.0f} ms old")


def judge_joint_names(names: Sequence[str], joints: Sequence[Sample]) -> Finding:
    """Judge whether the contract's joints are among those that came."""
    seen = {name for sample in joints for name in sample.names}
    if missing := [name for name in names if name not in seen]:
        return fault(
            f"{', '.join(missing)} missing; there are {', '.join(sorted(seen)) or 'none'}",
            f"{', '.join(names)}, as the contract says",
            "correct the joint names in the contract, or the robot's description",
        )
    return fine(", ".join(names))


def measured_rate(samples: Sequence[Sample]) -> float | None:
    """Return the stamps per second of a stream, by their median distance; None if there is but one."""
    stamps = sorted({sample.stamp for sample in samples})
    gaps = [later - sooner for sooner, later in pairwise(stamps)]
    return 1e9 / median(gaps) if gaps else None
