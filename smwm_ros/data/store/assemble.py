"""Episodes of one or several stores put together into a new one, which readers can map into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smwm_ros.contract import Contract
from smwm_ros.data.store.layout import Digests, batches, kinds, row_bytes, write_index
from smwm_ros.data.store.output import NewFile
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError

ALIGNMENT = 4096
"""Columns above some kilobytes begin at a page, so that mapped numbers lie as processors like them."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Piece:
    """Some episodes of a store, in this order; all of them by default."""

    store: EpisodeStore
    episodes: Sequence[int] | None = None

    @property
    def numbers(self) -> NDArray[np.int64]:
        """
        The episodes' numbers.

        Raises:
            DataError: one that the store does not have.
        """
        if self.episodes is None:
            return np.arange(self.store.episodes)
        numbers = np.array(self.episodes, np.int64)
        if len(wrong := numbers[(numbers < 0) | (numbers >= self.store.episodes)]):
            raise DataError(
                f"{self.store.path}: no episode {wrong[0]}; there are {self.store.episodes}, from 0"
            )
        return numbers


def assemble(
    pieces: Sequence[Piece],
    out: Path | str,
    *,
    source: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> str:
    """
    Write a store of the pieces' episodes, in their order, with what is known of each.

    Its columns are contiguous and not compressed. Memory stays bounded, whatever the stores' sizes.
    ``out`` appears only when it is whole, and may be one of the stores that are read.

    Args:
        pieces: of stores with the same contract and columns.
        out: the store to write.
        source: where the episodes came from, as JSON-able values; kept for people to read.
        progress: called now and then with the bytes done and all of them.

    Returns:
        The fingerprint: the same as an :class:`EpisodeWriter` gives for the same rows.

    Raises:
        DataError: no episodes, contracts or columns that differ, or a folder that cannot be written.
    """
    chosen = [(piece.store, piece.numbers) for piece in pieces]
    chosen = [(store, numbers) for store, numbers in chosen if len(numbers)]
    if not chosen:
        raise DataError(f"{out}: no episode was chosen, so there is nothing to keep")
    stores = [store for store, _ in chosen]
    contract = check_alike(stores)
    lengths = np.concatenate([store.lengths[numbers] for store, numbers in chosen])
    facts = [store.facts[number] for store, numbers in chosen for number in numbers]
    columns = {name: stores[0].column(name) for name in stores[0].columns}
    total = int(lengths.sum()) * sum(map(row_bytes, columns.values()))
    done = 0
    digests = Digests()
    with NewFile(out, ALIGNMENT) as file:
        for name, like in columns.items():
            column = file.hdf5.create_dataset(name, (int(lengths.sum()), *like.shape[1:]), like.dtype)
            first = 0
            for rows in _chosen_rows(chosen, name):
                column[first : first + len(rows)] = rows
                digests.update(name, rows)
                file.check()
                first += len(rows)
                done += rows.nbytes
                if progress:
                    progress(done, total)
        fingerprint = write_index(file.hdf5, contract, lengths.tolist(), facts, source or {}, digests)
        file.publish()
    return fingerprint


def check_alike(stores: Sequence[EpisodeStore]) -> Contract:
    """
    Return the contract of stores whose episodes may be mixed.

    Raises:
        DataError: contracts or columns differ; says in what.
    """
    first = stores[0]
    for other in stores[1:]:
        different = first.contract.differences(other.contract)
        for part, mine, theirs in (
            ("name", first.contract.name, other.contract.name),
            ("joints", _joints(first.contract), _joints(other.contract)),
        ):
            if mine != theirs:
                different.append(f"{part}: {mine} here, {theirs} there")
        if different:
            raise DataError(
                f"{first.path} and {other.path} were made under different contracts, so their rows do not "
                f"mean the same: {'; '.join(different)}"
            )
        here, there = (kinds({n: store.column(n) for n in store.columns}) for store in (first, other))
        if here != there:
            raise DataError(f"{first.path} has the columns {here}, but {other.path} {there}")
    return first.contract


def _joints(contract: Contract) -> tuple[str, ...]:
    return contract.observation.joints.names if contract.observation.joints else ()


def _chosen_rows(
    chosen: Sequence[tuple[EpisodeStore, NDArray[np.int64]]], name: str
) -> Iterator[NDArray[Any]]:
    """Read a column of the chosen episodes, a few rows at a time; neighbours are read as one."""
    for store, numbers in chosen:
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
            start, stop = store.offsets[run[0]], store.offsets[run[-1]] + store.lengths[run[-1]]
            for _, rows in batches(store.column(name), start, stop):
                yield rows
