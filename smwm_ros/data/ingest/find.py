"""Finding bags: files, folders, folders of folders, and patterns."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from smwm_ros.data.bags.contents import METADATA
from smwm_ros.errors import DataError

STORAGE = re.compile(r"(.*?)(_\d+)?\.(mcap|db3)(\.zstd)?")
"""A bag's file: the recording's name, the file's number, its kind."""


def find_bags(places: Sequence[Path | str]) -> list[Path]:
    """
    Find bags.

    A folder with a ``metadata.yaml`` is a bag. Without one it is a bag if all its .mcap or .db3 files
    are parts of one recording (``name.mcap``, or ``name_0.mcap``, ``name_1.mcap``, …); if they are not,
    each file is a bag. A folder that holds neither is searched, and its folders.

    Args:
        places: bags, folders that hold bags, or patterns such as ``bags/2024-*``.

    Returns:
        In the order of ``places``, and by name within each; every bag once.

    Raises:
        DataError: a place where there is none; says which.
    """
    if not places:
        raise DataError("no bag was given; give bags, folders that hold bags, or patterns")
    found: dict[Path, Path] = {}
    for place in map(Path, places):
        matches = [place] if place.exists() else [Path(name) for name in sorted(glob.glob(str(place)))]  # noqa: PTH207 - absolute patterns
        bags = [bag for match in matches for bag in _bags(match, set())]
        if not bags:
            what = "holds no bag" if place.is_dir() else "not a bag" if place.exists() else "no such bag"
            raise DataError(
                f"{place}: {what}; give a bag's folder, an .mcap or .db3 file, a folder that holds bags, "
                "or a pattern of them"
            )
        for bag in bags:
            found.setdefault(bag.resolve(), bag)
    return list(found.values())


def bag_files(bag: Path) -> list[Path]:
    """Return the files that a bag is made of, by name."""
    if bag.is_file():
        return [bag]
    return sorted(path for path in bag.iterdir() if path.name == METADATA or STORAGE.fullmatch(path.name))


def _bags(place: Path, seen: set[Path]) -> list[Path]:
    if place.is_file():
        return [place] if STORAGE.fullmatch(place.name) else []
    if place.resolve() in seen:  # a link that leads back
        return []
    seen.add(place.resolve())
    if (place / METADATA).is_file():
        return [place]
    if files := bag_files(place):
        recordings = {match[1] for path in files if (match := STORAGE.fullmatch(path.name))}
        return [place] if len(recordings) == 1 else files
    return [
        bag
        for folder in sorted(path for path in place.iterdir() if path.is_dir())
        if not folder.name.startswith(".")
        for bag in _bags(folder, seen)
    ]
