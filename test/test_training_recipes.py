"""Shipped checkpoints and their recipes: one for each, true, and enough to make it again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blobs import blob_contract, write_blobs

from smwm_ros.cli import reproduce, ship
from smwm_ros.cli.recipe import Figures, Recipe, differences, load_recipe, recipe_path, save_recipe
from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.models.checkpoint import load_checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.resources import checkpoint_path, find_contract, share_directory
from smwm_ros.training.run_stage import run_stage, stage_config
from smwm_ros.training.trainer import train

FOLDER = share_directory() / "config" / "checkpoints"
SHIPPED = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.*"))
RATES = {
    "success_any": 90.0,
    "interval": [80.0, 95.0],
    "success_last": 85.0,
    "interval_last": [75.0, 92.0],
    "random_any": 9.0,
    "random_last": 1.0,
}
PLAIN = {"task": "reacher", "model": "smwm", "data": {"source": "record", "episodes": 2, "ticks": 5}}


@pytest.mark.parametrize("name", sorted(set(SHIPPED)))
def test_shipped_checkpoints_have_true_recipes(name: str) -> None:
    """A checkpoint that nobody can make again, or that fits no robot, is not shipped."""
    task, model = name.split("/")
    path = checkpoint_path(task, model)
    recipe = load_recipe(recipe_path(task, model))
    checkpoint = load_checkpoint(path)
    assert path.stat().st_size <= ship.LARGEST
    checkpoint.require(find_contract(task))
    info = checkpoint.info
    assert (recipe.task, recipe.model) == (task, model) == (info.contract.name, info.preset)
    assert recipe.checkpoint == checkpoint.id
    assert recipe.fingerprint == info.data_fingerprint
    assert recipe.training.seed == info.seed
    assert recipe.config() == info.config
    assert all(evaluation.figures for evaluation in recipe.evaluations)


def test_recipes_survive_their_files(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        **PLAIN,
        "training": {"seed": 3, "settings": ["terms.inverse=5", "training.steps=9"]},
        "stages": [{"stage": "proposal", "settings": ["steps=5"]}, {"stage": "bank"}],
        "evaluations": [{"pair_seed": 101, "figures": RATES}, {"offset": 100, "settings": ["samples=64"]}],
    }
    recipe = Recipe.model_validate(content)
    save_recipe(recipe, tmp_path / "smwm.yaml")
    assert load_recipe(tmp_path / "smwm.yaml") == recipe
    assert recipe.config().training.steps == 9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"data": {"source": "dream", "episodes": 2, "ticks": 5}}, "data.source"),
        ({"evaluations": []}, "evaluations"),
        ({"task": None}, "task"),
    ],
)
def test_bad_recipes_say_why(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(json.dumps(PLAIN | change))
    with pytest.raises(ConfigError, match=rf"bad.yaml: {reason}"):
        load_recipe(path)
    with pytest.raises(ConfigError, match="reacher/smwm"):
        recipe_path("reacher", "unheard_of")


def test_settings_are_found_again() -> None:
    """Whatever was changed by --set, and nothing else, is what differs from the preset."""
    settings = ("terms.inverse.weight=30.0", "training.steps=7", "encoder.channels=[8, 16]", "frames=2")
    recipe = Recipe.model_validate(PLAIN | {"training": {"settings": settings}})
    assert sorted(differences(recipe.config(), "smwm")) == sorted(settings)
    assert differences(load_model_config("lewm"), "lewm") == ()
    with pytest.raises(ConfigError, match="preset of its own"):
        differences(load_model_config("forward_only"), "smwm")


def test_figures_agree_within_the_interval() -> None:
    known = Figures.model_validate(RATES)
    assert known.agree(known.model_copy(update={"success_any": 80.0, "success_last": 92.0}))
    assert not known.agree(known.model_copy(update={"success_any": 79.0}))
    assert not known.agree(known.model_copy(update={"success_last": 93.0}))


def test_reproduce_keeps_what_is_done(tmp_path: Path, monkeypatch, capsys) -> None:
    """Twenty minutes of recording are not thrown away because a later step failed."""
    ran: list[str] = []
    found = {"record": {}, "ingest": {"fingerprint": "abc"}, "train": {"id": "smwm-1"}, "eval": RATES}

    def step(name: str, arguments: list[str]) -> tuple[dict[str, Any], float]:
        ran.append(name)
        if name == "train" and len(ran) == 3:
            raise SmwmError("training failed")
        return dict(found[name]), 1.5

    monkeypatch.setattr(reproduce, "run_step", step)
    path = tmp_path / "recipe.yaml"
    made = {"fingerprint": "abc", "checkpoint": "smwm-2", "evaluations": [{"figures": RATES}]}
    path.write_text(json.dumps(PLAIN | made))
    options: dict[str, Any] = {"output": tmp_path / "run", "recipe": path, "episodes": None, "ticks": None,
                               "seed": None, "pairs": None, "as_json": True}  # fmt: skip
    with pytest.raises(SmwmError, match="training failed"):
        reproduce.reproduce(**options, resume=False)
    with pytest.raises(ConfigError, match="--resume"):
        reproduce.reproduce(**options, resume=False)
    reproduce.reproduce(**options, resume=True)
    assert ran == ["record", "ingest", "train", "train", "eval"]
    result = json.loads(capsys.readouterr().out)
    assert result["seconds"] == {"record": 1.5, "ingest": 1.5, "train": 1.5, "eval 1": 1.5, "total": 6.0}
    assert (result["same_data"], result["same_checkpoint"]) == (True, False)
    assert result["figures_agree"] is result["agrees"] is True
    with pytest.raises(ConfigError, match="--episodes 3"):
        reproduce.reproduce(**{**options, "episodes": 3}, resume=True)


def test_each_stage_is_trained_on_what_the_one_before_it_left() -> None:
    recipe = Recipe.model_validate(
        PLAIN
        | {
            "training": {"seed": 3, "threads": 2},
            "stages": [{"stage": "proposal", "settings": ["steps=5"]}, {"stage": "bank"}],
        }
    )
    steps, last = recipe.train_steps(Path("data.h5"), Path("runs"))
    same = ["--seed", "3", "--threads", "2"]
    assert steps["train proposal"] == [
        "data.h5", "--output", "runs/proposal", "--stage", "proposal",
        "--checkpoint", "runs/train/model.safetensors", *same, "--set", "steps=5",
    ]  # fmt: skip
    assert steps["train bank"][4:7] == ["bank", "--checkpoint", "runs/proposal/model.safetensors"]
    assert (list(steps), last) == (
        ["train", "train proposal", "train bank"],
        Path("runs/bank/model.safetensors"),
    )
    data = {"ingest": {"fingerprint": "abc"}, "eval 1": RATES}
    made = {"train": {"id": "first"}, "train proposal": {"id": "second"}, "train bank": {"id": "third"}}
    written = recipe.model_copy(update={"fingerprint": "abc", "checkpoint": "third"})
    assert reproduce.compare(written, data | made)["same_checkpoint"] is True


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store and a run that was trained on it."""
    folder = tmp_path_factory.mktemp("run")
    write_blobs(folder / "data.h5", blob_contract(), episodes=12)
    settings = ("training.steps=3", "training.batch=16", "training.validation=0.25")
    config = Recipe.model_validate(PLAIN | {"training": {"settings": settings}}).config()
    with EpisodeStore(folder / "data.h5") as store:
        train(store, "smwm", config, folder / "run", seed=4)
    return folder


