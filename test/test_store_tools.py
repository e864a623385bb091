"""Episode stores put together, taken apart, and checked: no row and no fact is lost, no damage is missed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import robot
from stores import CONTRACT, FACTS, episode, write_store

from smwm_ros.cli.main import main
from smwm_ros.data.store import layout
from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.check import check_store
from smwm_ros.data.store.choose import choose_known, choose_numbers, choose_share, the_others
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.summary import list_episodes, summarise
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import ConfigError, DataError

LENGTHS = (5, 3, 1, 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes; tests that damage them copy first."""
    return write_store(tmp_path_factory.mktemp("store") / "store.h5", LENGTHS)


def smwm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: Any) -> tuple[int, Any]:
    """Run a command in this process; its exit status and what it printed as JSON."""
    monkeypatch.setattr(sys, "argv", ["smwm", *map(str, words), "--json"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr().out
    return int(ended.value.code or 0), json.loads(out) if out else None


def contents(store: EpisodeStore) -> list[Any]:
    """Return all that is known of each episode."""
    return [
        (facts, {name: rows.tolist() for name, rows in store.episode(number).items() if name != "action"})
        for number, facts in enumerate(store.facts)
    ]


def test_assembled_is_contiguous_and_the_same(path: Path, tmp_path: Path) -> None:
    """The same rows have the same fingerprint, and can be mapped into memory."""
    with EpisodeStore(path) as store:
        fingerprint = assemble([Piece(store)], tmp_path / "out.h5", source={"why": "test"})
        with EpisodeStore(tmp_path / "out.h5") as other:
            assert fingerprint == other.fingerprint == store.fingerprint
            assert contents(other) == contents(store)
            np.testing.assert_array_equal(other.read("action"), store.read("action"))
            assert other.source == {"why": "test"}
            assert all(other.column(name).chunks is None for name in other.columns)
            assert other.column("pixels").id.get_offset() % 4096 == 0


@settings(deadline=None, max_examples=30)
@given(
    order=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=8, unique=True),
    copy_bytes=st.sampled_from([1, 1000, 1 << 20]),
)
def test_any_episodes_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, int]], copy_bytes: int
) -> None:
    """Compared with writing them anew, row by row; however many rows are copied at a time."""
    folder = tmp_path_factory.mktemp("any")
    paths = [write_store(folder / "0.h5", LENGTHS), write_store(folder / "1.h5", (2, 6, 3, 3), 5000)]
    before, layout.COPY_BYTES = layout.COPY_BYTES, copy_bytes
    try:
        with EpisodeStore(paths[0]) as one, EpisodeStore(paths[1]) as other:
            stores = (one, other)
            pieces = [Piece(stores[which], [number]) for which, number in order]
            fingerprint = assemble(pieces, folder / "out.h5")
            with EpisodeWriter(folder / "expected.h5", CONTRACT) as writer:
                for which, number in order:
                    writer.append(stores[which].episode(number))
            with EpisodeStore(folder / "out.h5") as found:
                assert fingerprint == writer.fingerprint
                assert found.facts == tuple(stores[which].facts[number] for which, number in order)
    finally:
        layout.COPY_BYTES = before


def test_a_store_can_be_replaced_by_its_own_episodes(tmp_path: Path) -> None:
    """Ingest keeps what is unchanged of the store that it replaces."""
    path = write_store(tmp_path / "store.h5", LENGTHS)
    with EpisodeStore(path) as store:
        assemble([Piece(store, [3, 0])], path)
        assert store.episode(1)["stamp"].tolist() == episode(3, 1000)["stamp"].tolist(), "read from the old"
    with EpisodeStore(path) as store:
        assert store.lengths.tolist() == [4, 5]
    assert list(tmp_path.iterdir()) == [path]


def test_what_does_not_belong_together_is_refused(path: Path, tmp_path: Path) -> None:
    def other(name: str, contract: Any, drop: tuple[str, ...] = ()) -> Path:
        with EpisodeWriter(tmp_path / name, contract) as writer:
            writer.append({n: rows for n, rows in episode(4).items() if n not in drop})
        return tmp_path / name

    renamed = CONTRACT.model_copy(update={"name": "giant"})
    faster = CONTRACT.model_copy(update={"rate": 50.0})
    cases = {
        "name: tiny here, giant there": other("a.h5", renamed),
        "rate: 20.0 here, 50.0 there": other("b.h5", faster),
        r"joints: \('a', 'b'\) here, \(\) there": other("c.h5", robot(joints=False)),
        "has the columns .*joints.*but": other("d.h5", CONTRACT, ("joints",)),
    }
    with EpisodeStore(path) as store:
        for reason, second in cases.items():
            with EpisodeStore(second) as unfit, pytest.raises(DataError, match=reason):
                assemble([Piece(store), Piece(unfit)], tmp_path / "out.h5")
        with pytest.raises(DataError, match="no episode was chosen"):
            assemble([Piece(store, [])], tmp_path / "out.h5")
        with pytest.raises(DataError, match="no episode 4; there are 4"):
            assemble([Piece(store, [4])], tmp_path / "out.h5")
        with pytest.raises(DataError, match="folder must exist"):
            assemble([Piece(store)], tmp_path / "nowhere" / "out.h5")
    assert not (tmp_path / "out.h5").exists()


