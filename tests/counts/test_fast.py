"""vocabkit/counts/fast.py: when gigatoken is trusted to encode as tokenizers does."""

import json
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from counted import MIXED, edited
from tiny import SENTENCES
from tokenizers import AddedToken, Tokenizer

from vocabkit.counts import fast
from vocabkit.counts.fast import FastEncoder, has_unassigned, why_not


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch) -> None:
    """Whatever is found about a tokenizer here is forgotten."""
    monkeypatch.setattr(fast, "_reasons", {})


@pytest.fixture
def few_characters(monkeypatch) -> None:
    """Compare by a few characters: all of them take seconds."""
    spaces = filter(str.isspace, map(chr, range(0x3001)))
    monkeypatch.setattr(fast, "assigned", lambda: [*"ab.1'é▁中\u0301\u200c\ufb01", *spaces])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it"])
def test_real_tokenizers_are_encoded_by_gigatoken(real_source, name):
    assert why_not(real_source(name)) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen", "llama3", "gemma"])
def test_small_tokenizers_are_encoded_by_gigatoken(tiny, kind):
    assert why_not(tiny(kind).path) is None


def test_what_is_not_installed_or_not_known_is_said(tiny, tiny_copy, monkeypatch):
    assert 'does not know this tokenizer (Unsupported model type "Unigram"' in (
        why_not(tiny("t5").path) or ""
    )
    path = edited(tiny_copy("qwen"), other_pattern).path
    assert "does not know this tokenizer (Unknown pre_tokenizer" in (why_not(path) or "")
    fast._reasons.clear()
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert "pip install gigatoken" in (why_not(path) or "")
    fast._reasons.clear()


@pytest.mark.parametrize("misread", ["ế", "\x1f\x00", "的" * 1025, "<|im_end|>b", "\u0958", "\U0001f600"])
def test_a_difference_in_any_part_of_the_probe_is_found(tiny, monkeypatch, misread):
    """A character, controls, runs, added tokens, what NFC takes apart, beyond 16 bits: one id too few."""
    text = unicodedata.normalize("NFC", misread)
    chars = [*"ab1", *text, misread] if len(misread) == 1 else [*"ab1"]
    monkeypatch.setattr(fast, "assigned", lambda: chars)
    path = tiny("qwen").path
    fast._reasons.clear()
    assert why_not(path) is None
    right = FastEncoder.ids

    def wrong(self: FastEncoder, texts: Any) -> list[np.ndarray]:
        return [ids[:-1] if text in t else ids for t, ids in zip(texts, right(self, texts), strict=True)]

    monkeypatch.setattr(FastEncoder, "ids", wrong)
    fast._reasons.clear()
    assert "otherwise than tokenizers" in (why_not(path) or "")
    fast._reasons.clear()


def test_every_assigned_character_is_in_the_probe():
    characters = fast.assigned()
    assert 140_000 < len(characters) < 200_000 and {*"aế的\0\u00a0\U0001f600"} <= {*characters}
    texts = list(fast.probe([], characters))
    assert unicodedata.is_normalized("NFC", "\n".join(texts)) and not has_unassigned("".join(texts))
    composed = {unicodedata.normalize("NFC", char) for char in characters}
    assert composed <= {*texts}
    assert {char for char in composed if len(char) == 1} <= {
        *"".join(text for text in texts if len(text) > 100)
    }


def test_a_renewed_encoder_gives_the_same_ids(tiny, monkeypatch):
    encoder = FastEncoder(tiny("qwen").path)
    first = [ids.tolist() for ids in encoder.ids(SENTENCES)]
    before, encoder._most = encoder._encode, 0  # as if memory had grown
    assert [ids.tolist() for ids in encoder.ids(SENTENCES)] == first
    assert encoder._encode is not before and encoder._most > 0


# Tokenizers that people make


