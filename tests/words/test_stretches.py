"""vocabkit/words/stretches.py: stretches and savings by hand, and what any list saves on real text."""

import functools
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from choosing import saved_by, savings_of
from hypothesis import given, settings
from hypothesis import strategies as st

import build_vi_words
from vocabkit.corpus.files import find_sources
from vocabkit.corpus.lines import HELD_OUT, held_out, measured_lines, training_lines
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import extended, load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.vocab.word_list import new_token
from vocabkit.words.choose import Choice, Wanted, choose, chosen_rows
from vocabkit.words.count import WordCounter, without_marks, word_rows
from vocabkit.words.curve import count_tokens
from vocabkit.words.stretches import Compatible, Matcher, candidates


@pytest.fixture(scope="module")
def qwen(assets) -> Path:
    return assets / "tokenizers" / "qwen2.5-instruct"


@pytest.fixture(scope="module")
def lines(assets) -> list[str]:
    """Lines of every kind: Vietnamese, English, formulas, other scripts in between."""
    found = []
    for path in sorted((assets / "corpora" / "vi").iterdir()):
        found += [nfc(line) for line in path.read_text(encoding="utf-8").split("\n") if line][:900]
    return found


@pytest.fixture(scope="module")
def rows(qwen, lines) -> list[dict]:
    counter = WordCounter(phrases=True)
    counter.add([training_lines(line) for line in lines])
    forms = without_marks(counter.take(), phrases=True)
    return word_rows(forms, read_tokenizer_json(qwen), load_encoder(qwen), min_freq=4)


def test_stretches():
    matcher = Matcher([" công nghệ", " nghệ thuật", " con số", " thông tin"])
    assert matcher.stretches("Công nghệ: công nghệ thuật ngữ, (công nghệ) xa công nghệ.") == [
        " công nghệ thuật", " công nghệ",
    ]  # fmt: skip
    assert matcher.stretches("một con sống, con số 5 con số-con con  số") == [
        " con sống",
        " con số",
        " con số",
    ]
    assert matcher.stretches("x công nghệ thông tin") == [" công nghệ", " thông tin"]
    assert matcher.stretches("") == matcher.stretches("con số") == []


class OneTokenAByte:
    """A tokenizer whose tokens are counted at sight: one for each character."""

    def encode_batch_fast(self, texts, add_special_tokens):
        return [type("Encoding", (), {"ids": list(text)}) for text in texts]


def test_savings_and_greedy_by_hand():
    """ " a b" is 4 characters: each saves 3. " a b c" saves 5; beside " a b" only 2 more where both stand."""
    contents = [" a b", " a b c", " d e", " b c"]
    savings = savings_of(contents, ["x a b. x a b c! x a b c d e x d e, x b c"], OneTokenAByte())
    assert saved_by({0}, savings) == 9 and saved_by({1}, savings) == 10 and saved_by({2}, savings) == 6
    assert saved_by({0, 1}, savings) == 3 + 5 + 5
    assert saved_by({3}, savings) == 9
    every = Choice(savings, usable=lambda word: True)
    assert choose(every, Wanted(9)) == [(1, 10), (2, 6), (0, 3)], " b c overlaps"
    assert choose(Choice(savings, usable=lambda word: word == 2), Wanted(1)) == [(2, 6)]


def test_false_hits_are_counted_and_refused():
    texts = ["x con số 5"] * 3 + ["x con sống"] + ["x thời gian."] * 3
    contents = [" con số", " thời gian"]
    savings = savings_of(contents, texts, OneTokenAByte())
    assert savings.false_hits() == [0.25, 0.0]
    # " con sống" → " con số", "ng": 9 characters become 1 + 2
    assert saved_by({0}, savings) == 3 * (len(" con số") - 1) + 9 - 3
    chosen, refused = chosen_rows([{"word": "con▁số"}, {"word": "thời▁gian"}], savings, wanted=Wanted(5))
    assert [row["word"] for row in chosen] == ["thời▁gian"] and refused == 1
    assert chosen[0]["saved"] == 3 * (len(" thời gian") - 1)


def test_words_inside_added_tokens_are_refused(tiny):
    tokenizer = read_tokenizer_json(tiny("qwen").path)
    tokenizer.added["<|hết bài viết|>"] = 999
    rows = [{"word": "bài▁viết"}, {"word": "học▁sinh"}]
    assert candidates(rows, tokenizer) == [" học sinh"]
    del tokenizer.added["<|hết bài viết|>"]


