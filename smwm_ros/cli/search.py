"""`smwm search`: the weight of a term that suits a robot, by short runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from smwm_ros.cli.options import Json
from smwm_ros.cli.output import console, show_result
from smwm_ros.cli.reproduce import keep_step
from smwm_ros.cli.settings import Settings, override
from smwm_ros.errors import ConfigError

TUNING_SEED = 9001
"""Of the pairs that weights are chosen on; a figure is reported on others."""
LOSSES = "val_"


def search(
    store: Annotated[Path, typer.Argument(help="Episode store of a simulated robot.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the runs; goes on there.")],
    model: Annotated[str, typer.Option(help="Preset of config/models, or a YAML file.")] = "smwm",
    term: Annotated[str, typer.Option(help="Term of the objective whose weight is sought.")] = "inverse",
    weights: Annotated[str, typer.Option(help="To try, by commas; auto is one, too.")] = "0.1,1,10,100",
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps of each run.")] = 2000,
    pairs: Annotated[int, typer.Option(min=1, help="Start-goal pairs that each is judged on.")] = 50,
    pair_seed: Annotated[int, typer.Option(help="Draws them; report results on others.")] = TUNING_SEED,
    offset: Annotated[int, typer.Option(min=1, help="Ticks from start to goal.")] = 25,
    seed: Annotated[int, typer.Option(help="Of every run.")] = 0,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train short runs that differ in one weight, judge each in closed loop, and write the best preset."""
    from smwm_ros.data.store.reader import EpisodeStore
    from smwm_ros.models.config import ModelConfig, load_model_config
    from smwm_ros.validation import check

    preset = load_model_config(model)
    if term not in preset.terms:
        raise ConfigError(f"--term {term}: the preset {model} has {', '.join(preset.terms)}")
    tried = [yaml.safe_load(weight) for weight in weights.split(",")]
    configs = {}
    for weight in tried:
        changed = override(preset.model_dump(), [*(settings or []), f"terms.{term}.weight={weight}"])
        configs[weight] = check(ModelConfig, changed, "--weights or --set", ConfigError)
    with EpisodeStore(store) as episodes:
        task = episodes.contract.name
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for weight in tried:
        run = output / f"{term}-{weight}"
        run.mkdir(exist_ok=True)
        given = [*(settings or []), f"terms.{term}.weight={weight}", f"training.steps={steps}",
                 "training.stop_at_collapse=false"]  # fmt: skip
        arguments = [str(store), "--output", str(run), "--model", model, "--seed", str(seed)]
        arguments += [argument for setting in given for argument in ("--set", setting)]
        begun = (run / "state.safetensors").exists()
        trained = keep_step(run / "train.json", "train", arguments, resume=begun)["figures"]
        judged = keep_step(
            run / "eval.json",
            "eval",
            ["--task", task, "--checkpoint", str(run / "model.safetensors"), "--pairs", str(pairs),
             "--pair-seed", str(pair_seed), "--offset", str(offset)],
        )["figures"]  # fmt: skip
        rows.append(_row(weight, trained, judged))
    best = max(rows, key=lambda row: row["merit"])
    path = output / f"{Path(model).stem}.yaml"
    head = f"# {model} with the weight of {term} that `smwm search` found best for {task}.\n"
    content = configs[best["weight"]].model_dump(mode="json")
    path.write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    for row in rows:
        del row["merit"]
    if not as_json:
        _show(rows)
    shown = {"best": best["weight"], "preset": str(path), "pair_seed": pair_seed}
    show_result({**shown, "runs": rows} if as_json else shown, as_json, "smwm search")


def _row(weight: float | str, trained: dict[str, Any], judged: dict[str, Any]) -> dict[str, Any]:
    """
    Return a line of the table.

    ``merit`` orders them: by success, then by success at the narrower threshold; of equals, auto goes
    before any number, and the lightest number wins, as it leaves most to the other terms.
    """
    narrow = judged["by_threshold"][-1]
    rates = [figures[key] for figures in (judged, narrow) for key in ("success_any", "success_last")]
    lightness = -float(weight) if isinstance(weight, (int, float)) else 0.0
    return {
        "weight": weight,
        "success_any": judged["success_any"],
        "success_last": judged["success_last"],
        "interval": judged["interval"],
        "random_any": judged["random_any"],
        "effective_rank": trained["effective_rank"],
        "latent_scale": trained["latent_scale"],
        **{key: value for key, value in trained.items() if key.startswith(LOSSES)},
        "merit": (*rates, lightness),
    }


def _show(rows: list[dict[str, Any]]) -> None:
    """Print a column for each run."""
    table = Table(*(str(row["weight"]) for row in [{"weight": "weight"}, *rows]), title="runs")
    for name in list(rows[0])[1:]:
        table.add_row(name, *(json.dumps(row[name]) for row in rows))
    console.print(table)
