"""Files in LeWM's layout: others' conventions are understood or refused, and exports come back whole."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from recordings import robot
from stores import CONTRACT, episode, write_store

from smwm_ros.cli.main import main
from smwm_ros.data.store.lewm_export import export_lewm
from smwm_ros.data.store.lewm_import import import_lewm
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError

LENGTHS = (11, 1, 6)
Columns = dict[str, np.ndarray]


def foreign(path: Path, change: Callable[[Columns], object] = lambda columns: None) -> Path:
    """Write what stable-worldmodel's writer would: a row per chunk, int32 lengths, no attributes."""
    rows = [episode(length, 1000 * number) for number, length in enumerate(LENGTHS)]
    columns = {name: np.concatenate([each[name] for each in rows]) for name in ("pixels", "action")}
    columns["proprio"] = np.concatenate([each["joints"] for each in rows]).astype(np.float64)
    columns["reward"] = np.arange(len(columns["action"]), dtype=np.float64)
    columns["ep_len"] = np.array(LENGTHS, np.int32)
    columns["ep_offset"] = np.cumsum(LENGTHS) - LENGTHS
    change(columns)
    with h5py.File(path, "w", libver="latest") as file:
        for name, column in columns.items():
            chunk = (1, *column.shape[1:]) if column.ndim > 1 else None
            maximum = (None, *column.shape[1:]) if chunk else None
            file.create_dataset(name, data=column, chunks=chunk, maxshape=maximum)
    return path


def read(path: Path) -> list[Columns]:
    with EpisodeStore(path) as store:
        return [store.episode(number) for number in range(store.episodes)]


def test_a_foreign_file_becomes_a_store(tmp_path: Path) -> None:
    """Every row is the one it was; proprio are the joints; the file is named as each episode's origin."""
    report = import_lewm(foreign(tmp_path / "theirs.h5"), CONTRACT, tmp_path / "ours.h5")
    assert (report.episodes, report.rows, report.notes) == (3, 18, ())
    for number, found in enumerate(read(tmp_path / "ours.h5")):
        expected = episode(LENGTHS[number], 1000 * number)
        assert set(found) == {"pixels", "action", "joints", "reward"}
        for name in ("pixels", "action", "joints"):
            np.testing.assert_array_equal(found[name], expected[name])
            assert found[name].dtype == expected[name].dtype
    with EpisodeStore(tmp_path / "ours.h5") as store:
        assert store.fingerprint == report.fingerprint
        assert {facts.origin for facts in store.facts} == {"theirs.h5"}
        assert store.column("pixels").chunks is None
        assert store.source["imported"]["actions"] == "from"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours.h5", "theirs.h5"]


def last_action_valid(columns: Columns) -> None:
    columns["action"] = np.nan_to_num(columns["action"], nan=7.0)


def led_to(columns: Columns) -> None:
    """Each episode's actions one row later, the first ones NaN."""
    for first, length in zip(columns["ep_offset"], columns["ep_len"], strict=True):
        part = columns["action"][first : first + length]
        part[:] = np.roll(part, 1, axis=0)


def colour_first(columns: Columns) -> None:
    columns["pixels"] = columns["pixels"].transpose(0, 3, 1, 2)


def other_order(columns: Columns) -> None:
    """Episodes lie in the file in another order than they are listed."""
    order = [2, 0, 1]
    columns["ep_len"], columns["ep_offset"] = columns["ep_len"][order], columns["ep_offset"][order]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (colour_first, ""),
        (lambda c: c.update(pixels=c["pixels"].astype(np.int64)), ""),
        (lambda c: c.update(pixels=(c["pixels"] / 255).astype(np.float32)), ""),
        (lambda c: c.update(pixels=np.concatenate([c["pixels"], c["pixels"][..., :1]], -1)), ""),
        (lambda c: c.update(action=c["action"].astype(np.float64)), ""),
        (last_action_valid, "every row has an action"),
        (led_to, "moved by a row"),
        (lambda c: c.update(env_name=np.array([b"pusht"] * 18)), r"left out: env_name \(not numbers\)"),
        (lambda c: c.update(goal=np.zeros((3, 2))), r"left out: goal \(not a row per tick\)"),
        (lambda c: c.update(step_idx=np.arange(18)), ""),
    ],
)
def test_conventions_of_others(tmp_path: Path, change: Callable[[Columns], object], note: str) -> None:
    """All give the same rows as the plain file, and what was decided is said."""
    plain = import_lewm(foreign(tmp_path / "file.h5"), CONTRACT, tmp_path / "plain.h5")
    changed = import_lewm(foreign(tmp_path / "file.h5", change), CONTRACT, tmp_path / "changed.h5")
    assert changed.fingerprint == plain.fingerprint
    assert re.search(note, " ".join(changed.notes))
    assert bool(changed.notes) == bool(note)


