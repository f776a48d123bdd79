"""vocabkit/counts/tokens.py: the same counts as encoding every document, for every tokenizer and any text.

HYPOTHESIS_PROFILE=thorough adds every code point there is to the sample, more documents and more examples.
"""

import functools
import itertools
import random
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pytest
import regex
from counted import (
    BUDGET,
    FRAGMENTS,
    MIXED,
    NAMES,
    SMALL,
    THOROUGH,
    Opened,
    culprit,
)
from hypothesis import given
from hypothesis import strategies as st
from tiny import SENTENCES
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from vocabkit.counts import tokens
from vocabkit.counts.tokens import (
    END,
    ONE_WORD,
    ChunkCounter,
    Tally,
    TokenCounter,
    bordered,
    count_in_windows,
    merge,
)
from vocabkit.tokenizer.bpe import byte_level_token
from vocabkit.tokenizer.encoder import GPT2, LLAMA3, QWEN2

SETTLED = re.compile(f"[{tokens.SETTLED}]*")


PATTERNS = {"GPT-2": GPT2, "Qwen2": QWEN2, "Llama-3": LLAMA3}


# Real texts


@pytest.fixture(scope="module")
def pieces(assets) -> list[str]:
    """Documents from every corpus file, cut anywhere, before spaces and line ends, before combining marks."""
    choose = random.Random(11)
    found = ["", " ", "\n"]
    for path in sorted((assets / "corpora").rglob("*.t[xs][tv]")):
        text = path.read_text(encoding="utf-8")
        for kind in range(BUDGET):
            at = choose.randrange(len(text))
            if kind % 4 == 1:
                at = max(at, text.find(" ", at))
            elif kind % 4 == 2:
                at = max(at, text.find("\n", at))
            piece = text[at : at + int(choose.paretovariate(1.0) * 30) % 2000]
            if kind % 4 == 3:
                piece = unicodedata.normalize("NFD", piece)
                mark = next((i for i, char in enumerate(piece) if unicodedata.combining(char)), 0)
                piece = piece[mark:]
            found.append(piece)
    return found


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_real_texts_are_counted_as_encoded(opened, pieces, name):
    assert sum(piece[:1] == " " for piece in pieces) > len(pieces) // 5
    assert sum(piece[:1] == "\n" for piece in pieces) > len(pieces) // 6
    assert sum(bool(piece) and unicodedata.combining(piece[0]) > 0 for piece in pieces) > len(pieces) // 10
    opened(name).check_parts(pieces, list)


def texts_for(opened: Opened) -> st.SearchStrategy[str]:
    """Texts of fragments, of the tokenizer's special tokens, whole and broken, and of long runs."""
    added = [token.content for token in opened.encoder.get_added_tokens_decoder().values()]
    added = [*added[:3], *added[-3:]] or ["<s>"]
    special = st.sampled_from(added)
    broken = st.one_of(
        special,
        special.map(lambda token: token[:-1]),
        special.map(lambda token: token[1:]),
        special.map(lambda token: token * 2),
        special.map(lambda token: token.replace("▁", " ")),
        special.map(str.upper),
    )
    fragments = st.sampled_from(FRAGMENTS)
    runs = st.builds(lambda piece, times: piece * times, fragments, st.sampled_from([2, 3, 4, 17, 70, 300]))
    words = st.sampled_from([word for text in SENTENCES for word in text.split(" ")])
    piece = st.one_of(fragments, fragments, fragments, broken, runs, words, st.text(max_size=4))
    return st.lists(piece, max_size=12).map("".join)


def check_any_text(data: Any, opened: Opened) -> None:
    """Draw documents, add them in portions to a counter that can hold hardly anything, and compare."""
    texts = data.draw(st.lists(texts_for(opened), max_size=6), label="texts")
    max_entries = data.draw(st.sampled_from([1, 2, 7, 1000]), label="max_entries")
    ends = data.draw(st.lists(st.integers(0, len(texts)), max_size=3), label="portions end at")
    # What TokenCounter(..., max_entries=) sets: to read a large tokenizer again for each example takes hours.
    counter = opened.counter
    counter._counter = ChunkCounter(counter.recipe, max_entries=max_entries)
    counter._words, counter._chunks = Tally(max_entries), Tally(max_entries)
    for start, end in itertools.pairwise([0, *sorted(ends), len(texts)]):
        counter.add(texts[start:end])
    found, expected = counter.take(), opened.direct(texts)
    assert (found == expected).all(), opened.explain(found, expected)
    assert not counter.take().any()


