"""vocabkit/counts/tokens.py: the same counts as encoding every document, for every tokenizer and any text.

HYPOTHESIS_PROFILE=thorough adds every code point there is to the sample, more documents and more examples.
"""

import dataclasses
import functools
import itertools
import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import REAL_NAMES, SENTENCES, TINY_KINDS, write_tiny
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers

from vocabkit.counts import tokens
from vocabkit.counts.cuts import SPACES, Cuts, Cutter
from vocabkit.counts.tokens import END, ONE_WORD, ChunkCounter, Tally, TokenCounter, bordered, merge
from vocabkit.tokenizer.bpe import byte_level_token
from vocabkit.tokenizer.encoder import GPT2, LLAMA3, QWEN2

NAMES = [*REAL_NAMES, "qwen2-instruct", "stories260K"]
SMALL = [*TINY_KINDS, "gpt2"]
# tests/conftest.py's profile sets how much is tried: 40 normally, 2,000 for HYPOTHESIS_PROFILE=thorough.
BUDGET = settings().max_examples
THOROUGH = BUDGET > 1000
SETTLED = re.compile(f"[{tokens.SETTLED}]*")
PATTERNS = {"GPT-2": GPT2, "Qwen2": QWEN2, "Llama-3": LLAMA3}


def culprit(items: Sequence[Any], differ: Callable[[Sequence[Any]], bool]) -> Sequence[Any]:
    """Halve items that differ until no half of them does any more."""
    while len(items) > 1:
        halves = items[: len(items) // 2], items[len(items) // 2 :]
        half = next((half for half in halves if differ(half)), None)
        if half is None:
            break
        items = half
    return items


@dataclasses.dataclass(frozen=True)
class Opened:
    """A tokenizer as our code counts with it, and the same one as the tokenizers library runs it."""

    path: Path
    counter: TokenCounter

    @property
    def encoder(self) -> Tokenizer:
        return self.counter.encoder

    @property
    def cuts(self) -> Cuts | None:
        return self.counter.recipe.cuts

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """Count as our code does."""
        self.counter.add(texts)
        return self.counter.take()

    def direct(self, texts: Sequence[str]) -> np.ndarray:
        """Count as the library encodes, each document by itself and with its special tokens."""
        ids = [i for encoding in self.encoder.encode_batch(list(texts)) for i in encoding.ids]
        return np.bincount(np.asarray(ids, np.int64), minlength=self.counter.recipe.ids)

    def explain(self, found: np.ndarray, expected: np.ndarray) -> str:
        """Say which tokens were counted wrongly, token: (counted, expected)."""
        wrong = [int(i) for i in np.flatnonzero(found != expected)[:10]]
        return str({self.encoder.id_to_token(i): (int(found[i]), int(expected[i])) for i in wrong})

    def check(self, texts: Sequence[str]) -> None:
        """Assert that these texts are counted as by the library."""
        found, expected = self.count(texts), self.direct(texts)
        assert found.dtype == np.int64
        assert found.shape == expected.shape
        if not (found == expected).all():
            self.check_parts(texts, list)  # names the text
        assert (found == expected).all(), self.explain(found, expected)

    def check_parts(self, items: Sequence[Any], documents: Callable[[Sequence[Any]], list[str]]) -> None:
        """Assert that the documents made of items are counted as the library does; the message names the
        fewest items that are not.
        """

        def both(part: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
            texts = documents(part)
            return self.count(texts), self.direct(texts)

        def differ(part: Sequence[Any]) -> bool:
            found, expected = both(part)
            return not (found == expected).all()

        if differ(items):
            least = culprit(items, differ)
            pytest.fail(f"{[ascii(item) for item in least]}: {self.explain(*both(least))}")


def open_counter(folder: Path) -> Opened:
    return Opened(folder, TokenCounter(folder))


# Tokenizers


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Opened:
    """Change a tiny folder's tokenizer.json."""
    file = path / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")
    return open_counter(path)


def without_phrase(data: dict[str, Any]) -> None:
    """Take out the added token that holds a space: with it, no cut is exact."""
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != " thời gian"]


def like_gpt2(data: dict[str, Any]) -> None:
    without_phrase(data)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data |= {"normalizer": None, "pre_tokenizer": byte_level}


def with_white_tokens(data: dict[str, Any]) -> None:
    """Add tokens of white space with white space, letters and marks, so that a wrong cut breaks one of them.

    Real vocabularies have few: hardly any wrong cut at a vertical tab, say, would change a count.
    """
    model = data["model"]
    is_byte_level = "Ġ" in model["vocab"]
    white = [byte_level_token(char.encode()) if is_byte_level else char for char in "\n\t\r\x0b\x1f"]
    space = "Ġ" if is_byte_level else "▁"
    next_id = itertools.count(
        max([*model["vocab"].values(), *(token["id"] for token in data["added_tokens"])]) + 1
    )
    for left, right in itertools.product([*white, space, *"ab.'1"], repeat=2):
        # For Gemma a token with a ▁ behind anything means that there are no cuts
        if {left, right} & {*white, space} and (is_byte_level or right != space):
            for token in (left, right, left + right):
                if token not in model["vocab"]:
                    model["vocab"][token] = next(next_id)
            as_text = model["merges"] and isinstance(model["merges"][0], str)
            model["merges"].append(f"{left} {right}" if as_text else [left, right])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Callable[[str], Opened]:
    """kind (SMALL) → a tiny tokenizer whose texts may be cut, and its counter; each is made once."""

    @functools.cache
    def make(kind: str) -> Opened:
        path = tmp_path_factory.mktemp("small") / kind
        write_tiny(path, "qwen" if kind == "gpt2" else kind)
        opened = edited(path, like_gpt2 if kind == "gpt2" else without_phrase)
        return opened if kind == "t5" else edited(path, with_white_tokens)

    return make


@pytest.fixture(scope="module")
def opened(assets) -> Callable[[str], Opened]:
    """name (NAMES) → a real tokenizer and its counter; each is read once: the large ones take seconds."""

    @functools.cache
    def open_one(name: str) -> Opened:
        folder = assets / ("models" if name == "stories260K" else "tokenizers") / name
        if not folder.is_dir():
            pytest.skip(f"no {name} in {folder.parent}")
        return open_counter(folder)

    return open_one


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


# Any text

# What has been, or may be, taken for a space or a border by one library and not by the other, or joined to
# what stands before or after it.
FRAGMENTS = [
    *" \t\r\n\0", "  ", "   ", "\r\n", "\n\n", " \n", "\n ", "\t ", " \t", "\n\r\n", "\r\r\n",
    *SPACES, *"\u200b\u200c\u200d\u200e\ufeff\u2060\u180e\xad\u061c", *"\x01\x02\x04",
    *"\x7f\x1b\x8f\ufffd\ufffc", "▁", "▁▁", "a▁b", "Ġ", "Ċ", "<0x0A>",
    # Combining marks, also of Thai and Devanagari; Vietnamese in all forms
    *"\u0300\u0301\u0309\u0323\u0308\u0338\u20e3\u0e31\u0e33\u093f\u094d\u3099\ufe0f",
    " \u0301", "\n\u0301", "<\u0338", "e\u0301\u0323", "việc", "vie\u0323\u0302c", "vi\u1eb9\u0302c",
    "thời gian", "tho\u031b\u0300i gian", "ậ", "ạ\u0302",
    # For (?i:'s|'t|'re|'ve|'m|'ll|'d); ſ folds to s, the Kelvin sign to k
    "'s", "'S", "'ſ", "'LL", "'ll", "'t", "'re", "'VE", "'\u212a", "’s", "'d", "'m", " 's", "s'", "I'll",
    *"ßıİ", "0", "12", "1234567", "\u0660\u0661\u0662", "\uff10\uff11", *"\xb2\xb3\u2167½\u0967\U0001d7ce",
    "中文", "天气", "カ\u3099", "ｶﾞ", "한국", "\u1112\u1161\u11ab", "ก็", "ภาษาไทย", "กำ", "हिन्दी",
    "\u05dc\u05b8", "\u0645\u064e", "👩\u200d👩\u200d👧", "👍🏽", "1\ufe0f\u20e3", "🇻🇳", "☺\ufe0f",
    # Unassigned, private, tags; what belongs to the character after it; what normalizers change
    *"\u0378\U000e0080\U0010ffff\ue000\U000f0000\U000e0041", *"\u0600\u06dd\u0d4e\U000110bd",
    *"¨´\u1fbd\u037e\u0344\u2126\uff5e\ufb01ǆ",
    *"abZ.-_#<>{", "...", "?!", "<|", "|>", "</", "\\n", "http://a.b/c?d=e", "xyz", "The", " the",
]  # fmt: skip


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


# Where texts are cut

LAST = Cuts(last=True, lines=True)
CUTS = {
    "words": Cuts(last=True, lines=True, words=QWEN2),
    "last": LAST,
    "last, no lines": Cuts(last=True, lines=False),
    "first": Cuts(last=False, lines=True),
    "first, no lines": Cuts(last=False, lines=False),
}


def cut(texts: Sequence[str], cuts: Cuts, added: Sequence[str] = ()) -> list[str]:
    return Cutter(cuts, added).chunks(texts).to_pylist()


def kind_of(char: str) -> str:
    if not char.isascii():
        return "?"
    return (
        "white" if char.isspace() else "letter" if char.isalpha() else "digit" if char.isdigit() else "other"
    )


def may_be_cut(before: str, after: str, cuts: Cuts, added: Sequence[str]) -> bool:
    """Whether a text may be cut between these two parts, as vocabkit/counts/cuts.py's docstring says."""
    if not before or not after:
        return False
    spaces = after[: len(after) - len(after.lstrip())]
    if not cuts.last:
        at_space = after[0] == " " and before[-1] != " "
        return at_space or (cuts.lines and before[-1] == "\n" and after[0] != "\n")
    if after[0] == " " and spaces == " " and len(after) > 1:
        added_next = after[1].encode()[:1] in {content.encode()[:1] for content in added}
        if not added_next or (before[-1].isascii() and not before[-1].isspace()):
            return True
    if cuts.lines and before[-1] == "\n" and not {"\n", "\r"} & set(spaces):
        return True
    first, second = kind_of(before[-1]), kind_of(after[0])
    border = (first in ("letter", "digit") and second not in ("?", first)) or (first, second) == (
        "other",
        "digit",
    )
    inside = any(before[-1] + after[0] in content for content in added)
    return bool(cuts.words) and border and not inside


def cut_by_rule(text: str, cuts: Cuts, added: Sequence[str] = ()) -> list[str]:
    at = [0, *(at for at in range(1, len(text)) if may_be_cut(text[:at], text[at:], cuts, added)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(at)] if text else []


@pytest.mark.parametrize(
    ("text", "last", "first"),
    [
        ("tôi đi", ["tôi", " đi"], ["tôi", " đi"]),
        ("tôi\nđi", ["tôi\n", "đi"], ["tôi\n", "đi"]),
        ("a  b", ["a ", " b"], ["a", "  b"]),
        ("a    b", ["a   ", " b"], ["a", "    b"]),
        ("a\n\n\nb", ["a\n\n\n", "b"], ["a\n\n\n", "b"]),
        ("a\n b", ["a\n", " b"], ["a\n", " b"]),
        ("a\n \n  b", ["a\n \n", " ", " b"], ["a\n", " \n", "  b"]),
        ("a\n  ", ["a\n", "  "], ["a\n", "  "]),
        ("a \nb", ["a \n", "b"], ["a", " \n", "b"]),
        ("a\t b", ["a\t", " b"], ["a\t", " b"]),
        ("a \tb", ["a \tb"], ["a", " \tb"]),
        ("a \u3000b", ["a \u3000b"], ["a", " \u3000b"]),
        ("a\n\tb", ["a\n", "\tb"], ["a\n", "\tb"]),
        ("a\r\nb", ["a\r\n", "b"], ["a\r\n", "b"]),
        ("a\n\r\n\nb", ["a\n\r\n\n", "b"], ["a\n", "\r\n\n", "b"]),
        ("a\n\t\rb", ["a\n\t\rb"], ["a\n", "\t\rb"]),
        ("a\n" + " " * 300 + "b", ["a\n" + " " * 299, " b"], ["a\n", " " * 300 + "b"]),  # gives up
        (" a ", [" a "], [" a", " "]),
        ("\na\n", ["\n", "a\n"], ["\n", "a\n"]),
        ("", [], []),
    ],
)
def test_chunks_by_hand(text, last, first):
    assert cut([text], LAST) == last
    assert cut([text], CUTS["first"]) == first
    if len(text) < 100:
        assert cut_by_rule(text, LAST) == last and cut_by_rule(text, CUTS["first"]) == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("self.x12=(y), z\n", ["self", ".x", "12", "=(y", "),", " z", "\n"]),
        ("don't 5.5% có, a", ["don", "'t", " 5", ".", "5", "%", " có,", " a"]),
        ("a <s> b<s>", ["a", " <s>", " b", "<s>"]),
        ("a  <s>  b", ["a", "  <s> ", " b"]),
        ("as>", ["as>"]),  # s> is part of the added token
    ],
)
def test_chunks_of_words_by_hand(text, expected):
    found = cut([text], CUTS["words"], ["<s>"])
    assert found == cut_by_rule(text, CUTS["words"], ["<s>"]) == expected


