"""Tokenizers with counters beside what encoding each text gives, for tests of counting."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from tiny import REAL_NAMES, SENTENCES, TINY_KINDS
from tokenizers import Tokenizer

from vocabkit.counts.cuts import SPACES, Cuts
from vocabkit.counts.tokens import TokenCounter
from vocabkit.tokenizer.bpe import byte_level_token

NAMES = [*REAL_NAMES, "qwen2-instruct", "stories260K"]


SMALL = [*TINY_KINDS, "gpt2"]


# tests/conftest.py's profile sets how much is tried: 40 normally, 2,000 for HYPOTHESIS_PROFILE=thorough.


BUDGET = settings().max_examples


THOROUGH = BUDGET > 1000


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
    next_id = itertools.count(max(model["vocab"].values()) + 1)
    for left, right in itertools.product([*white, space, *"ab.'1"], repeat=2):
        # For Gemma a token with a ▁ behind anything means that there are no cuts
        if {left, right} & {*white, space} and (is_byte_level or right != space):
            for token in (left, right, left + right):
                if token not in model["vocab"]:
                    model["vocab"][token] = next(next_id)
            as_text = model["merges"] and isinstance(model["merges"][0], str)
            model["merges"].append(f"{left} {right}" if as_text else [left, right])
    # Added tokens follow the vocabulary, as the library numbers them.
    moved = {t["id"]: next(next_id) for t in data["added_tokens"] if t["content"] not in model["vocab"]}
    for token in data["added_tokens"]:
        token["id"] = moved.get(token["id"], token["id"])
    for special in ((data["post_processor"] or {}).get("special_tokens") or {}).values():
        special["ids"] = [moved.get(token_id, token_id) for token_id in special["ids"]]


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


MIXED = [
    *SENTENCES,
    "xin thời gian thời  gian\nthời gian, thời\ngian\n\nthời \n gian",
    "a b\na  b \na\tb a\nb", "a.\n\n b.\nc\r\nd \ne", "một hai a hai b\n hai", "Thời gian Thời gian",
    "\n", " a", "",
]  # fmt: skip
