"""The forward model of the official SMWM: a transformer that the action conditions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from smwm_ros.models.layers import normed_perceptron


class AdaLNTransformer(nn.Module):
    """
    Transformer blocks on one token, the latent; the action sets their norms and gates.

    AdaLN-zero (DiT, arXiv 2212.09748): each block starts as the identity. With one step of history
    a token attends to itself alone, the softmax over one key is 1 whatever queries and keys are, and
    attention is the linear map W_o W_v: the queries and keys of the official code are left out.
    """

    def __init__(
        self,
        *,
        latent: int,
        block: int,
        depth: int = 6,
        heads: int = 16,
        head: int = 64,
        mlp: int = 2048,
        hidden: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        """
        Build the layers.

        Args:
            latent: D, size of the latent.
            block: k*A, size of an action block.
            depth: number of transformer blocks.
            heads: attention heads in each.
            head: size of one head.
            mlp: width of the blocks' hidden layers.
            hidden: width of the output projector's hidden layer.
            dropout: share of numbers set to zero after each sublayer in training.
        """
        super().__init__()
        self.action = nn.Sequential(
            nn.Linear(block, 4 * latent), nn.SiLU(), nn.Linear(4 * latent, latent), nn.SiLU()
        )
        self.blocks = nn.ModuleList(AdaLNBlock(latent, heads * head, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(latent)
        self.projector = normed_perceptron(latent, hidden, latent)

    def forward(
        self, latent: Float[Tensor, "*batch latent"], block: Float[Tensor, "*batch block"]
    ) -> Float[Tensor, "*batch latent"]:
        """Predict ẑ'."""
        token, condition = latent, self.action(block)
        for layer in self.blocks:
            token = layer(token, condition)
        # BatchNorm takes one batch dimension.
        return self.projector(self.norm(token).flatten(0, -2)).view(latent.shape)


class AdaLNBlock(nn.Module):
    """One block of :class:`AdaLNTransformer`."""

    def __init__(self, width: int, inner: int, mlp: int, dropout: float) -> None:
        """
        Build the layers.

        Args:
            width: size of the token.
            inner: size of all attention heads together.
            mlp: width of the MLP's hidden layer.
            dropout: share of numbers set to zero in training.
        """
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SingleKeyAttention(width, inner)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp, width))
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, token: Float[Tensor, "*batch width"], condition: Float[Tensor, "*batch width"]
    ) -> Float[Tensor, "*batch width"]:
        """Return the token, changed as the condition says."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(condition).chunk(6, dim=-1)
        change = self.attention(self.norm(token) * (1 + scale) + shift)
        token = token + gate * self.dropout(change)
        change = self.mlp(self.norm(token) * (1 + mlp_scale) + mlp_shift)
        return token + mlp_gate * self.dropout(change)


class SingleKeyAttention(nn.Module):
    """Multi-head attention of a token to itself: W_o W_v x."""

    def __init__(self, width: int, inner: int) -> None:
        """
        Build the layers.

        Args:
            width: size of the token.
            inner: size of all heads together.
        """
        super().__init__()
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width)
        self.folded: Tensor | None = None

    def fold(self) -> None:
        """Multiply the two maps once and for all: for inference, when the weights stay as they are."""
        self.folded = self.output.weight @ self.value.weight

    def forward(self, token: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return what attention returns."""
        if self.folded is not None:
            return nn.functional.linear(token, self.folded, self.output.bias)
        return self.output(self.value(token))
