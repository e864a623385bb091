"""World models beside one another: the page says what was measured, all of it on the same problems."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import information

from smwm_ros.cli.report import load
from smwm_ros.errors import CheckpointError
from smwm_ros.evaluation.comparison import FRAMES, Comparison, Extent, compare
from smwm_ros.evaluation.comparison_page import plot_scene, plot_success, write_comparison
from smwm_ros.models.checkpoint import Checkpoint, save_checkpoint
from smwm_ros.models.config import load_model_config
from smwm_ros.models.world_model import WorldModel
from smwm_ros.planning.config import PlannerConfig
from smwm_ros.resources import find_contract
from smwm_ros.tasks import RobotTask, make_task

EXTENT = Extent(
    offsets=(4, 6), pairs=2, scenes=2, episodes=5, ticks=30, full=True, corrupted_pairs=1, surprises=2
)


def untrained(robot: str, frames: int) -> Checkpoint:
    config, contract = load_model_config("smwm").model_copy(update={"frames": frames}), find_contract(robot)
    torch.manual_seed(frames)
    return Checkpoint(information(config, contract), WorldModel(config, contract), f"model-{frames}")


@pytest.fixture(scope="module")
def task() -> Iterator[RobotTask]:
    with make_task(find_contract("push_t")) as task:
        yield task


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int]]:
    return []


@pytest.fixture(scope="module")
def comparison(task: RobotTask, told: list[tuple[str, int]]) -> Comparison:
    """Two untrained models, of one frame and of two."""
    models = {f"<{frames}>": untrained("push_t", frames) for frames in (1, 2)}
    config = PlannerConfig(samples=4, elites=2, iterations=1)

    def watch(what: str, total: int):
        told.append((what, total))
        return lambda done: None

    return compare(task, models, config, EXTENT, watch)


def test_all_models_get_the_same_problems(comparison: Comparison, told: list[tuple[str, int]]):
    """Else the difference between two models could be that of their pairs."""
    first, second = comparison.models.values()
    assert list(first.success) == list(second.success) == [4, 6]
    for offset, figures in first.success.items():
        assert (figures["offset"], figures["budget"], figures["pairs"]) == (offset, 2 * offset, 2)
        for key in ("random_any", "already_solved", "must_move_pairs"):
            assert figures[key] == second.success[offset][key]
    assert [scene.errors[0] for scene in first.scenes] == [scene.errors[0] for scene in second.scenes]
    assert ("6 ticks: <2>", 2) in told


def test_films_show_the_way_from_the_start(comparison: Comparison):
    for judged in comparison.models.values():
        for scene in judged.scenes:
            ticks = [tick for tick, _ in scene.pictures]
            assert (len(ticks), ticks[0], ticks[-1]) == (FRAMES, 0, 8)
            assert len(scene.errors) == 9
    first, second = (judged.scenes[0].pictures for judged in comparison.models.values())
    np.testing.assert_array_equal(first[0][1], second[0][1])
    assert (first[-1][1] != second[-1][1]).any()


def test_figures_are_json_and_the_page_needs_nothing_else(
    comparison: Comparison, task: RobotTask, tmp_path: Path
):
    """It is sent by mail and opened without a network; names come from users."""
    figures = json.loads(json.dumps(comparison.figures(), allow_nan=False))
    assert figures["<1>"]["success"]["4"]["success_any"] == comparison.models["<1>"].success[4]["success_any"]
    assert figures["<2>"]["probes"].keys() >= {"linear_r2", "mlp_r2", "inverse_r2", "effective_rank"}
    assert {"corruptions", "surprise"} <= figures["<2>"].keys()
    path = tmp_path / "page.html"
    write_comparison(path, task, comparison, [("planner", "a & b")])
    html = path.read_text(encoding="utf-8")
    assert all(link.startswith("data:") for link in re.findall(r'(?:src|href)="([^"#]{1,40})', html))
    assert "&lt;1&gt;" in html
    assert "a &amp; b" in html
    assert task.criterion(task.threshold).replace("'", "&#39;") in html
    assert html.count("ticks, 2 pairs") == 2
    assert html.count('class="film"') == 4
    for heading in ("Latents by state", "With worse pictures", "Surprise"):
        assert f"<h2>{heading}</h2>" in html


def test_plots_show_the_figures(comparison: Comparison, task: RobotTask):
    """Models stand side by side over their offset; the line of chance is that of the same pairs."""
    some, last = plot_success(comparison.models).axes
    for axes, kind in ((some, "any"), (last, "last")):
        lines = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 2]
        for number, judged in enumerate(comparison.models.values()):
            np.testing.assert_array_equal(
                lines[number], [judged.success[o][f"success_{kind}"] for o in (4, 6)]
            )
        chance = [judged.success[o][f"random_{kind}"] for o in (4, 6)]
        assert any(np.array_equal(line, chance) for line in lines[2:])
    scenes = [judged.scenes[0] for judged in comparison.models.values()]
    curves = plot_scene(scenes, task).axes[0].lines
    np.testing.assert_array_equal(curves[1].get_ydata(), scenes[1].errors)
    assert curves[0].get_xdata()[-1] == pytest.approx(8 * task.contract.period)


def test_models_are_named_by_preset_or_by_id(tmp_path: Path):
    """Two checkpoints of the same preset must not fall together, nor those of another robot be compared."""
    reacher = find_contract("reacher")
    assert "smwm" in load(reacher, [], [])
    paths = []
    for frames in (1, 2):
        model = untrained("reacher", frames)
        paths.append(tmp_path / f"{frames}.safetensors")
        save_checkpoint(paths[-1], model.info, model.model)
    named = load(reacher, ["smwm"], paths)
    assert len(named) == 3
    assert all(name == loaded.id for name, loaded in list(named.items())[1:])
    with pytest.raises(CheckpointError, match="another robot"):
        load(find_contract("push_t"), [], paths[:1])
    with pytest.raises(CheckpointError, match="no model 'nothing'"):
        load(reacher, ["nothing"], [])
