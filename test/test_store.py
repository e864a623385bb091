"""The episode store: nothing half-written, nothing silently wrong."""

from __future__ import annotations

import multiprocessing
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import robot

from smwm_ros.data.store import reader
from smwm_ros.data.store.assemble import Piece, assemble
from smwm_ros.data.store.layout import EpisodeFacts
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.data.store.rows import MappedRows, SlicedRows
from smwm_ros.data.store.writer import EpisodeWriter
from smwm_ros.errors import DataError

CONTRACT = robot()


def episode(length: int, first: int = 0) -> dict[str, np.ndarray]:
    """Return rows numbered from ``first``."""
    numbers = np.arange(first, first + length)
    action = np.stack([numbers, -numbers], axis=1).astype(np.float32)
    action[-1] = np.nan
    return {
        "pixels": np.broadcast_to(numbers[:, None, None, None] % 256, (length, 12, 12, 3)).astype(np.uint8),
        "action": action,
        "stamp": numbers.astype(np.int64) * 10**9 + 10**18 + 1,
        "joints": np.stack([numbers, numbers], axis=1).astype(np.float32),
    }


def write(path: Path, *lengths: int) -> Path:
    with EpisodeWriter(path, CONTRACT) as writer:
        for number, length in enumerate(lengths):
            writer.append(episode(length, 1000 * number))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of three episodes; tests that damage one copy it first."""
    return write(tmp_path_factory.mktemp("store") / "store.h5", 5, 3, 4)


def damaged(whole: Path, folder: Path, damage: Callable[[h5py.File], object]) -> Path:
    path = Path(shutil.copy(whole, folder / "damaged.h5"))
    with h5py.File(path, "r+") as file:
        damage(file)
    return path


def replace(name: str, value: Any) -> Callable[[h5py.File], None]:
    def act(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return act


def test_what_was_written_is_read(whole: Path) -> None:
    with EpisodeStore(whole) as store:
        assert (store.episodes, len(store)) == (3, 12)
        assert store.lengths.tolist() == [5, 3, 4]
        assert store.offsets.tolist() == [0, 5, 8]
        assert store.columns == ("action", "joints", "pixels", "stamp")
        assert store.contract == CONTRACT
        for number in range(3):
            for name, column in episode([5, 3, 4][number], 1000 * number).items():
                read = store.episode(number)[name]
                np.testing.assert_array_equal(read, column)
                assert read.dtype == column.dtype
        assert store.read("stamp")[11] == 2003 * 10**9 + 10**18 + 1, "nanoseconds are exact"


def test_other_groups_tools_can_read_it(whole: Path) -> None:
    """The layout of LeWM and stable-worldmodel, by plain h5py."""
    with h5py.File(whole) as file:
        assert file["pixels"].shape == (12, 12, 12, 3)
        assert file["pixels"].dtype == np.uint8
        assert file["action"].shape == (12, 2)
        assert file["ep_len"][:].tolist() == [5, 3, 4]
        assert file["ep_offset"][:].tolist() == [0, 5, 8]
        assert np.isnan(file["action"][[4, 7, 11]]).all()


def test_writing_in_pieces_gives_the_same(whole: Path, tmp_path: Path) -> None:
    """The fingerprint is of the contents, not of how they came."""
    with EpisodeWriter(tmp_path / "pieces.h5", CONTRACT) as writer:
        for number, length in enumerate((5, 3, 4)):
            rows = episode(length, 1000 * number)
            for cut in (slice(0, 1), slice(1, 3), slice(3, None)):
                if len(rows["action"][cut]):
                    writer.write({name: column[cut] for name, column in rows.items()})
            writer.end_episode()
    with EpisodeStore(whole) as one, EpisodeStore(tmp_path / "pieces.h5") as other:
        assert one.fingerprint == other.fingerprint == writer.fingerprint
        np.testing.assert_array_equal(one.read("pixels"), other.read("pixels"))


@pytest.mark.parametrize("name", ["pixels", "action", "stamp", "joints"])
def test_one_changed_number_changes_the_fingerprint(whole: Path, tmp_path: Path, name: str) -> None:
    with EpisodeWriter(tmp_path / "other.h5", CONTRACT) as writer:
        for number, length in enumerate((5, 3, 4)):
            rows = episode(length, 1000 * number)
            if number == 1:
                rows[name].reshape(-1)[0] += 1
            writer.append(rows)
    with EpisodeStore(whole) as store:
        assert writer.fingerprint != store.fingerprint


def test_other_episode_bounds_change_the_fingerprint(tmp_path: Path) -> None:
    prints = []
    for lengths in ((3, 4), (4, 3)):
        with EpisodeWriter(tmp_path / "x.h5", CONTRACT) as writer:
            for length in lengths:
                rows = episode(length)
                writer.append(
                    {name: np.zeros_like(c) if name != "action" else c * 0 for name, c in rows.items()}
                )
        prints.append(writer.fingerprint)
    assert prints[0] != prints[1]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 8))
def test_windows_lie_in_one_episode(lengths: list[int], span: int) -> None:
    """Compared with trying every row."""
    store = object.__new__(EpisodeStore)
    store.lengths = np.array(lengths)
    store.offsets = np.cumsum(lengths) - lengths
    of_row = np.repeat(np.arange(len(lengths)), lengths)
    expected = [t for t in range(len(of_row) - span) if of_row[t] == of_row[t + span]]
    assert store.window_starts(span).tolist() == expected


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with EpisodeWriter(tmp_path / "store.h5", CONTRACT) as writer:
            writer.append(episode(4))
            raise RuntimeError("the bag was damaged")

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_old_store_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "store.h5", 5)
    with EpisodeWriter(path, CONTRACT) as writer:
        writer.append(episode(7))
        with EpisodeStore(path) as store:
            assert len(store) == 5
    with EpisodeStore(path) as store:
        assert len(store) == 7
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Regression: HDF5 cannot close a file that it could not flush, and crashed the process at its end."""

    def child(answer: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as a disk that is full
        try:
            write(tmp_path / "store.h5", *[200] * 20)
        except BaseException as error:
            answer.send((type(error).__name__, str(error), [p.name for p in tmp_path.iterdir()]))

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe()
    process = context.Process(target=child, args=(sender,))
    process.start()
    assert receiver.poll(30)
    kind, message, left = receiver.recv()
    process.join(10)
    assert (kind, left) == ("DataError", [])
    assert "disk full" in message
    assert process.exitcode == 0


def test_each_forked_worker_reads_for_itself(whole: Path) -> None:
    """HDF5 files do not survive a fork, and loaders fork: two would share one position in the file."""
    context = multiprocessing.get_context("fork")
    expected = [t % 256 for t in (*range(5), *range(1000, 1003), *range(2000, 2004))]
    with EpisodeStore(whole) as store:

        def child(answer: Any) -> None:
            answer.send([int(store.column("pixels")[t, 0, 0, 0]) for t in list(range(12)) * 20])

        pipes = [context.Pipe() for _ in range(3)]
        workers = [context.Process(target=child, args=(sender,)) for _, sender in pipes]
        for worker in workers:
            worker.start()
        for receiver, _ in pipes:
            assert receiver.poll(30)
            assert receiver.recv() == expected * 20
        for worker in workers:
            worker.join(10)
            assert worker.exitcode == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.pop("pixels"), r"without the columns \['pixels'\]"),
        (lambda rows: rows.update(stamp=rows["stamp"][:-1]), "differ in length"),
        (lambda rows: rows.update(pixels=rows["pixels"][:, :8]), r"\(8, 12, 3\) uint8.*\(12, 12, 3\)"),
        (lambda rows: rows.update(pixels=rows["pixels"].astype(np.float32)), "float32.*uint8"),
        (lambda rows: rows.update(action=rows["action"][:, :1]), r"\(1,\).*\(2,\)"),
        (lambda rows: rows["action"].__setitem__((2, 0), np.nan), "action of row 2 is not finite"),
        (lambda rows: rows["action"].__setitem__(4, 0.0), "last row has an action"),
        (lambda rows: rows.update(ep_len=rows["stamp"]), "written by the store itself"),
        (lambda rows: rows.pop("joints"), "do not fit the earlier ones"),
        (lambda rows: rows.update(stamp=rows["stamp"].astype(np.int32)), "do not fit the earlier ones"),
    ],
)
def test_rows_that_are_wrong_are_refused(tmp_path: Path, change: Any, reason: str) -> None:
    rows = episode(5)
    change(rows)

    def act() -> None:
        with EpisodeWriter(tmp_path / "store.h5", CONTRACT) as writer:
            writer.append(episode(3))
            writer.append(rows)

    with pytest.raises(DataError, match=reason):
        act()
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_episodes_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no episode was written"), EpisodeWriter(tmp_path / "s.h5", CONTRACT):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder must exist"):
        EpisodeWriter(tmp_path / "nowhere" / "store.h5", CONTRACT)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: f.pop("action"), r"columns \['action'\] are missing"),
        (lambda f: f.pop("ep_len"), r"columns \['ep_len'\] are missing"),
        (lambda f: f.attrs.pop("contract"), "no robot contract"),
        (lambda f: f.attrs.modify("contract", "{name: tiny}"), "rate: missing"),
        (replace("action", np.zeros((12, 3), np.float32)), r"\(3,\) float32.*\(2,\)"),
        (replace("action", np.zeros((11, 2), np.float32)), "12 rows.*'action': 11"),
        (replace("ep_len", [5, 3, 5]), "13 rows"),
        (replace("ep_offset", [0, 4, 8]), "ep_offset"),
        (replace("ep_len", np.zeros(0, np.int64)), "empty"),
        (lambda f: f["action"].__setitem__((6, 1), np.nan), "row 1 of episode 1 is not finite"),
    ],
)
def test_a_store_that_contradicts_itself_is_refused(
    whole: Path, tmp_path: Path, damage: Callable[[h5py.File], object], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        EpisodeStore(damaged(whole, tmp_path, damage))


def test_what_is_no_store_is_refused(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such episode store.*smwm ingest"):
        EpisodeStore(tmp_path / "none.h5")
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        EpisodeStore(text)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        EpisodeStore(cut)


def test_unknown_names_are_answered_with_the_known(whole: Path) -> None:
    with EpisodeStore(whole) as store:
        with pytest.raises(DataError, match="no column 'rewards'; there are action, joints, pixels, stamp"):
            store.column("rewards")
        with pytest.raises(DataError, match="no episode 3; there are 3"):
            store.episode(3)


@pytest.fixture(scope="module")
def laid_out(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same store in four layouts."""
    folder = tmp_path_factory.mktemp("layouts")
    paths = {"chunked": whole, "contiguous": folder / "contiguous.h5"}
    with EpisodeStore(whole) as store:
        assemble([Piece(store)], paths["contiguous"])
    options: dict[str, dict[str, Any]] = {
        "compressed": {"compression": "gzip", "chunks": True},
        "foreign": {},
    }
    for name, option in options.items():
        # A user block and big-endian numbers: rare, and where mapping would go wrong.
        block = 512 if name == "foreign" else None
        paths[name] = folder / f"{name}.h5"
        with h5py.File(whole) as old, h5py.File(paths[name], "w", userblock_size=block) as new:
            new.attrs.update(old.attrs)
            for column, rows in old.items():
                kind = rows.dtype.newbyteorder(">") if (name, column) == ("foreign", "action") else rows.dtype
                new.create_dataset(column, data=rows[:], dtype=kind, **option)
    return paths


@pytest.mark.parametrize("layout", ["chunked", "contiguous", "compressed", "foreign"])
@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_rows_are_the_same_in_every_layout(
    laid_out: dict[str, Path], layout: str, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped, read into memory or read by slices: each row says its number."""
    monkeypatch.setattr(reader, "MEMORY_BYTES", memory)
    wanted = np.array([[11, 0, 4], [5, 5, 6]])
    numbers = np.array([*range(5), *range(1000, 1003), *range(2000, 2004)])[wanted]
    with EpisodeStore(laid_out[layout]) as store:
        pixels, action = store.rows("pixels"), store.rows("action")
        assert isinstance(pixels, MappedRows) == (layout in {"contiguous", "foreign"})
        assert isinstance(action, SlicedRows) == (layout != "contiguous" and memory == 0)
        np.testing.assert_array_equal(pixels[wanted][..., 3, 3, 0], numbers % 256)
        assert pixels[wanted].shape == (2, 3, 12, 12, 3)
        assert action[wanted].dtype == action.dtype == np.float32
        np.testing.assert_array_equal(action[wanted][0, 1:, 0], [0, np.nan])
        assert pixels[np.zeros((0, 2), np.int64)].shape == (0, 2, 12, 12, 3)


def _sum_rows(rows: Any, answer: Any) -> None:
    """What a worker does; spawned ones find it by its name."""
    answer.send([int(rows[np.array([t])].sum()) for t in list(range(12)) * 20])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("layout", ["contiguous", "compressed"])
def test_rows_can_be_handed_to_workers(
    laid_out: dict[str, Path], layout: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker reads for itself, and no array goes through a pipe."""
    monkeypatch.setattr(reader, "MEMORY_BYTES", 0)
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe()
    with EpisodeStore(laid_out[layout]) as store:
        rows = store.rows("pixels")
        assert len(pickle.dumps(rows)) < 2000
        expected = [int(store.column("pixels")[t].sum()) for t in range(12)] * 20
        workers = [context.Process(target=_sum_rows, args=(rows, sender)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for _ in workers:
            assert receiver.poll(60)
            assert receiver.recv() == expected
        for worker in workers:
            worker.join(10)
            assert worker.exitcode == 0


def test_a_worker_does_not_read_another_file(laid_out: dict[str, Path], tmp_path: Path) -> None:
    """A store that is replaced while a run goes on must not give the run's workers other rows."""
    path = Path(shutil.copy(laid_out["contiguous"], tmp_path / "store.h5"))
    with EpisodeStore(path) as store:
        rows = store.rows("pixels")
        handed = pickle.dumps(rows)
        write(path, 7)
        with pytest.raises(DataError, match="replaced or changed"):
            pickle.loads(handed)
        assert rows[np.array([11])][0, 0, 0, 0] == 2003 % 256, "what was mapped stays"


def test_what_is_known_of_episodes_is_kept(tmp_path: Path) -> None:
    """Whatever its size: HDF5 refuses other attributes above 64 KB."""
    path = tmp_path / "store.h5"
    label = "put the cup — Tasse — on the table " * 100
    with EpisodeWriter(path, CONTRACT, source={"bags": [label] * 100}) as writer:
        writer.append(episode(3), outcome=1, label=label, origin="one")
        for number in range(100):
            writer.write(episode(2))
            writer.end_episode(outcome=2 * (number % 2), origin="two" * 300)
    with EpisodeStore(path) as store:
        assert store.facts[0] == EpisodeFacts(1, label, "one")
        assert store.facts[2] == EpisodeFacts(2, "", "two" * 300)
        assert len(store.facts) == 101
        assert store.source == {"bags": [label] * 100}


def test_an_unknown_outcome_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"outcome is 3; there are 0 \(unknown\), 1 \(success\)"),
        EpisodeWriter(tmp_path / "store.h5", CONTRACT) as writer,
    ):
        writer.append(episode(3), outcome=3)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ("nonsense", "episode_facts' is damaged"),
        ('{"outcome": [0]}', "episode_facts' is damaged"),
        ('{"outcome": [0], "label": [""], "origin": [""]}', "3 episodes, but facts about 1"),
        ('{"outcome": [9, 0, 0], "label": ["", "", ""], "origin": ["", "", ""]}', "outcome is 9"),
    ],
)
def test_damaged_facts_are_refused(whole: Path, tmp_path: Path, facts: str, reason: str) -> None:
    path = damaged(whole, tmp_path, lambda f: f.attrs.modify("episode_facts", facts))
    with pytest.raises(DataError, match=reason):
        EpisodeStore(path)


def test_a_store_without_facts_has_empty_ones(whole: Path, tmp_path: Path) -> None:
    """Stores written before there were any can be read."""
    with EpisodeStore(damaged(whole, tmp_path, lambda f: f.attrs.pop("episode_facts"))) as store:
        assert store.facts == (EpisodeFacts(),) * 3