@settings(max_examples=50)
@given(st.integers(1, 30), st.floats(0.01, 1.0), st.integers(0, 5))
def test_a_share_is_drawn_by_the_seed(count: int, share: float, seed: int) -> None:
    """Rising, none twice, at least one, and the same again; the others are all the rest."""
    store = object.__new__(EpisodeStore)
    store.lengths = np.ones(count, np.int64)
    chosen = choose_share(store, share, np.random.default_rng(seed))
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == max(1, round(share * count))
    assert sorted([*chosen, *the_others(store, chosen)]) == list(range(count))
    np.testing.assert_array_equal(chosen, choose_share(store, share, np.random.default_rng(seed)))


def test_episodes_are_chosen_by_what_is_known(path: Path) -> None:
    with EpisodeStore(path) as store:
        assert choose_known(store, "success", None).tolist() == [0, 3]
        assert choose_known(store, None, "push").tolist() == [0, 1]
        assert choose_known(store, "failure", "push").tolist() == [1]
        assert choose_known(store, "unknown", "pull").tolist() == []
        assert choose_numbers(store, "3,0-1").tolist() == [3, 0, 1]
        for text, reason in (
            ("0,x", "'x' in it"),
            ("1-4", "no episode 4"),
            ("1,0-2", "twice"),
            ("-1", "'-1' in it"),
        ):
            with pytest.raises(ConfigError, match=reason):
                choose_numbers(store, text)
        with pytest.raises(ConfigError, match="unknown, success, failure"):
            choose_known(store, "won", None)
        with pytest.raises(ConfigError, match="more than 0"):
            choose_share(store, 0.0, np.random.default_rng(0))


