"""Runs of the trainer: exact resuming with all that is random, health, precision, several processes."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from blobs import blob_contract, write_blobs
from safetensors.torch import load_file, save_file

from smwm_ros.data.store.reader import EpisodeStore
from smwm_ros.errors import ConfigError, TrainingError
from smwm_ros.models.checkpoint import load_checkpoint
from smwm_ros.models.config import ModelConfig, load_model_config
from smwm_ros.training import health, trainer
from smwm_ros.training.engine import arithmetic, set_up_networks
from smwm_ros.training.health import check_row
from smwm_ros.training.log import read_log
from smwm_ros.training.trainer import train


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "blob.h5"
    write_blobs(path, blob_contract(), episodes=12)
    return path


@pytest.fixture
def store(store_path: Path) -> Iterator[EpisodeStore]:
    with EpisodeStore(store_path) as opened:
        yield opened


def config_of(training: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    """Return smwm with small networks, few steps, and other keys changed."""
    content = load_model_config("smwm").model_dump() | {
        "window": 2,
        "encoder": {"type": "conv", "channels": [4, 8], "hidden": 16, "latent": 8},
        "dynamics": {"type": "residual_mlp", "hidden": 16},
        "inverse": {"type": "mlp", "hidden": 16},
    }
    settings = {"steps": 10, "batch": 16, "validation": 0.25} | (training or {})
    return ModelConfig.model_validate(content | changes | {"training": settings})


def same(first: Path, second: Path) -> bool:
    """Tell whether two files hold the same tensors to the bit."""
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Interrupted(Exception):
    pass


def test_resuming_is_exact_with_all_that_is_random(store: EpisodeStore, tmp_path: Path) -> None:
    """Dropout, SIGReg's directions, a balanced weight, a term's own network, an average: all go on."""
    config = config_of(
        {"ema": 0.9, "channels_last": True},
        dynamics={
            "type": "adaln",
            "depth": 1,
            "heads": 2,
            "head": 4,
            "mlp": 16,
            "hidden": 16,
            "dropout": 0.5,
        },
        terms={
            "forward": 1.0,
            "inverse": "auto",
            "delta_inverse": {"weight": 1.0, "steps": 2},
            "sigreg": {"weight": 0.1, "projections": 8},
        },
    )

    def interrupt(step: int, figures: dict[str, float]) -> None:
        if step == 7:
            raise Interrupted

    options: dict[str, Any] = {"save_every": 4, "log_every": 2}
    cut = tmp_path / "cut"
    train(store, "p", config, tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(store, "p", config, cut, progress=interrupt, **options)
    train(store, "p", config, cut, resume=True, **options)
    assert same(tmp_path / "whole" / "model.safetensors", cut / "model.safetensors")
    assert same(tmp_path / "whole" / "state.safetensors", cut / "state.safetensors")
    rows = read_log(cut / "log.csv")
    assert rows == read_log(tmp_path / "whole" / "log.csv")
    assert rows[-1]["weight_inverse"] != 1.0


def test_average_follows_the_weights(store: EpisodeStore, tmp_path: Path) -> None:
    """The checkpoint holds the average: with a decay of nearly 1, still nearly the first weights."""
    model: dict[str, dict[str, torch.Tensor]] = {}
    for decay in (0.0, 0.999):
        output = tmp_path / str(decay)
        train(store, "p", config_of({"ema": decay, "steps": 30}), output)
        model[str(decay)] = load_file(output / "model.safetensors")
    last, average = (model[key]["dynamics.change.0.weight"] for key in ("0.0", "0.999"))
    state = load_file(tmp_path / "0.999" / "state.safetensors")
    torch.testing.assert_close(state["learner.model.dynamics.change.0.weight"], last)
    torch.manual_seed(0)
    assert (average - last).norm() > 0.1
    load_checkpoint(tmp_path / "0.999" / "model.safetensors")


def test_nan_stops_and_keeps_the_state(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not a number stops the run before it spoils weights or state."""
    config = config_of()
    calls = 0
    forward = trainer.Learner.forward

    def poisoned(self: Any, *batch: Any) -> Any:
        nonlocal calls
        calls += self.training
        loss, values = forward(self, *batch)
        return (loss * torch.nan if calls == 7 else loss), values

    monkeypatch.setattr(trainer.Learner, "forward", poisoned)
    with pytest.raises(TrainingError, match=r"step 6: the loss is nan; lower training.learning_rate"):
        train(store, "p", config, tmp_path, save_every=3)
    state = load_file(tmp_path / "state.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert not (tmp_path / "model.safetensors").exists()
    train(store, "p", config, tmp_path, resume=True, save_every=3)
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == [10]


def test_a_gradient_that_is_not_finite(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss may have an endless gradient: it is not applied either."""
    monkeypatch.setattr(trainer.nn.utils, "clip_grad_norm_", lambda *args: torch.tensor(torch.inf))
    with pytest.raises(TrainingError, match="step 0: the gradient's norm is inf"):
        train(store, "p", config_of(), tmp_path)


def test_collapse_stops_unless_it_is_wanted(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collapsed latent ends the run once it had time to unfold, but not a control experiment."""
    monkeypatch.setattr(health, "LOWEST_RANK", 100)  # now every latent counts as collapsed
    with pytest.raises(TrainingError, match=r"step 4: the latent has collapsed .*sigreg weight"):
        train(store, "p", config_of({"steps": 20}), tmp_path / "stopped", log_every=1, save_every=1)
    assert [row["step"] for row in read_log(tmp_path / "stopped" / "log.csv")] == [1, 2, 3, 4]
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    train(store, "p", config_of({"stop_at_collapse": False}), tmp_path / "wanted", log_every=1)
    assert not load_model_config("forward_only").training.stop_at_collapse


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"loss": 2e3}, "the loss is 2e\\+03, after 1 before"),
        ({"latent_scale": 1e4}, "it explodes"),
        ({"latent_scale": float("nan")}, "it explodes"),
        ({"effective_rank": 1.2}, "collapsed .*effective rank 1.20"),
        ({"latent_scale": 1e-5}, "collapsed .*scale 1e-05"),
    ],
)
def test_what_is_not_healthy(change: dict[str, float], reason: str) -> None:
    """Each kind of ill health is named with its figure."""
    row = {"step": 5.0, "loss": 1.0, "effective_rank": 4.0, "latent_scale": 1.0}
    check_row(row, lowest=1.0, collapse=True)
    with pytest.raises(TrainingError, match=reason):
        check_row(row | change, lowest=1.0, collapse=True)