@pytest.mark.parametrize("kind", SMALL)
@given(data=st.data())
def test_any_text_is_counted_as_encoded_by_small_tokenizers(small, kind, data):
    check_any_text(data, small(kind))


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_text_is_counted_as_encoded(opened, name, data):
    check_any_text(data, opened(name))


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("max_entries", [1, 2, 7])
def test_what_does_not_fit_is_counted_earlier(small, kind, max_entries):
    """More words than may be held, in one document and in many, also of those that our expression leaves to
    the library; chunks and words never pile up.
    """
    counter = TokenCounter(small(kind).path, max_entries=max_entries)
    texts = [*SENTENCES, " ".join(SENTENCES), "\n".join(SENTENCES), *SENTENCES]
    texts += [f"ภาษา{char} <{char}>" for char in SENTENCES[0]]
    for text in texts:
        counter.add([text])
        chunks = counter._counter
        tallies = (chunks._chunks, chunks._words, chunks._others, counter._words, counter._chunks)
        assert all(len(tally) <= max_entries for tally in tallies)
        assert chunks._pending_size <= 100 * max_entries and not chunks._texts_size
    assert (counter.take() == small(kind).direct(texts)).all()


@pytest.mark.parametrize("kind", ["qwen", "llama3", "gemma"])
def test_a_long_word_is_counted_in_windows_as_encoded_whole(small, kind):
    """Whatever it is made of: merges that reach far, none at all, characters that bytes spell."""
    opened, choose = small(kind), random.Random(1)
    model = Tokenizer(opened.encoder.model)
    model.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    size = opened.encoder.get_vocab_size()
    for number in range(60):
        made_of = choose.choice(["a", " ", "ab", "漢", "việt", "🙂", "กข", "thời gian", "".join(SENTENCES)])
        if number % 2:
            text = made_of * (1500 // len(made_of))
        else:
            text = "".join(choose.choices(made_of, k=1500))
        word = text.replace(" ", "▁") if kind == "gemma" else byte_level_token(text.encode())
        found = count_in_windows(model, word, size=size, window=choose.choice([40, 100, 300]))
        assert found.tolist() == np.bincount(model.encode(word).ids, minlength=size).tolist(), (
            kind,
            text[:40],
        )


def test_long_lines_are_counted_as_encoded(small, monkeypatch):
    monkeypatch.setattr(tokens, "LONG_WORD", 300)
    monkeypatch.setattr(count_in_windows, "__kwdefaults__", {"window": 100})
    for kind in ("qwen", "llama3", "gemma"):
        opened = small(kind)
        texts = ["a" * 2000, " " * 900, "漢" * 500 + " Việt", "xin chào " + "ab" * 700, "x" * 2000]
        assert opened.count(texts).tolist() == opened.direct(texts).tolist()


def test_a_tally_adds_up_equal_strings_and_is_full_of_many_or_of_long_ones():
    def add(strings: list[str]) -> None:
        tally.add(pyarrow.array(strings), pyarrow.array([3] * len(strings)))

    tally = Tally(100)
    for _ in range(500):
        add(["a", "b"])
        assert len(tally) <= 100 and not tally.full()
    assert tally.take().to_pydict() == {"string": ["a", "b"], "count": [1500, 1500]}
    assert tally.take().num_rows == 0
    for many in ([str(at) for at in range(101)], ["a" * 2100, "b" * 2100]):
        add(many)
        assert tally.full()
        taken = tally.take().to_pydict()
        assert sorted(taken["string"]) == sorted(many) and set(taken["count"]) == {3}
        assert not tally.full()


@pytest.mark.parametrize("kind", SMALL)
def test_no_text_and_empty_texts(small, kind):
    counter = TokenCounter(small(kind).path)
    for texts in ([], [""], ["", "", ""], ["", "a", ""], [" "], ["\n"], [" ", "\n", "\t"]):
        counter.add(texts)
        assert (counter.take() == small(kind).direct(texts)).all(), texts
        small(kind).check(texts)
    counter.add(["a"])
    assert counter.take().any()
    again = counter.take()
    assert again.dtype == np.int64
    assert not again.any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SMALL)
