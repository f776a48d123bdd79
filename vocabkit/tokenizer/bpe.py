"""Byte-pair encoding, and why a vocabulary can be cut out of it exactly.

Standard library only; reads and writes nothing.

BPE starts from the atoms of a word (characters, or bytes written as characters) and, again and again, joins
the adjacent pair whose merge has the lowest rank (the leftmost of equals), until no adjacent pair has a
merge.

Derivation. Encoding a token's own string performs some merges; the parts and products of these merges are
the token's derivation. Where the token ends up in a longer word, exactly these merges made it: no merge
crossed its borders (else it would not be there), so inside them the procedure saw the same pairs in the same
order.

Theorem. Let the kept tokens S hold every atom and be closed: with a token, S holds its derivation. Keep, in
the old order, the merges whose two parts and product are all in S. Then every text whose old encoding uses
only tokens of S has the same encoding in the new tokenizer.
Proof. Follow the old procedure on a word of
that text. Each merge it performs lies inside a token of the result, so it belongs to a derivation, so its
parts and product are in S and the new tokenizer has it. Each merge that the new tokenizer could perform
instead is an old merge too, and the old procedure preferred its own. So step by step both do the same, and
both stop together. With `ignore_merges` a word that is a token is not taken apart at all: if that token is
in S the shortcut gives it in both, and no word gains a shortcut.

Continuing. Append new merges after all old ones, each of two tokens, old or new before it, and each with a
product that is no old token. Then **the new encoding of every word is the old one with neighbours joined**:
undo the new tokens and it is the old encoding. In particular a word in whose old encoding no pair of a new
merge stands encodes as before.
Proof. As long as an old merge is possible it has the lower rank, so the procedure does what the old one did,
until none is: the parts are then the old encoding. A new merge leaves the other pairs as they are, and a pair
with its product has no old merge, since that is no old token; so no old merge becomes possible again.
Where a word is itself a token (`ignore_merges`) it is not taken apart. Old tokens: as before. A new one: the
merges make it out of its own string as well, if its derivation ends in it, which is checked for each.
SentencePiece's order (a score for each piece, any two parts that spell it) has one more merge to think of: a
new token and a neighbour might spell an old piece, which would then go first. By the derivation above, its
own string would then be encoded as other parts than itself; a piece of which this is so is refused where it
begins or ends with a new token. And a new piece is made of no other two parts than those of its merge: both
would be the encoding of its string.

Texts that trimming does not cover still decode to themselves: they are spelled with smaller kept pieces, in
the worst case with bytes.

>>> ranks = rank_merges([("h", "o"), ("ho", "c"), ("b", "o")])
>>> derivation("hoc", ranks.get)
[('h', 'o'), ('ho', 'c')]
>>> sorted(closure({"hoc"}, ranks.get))
['c', 'h', 'ho', 'hoc', 'o']
"""

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

Merge = tuple[str, str]
# Gives the rank of an adjacent pair, lowest first, or None where the pair has no merge.
RankOf = Callable[[Merge], float | None]

NEVER = math.inf  # the rank of a pair that has no merge


