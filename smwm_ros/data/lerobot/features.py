"""Which feature of a LeRobotDataset each column of an episode store becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smwm_ros.data.store.reader import EpisodeStore

IMAGE = "observation.image"
INDICES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""What every frame has besides its features."""
DONE, SUCCESS = "next.done", "next.success"


@dataclass(frozen=True)
class Vector:
    """A feature that is one number or several in a row."""

    name: str
    dtype: str
    size: int
    names: tuple[str, ...] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the feature's entry in ``info.json``."""
        return {
            "dtype": self.dtype,
            "shape": [self.size],
            "names": list(self.names) if self.names else None,
        }


def choose_vectors(store: EpisodeStore) -> tuple[dict[str, Vector], list[str]]:
    """
    Name the features that columns of numbers become.

    Returns:
        Features by column, and the columns that have none: those with more than one axis in a row.
    """
    contract = store.contract
    joints = contract.observation.joints
    special: dict[str, tuple[str, tuple[str, ...] | None]] = {
        "action": ("action", tuple(dimension.name for dimension in contract.action.dimensions)),
        "joints": ("observation.state", joints.names if joints else None),
        "stamp": ("stamp", None),
    }
    vectors, left_out = {}, []
    for column in store.columns:
        rows = store.column(column)
        if column == "pixels":
            continue
        if rows.ndim > 2:
            left_out.append(column)
            continue
        name, names = special.get(column, (f"observation.{column.replace('/', '.')}", None))
        size = rows.shape[1] if rows.ndim == 2 else 1
        fits = names is not None and len(names) == size
        vectors[column] = Vector(name, rows.dtype.newbyteorder("=").name, size, names if fits else None)
    return vectors, left_out


def describe(store: EpisodeStore, vectors: dict[str, Vector], success: bool) -> dict[str, Any]:
    """Return the ``features`` of ``info.json``."""
    size = store.contract.observation.image.size
    flags = [DONE, SUCCESS] if success else [DONE]
    return {
        IMAGE: {"dtype": "image", "shape": [size, size, 3], "names": ["height", "width", "channels"]},
        **{vector.name: vector.describe() for vector in vectors.values()},
        **{name: Vector(name, "bool", 1).describe() for name in flags},
        **{name: Vector(name, dtype, 1).describe() for name, dtype in INDICES.items()},
    }
