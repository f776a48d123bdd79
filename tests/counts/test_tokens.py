"""vocabkit/counts/tokens.py: the same counts as encoding every document, for every tokenizer and any text.

HYPOTHESIS_PROFILE=thorough adds more documents and more examples.
"""

import itertools
import random
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from counted import BUDGET, FRAGMENTS, MIXED, NAMES, SMALL, Opened
from hypothesis import given
from hypothesis import strategies as st
from tiny import SENTENCES

from vocabkit.corpus.files import find_sources
from vocabkit.counts import tokens
from vocabkit.counts.fast import FastEncoder
from vocabkit.counts.tokens import TokenCounter, may_be_fast, merge
from vocabkit.errors import UserError


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
    assert opened(name).is_fast == (name not in ("t5-v1_1", "SYNTHETIC-mt5-like-32k"))
    opened(name).check(pieces)


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
    """Draw documents, add them in portions to a counter, and compare."""
    texts = data.draw(st.lists(texts_for(opened), max_size=6), label="texts")
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    ends = data.draw(st.lists(st.integers(0, len(texts)), max_size=3), label="portions end at")
    for start, end in itertools.pairwise([0, *sorted(ends), len(texts)]):
        opened.counter.add(texts[start:end])
    found, expected = opened.counter.take(), opened.direct(texts)
    assert (found == expected).all(), np.flatnonzero(found != expected)
    assert not opened.counter.take().any()


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
def test_no_text_and_empty_texts(small, kind):
    assert small(kind).is_fast == (kind != "t5")
    for texts in ([], [""], ["", "", ""], ["", "a", ""], [" "], ["\n"], [" ", "\n", "\t"], MIXED):
        small(kind).check(texts)
    counter = small(kind).counter
    counter.add(["a"])
    assert counter.take().any()
    again = counter.take()
    assert again.dtype == np.int64
    assert not again.any()


@pytest.mark.parametrize("kind", SMALL)
def test_added_tokens_stay_whole_and_end_what_stands_before_them(small, kind):
    around = ["", "a", "1", "é", "!", " ", "  ", "\n  ", "é  ", "\u3000 "]
    for token in small(kind).encoder.get_added_tokens_decoder().values():
        content = token.content
        pairs = list(itertools.product(around, around))
        texts = [f"b{before}{content}{after}" for before, after in pairs]
        texts += [f"{before}{content[:-1]}{after}" for before, after in pairs]
        small(kind).check(texts)


@pytest.mark.parametrize("kind", ["qwen", "gemma", "t5"])
def test_merged_shards_equal_one_count(small, kind):
    texts = [*SENTENCES, *MIXED, *SENTENCES[:3]]
    merged = merge(small(kind).count(texts[at::4]) for at in range(4))
    assert merged.dtype == np.int64
    assert (merged == small(kind).count(texts)).all()
    assert (merged == small(kind).direct(texts)).all()


@pytest.mark.parametrize("each", [1, 7, 1000])
def test_one_document_in_a_thousand_is_encoded_by_both(small, monkeypatch, each):
    """The first and the thousand and first, however they come; the line that differs is named."""
    right = FastEncoder.ids

    def wrong(self: FastEncoder, texts: Sequence[str]) -> list[np.ndarray]:
        return [ids[:-1] if "zebra" in t else ids for t, ids in zip(texts, right(self, texts), strict=True)]

    monkeypatch.setattr(FastEncoder, "ids", wrong)
    counter = TokenCounter(small("qwen").path, fast=True)
    texts = ["a horse"] + ["a zebra"] * 999
    for at in range(0, len(texts), each):
        counter.add(texts[at : at + each])
    with pytest.raises(UserError, match=r"different ids to 'a zebra\\n'; .*pip uninstall gigatoken"):
        counter.add(["a horse\na zebra\na horse"])


def test_what_gigatoken_cannot_count_is_said(small, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("Xin chào\n", encoding="utf-8")
    sources = find_sources([str(tmp_path / "a.txt")])
    assert not may_be_fast(small("t5").path, sources) and not capsys.readouterr().err
    monkeypatch.setattr(tokens, "SMALL", 5)
    assert not may_be_fast(small("t5").path, sources)
    assert "Unigram" in (said := capsys.readouterr().err) and said.startswith("note: ")
