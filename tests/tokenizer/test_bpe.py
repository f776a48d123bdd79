"""vocabkit/tokenizer/bpe.py: the same merges as the reference libraries, and the theorem that trimming is
exact.
"""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny import REAL_NAMES, TINY_KINDS, check_theorem, draw_covered, draw_text, replay, trimmed_encoder
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from vocabkit.tokenizer import bpe
from vocabkit.vocab.plan import close_ids

BPE_NAMES = [name for name in REAL_NAMES if "t5" not in name]
TINY_BPE = [kind for kind in TINY_KINDS if kind != "t5"]
ATOMS = "abc"


# Derivation


@st.composite
def merge_lists(draw) -> list[bpe.Merge]:
    """Random merges whose parts are tokens: several rules for one token and pairs listed twice included."""
    tokens, merges = list(ATOMS), []
    for _ in range(draw(st.integers(0, 14))):
        left, right = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if len(left + right) <= 8:
            merges.append((left, right))
            tokens.append(left + right)
    order = draw(st.permutations(merges)) if draw(st.booleans()) else merges
    return list(order)


def reference(merges: list[bpe.Merge], *, tokens: list[str] | None = None, **options: bool) -> Tokenizer:
    tokens = tokens or [*ATOMS, *dict.fromkeys(left + right for left, right in merges)]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    return Tokenizer(models.BPE(vocab, merges, **options))


@given(merge_lists(), st.text(ATOMS, max_size=12))
@example([("a", "b"), ("b", "c"), ("a", "b")], "abc")  # listed twice: the last rank counts
@example([("a", "a"), ("aa", "a")], "aaaaa")  # equal ranks: the leftmost goes first
def test_derivation_performs_the_merges_of_tokenizers(merges, text):
    performed = bpe.derivation(text, bpe.rank_merges(merges).get)
    assert replay(text, performed) == reference(merges).encode(text).tokens


@pytest.mark.parametrize("kind", TINY_BPE)
def test_derivation_of_every_tiny_token(tiny, kind):
    folder = tiny(kind)
    ranks = bpe.rank_merges(folder.tokenizer.merges)
    # The bare model, so that neither the normalizer nor ignore_merges stands between
    vocab, merges = folder.tokenizer.vocab, folder.tokenizer.merges
    bare = Tokenizer(models.BPE(vocab, merges))
    spelled = [token for token in vocab if set(token) <= vocab.keys()]  # <0x41> needs no merge
    for token in spelled:
        assert replay(token, bpe.derivation(token, ranks.get)) == bare.encode(token).tokens, token


def test_derivation_by_hand():
    """ "banana" with (a n) first, then (an an), then (b anan)."""
    ranks = bpe.rank_merges([("a", "n"), ("an", "an"), ("b", "anan")])
    assert bpe.derivation("banana", ranks.get) == [("a", "n"), ("a", "n"), ("an", "an"), ("b", "anan")]
    assert bpe.derivation("nab", ranks.get) == []
    assert bpe.derivation("", ranks.get) == []


# Closure


@given(merge_lists(), st.data())
def test_closure_is_idempotent_and_grows_with_its_argument(merges, data):
    rank_of = bpe.rank_merges(merges).get
    tokens = sorted({*ATOMS, *(left + right for left, right in merges)})
    some = data.draw(st.sets(st.sampled_from(tokens)))
    more = some | data.draw(st.sets(st.sampled_from(tokens)))
    closed = bpe.closure(some, rank_of)
    assert some <= closed <= bpe.closure(more, rank_of)
    assert bpe.closure(closed, rank_of) == closed


@given(merge_lists(), st.data(), st.booleans())
def test_theorem_on_random_tokenizers(merges, data, ignore_merges):
    """Covered texts encode as before, all others still decode to themselves."""
    rank_of = bpe.rank_merges(merges).get
    tokens = [*ATOMS, *dict.fromkeys(left + right for left, right in merges)]
    if ignore_merges:  # a token that no merge makes
        tokens += [token for token in ("cab", "bacc") if token not in tokens]
    wanted = data.draw(st.sets(st.sampled_from(tokens)))
    kept = bpe.closure({*wanted, *ATOMS}, rank_of)
    old = reference(merges, tokens=tokens, ignore_merges=ignore_merges)
    new = reference(
        [merges[at] for at in bpe.filter_merges(merges, kept)],
        tokens=[token for token in tokens if token in kept],
        ignore_merges=ignore_merges,
    )
    for text in data.draw(st.lists(st.text(ATOMS, max_size=14), max_size=8)) + tokens:
        before, after = old.encode(text).tokens, new.encode(text).tokens
        assert "".join(after) == text
        if kept >= set(before):
            assert after == before