@pytest.mark.parametrize("name", CUTS)
def test_chunks_never_reach_into_the_next_document(name):
    texts = [
        "a",
        " b",
        "\n",
        "\nc ",
        "",
        " d",
        "\t",
        " e\n",
        "f",
        " ",
        "g  ",
        "\n",
        "1",
        "<",
        "s>",
        "h\n ",
        "\n",
    ]
    check_cuts(texts, CUTS[name])


plain_texts = st.lists(st.sampled_from([*" \n\t\r.a1'", "  ", "\n\n", "\r\n", "đi", "<s>"]), max_size=16)
other_texts = st.lists(
    st.one_of(st.sampled_from([*" \n\r.a1", *SPACES, "\u0301", "\u200b", "ế", "“"]), st.text(max_size=3)),
    max_size=16,
)


@pytest.mark.parametrize("name", CUTS)
@given(text=plain_texts.map("".join))
def test_chunks_are_the_text_cut_by_the_rule(name, text):
    assert cut([text], CUTS[name], ["<s>"]) == cut_by_rule(text, CUTS[name], ["<s>"])


@pytest.mark.parametrize("name", CUTS)
@given(texts=st.lists(other_texts.map("".join), max_size=4))
@example(["a b", " ", "\n", "\t "])
@example([])
def test_other_texts_are_cut_only_where_the_rule_allows(name, texts):
    check_cuts(texts, CUTS[name])