def _byte_to_char() -> dict[int, str]:
    """GPT-2's alphabet: the 188 printable Latin-1 bytes stand for themselves, the others get U+0100, U+0101 …

    Source: encoder.py of openai/gpt-2, function bytes_to_unicode.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_TO_CHAR = _byte_to_char()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}


def byte_level_bytes(token: str) -> bytes:
    """Return the bytes of a byte-level BPE token; KeyError for a character outside that alphabet.

    >>> byte_level_bytes("ĠViá»ĩt").decode()
    ' Việt'
    """
    return bytes(map(CHAR_TO_BYTE.__getitem__, token))


def byte_level_token(data: bytes) -> str:
    """Return the token that a byte-level BPE stores for these bytes: the inverse of byte_level_bytes."""
    return "".join(BYTE_TO_CHAR[byte] for byte in data)


def byte_fallback_value(token: str) -> int | None:
    """Return the byte of a SentencePiece byte token, None for any other token.

    >>> byte_fallback_value("<0xE4>"), byte_fallback_value("E4")
    (228, None)
    """
    digits = token[3:5]
    if token == f"<0x{digits}>" and len(digits) == 2 and all(digit in string.hexdigits for digit in digits):
        return int(digits, 16)
    return None


def sentencepiece_bytes(token: str) -> bytes:
    """Return the bytes that a SentencePiece token stands for: ▁ is a space, <0x41> the byte 0x41.

    >>> sentencepiece_bytes("▁Việt").decode()
    ' Việt'
    """
    value = byte_fallback_value(token)
    return bytes([value]) if value is not None else token.replace("▁", " ").encode("utf-8")


def rank_merges(merges: Iterable[Merge]) -> dict[Merge, int]:
    """Return the rank of each merge; of a pair listed twice the last counts, as in the tokenizers library."""
    return {merge: rank for rank, merge in enumerate(merges)}


def spm_ranks(scores: Mapping[str, float]) -> RankOf:
    """Return the ranks of SentencePiece's own BPE: two parts merge into any piece, the best score first.

    Source: bpe_model.cc of google/sentencepiece, which llama.cpp follows.
    """

    def rank(pair: Merge) -> float | None:
        score = scores.get(pair[0] + pair[1])
        return None if score is None else -score

    return rank


def derivation(token: str, rank_of: RankOf) -> list[Merge]:
    """Return the merges that BPE performs, in their order, when it encodes the token's own string.

    Where the last product is not the token itself, BPE never makes the token (see `ignore_merges`).
    """
    return _encoded(token, rank_of)[1]


def encode(text: str, rank_of: RankOf) -> list[str]:
    """Return the tokens that BPE makes of a text of its alphabet.

    >>> encode("hoch", rank_merges([("h", "o"), ("ho", "c")]).get)
    ['hoc', 'h']
    """
    return _encoded(text, rank_of)[0]


def _encoded(text: str, rank_of: RankOf) -> tuple[list[str], list[Merge]]:
    """(the tokens, the merges that made them) of a text."""
    parts = list(text)
    performed: list[Merge] = []
    ranks = [_rank(pair, rank_of) for pair in zip(parts, parts[1:], strict=False)]
    while ranks and (lowest := min(ranks)) < NEVER:
        at = ranks.index(lowest)
        pair = parts[at], parts.pop(at + 1)
        performed.append(pair)
        parts[at] = pair[0] + pair[1]
        # Only the pairs on both sides of the new part have changed.
        del ranks[at]
        if at > 0:
            ranks[at - 1] = _rank((parts[at - 1], parts[at]), rank_of)
        if at < len(ranks):
            ranks[at] = _rank((parts[at], parts[at + 1]), rank_of)
    return parts, performed


def _rank(pair: Merge, rank_of: RankOf) -> float:
    rank = rank_of(pair)
    return NEVER if rank is None else rank


def closure(keep: Iterable[str], rank_of: RankOf) -> set[str]:
    """Return keep with the parts and products of every token's derivation, and with every token's characters.

    A derivation's parts need no derivation of their own added: theirs is a part of it (see the module's
    docstring). So the longest tokens go first, and what one of them is made of costs nothing any more.
    """
    closed: set[str] = set()
    for token in sorted(keep, key=len, reverse=True):
        if token in closed:
            continue
        closed.add(token)
        closed.update(token)
        for left, right in derivation(token, rank_of):
            closed.add(left + right)
    return closed


def filter_merges(merges: Sequence[Merge], keep: AbstractSet[str]) -> list[int]:
    """Return the positions, in the old order, of the merges whose two parts and product are all in keep."""
    return [
        at
        for at, (left, right) in enumerate(merges)
        if left in keep and right in keep and left + right in keep
    ]


def parse_merge(merge: Any) -> Merge:
    """Return the parts of a merge as a tokenizer.json writes it, "a b" or ["a", "b"]; ValueError otherwise.

    The old form is ambiguous only where a part holds a space, which no tokenizer that uses it has.

    >>> parse_merge("Ġ t"), parse_merge(["Ġ", "t"])
    (('Ġ', 't'), ('Ġ', 't'))
    """
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list | tuple) and len(parts) == 2:
        left, right = parts
        if left and right and isinstance(left, str) and isinstance(right, str):
            return left, right
    raise ValueError(f"{merge!r} is not a merge: expected 'left right' or ['left', 'right']")


def text_for_people(token_bytes: bytes) -> str:
    """Return a token's text; bytes that are no whole character are written <0xE1>.

    >>> text_for_people(" tiếng".encode()), text_for_people(b" ti\\xe1\\xba")
    (' tiếng', ' ti<0xE1><0xBA>')
    """
    escaped = token_bytes.decode("utf-8", "surrogateescape")
    if escaped.isprintable():  # surrogates are not: the common case needs no look at each character
        return escaped
    return "".join(
        f"<0x{ord(char) - 0xDC00:02X}>" if "\udc80" <= char <= "\udcff" else char for char in escaped
    )


def unfold(ids: Sequence[int], replaces: Mapping[int, Sequence[int]]) -> list[int]:
    """Return ids with each new token replaced by the old ones that it stands for.

    >>> unfold([1, 9, 2], {9: [3, 4]})
    [1, 3, 4, 2]
    """
    return [old for token_id in ids for old in replaces.get(token_id, (token_id,))]