def test_no_document_joins_with_the_next(small, kind):
    """Chunks are split into words several at a time: none may reach into what happens to come next."""
    ends = ["", "\t", "\r", "\n", " ", "\x0b", "\u3000", "\t\t", "\n\t", ".", ".\n", "'", "1", "\u0301"]
    starts = [" b", "  b", " \tb", "\tb", " \nb", "\nb", "\n b", "b\n", "1", "s", "\u0301", " \x0bb", "\r\nb"]
    for end, start in itertools.product(ends, starts):
        small(kind).check_parts([f"z a{end}", f"z{start}", f"{start}{end}", f"a{end}{start}"], list)


@pytest.mark.parametrize("kind", SMALL)
def test_added_tokens_stay_whole_and_end_what_stands_before_them(small, kind):
    around = ["", "a", "1", "é", "!", " ", "  ", "\n  ", "é  ", "\u3000 "]
    for token in small(kind).encoder.get_added_tokens_decoder().values():
        content = token.content
        pairs = list(itertools.product(around, around))
        texts = [f"b{before}{content}{after}" for before, after in pairs]
        texts += [f"{before}{content[:-1]}{after}" for before, after in pairs]
        small(kind).check_parts(texts, list)


# Every character


def around(chars: Iterable[str]) -> str:
    """Put every character at both sides of both kinds of cut."""
    return "".join(f"a{c} b{c}\nd{c}\n{c}b {c}e\n {c}  f" for c in chars)


@functools.cache
def all_characters() -> list[str]:
    return [chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))]


@functools.cache
def settled_characters() -> list[str]:
    return [char for char in all_characters() if SETTLED.fullmatch(char)]


@functools.cache
def sampled_characters() -> list[str]:
    """All marks, spaces, controls, punctuation and letters with case, and one in 300 of the others."""
    if THOROUGH:
        return all_characters()
    choose, all_of = random.Random(5), {"Cf", "Cc", "Zs", "Zl", "Zp", "Mn", "Lm", "Sk", "Pd", "Po"}
    settled = {char for char in settled_characters() if unicodedata.category(char) != "Lo"}
    return [
        char
        for char in all_characters()
        if choose.random() < 1 / 300 or char in settled or unicodedata.category(char) in all_of
    ]


SWEPT = NAMES if THOROUGH else ["qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it", "t5-v1_1"]


@pytest.mark.assets
@pytest.mark.parametrize("name", SWEPT)
def test_no_character_reaches_over_a_cut(opened, name):
    """Many characters in one document, but for those that send a document another way."""
    cuts = opened(name).cuts
    slow = cuts.whole if cuts else None
    alone, together = [], []
    for char in sampled_characters():
        is_alone = char.isspace() or (slow is not None and slow.search(char))
        (alone if is_alone else together).append(char)
    assert slow is None or 25 < len(alone) < 100
    opened(name).check_parts(alone, lambda part: [around(char) for char in part])
    opened(name).check_parts(
        together, lambda part: [around(part[at : at + 64]) for at in range(0, len(part), 64)]
    )


# The expression that splits chunks into words


def library_splitter(pattern: str) -> Any:
    if pattern == GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def split_both(pattern: str, splitter: Any, text: str) -> tuple[list[str], list[str]]:
    """The words of a text by our expression and by the library, both in byte-level characters. Ours are found
    between other texts.
    """
    other = " \n.a1'"
    between = regex.findall(bordered(pattern), END.join([other, text, other, text]))
    ours, again = [[], [], [], []], 0
    for word in between:
        again += word == END
        if word != END:
            ours[again].append(byte_level_token(word.encode()))
    assert ours[1] == ours[3]
    return ours[1], [word for word, _ in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PATTERNS)
