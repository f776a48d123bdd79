"""The rows of new words in every vocabulary tensor of a checkpoint, by the formulas of embed_init.py.

Reads the rows of old tokens, those of the model that is extended and, for tokens that it lost to trimming,
those of the checkpoint it was trimmed out of; for `english` a dictionary; for `neighbours` and `distill` it
runs the model. Writes nothing. Memory: a block of rows and the rows that are named, but for those two the
model.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit import embed_init, text, verify
from vocabkit.checkpoint import Checkpoint, Tensor, as_float32, as_stored, read_rows, rows_as_float32
from vocabkit.distill_rows import START, Lessons, distil_rows
from vocabkit.edit import Source
from vocabkit.errors import UserError
from vocabkit.files import open_text
from vocabkit.tokenizer_json import TokenizerJson


@dataclass(frozen=True)
class Origin:
    """Where tokens and their rows are looked up: a model, and the untrimmed one it came from (or None)."""

    model: Source
    base: Source | None = None

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of each text, as the untrimmed tokenizer cuts it where there is one."""
        source = self.base or self.model
        encoder = verify.load_encoder(source.folder)
        found = encoder.encode_batch(list(texts), add_special_tokens=False)
        return [[source.tokenizer.tokens[i] for i in encoding.ids] for encoding in found]

    def rows(self, name: str, tokens: Sequence[str]) -> np.ndarray:
        """Return (len(tokens), D) float32: their rows in the tensor of this name, the model's where it has
        them.
        """
        own, lost = _ids(self.model.tokenizer, tokens), {}
        if self.base is not None and len(own) < len(tokens):
            lost = _ids(self.base.tokenizer, [token for token in tokens if token not in own])
        values = _gather(self.model.checkpoint, name, own)
        if lost and self.base is not None:
            values |= _gather(self.base.checkpoint, name, lost)
        return np.stack([values[token] for token in tokens])


def _ids(tokenizer: TokenizerJson, tokens: Iterable[str]) -> dict[str, int]:
    known = tokenizer.vocab | tokenizer.added
    return {token: known[token] for token in tokens if token in known}


def _gather(checkpoint: Checkpoint, name: str, ids: dict[str, int]) -> dict[str, np.ndarray]:
    ordered = sorted(ids.items(), key=lambda item: item[1])
    values = rows_as_float32(checkpoint.tensors[name], [token_id for _, token_id in ordered])
    return dict(zip((token for token, _ in ordered), values, strict=True))


def check_base(model: Source, base: Source) -> None:
    """Raise UserError unless the rows of both can stand beside each other: same tensors, widths and types."""
    for tensor in (*model.tensors.embed, *model.tensors.head):
        other = base.checkpoint.tensors.get(tensor.name)
        found = None if other is None else (other.dtype, other.shape[1:])
        if found != (tensor.dtype, tensor.shape[1:]):
            raise UserError(
                f"{model.folder}: {tensor.name} has rows {tensor.dtype} {tensor.shape[1:]}, in {base.folder} "
                f"{found}; -b must be the checkpoint that the model was trimmed out of"
            )
    special = {entry["content"] for entry in model.tokenizer.data["added_tokens"] if entry["special"]}
    strange = sorted(
        (model.tokenizer.vocab.keys() | special) - (base.tokenizer.vocab | base.tokenizer.added).keys()
    )
    if model.tokenizer.family != base.tokenizer.family or strange:
        raise UserError(
            f"{base.folder} lacks the token {strange[0] if strange else base.tokenizer.family!r} of "
            f"{model.folder}; -b must be the checkpoint that the model was trimmed out of"
        )


