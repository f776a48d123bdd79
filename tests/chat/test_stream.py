"""vocabkit/chat/stream.py: what is shown of ids is what they decode to, as early as it can be known."""

import random

import pytest
from chatting import TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vocabkit.chat.stream import stream_text
from vocabkit.models.load import load_tokenizer


def check_stream(ids: list[int], tokenizer) -> list[str]:
    for skip in (False, True):
        pieces = list(stream_text(iter(ids), tokenizer, skip_special_tokens=skip))
        wanted = tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert "".join(pieces) == wanted
        assert all(pieces)
    return pieces


def encode(tokenizer, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_stream_equals_decode_for_any_ids(name, data):
    tokenizer = TINY[name]
    some_bytes = st.integers(3, 258)  # byte tokens of spm_bpe, whose runs are judged as a whole
    any_id = st.integers(0, len(tokenizer) + 5)  # ids of padding rows have no text
    check_stream(data.draw(st.lists(any_id | some_bytes, max_size=20)), tokenizer)


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=30) | st.text("aọ🇻🇳👨\u200d 好\u0301\t▁xQ", max_size=30))
def test_stream_of_text_never_breaks_a_character(name, text):
    pieces = check_stream(encode(TINY[name], text), TINY[name])
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_stream_by_hand():
    """A character is held until its last byte; a byte that cannot go on is shown at once."""
    tokenizer = TINY["byte_level"]
    e1, bb, a1, letter = (tokenizer.convert_tokens_to_ids(token) for token in ("á", "»", "¡", "A"))
    assert list(stream_text([e1, bb, a1, letter], tokenizer)) == ["ỡ", "A"]
    assert list(stream_text([e1, bb, letter, e1], tokenizer)) == ["\ufffdA", "\ufffd"]


def test_stream_yields_as_early_as_it_can():
    """One piece per whole-character token: nobody waits for a word that is already there."""
    for name, text in [
        ("byte_level", "The quick fox"),
        ("spm_bpe", "the quick"),
        ("unigram", "The quick fox"),
    ]:
        ids = [i for i in encode(TINY[name], text) if i not in TINY[name].all_special_ids]
        seen = []

        def feed(ids=ids, seen=seen):
            for token_id in ids:
                seen.append(token_id)
                yield token_id

        lag = [len(seen) for _ in stream_text(feed(), TINY[name])]
        assert lag[-1] == len(ids) and len(lag) >= len(ids) - 1, name


@pytest.mark.parametrize("name", ["spm_bpe", "unigram"])
def test_stream_decodes_short_windows(name, monkeypatch):
    """The cost of a token does not grow with the answer."""
    tokenizer = TINY[name]
    lengths = []
    decode = tokenizer.decode
    monkeypatch.setattr(
        tokenizer, "decode", lambda ids, **options: lengths.append(len(ids)) or decode(ids, **options)
    )
    check = encode(tokenizer, "the quick fox " * 200)
    list(stream_text(check, tokenizer))
    assert len(lengths) >= len(check) and max(lengths) <= 4


@pytest.mark.parametrize("name", ["qwen2.5-instruct", "gemma-2-it", "t5-v1_1"])
def test_stream_on_real_tokenizers(name, real_source):
    tokenizer = load_tokenizer(real_source(name))
    vocab = tokenizer.get_vocab()
    byte_ids = [i for token, i in vocab.items() if token.startswith("<0x") and len(token) == 6]
    rng = random.Random(name)
    for _ in range(60):
        ids = [rng.randrange(max(vocab.values()) + 3) for _ in range(rng.randrange(12))]
        check_stream([rng.choice(byte_ids) if byte_ids and rng.random() < 0.4 else i for i in ids], tokenizer)
    for text in [
        "Tiếng Việt có dấu, e\u0323\u0302 tách rời.",
        "我的名字是李国民 🇻🇳👩‍👩‍👧",
        "  a\t\n\n b  <0xE2>▁",
        "ꦲꦏ᭄ဗမာ𐍈",
    ]:
        pieces = check_stream(encode(tokenizer, text), tokenizer)
        assert not any("\ufffd" in piece for piece in pieces)
