"""Shrink a closed kept set to an exact number of tokens, the least used first.

Reads and writes nothing. A leaf is a token that no other kept token is made from (tokenizer/bpe.py:
derivation); taking a leaf away leaves the set closed, taking any other away does not. So the least counted
leaf goes, again and again; a token becomes a leaf when the last token made from it has gone.

Why this keeps at least as much of the corpus as cutting by count and closing afterwards: let A be the closure
of all tokens counted at least θ times, with N tokens. While more than N are left, some token outside A is,
and so is a leaf outside A (whatever is made from it is outside A as well, for A is closed), counted less than
θ. So the leaf that goes is counted less than θ; it is in A only if it is part of a token counted θ times, and
then it is no leaf before that token has gone, which does not go. Down to N, only tokens outside A go: what is
left at N is A. At sizes that no θ gives, this fills the rest with the most counted leaves.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from vocabkit.errors import UserError
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.tokenizer_json import UNIGRAM, TokenizerJson
from vocabkit.vocab.plan import merge_orders


def parts_of(
    tokenizer: TokenizerJson, ids: Iterable[int], spm_models: Iterable[Any] = ()
) -> dict[int, set[int]]:
    """Return for each id the other tokens that its derivation needs: characters, parts and products."""
    orders = [] if tokenizer.family == UNIGRAM else merge_orders(tokenizer, spm_models)
    vocab, parts = tokenizer.vocab, {}
    for token_id in ids:
        token = tokenizer.tokens[token_id]
        needed: set[str] = set()
        if orders and token in vocab:
            needed.update(token)
            needed.update(left + right for order in orders for left, right in bpe.derivation(token, order))
        parts[token_id] = {vocab[part] for part in needed if part in vocab} - {token_id}
    return parts


def shrink(
    closed: AbstractSet[int],
    size: int,
    *,
    parts: Mapping[int, AbstractSet[int]],
    counts: Mapping[int, int],
    always: AbstractSet[int],
) -> set[int]:
    """Return size ids of closed, itself closed, without its least counted leaves.

    parts: of each id, as parts_of() returns it. always: ids that stay whatever their count. Of leaves
    counted equally often the one with the highest id goes first, as the tokenizer learned it last. Raises
    UserError if closed has fewer ids already, or if always and its parts are more.
    """
    if size > len(closed):
        raise UserError(
            f"--target_size is {size:,}, the rules keep {len(closed):,} tokens; lower one or --min_count"
        )
    left = set(closed)
    made_from = Counter(part for token_id in left for part in parts[token_id])
    leaves = [(counts.get(i, 0), -i) for i in left if not made_from[i] and i not in always]
    heapq.heapify(leaves)
    while len(left) > size:
        if not leaves:
            raise UserError(
                f"--target_size is {size:,}, bytes, special tokens and what they are made from are "
                f"{len(left):,} tokens; give a larger one"
            )
        _, negative = heapq.heappop(leaves)
        left.remove(-negative)
        for part in parts[-negative]:
            made_from[part] -= 1
            if not made_from[part] and part not in always:
                heapq.heappush(leaves, (counts.get(part, 0), -part))
    return left
