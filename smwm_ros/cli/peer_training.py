"""The official training code of SMWM as a peer of `smwm bench training`: a script for its own environment."""

PEER = '''
import importlib.util, json, os, sys, time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

# The libraries tell what they do on stdout, which is for answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import lightning, numpy, torch
import stable_pretraining as spt
import stable_worldmodel as swm
from omegaconf import OmegaConf
from torch import nn

checkout, path, settings = Path(sys.argv[1]), sys.argv[2], SimpleNamespace(**json.loads(sys.argv[3]))
sys.path.insert(0, str(checkout / "planning"))
from jepa import JEPA
from module import ARPredictor, Embedder, InverseModel, MLP
from train import configure_external_callbacks, forward_step
from utils import get_column_normalizer

torch.set_num_threads(settings.threads)
moments, block, on_cpu = settings.window + 1, settings.block_size, settings.device == "cpu"

# As planning/train.py: its reader, its normalizer, its loader's options.
data = swm.data.HDF5Dataset(
    path=path, num_steps=moments, frameskip=settings.block, keys_to_load=["pixels", "action"]
)
data.transform = spt.data.transforms.Compose(get_column_normalizer(data, "action", "action"))
ahead = dict(persistent_workers=True, prefetch_factor=4) if settings.workers else {}
loader = torch.utils.data.DataLoader(
    data, batch_size=settings.batch, num_workers=settings.workers, shuffle=True, drop_last=True,
    pin_memory=not on_cpu, **ahead,
)


class Convolutions(nn.Module):
    """The convolutions of the preset smwm, called as the official encoder is."""

    def __init__(self):
        super().__init__()
        layers = []
        for number, (before, after) in enumerate([(3, 16), (16, 32), (32, 32)]):
            kernel, stride = (3, 2) if number else (6, 4)
            layers += [nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, images, interpolate_pos_encoding):
        return SimpleNamespace(last_hidden_state=self.layers(images)[:, None])


if settings.vit:
    projector = partial(MLP, input_dim=192, output_dim=192, hidden_dim=2048, norm_fn=nn.BatchNorm1d)
    model = JEPA(
        encoder=spt.backbone.utils.vit_hf(
            "tiny", patch_size=14, image_size=224, pretrained=False, use_mask_token=False
        ),
        predictor=ARPredictor(
            num_frames=settings.window, input_dim=192, hidden_dim=192, output_dim=192,
            depth=6, heads=16, mlp_dim=2048, dim_head=64, dropout=0.1, emb_dropout=0.0,
        ),
        action_encoder=Embedder(input_dim=block, emb_dim=192),
        projector=projector(),
        pred_proj=projector(),
        inverse_model=InverseModel(embed_dim=192, action_dim=block, hidden_dim=256),
    )
else:
    # The transformer cannot be as small as the preset's MLP; the one of toy/ is.
    spec = importlib.util.spec_from_file_location("toy_models", checkout / "toy" / "models.py")
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    model = JEPA(
        encoder=Convolutions(),
        predictor=toy.ForwardModel(latent_dim=64, action_dim=block, hidden_dim=256),
        action_encoder=nn.Identity(),
        projector=MLP(input_dim=512, hidden_dim=256, output_dim=64, norm_fn=nn.BatchNorm1d),
        inverse_model=InverseModel(embed_dim=64, action_dim=block, hidden_dim=256),
    )

loss = {"inverse": {"weight": 5.0}, "sigreg": {"weight": 0.0}}
cfg = OmegaConf.create({"wm": {"history_size": settings.window}, "loss": loss})
optimiser = {
    "modules": "model",
    "optimizer": {"type": "AdamW", "lr": 1e-4, "weight_decay": 1e-3},
    "scheduler": "LinearWarmupCosineAnnealingLR",
    "interval": "epoch",
}
module = spt.Module(model=model, forward=partial(forward_step, cfg=cfg), optim={"model_opt": optimiser})
module._log_hyperparams = False


class Clock(lightning.pytorch.Callback):
    """Trains for as long as it is told, says how fast that went, and waits for the next question."""

    def on_train_start(self, trainer, module):
        names = ("stable-worldmodel", "stable-pretraining", "lightning", "torch")
        self.tell("sensorimotor-world-model, " + ", ".join(f"{name} {version(name)}" for name in names))

    def tell(self, answer):
        print(json.dumps(answer), file=answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self.seconds, self.steps, self.began = json.loads(line), 0, time.perf_counter()

    def on_train_batch_end(self, trainer, module, *rest):
        self.steps += 1
        if time.perf_counter() >= self.began + self.seconds:
            if not on_cpu:
                torch.cuda.synchronize()
            images = self.steps * settings.batch * moments
            self.tell(images / (time.perf_counter() - self.began))


configure_external_callbacks(False)
trainer = lightning.Trainer(
    max_epochs=10**6,
    accelerator="cpu" if on_cpu else "gpu",
    devices=1,
    precision="bf16-mixed" if settings.bfloat16 else "32-true",
    gradient_clip_val=1.0,
    callbacks=[Clock()],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    default_root_dir=os.path.dirname(path),
)
trainer.fit(module, loader)
'''
"""
Trains by the official code, of which only sizes are chosen: HDF5Dataset, DataLoader, the JEPA with its
loss, and stable-pretraining's module in Lightning's loop. Its predictor is asked for as many
transitions as the preset's window has.
"""
