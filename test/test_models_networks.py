"""Encoders and forward models: published sizes, identities that must hold, frozen backbones, presets."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from checkpoints import information
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from smwm_ros.contract import Contract
from smwm_ros.errors import ConfigError
from smwm_ros.models.adaln import AdaLNTransformer, SingleKeyAttention
from smwm_ros.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from smwm_ros.models.config import ModelConfig, TrainingConfig, load_model_config
from smwm_ros.models.dynamics import DYNAMICS
from smwm_ros.models.encoders import ENCODERS
from smwm_ros.models.inverse import INVERSES
from smwm_ros.models.layers import SelfAttention, TransformerBlock, attend
from smwm_ros.models.objectives import TERMS
from smwm_ros.models.patches import PatchTransformer
from smwm_ros.models.vit import ViTEncoder
from smwm_ros.models.world_model import WorldModel
from smwm_ros.resources import find_contract, share_directory

PRESETS = sorted(file.stem for file in (share_directory() / "config" / "models").glob("*.yaml"))
BACKBONES = ("dino_wm", "vjepa_ac")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def contract() -> Contract:
    return find_contract("reacher")


@pytest.fixture(scope="module")
def vit_tiny(contract: Contract) -> WorldModel:
    return WorldModel(load_model_config("vit_tiny_224"), contract).eval()


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in BACKBONES])
def test_presets_build(preset: str, contract: Contract) -> None:
    """Every shipped preset is whole: images become latents that can be predicted from."""
    config = load_model_config(preset)
    model = WorldModel(config, contract).eval()
    with torch.inference_mode():
        latent = model.encode(torch.zeros(1, config.frames, 64, 64, 3, dtype=torch.uint8))
        assert model.rollout(latent, torch.zeros(1, 2, contract.block_size)).shape == (
            1,
            2,
            model.latent_size,
        )


def test_several_frames(contract: Contract) -> None:
    """With two frames the latent depends on both."""
    config = load_model_config("smwm").model_copy(update={"frames": 2})
    model = WorldModel(config, contract).eval()
    images = torch.zeros(3, 2, 64, 64, 3, dtype=torch.uint8)
    images[1, 0], images[2, 1] = 200, 200
    latents = model.encode(images)
    assert min((latents[a] - latents[b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-3


def test_vit_tiny_has_the_published_size(vit_tiny: WorldModel) -> None:
    """DeiT-Tiny/16 has 5,717,416 parameters, 193,000 in its classifier; ours has smaller patches."""
    patch_16 = ViTEncoder(frames=1, size=224, patch=16, hidden=8)
    assert count(patch_16) - count(patch_16.projector) == 5_717_416 - 193_000
    encoder = vit_tiny.encoder
    assert isinstance(encoder, ViTEncoder)
    fewer_pixels, more_patches = 3 * (16**2 - 14**2) * 192, (16**2 - 14**2) * 192
    assert count(encoder) - count(encoder.projector) == 5_524_416 - fewer_pixels + more_patches


def test_adaln_has_the_published_size(vit_tiny: WorldModel) -> None:
    """The official predictor's six blocks, without the queries and keys that compute nothing."""
    attention = 192 * 3 * 1024 + 1024 * 192 + 192
    mlp = 192 * 2048 + 2048 + 2048 * 192 + 192
    modulation = 192 * 6 * 192 + 6 * 192
    queries_and_keys = 2 * 192 * 1024
    blocks = vit_tiny.dynamics.blocks
    assert isinstance(blocks, nn.ModuleList)
    assert count(blocks) == 6 * (attention + mlp + modulation - queries_and_keys)


def test_attention_to_one_token_is_linear() -> None:
    """Why queries and keys can go: with one token they change nothing, whatever they are."""
    whole = SelfAttention(12, heads=4, head=8)
    alone = SingleKeyAttention(12, 32)
    _, _, values = whole.inputs.weight.chunk(3)
    alone.value.weight.data.copy_(values)
    alone.output.load_state_dict(whole.output.state_dict())
    whole.inputs.bias.data.zero_()
    token = torch.randn(5, 1, 12)
    torch.testing.assert_close(whole(token), alone(token))


def test_part_of_attention_is_that_part() -> None:
    """A block that is asked for some tokens alone still looks at all of them."""
    torch.manual_seed(0)
    block = TransformerBlock(12, heads=3, mlp=16)
    tokens = torch.randn(2, 7, 12)
    torch.testing.assert_close(block(tokens, first=2), block(tokens)[:, :2])


