"""The rows of new tokens in every vocabulary tensor of a checkpoint: by formulas, or distilled.

Reads the rows of old tokens, those of the model that is extended and, for tokens that it lost to trimming,
those of the checkpoint it was trimmed out of; for `english` a dictionary; for `neighbours` and `distill` it
runs the model. Writes nothing. Memory: a block of rows and the rows that are named, but for those two the
model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vocabkit.checkpoint.folder import Folder
from vocabkit.checkpoint.numbers import RowStats, as_float32, as_stored, rows_as_float32, stats_of
from vocabkit.checkpoint.shards import Checkpoint
from vocabkit.errors import UserError
from vocabkit.rows import formulas
from vocabkit.rows.contexts import TaughtContexts
from vocabkit.rows.names import START
from vocabkit.text.languages import is_english_word, is_vietnamese_syllable
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import TokenizerJson

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from vocabkit.rows.leak import Guarded

BLOCK = 8192  # hidden states of old words that are compared at a time


@dataclass(frozen=True)
class Origin:
    """Where tokens and their rows are looked up: a model, and the untrimmed one it came from (or None)."""

    model: Folder
    base: Folder | None = None

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of each text, as the untrimmed tokenizer cuts it where there is one."""
        source = self.base or self.model
        encoder = load_encoder(source.path)
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


def check_base(model: Folder, base: Folder) -> None:
    """Raise UserError unless the rows of both can stand beside each other: same tensors, widths and types."""
    for tensor in (*model.tensors.embed, *model.tensors.head):
        other = base.checkpoint.tensors.get(tensor.name)
        found = None if other is None else (other.dtype, other.shape[1:])
        if found != (tensor.dtype, tensor.shape[1:]):
            raise UserError(
                f"{model.path}: {tensor.name} has rows {tensor.dtype} {tensor.shape[1:]}, in {base.path} "
                f"{found}; -b must be the checkpoint that the model was trimmed out of"
            )
    special = {entry["content"] for entry in model.tokenizer.data["added_tokens"] if entry["special"]}
    strange = sorted(
        (model.tokenizer.vocab.keys() | special) - (base.tokenizer.vocab | base.tokenizer.added).keys()
    )
    if model.tokenizer.family != base.tokenizer.family or strange:
        raise UserError(
            f"{base.path} lacks the token {strange[0] if strange else base.tokenizer.family!r} of "
            f"{model.path}; -b must be the checkpoint that the model was trimmed out of"
        )