def add_token(content: str, **flags: bool) -> Callable[[dict[str, Any]], None]:
    """Return a change that adds a token, as the library's add_tokens writes it."""

    def change(data: dict[str, Any]) -> None:
        tokenizer = Tokenizer.from_str(json.dumps(data))
        tokenizer.add_tokens([AddedToken(content, **flags)])
        data["added_tokens"] = json.loads(tokenizer.to_str())["added_tokens"]

    return change


def other_pattern(data: dict[str, Any]) -> None:
    """One that takes the space before a word and the word apart, and line ends together with words."""
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\w+ \w+|\s|\S+"}


def prefix_space(data: dict[str, Any]) -> None:
    data["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }


def prepend(data: dict[str, Any]) -> None:
    steps = [{"type": "Prepend", "prepend": "▁"}, data["normalizer"]]
    data["normalizer"] = {"type": "Sequence", "normalizers": steps}


def add_merge(left: str, right: str, *, ranked: int) -> Callable[[dict[str, Any]], None]:
    """Return a change that adds a token which these two merge to."""

    def change(data: dict[str, Any]) -> None:
        model = data["model"]
        for token in (left, right, left + right):
            model["vocab"].setdefault(
                token, max([*model["vocab"].values(), *(t["id"] for t in data["added_tokens"])]) + 1
            )
        model["merges"].insert(ranked, [left, right])

    return change


def truncated(data: dict[str, Any]) -> None:
    data["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "a",
    }  # fmt: skip


def look_up_whole_texts(data: dict[str, Any]) -> None:
    """ignore_merges, and a word that no merge makes: found only where it is the whole text."""
    data["model"]["ignore_merges"] = True
    data["model"]["vocab"]["▁hai"] = max(token["id"] for token in data["added_tokens"]) + 1000


UNUSUAL: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "a phrase, special": ("llama3", add_token("thời gian", special=True)),
    "a phrase for Gemma": ("gemma", add_token("thời gian")),
    "lstrip": ("qwen", add_token("hai", lstrip=True)),
    "rstrip": ("qwen", add_token("hai", rstrip=True)),
    "single_word": ("qwen", add_token("hai", single_word=True)),
    "space last": ("qwen", add_token("a ", normalized=False)),
    "line end inside": ("qwen", add_token("a\nb", normalized=False)),
    "line end": ("qwen", add_token("\n", normalized=False)),
    "two spaces": ("qwen", add_token("  ", normalized=False)),
    "é in two characters": ("qwen", add_token("e\u0301", normalized=True)),
    "é in two characters as written": ("qwen", add_token("e\u0301", normalized=False)),
    # joins a mark after it, where a text is in mixed form
    "ạ as written": ("qwen", add_token("ạ", normalized=False)),
    "another pattern": ("qwen", other_pattern),
    "add_prefix_space": ("qwen", prefix_space),
    "truncation and padding": ("qwen", truncated),
    "Prepend": ("gemma", prepend),
    "▁ last": ("gemma", add_merge("t", "▁", ranked=0)),
    "▁ inside": ("gemma", add_merge("▁a", "▁b", ranked=0)),
    "phrase with ▁": ("gemma", add_token("thời▁gian", normalized=True)),
    "phrase with ▁ as written": ("gemma", add_token("thời▁gian", normalized=False)),
    "▁ first": ("gemma", add_token("▁gian", normalized=True)),
    "ignore_merges": ("gemma", look_up_whole_texts),
    "line end last in a token": ("gemma", add_merge("a", "\n", ranked=0)),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_unusual_tokenizers_are_counted_as_encoded(tiny_copy, few_characters, case):
    kind, change = UNUSUAL[case]
    opened = edited(tiny_copy(kind), change)
    reason = why_not(opened.path)
    assert bool(reason) == (case in ("single_word", "é in two characters", "another pattern")), reason
    if reason is None:
        more = ["a é", "a e\u0301", "xin ạ\u0302 ạ", "a\x85\nb", "a\x85 b\x85", "hai hai\nhai  hai\u200c hai"]
        opened.check([*MIXED, *more])
