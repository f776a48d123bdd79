"""Counts of one tokenizer's tokens → estimated counts of another's, for a tokenizer that counted no corpus.

Reads counts files and the tokenizer.json files of two folders; writes nothing. Both tokenizers cut the same
text, so what the one counted says something about the other:

- Each counted token is spelled with tokens of the new tokenizer, and they get its count. That is all there is
  to know of pieces that the counted tokenizer swallows, and too low for a token that spans several counted
  ones.
- Each new token is spelled with counted tokens. It came at most as often as the rarest of them; if they
  followed each other by chance it would come N Π (count / N) times. The truth lies between, in logarithms
  about a quarter of the way from the first to the second: carrying Qwen2.5's counts to Llama-3.2 and back,
  where the true ones are known, the best shares are 0.31 and 0.24 for two pieces, 0.17 and 0.15 for more.

The larger of the two is taken. data/README.md measures what lists made so are worth.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit.counts.files import read_counts
from vocabkit.errors import UserError
from vocabkit.files import sha256_file
from vocabkit.tokenizer.encoder import speller
from vocabkit.tokenizer.tokenizer_json import TokenizerJson


def counts_made_earlier(
    path: Path, counted: TokenizerJson, target: TokenizerJson
) -> tuple[dict[int, int], dict[str, Any]]:
    """Return id of target → count, and what a summary should say of its origin, from a file that counts the
    ids of counted.

    They are carried over unless both are one file. Raises UserError for counts of a third tokenizer.
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
    about["counts_of"] = counted.fingerprint()
    return carry_counts(counts, counted, target), about


def carry_counts(counts: Mapping[int, int], source: TokenizerJson, target: TokenizerJson) -> dict[int, int]:
    """Return id of target → estimated count, from the counts of source's ids; added tokens have none."""
    carried: Counter[int] = Counter()
    spell_new, spell_counted = speller(target), speller(source)
    for token_id, token_bytes in _own(source):
        count = counts.get(token_id, 0)
        if count:
            for piece in spell_new(token_bytes):
                carried[piece] += count
    total = sum(counts.values())
    for token_id, token_bytes in _own(target):
        pieces = [counts.get(piece, 0) for piece in spell_counted(token_bytes)]
        carried[token_id] = max(carried[token_id], joined_count(pieces, total=total))
    added = set(target.added.values())
    return {token_id: count for token_id, count in sorted(carried.items()) if count and token_id not in added}


def joined_count(pieces: Sequence[int], *, total: int) -> int:
    """Return the estimated count of a token from the counts of its pieces; at least 1 if all were seen.

    It is ⁴√(rarest³ · chance), in whole numbers, so that lists are the same bytes everywhere.

    >>> [joined_count(pieces, total=1000) for pieces in ([700], [700, 16], [700, 0])]
    [700, 14, 0]
    """
    rarest = min(pieces, default=0)
    if not rarest or len(pieces) == 1:
        return rarest
    chance_scaled = rarest**3 * math.prod(pieces) // total ** (len(pieces) - 1)
    return max(1, math.isqrt(math.isqrt(chance_scaled)))


def _own(tokenizer: TokenizerJson) -> Iterator[tuple[int, bytes]]:
    """Yield the tokens of the model itself: an added token is no text that a corpus holds."""
    added = set(tokenizer.added.values())
    yield from ((i, data) for i, data in tokenizer.token_bytes.items() if i not in added)