def test_without_closure_by_hand():
    """ "hoc" is made of ho + c: keep it without "ho", and it cannot be made at all."""
    merges = [("h", "o"), ("ho", "c")]
    kept = {"h", "o", "c", "hoc"}
    assert bpe.filter_merges(merges, kept) == []
    assert bpe.closure(kept, bpe.rank_merges(merges).get) - kept == {"ho"}


def test_filter_merges_keeps_the_old_order():
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("c", "c")]
    assert bpe.filter_merges(merges, {"a", "b", "c", "bc", "abc"}) == [0, 2]
    assert bpe.filter_merges(merges, {"a", "b", "c", "ab", "bc", "abc"}) == [0, 1, 2, 3]


# The theorem on tokenizer folders


@pytest.mark.parametrize("kind", TINY_BPE)
@given(data=st.data())
def test_theorem_on_tiny_folders(tiny, kind, data):
    folder = tiny(kind)
    wanted, texts = draw_covered(data, folder)
    assert check_theorem(folder, folder.plan(wanted).new_to_old, texts) >= len(texts[::2])


@pytest.mark.assets
@pytest.mark.parametrize("name", BPE_NAMES)
def test_theorem_on_real_tokenizers(real, documents, name):
    """Kept: what a random half of the documents use, and thousands of random tokens; closed by our code."""
    folder = real(name)
    choose = random.Random(name)
    half = choose.sample(documents, len(documents) // 2)
    used = {i for e in folder.encoder.encode_batch(half) for i in e.ids}
    wanted = used | set(choose.sample(sorted(folder.tokenizer.tokens), 5000))
    plan = folder.plan(wanted)
    closed = set(plan.new_to_old)
    assert close_ids(folder.tokenizer, closed, folder.spm_models.values()) == closed
    assert len(half) <= check_theorem(folder, plan.new_to_old, documents) < len(documents) - 50


@pytest.mark.assets
@pytest.mark.parametrize("name", BPE_NAMES)
@given(data=st.data())
def test_theorem_on_any_text(real_trimmed, documents, name, data):
    """Through every file of a trimmed folder."""
    trimmed = real_trimmed(name)
    texts = [draw_text(data, documents)]
    check_theorem(trimmed.base, trimmed.plan.new_to_old, texts, new=trimmed.out.encoder)


@pytest.mark.assets
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "llama-3.2-instruct"])
def test_without_closure_documents_break(real, documents, name):
    """The check above can fail: used ids alone change nearly every document that they came from."""
    folder = real(name)
    texts = documents[:140]  # English and Vietnamese
    before = [e.ids for e in folder.encoder.encode_batch(texts, add_special_tokens=False)]
    new_to_old = folder.without_closure(i for ids in before for i in ids)
    new = trimmed_encoder(folder, new_to_old)
    after = [[new_to_old[i] for i in e.ids] for e in new.encode_batch(texts, add_special_tokens=False)]
    same = sum(a == b for a, b in zip(before, after, strict=True))
    assert same < 0.2 * len(texts)
    assert sum(map(len, after)) > 1.05 * sum(map(len, before))
    with pytest.raises(AssertionError):
        check_theorem(folder, new_to_old, texts)
    assert check_theorem(folder, folder.plan(new_to_old).new_to_old, texts) == len(texts)


# Bytes


def test_byte_alphabet_is_that_of_tokenizers():
    assert sorted(bpe.CHAR_TO_BYTE) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(bpe.BYTE_TO_CHAR) == list(range(256))


@given(st.binary(max_size=20), st.text(max_size=10))
def test_byte_level_bytes_invert_byte_level_token(data, text):
    assert bpe.byte_level_bytes(bpe.byte_level_token(data)) == data
    token = bpe.byte_level_token(text.encode())
    assert decoders.ByteLevel().decode([token]) == text


def test_byte_level_bytes_refuse_other_characters():
    with pytest.raises(KeyError):
        bpe.byte_level_bytes("a b")  # a space is written Ġ


def test_byte_fallback_value():
    assert [bpe.byte_fallback_value(f"<0x{byte:02X}>") for byte in range(256)] == list(range(256))
    for token in ("<0xZZ>", "<0x4>", "<0x041>", "0x41", "▁", ""):
        assert bpe.byte_fallback_value(token) is None
    assert bpe.sentencepiece_bytes("<0xC3>") == b"\xc3"
    assert bpe.sentencepiece_bytes("▁a▁") == b" a "


# Merges as files write them


def test_parse_merge_reads_both_forms():
    assert bpe.parse_merge("a b") == bpe.parse_merge(["a", "b"]) == ("a", "b")
    assert bpe.parse_merge("# #") == ("#", "#")
    assert bpe.parse_merge(["a b", "c"]) == ("a b", "c")


@pytest.mark.parametrize(
    "merge", ["a", "a b c", "a ", "", [], ["a"], ["a", "b", "c"], ["a", ""], [1, 2], None, 7]
)
def test_parse_merge_refuses(merge):
    with pytest.raises(ValueError, match="is not a merge"):
        bpe.parse_merge(merge)
