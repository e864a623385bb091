"""What has to be read: which bags there are, and which of them have been read before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smwm_ros.contract import Contract
from smwm_ros.data.bags.reader import BagReader
from smwm_ros.data.bags.topics import noted_contract
from smwm_ros.data.ingest.fingerprint import Looks, content, looks
from smwm_ros.data.ingest.part import Record
from smwm_ros.data.ingest.rows import find_topics
from smwm_ros.errors import DataError, SmwmError

VERSION = 1
"""Of what ingest makes of a bag: counted up when the same bag would give other rows or another report."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How bags are read."""

    contract: Contract | None
    """Given by the user; otherwise each bag's own."""
    namespace: str
    depth: bool

    @property
    def key(self) -> str:
        """What was read under another key must be read again."""
        contract = self.contract.model_dump(mode="json") if self.contract else None
        text = json.dumps([VERSION, contract, self.namespace, self.depth], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A bag, and what is known of it."""

    bag: Path
    looks: Looks
    contract: Contract
    messages: int = 0
    """To read; 0 where it was read before."""
    record: Record | None = None
    """Of an earlier time."""


def plan(bags: Iterable[Path], options: Options, records: Sequence[Record]) -> list[Planned]:
    """
    Look at bags, and open those that were not read before.

    Raises:
        DataError: bags that cannot be read, lack what is needed, or are of different contracts; all of
            them.
    """
    planned: list[Planned] = []
    errors: list[SmwmError] = []
    for bag in bags:
        try:
            planned.append(_plan(bag, options, records))
        except SmwmError as error:
            errors.append(error)
    for other in planned[1:]:
        first = planned[0]
        different = _differences(first.contract, other.contract)
        if different:
            errors.append(
                DataError(
                    f"{first.bag} and {other.bag} were recorded under different contracts: "
                    f"{'; '.join(different)}. Ingest them into different stores, or give the contract that "
                    "holds for all of them with --contract"
                )
            )
    raise_all(errors)
    return planned


def raise_all(errors: Sequence[SmwmError]) -> None:
    """Raise errors as one, if there are any."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError("\n".join(map(str, errors)))


def _plan(bag: Path, options: Options, records: Sequence[Record]) -> Planned:
    seen = looks(bag)
    record = _read_before(bag, seen, options.key, records)
    if record is not None:
        return Planned(bag=bag, looks=seen, contract=record.contract, record=record)
    with BagReader(bag) as reader:
        contract = options.contract or noted_contract(reader)
        topics = find_topics(reader, contract, options.namespace, options.depth)
        return Planned(bag=bag, looks=seen, contract=contract, messages=reader.count(topics.all))


def _read_before(bag: Path, seen: Looks, key: str, records: Sequence[Record]) -> Record | None:
    """Find the record of a bag: of the same files, or of the same content, wherever it lay."""
    alike = [record for record in records if record.key == key and record.looks.sizes == seen.sizes]
    path = str(bag.resolve())
    for record in alike:
        if record.path == path and record.looks == seen:
            return _named(record, bag)
    if alike:
        digest = content(bag)
        for record in alike:
            if record.content == digest:
                return _named(record, bag)
    return None


def _named(record: Record, bag: Path) -> Record:
    return replace(record, report=replace(record.report, bag=str(bag)))


def _differences(first: Contract, other: Contract) -> list[str]:
    """Tell in what the rows of two contracts would not mean the same."""
    different = first.differences(other)
    for what, mine, theirs in (
        ("name", first.name, other.name),
        ("max_gap", first.max_gap, other.max_gap),
        ("observation.joints.names", _joints(first), _joints(other)),
    ):
        if mine != theirs:
            different.append(f"{what}: {mine} here, {theirs} there")
    return different


def _joints(contract: Contract) -> list[str] | None:
    joints = contract.observation.joints
    return list(joints.names) if joints else None
