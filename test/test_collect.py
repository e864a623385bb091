"""`smwm collect`: episodes from several processes, as from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smwm_ros.cli.collecting import collect
from smwm_ros.contract import Contract
from smwm_ros.data.store.check import check_store
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import DataError, SimulationError
from smwm_ros.resources import find_contract


def run(folder: Path, name: str = "data.h5", robot: str = "two_room", **options: Any) -> dict[str, Any]:
    wanted = {"episodes": 6, "ticks": 8, "seed": 3} | options
    return collect(find_contract(robot), folder / name, **wanted)


def test_several_processes_collect_what_one_does(tmp_path):
    """Data that depend on the machine's cores could not be made again elsewhere."""
    done: list[int] = []
    alone = run(tmp_path, "one.h5", jobs=1, progress=done.append)
    shared = run(tmp_path, "two.h5", jobs=2)
    assert done == [1, 2, 3, 4, 5, 6]
    assert shared["fingerprint"] == alone["fingerprint"]
    assert (alone["episodes"], alone["frames"], alone["jobs"], shared["jobs"]) == (6, 48, 1, 2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["one.h5", "two.h5"], "left-overs"


def test_other_seeds_and_distractors_give_other_data(tmp_path):
    prints = {
        run(tmp_path, f"{number}.h5", episodes=1, **options)["fingerprint"]
        for number, options in enumerate(({}, {"seed": 4}, {"distractors": True}))
    }
    assert len(prints) == 3


def test_the_store_is_whole_and_says_where_it_comes_from(tmp_path):
    """Rows in the layout of a recording, so that both can be merged, and the states for probes."""
    result = run(tmp_path)
    report = check_store(tmp_path / "data.h5")
    assert not report.problems
    with EpisodeStore(tmp_path / "data.h5") as store:
        assert store.fingerprint == result["fingerprint"]
        assert set(store.columns) == {"pixels", "action", "stamp", "joints", "state"}
        assert store.lengths.tolist() == [8] * 6
        assert store.source["collected"]["seed"] == 3
        stamps = np.diff(store.column("stamp")[:])
        period = find_contract("two_room").period_ns
        assert (stamps[:7] == period).all()
        assert stamps[7] > 1.8 * period, "two episodes that look like one"
        np.testing.assert_allclose(store.column("joints")[:], store.column("state")[:, :2], rtol=1e-6)


def test_pictures_are_those_of_the_encoder(tmp_path, monkeypatch):
    """A camera of another size than the model's: cropped and resized as live ones are."""
    contract = find_contract("two_room").model_dump()
    contract["observation"]["image"] |= {"width": 96, "height": 80, "crop": (8, 0, 80, 80), "size": 40}
    collect(Contract.model_validate(contract), tmp_path / "data.h5", episodes=1, ticks=3)
    with EpisodeStore(tmp_path / "data.h5") as store:
        assert store.column("pixels").shape == (3, 40, 40, 3)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "data.h5").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        run(tmp_path)
    assert (tmp_path / "data.h5").read_text() == "precious"


def test_a_failure_leaves_nothing_behind(tmp_path):
    """Half a store under the final name would be trained on."""
    contract = find_contract("two_room").model_dump() | {"task": "smwm/Nowhere-v0"}
    with pytest.raises(SimulationError, match="Nowhere"):
        collect(Contract.model_validate(contract), tmp_path / "data.h5", episodes=1, ticks=3)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        run(tmp_path / "nowhere")