def ends(pieces: Iterable[str]) -> set[int]:
    """Where pieces of a text end."""
    return set(itertools.accumulate(map(len, pieces))) - {0}


def check_cuts(texts: list[str], cuts: Cuts) -> None:
    """Assert that all texts are cut from each other, and within only where the rule allows."""
    found = cut(texts, cuts, ["<s>"])
    assert "".join(found) == "".join(texts)
    allowed = ends(piece for text in texts for piece in cut_by_rule(text, cuts, ["<s>"]))
    assert ends(texts) <= ends(found) <= allowed


# Which tokenizers may be cut at all


@pytest.mark.assets
@pytest.mark.parametrize("name", NAMES)
def test_where_real_tokenizers_are_cut(opened, name):
    cuts = opened(name).cuts
    if name == "stories260K":  # its normalizer puts ▁ before every text
        assert cuts is None
    else:
        words = dict.fromkeys(["qwen2.5-instruct", "qwen2-instruct", "qwen3"], QWEN2)
        assert (cuts.lines, cuts.words) == (True, (words | {"llama-3.2-instruct": LLAMA3}).get(name))


@pytest.mark.parametrize(
    ("kind", "lines", "words"),
    [
        ("qwen", True, QWEN2),
        ("llama3", True, QWEN2),  # conftest.py's
        ("gpt2", False, GPT2),
        ("gemma", False, None),
        ("t5", True, None),
    ],
)
def test_where_small_tokenizers_are_cut(small, kind, lines, words):
    cuts = small(kind).cuts
    assert (cuts.lines, cuts.words) == (lines, words)