def read_dictionary(path: Path) -> dict[str, list[str]]:
    """Return Vietnamese word → English equivalents, words in NFC and lower case.

    A .jsonl file has rows {"word": "thời▁gian", "en": ["time", "period"]}; any other has lines English TAB
    Vietnamese, one pair each, as the dictionaries of WECHSEL have. UserError for a line of another shape.
    """
    found: dict[str, list[str]] = {}
    is_jsonl = ".jsonl" in path.suffixes
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            word: Any
            if is_jsonl:
                try:
                    row = json.loads(line)
                    word, equivalents = row["word"], row["en"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    word, equivalents = None, None
            else:
                english, _, word = line.strip("\r\n").partition("\t")
                equivalents = [english]
            if not isinstance(word, str) or not word or not isinstance(equivalents, list):
                raise UserError(
                    f'{path}:{number} is neither a row such as {{"word": "thời▁gian", "en": ["time"]}} nor '
                    "English TAB Vietnamese; mend or remove the line"
                )
            if not all(isinstance(equivalent, str) and equivalent.strip() for equivalent in equivalents):
                raise UserError(f"{path}:{number} has an equivalent that is no word; mend or remove the line")
            known = found.setdefault(text.nfc(word).replace("▁", " ").strip().lower(), [])
            known += [e.strip() for e in equivalents if e.strip() not in known]
    if not found:
        raise UserError(f"{path} holds no pair of words; give another --dictionary")
    return found


def word_tokens(tokenizer: TokenizerJson, encoder: Any) -> list[str]:
    """Return the old tokens that are one whole word after a space, Vietnamese or English, and can be
    produced.
    """
    contents: dict[str, int] = {}
    for token_id, data in tokenizer.token_bytes.items():
        content = data.decode("utf-8", errors="ignore").replace("▁", " ")
        word = content[1:]
        if content[:1] == " " and (text.is_vietnamese_syllable(word) or text.is_english_word(word)):
            contents[content] = token_id
    found = encoder.encode_batch(list(contents), add_special_tokens=False)
    return [
        tokenizer.tokens[token_id]
        for token_id, encoding in zip(contents.values(), found, strict=True)
        if encoding.ids == [token_id]
    ]


def make_rows(
    origin: Origin,
    contents: Sequence[str],
    *,
    init: str,
    seed: int = 0,
    dictionary: dict[str, list[str]] | None = None,
    lessons: Lessons | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensor → (words, row_bytes) uint8 in its own type, and what is to be recorded of how it was
    made.

    contents: " thời gian", the new tokens' texts. A bias of the head gets the mean of the old tokens'
    entries, whatever the init; zeros gets 0. lessons: for distill, what it learns from. Computed in float32.
    """
    if init == "distill" and lessons is None:
        raise UserError("distill learns from texts: give Vietnamese files or folders with --contexts")
    pieces = origin.pieces(contents)
    equivalents: list[list[list[str]]] = []
    near: list[list[str]] = []
    facts: dict[str, Any] = {"name": init}
    if init == "random":
        facts["seed"] = seed
    if init == "english":
        listed = [(dictionary or {}).get(content[1:].lower(), []) for content in contents]
        cut = iter(origin.pieces([f" {word}" for words in listed for word in words]))
        equivalents = [[next(cut) for _ in words] for words in listed]
        facts["without_equivalent"] = sum(not words for words in listed)
        facts["english"] = listed
    if init == "neighbours":
        near = _neighbours(origin.model, contents)
        facts["neighbours"] = near
    named = [*pieces, *near, *(words for several in equivalents for words in several)]
    tokens = list(dict.fromkeys(token for words in named for token in words))
    position = {token: at for at, token in enumerate(tokens)}

    def place(words: Sequence[Sequence[str]]) -> list[list[int]]:
        return [[position[token] for token in word] for word in words]

    made: dict[str, np.ndarray] = {}
    stats: dict[str, embed_init.RowStats] = {}
    sides = [("input", tensor) for tensor in origin.model.tensors.embed]
    sides += [("output", tensor) for tensor in origin.model.tensors.head]
    for side, tensor in sides:
        rows = origin.rows(tensor.name, tokens)
        if len(tensor.shape) == 1:
            made[tensor.name] = embed_init.mean(rows.reshape(-1, 1), place(pieces)) * (init != "zeros")
        else:
            stats[tensor.name] = stats_of(tensor, list(origin.model.tokenizer.tokens))
            made[tensor.name] = embed_init.new_rows(
                START if lessons else init,
                side=side,
                rows=rows,
                pieces=place(pieces),
                stats=stats[tensor.name],
                seed=seed,
                equivalents=[place(words) for words in equivalents],
                near=place(near),
            )
    if lessons:
        made, learned = distil_rows(origin.model, made, stats, lessons, seed=seed)
        facts |= learned
    return {tensor.name: as_stored(made[tensor.name], tensor) for _, tensor in sides}, facts


def stats_of(tensor: Tensor, ids: Sequence[int]) -> embed_init.RowStats:
    """Return the statistics of a matrix's rows at these ascending ids, read a block at a time."""
    return embed_init.row_stats(as_float32(block, tensor) for block in read_rows(tensor, ids))


def _neighbours(model: Source, contents: Sequence[str]) -> list[list[str]]:
    """Return for each word the old one-token words whose last hidden states are nearest to its own."""
    from vocabkit.measure import last_hidden_states

    encoder = verify.load_encoder(model.folder)
    anchors = word_tokens(model.tokenizer, encoder)
    if not anchors:
        raise UserError(f"{model.tokenizer.path} has no token that is a whole word; choose another --init")
    ids = _ids(model.tokenizer, anchors)
    own = [found.ids for found in encoder.encode_batch(list(contents), add_special_tokens=False)]
    hidden = last_hidden_states(model.folder, [*own, *([ids[token]] for token in anchors)])
    chosen = embed_init.nearest(hidden[: len(own)], hidden[len(own) :])
    return [[anchors[at] for at in row] for row in chosen]