def make_rows(
    origin: Origin,
    contents: Sequence[str],
    *,
    init: str,
    seed: int = 0,
    dictionary: dict[str, list[str]] | None = None,
    merged: Mapping[str, list[str]] | None = None,
    taught: TaughtContexts | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensor → (words, row_bytes) uint8 in its own type, and what is to be recorded of how it was
    made.

    contents: " thời gian", the new words' texts. merged: text → old tokens of new syllables, whose rows come
    first. A bias of the head gets the mean of the old tokens' entries, whatever the init; zeros gets 0.
    taught: for distill, what it learns from. Computed in float32.
    """
    if init == "distill" and taught is None:
        raise UserError("distill learns from texts: give Vietnamese files or folders with --contexts")
    pieces = [*(merged or {}).values(), *origin.pieces(contents)]
    contents = [*(merged or {}), *contents]
    equivalents: list[list[list[str]]] = []
    near: list[list[str]] = []
    facts: dict[str, Any] = {"name": init}
    if init == "random":
        facts["seed"] = seed
    if init == "english":
        listed = [(dictionary or {}).get(content.strip().lower(), []) for content in contents]
        cut = iter(origin.pieces([f" {word}" for words in listed for word in words]))
        equivalents = [[next(cut) for _ in words] for words in listed]
        facts["without_equivalent"] = sum(not words for words in listed)
        facts["english"] = listed
    if init == "neighbours":
        near = _neighbours(origin.model, contents, merged or {})
        facts["neighbours"] = near
    named = [*pieces, *near, *(words for several in equivalents for words in several)]
    tokens = list(dict.fromkeys(token for words in named for token in words))
    position = {token: at for at, token in enumerate(tokens)}

    def place(words: Sequence[Sequence[str]]) -> list[list[int]]:
        return [[position[token] for token in word] for word in words]

    made: dict[str, np.ndarray] = {}
    stats: dict[str, RowStats] = {}
    sides = [("input", tensor) for tensor in origin.model.tensors.embed]
    sides += [("output", tensor) for tensor in origin.model.tensors.head]
    for side, tensor in sides:
        rows = origin.rows(tensor.name, tokens)
        if len(tensor.shape) == 1:
            made[tensor.name] = formulas.mean(rows.reshape(-1, 1), place(pieces)) * (init != "zeros")
        else:
            stats[tensor.name] = stats_of(tensor, list(origin.model.tokenizer.tokens))
            made[tensor.name] = formulas.rows_by_formula(
                START if taught else init,
                side=side,
                rows=rows,
                pieces=place(pieces),
                stats=stats[tensor.name],
                seed=seed,
                equivalents=[place(words) for words in equivalents],
                near=place(near),
            )
    if taught:
        made, learned = _distilled(origin.model, made, stats, taught, contents=contents, seed=seed)
        facts |= learned
    return {tensor.name: as_stored(made[tensor.name], tensor) for _, tensor in sides}, facts


def _distilled(
    model: Folder,
    rows: Mapping[str, np.ndarray],
    stats: Mapping[str, RowStats],
    taught: TaughtContexts,
    *,
    contents: Sequence[str],
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensor → (W, D) float32 after distilling, and what is to be recorded of it.

    rows: what they are before, (W, 1) for a bias of the head; stats: of the old rows of every matrix. Raises
    UserError for rows that take too much where they do not belong even as they were before.
    """
    from vocabkit.models.load import silence
    from vocabkit.models.word_model import rows_of_tensors
    from vocabkit.rows.distill import distill
    from vocabkit.rows.elsewhere import find_other_texts

    silence()
    embed, head = model.tensors.embed, [tensor for tensor in model.tensors.head if len(tensor.shape) > 1]
    # Ids of the extended tokenizer → rows of the model: its holes are closed there, and new ids follow.
    old = list(model.tokenizer.tokens)
    first_new = old[-1] + 1
    contexts = [
        replace(
            context,
            new_ids=tuple(i - len(old) + first_new if i >= len(old) else old[i] for i in context.new_ids),
        )
        for context in taught.contexts
    ]
    done, facts, guarded = distill(
        model.path,
        contexts,
        find_other_texts(
            model.path,
            load_encoder(model.path),
            taught.encoder,
            first_new=len(old),
            corpora=taught.sources,
        ),
        rows_of_tensors(model.tensors, rows),
        stats=[stats[tensor.name] for tensor in (embed[0], *head[:1])],
        first_new=first_new,
        state_file=taught.state_file,
        seed=seed,
    )
    _refuse_broken(model, guarded, contents)
    made = dict(rows) | {tensor.name: done.input for tensor in embed}
    if done.output is not None:
        made[head[0].name] = done.output
    return made, {
        "start": START,
        "seed": seed,
        "texts": [{"name": Path(source.name).name, "size": source.size} for source in taught.sources],
        "contexts": taught.counts,
        "without_contexts": taught.counts.count(0),
        **facts,
        **guarded.as_json(),
    }


def measure_rows(
    model: Folder, stored: Mapping[str, np.ndarray], contents: Sequence[str], encoder: "Tokenizer"
) -> dict[str, Any]:
    """Print and return what new rows take where they do not belong, whatever way they were made.

    stored: tensor → (W, row_bytes) uint8; contents: texts of the new tokens, which encoder knows.
    Raises UserError where that is too much.
    """
    from vocabkit.models.load import silence
    from vocabkit.models.word_model import load_word_model, rows_of_tensors
    from vocabkit.rows.elsewhere import find_other_texts
    from vocabkit.rows.leak import guard

    silence()
    values = {name: as_float32(raw, model.checkpoint.tensors[name]) for name, raw in stored.items()}
    rows = rows_of_tensors(model.tensors, values)
    reader = load_word_model(model.path, rows, first_new=max(model.tokenizer.tokens) + 1)
    n_tokens = len(model.tokenizer.tokens)
    other = find_other_texts(model.path, load_encoder(model.path), encoder, first_new=n_tokens)
    guarded = guard(reader, rows, other.test, norms=())
    _refuse_broken(model, guarded, contents)
    return guarded.as_json()


def _refuse_broken(model: Folder, guarded: "Guarded", contents: Sequence[str]) -> None:
    """Print what was measured; UserError where new tokens take too much."""
    guarded.show(contents)
    if guarded.broken:
        raise UserError(
            f"{model.path}: new tokens take too much where they do not belong: {guarded.broken[0]}; take "
            "fewer words (--num_tokens), or --init distill"
        )


def _neighbours(model: Folder, contents: Sequence[str], merged: Mapping[str, list[str]]) -> list[list[str]]:
    """Return for each new token the old one-token words whose last hidden states are nearest to its own."""
    from vocabkit.models.load import last_hidden_states

    encoder = load_encoder(model.path)
    anchors = word_tokens(model.tokenizer, encoder)
    if not anchors:
        raise UserError(f"{model.tokenizer.path} has no token that is a whole word; choose another --init")
    ids = _ids(model.tokenizer, anchors)
    words = encoder.encode_batch(list(contents[len(merged) :]), add_special_tokens=False)
    own = [[model.tokenizer.vocab[token] for token in tokens] for tokens in merged.values()]
    own += [found.ids for found in words]
    hidden = last_hidden_states(model.path, [*own, *([ids[token]] for token in anchors)])
    words_of, known = hidden[: len(own)], hidden[len(own) :]
    blocks = (
        (np.arange(at, min(at + BLOCK, len(known))), known[at : at + BLOCK])
        for at in range(0, len(known), BLOCK)
    )
    chosen, _ = formulas.nearest(words_of, blocks)
    return [[anchors[at] for at in row] for row in chosen]


def word_tokens(tokenizer: TokenizerJson, encoder: "Tokenizer") -> list[str]:
    """Return the old tokens that are one whole word after a space, Vietnamese or English, and can be
    produced.
    """
    contents: dict[str, int] = {}
    for token_id, data in tokenizer.token_bytes.items():
        content = data.decode("utf-8", errors="ignore").replace("▁", " ")
        word = content[1:]
        if content[:1] == " " and (is_vietnamese_syllable(word) or is_english_word(word)):
            contents[content] = token_id
    found = encoder.encode_batch(list(contents), add_special_tokens=False)
    return [
        tokenizer.tokens[token_id]
        for token_id, encoding in zip(contents.values(), found, strict=True)
        if encoding.ids == [token_id]
    ]


def _ids(tokenizer: TokenizerJson, tokens: Iterable[str]) -> dict[str, int]:
    known = tokenizer.vocab | tokenizer.added
    return {token: known[token] for token in tokens if token in known}


def _gather(checkpoint: Checkpoint, name: str, ids: dict[str, int]) -> dict[str, np.ndarray]:
    ordered = sorted(ids.items(), key=lambda item: item[1])
    values = rows_as_float32(checkpoint.tensors[name], [token_id for _, token_id in ordered])
    return dict(zip((token for token, _ in ordered), values, strict=True))