def test_vit_computes_what_its_blocks_say() -> None:
    """Leaving out what nobody looks at leaves latents and gradients as they are."""
    torch.manual_seed(0)
    encoder = ViTEncoder(frames=1, size=28, resolution=28, width=24, depth=3, mlp=32, hidden=16, latent=8)
    images = torch.randn(4, 3, 28, 28)
    patches = encoder.patches(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([encoder.summary.expand(4, -1, -1), patches], 1) + encoder.positions
    whole = encoder.projector(encoder.norm(encoder.blocks(tokens))[:, 0])
    torch.testing.assert_close(encoder(images), whole)
    wanted = torch.autograd.grad(whole.square().sum(), list(encoder.parameters()))
    found = torch.autograd.grad(encoder(images).square().sum(), list(encoder.parameters()))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_attention_in_bfloat16_is_attention() -> None:
    """The way that is fast on a CPU computes the same, to the precision of its numbers."""
    torch.manual_seed(0)
    parts = torch.randn(3, 2, 3, 9, 16)
    expected = nn.functional.scaled_dot_product_attention(*parts)
    torch.testing.assert_close(attend(*parts.bfloat16()).float(), expected, rtol=0, atol=0.03)
    torch.testing.assert_close(attend(*parts), expected)


def test_adaln_starts_without_the_action_and_learns_it() -> None:
    """AdaLN-zero: at the start every block is the identity; the first gradients open the gates."""
    torch.manual_seed(0)
    dynamics = AdaLNTransformer(latent=8, block=4, depth=2, heads=2, head=4, mlp=16, hidden=16).eval()
    latent, one, other = torch.randn(3, 2, 8), torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    torch.testing.assert_close(dynamics(latent, one), dynamics(latent, other))
    optimiser = torch.optim.SGD(dynamics.parameters(), lr=1.0)
    dynamics(latent, one).square().mean().backward()
    optimiser.step()
    assert (dynamics(latent, one) - dynamics(latent, other)).abs().max() > 1e-6


def test_checkpoints_fold_attention(contract: Contract) -> None:
    """A loaded model predicts what the trained one did, with one small map for each attention."""
    sizes = {"type": "adaln", "depth": 2, "heads": 2, "head": 16, "mlp": 16, "hidden": 16}
    content = load_model_config("smwm").model_dump() | {"dynamics": sizes}
    config = ModelConfig.model_validate(content)
    torch.manual_seed(0)
    model = WorldModel(config, contract).eval()
    for parameter in model.dynamics.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    latent, blocks = torch.randn(4, 64), torch.randn(4, 3, 10)
    expected = model.rollout(latent, blocks).detach()
    checkpoint = Checkpoint(information(config, contract), model, "id")
    folded = [module for module in checkpoint.model.modules() if isinstance(module, SingleKeyAttention)]
    assert [tuple(module.folded.shape) for module in folded if module.folded is not None] == [(64, 64)] * 2
    torch.testing.assert_close(checkpoint.model.rollout(latent, blocks), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ({"type": "vit", "resolution": 100, "patch": 14}, "resolution 100 must be a multiple of patch 14"),
        ({"type": "vit", "width": 100, "heads": 3}, "width 100 one of heads 3"),
        ({"type": "conv", "latent": -3}, "conv: cannot be built"),
        ({"type": "conv", "hidden": "wide"}, "conv: cannot be built"),
    ],
)
def test_shapes_that_cannot_fit(encoder: dict[str, Any], reason: str, contract: Contract) -> None:
    """Sizes that no network can have are refused by slot and setting, not by a traceback."""
    content = load_model_config("smwm").model_dump() | {"encoder": encoder}
    with pytest.raises(ConfigError, match=reason):
        WorldModel(ModelConfig.model_validate(content), contract)


@pytest.mark.parametrize("action", ["concatenate", "token"])
def test_patches_see_the_action_and_one_another(action: Any) -> None:
    """Each predicted token depends on the action and on every other token."""
    torch.manual_seed(0)
    sizes = {"action_size": 3, "width": 8, "depth": 2, "heads": 2, "head": 4, "mlp": 16}
    dynamics = PatchTransformer(latent=20, block=4, token=5, action=action, **sizes)  # type: ignore[arg-type]
    latent, block = torch.randn(2, 20), torch.randn(2, 4)
    before = dynamics(latent, block)
    assert ((dynamics(latent, block + 1) - before).view(2, 4, 5).abs().amax(-1) > 1e-6).all()
    moved = latent.clone()
    moved[:, :5] += torch.randn(5)
    assert ((dynamics(moved, block) - before).view(2, 4, 5).abs().amax(-1) > 1e-6).all()
    with pytest.raises(ConfigError, match="not made of tokens of 6"):
        PatchTransformer(latent=20, block=4, token=6)


