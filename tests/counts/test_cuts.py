"""vocabkit/counts/cuts.py: where texts are cut, by the rule, and which tokenizers may be cut at all."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from counted import (
    MIXED,
    NAMES,
    edited,
    like_gpt2,
    without_phrase,
)
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from vocabkit.counts.cuts import SPACES, Cuts, Cutter
from vocabkit.tokenizer.encoder import GPT2, LLAMA3, QWEN2

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
