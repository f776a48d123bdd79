"""A causal language model with rows for new words beside its own, which stay as they are on disk.

Reads a Hugging Face folder; writes nothing. The rows are two small tensors, or one where the model is tied
(models/split_rows.py); the large matrices are neither copied nor changed, and gradients reach the new rows
alone.

    model = load_word_model(folder, Rows(rows), first_new=94_948)
    # the states behind 5 and 9 tokens, and the logits after them
    after = model.read([new_ids], [[5, 9]])
    # the same places as the old tokens reach them
    before = model.read([old_ids], [[7, 12]], words=False)

The model's own code runs: the two ends are wrapped, not rewritten, so that a scaled embedding (Gemma), a cap
on the logits (Gemma-2) and whatever else stands before or behind them works as it does in the folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from vocabkit.checkpoint.vocab_tensors import VocabTensors
from vocabkit.errors import UserError
from vocabkit.models.load import load_model
from vocabkit.models.split_rows import add_rows, rows_of
from vocabkit.models.start import text_start


class Rows(NamedTuple):
    """Rows of W new words, float32: input and output (W, D), bias (W,) where the head has one.

    output None: one row is both, as in tied models.
    """

    input: np.ndarray
    output: np.ndarray | None = None
    bias: np.ndarray | None = None


def rows_of_tensors(tensors: VocabTensors, values: Mapping[str, np.ndarray]) -> Rows:
    """Return what values by the names of vocabulary tensors, (W, D) float32 each, are at the two ends."""
    head = [values[tensor.name] for tensor in tensors.head]
    output = next((rows for rows in head if rows.shape[1] > 1), None)
    bias = next((rows[:, 0] for rows in head if rows.shape[1] == 1), None)
    return Rows(values[tensors.embed[0].name], output, bias)


@dataclass(frozen=True)
class States:
    """What a model says at the places it was asked for, one after the other.

    hidden: (N, H), its last hidden states, which the head reads; logits: (N, tokens), over the old tokens, or
    over old and new ones.
    """

    hidden: torch.Tensor
    logits: torch.Tensor


# What a head is to read, of its module and the states that it would read
_Choose = Callable[[nn.Module, tuple[torch.Tensor]], torch.Tensor]


class WordModel:
    """A model whose new rows are its own (models/split_rows.py), read at places of sequences.

    start: the id that every sequence begins with. first_new: the id of the first new word. masked: whether
    the model is told which ids pad a row. They stand behind all that is asked and change no state, but
    attention goes backward through other kernels then: the last bits of a gradient hang on it.
    """

    def __init__(self, model: Any, *, start: int, masked: bool = False) -> None:
        self.model, self.start, self.masked = model, start, masked
        self.first_new: int = model.get_output_embeddings().first
        # Not model(…): DDP and FSDP, which hook into that, are in the middle of it when a lesson is read.
        self._forward = model.forward

    @property
    def rows(self) -> list[nn.Parameter]:
        """(W, D) float32 of the input and of the output; one where the model is tied."""
        return list(rows_of(self.model).values())

    @property
    def tied(self) -> bool:
        """Whether one tensor holds the rows of both ends."""
        return len(self.rows) == 1

    @torch.no_grad()
    def use(self, new: Rows) -> None:
        """Take other values for the rows, of the same shapes."""
        for rows, values in zip(self.rows, (new.input, new.output), strict=False):
            rows.copy_(torch.from_numpy(values))
        bias = self.model.get_output_embeddings().bias_rows
        if bias is not None and new.bias is not None:
            bias.copy_(torch.from_numpy(new.bias))

    def read(
        self,
        sequences: Sequence[Sequence[int]],
        places: Sequence[Sequence[int]],
        *,
        words: bool = True,
        start: bool = True,
        past: "Past | None" = None,
    ) -> States:
        """Read id sequences after a start token; return the states at places and the logits after them.

        places: for each sequence numbers of ids read so far, 0 (only the start token) to its length. words:
        whether new ids may occur and compete in the logits; False is the model as it is in its folder.
        start: False for sequences that have a beginning of their own, as chat templates write it; their
        first place is 1. past: what comes before the sequences, which then have no start token either.
        """
        first = [self.start] if start and past is None else []
        length = len(first) + max(map(len, sequences))
        ids = torch.full((len(sequences), length), self.start)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(first) + len(sequence)] = torch.tensor([*first, *sequence], dtype=ids.dtype)
            mask[row, : len(first) + len(sequence)] = 1
        pairs = [(row, place - 1 + len(first)) for row, several in enumerate(places) for place in several]
        at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).to(self.model.device)
        hidden: list[torch.Tensor] = []

        def choose(_: nn.Module, states: tuple[torch.Tensor]) -> torch.Tensor:
            hidden.append(states[0][at[:, 0], at[:, 1]])
            return hidden[0][None]

        more = past.before(mask) if past else {"attention_mask": mask if self.masked else None}
        logits = self._logits(ids, choose, words=words, **more)
        return States(hidden[0], logits)

    @torch.no_grad()
    def remember(self, sequences: Sequence[Sequence[int]]) -> "Past":
        """Read id sequences of old tokens, which may be empty, without a start token, for read() to go on."""
        length = max(1, *map(len, sequences))
        ids = torch.full((len(sequences), length), self.start)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):  # to the right: what follows comes right behind them
            ids[row, length - len(sequence) :] = torch.tensor(sequence, dtype=ids.dtype)
            mask[row, length - len(sequence) :] = 1
        caches: list[Any] = []
        self._logits(
            ids,
            lambda _, states: states[0][:1, :1],
            words=False,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            caches=caches,
        )
        cache = caches[0]
        if hasattr(cache, "layers"):
            return Past([(layer.keys, layer.values) for layer in cache.layers], mask)
        if isinstance(cache, tuple):  # transformers 4.45
            return Past(list(cache), mask)
        return Past(list(zip(cache.key_cache, cache.value_cache, strict=True)), mask)

    def logits(self, hidden: torch.Tensor, *, words: bool = True) -> torch.Tensor:
        """Return the logits after states that were read before: (N, H) → (N, tokens).

        The model reads one token for it, which costs next to nothing, so that what its own code does behind
        the head is done here too.
        """
        return self._logits(torch.tensor([[self.start]]), lambda *_: hidden[None], words=words)

    def new_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the new tokens alone after states that were read before: (N, H) → (N, W)."""
        head = self.model.get_output_embeddings()
        head.only_new = True
        try:
            return self.logits(hidden.to(self.model.device))
        finally:
            head.only_new = False

    def _logits(
        self,
        ids: torch.Tensor,
        choose: _Choose,
        *,
        words: bool,
        caches: list[Any] | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Return the logits of a reading whose head reads what choose() makes of its states.

        inputs: what the model takes beside the ids. caches: the keys and values of the reading are put here.
        """
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(choose)
        given = {k: v.to(self.model.device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        use_cache = caches is not None or "past_key_values" in inputs
        training = self.model.training
        if use_cache:
            self.model.eval()  # in training, models that recompute their activations take no past
        try:
            output = self._forward(input_ids=ids.to(self.model.device), use_cache=use_cache, **given)
        finally:
            hook.remove()
            self.model.train(training)
        if caches is not None:
            caches.append(output.past_key_values)
        stop = self.first_new + words * len(head.rows)  # the rows behind them are padding
        return output.logits[0, :, :stop]


@dataclass(frozen=True)
class Past:
    """Keys and values of B sequences that have been read, padded on the left to one length P.

    layers: of each layer (B, heads, P, D); mask: (B, P), 1 where an id was.
    """

    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]
    mask: torch.Tensor

    @property
    def size(self) -> int:
        """Bytes of the keys and values."""
        return sum(part.numel() * part.element_size() for pair in self.layers for part in pair)

    def to(self, device: "torch.device | str") -> "Past":
        """Return it on a device."""
        return Past([(keys.to(device), values.to(device)) for keys, values in self.layers], self.mask)

    def before(self, mask: torch.Tensor) -> dict[str, Any]:
        """Return what a model takes to read sequences behind it; mask: (B, length), theirs."""
        cache = DynamicCache()
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        return {
            "past_key_values": cache,
            "attention_mask": torch.cat([self.mask, mask], 1),
            "position_ids": self.mask.sum(1, keepdim=True) + torch.arange(mask.shape[1]),
        }


def copy_rows(model: Any) -> Rows:
    """Return the new rows of a model as they are now."""
    values = [rows.detach().float().cpu().numpy().copy() for rows in rows_of(model).values()]
    return Rows(values[0], values[1] if len(values) > 1 else None)


def load_word_model(folder: Path, rows: Rows, *, first_new: int, dtype: str | None = None) -> WordModel:
    """Load a model that knows new words; first_new is the id of the first, that is its number of tokens.

    The rows are parameters of float32 whatever the model's own number type, in which the model reads them.
    dtype: as load_model() has it.
    """
    model = load_model(folder, dtype=dtype)
    if model.config.is_encoder_decoder:
        raise UserError(f"{folder} is an encoder-decoder model; only causal ones can read new words here")
    start = text_start(model, folder)
    add_rows(
        model,
        first=first_new,
        embed=torch.from_numpy(rows.input).to(model.device),
        head=None if rows.output is None else torch.from_numpy(rows.output).to(model.device),
        bias=None if rows.bias is None else torch.from_numpy(rows.bias).to(model.device),
    )
    return WordModel(model, start=start, masked=True)
