"""Files of words and syllables: each kind that can be read. What is refused: edit/test_extend.py."""

import lzma
import unicodedata

import pytest

from vocabkit.errors import UserError
from vocabkit.vocab.word_list import read_syllables, read_words


def test_words_of_every_kind_of_file(tmp_path):
    wanted = ["hôm nay", "Tiếng Việt"]
    (tmp_path / "a.txt").write_text("hôm▁nay\r\n\n  Tiếng Việt  \n", encoding="utf-8")
    assert read_words(tmp_path / "a.txt") == wanted
    text = '{"word": "hôm▁nay", "freq": 2}\n{"word": "Tiếng▁Việt"}\n'
    (tmp_path / "b.jsonl").write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    assert read_words(tmp_path / "b.jsonl") == wanted
    (tmp_path / "c.jsonl.xz").write_bytes(lzma.compress(text.encode()))
    assert read_words(tmp_path / "c.jsonl.xz", count=1) == wanted[:1]


def test_text_files_hold_no_syllables(tmp_path):
    (tmp_path / "words.txt").write_text("hôm nay\n", encoding="utf-8")
    assert read_syllables(tmp_path / "words.txt", count=0) == []
    with pytest.raises(UserError, match="has 0 syllables"):
        read_syllables(tmp_path / "words.txt", count=1)
