"""A Hugging Face folder, opened: tokenizer, settings, and the tensors with one row per token.

Reads every file but the weights whole, of these the headers alone; writes nothing.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vocabkit.checkpoint.record import EDIT_FILE, EditRecord
from vocabkit.checkpoint.shards import Checkpoint, Tensor, read_checkpoint
from vocabkit.checkpoint.torch_bin import open_weights, with_bytes
from vocabkit.checkpoint.vocab_tensors import VocabTensors, find_vocab_tensors
from vocabkit.errors import UserError
from vocabkit.files import read_json_object
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.settings import read_spm_models, required_ids
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, read_tokenizer_json

NAME_ADDED = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")


@dataclass(frozen=True)
class Folder:
    """A checkpoint folder, opened: its tokenizer, its weights by name, those of them with one row per token.

    checkpoint: a BinCheckpoint, without rows to read, where the folder has .bin files only. What only some
    ask for is read when it is asked for; each raises UserError for a file that is wrong.
    """

    path: Path
    tokenizer: TokenizerJson
    checkpoint: Checkpoint
    tensors: VocabTensors

    @cached_property
    def spm_models(self) -> dict[str, Any]:
        """File name → ModelProto of its SentencePiece files."""
        return read_spm_models(self.path)

    @cached_property
    def required(self) -> set[int]:
        """Ids that files other than tokenizer.json name; UserError if one of them is no token."""
        return required_ids(self.path, self.tokenizer, self.spm_models)

    @cached_property
    def record(self) -> EditRecord | None:
        """Its vocab_edit.json, None where its vocabulary was never edited."""
        return EditRecord.find(self.path)

    @cached_property
    def new(self) -> set[int]:
        """Ids of the tokens that the base lacks; UserError if vocab_edit.json is of another tokenizer."""
        if self.record is None:
            return set()
        if (mapped := len(self.record.new_to_old)) != (count := len(self.tokenizer.tokens)):
            path = self.path / EDIT_FILE
            raise UserError(
                f"{path} maps {mapped:,} tokens, {self.tokenizer.path} has {count:,}; the two belong to "
                f"different folders: remove {path}"
            )
        return set(self.record.new_ids)

    @property
    def matrices(self) -> dict[str, Tensor]:
        """The two-dimensional ones: "input", and "output" if it is not tied."""
        found = {"input": self.tensors.embed[0]}
        if not self.tensors.tied:
            found["output"] = next(tensor for tensor in self.tensors.head if len(tensor.shape) == 2)
        return found

    @property
    def padding(self) -> list[int]:
        """Rows without a token."""
        return [row for row in range(self.tensors.rows) if row not in self.tokenizer.tokens]

    def text(self, row: int) -> str:
        """Return the token of a row as people read it, in quotes."""
        data = self.tokenizer.token_bytes.get(row)
        return "padding" if data is None else repr(text_for_people(data))

    @contextlib.contextmanager
    def readable(self, scratch: Path) -> Iterator["Folder"]:
        """Give the folder with rows to read: itself, or with its .bin files as safetensors in scratch."""
        with with_bytes(self.checkpoint, scratch) as checkpoint:
            if checkpoint is self.checkpoint:
                yield self
                return
            embed, head = (
                [checkpoint.tensors[tensor.name] for tensor in tensors]
                for tensors in (self.tensors.embed, self.tensors.head)
            )
            yield replace(self, checkpoint=checkpoint, tensors=replace(self.tensors, embed=embed, head=head))


def open_folder(path: Path, *, to_edit: bool = False) -> Folder:
    """Open a checkpoint folder and read no weights; UserError for what is missing or does not fit together.

    to_edit: .bin files will do too, and what an edit reads besides is read now, before any work.
    """
    tokenizer = read_tokenizer_json(path)
    checkpoint = open_weights(path) if to_edit else read_checkpoint(path)
    tensors = find_vocab_tensors(checkpoint)
    highest = max(tokenizer.tokens)
    if highest >= tensors.rows:
        _refuse_without_row(tokenizer, tensors.rows)
        raise UserError(
            f"{tokenizer.path} has a token with id {highest:,}, the matrices of {path} have "
            f"{tensors.rows:,} rows; the two belong to different models: download both again"
        )
    folder = Folder(path, tokenizer, checkpoint, tensors)
    if to_edit:
        _ = folder.required, folder.record
    return folder


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


# What stands between two documents in pretraining, where that is not the end of an answer (eos_token).
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>")


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


def _refuse_without_row(tokenizer: TokenizerJson, rows: int) -> None:
    """Raise UserError where all tokens that have no row are added ones: the files belong together then."""
    without = sorted(token_id for token_id in tokenizer.tokens if token_id >= rows)
    if not set(tokenizer.added.values()) >= set(without):
        return
    folder, names = tokenizer.path.parent, [tokenizer.tokens[token_id] for token_id in without]
    more = f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
    others = [name for name in NAME_ADDED if (folder / name).is_file()]
    raise UserError(
        f"{tokenizer.path}: the added token {names[0]!r}{more} has id {without[0]:,}, but the model has "
        f"{rows:,} rows: it cannot read this token (text models keep such a one from their picture-reading "
        f"sisters); remove its entry from added_tokens of tokenizer.json"
        f"{' and wherever ' + ', '.join(others) + ' name it' if others else ''}, then run again"
    )
