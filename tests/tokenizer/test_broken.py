"""vocabkit/tokenizer/broken.py: the tokens that a writing needs are those that its texts are encoded with."""

import itertools
import random

import pytest

from vocabkit.text.utf8 import tail_of
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.broken import needed_ids, spelled_by
from vocabkit.tokenizer.tokenizer_json import BYTE_FALLBACK_BPE, BYTE_LEVEL_BPE

CHARACTERS = "ạệ€"  # E1 BA A1, E1 BB 87, E2 82 AC


def random_tokenizer(seed: int) -> tuple[dict[int, str], dict[bpe.Merge, int]]:
    """The bytes of these characters, a and space, and random merges of what is there."""
    choose = random.Random(seed)
    names = [bpe.BYTE_TO_CHAR[byte] for byte in sorted(set((CHARACTERS + "a ").encode()))]
    merges: list[bpe.Merge] = []
    texts = [
        bpe.byte_level_token("".join(some).encode()) for some in itertools.permutations(CHARACTERS + "a ")
    ]
    while len(merges) < 12:
        parts = bpe.encode(choose.choice(texts), bpe.rank_merges(merges).get)
        at = choose.randrange(max(len(parts) - 1, 1))
        merge = (parts[at], parts[at + 1]) if len(parts) > 1 else (names[0], names[1])
        if merge[0] + merge[1] not in names:
            merges.append(merge)
            names.append(merge[0] + merge[1])
    return dict(enumerate(names)), bpe.rank_merges(merges)


@pytest.mark.parametrize("seed", range(12))
def test_needed_are_the_tokens_that_some_text_is_encoded_with(seed):
    tokens, ranks = random_tokenizer(seed)
    ids = {token: token_id for token_id, token in tokens.items()}
    tails = {at: tail for at, token in tokens.items() if (tail := tail_of(bpe.byte_level_bytes(token)))}
    found = needed_ids(tokens, tails=tails, characters=CHARACTERS, family=BYTE_LEVEL_BPE, orders=[ranks.get])
    used: set[int] = set()
    for size in (1, 2, 3, 4):
        for some in itertools.product(CHARACTERS + "a ", repeat=size):
            text = bpe.byte_level_token("".join(some).encode())
            used |= {ids[part] for part in bpe.encode(text, ranks.get)}
    assert used & tails.keys() <= found  # none is missed, and …
    for token_id in found - used:  # … what longer texts need alone begins one of these, whole or cut
        assert tokens[token_id] in bpe.encode(tokens[token_id], ranks.get)
    assert found and (tails.keys() - found or len(found) == len(tails))


def test_of_characters_bytes_spell_what_has_no_token():
    tokens = dict(enumerate(["<0xE1>", "<0xBA>", "<0xA1>", "<0xE4>", "ệ"]))
    tails = {0: b"\xe1", 3: b"\xe4"}
    assert needed_ids(tokens, tails=tails, characters="ạệ", family=BYTE_FALLBACK_BPE) == {0}
    assert needed_ids(tokens, tails=tails, characters="ệ", family=BYTE_FALLBACK_BPE) == set()
    spelled = list(spelled_by(tokens, "ạệ", family=BYTE_FALLBACK_BPE, orders=[]))
    assert spelled == [{"<0xE1>", "<0xBA>", "<0xA1>"}, {"ệ"}]