def add_token(content: str, **flags: bool) -> Callable[[dict[str, Any]], None]:
    """Return a change that adds a token, as the library's add_tokens writes it."""

    def change(data: dict[str, Any]) -> None:
        without_phrase(data)
        tokenizer = Tokenizer.from_str(json.dumps(data))
        tokenizer.add_tokens([AddedToken(content, **flags)])
        data["added_tokens"] = json.loads(tokenizer.to_str())["added_tokens"]

    return change


def other_pattern(data: dict[str, Any]) -> None:
    """One that takes the space before a word and the word apart, and line ends together with words."""
    without_phrase(data)
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\w+ \w+|\s|\S+"}


def prefix_space(data: dict[str, Any]) -> None:
    like_gpt2(data)
    data["pre_tokenizer"]["add_prefix_space"] = True


def prepend(data: dict[str, Any]) -> None:
    steps = [{"type": "Prepend", "prepend": "▁"}, data["normalizer"]]
    data["normalizer"] = {"type": "Sequence", "normalizers": steps}


def add_merge(left: str, right: str, *, ranked: int) -> Callable[[dict[str, Any]], None]:
    """Return a change that adds a token which these two merge to."""

    def change(data: dict[str, Any]) -> None:
        without_phrase(data)
        model = data["model"]
        for token in (left, right, left + right):
            model["vocab"].setdefault(
                token, max([*model["vocab"].values(), *(t["id"] for t in data["added_tokens"])]) + 1
            )
        model["merges"].insert(ranked, [left, right])

    return change


