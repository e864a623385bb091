"""Loss curves of a training run."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from smwm_ros.training.log import read_log


def plot_training(log: Path, picture: Path) -> None:
    """Draw the columns of a trainer's ``log.csv``: losses above, the latent's health below."""
    rows = read_log(log)
    steps = [row["step"] for row in rows]
    terms = sorted(key.removeprefix("val_") for key in rows[0] if key.startswith("val_"))
    figure = Figure(figsize=(4 * (len(terms) + 1), 3), layout="constrained")
    axes = figure.subplots(1, len(terms) + 1)
    for axis, term in zip(axes, terms, strict=False):
        axis.semilogy(steps, [row[term] for row in rows], label="training", alpha=0.6)
        axis.semilogy(steps, [row[f"val_{term}"] for row in rows], label="validation")
        axis.set(title=f"{term} loss", xlabel="step")
        axis.legend()
    axes[-1].plot(steps, [row["effective_rank"] for row in rows], label="effective rank")
    axes[-1].plot(steps, [row["latent_scale"] for row in rows], label="scale")
    axes[-1].set(title="latent", xlabel="step", ylim=(0, None))
    axes[-1].legend()
    figure.savefig(picture, dpi=120)
