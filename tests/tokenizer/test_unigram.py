"""vocabkit/tokenizer/unigram.py: removing tokens from a Unigram tokenizer changes no text whose tokens
stay.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import REAL_NAMES, check_theorem, draw_covered, draw_text
from tokenizers import Tokenizer, models

from vocabkit.tokenizer import unigram
from vocabkit.vocab.plan import close_ids

UNIGRAM_NAMES = [name for name in REAL_NAMES if "t5" in name]


def test_lowest_score_takes_the_first_of_equals():
    assert unigram.lowest_score([["<unk>", 0.0], ["a", -2.0], ["b", -2.0], ["c", -1.0]]) == 1


def encode(vocab: list[tuple[str, float]], text: str) -> list[str]:
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=False))
    # Ids, not tokens: an unknown character's "token" is its own text
    return [vocab[token_id][0] for token_id in tokenizer.encode(text).ids]


@given(st.data())
def test_theorem_on_random_tokenizers(data):
    """Whole-number scores, so that paths of equal sums are frequent; d is in no token at all."""
    pieces = data.draw(st.lists(st.text("abc", min_size=1, max_size=4), unique=True, min_size=1, max_size=14))
    scores = data.draw(st.lists(st.integers(-9, -1), min_size=len(pieces), max_size=len(pieces)))
    vocab = [("<unk>", 0.0), *((piece, float(score)) for piece, score in zip(pieces, scores, strict=True))]
    must_stay = {"<unk>", vocab[unigram.lowest_score(vocab)][0]}
    kept = must_stay | data.draw(st.sets(st.sampled_from(pieces)))
    trimmed = [row for row in vocab if row[0] in kept]
    for text in data.draw(st.lists(st.text("abcd", max_size=10), min_size=1, max_size=8)) + pieces:
        before = encode(vocab, text)
        if kept >= set(before):
            assert encode(trimmed, text) == before


def test_without_the_lowest_score_by_hand():
    """The lowest score sets the cost of <unk>, so its token must stay although the text does not use it.

    "abxcd" with x in no token of its own. With z (−30) an <unk> costs 40: a + bxc + d (−18) is best. Without
    z an <unk> costs 16 and ab + <unk> + cd (−16) wins.
    """
    rows = [("ab", 0.0), ("cd", 0.0), ("a", -6.0), ("bxc", -6.0), ("d", -6.0), ("b", -6.0), ("c", -6.0)]
    vocab = [("<unk>", 0.0), *rows, ("z", -30.0)]
    assert unigram.lowest_score(vocab) == len(vocab) - 1
    assert encode(vocab, "abxcd") == ["a", "bxc", "d"]
    assert encode(vocab[:-1], "abxcd") == ["ab", "<unk>", "cd"]


# Tokenizer folders


@given(data=st.data())
def test_theorem_on_the_tiny_folder(tiny, data):
    folder = tiny("t5")
    wanted, texts = draw_covered(data, folder)
    assert check_theorem(folder, folder.plan(wanted).new_to_old, texts) >= len(texts[::2])


@pytest.mark.assets
@pytest.mark.parametrize("name", UNIGRAM_NAMES)
def test_theorem_on_real_tokenizers(real, documents, name):
    folder = real(name)
    choose = random.Random(name)
    half = choose.sample(documents, len(documents) // 2)
    used = {i for e in folder.encoder.encode_batch(half) for i in e.ids}
    wanted = used | set(choose.sample(sorted(folder.tokenizer.tokens), 2000))
    assert close_ids(folder.tokenizer, wanted) == wanted
    plan = folder.plan(wanted)
    assert plan.added_by_closure == 0
    # T5 v1.1 reads foreign text as <unk>, which is kept: only words of its own languages are not covered
    lines = [line for document in documents for line in document.splitlines()]
    assert check_theorem(folder, plan.new_to_old, documents) >= len(half)
    assert 0 < check_theorem(folder, plan.new_to_old, lines) < len(lines)


@pytest.mark.assets
@pytest.mark.parametrize("name", UNIGRAM_NAMES)
@given(data=st.data())
def test_theorem_on_any_text(real_trimmed, documents, name, data):
    trimmed = real_trimmed(name)
    texts = [draw_text(data, documents)]
    check_theorem(trimmed.base, trimmed.plan.new_to_old, texts, new=trimmed.out.encoder)


@pytest.mark.assets
@pytest.mark.parametrize("name", UNIGRAM_NAMES)
def test_a_token_of_the_lowest_score_stays(real_trimmed, name):
    trimmed = real_trimmed(name)
    before, after = (f.tokenizer.data["model"]["vocab"] for f in (trimmed.base, trimmed.out))
    assert len(after) < len(before)
    assert min(score for _, score in after) == min(score for _, score in before)
    assert dict(before).items() >= dict(after).items()  # every score as it was