def other_replacement(data: dict[str, Any]) -> None:
    data["pre_tokenizer"]["prepend_scheme"] = "never"


MIXED = [
    *SENTENCES,
    "xin thời gian thời  gian\nthời gian, thời\ngian\n\nthời \n gian",
    "a b\na  b \na\tb a\nb", "a.\n\n b.\nc\r\nd \ne", "một hai a hai b\n hai", "Thời gian Thời gian",
    "\n", " a", "",
]  # fmt: skip


NEVER_CUT: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "a phrase": ("qwen", lambda data: None),  # conftest.py's " thời gian"
    "a phrase, special": ("llama3", add_token("thời gian", special=True)),
    "a phrase for Gemma": ("gemma", add_token("thời gian")),
    "a phrase for T5": ("t5", add_token("thời gian")),
    "lstrip": ("qwen", add_token("hai", lstrip=True)),
    "rstrip": ("qwen", add_token("hai", rstrip=True)),
    "single_word": ("qwen", add_token("hai", single_word=True)),
    "lstrip for T5": ("t5", add_token("hai", lstrip=True)),
    "space last": ("qwen", add_token("a ", normalized=False)),
    "line end inside": ("qwen", add_token("a\nb", normalized=False)),
    "another pattern": ("qwen", other_pattern),
    "add_prefix_space": ("qwen", prefix_space),
    "Prepend": ("gemma", prepend),
    "▁ last": ("gemma", add_merge("t", "▁", ranked=0)),
    "▁ inside": ("gemma", add_merge("▁a", "▁b", ranked=0)),
    "Metaspace never": ("t5", other_replacement),
}


@pytest.mark.parametrize("case", NEVER_CUT)
def test_tokenizers_that_may_not_be_cut_are_counted_whole(tiny_copy, case):
    kind, change = NEVER_CUT[case]
    tokenizer = edited(tiny_copy(kind), change)
    assert tokenizer.cuts is None
    tokenizer.check(MIXED)


def without_normalizer(data: dict[str, Any]) -> None:
    data["normalizer"] = None