def shipping(run: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Return the options of `smwm ship`."""
    return {
        "run": run / "run", "store": run / "data.h5", "pairs": 7, "pair_seed": 101, "offset": [25, 100],
        "distractors": False, "settings": ["samples=64"], "threads": 1, "recorded": "12,30,5",
        "output": output, "replace": False, "as_json": True,
    } | changes  # fmt: skip


def test_ship_writes_the_recipe_of_a_run(run: Path, tmp_path: Path, monkeypatch) -> None:
    """Checkpoint, settings and figures are taken from where they are, and stand beside one another."""
    asked: list[list[str]] = []

    def evaluate(name: str, arguments: list[str]) -> tuple[dict[str, Any], float]:
        asked.append([name, *arguments])
        return {**RATES, "plan_ms": 5}, 1.0

    monkeypatch.setattr(ship, "run_step", evaluate)
    ship.ship(**shipping(run, tmp_path))
    folder = tmp_path / blob_contract().name
    recipe = load_recipe(folder / "smwm.yaml")
    checkpoint = load_checkpoint(folder / "smwm.safetensors")
    assert (recipe.checkpoint, recipe.fingerprint) == (checkpoint.id, checkpoint.info.data_fingerprint)
    assert recipe.config() == checkpoint.info.config
    assert recipe.training.seed == 4
    assert recipe.data.model_dump() == {
        "source": "record", "episodes": 12, "ticks": 30, "seed": 5, "distractors": False
    }  # fmt: skip
    assert [one.offset for one in recipe.evaluations] == [25, 100]
    assert [one.figures for one in recipe.evaluations] == [Figures.model_validate(RATES)] * 2
    assert asked[1][-10:] == [
        "--checkpoint", str(run / "run" / "model.safetensors"), "--pairs", "7", "--pair-seed", "101",
        "--offset", "100", "--set", "samples=64",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="--replace"):
        ship.ship(**shipping(run, tmp_path))


def test_ship_writes_down_the_stages(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ship, "run_step", lambda name, arguments: (dict(RATES), 1.0))
    config = stage_config("bank", {"size": 9, "horizon": 2, "validation": 0.25})
    for folder, seed in (("staged", 4), ("other", 5)):
        with EpisodeStore(run / "data.h5") as store:
            run_stage("bank", store, run / "run" / "model.safetensors", config, tmp_path / folder, seed=seed)
    ship.ship(**shipping(run, tmp_path) | {"run": tmp_path / "staged"})
    recipe = load_recipe(tmp_path / blob_contract().name / "smwm.yaml")
    (stage,) = recipe.stages
    assert stage.stage == "bank"
    assert stage.settings == ("horizon=2", "size=9", "validation=0.25")
    with pytest.raises(ConfigError, match="seed 5"):
        ship.ship(**shipping(run, tmp_path, replace=True) | {"run": tmp_path / "other"})


def test_ship_refuses_what_cannot_be_made_again(run: Path, tmp_path: Path, monkeypatch) -> None:
    """Other data, data of unknown origin, too large a file: nothing is written."""
    write_blobs(tmp_path / "other.h5", blob_contract(), episodes=13)
    with pytest.raises(ConfigError, match="fingerprint"):
        ship.ship(**shipping(run, tmp_path, store=tmp_path / "other.h5"))
    with pytest.raises(ConfigError, match="--recorded EPISODES"):
        ship.ship(**shipping(run, tmp_path, recorded=None))
    with pytest.raises(ConfigError, match="such as 300,200,0"):
        ship.ship(**shipping(run, tmp_path, recorded="12"))
    monkeypatch.setattr(ship, "LARGEST", 1000)
    with pytest.raises(ConfigError, match="at most 1000"):
        ship.ship(**shipping(run, tmp_path))
    assert not list(tmp_path.glob("*/*"))


def test_collected_stores_say_how_they_were_made() -> None:
    """Of what they say, the recipe keeps what `smwm collect` must be told."""
    order = {"contract": "reacher", "task": "smwm/Reacher-v0", "ticks": 9, "seed": 3, "distractors": True}
    store: Any = SimpleNamespace(source={"collected": order}, lengths=[9, 9], path="data.h5")
    recipe = Recipe.model_validate(PLAIN | {"data": ship._data(store, None)})
    assert recipe.data_steps(Path("bag"), Path("data.h5")) == {
        "collect": ["--output", "data.h5", "--task", "reacher", "--seed", "3", "--episodes", "2",
                    "--ticks", "9", "--distractors"]
    }  # fmt: skip


def test_a_step_that_fails_is_no_json(tmp_path: Path) -> None:
    """Its own message is on the terminal already."""
    with pytest.raises(SmwmError, match="smwm ingest failed with exit code 2"):
        reproduce.run_step("ingest", [str(tmp_path / "none"), "-o", str(tmp_path / "x.h5")])
