"""Unigram tokenizers (T5, mT5, XLM-R …), and why tokens can be removed from them exactly. Standard library
only.

Unigram takes, among all ways to cut a text into tokens, the one with the best sum of scores; a character
that is no token may be covered by <unk> at the cost of min score − 10.

Theorem. Remove any tokens but the special ones and one of the lowest score. Then every text whose old
encoding uses only tokens that stay has the same encoding as before. Proof. The old best path is still there
with the same sum. A path of the new tokenizer either was there before, so it was no better, or uses <unk>
for a character whose own token went: the old path through that token had the same sum with a larger term in
it (a score is at least the lowest, <unk> costs 10 more), and even that was no better. Ties stay as they
were, since the order of the survivors is kept.

Unigram needs no closure. It has no bytes to fall back on either (unless byte_fallback is set): a text in a
removed script reads as <unk>, as a text in a script that the base never knew does.

>>> lowest_score([["<unk>", 0.0], ["a", -1.0], ["b", -3.5]])
2
"""

from typing import Any


def lowest_score(vocab: list[Any]) -> int:
    """Return the id of the first [token, score] row with the lowest score, which sets the cost of <unk>."""
    return min(range(len(vocab)), key=lambda token_id: vocab[token_id][1])