def test_every_settled_character_is_split_alike(name):
    """As a letter, a digit, white space or none of them; and what (?i:'s) takes for an s."""
    pattern, splitter = PATTERNS[name], library_splitter(PATTERNS[name])
    settled = settled_characters()
    assert 30_000 < len(settled) < 60_000
    if name != "Qwen2" and not THOROUGH:  # they ask the same of ideographs and Hangul syllables: \p{L}
        settled = [char for char in settled if unicodedata.category(char) != "Lo"]

    def differ(part: Sequence[str]) -> bool:
        text = "".join(f"a{c}1{c} {c}.{c}\n'{c}'l{c} " for c in part)
        ours, library = split_both(pattern, splitter, text)
        return ours != library

    for at in range(0, len(settled), 1000):
        if differ(settled[at : at + 1000]):
            pytest.fail(f"split otherwise: {[ascii(c) for c in culprit(settled[at : at + 1000], differ)]}")


settled_texts = st.lists(
    st.one_of(
        st.sampled_from([fragment for fragment in FRAGMENTS if SETTLED.fullmatch(fragment)]),
        st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]).filter(SETTLED.fullmatch),
    ),
    max_size=20,
).map("".join)


@pytest.mark.parametrize("name", PATTERNS)
@given(text=settled_texts)
def test_settled_texts_are_split_alike(name, text):
    ours, library = split_both(PATTERNS[name], library_splitter(PATTERNS[name]), text)
    assert ours == library


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_taken_for_one_word_is_one(name):
    """Every settled letter, by the expression of another library, with a space before it and without."""
    texts = [f"{space}a{char}b" for char in settled_characters() for space in ("", " ")]
    texts += [f"{char}\n" for char in "ab1"]
    single = pyarrow.compute.match_substring_regex(pyarrow.array(texts), ONE_WORD).to_pylist()
    assert 2 * 30_000 < sum(single) < 2 * 60_000
    expression = regex.compile(PATTERNS[name])
    assert all(expression.findall(text) == [text] for text, one in zip(texts, single, strict=True) if one)


def test_no_normalizer_changes_settled_texts():
    """Alone, and behind or before what composes with others."""
    normalizer = normalizers.NFC()
    for char in settled_characters():
        assert not unicodedata.combining(char)
        assert normalizer.normalize_str(f"a{char}e{char}") == f"a{char}e{char}"


# Shards


@pytest.mark.parametrize("kind", ["qwen", "gemma"])
def test_merged_shards_equal_one_count(small, kind):
    texts = [*SENTENCES, *MIXED, *SENTENCES[:3]]
    merged = merge(small(kind).count(texts[at::4]) for at in range(4))
    assert merged.dtype == np.int64
    assert (merged == small(kind).count(texts)).all()
    assert (merged == small(kind).direct(texts)).all()


@pytest.mark.parametrize("kind", SMALL)
def test_large_counts_are_exact(small, kind):
    """A table of chunks as add() leaves it after a corpus far too large for a test."""
    counter = TokenCounter(small(kind).path)
    often = {
        SENTENCES[0]: 2**31 + 1,
        SENTENCES[6]: 2**40 + 3,
        "việc <|end|>": 2**47 + 5,
        "a\u0600b": 2**31 - 1,
    }
    expected = np.zeros(counter.recipe.ids, np.int64)
    for text, times in often.items():
        chunks = counter._counter._cutter.chunks([text])
        counter._counter._chunks.add(chunks, pyarrow.array([times] * len(chunks)))
        ids = small(kind).encoder.encode(text, add_special_tokens=False).ids
        expected += times * np.bincount(ids, minlength=len(expected))
    counter.absorb(counter._counter.take())
    found = counter.take()
    assert (found == expected).all(), small(kind).explain(found, expected)
    assert found.max() > 2**47
    assert (merge([found] * 20) == 20 * expected).all()
    assert int(merge([found] * 20).max()) == 20 * int(expected.max()) > 2**51
