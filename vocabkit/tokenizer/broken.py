"""Tokens that end inside a character: which of them the encoding of a writing needs.

Standard library only; reads and writes nothing.

A *writing* is every text of some characters, in any order. A token b that ends inside a character is needed
if the encoding of some text of the writing holds b. To decide that exactly, few texts are enough.

Theorem. Let b end with a proper prefix of the character c. If the encoding of a text holds b in front of the
rest of c, and m is the token in which that rest ends, then the encoding of b + rest of c + what m holds after
it begins with b. Proof. No merge crossed the borders before b and after m, so between them BPE saw the same
pairs in the same order as in these bytes alone (tokenizer/bpe.py says it of single tokens). So it is enough
to look at b + rest of c + x for each c, and for x the empty string and what follows the end of a character in
a token. How a tokenizer cuts texts before BPE does not matter: the pieces are texts of the writing too.
With `ignore_merges` a piece that is a token is not taken apart, but such a piece is whole characters.

Tokenizers of characters (SentencePiece) spell with bytes just the characters that have no token.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE


def needed_ids(
    tokens: Mapping[int, str],
    *,
    tails: Mapping[int, bytes],
    characters: Iterable[str],
    family: str,
    orders: Sequence[bpe.RankOf] = (),
) -> set[int]:
    """Return which of some broken tokens the texts of these characters need, in any order of merging.

    tokens: id → token as stored, all that there are. tails: id of a token that ends inside a character → the
    bytes of it that it has. orders: how BPE merges (vocab/plan.py: merge_orders); pairs whose parts or
    product are no token do not merge.

    >>> tokens = dict(enumerate(["á", "º", "¡", "áº", "Ġ", "Ġá"]))
    >>> ranks = bpe.rank_merges([("Ġ", "á"), ("á", "º")]).get
    >>> tails = {0: b"\\xe1", 3: b"\\xe1\\xba", 5: b"\\xe1"}
    >>> sorted(needed_ids(tokens, tails=tails, characters="ạ", family=BYTE_LEVEL_BPE, orders=[ranks]))
    [3, 5]
    """
    encoded = [char.encode("utf-8") for char in characters]
    if family != BYTE_LEVEL_BPE:
        known = set(tokens.values())
        spelled = {byte for char in encoded if char.decode() not in known for byte in char}
        return {token_id for token_id in tails if bpe.byte_fallback_value(tokens[token_id]) in spelled}
    chars_of: dict[bytes, list[bytes]] = defaultdict(list)
    for char in encoded:
        for size in range(1, len(char)):
            chars_of[char[:size]].append(char)
    names = set(tokens.values())
    follows = _what_follows_an_end(names)
    orders = [_among(names, order) for order in orders]
    return {
        token_id
        for token_id, tail in tails.items()
        if any(
            bpe.encode(text, order)[0] == tokens[token_id]
            for char in chars_of[tail]
            for text in _texts(tokens[token_id], char[len(tail) :], follows)
            for order in orders
        )
    }


def spelled_by(
    tokens: Mapping[int, str], characters: Iterable[str], *, family: str, orders: Sequence[bpe.RankOf]
) -> Iterator[set[str]]:
    """Yield for each character the tokens that spell it alone, in all orders of merging together."""
    names = set(tokens.values())
    orders = [_among(names, order) for order in orders]
    for char in characters:
        if family == BYTE_LEVEL_BPE:
            stored = bpe.byte_level_token(char.encode("utf-8"))
            yield {part for order in orders for part in bpe.encode(stored, order)}
        else:
            yield {char} if char in names else {f"<0x{byte:02X}>" for byte in char.encode("utf-8")}


def _among(names: set[str], order: bpe.RankOf) -> bpe.RankOf:
    def rank(pair: bpe.Merge) -> float | None:
        left, right = pair
        return order(pair) if left + right in names and left in names and right in names else None

    return rank


def _what_follows_an_end(names: Iterable[str]) -> dict[str, set[str]]:
    """End of a character → what tokens hold after it, both as a byte-level BPE stores them."""
    inner = {bpe.BYTE_TO_CHAR[byte] for byte in range(0x80, 0xC0)}
    found: dict[str, set[str]] = defaultdict(set)
    for name in names:
        size = next((at for at, byte in enumerate(name) if byte not in inner), len(name))
        if 0 < size < len(name):
            found[name[:size]].add(name[size:])
    return found


def _texts(token: str, rest: bytes, follows: Mapping[str, set[str]]) -> Iterable[str]:
    end = bpe.byte_level_token(rest)
    yield token + end
    for first in range(len(end)):
        for after in follows.get(end[first:], ()):
            yield token + end + after
