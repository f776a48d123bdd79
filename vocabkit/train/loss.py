"""Cross-entropy from hidden states, whose logits (tokens × vocabulary) are never whole in memory.

Reads and writes nothing. torch's own chunked linear_cross_entropy on a GPU where the head is a plain matrix;
on a CPU, and for a head with rows of its own, a bias or a cap on the logits (Gemma-2), checkpointed chunks.
Losses are float32, one per token: the sum of many bfloat16 numbers would be wrong in its second digit. Only
real tokens compete: padding rows behind the last token get neither probability nor gradient, so zero rows
stay zero, and bits per byte mean what verify/logits.py means by them.
"""

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from vocabkit.models.split_rows import SplitHead, whole
from vocabkit.train.data.samples import IGNORED

# On a CPU torch's takes five times as long as the chunks below where the head is trained.
FUSED_ON = {"cuda"}
CHUNK = 1 << 24  # logits held at a time, float32: 64 MiB
# Settings with which a head does more than a product; a model with one of them keeps its own forward().
UNKNOWN_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "mup_width_multiplier")


def fuse_loss(model: Any, *, n_tokens: int) -> Any:
    """Give a causal model a forward() that returns the loss without logits when it is given labels; the
    model.

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
        else:
            hidden = self.base_model(input_ids=input_ids, **options).last_hidden_state[:, :-1]
            nats = token_nats(
                self.get_output_embeddings(), hidden[chosen], wanted[chosen], n_tokens=n_tokens,
                softcap=softcap,
            )  # fmt: skip
        total = nats.sum()
        count = chosen.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        rows = None
        if per_row:
            sums = torch.zeros(chosen.shape, device=nats.device).masked_scatter(chosen, nats.detach())
            rows = torch.stack([sums.double().sum(1), chosen.sum(1)], 1).float()
        return CausalLMOutputWithPast(loss=total / count, logits=rows)

    model.forward = types.MethodType(forward, model)
    return model


def token_nats(
    head: Any, hidden: torch.Tensor, wanted: torch.Tensor, *, n_tokens: int, softcap: float | None = None
) -> torch.Tensor:
    """Return (N,) float32: −log p of the wanted ids (N,) after hidden states (N, H), among n_tokens ids."""
    weight = whole(head.weight)
    bias = getattr(head, "bias", None)
    options = getattr(torch.nn, "LinearCrossEntropyOptions", None)  # torch 2.13
    plain = not isinstance(head, SplitHead) and softcap is None and bias is None
    if options and plain and hidden.device.type in FUSED_ON:
        return F.linear_cross_entropy(
            hidden, weight[:n_tokens], wanted, reduction="none", options=options()
        ).float()

    def nats(part: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        if isinstance(head, SplitHead):
            logits = head.real_logits(part).float()
        else:
            logits = F.linear(part, weight[:n_tokens], None if bias is None else bias[:n_tokens]).float()
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return F.cross_entropy(logits, ids, reduction="none")

    size = max(1, CHUNK // n_tokens)
    parts = zip(hidden.split(size), wanted.split(size), strict=True)
    if torch.is_grad_enabled() and len(hidden) > size:
        return torch.cat([checkpoint(nats, *part, use_reentrant=False) for part in parts])
    return torch.cat([nats(*part) for part in parts])
