"""Building blocks that several slots share."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Perceptron(nn.Sequential):
    """
    An MLP with ReLU between its layers and a linear output.

    It computes what its modules would one after the other. For the few rows of a plan, calling seven modules
    would take as long again as what they compute.
    """

    def forward(self, values: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return the last layer's output."""
        *hidden, last = (layer for layer in self if isinstance(layer, nn.Linear))
        for layer in hidden:
            values = nn.functional.linear(values, layer.weight, layer.bias).relu_()
        return nn.functional.linear(values, last.weight, last.bias)


def perceptron(inputs: int, hidden: int, layers: int, outputs: int) -> Perceptron:
    """Return an MLP of so many hidden layers of a width."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Linear(inputs, hidden), nn.ReLU()]
        inputs = hidden
    return Perceptron(*modules, nn.Linear(inputs, outputs))


def normed_perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return the projector of LeWM and SMWM: one hidden layer with BatchNorm and GELU."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, outputs)
    )


def attend(
    queries: Float[Tensor, "batch heads asked head"],
    keys: Float[Tensor, "batch heads tokens head"],
    values: Float[Tensor, "batch heads tokens head"],
) -> Float[Tensor, "batch heads asked head"]:
    """Return softmax(q k / √d) v."""
    if queries.device.type == "cpu" and queries.dtype == torch.bfloat16:
        # Torch's fused attention is twice as slow as its parts there (2.13, 257 tokens, with gradients).
        similarity = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
        return similarity.softmax(-1) @ values
    return nn.functional.scaled_dot_product_attention(queries, keys, values)


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to one another."""

    def __init__(self, width: int, heads: int, head: int) -> None:
        """
        Build the layers.

        Args:
            width: size of a token.
            heads: how many.
            head: size of one.
        """
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * heads * head)
        self.output = nn.Linear(heads * head, width)

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], first: int | None = None
    ) -> Float[Tensor, "batch mixed width"]:
        """
        Mix the tokens.

        Args:
            tokens: all are looked at.
            first: how many of them are wanted mixed; all when absent.
        """
        weight, bias = self.inputs.weight, self.inputs.bias
        inner = len(weight) // 3
        asked = nn.functional.linear(tokens[:, :first], weight[:inner], bias[:inner])
        others = nn.functional.linear(tokens, weight[inner:], bias[inner:]).chunk(2, -1)
        queries, keys, values = (
            part.view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (asked, *others)
        )
        return self.output(attend(queries, keys, values).transpose(1, 2).flatten(-2))


class TransformerBlock(nn.Module):
    """A pre-norm block: attention, then an MLP, each added to its input (ViT, arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int, mlp: int, head: int | None = None) -> None:
        """
        Build the layers.

        Args:
            width: size of a token.
            heads: attention heads.
            mlp: width of the MLP's hidden layer.
            head: size of a head; width / heads when absent.
        """
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads, head or width // heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))

    def forward(
        self, tokens: Float[Tensor, "batch tokens width"], first: int | None = None
    ) -> Float[Tensor, "batch changed width"]:
        """Return the tokens, or the ``first`` of them, changed."""
        tokens = tokens[:, :first] + self.attention(self.attention_norm(tokens), first)
        return tokens + self.mlp(self.mlp_norm(tokens))


def initialise(module: nn.Module) -> None:
    """Draw linear and convolutional weights as ViTs do: truncated normal of 0.02, no bias."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