class TinyBackbone(nn.Module):
    """What :class:`PretrainedEncoder` uses of a timm ViT: one prefix token, then a token a patch."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.dropout = nn.Dropout(0.5)

    def forward_features(self, images: Tensor) -> Tensor:
        tokens = self.dropout(self.patches(images)).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :1], tokens], 1)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for timm, which is an extra and large."""

    def create_model(name: str, **options: Any) -> TinyBackbone:
        if name != "vit_tiny":
            raise RuntimeError(f"Unknown model ({name})")
        model = TinyBackbone()
        if options.get("pretrained"):
            model.load_state_dict(load_file(options["pretrained_cfg_overlay"]["file"]))
        return model

    module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)


def backbone_config(**encoder: Any) -> ModelConfig:
    content = load_model_config("dino_wm").model_dump()
    content["encoder"] = {"type": "pretrained", "name": "vit_tiny", "resolution": 32} | encoder
    content["dynamics"] = {
        "type": "patches",
        "token": 4,
        "width": 8,
        "depth": 1,
        "heads": 2,
        "head": 4,
        "mlp": 8,
    }
    return ModelConfig.model_validate(content)


@pytest.mark.usefixtures("timm")
def test_a_frozen_backbone(contract: Contract, tmp_path: Path) -> None:
    """Its patches are the latent, nothing trains it, and its checkpoint needs the weight file no more."""
    weights = tmp_path / "backbone.safetensors"
    torch.manual_seed(5)
    save_file(TinyBackbone().state_dict(), weights)
    config = backbone_config(weights=str(weights), resolution=32).model_copy(update={"frames": 2})
    model = WorldModel(config, contract)
    model.encoder.load_pretrained()  # type: ignore[operator]
    assert model.latent_size == 2 * 16 * 4
    model.train()
    images = torch.randint(0, 255, (3, 2, 64, 64, 3)).to(torch.uint8)
    latents = model.encode(images)
    torch.testing.assert_close(latents, model.encode(images))  # no dropout
    assert not latents.requires_grad
    loaded = TinyBackbone().eval()
    loaded.load_state_dict(load_file(weights))
    older = torch.nn.functional.interpolate(
        images[:, 0].permute(0, 3, 1, 2) / 255, size=(32, 32), mode="bilinear", antialias=True
    )
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), 0.2
    expected = loaded.forward_features((older - mean) / std)[:, 1:].flatten(1)
    torch.testing.assert_close(latents[:, : 16 * 4], expected, rtol=1e-4, atol=1e-5)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, information(config, contract), model)
    weights.unlink()
    again = load_checkpoint(path).model.encode(images)
    torch.testing.assert_close(again, latents)


@pytest.mark.usefixtures("timm")
def test_backbones_that_cannot_be_loaded(contract: Contract, tmp_path: Path) -> None:
    """No file, a missing one, a pickle, another model's: each says what to give instead."""
    pickled, other = tmp_path / "weights.pth", tmp_path / "other.safetensors"
    torch.save({}, pickled)
    save_file({"a": torch.zeros(1)}, other)
    for weights, reason in (
        ("", "none is set"),
        (str(tmp_path / "absent.safetensors"), "is missing"),
        (str(pickled), "can run code"),
        (str(other), "does not fit timm's vit_tiny"),
    ):
        model = WorldModel(backbone_config(weights=weights), contract)
        with pytest.raises(ConfigError, match=reason):
            model.encoder.load_pretrained()  # type: ignore[operator]
    with pytest.raises(ConfigError, match="timm cannot make 'vit_huge'"):
        WorldModel(backbone_config(name="vit_huge"), contract)


def test_without_timm(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that needs the extra says how to install it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    for preset in BACKBONES:
        with pytest.raises(ConfigError, match=r"pip install 'smwm_ros\[pretrained\]'"):
            WorldModel(load_model_config(preset), contract)


def test_no_inverse_model(contract: Contract) -> None:
    """Asking a model without an inverse for actions says so."""
    model = WorldModel(load_model_config("lewm"), contract)
    with pytest.raises(ConfigError, match="no inverse model"):
        model.inverse(torch.zeros(1, 64), torch.zeros(1, 64))


def test_all_that_can_be_chosen_is_described() -> None:
    """A preset, class, term or training key added to the code and not to docs/models.md."""
    text = (share_directory() / "docs" / "models.md").read_text(encoding="utf-8")
    for name in [*PRESETS, *ENCODERS, *DYNAMICS, *INVERSES, *TERMS, *TrainingConfig.model_fields]:
        assert f"`{name}`" in text, name