def test_episodes_in_another_order(tmp_path: Path) -> None:
    """Their offsets say where they are, and the store has them as they are listed."""
    import_lewm(foreign(tmp_path / "file.h5", other_order), CONTRACT, tmp_path / "store.h5")
    assert [len(found["action"]) for found in read(tmp_path / "store.h5")] == [6, 11, 1]
    assert read(tmp_path / "store.h5")[0]["joints"][0, 0] == 2000


def test_grey_pictures_and_one_joint(tmp_path: Path) -> None:
    """A single channel becomes three equal ones; numbers without an axis are actions of one dimension."""

    def change(columns: Columns) -> None:
        columns["pixels"] = columns["pixels"][..., 0]
        columns["action"] = columns["action"][:, 0]

    import_lewm(foreign(tmp_path / "file.h5", change), robot(dimensions=1), tmp_path / "store.h5")
    first = read(tmp_path / "store.h5")[0]
    assert (first["pixels"] == episode(11)["pixels"][..., :1]).all()
    assert first["action"].shape == (11, 1)


def test_frameskip_keeps_images_and_means_of_actions(tmp_path: Path) -> None:
    """Row t of the store is row 5t of the file, and its action the mean of rows 5t to 5t+4."""
    import_lewm(foreign(tmp_path / "file.h5"), CONTRACT, tmp_path / "store.h5", frameskip=5)
    first, second, third = read(tmp_path / "store.h5")
    assert first["joints"][:, 0].tolist() == [0, 5, 10]
    np.testing.assert_array_equal(first["action"], [[2, -2], [7, -7], [np.nan, np.nan]])
    assert (len(second["action"]), third["joints"][:, 0].tolist()) == (1, [2000, 2005])


def test_images_of_the_camera_are_cropped_as_the_camera_is(tmp_path: Path) -> None:
    """An image of the contract's camera goes through the contract's crop and resize."""
    contract = robot(image="{width: 24, height: 16, crop: [8, 0, 16, 16], size: 8}")
    wide = np.zeros((18, 16, 24, 3), np.uint8)
    wide[:, :, 8:] = np.arange(18)[:, None, None, None]
    import_lewm(foreign(tmp_path / "f.h5", lambda c: c.update(pixels=wide)), contract, tmp_path / "store.h5")
    found = read(tmp_path / "store.h5")[0]["pixels"]
    assert found.shape == (11, 8, 8, 3)
    assert (found == np.arange(11)[:, None, None, None]).all()


def test_other_images_are_squeezed_when_told(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (18, 30, 20, 3), np.uint8)
    file = foreign(tmp_path / "f.h5", lambda c: c.update(pixels=large))
    with pytest.raises(DataError, match=r"20x30.*12x12.*--resize"):
        import_lewm(file, CONTRACT, tmp_path / "store.h5")
    import_lewm(file, CONTRACT, tmp_path / "store.h5", resize=True)
    expected = cv2.resize(large[4], (12, 12), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(read(tmp_path / "store.h5")[0]["pixels"][4], expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.pop("ep_len"), r"columns \['ep_len'\] are missing"),
        (lambda c: c.update(ep_len=np.array([11, 1])), "2 episodes, and ep_offset 3"),
        (lambda c: c.update(ep_len=np.array([11, 1, 7])), "beyond the 18 rows"),
        (lambda c: c.update(ep_len=np.zeros(3, int)), "no episode was written"),
        (lambda c: c.update(action=c["action"][:, :1]), "have 1 numbers.*expects 2"),
        (lambda c: c.update(action=np.tile(c["action"], 5)), "have 10 numbers.*not a block of 5"),
        (lambda c: c.update(action=c["action"].astype(bytes)), "action must be numbers"),
        (lambda c: c.update(pixels=c["pixels"].astype(np.int16) - 1), "int16 from -1 to"),
        (lambda c: c.update(pixels=c["pixels"].astype(np.float32)), "float32 from 0.0 to 255.0"),
        (lambda c: c.update(pixels=np.zeros((18, 12, 12, 7), np.uint8)), "7 channels"),
        (lambda c: c.update(pixels=np.zeros((18, 12), np.uint8)), "shape"),
        (lambda c: c["action"].__setitem__((3, 0), np.nan), "row 3 of episode 0.*--actions to"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[Columns], object], reason: str
) -> None:
    """Each says what was found and what was expected, and leaves nothing behind."""
    file = foreign(tmp_path / "file.h5", change)
    with pytest.raises(DataError, match=reason):
        import_lewm(file, CONTRACT, tmp_path / "store.h5")
    assert list(tmp_path.iterdir()) == [file]


