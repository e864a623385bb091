"""Which topics of a bag are meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from smwm_ros.errors import DataError


def choose_topics(
    topics: Collection[str], wanted: Sequence[str], without: Sequence[str], bag: Path
) -> list[str]:
    """
    Choose topics by their names.

    Args:
        topics: the full names of those in the bag.
        wanted: names or patterns (as a shell's: ``/camera/*``) of those to take; none: all.
        without: of those to leave out.
        bag: for the message.

    Returns:
        Full names, in the order of ``topics``.

    Raises:
        DataError: a name or pattern that fits nothing, or nothing is left.
    """
    patterns = {
        given: given if given.startswith(("/", "*")) else f"/{given}" for given in (*wanted, *without)
    }
    there = ", ".join(sorted(topics)) or "none"
    for given, pattern in patterns.items():
        if not any(fnmatchcase(topic, pattern) for topic in topics):
            raise DataError(f"{bag}: no topic is called {given}. Topics in it: {there}")
    chosen = [
        topic
        for topic in topics
        if (not wanted or any(fnmatchcase(topic, patterns[given]) for given in wanted))
        and not any(fnmatchcase(topic, patterns[given]) for given in without)
    ]
    if not chosen:
        raise DataError(f"{bag}: no topic is left to play. Topics in it: {there}")
    return chosen
