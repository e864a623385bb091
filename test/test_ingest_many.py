"""Many bags into one store: found, read at the same time, and never twice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ingesting import assert_aligned, refused, run
from recordings import PERIOD, Recording, action, numbered, record, robot

from smwm_ros.contract import parse_contract
from smwm_ros.data.ingest import ingest as many
from smwm_ros.data.ingest import part
from smwm_ros.data.ingest.find import find_bags
from smwm_ros.data.ingest.fingerprint import content
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.data.ingest.parts import Parts
from smwm_ros.data.ingest.report import IngestReport
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError


def three(folder: Path) -> list[Path]:
    """Record three bags of 5, 6 and 7 ticks, whose names sort in that order."""
    folder.mkdir(exist_ok=True)
    return [record(folder / f"bag_{ticks}", ticks=ticks) for ticks in (5, 6, 7)]


def names(report: IngestReport) -> list[str]:
    """Return the bags that were read."""
    return [Path(bag).name for bag in report.read]


# Finding


def test_folders_are_searched_and_every_bag_is_taken_once(tmp_path: Path) -> None:
    """The order must not depend on the file system, and a bag named in two ways is one bag."""
    bags = three(tmp_path / "day")
    deep = record(tmp_path / "day" / "late" / "evening" / "bag")
    (tmp_path / "day" / "empty").mkdir()
    assert find_bags([tmp_path / "day"]) == [*bags, deep]
    assert find_bags([bags[2], tmp_path / "day", bags[0]]) == [bags[2], *bags[:2], deep]
    link = tmp_path / "link"
    link.symlink_to(bags[1])
    assert find_bags([link, tmp_path / "day"])[:2] == [link, bags[0]]


def test_patterns_are_searched(tmp_path: Path) -> None:
    """Quoted, or longer than a command line can be, a pattern reaches us as it is."""
    bags = three(tmp_path)
    assert find_bags([tmp_path / "bag_[56]"]) == bags[:2]
    assert find_bags([tmp_path / "bag_*" / "*.mcap"]) == [bag / f"{bag.name}_0.mcap" for bag in bags]


def test_files_without_metadata_are_one_bag_if_they_are_called_so(tmp_path: Path) -> None:
    """A killed recorder's split bag is one; files that were gathered in a folder are many."""
    split, loose = tmp_path / "split", tmp_path / "loose"
    for folder, files in ((split, ("run_0.mcap", "run_1.mcap")), (loose, ("a.mcap", "b_0.db3", "c.txt"))):
        folder.mkdir()
        for name in files:
            (folder / name).touch()
    assert find_bags([split, loose]) == [split, loose / "a.mcap", loose / "b_0.db3"]


