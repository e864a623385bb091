"""Whether a bag is still the one that was read: by the looks of its files, then by what is in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from smwm_ros.data.ingest.find import bag_files
from smwm_ros.errors import DataError

BLOCK = 1 << 20


@dataclass(frozen=True)
class Looks:
    """What the files of a bag look like from outside."""

    files: tuple[tuple[str, int, int], ...]
    """Name, bytes and time of the last change (ns) of each."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each file."""
        return tuple(size for _, size, _ in self.files)


def looks(bag: Path) -> Looks:
    """
    Look at a bag without reading it.

    Raises:
        DataError: it cannot be looked at.
    """
    try:
        states = [(path.name, path.stat()) for path in bag_files(bag)]
    except OSError as error:
        raise DataError(f"{bag}: cannot be read ({error.strerror})") from error
    return Looks(tuple((name, state.st_size, state.st_mtime_ns) for name, state in states))


def content(bag: Path, given_up: Event | None = None) -> str:
    """
    Return a fingerprint (SHA-256) of all that is in a bag's files, whatever they are called.

    Args:
        bag: its folder, or a file.
        given_up: set by another thread when nobody waits for the answer any more.

    Raises:
        DataError: they cannot be read, or it was given up.
    """
    digest = hashlib.sha256()
    try:
        for path in bag_files(bag):
            digest.update(path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    if given_up is not None and given_up.is_set():
                        raise DataError(f"{bag}: no fingerprint was wanted any more")
                    digest.update(block)
    except OSError as error:
        raise DataError(f"{bag}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
