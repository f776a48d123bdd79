"""New rows as parameters of their own, beside matrices that stay as they are: what stage 1 trains.

Reads and writes nothing. A table of V rows is frozen and neither copied nor given a gradient; the rows of the
new words, (n, D) float32, are one parameter that both ends share where the model is tied. Whatever the
optimizer, its weight decay or its clipping do, an old row cannot move: no optimizer knows it.

    rows = split_rows(model, first=4160, stop=4176)     # rows["embed"]: the parameter; "head" where untied

The model's own modules run inside, so that a scaled embedding (Gemma) or a bias of the head works as before.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call


class _Split(nn.Module):
    """A module of one end of a model, frozen, and the parameter of its rows first … first + n - 1."""

    def __init__(self, module: nn.Module, rows: nn.Parameter, first: int) -> None:
        super().__init__()
        self.module, self.rows, self.first = module, rows, first

    @property
    def weight(self) -> torch.Tensor:
        """The frozen matrix: models ask its type and device."""
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight


class SplitEmbedding(_Split):
    """Input embeddings some of whose rows are a parameter."""

    def __init__(self, module: nn.Module, rows: nn.Parameter, first: int) -> None:
        super().__init__(module, rows, first)
        module.padding_idx = None  # type: ignore[assignment]  # it would be taken as an index into the rows

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        is_new = (ids >= self.first) & (ids < self.first + len(self.rows))
        at = (ids - self.first).clamp(0, len(self.rows) - 1)
        new = functional_call(self.module, {"weight": self.rows.to(self.weight.dtype)}, (at,))
        return torch.where(is_new[..., None], new, self.module(ids.masked_fill(is_new, 0)))


class SplitHead(_Split):
    """An output head some of whose rows are a parameter; bias: of these rows, where the head has one.

    only_new: whether the logits of these rows are all that is asked for.
    """

    bias_rows: torch.Tensor | None
    only_new = False

    def __init__(
        self, module: nn.Module, rows: nn.Parameter, first: int, bias: torch.Tensor | None = None
    ) -> None:
        super().__init__(module, rows, first)
        self.register_buffer("bias_rows", bias, persistent=False)

    def new_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (…, n) logits of the new rows."""
        return F.linear(hidden, self.rows.to(self.weight.dtype), self.bias_rows)

    def blocks(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return weight and bias of the old rows and of the new, which without padding are the last."""
        bias = getattr(self.module, "bias", None)
        old = self.weight[: self.first], None if bias is None else bias[: self.first]
        return [old, (self.rows.to(self.weight.dtype), self.bias_rows)]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.only_new:
            return self.new_logits(hidden)
        end, bias = self.first + len(self.rows), getattr(self.module, "bias", None)
        padding = self.weight[end:], None if bias is None else bias[end:]
        return torch.cat([F.linear(hidden, *block) for block in (*self.blocks(), padding)], -1)


def split_rows(model: Any, *, first: int, stop: int) -> dict[str, nn.Parameter]:
    """Freeze a model, make its rows first … stop - 1 parameters of float32, and return them.

    "embed", and "head" where the model is untied. Modules of both ends are wrapped in place.
    """
    embed, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    return add_rows(
        model,
        first=first,
        embed=embed.detach()[first:stop],
        head=None if head.weight is embed else head.weight.detach()[first:stop],
        bias=None if bias is None else bias.detach()[first:stop],
    )


def add_rows(
    model: Any,
    *,
    first: int,
    embed: torch.Tensor,
    head: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> dict[str, nn.Parameter]:
    """Do what split_rows() does with rows that are given: the model's matrices need not have them.

    embed, head: (n, D), copied; head None: one parameter is both, as in tied models. bias: (n,).
    """
    model.requires_grad_(False)
    inside, outside = model.get_input_embeddings(), model.get_output_embeddings()
    rows = {"embed": nn.Parameter(embed.float().clone())}
    model.set_input_embeddings(SplitEmbedding(inside, rows["embed"], first))
    if head is not None:
        rows["head"] = nn.Parameter(head.float().clone())
    bias = None if bias is None else bias.to(outside.weight.dtype).clone()
    model.set_output_embeddings(SplitHead(outside, rows.get("head", rows["embed"]), first, bias))
    return rows


def rows_of(model: Any) -> dict[str, nn.Parameter]:
    """Return what split_rows() returned, looked up anew: FSDP puts other parameters in their places."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embed, SplitEmbedding):
        return {}
    return {"embed": embed.rows} | ({} if head.rows is embed.rows else {"head": head.rows})


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a tensor that FSDP has left here, in the same memory; or the tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor gathered from all processes, each of which must ask for it; or the tensor itself."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def reshard(model: nn.Module) -> None:
    """Leave a model under FSDP with its parts alone: what forward() gathered would pass for parameters."""
    for module in model.modules():
        if callable(again := getattr(module, "reshard", None)):
            again()


def norm_range(weight: torch.Tensor, stop: int) -> tuple[float, float]:
    """Return the smallest and the largest norm of the rows below stop, zero rows left out."""
    norms = torch.cat([block.float().norm(dim=1) for block in weight.detach()[:stop].split(8192)])
    norms = norms[norms > 0]
    return (float(norms.min()), float(norms.max())) if len(norms) else (0.0, float("inf"))


@torch.no_grad()
def clamp_norms_(rows: torch.Tensor, low: float, high: float) -> None:
    """Scale rows in place whose norm is outside low … high to the nearer bound; a zero row stays zero.

    What with_clamped_norms() of rows/formulas.py does to a copy, in float64.
    """
    norms = rows.norm(dim=1, keepdim=True)
    inside = (norms >= low) & (norms <= high) | (norms == 0)  # those keep every bit
    scale = norms.clamp(low, high) / norms.clamp(min=1e-30)
    rows.copy_(torch.where(inside, rows, rows * scale))
