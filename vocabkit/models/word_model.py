"""A causal language model with rows for new words beside its own, which stay as they are on disk.

Reads a Hugging Face folder; writes nothing. The rows are two small tensors, or one where the model is tied;
the large matrices are neither copied nor changed, and gradients reach the new rows alone.

    model = WordModel(folder, first_new=94_948, input_rows=rows) after = model.read([new_ids], [[5, 9]])
    # the states behind 5 and 9 tokens, logits after them before = model.read([old_ids], [[7, 12]],
    words=False)  # the same places as the old tokens reach them

The model's own code runs: the two ends are wrapped, not rewritten, so that a scaled embedding (Gemma), a cap
on the logits (Gemma-2) and whatever else stands before or behind them works as it does in the folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from vocabkit.checkpoint.folder import start_token
from vocabkit.checkpoint.record import NewRows
from vocabkit.errors import UserError
from vocabkit.models.load import load_model
from vocabkit.models.split_rows import SplitHead, rows_of


@dataclass(frozen=True)
class States:
    """What a model says at the places it was asked for, one after the other.

    hidden: (N, H), its last hidden states, which the head reads; logits: (N, tokens), over the old tokens, or
    over old and new ones.
    """

    hidden: torch.Tensor
    logits: torch.Tensor


class _Rows(nn.Module):
    """One end of a model: its own module, and rows for the ids from first_new on."""

    def __init__(self, module: nn.Module, rows: nn.Parameter, first_new: int) -> None:
        super().__init__()
        self.module, self.rows, self.first_new = module, rows, first_new
        self.words = True

    @property
    def weight(self) -> torch.Tensor:
        """The old matrix: some models ask its type or device."""
        weight = self.module.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def with_rows(self, argument: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        """Return what the module makes of its argument with the new rows for its matrix."""
        tensors = {"weight": self.rows.to(self.weight.dtype), **others}
        return functional_call(self.module, tensors, (argument,))


class _Input(_Rows):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if not self.words:
            return self.module(ids)
        is_new = ids >= self.first_new
        new = self.with_rows((ids - self.first_new).clamp(min=0))
        return torch.where(is_new[..., None], new, self.module(ids.masked_fill(is_new, 0)))


class _Output(_Rows):
    """The head. places: the (sequence, position) pairs whose states it reads; it keeps these states."""

    def __init__(
        self, module: nn.Module, rows: nn.Parameter, first_new: int, bias: torch.Tensor | None
    ) -> None:
        super().__init__(module, rows, first_new)
        self.bias_rows = bias
        self.places: tuple[torch.Tensor, torch.Tensor] | None = None
        self.hidden: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.places is not None:  # else hidden was given, see WordModel.logits()
            self.hidden = hidden[self.places]
        assert self.hidden is not None
        logits = self.module(self.hidden)[:, : self.first_new]  # the rows behind them are padding
        if self.words:
            bias = {} if self.bias_rows is None else {"bias": self.bias_rows.to(logits.dtype)}
            logits = torch.cat([logits, self.with_rows(self.hidden, **bias)], 1)
        return logits[None]


class WordModel:
    """A model that knows new words; first_new is the id of the first, that is its number of tokens.

    input_rows, output_rows: (W, D) float32; output_rows None: one tensor is both, as in tied models. bias:
    (W,) float32, where the head has one. Parameters of float32 whatever the model's own number type, in which
    the model reads them. dtype, device: as load_model() has them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        first_new: int,
        input_rows: np.ndarray,
        output_rows: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        dtype: str | None = None,
        device: str | None = None,
    ) -> None:
        self.start = start_token(folder)
        self.model: Any = load_model(folder, dtype=dtype, device=device).requires_grad_(False)
        if self.model.config.is_encoder_decoder:
            raise UserError(f"{folder} is an encoder-decoder model; only causal ones can read new words here")
        self.first_new = first_new
        embed, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        embed.padding_idx = None  # it would be an index into the new rows, and only keeps gradients from one
        self.input_rows = self._parameter(input_rows)
        self.output_rows = self.input_rows if output_rows is None else self._parameter(output_rows)
        bias_rows = None if bias is None else torch.tensor(bias, device=self.model.device)
        self._input = _Input(embed, self.input_rows, first_new)
        self._output = _Output(head, self.output_rows, first_new, bias_rows)
        self.model.set_input_embeddings(self._input)
        self.model.set_output_embeddings(self._output)

    def _parameter(self, rows: np.ndarray) -> nn.Parameter:
        return nn.Parameter(torch.tensor(rows, dtype=torch.float32, device=self.model.device))

    @property
    def rows(self) -> list[nn.Parameter]:
        """The parameters: one where one tensor is both."""
        return [self.input_rows] if self.tied else [self.input_rows, self.output_rows]

    @property
    def tied(self) -> bool:
        """Whether one tensor holds the rows of both ends."""
        return self.input_rows is self.output_rows

    @torch.no_grad()
    def use(
        self, input_rows: np.ndarray, output_rows: np.ndarray | None = None, bias: np.ndarray | None = None
    ) -> None:
        """Take other values for the rows, of the same shapes; tied models take no output_rows."""
        self.input_rows.copy_(torch.from_numpy(input_rows))
        if not self.tied and output_rows is not None:
            self.output_rows.copy_(torch.from_numpy(output_rows))
        if self._output.bias_rows is not None and bias is not None:
            self._output.bias_rows.copy_(torch.from_numpy(bias))

    def read(
        self, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]], *, words: bool = True
    ) -> States:
        """Read id sequences after a start token; return the states at places and the logits after them.

        places: for each sequence numbers of ids read so far, 0 (only the start token) to its length. words:
        whether new ids may occur and compete in the logits; False is the model as it is in its folder.
        """
        length = 1 + max(map(len, sequences))
        ids = torch.full((len(sequences), length), self.start)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, 1 : 1 + len(sequence)] = torch.tensor(sequence, dtype=ids.dtype)
            mask[row, : 1 + len(sequence)] = 1
        pairs = [(row, place) for row, several in enumerate(places) for place in several]
        at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).to(self.model.device)
        self._input.words = self._output.words = words
        self._output.places = at[:, 0], at[:, 1]
        output = self.model(
            input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device), use_cache=False
        )
        hidden = self._output.hidden
        assert hidden is not None
        self._output.hidden = None
        return States(hidden, output.logits[0])

    def logits(self, hidden: torch.Tensor, *, words: bool = True) -> torch.Tensor:
        """Return the logits after states that were read before: (N, H) → (N, tokens).

        The model reads one token for it, which costs next to nothing, so that what its own code does behind
        the head is done here too.
        """
        self._input.words = self._output.words = words
        self._output.places, self._output.hidden = None, hidden
        output = self.model(input_ids=torch.tensor([[self.start]], device=self.model.device), use_cache=False)
        self._output.hidden = None
        return output.logits[0]


