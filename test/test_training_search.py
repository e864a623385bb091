"""`smwm search`: what it runs, which weight it prefers, and that nothing is run twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blobs import blob_contract, write_blobs

from smwm_ros.cli import reproduce
from smwm_ros.cli.search import TUNING_SEED, search
from smwm_ros.errors import ConfigError, SmwmError
from smwm_ros.models.config import load_model_config

SUCCESS = {"0.1": 40.0, "1": 90.0, "10": 90.0, "auto": 80.0}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let commands succeed at once, as :data:`SUCCESS` says, and return them."""
    commands: list[list[str]] = []

    def step(name: str, arguments: list[str]) -> tuple[dict[str, Any], float]:
        commands.append([name, *arguments])
        if name == "train":
            return {"effective_rank": 5.0, "latent_scale": 1.0, "val_forward": 0.1, "seed": 0}, 1.0
        weight = Path(arguments[arguments.index("--checkpoint") + 1]).parent.name.removeprefix("inverse-")
        rates = {"success_any": SUCCESS[weight], "success_last": 10.0}
        return rates | {"interval": [0, 100], "random_any": 5.0, "by_threshold": [rates, rates]}, 1.0

    monkeypatch.setattr(reproduce, "run_step", step)
    return commands


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the options of `smwm search`, with a store in the folder."""
    path = folder / "data.h5"
    if not path.exists():
        write_blobs(path, blob_contract(), episodes=2)
    return {
        "store": path, "output": folder / "search", "model": "smwm", "term": "inverse",
        "weights": "0.1,1,10,auto", "steps": 7, "pairs": 3, "pair_seed": TUNING_SEED, "offset": 25,
        "seed": 2, "settings": ["training.batch=8"], "as_json": True,
    } | changes  # fmt: skip


def test_the_lightest_of_the_best_wins(tmp_path: Path, ran: list[list[str]], capsys) -> None:
    """The preset that is left has the weight and the user's settings, and its own number of steps."""
    search(**options(tmp_path))
    result = json.loads(capsys.readouterr().out)
    assert result["best"] == 1
    assert [row["weight"] for row in result["runs"]] == [0.1, 1, 10, "auto"]
    assert result["runs"][0]["val_forward"] == 0.1
    best = load_model_config(result["preset"])
    assert (best.terms["inverse"].weight, best.training.batch) == (1, 8)
    assert best.training.steps == load_model_config("smwm").training.steps
    assert [command[0] for command in ran] == ["train", "eval"] * 4
    assert {"training.steps=7", "terms.inverse.weight=0.1", "training.batch=8"} <= set(ran[0])
    assert str(TUNING_SEED) in ran[1]


def test_a_search_goes_on(tmp_path: Path, ran: list[list[str]]) -> None:
    """What is done stays done; another number of steps needs another folder."""
    search(**options(tmp_path, weights="0.1,1"))
    ran.clear()
    search(**options(tmp_path, weights="0.1,10"))
    assert [command[0] for command in ran] == ["train", "eval"]
    assert "terms.inverse.weight=10" in ran[0]
    with pytest.raises(ConfigError, match="another --output"):
        search(**options(tmp_path, steps=8))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"term": "sigreg"}, "--term sigreg: the preset smwm has forward, inverse"),
        ({"weights": "1,-1"}, "terms.inverse.weight"),
        ({"weights": "1,,2"}, "terms.inverse.weight"),
        ({"settings": ["training.stepz=1"]}, "training.stepz"),
    ],
)
def test_bad_searches_run_nothing(
    change: dict[str, Any], reason: str, tmp_path: Path, ran: list[list[str]]
) -> None:
    with pytest.raises(SmwmError, match=reason):
        search(**options(tmp_path, **change))
    assert not ran
    assert not (tmp_path / "search").exists()
