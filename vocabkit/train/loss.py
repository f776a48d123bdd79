"""Cross-entropy from hidden states, whose logits (tokens × vocabulary) are never whole in memory.

Reads and writes nothing. One way for every head: a plain matrix, one with rows of its own, with a bias or
with a cap on the logits (Gemma-2). Losses are float32, one per token: the sum of many bfloat16 numbers would
be wrong in its second digit. Only real tokens compete: padding rows behind the last token get neither
probability nor gradient, so zero rows stay zero, and bits per byte mean what verify/logits.py means by them.
"""

import types
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import CausalLMOutputWithPast

from vocabkit.models.split_rows import SplitHead, whole
from vocabkit.train.data.samples import IGNORED

CHUNK = 1 << 24  # logits held at a time, float32: 64 MiB; more is no faster on a CPU
# Settings with which a head does more than a product; a model with one of them keeps its own forward().
UNKNOWN_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "mup_width_multiplier")


def fuse_loss(model: Any, *, n_tokens: int, chunk: int = CHUNK) -> Any:
    """Give a causal model a forward() that returns the loss without logits when it is given labels; the
    model.

    chunk: how many logits there are at a time; where that is all of them, the loss is the plain one.
    loss: the sum over labelled tokens divided by num_items_in_batch, or by their number. per_row=True:
    `logits` of the output holds (B, 2) float32 instead, nats and labelled tokens of each row. The key-value
    cache is off: with it, transformers ignores restarting position_ids and packed documents see each other.
    """
    full = model.forward
    softcap = getattr(model.config, "final_logit_softcapping", None)
    keeps_own = any(getattr(model.config, name, None) not in (None, 1, 1.0) for name in UNKNOWN_SCALES)

    def forward(
        self: Any,
        input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        per_row: bool = False,
        **options: Any,
    ) -> Any:
        if labels is None:
            return full(input_ids=input_ids, **options)
        options["use_cache"] = False
        wanted = labels[:, 1:]
        chosen = wanted != IGNORED
        if keeps_own:
            logits = full(input_ids=input_ids, **options).logits[:, :-1][chosen][:, :n_tokens].float()
            nats = F.cross_entropy(logits, wanted[chosen], reduction="none")
            total = nats.sum()
        else:
            hidden = self.base_model(input_ids=input_ids, **options).last_hidden_state[:, :-1]
            total, nats = summed_nats(
                self.get_output_embeddings(), hidden[chosen], wanted[chosen], n_tokens=n_tokens,
                softcap=softcap, chunk=chunk,
            )  # fmt: skip
        count = chosen.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        rows = None
        if per_row:
            sums = torch.zeros(chosen.shape, device=nats.device).masked_scatter(chosen, nats.detach())
            rows = torch.stack([sums.double().sum(1), chosen.sum(1)], 1).float()
        return CausalLMOutputWithPast(loss=total / count, logits=rows)

    model.forward = types.MethodType(forward, model)
    return model


def summed_nats(
    head: Any,
    hidden: torch.Tensor,
    wanted: torch.Tensor,
    *,
    n_tokens: int,
    softcap: float | None = None,
    chunk: int = CHUNK,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of −log p of the wanted ids (N,) after hidden states (N, H), among n_tokens ids, and
    (N,) float32 each of them, without gradients.

    softcap: of Gemma-2, c·tanh(logit / c). chunk: how many logits there are at a time.
    """
    blocks = head.blocks() if isinstance(head, SplitHead) else [(head.weight, getattr(head, "bias", None))]
    used = [len(weight) for weight, _ in blocks[:-1]]
    used.append(n_tokens - sum(used))
    return _SummedNats.apply(
        hidden, wanted, max(1, chunk // n_tokens), softcap, torch.is_grad_enabled(), used,
        *(whole(weight) for weight, _ in blocks), *(bias for _, bias in blocks),
    )  # fmt: skip


class _SummedNats(torch.autograd.Function):
    """What summed_nats() returns, with gradients that forward() has computed beside it.

    So the logits of a chunk are made once: their own gradient, p − 1 at the wanted id and p elsewhere, takes
    their place, and goes to hidden states and head at once (as Liger Kernel does, arXiv 2410.10989).
    backward() has only to scale.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        wanted: torch.Tensor,
        size: int,
        softcap: float | None,
        learns: bool,
        used: Sequence[int],
        *tables: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden: (N, H); size: places of a chunk; learns: whether gradients are wanted at all; tables: the
        weights (rows, H), whose logits stand beside each other, then as many biases (rows,) or None; used:
        how many rows of each are tokens.
        """
        device = hidden.device.type
        mixed = torch.is_autocast_enabled(device)
        number = torch.get_autocast_dtype(device) if mixed else hidden.dtype
        moved = [learns and ctx.needs_input_grad[at] for at in (0, *range(6, 6 + len(tables)))]
        of_hidden, *of_tables = (
            torch.zeros_like(tensor) if tensor is not None and moves else None
            for tensor, moves in zip([hidden, *tables], moved, strict=True)
        )
        cut = [None if t is None else t[:n].to(number) for t, n in zip(tables, [*used] * 2, strict=True)]
        weights, biases = cut[: len(used)], cut[len(used) :]
        each = []
        for at in range(0, len(hidden), size):
            part, ids = hidden[at : at + size].to(number), wanted[at : at + size, None]
            with torch.autocast(device, enabled=False):
                logits = _joined(F.linear(part, w, b) for w, b in zip(weights, biases, strict=True))  # type: ignore[arg-type]
                if softcap is not None:
                    logits = softcap * torch.tanh(logits.float() / softcap)
                found = F.log_softmax(logits, 1, dtype=torch.float32)
                each.append(-found.gather(1, ids)[:, 0])
                if not learns:
                    continue
                slope = found.exp_().scatter_add_(1, ids, found.new_full(ids.shape, -1))
                if softcap is not None:
                    slope *= 1 - (logits / softcap) ** 2
                del logits
                slopes = slope.to(number).split(used, 1)
                if of_hidden is not None:
                    of_hidden[at : at + size] = sum(of @ w for of, w in zip(slopes, weights, strict=True))
                for block, of in enumerate(slopes):
                    if (of_weight := of_tables[block]) is not None:
                        _add_product(of_weight[: used[block]], of, part)
                    if (of_bias := of_tables[len(used) + block]) is not None:
                        of_bias[: used[block]] += of.sum(0)
        ctx.grads = [of_hidden, *of_tables]
        nats = torch.cat(each) if each else hidden.new_zeros(0, dtype=torch.float32)
        ctx.mark_non_differentiable(nats)
        return nats.sum(), nats

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        of_hidden, *of_tables = (None if of is None else of.mul_(scale) for of in ctx.grads)
        del ctx.grads  # scaled in place: a second backward() must not find them
        return of_hidden, *[None] * 5, *of_tables


def _joined(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Matrices beside each other; a single one is not copied."""
    parts = list(parts)
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _add_product(total: torch.Tensor, of: torch.Tensor, part: torch.Tensor) -> None:
    """total += ofᵀ · part, without a matrix beside it where the number types are one."""
    if total.dtype == of.dtype:
        total.addmm_(of.T, part)
    else:
        total += of.T @ part