def test_what_overlaps():
    compatible = Compatible()
    compatible.add(" trở thành")
    compatible.add(" con số")
    for content in (" thành lập", " thành", " kết trở", " sống còn", " số học"):
        assert compatible.fits(content) == (content in (" thành",)), content
    for content in (" trở thành người", " người trở thành", " trở về", " từ từ"):
        assert compatible.fits(content), content


def overlapping(contents: list[str]) -> list[tuple[str, str]]:
    """Pairs whose first has a proper ending, from a syllable on, that begins the second and goes on there."""
    begins: dict[str, str] = {
        content[:size]: content for content in contents for size in range(1, len(content))
    }
    return [
        (first, begins[first[at:]])
        for first in contents
        for at in range(1, len(first))
        if first[at] == " " and begins.get(first[at:], first) != first
    ]


@pytest.mark.slow
def test_the_list_is_overlap_free_and_saves_what_it_says(qwen, rows, lines):
    """On text that was not chosen on, to the token, with the real tokenizer."""
    tokenizer = read_tokenizer_json(qwen)
    contents = candidates(rows, tokenizer)
    training = [line for line in lines if not held_out(line, one_in=HELD_OUT)]
    savings = savings_of(contents, training, load_encoder(qwen))
    chosen, _ = chosen_rows(rows, savings, wanted=Wanted(300))
    words = [" " + row["word"].replace("▁", " ") for row in chosen]
    assert len(words) == 300 and overlapping(words) == []
    assert overlapping([" trở thành", " thành lập"]), "the check itself"
    saved = [row["saved"] for row in chosen]
    assert saved == sorted(saved, reverse=True)
    for texts in (training, [line for line in lines if held_out(line, one_in=HELD_OUT)]):
        counts = Counter(texts)
        predicted = saved_by(set(range(len(words))), savings_of(words, texts, load_encoder(qwen)))
        real = count_tokens(load_encoder(qwen), counts) - count_tokens(extended(tokenizer, words), counts)
        assert predicted == real > 0
    assert predicted < sum(saved)


@settings(max_examples=min(6, settings().max_examples))  # each loads a tokenizer
@given(seed=st.integers(0, 10**6))
def test_any_list_saves_what_it_says(seed, qwen, lines, rows):
    """Overlapping words, false hits, odd spaces: leftmost-longest, as the library does."""
    draw = random.Random(seed)
    encoder = _encoder(qwen)
    words = [" " + row["word"].replace("▁", " ") for row in draw.sample(rows, 40)]
    words += [word[: draw.randint(4, len(word))].rstrip() for word in words if " " in word[1:4]]
    words = [word for word in dict.fromkeys(words) if " " in word[1:]]
    pieces = (
        [piece for line in draw.sample(lines, 3) for piece in line.split(" ")]
        + words * 2
        + ["", "ng", ",", "\t"]
    )
    text = "".join(draw.choice(pieces) + draw.choice([" ", "", ""]) for _ in range(60))
    with_them = extended(_tokenizer(qwen), words)
    real = len(encoder.encode(text).ids) - len(with_them.encode(text).ids)
    assert saved_by(set(range(len(words))), savings_of(words, [text], encoder)) == real


_CACHE: dict = {}


def _encoder(folder: Path):
    if "encoder" not in _CACHE:
        _CACHE["encoder"] = load_encoder(folder)
    return _CACHE["encoder"]


def _tokenizer(folder: Path):
    if "tokenizer" not in _CACHE:
        _CACHE["tokenizer"] = read_tokenizer_json(folder)
    return _CACHE["tokenizer"]


@pytest.mark.slow
def test_bundled_list(assets, qwen):
    """The bundled list: form, order, overlap-free, and what it saves on lines it was not chosen on."""
    path = Path(build_vi_words.__file__).parent / "data" / "vi_words_chosen.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    words = [new_token(row) for row in rows if "word" in row]
    assert len(set(words)) == len(words) == 2048 and overlapping(words) == []
    assert len(rows) == 2048 + 1024 and sum("word" in row for row in rows[:1024]) == 567
    saved = [row["saved"] for row in rows]
    assert saved == sorted(saved, reverse=True)
    lines = measured_lines(
        find_sources([str(assets / "corpora" / "vi")]), take=functools.partial(held_out, one_in=HELD_OUT)
    )
    tokens = count_tokens(load_encoder(qwen), lines)
    for number, share in ((1024, 0.125), (2048, 0.15)):
        first = [new_token(row) for row in rows[:number]]
        merges = [item for item in first if not isinstance(item, str)]
        encoder = extended(_tokenizer(qwen), [item for item in first if isinstance(item, str)], merges)
        assert 1 - count_tokens(encoder, lines) / tokens > share