def test_actions_said_to_lead_to_their_images(tmp_path: Path) -> None:
    """What the user says is done, and a contradiction is named."""
    file = foreign(tmp_path / "file.h5", led_to)
    with pytest.raises(DataError, match="row 0 of episode 0"):
        import_lewm(file, CONTRACT, tmp_path / "store.h5", actions="from")
    import_lewm(file, CONTRACT, tmp_path / "store.h5", actions="to")
    np.testing.assert_array_equal(read(tmp_path / "store.h5")[0]["action"], episode(11)["action"])


def test_odd_units_are_noticed(tmp_path: Path) -> None:
    """The contract's limits are the only word on units that a file of numbers can be held to."""
    file = foreign(tmp_path / "f.h5", lambda c: c["action"].__setitem__(slice(2, 4), 1e7))
    assert "2 actions lie outside" in import_lewm(file, CONTRACT, tmp_path / "s.h5").notes[0]


def test_what_was_exported_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, facts and fingerprint; through the command line."""
    path, theirs, back = (tmp_path / f"{name}.h5" for name in ("store", "theirs", "back"))
    write_store(path, LENGTHS)
    for words in (
        ["export", path, theirs, "--format", "lewm"],
        ["data", "import", theirs, "--contract", tmp_path / "robot.yaml", "-o", back],
    ):
        (tmp_path / "robot.yaml").write_text(CONTRACT.model_dump_json())
        monkeypatch.setattr(sys, "argv", ["smwm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, capsys.readouterr().err
    with EpisodeStore(path) as store, EpisodeStore(back) as other:
        assert other.fingerprint == store.fingerprint
        assert other.facts == store.facts


def test_an_export_is_as_the_readers_want_it(tmp_path: Path) -> None:
    """
    The schema that stable-worldmodel's HDF5Dataset reads.

    Every name in the file but ep_len and ep_offset is a column that it slices by rows; actions need
    two axes to be put into blocks; it opens the file in SWMR mode.
    """
    write_store(tmp_path / "store.h5", LENGTHS)
    with EpisodeStore(tmp_path / "store.h5") as store:
        export_lewm(store, tmp_path / "theirs.h5")
    with h5py.File(tmp_path / "theirs.h5", "r", swmr=True) as file:
        assert set(file) == {
            *("pixels", "action", "proprio", "stamp"),
            *("ep_idx", "step_idx", "ep_len", "ep_offset"),
        }
        rows = set(file) - {"ep_len", "ep_offset"}
        assert {len(file[name]) for name in rows} == {18}
        assert file["ep_len"].dtype == np.int32
        assert file["ep_offset"].dtype == np.int64
        assert file["action"][:].reshape(9, -1).shape == (9, 4)
        assert np.isnan(file["action"][[10, 11, 17]]).all()
        assert file["ep_idx"][:].tolist() == [0] * 11 + [1] + [2] * 6
        assert file["step_idx"][:].tolist() == [*range(11), 0, *range(6)]


def test_what_is_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("hello")
    for name in ("text.h5", "none.h5"):
        with pytest.raises(DataError, match="not a readable HDF5 file"):
            import_lewm(tmp_path / name, CONTRACT, tmp_path / "store.h5")
    with pytest.raises(DataError, match="folder must exist"):
        import_lewm(foreign(tmp_path / "f.h5"), CONTRACT, tmp_path / "nowhere" / "store.h5")


def test_commands_with_unknown_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["smwm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    file = foreign(tmp_path / "f.h5")
    assert "lewm, lerobot" in run("export", file, tmp_path / "x", "--format", "csv")
    words = ("data", "import", file, "--contract", "reacher", "-o", tmp_path / "x", "--actions", "maybe")
    assert "auto, from or to" in run(*words)
