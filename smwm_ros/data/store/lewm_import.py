"""Files in LeWM's layout that others made, such as stable-worldmodel's writer, into episode stores."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract, ImageStream
from smwm_ros.data.images import model_input
from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.layout import INDEX, REQUIRED, EpisodeFacts, facts_from_json
from smwm_ros.data.store.lewm_export import DERIVED, JOINTS, PROPRIO
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import DataError

Actions = Literal["auto", "from", "to"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportReport:
    """What an import gave."""

    path: str
    fingerprint: str
    episodes: int
    rows: int
    notes: tuple[str, ...]
    """What was left out or decided, for a person to look at."""


def import_lewm(
    path: Path | str,
    contract: Contract,
    out: Path | str,
    *,
    actions: Actions = "auto",
    frameskip: int = 1,
    resize: bool = False,
    progress: Progress = lambda done, total: None,
) -> ImportReport:
    """
    Make an episode store of a file in LeWM's layout.

    Images may be HWC or CHW, with 1, 3 or 4 channels, of any integer type, or floats of 0 to 1. Columns
    that are not numbers with a row per tick are left out. One episode at a time is in memory.

    Args:
        path: of the file.
        contract: of the robot; says what the actions mean and how large the images are.
        out: the store to write.
        actions: ``from``: row t holds the action applied from image t on; ``to``: the one that led to
            image t. By default the rows without an action (NaN), which are the last or the first ones of
            the episodes, decide; without any, it is ``from``.
        frameskip: keep every so manyth image, and the mean of the actions between two that are kept.
        resize: squeeze images that have neither the encoder's nor the camera's size.
        progress: called with the episodes done and all of them.

    Raises:
        DataError: not such a file, or one that does not fit the contract.
    """
    path, out = Path(path), Path(out)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not a readable HDF5 file ({error})") from error
    with suppress(ImportError):
        import_module("hdf5plugin")  # unpacks blosc and the like, where it is installed
    with file:
        try:
            return _import(_Source(path, file, contract, actions, resize), out, frameskip, progress)
        except OSError as error:
            raise DataError(
                f"{path}: rows cannot be read ({error}); if they are compressed in a way that this HDF5 does "
                "not know, `pip install hdf5plugin`"
            ) from error


def _import(source: _Source, out: Path, frameskip: int, progress: Progress) -> ImportReport:
    if not out.parent.is_dir():
        raise DataError(f"{out}: cannot write the store; its folder must exist")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        parts = Path(folder) / "parts.h5"
        with EpisodeWriter(parts, source.contract) as writer:
            for number, facts in enumerate(source.facts):
                if source.lengths[number] == 0:
                    continue
                columns = source.episode(number)
                kept = {name: rows[::frameskip] for name, rows in columns.items()}
                kept["action"] = _means(columns["action"], frameskip)
                writer.append(kept, outcome=facts.outcome, label=facts.label, origin=facts.origin)
                progress(number + 1, len(source.lengths))
        with EpisodeStore(parts) as store:
            taken = {"file": str(source.path), "actions": source.actions, "frameskip": frameskip}
            fingerprint = assemble([Piece(store)], out, source={"imported": taken})
            episodes, rows = store.episodes, len(store)
    if source.outside:
        source.notes.append(
            f"{source.outside} actions lie outside the contract's low and high; are the units the same?"
        )
    return ImportReport(str(out), fingerprint, episodes, rows, tuple(source.notes))


def _means(actions: NDArray[np.float32], frameskip: int) -> NDArray[np.float32]:
    """Return the mean of the actions from each image that is kept to the next; NaN for the last one."""
    means = np.full_like(actions[::frameskip], np.nan)
    whole = (len(actions) - 1) // frameskip
    blocks = actions[: whole * frameskip].reshape(whole, frameskip, actions.shape[1])
    means[:whole] = blocks.mean(axis=1)
    return means


class _Source:
    """A file in LeWM's layout, read as the contract wants it."""

    def __init__(
        self, path: Path, file: h5py.File, contract: Contract, actions: Actions, resize: bool
    ) -> None:
        self.path, self.contract = path, contract
        self.notes: list[str] = []
        self.outside = 0
        """Actions outside the contract's limits, in the episodes read so far."""
        self._file, self._resize = file, resize
        missing = [name for name in (*REQUIRED, *INDEX) if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise DataError(
                f"{path}: not in LeWM's layout: the columns {missing} are missing; found {sorted(file)}"
            )
        self.lengths = file["ep_len"][:].astype(np.int64)
        self._offsets = file["ep_offset"][:].astype(np.int64)
        rows = len(file["pixels"])
        if len(self.lengths) != len(self._offsets) or len(self.lengths) == 0:
            raise DataError(
                f"{path}: ep_len has {len(self.lengths)} episodes, and ep_offset {len(self._offsets)}; "
                "expected as many, and at least one"
            )
        if (
            (self.lengths < 0).any()
            or (self._offsets < 0).any()
            or (self._offsets + self.lengths > rows).any()
        ):
            raise DataError(f"{path}: ep_len and ep_offset lead beyond the {rows} rows of pixels")
        self.facts = tuple(
            EpisodeFacts(facts.outcome, facts.label, facts.origin or path.name)
            for facts in facts_from_json(
                str(file.attrs.get("episode_facts", "{}")), len(self.lengths), str(path)
            )
        )
        self._columns = self._choose_columns(rows)
        self._check_action_size()
        self.actions = self._alignment() if actions == "auto" else actions

    def episode(self, number: int) -> dict[str, NDArray[Any]]:
        """Read an episode's columns, in the form that the contract asks for."""
        span = slice(self._offsets[number], self._offsets[number] + self.lengths[number])
        columns = {new: self._file[name][span] for name, new in self._columns.items()}
        columns["pixels"] = self._pictures(columns["pixels"])
        if JOINTS in columns:
            columns[JOINTS] = columns[JOINTS].astype(np.float32)  # as ingest writes them
        action = columns["action"].astype(np.float32).reshape(len(columns["action"]), -1)
        if self.actions == "to":
            action = np.roll(action, -1, axis=0)
        action[-1] = np.nan
        columns["action"] = action
        bad = np.flatnonzero(~np.isfinite(action[:-1]).all(axis=1))
        if len(bad):
            raise DataError(
                f"{self.path}: the action of row {bad[0]} of episode {number} is not finite; only the "
                f"{'last' if self.actions == 'from' else 'first'} row of an episode may lack one. Did the "
                "actions lead to their rows' images (--actions to), or follow them (--actions from)?"
            )
        limits = self.contract.action
        low, high = limits.low.astype(np.float32), limits.high.astype(np.float32)
        self.outside += int(((action < low) | (action > high)).any(axis=1).sum())
        return columns

    def _choose_columns(self, rows: int) -> dict[str, str]:
        """Return the columns to take, and their names here."""
        columns, left_out = {}, []
        wants_joints = self.contract.observation.joints is not None and JOINTS not in self._file
        for name, column in self._file.items():
            if name in INDEX or name in DERIVED:
                continue
            if not isinstance(column, h5py.Dataset) or column.dtype.kind not in "biuf":
                left_out.append(f"{name} (not numbers)")
            elif column.ndim == 0 or len(column) != rows:
                left_out.append(f"{name} (not a row per tick)")
            else:
                columns[name] = (
                    JOINTS if name == PROPRIO and wants_joints and self._fits_joints(column) else name
                )
        if left_out:
            self.notes.append(f"left out: {', '.join(left_out)}")
        return columns

    def _fits_joints(self, column: h5py.Dataset) -> bool:
        joints = self.contract.observation.joints
        return joints is not None and column.shape[1:] == (len(joints.names),)

    def _check_action_size(self) -> None:
        if missing := set(REQUIRED) - self._columns.keys():
            raise DataError(f"{self.path}: {', '.join(missing)} must be numbers with a row per tick")
        found = int(np.prod(self._file["action"].shape[1:]))
        size, block = self.contract.action.size, self.contract.block
        if found != size:
            blocks = f"; a row must be one tick, not a block of {block}" if found == size * block else ""
            raise DataError(
                f"{self.path}: actions have {found} numbers; the contract {self.contract.name!r} expects "
                f"{size}{blocks}"
            )

    def _alignment(self) -> Literal["from", "to"]:
        """Tell by the rows without an action whether it led to their image or was applied from it."""
        some = self.lengths > 0
        first = self._offsets[some]
        last = first + self.lengths[some] - 1
        actions = self._file["action"]
        # h5py takes rows in rising order only, and none twice.
        lacking = [
            np.isnan([np.asarray(actions[row], float) for row in rows]).all() for rows in (first, last)
        ]
        if lacking[1]:
            return "from"
        if lacking[0]:
            self.notes.append(
                "the actions led to their rows' images (the first ones have none): moved by a row"
            )
            return "to"
        self.notes.append(
            "every row has an action: taken as applied from its image on, without an episode's last one; "
            "if the actions led to their images, import with --actions to"
        )
        return "from"

    def _pictures(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """Return images as (T, size, size, 3) uint8."""
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4:
            raise DataError(
                f"{self.path}: pixels have the shape {images.shape}; expected (rows, height, width, 3)"
            )
        if images.shape[-1] not in (1, 3, 4) and images.shape[1] in (1, 3, 4):
            images = images.transpose(0, 2, 3, 1)
        images = self._bytes(images)
        channels = images.shape[-1]
        if channels not in (1, 3, 4):
            raise DataError(f"{self.path}: pixels have {channels} channels; expected 1, 3 or 4")
        images = np.repeat(images, 3, axis=-1) if channels == 1 else images[..., :3]
        return self._sized(np.ascontiguousarray(images), self.contract.observation.image)

    def _bytes(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        if images.dtype == np.uint8:
            return images
        least, most = images.min(), images.max()
        if images.dtype.kind == "f" and least >= 0 and most <= 1:
            return np.rint(images * 255).astype(np.uint8)
        if images.dtype.kind in "iu" and least >= 0 and most <= 255:
            return images.astype(np.uint8)
        raise DataError(
            f"{self.path}: pixels are {images.dtype} from {least} to {most}; expected integers of 0 to 255, "
            "or floats of 0 to 1"
        )

    def _sized(self, images: NDArray[np.uint8], stream: ImageStream) -> NDArray[np.uint8]:
        height, width = images.shape[1:3]
        if (height, width) == (stream.size, stream.size):
            return images
        if (height, width) == (stream.height, stream.width):
            return np.stack([model_input(image, stream) for image in images])
        if not self._resize:
            raise DataError(
                f"{self.path}: images are {width}x{height}; the contract {self.contract.name!r} expects the "
                f"camera's {stream.width}x{stream.height} or the encoder's {stream.size}x{stream.size}. "
                "Give --resize to squeeze them, or a contract with that camera"
            )
        size = (stream.size, stream.size)
        return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