def test_precision(store: EpisodeStore, tmp_path: Path) -> None:
    """bfloat16 computes something else, and learns finite weights in float32; auto on a CPU is float32."""
    for precision in ("auto", "float32", "bfloat16"):
        train(store, "p", config_of({"precision": precision, "steps": 3}), tmp_path / precision)
    models = {path.name: load_file(path / "model.safetensors") for path in tmp_path.iterdir()}
    name = "dynamics.change.0.weight"
    assert torch.equal(models["auto"][name], models["float32"][name])
    assert not torch.equal(models["bfloat16"][name], models["float32"][name])
    assert models["bfloat16"][name].dtype == torch.float32
    assert models["bfloat16"][name].isfinite().all()
    with arithmetic("auto", torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


class Double(torch.nn.Module):
    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return 2 * numbers


def test_compiling_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the compiler does not work, the networks compute what they compute without it."""
    tried = []

    def broken(*args: Any, **options: Any) -> Any:
        tried.append(args)
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", broken)
    # Not a world model's own: while testing, their shapes are checked, which is not to be compiled.
    model: Any = SimpleNamespace(encoder=Double(), dynamics=Double())
    inputs = torch.randn(4, 3)
    expected = model.dynamics(model.encoder(inputs))
    set_up_networks(model, config_of({"compile": True}).training)
    torch.testing.assert_close(model.dynamics(model.encoder(inputs)), expected)
    assert tried


def test_unusable_settings_leave_nothing(store: EpisodeStore, tmp_path: Path) -> None:
    """A device, a batch or a term that cannot be is refused before anything is written."""
    cases: list[tuple[ModelConfig, dict[str, Any], str]] = [
        (config_of(), {"device": "warp"}, "device 'warp' cannot be used here"),
        (config_of({"batch": 4096}), {}, "at most the .* training windows"),
        (config_of(terms={"forward": 1, "rollout": {"weight": 1, "steps": 3}}), {}, "training window of 2"),
    ]
    if not torch.cuda.is_available():
        cases.append((config_of(), {"device": "cuda"}, "device 'cuda' cannot be used here"))
    for config, options, reason in cases:
        with pytest.raises(ConfigError, match=reason):
            train(store, "p", config, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten(store: EpisodeStore, store_path: Path, tmp_path: Path) -> None:
    """A folder with a run in it is left alone, and a run is only resumed on the data it began with."""
    train(store, "p", config_of({"steps": 2}), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    other = tmp_path / "other.h5"
    write_blobs(other, blob_contract(), episodes=13)
    with EpisodeStore(other) as data, pytest.raises(ConfigError, match="another config, data;"):
        train(data, "p", config_of({"steps": 3}), tmp_path, resume=True)
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds a training run already"):
        train(store, "p", config_of({"steps": 3}), tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"cut short")
    with pytest.raises(ConfigError, match="no training state to resume from"):
        train(store, "p", config_of({"steps": 2}), tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_state_of_another_version(store: EpisodeStore, tmp_path: Path) -> None:
    """It is refused as such, and stays; nobody is told that their settings were others."""
    train(store, "p", config_of({"steps": 2}), tmp_path)
    path = tmp_path / "state.safetensors"
    for version in ({"state_format": "1"}, {}):
        save_file(load_file(path), path, metadata={"step": "2", **version})
        before = path.read_bytes()
        with pytest.raises(ConfigError, match="another version of smwm_ros"):
            train(store, "p", config_of({"steps": 2}), tmp_path, resume=True)
        assert path.read_bytes() == before


def test_without_tensorboard(store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that is missing is named, with the way to do without."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'smwm_ros\[tensorboard\]'"):
        train(store, "p", config_of(), tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_what_the_csv_gets(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each figure of each row, at its step."""
    scalars: dict[tuple[str, int], float] = {}

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars[name, step] = value

        def flush(self) -> None:
            pass

    module = ModuleType("tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(store, "p", config_of(), tmp_path, log_every=5, tensorboard=True)
    rows = read_log(tmp_path / "log.csv")
    assert scalars == {(name, int(row["step"])): value for row in rows for name, value in row.items()}


def test_torchrun_without_fabric(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun the extra is needed, and named."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ConfigError, match=r"'smwm_ros\[distributed\]'"):
        train(store, "p", config_of(), tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not importlib.util.find_spec("lightning_fabric"), reason="needs the extra 'distributed'")
def test_two_processes(store: EpisodeStore, store_path: Path, tmp_path: Path) -> None:
    """Two processes share each batch: one checkpoint, one JSON, and almost what one process learns."""
    settings = {"steps": 6, "batch": 32, "validation": 0.25}
    whole = load_model_config("smwm")
    training = whole.training.model_copy(update=settings)
    config = whole.model_copy(update={"window": 2, "training": training})
    alone = train(store, "smwm", config, tmp_path / "one")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "smwm_ros.cli.main", "train", str(store_path), "--json"]
    command += ["--output", str(tmp_path / "two"), "--set", "window=2"]
    command += [word for key, value in settings.items() for word in ("--set", f"training.{key}={value}")]
    # What torchrun says to each; without its own process, which takes as long to start.
    said = {"TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}  # fmt: skip
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | said | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=500) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ended
    assert ended[1][0] == ""
    loss = json.loads(ended[0][0])["val_inverse"]
    load_checkpoint(tmp_path / "two" / "model.safetensors")
    # BatchNorm sees half a batch in each process: nearly the same, not the same.
    assert alone is not None
    assert loss == pytest.approx(alone.figures["val_inverse"], rel=0.5)
