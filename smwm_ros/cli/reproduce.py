"""`smwm reproduce`: a shipped checkpoint from nothing, by the commands that anyone would type."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from smwm_ros.cli.options import Json, Robot
from smwm_ros.cli.output import console, show_result
from smwm_ros.errors import ConfigError, SmwmError

if TYPE_CHECKING:
    from smwm_ros.cli.recipe import Recipe


def reproduce(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for all that is made.")] = Path(
        "runs/reproduce"
    ),
    robot: Robot = "reacher",
    model: Annotated[str, typer.Option(help="Preset of the shipped checkpoint.")] = "smwm",
    recipe: Annotated[
        Optional[Path],  # noqa: UP045 - typer evaluates it
        typer.Option(help="A recipe of your own, instead of a shipped one.", show_default=False),
    ] = None,
    episodes: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=2, help="Instead of the recipe's.", show_default=False),
    ] = None,
    ticks: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=2, help="Images in an episode, instead of the recipe's.", show_default=False),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=0, help="Of data and training, instead of the recipe's.", show_default=False),
    ] = None,
    pairs: Annotated[
        Optional[int],  # noqa: UP045 - typer evaluates it
        typer.Option(min=1, help="Start-goal pairs, instead of the recipe's.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the steps that are done.")] = False,
    as_json: Json = False,
) -> None:
    """Follow a checkpoint's recipe, each step a command of its own, and compare what comes out."""
    from smwm_ros.cli.recipe import load_recipe, recipe_path
    from smwm_ros.resources import find_contract

    path = recipe or recipe_path(find_contract(robot).name, model)
    written = load_recipe(path)
    followed = changed(written, episodes=episodes, ticks=ticks, seed=seed, pairs=pairs)
    if output.exists() and not resume:
        raise ConfigError(f"{output} exists already; give --resume to go on there, or another --output")
    output.mkdir(parents=True, exist_ok=True)
    bag, store = output / "bag", output / "data.h5"
    training, checkpoint = followed.train_steps(store, output)
    steps = followed.data_steps(bag, store) | training
    for number, evaluation in enumerate(followed.evaluations):
        steps[f"eval {number + 1}"] = evaluation.arguments(followed.task, checkpoint)
    result: dict[str, Any] = {"recipe": str(path), "checkpoint": str(checkpoint), "seconds": {}}
    for step, arguments in steps.items():
        if step == "record" and not (output / "record.json").exists():
            shutil.rmtree(bag, ignore_errors=True)  # of a recording that was interrupted
        resumable = step == "train" and (output / "train" / "state.safetensors").exists()
        content = keep_step(
            output / f"{step.replace(' ', '-')}.json", step.split()[0], arguments, resume=resumable
        )
        result["seconds"][step] = content["seconds"]
        result[step] = content["figures"]
    result["seconds"]["total"] = round(sum(result["seconds"].values()), 1)
    comparison = compare(written, result) if followed == written else {}
    if not comparison:
        console.print("options differ from the recipe: nothing to compare with")
    rates = {f"{step}: {key}": result[step].get(key) for step in steps if step[:4] == "eval"
             for key in ("success_any", "interval", "success_last")}  # fmt: skip
    shown = {**result["seconds"], **rates, **comparison}
    show_result({**result, **comparison} if as_json else shown, as_json, "smwm reproduce")


def changed(
    recipe: Recipe, *, episodes: int | None, ticks: int | None, seed: int | None, pairs: int | None
) -> Recipe:
    """Return a recipe with other numbers, where they are given."""
    data: dict[str, Any] = {"episodes": episodes, "ticks": ticks, "seed": seed}
    given = {key: value for key, value in data.items() if value is not None}
    evaluations = recipe.evaluations
    if pairs is not None:
        evaluations = tuple(one.model_copy(update={"pairs": pairs}) for one in evaluations)
    training = recipe.training if seed is None else recipe.training.model_copy(update={"seed": seed})
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=given),
            "training": training,
            "evaluations": evaluations,
        }
    )


def compare(recipe: Recipe, result: dict[str, Any]) -> dict[str, Any]:
    """
    Compare what was made with what the recipe says.

    Returns:
        ``same_data`` and ``same_checkpoint`` (to the bit, which only the same kind of machine can give),
        ``figures_agree`` (every rate lies within the recorded 95 % interval), and ``agrees``: one of
        the last two. None of what the recipe does not say.
    """
    from smwm_ros.cli.recipe import Figures

    data = result["collect" if recipe.data.source == "collect" else "ingest"]["fingerprint"]
    pairs = [
        (evaluation.figures, Figures.of(result[f"eval {number + 1}"]))
        for number, evaluation in enumerate(recipe.evaluations)
    ]
    agree = [known.agree(found) for known, found in pairs if known]
    figures_agree = all(agree) if agree else None
    last = f"train {recipe.stages[-1].stage}" if recipe.stages else "train"
    same = result[last]["id"] == recipe.checkpoint if recipe.checkpoint else None
    return {
        "same_data": data == recipe.fingerprint if recipe.fingerprint else None,
        "same_checkpoint": same,
        "figures_agree": figures_agree,
        "agrees": True if same else figures_agree,
    }


def keep_step(done: Path, name: str, arguments: list[str], *, resume: bool = False) -> dict[str, Any]:
    """
    Run one `smwm` command by :func:`run_step`, unless it was done before.

    Args:
        done: file that says so, and what came out.
        name: of the command.
        arguments: of it.
        resume: give it --resume, if it runs.

    Returns:
        ``arguments``, ``seconds`` and ``figures``.

    Raises:
        ConfigError: it was done with other arguments.
        SmwmError: it failed; it has said why.
    """
    if not done.exists():
        figures, seconds = run_step(name, arguments + ["--resume"] * resume)
        content = {"arguments": arguments, "seconds": seconds, "figures": figures}
        done.write_text(json.dumps(content, indent=2), encoding="utf-8")
    content = json.loads(done.read_text(encoding="utf-8"))
    if content["arguments"] != arguments:
        raise ConfigError(
            f"{done}: the step was made by `smwm {shlex.join([name, *content['arguments']])}`, not by "
            f"`smwm {shlex.join([name, *arguments])}`; resume with the options it began with, or give "
            "another --output"
        )
    return content


def run_step(name: str, arguments: list[str]) -> tuple[dict[str, Any], float]:
    """
    Run one `smwm` command; what it tells people goes to the terminal.

    Returns:
        The JSON object it printed last, and the seconds it took.

    Raises:
        SmwmError: it failed; it has said why.
    """
    console.print(f"[bold]smwm {shlex.join([name, *arguments])}[/]", soft_wrap=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "smwm_ros.cli.main", name, *arguments, "--json"]
    step = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if step.returncode != 0:
        raise SmwmError(f"smwm {name} failed with exit code {step.returncode}; its message is above")
    return json.loads(step.stdout.splitlines()[-1]), round(time.monotonic() - began, 1)