def table_only(data: dict[str, Any]) -> None:
    data["normalizer"] = data["normalizer"]["normalizers"][0]


def no_table(data: dict[str, Any]) -> None:
    """As converters write it for a SentencePiece model trained with --normalization_rule_name=identity."""
    del data["normalizer"]["normalizers"][0]


def strip_last(data: dict[str, Any]) -> None:
    data["normalizer"]["normalizers"][1:] = data["normalizer"]["normalizers"][:0:-1]


def split_at_white_space(data: dict[str, Any]) -> None:
    """As mT5."""
    splitters = [{"type": "WhitespaceSplit"}, data["pre_tokenizer"]]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": splitters}


def look_up_whole_texts(data: dict[str, Any]) -> None:
    """ignore_merges, and a word that no merge makes: found only where it is the whole text."""
    data["model"]["ignore_merges"] = True
    data["model"]["vocab"]["▁hai"] = max(token["id"] for token in data["added_tokens"]) + 1000


def line_end_token(data: dict[str, Any]) -> None:
    """As Gemma-2: line ends, one and two, are added tokens."""
    for content in ("\n", "\n\n"):
        add_token(content, normalized=False)(data)


# Whether, and where, these are cut is not asked: only that the counts are right.
UNUSUAL: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "no normalizer": ("t5", without_normalizer),
    "table only": ("t5", table_only),
    "no table": ("t5", no_table),
    "strip last": ("t5", strip_last),
    "split at white space": ("t5", split_at_white_space),
    "phrase with ▁": ("t5", add_token("thời▁gian", normalized=True)),
    "phrase with a tab": ("t5", add_token("thời\tgian", normalized=True)),
    # Strips the white space of a whole text, not that before an added token which is looked for afterwards
    "T5, word": ("t5", add_token("hai", normalized=True)),
    "T5, word as written": ("t5", add_token("hai", normalized=False)),
    "▁ first": ("t5", add_token("▁gian", normalized=True)),
    "Gemma, phrase with ▁": ("gemma", add_token("thời▁gian", normalized=True)),
    "Gemma, phrase with ▁ as written": ("gemma", add_token("thời▁gian", normalized=False)),
    "Gemma, ▁ first": ("gemma", add_token("▁gian", normalized=True)),
    "Gemma, ignore_merges": ("gemma", look_up_whole_texts),
    "Gemma, line ends": ("gemma", line_end_token),
    "Gemma, line end last in a token": ("gemma", add_merge("a", "\n", ranked=0)),
    "Gemma, line end first in a token": ("gemma", add_merge("\n", "b", ranked=0)),
    "word": ("qwen", add_token("hai", normalized=True)),
    "space first": ("qwen", add_token(" hai", normalized=False)),
    "line end": ("qwen", add_token("\n", normalized=False)),
    "two spaces": ("qwen", add_token("  ", normalized=False)),
    "é in two characters": ("qwen", add_token("e\u0301", normalized=True)),
    "é in two characters as written": ("qwen", add_token("e\u0301", normalized=False)),
    # joins a mark after it, where a text is in mixed form
    "ạ as written": ("qwen", add_token("ạ", normalized=False)),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_tokenizers_are_counted_as_encoded(tiny_copy, case):
    kind, change = UNUSUAL[case]
    more = ["a é", "a e\u0301", "xin ạ\u0302 ạ", "a\x85\nb", "a\x85 b\x85", "hai hai\nhai  hai hai"]
    edited(tiny_copy(kind), change).check([*MIXED, *more])


@pytest.mark.assets
@pytest.mark.parametrize("name", ["t5-v1_1", "SYNTHETIC-mt5-like-32k"])
@pytest.mark.parametrize("text", ["a\x85\nb", "a\x85 b", "a\x0b\nb", "a\u0600 b", "a \n</s>\nb", "¨ ¨\n¨"])
def test_what_unigram_strips(opened, name, text):
    """T5 strips what is white space at the end of a text, where its normalizer leaves it: U+0085 is left."""
    opened(name).check_parts([text], list)


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
