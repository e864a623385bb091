"""Numbers that tell a healthy latent space from a collapsed one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(latents: Float[Tensor, "rows latent"]) -> float:
    """
    Return exp of the entropy of the normalised singular values of the centred latents.

    1 when all variance lies along one direction, D when it is the same along all
    (Roy and Vetterli, EUSIPCO 2007).
    """
    values = torch.linalg.svdvals((latents - latents.mean(0)).double())
    share = values / values.sum().clamp_min(1e-30)
    return float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))


def latent_scale(latents: Float[Tensor, "rows latent"]) -> float:
    """Return the root of the mean variance over the latent's dimensions; 0 is a collapse."""
    return float(latents.var(0).mean().sqrt())


def median_rms(vectors: Float[Tensor, "rows latent"]) -> float:
    """Return the median over rows of the root mean square of each row."""
    return float(vectors.square().mean(-1).sqrt().median())