@pytest.mark.parametrize("place", ["nothing", "empty", "note.txt", "no*"])
def test_where_no_bag_is_the_message_says_so(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").touch()
    with pytest.raises(DataError, match=rf"{place.replace('*', '.')}.*folder that holds bags"):
        find_bags([record(tmp_path / "bag"), tmp_path / place])


# At the same time


def test_the_store_does_not_depend_on_the_number_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes finish in any order; the episodes are in that of the bags."""
    monkeypatch.setattr(many, "WORTH_PROCESSES", 0)
    bags = three(tmp_path / "bags")
    alone, together = (ingest(bags, tmp_path / f"{jobs}.h5", jobs=jobs) for jobs in (1, 2))
    assert alone.fingerprint == together.fingerprint
    assert [bag.quality for bag in alone.bags] == [bag.quality for bag in together.bags]
    store = EpisodeStore(tmp_path / "2.h5")
    assert store.lengths.tolist() == [5, 6, 7]
    assert [facts.origin for facts in store.facts] == list(map(str, bags))
    assert_aligned(store)


# Not twice


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    """Neither the bags nor the store are touched."""
    bags = three(tmp_path / "bags")
    first = ingest(bags, tmp_path / "store.h5", jobs=1)
    assert names(first) == ["bag_5", "bag_6", "bag_7"]
    written = (tmp_path / "store.h5").stat()
    again = ingest(bags, tmp_path / "store.h5", jobs=1)
    assert (again.unchanged, again.read, again.bags) == (True, (), first.bags)
    assert again.fingerprint == first.fingerprint
    now = (tmp_path / "store.h5").stat()
    assert (written.st_ino, written.st_mtime_ns) == (now.st_ino, now.st_mtime_ns)
    assert not first.unchanged


def test_a_bag_that_was_moved_or_touched_is_known_by_its_content(tmp_path: Path) -> None:
    """A copy on another disk has other times and another name."""
    bags = three(tmp_path / "bags")
    ingest(bags, tmp_path / "store.h5", jobs=1)
    for file in bags[0].iterdir():
        os.utime(file, ns=(1, 1))
    bags[1] = bags[1].rename(tmp_path / "moved")
    again = ingest(bags, tmp_path / "store.h5", jobs=1)
    assert (again.unchanged, again.bags[1].bag) == (True, str(tmp_path / "moved"))


@pytest.mark.parametrize("change", ["more", "fewer", "other order", "one anew"])
def test_only_what_is_new_is_read(tmp_path: Path, change: str) -> None:
    """And the result is what reading everything anew gives."""
    bags = three(tmp_path / "bags")
    ingest(bags[: 2 if change == "more" else 3], tmp_path / "store.h5", jobs=1)
    read = {"more": ["bag_7"], "one anew": ["bag_6"]}.get(change, [])
    if change == "fewer":
        del bags[1]
    if change == "other order":
        bags.reverse()
    if change == "one anew":
        shutil.rmtree(bags[1])
        record(bags[1], ticks=9)
    again = ingest(bags, tmp_path / "store.h5", jobs=1)
    assert (names(again), again.unchanged) == (read, False)
    fresh = ingest(bags, tmp_path / "fresh.h5", jobs=1)
    assert again.fingerprint == fresh.fingerprint
    facts = [EpisodeStore(tmp_path / name).facts for name in ("store.h5", "fresh.h5")]
    assert facts[0] == facts[1]
    assert not list(tmp_path.glob(".*"))


def test_another_contract_reads_anew(tmp_path: Path) -> None:
    """Cached rows of a smaller picture, or of another pairing, would pass unseen."""
    bags = three(tmp_path / "bags")
    ingest(bags, tmp_path / "store.h5", jobs=1)
    smaller = robot(image="{width: 12, height: 12, size: 8}")
    again = ingest(bags, tmp_path / "store.h5", contract=smaller, jobs=1)
    assert len(again.read) == 3
    assert EpisodeStore(tmp_path / "store.h5").read("pixels").shape[1:] == (8, 8, 3)
    assert ingest(bags, tmp_path / "store.h5", contract=smaller, jobs=1).unchanged


def test_a_store_of_unknown_origin_is_replaced(tmp_path: Path) -> None:
    bags = three(tmp_path / "bags")
    (tmp_path / "store.h5").write_bytes(b"not a store")
    assert len(ingest(bags, tmp_path / "store.h5", jobs=1).read) == 3


def test_a_copy_gives_nothing_twice(tmp_path: Path) -> None:
    """The same episodes in training and validation would make every figure too good."""
    bags = three(tmp_path / "bags")
    shutil.copytree(bags[0], tmp_path / "copy")
    store, report = run(tmp_path, *bags, tmp_path / "copy", jobs=1)
    assert store.lengths.tolist() == [5, 6, 7]
    assert (report.total("frames"), report.total("images"), report.total("actions")) == (18, 18, 18)
    assert "copy of" in report.bags[3].notes[0]
    # The copy alone is as good as the original.
    assert run(tmp_path, tmp_path / "copy", jobs=1)[0].lengths.tolist() == [5]


# Interrupted

KILLED = """
import os, signal, sys
from smwm_ros.data.ingest import parallel
from smwm_ros.data.ingest.ingest import ingest
from smwm_ros.data.ingest.rows import BagRows

read, make = BagRows.read, parallel.make_part
def killed(self, progress=None):
    for number, row in enumerate(read(self, progress)):
        yield row
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
def make_part(job, progress=None):
    if job.bag.name == "bag_7":
        BagRows.read = killed
    return make(job, progress)
parallel.make_part = make_part
ingest(sys.argv[2:], sys.argv[1], jobs=1)
"""


def test_a_killed_ingest_goes_on_where_it_was(tmp_path: Path) -> None:
    """Two bags were done, one half: only that one is read again, and nothing is left behind."""
    bags, out = three(tmp_path / "bags"), tmp_path / "store.h5"
    command = [sys.executable, "-c", KILLED, str(out), *map(str, bags)]
    assert subprocess.run(command, check=False).returncode == -9
    assert not out.exists()
    report = ingest(bags, out, jobs=1)
    assert names(report) == ["bag_7"]
    assert report.fingerprint == ingest(bags, tmp_path / "fresh.h5", jobs=1).fingerprint
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["bags", "fresh.h5", "store.h5"]


def test_a_worker_that_is_killed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When memory runs out, the kernel ends a process without a word; waiting for it would take for ever."""
    monkeypatch.setattr(many, "WORTH_PROCESSES", 0)
    bags, out = three(tmp_path / "bags"), tmp_path / "store.h5"

    def kill(*_: object) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(DataError, match="fewer --jobs"):
        ingest(bags, out, jobs=2, progress=kill)
    assert ingest(bags, out, jobs=1).total("frames") == 18


def test_bad_bags_are_all_named_and_the_good_ones_kept(tmp_path: Path) -> None:
    """After a night's work, one damaged bag must not cost the others."""
    bags = three(tmp_path / "bags")
    for number in (4, 8):
        with Recording(tmp_path / "bags" / f"bad_{number}", robot()) as bag:
            bag.tick(PERIOD, 0)
            bag.add("applied_action", action(PERIOD, [0.0] * number))
        bags.append(tmp_path / "bags" / f"bad_{number}")
    out = tmp_path / "store.h5"
    with pytest.raises(DataError, match=r"(?s)bad_4.*4 numbers.*bad_8.*8 numbers.*3 other bags.*kept"):
        ingest(bags, out, jobs=1)
    assert not out.exists()
    assert names(ingest(bags[:3], out, jobs=1)) == []
    assert not list(tmp_path.glob(".*"))


def test_two_at_the_same_time_do_not_write_one_store(tmp_path: Path) -> None:
    bag = record(tmp_path / "bag")
    with Parts(tmp_path / "store.h5"), pytest.raises(DataError, match="another ingest"):
        ingest([bag], tmp_path / "store.h5")
    assert ingest([bag], tmp_path / "store.h5").total("frames") == 10


def test_a_fingerprint_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    """A wrong contract, or Ctrl-C, must not wait until twenty gigabytes have been hashed."""
    bag, given_up = record(tmp_path / "bag"), threading.Event()
    assert len(content(bag, given_up)) == 64
    given_up.set()
    with pytest.raises(DataError, match="no fingerprint"):
        content(bag, given_up)


def test_a_bag_that_grows_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read would be noted as the whole bag, and its end never read."""
    bag = record(tmp_path / "bag")
    out = tmp_path / "out"
    out.mkdir()

    def grow(*_: object) -> str:
        with (bag / "bag_0.mcap").open("ab") as file:
            file.write(b"more")
        return "0"

    monkeypatch.setattr(part, "content", grow)
    with pytest.raises(DataError, match="changed while it was read"):
        ingest([bag], out / "store.h5", jobs=1)
    assert list(out.iterdir()) == []


# Contracts


def test_bags_of_different_contracts_are_refused(tmp_path: Path) -> None:
    """Two robots' actions must not be mixed under one name; the message says what differs."""
    one = record(tmp_path / "one")
    other = robot().model_copy(update={"rate": 25.0})
    reason = r"one and .*two were recorded under different contracts: rate: 20.0 here, 25.0 there"
    refused(tmp_path, reason, one, record(tmp_path / "two", other))
    # Said by the user, one contract holds for both.
    assert run(tmp_path, one, tmp_path / "two", contract=robot())[1].total("episodes") == 2


def test_bags_may_differ_in_names_of_topics(tmp_path: Path) -> None:
    """A fleet's robots are wired differently, and each bag is read by its own contract."""
    text = robot().model_dump_json().replace("camera/image_raw", "front")
    other = parse_contract(text, "test")
    with Recording(tmp_path / "two", other) as bag:
        for number in range(6):
            bag.tick((number + 1) * PERIOD, number, image=None)
            bag.add("front", numbered((number + 1) * PERIOD, number))
    store, _ = run(tmp_path, record(tmp_path / "one"), tmp_path / "two")
    assert store.lengths.tolist() == [10, 6]
    assert_aligned(store)
