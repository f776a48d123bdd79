"""Counts of one tokenizer's tokens → estimated counts of another's, for a tokenizer that counted no corpus.

Reads counts files and the tokenizer.json files of two folders; writes nothing. Both tokenizers cut the same
text, so what the one counted bounds what the other would have:

- Each counted token is spelled with tokens of the new tokenizer, and they get its count. That is too low for
  a token that spans several counted ones.
- Each new token is spelled with counted tokens. It came no oftener than the rarest of them, as far as texts
  are cut this way: too high where the pieces are common and the whole is not.

The larger of the two is taken: a token too many costs a row, one too few costs text. data/README.md measures
what this is worth where the true counts are known.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vocabkit.bpe import byte_level_token
from vocabkit.counts_file import read_counts
from vocabkit.errors import UserError
from vocabkit.files import sha256_file
from vocabkit.keep import fingerprint
from vocabkit.tokenizer_json import BYTE_LEVEL_BPE, TokenizerJson

Spell = Callable[[bytes], list[int]]


def counts_made_earlier(
    path: Path, counted: TokenizerJson, target: TokenizerJson
) -> tuple[dict[int, int], dict[str, Any]]:
    """Return id of target → count, and what a summary should say of its origin, from a file that counts the
    ids of counted.

    They are carried over unless both are one file. Raises UserError for counts of a
    third tokenizer.
    """
    counts, origin = read_counts(path, tokenizer_sha256=sha256_file(counted.path))
    about = {"counts_sha256": sha256_file(path), **origin}
    if counted.path == target.path:
        return counts, about
    unknown = max(counts.keys() - counted.tokens.keys(), default=None)
    if unknown is not None:
        raise UserError(
            f"{path} counts the id {unknown}, {counted.path} has no such token (they end at "
            f"{max(counted.tokens)}); give the model that was counted with: --counts_of"
        )
    about["counts_of"] = fingerprint(counted.vocab, counted.merges)
    return carry_counts(counts, counted, target), about


def speller(tokenizer: TokenizerJson) -> Spell:
    """Return the function bytes → ids of the tokenizer's model alone: no normalizer, no cutting, no added
    tokens.

    Of tokenizers that hold text, bytes that are no whole characters give no ids.
    """
    from vocabkit.verify import load_encoder

    model: Any = load_encoder(tokenizer.path.parent).model

    def spell(token_bytes: bytes) -> list[int]:
        if tokenizer.family == BYTE_LEVEL_BPE:
            token = byte_level_token(token_bytes)
        else:
            try:
                token = token_bytes.decode("utf-8").replace(" ", "▁")
            except UnicodeDecodeError:
                return []
        return [piece.id for piece in model.tokenize(token)]

    return spell


def carry_counts(counts: Mapping[int, int], source: TokenizerJson, target: TokenizerJson) -> dict[int, int]:
    """Return id of target → estimated count, from the counts of source's ids; added tokens have none."""
    carried: Counter[int] = Counter()
    spell_new, spell_counted = speller(target), speller(source)
    for token_id, token_bytes in _own(source):
        count = counts.get(token_id, 0)
        if count:
            for piece in spell_new(token_bytes):
                carried[piece] += count
    for token_id, token_bytes in _own(target):
        pieces = spell_counted(token_bytes)
        if pieces:
            bound = min(counts.get(piece, 0) for piece in pieces)
            carried[token_id] = max(carried[token_id], bound)
    added = set(target.added.values())
    return {token_id: count for token_id, count in sorted(carried.items()) if count and token_id not in added}


def _own(tokenizer: TokenizerJson) -> Iterator[tuple[int, bytes]]:
    """Yield the tokens of the model itself: an added token is no text that a corpus holds."""
    added = set(tokenizer.added.values())
    yield from ((i, data) for i, data in tokenizer.token_bytes.items() if i not in added)