class SplitReader:
    """A model with rows of its own (models/split_rows.py), read at places of sequences: WordModel's
    reading.
    """

    def __init__(self, model: Any, rows: NewRows, *, start: int) -> None:
        self.model, self.first_new, self.start, self._stop = model, rows.first, start, rows.stop

    @property
    def rows(self) -> list[nn.Parameter]:
        """Input rows of the new words, and output rows of an untied model."""
        return list(rows_of(self.model).values())

    def read(
        self, sequences: Sequence[Sequence[int]], places: Sequence[Sequence[int]], *, words: bool = True
    ) -> States:
        """Return the states at places and the logits after them, over old tokens or, with words, over all."""
        length = 1 + max(map(len, sequences))
        ids = torch.full((len(sequences), length), self.start)  # what pads a row is behind all that is asked
        for row, sequence in enumerate(sequences):
            ids[row, 1 : 1 + len(sequence)] = torch.tensor(sequence, dtype=ids.dtype)
        pairs = [(row, place) for row, several in enumerate(places) for place in several]
        at = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).to(self.model.device)
        states = self.model.base_model(input_ids=ids.to(self.model.device), use_cache=False)
        hidden = states.last_hidden_state[at[:, 0], at[:, 1]]
        return States(hidden, self.logits(hidden, words=words))

    def logits(self, hidden: torch.Tensor, *, words: bool = True) -> torch.Tensor:
        """Return the logits after states that were read before, without those of padding rows."""
        head = self.model.get_output_embeddings()
        assert isinstance(head, SplitHead)
        logits = head.real_logits(hidden, self._stop)
        softcap = getattr(self.model.config, "final_logit_softcapping", None)
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        return logits if words else logits[:, : self.first_new]
