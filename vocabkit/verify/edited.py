"""An edited folder beside its base, opened once for all checks, and what the checks ask of the two.

Reads both folders and vocab_edit.json; writes nothing.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocabkit.checkpoint.record import EDIT_FILE, EditRecord
from vocabkit.checkpoint.shards import Checkpoint, read_checkpoint
from vocabkit.checkpoint.vocab_tensors import VocabTensors, find_vocab_tensors
from vocabkit.errors import UserError
from vocabkit.files import sha256_file
from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, read_tokenizer_json

if TYPE_CHECKING:
    import tokenizers


@dataclass(frozen=True)
class Edited:
    """An edited folder beside its base, opened once for all checks."""

    base: Path
    out: Path
    record: EditRecord
    base_tokenizer: TokenizerJson
    tokenizer: TokenizerJson
    opened_base: Checkpoint | None = None  # the base's weights where they are open already, or not in base

    @functools.cached_property
    def base_checkpoint(self) -> Checkpoint:
        """The base's weights; UserError if they are damaged."""
        return self.opened_base or read_checkpoint(self.base)

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """The edited weights; UserError if they are damaged."""
        return read_checkpoint(self.out)

    @functools.cached_property
    def base_tensors(self) -> VocabTensors:
        """The base's tensors with one row per token; UserError if there are none."""
        return find_vocab_tensors(self.base_checkpoint)

    @functools.cached_property
    def tensors(self) -> VocabTensors:
        """The edited tensors with one row per token; UserError if there are none."""
        return find_vocab_tensors(self.checkpoint)

    @functools.cached_property
    def new_to_old(self) -> list[int | None]:
        """The old id of each new one, None for a token that the base does not have."""
        return self.record.new_to_old

    @functools.cached_property
    def old_to_new(self) -> dict[int, int]:
        """Old id → new id, for the tokens that both have."""
        return {old: new for new, old in enumerate(self.new_to_old) if old is not None}

    @functools.cached_property
    def added(self) -> dict[int, str]:
        """Id → text of the tokens that the base does not have, as vocab_edit.json names them: first what BPE
        makes itself, then added tokens.
        """
        ids = self.record.new_ids
        words, syllables = self.record.words or [], self.record.syllables or []
        if len(words) + len(syllables) != len(ids):
            raise UserError(
                f"{self.out / EDIT_FILE} names {len(words)} words and {len(syllables)} syllables, but "
                f"{len(ids)} tokens are new; extend the base again"
            )
        texts = [row["syllable"] for row in syllables] + [" " + word.replace("▁", " ") for word in words]
        return dict(zip(ids, texts, strict=True))

    @functools.cached_property
    def merged(self) -> dict[int, list[int]]:
        """Id → the old ids that it replaces, as this folder numbers them, of what new merges make."""
        replaces = (self.record.replaces or [])[: len(self.record.syllables or [])]
        return {
            new: [self.old_to_new[old] for old in olds]
            for new, olds in zip(list(self.added)[: len(replaces)], replaces, strict=True)
        }

    @functools.cached_property
    def words(self) -> dict[int, str]:
        """Id → text of the new added tokens."""
        return {new: text for new, text in self.added.items() if new not in self.merged}

    @functools.cached_property
    def words_encoder(self) -> "tuple[tokenizers.Tokenizer, list[int]]":
        """The base's tokenizer with the new words alone, and its ids → the edited folder's."""
        encoder = extended(self.base_tokenizer, list(self.words.values()))
        return encoder, [*self.old_to_new.values(), *self.words]

    def with_words(self, text: str) -> list[int]:
        """Return what the base's tokenizer would make of a text with the new words alone, in new ids."""
        encoder, ids = self.words_encoder
        return [ids[token_id] for token_id in encoder.encode(text, add_special_tokens=False).ids]

    @functools.cached_property
    def base_encoder(self) -> "tokenizers.Tokenizer":
        """The base's tokenizer as the tokenizers library runs it."""
        return load_encoder(self.base)

    @functools.cached_property
    def encoder(self) -> "tokenizers.Tokenizer":
        """The edited tokenizer as the tokenizers library runs it."""
        return load_encoder(self.out)


def open_edited(base: Path, out: Path, *, base_tokenizer: TokenizerJson | None = None) -> Edited:
    """Open an edited folder and its base; UserError if vocab_edit.json is missing or names another base.

    base_tokenizer: the base's tokenizer.json, where it has been read already. Weights are opened by the first
    check that needs them.
    """
    path = out / EDIT_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing; -m must be a folder that this toolkit wrote, -b the one it came from"
        )
    record = EditRecord.read(out)
    base_tokenizer = base_tokenizer or read_tokenizer_json(base)
    found, wanted = sha256_file(base_tokenizer.path), record.base_tokenizer_sha256
    if found != wanted:
        raise UserError(
            f"{base / 'tokenizer.json'} has sha256 {found[:12]}…, {path} was made from {wanted[:12]}…; "
            f"give that base: -b {record.base_model}"
        )
    return Edited(base, out, record, base_tokenizer, read_tokenizer_json(out))
