"""A Hugging Face folder, opened: tokenizer, settings, and the tensors with one row per token.

Reads every file but the weights whole, of these the headers alone; writes nothing.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vocabkit.checkpoint.record import EDIT_FILE, EDIT_FORMAT
from vocabkit.checkpoint.shards import Checkpoint, Tensor, read_checkpoint
from vocabkit.checkpoint.torch_bin import open_weights
from vocabkit.checkpoint.vocab_tensors import VocabTensors, find_vocab_tensors
from vocabkit.errors import UserError
from vocabkit.files import read_json_object, read_versioned
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.settings import read_spm_models, required_ids
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, read_tokenizer_json


@dataclass(frozen=True)
class Source:
    """A checkpoint folder, read and checked, before anything is decided.

    checkpoint: a BinCheckpoint, without rows to read, where the folder has .bin files only.
    """

    folder: Path
    tokenizer: TokenizerJson
    spm_models: dict[str, Any]
    checkpoint: Checkpoint
    tensors: VocabTensors
    required: set[int]

    def with_checkpoint(self, checkpoint: Checkpoint) -> "Source":
        """Return the same with the same tensors in other files."""
        embed, head = (
            [checkpoint.tensors[tensor.name] for tensor in tensors]
            for tensors in (self.tensors.embed, self.tensors.head)
        )
        tensors = replace(self.tensors, embed=embed, head=head)
        return replace(self, checkpoint=checkpoint, tensors=tensors)


def open_source(folder: Path) -> Source:
    """Read all that trimming needs of a folder, but no weights; UserError for what does not fit together."""
    tokenizer = read_tokenizer_json(folder)
    config = read_json_object(folder / "config.json")
    checkpoint = open_weights(folder)
    tensors = find_vocab_tensors(checkpoint, config)
    highest = max(tokenizer.tokens)
    if highest >= tensors.rows:
        raise UserError(
            f"{tokenizer.path} has a token with id {highest:,}, the matrices of {folder} have "
            f"{tensors.rows:,} rows; the two belong to different models: download both again"
        )
    spm_models = read_spm_models(folder)
    required = required_ids(folder, tokenizer, spm_models)
    return Source(folder, tokenizer, spm_models, checkpoint, tensors, required)


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Keep the cycle collector off: a million small objects live until the end, and looking through them
    again and again took a quarter of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def start_token(folder: Path) -> int:
    """Return the id that a text begins with: decoder start, beginning, or else end of text; UserError if
    none.
    """
    for name in ("config.json", "generation_config.json"):
        settings = read_json_object(folder / name, missing_ok=True)
        for part in (settings, settings.get("text_config") or {}):
            for key in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
                value = part.get(key)
                value = value[0] if isinstance(value, list) and value else value
                if isinstance(value, int) and value >= 0:
                    return value
    raise UserError(
        f"{folder / 'config.json'} names no bos_token_id or eos_token_id; add one to measure the model"
    )


@dataclass(frozen=True)
class Opened:
    """A folder, its matrices by name (input; output if not tied), vocab_edit.json, ids the base lacks."""

    folder: Path
    tokenizer: TokenizerJson
    tensors: VocabTensors
    matrices: dict[str, Tensor]
    edit: dict[str, Any] | None
    new: set[int]

    @property
    def padding(self) -> list[int]:
        """Rows without a token."""
        return [row for row in range(self.tensors.rows) if row not in self.tokenizer.tokens]

    def text(self, row: int) -> str:
        """Return the token of a row as people read it, in quotes."""
        data = self.tokenizer.token_bytes.get(row)
        return "padding" if data is None else repr(text_for_people(data))


def open_folder(folder: Path) -> Opened:
    """Open a folder, read no row; UserError where tokenizer, vocab_edit.json and matrices disagree."""
    tokenizer = read_tokenizer_json(folder)
    tensors = find_vocab_tensors(read_checkpoint(folder), read_json_object(folder / "config.json"))
    highest, count = max(tokenizer.tokens), len(tokenizer.tokens)
    if highest >= tensors.rows:
        raise UserError(
            f"{tokenizer.path} has a token with id {highest:,}, the matrices of {folder} have "
            f"{tensors.rows:,} rows; the two belong to different models: download both again"
        )
    path, edit, new_to_old = folder / EDIT_FILE, None, []
    if path.is_file():
        edit = read_versioned(path, format=EDIT_FORMAT[0], version=EDIT_FORMAT[1])
        new_to_old = edit["new_to_old"]
        if len(new_to_old) != count:
            raise UserError(
                f"{path} maps {len(new_to_old):,} tokens, {tokenizer.path} has {count:,}; the two belong to "
                f"different folders: remove {path}"
            )
    matrices = {"input": tensors.embed[0]}
    if not tensors.tied:
        matrices["output"] = next(tensor for tensor in tensors.head if len(tensor.shape) == 2)
    new = {new for new, old in enumerate(new_to_old) if old is None}
    return Opened(folder, tokenizer, tensors, matrices, edit, new)