def test_split_and_merge_give_everything_back(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line: every row and fact of each episode is in exactly one part."""
    a, b, c = (tmp_path / f"{name}.h5" for name in "abc")
    code, result = smwm(
        capsys, monkeypatch, "data", "split", path, "--outcome", "success", "-o", a, "--rest", b
    )
    assert (code, result["episodes"], result["rows"]) == (0, 2, 9)
    assert (result["rest"]["episodes"], result["rest"]["rows"]) == (2, 4)
    code, result = smwm(capsys, monkeypatch, "data", "merge", a, b, "-o", c)
    assert (code, result["episodes"], result["rows"]) == (0, 4, 13)
    with EpisodeStore(path) as store, EpisodeStore(c) as back:
        assert [contents(back)[i] for i in (0, 2, 3, 1)] == contents(store)
        assert result["fingerprint"] == back.fingerprint
        assert back.source["merged"][0]["source"]["split"]["source"] == {"made": "for tests"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["split"], "say which episodes"),
        (["split", "--share", "0.5", "--label", "push"], "say which episodes"),
        (["split", "--share", "1", "--rest", "rest.h5"], "none is left"),
        (["split", "--label", "none", "--rest", "rest.h5"], "no episode was chosen"),
        (["split", "--share", "1", "--rest", "out.h5"], "same file"),
        (["merge", "{path}"], "same contents"),
    ],
)
def test_commands_that_cannot_be_meant(
    words: list[str],
    reason: str,
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = (word.format(path=path) for word in words)
    monkeypatch.setattr(sys, "argv", ["smwm", "data", command, str(path), *options, "-o", "out.h5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert reason in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_info_counts_what_is_there(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = smwm(capsys, monkeypatch, "data", "info", path, "--episodes")
    assert code == 0
    with EpisodeStore(path) as store:
        assert found == summarise(store) | {"list": list_episodes(store)}
    assert (found["robot"], found["rows"], found["episodes"], found["seconds"]) == ("tiny", 13, 4, 0.65)
    assert found["lengths"] == {"least": 1, "median": 3.5, "most": 5}
    assert found["columns"]["pixels"] == {
        "row": [12, 12, 3],
        "type": "uint8",
        "layout": "chunked",
        "bytes": found["columns"]["pixels"]["bytes"],
    }
    assert found["outcomes"] == {"unknown": 1, "success": 2, "failure": 1}
    assert found["labels"] == {"push": 2, "pull": 1}
    assert found["origins"] == {"store.h5": 4}
    assert [(e["episode"], e["first_row"], e["rows"], e["label"]) for e in found["list"]] == [
        (number, [0, 5, 8, 9][number], LENGTHS[number], FACTS[number][1]) for number in range(4)
    ]


def changed(column: str, place: Any, value: Any) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        file[column][place] = value

    return act


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (changed("pixels", (7, 3, 3, 0), 99), "fingerprint"),
        (changed("joints", (0, 0), 5), "fingerprint"),
        (changed("action", (0, 0), 0.5), "fingerprint"),
        (changed("action", (2, 1), np.inf), "row 2 of episode 0 is not finite"),
        (changed("stamp", 6, 10**18), "stamp at row 1 of episode 1 is not after"),
        (changed("ep_offset", 1, 4), "ep_offset does not follow"),
        (changed("ep_len", 1, 4), "14 rows"),
        (lambda file: file.pop("action"), r"columns \['action'\] are missing"),
        (lambda file: file.attrs.pop("fingerprint"), "written with none"),
        (lambda file: file.attrs.modify("episode_facts", "?"), "episode_facts' is damaged"),
        (lambda file: file.attrs.modify("contract", CONTRACT.model_dump_json().replace("5", "6")), "finger"),
    ],
)
@pytest.mark.parametrize("copy_bytes", [1, 1 << 20])
def test_check_finds_the_damage(
    damage: Callable[[h5py.File], object],
    reason: str,
    copy_bytes: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is named, and the exit status says so; an undamaged store passes."""
    monkeypatch.setattr(layout, "COPY_BYTES", copy_bytes)
    path = write_store(tmp_path / "store.h5", LENGTHS)
    code, found = smwm(capsys, monkeypatch, "data", "check", path)
    assert (code, found["whole"], found["problems"], found["notes"]) == (0, True, [], [])
    assert found["counts"] == {
        "rows": 13,
        "episodes": 4,
        "actions_outside_limits": 0,
        "gaps": 0,
        "black_images": 0,
        "frozen_images": 0,
        "longest_freeze": 0,
    }
    with h5py.File(path, "r+") as file:
        damage(file)
    code, found = smwm(capsys, monkeypatch, "data", "check", path)
    assert (code, found["whole"]) == (2, False)
    assert re.search(reason, " ".join(found["problems"]))


def test_check_finds_chunks_that_cannot_be_unpacked(path: Path, tmp_path: Path) -> None:
    """Compressed stores made elsewhere say nothing of their damage until it is read."""
    packed = tmp_path / "packed.h5"
    with h5py.File(path) as old, h5py.File(packed, "w") as new:
        new.attrs.update(old.attrs)
        for name, rows in old.items():
            new.create_dataset(name, data=rows[:], compression="gzip", shuffle=True, fletcher32=True)
        place = new["pixels"].id.get_chunk_info(0)
    with packed.open("r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(b"\xff\x00\xff")
    assert "cannot be read" in check_store(packed).problems[0]


@pytest.mark.parametrize("copy_bytes", [1, 1000, 1 << 20])
def test_check_counts_what_is_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_bytes: int) -> None:
    """Not damage, but seldom right: the counts are the known ones, however the rows are read."""
    monkeypatch.setattr(layout, "COPY_BYTES", copy_bytes)
    path = tmp_path / "store.h5"
    first, second = episode(9), episode(4, 8)
    first["pixels"][2:6] = first["pixels"][2]  # three equal the one before
    first["pixels"][7] = first["pixels"][6]
    first["pixels"][8] = second["pixels"][0]  # the same in another episode is no freeze
    second["pixels"][3] = 3
    first["action"][4] = 2e6, 0
    first["action"][5] = 0, -2e6
    second["stamp"][2:] += 10**9
    with EpisodeWriter(path, CONTRACT) as writer:
        writer.append(first)
        writer.append(second)
    found = check_store(path)
    assert found.problems == []
    assert found.counts == {
        "rows": 13,
        "episodes": 2,
        "actions_outside_limits": 2,
        "gaps": 1,
        "black_images": 1,
        "frozen_images": 4,
        "longest_freeze": 3,
    }
    assert len(found.notes) == 4


def test_check_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such episode store"):
        check_store(tmp_path / "none.h5")
