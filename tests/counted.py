"""Tokenizers with counters beside what encoding each text gives, for tests of counting."""

import dataclasses
import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from tiny import REAL_NAMES, SENTENCES, TINY_KINDS
from tokenizers import Tokenizer

from vocabkit.counts.tokens import TokenCounter

NAMES = [*REAL_NAMES, "qwen2-instruct", "stories260K"]


SMALL = [*TINY_KINDS, "gpt2"]


# tests/conftest.py's profile sets how much is tried: 40 normally, 2,000 for HYPOTHESIS_PROFILE=thorough.


BUDGET = settings().max_examples


@dataclasses.dataclass(frozen=True)
class Opened:
    """A tokenizer as our code counts with it, and the same one as the tokenizers library runs it."""

    path: Path
    is_fast: bool  # by gigatoken
    counter: TokenCounter

    @property
    def encoder(self) -> Tokenizer:
        return self.counter.encoder

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """Count as our code does."""
        self.counter.add(texts)
        return self.counter.take()

    def direct(self, texts: Sequence[str]) -> np.ndarray:
        """Count as the library encodes, each document by itself and with its special tokens."""
        ids = [i for encoding in self.encoder.encode_batch(list(texts)) for i in encoding.ids]
        return np.bincount(np.asarray(ids, np.int64), minlength=self.counter.ids)

    def check(self, texts: Sequence[str]) -> None:
        """Assert that these texts, in NFC, are counted as by the library; name one that is not."""
        texts = [unicodedata.normalize("NFC", text) for text in texts]
        found, expected = self.count(texts), self.direct(texts)
        assert found.dtype == np.int64
        assert found.shape == expected.shape
        if not (found == expected).all():
            each = (text for text in texts if not (self.count([text]) == self.direct([text])).all())
            wrong = [int(i) for i in np.flatnonzero(found != expected)[:10]]
            tokens = {self.encoder.id_to_token(i): (int(found[i]), int(expected[i])) for i in wrong}
            raise AssertionError(f"{next(each, 'all texts together')!r}: (counted, expected) {tokens}")


def open_counter(folder: Path) -> Opened:
    """Count by gigatoken where it can read the tokenizer at all, without comparing, which takes seconds."""
    try:
        return Opened(folder, True, TokenCounter(folder, fast=True))
    except RuntimeError:
        return Opened(folder, False, TokenCounter(folder))


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> Opened:
    """Change a tiny folder's tokenizer.json."""
    file = path / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")
    return open_counter(path)


def like_gpt2(data: dict[str, Any]) -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data |= {"normalizer": None, "pre_tokenizer": byte_level}


# What has been, or may be, taken for a space or a border by one library and not by the other, or joined to
# what stands before or after it.


FRAGMENTS = [
    *" \t\r\n\0", "  ", "   ", "\r\n", "\n\n", " \n", "\n ", "\t ", " \t", "\n\r\n", "\r\r\n",
    *filter(str.isspace, map(chr, range(0x3001))),
    *"\u200b\u200c\u200d\u200e\ufeff\u2060\u180e\xad\u061c", *"\x01\x02\x04",
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
    # Of Unicode 17, which gigatoken knows and tokenizers does not; marks that composing sorts
    *"\U00011de9\U00016ff4\U000323b0\u1acf", "\U00011935\U00011930", "\u2133\u08ea\u1715", "a\u1ac9\u08e3",
    *"abZ.-_#<>{", "...", "?!", "<|", "|>", "</", "\\n", "http://a.b/c?d=e", "xyz", "The", " the",
]  # fmt: skip


MIXED = [
    *SENTENCES,
    "xin thời gian thời  gian\nthời gian, thời\ngian\n\nthời \n gian",
    "a b\na  b \na\tb a\nb", "a.\n\n b.\nc\r\nd \ne", "một hai a hai b\n hai", "Thời gian Thời gian",
    "\n", " a", "",
]  # fmt: skip
