"""What belongs to a bag: its files, and what metadata.yaml says, which is read with care."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from smwm_ros.data.bags.yaml_text import load_yaml
from smwm_ros.errors import DataError

METADATA = "metadata.yaml"
STORAGES = (".mcap", ".db3")
COMPRESSED = ".zstd"
LARGEST_METADATA = 2**22
"""Bytes; a bag of ten thousand files has 3 MB."""
ROOT = "rosbag2_bagfile_information"


@dataclass
class Contents:
    """A bag's files, and what its metadata say."""

    files: list[Path]
    custom_data: dict[str, str] = field(default_factory=dict)
    compressed_messages: bool = False
    """Whether each message is compressed by itself."""
    notes: list[str] = field(default_factory=list)
    """What is wrong, in words."""
    absent: list[str] = field(default_factory=list)
    """Files that the metadata list, and that are not there."""


def contents_of(path: Path, *, salvage: bool = False) -> Contents:
    """
    Find what belongs to a bag.

    Args:
        path: the bag's folder, or one of its files.
        salvage: go without damaged metadata, and note what is wrong.

    Raises:
        DataError: no bag is there, or its metadata are damaged or list files that are not there.
    """
    if not path.exists():
        raise DataError(f"{path}: no such bag; give a bag's folder, or an .mcap or .db3 file")
    if path.is_file() and not _is_storage(path):
        raise DataError(f"{path}: not a bag; give a bag's folder, or an .mcap or .db3 file")
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else sorted(filter(_is_storage, folder.iterdir()), key=_natural)
    contents = Contents(files)
    metadata = folder / METADATA
    if not metadata.is_file():
        if not files:
            raise DataError(f"{path}: not a bag: neither {METADATA} nor .mcap or .db3 files in it")
        if path.is_dir():
            contents.notes.append(f"{METADATA} is missing; the files were read without it")
        return contents
    try:
        said = _read(metadata)
    except DataError as error:
        if not salvage:
            raise
        contents.notes.append(str(error))
        return contents
    names = [PurePath(name).name for name in said.files]
    if path.is_file():
        if path.name in names:
            contents.custom_data, contents.compressed_messages = said.custom_data, said.compressed_messages
        return contents
    contents.custom_data, contents.compressed_messages = said.custom_data, said.compressed_messages
    contents.absent = [name for name in names if not (folder / name).is_file()]
    if contents.absent and not salvage:
        raise DataError(
            f"{path}: {METADATA} lists {', '.join(contents.absent)}, which cannot be found; "
            f"`smwm bag recover {path}` makes a bag of the rest"
        )
    unlisted = [file.name for file in files if file.name not in names]
    if unlisted:
        contents.notes.append(f"{METADATA} does not tell of {', '.join(unlisted)}, read all the same")
    return contents


@dataclass
class _Said:
    files: list[str]
    custom_data: dict[str, str]
    compressed_messages: bool


def _read(path: Path) -> _Said:
    """
    Read metadata.yaml.

    Raises:
        DataError: it is not what rosbag2 writes.
    """
    try:
        if path.stat().st_size > LARGEST_METADATA:
            raise ValueError(f"{path.stat().st_size} bytes")
        return _interpret(load_yaml(path.read_text(encoding="utf-8"))[ROOT])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not the metadata of a bag ({str(error)[:200] or type(error).__name__}); "
            "remove the file to read the bag without it, or let `smwm bag recover` write it anew"
        ) from error


def custom_data_in(text: str) -> dict[str, str]:
    """Return the notes in the metadata that a bag's file itself holds; nothing if they cannot be read."""
    try:
        content = load_yaml(text[:LARGEST_METADATA])
        return _interpret(content.get(ROOT, content)).custom_data
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _interpret(content: Any) -> _Said:
    files = content["relative_file_paths"]
    noted = content.get("custom_data") or {}
    # Texts and numbers only: YAML can refer to one list from many places, and so make endless texts.
    if not all(isinstance(value, (str, int, float)) for pair in noted.items() for value in pair):
        raise TypeError("custom_data is not a mapping of texts")
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise TypeError("relative_file_paths is not a list of texts")
    mode, kind = (str(content.get(key) or "").lower() for key in ("compression_mode", "compression_format"))
    if mode in ("file", "message") and kind != "zstd":
        raise ValueError(f"compression {kind!r} is not known; zstd is")
    return _Said(files, {str(key): str(value) for key, value in noted.items()}, mode == "message")


def _is_storage(path: Path) -> bool:
    return (path.suffix if path.suffix != COMPRESSED else Path(path.stem).suffix) in STORAGES


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort bag_2 before bag_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]
