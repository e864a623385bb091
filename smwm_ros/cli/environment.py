"""
The environment ROS 2 needs, so that `smwm` works without sourcing anything first.

On an installed ROS 2 the user has sourced a workspace, and nothing happens here. Where ROS 2 comes
from the PyPI wheels, its libraries lie in the virtual environment, and the dynamic loader reads
LD_LIBRARY_PATH only when a process starts: the wheels therefore start Python a second time, once,
and mark that in a variable. A process started from *another* environment's Python inherits the mark
without the right path; that is what has to be mended.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path

MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
PARTICIPANTS = 10
"""Processes whose ports are looked at to see whether a ROS domain is in use."""
STARTED = time.monotonic()
"""When the command line began, steady seconds."""


def prepare(environment: MutableMapping[str, str] = os.environ, prefix: str = sys.prefix) -> None:
    """
    Make ROS 2's libraries and index found by this process and its children.

    May replace this process by a fresh one with the right environment; then it does not return.
    """
    if not (Path(prefix) / "share" / "ament_index").is_dir():
        return
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if prefix not in prefixes:
        environment["AMENT_PREFIX_PATH"] = os.pathsep.join([prefix, *filter(None, prefixes)])
    libraries = str(Path(prefix) / "lib")
    if libraries not in environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) and MARK in environment:
        # Without both, the wheels set them for this environment, and leave out the other one's.
        fresh = {key: value for key, value in environment.items() if key not in (MARK, "LD_LIBRARY_PATH")}
        os.execve(sys.executable, sys.orig_argv, fresh)


def isolate(environment: MutableMapping[str, str] = os.environ) -> None:
    """
    Keep what is about to start away from other robots: this machine only, and a ROS domain of its own.

    A domain that the user has chosen is kept.
    """
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if "ROS_DOMAIN_ID" not in environment:
        environment["ROS_DOMAIN_ID"] = str(_free_domain())


def _free_domain() -> int:
    """Return a domain in which no participant listens on this machine."""
    first = os.getpid() % 100
    for offset in range(100):
        domain = 1 + (first + offset) % 100  # above 101 the ports collide with Linux's ephemeral ones
        # RTPS 9.6.2: where participant n listens. The first ones may have left already.
        if all(_is_free(7400 + 250 * domain + 10 + 2 * number) for number in range(PARTICIPANTS)):
            return domain
    return 1 + first


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
