"""Files of words and syllables: each kind that can be read. What is refused: edit/test_extend.py."""

import gzip
import lzma
import unicodedata

import pytest

from vocabkit.errors import UserError
from vocabkit.vocab.word_list import read_dictionary, read_syllables, read_words


def test_words_of_every_kind_of_file(tmp_path):
    wanted = ["hôm nay", "Tiếng Việt"]
    (tmp_path / "a.txt").write_text("hôm▁nay\r\n\n  Tiếng Việt  \n", encoding="utf-8")
    assert read_words(tmp_path / "a.txt") == wanted
    text = '{"word": "hôm▁nay", "freq": 2}\n{"word": "Tiếng▁Việt"}\n'
    (tmp_path / "b.jsonl").write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    assert read_words(tmp_path / "b.jsonl") == wanted
    (tmp_path / "c.jsonl.xz").write_bytes(lzma.compress(text.encode()))
    assert read_words(tmp_path / "c.jsonl.xz", count=1) == wanted[:1]


BY_HAND = "\ufeff# những từ\r\nhôm_nay\r\r\n \u00a0Tiếng  Việt \t\n\ufeff # tối nay\ncảm\u00a0ơn▁bạn"


def test_words_as_people_and_their_editors_write_them(tmp_path):
    """A byte order mark, line ends of three systems, all kinds of spaces, comments, pyvi's underscores."""
    wanted = ["hôm nay", "Tiếng Việt", "cảm ơn bạn"]
    (tmp_path / "a.txt").write_bytes(BY_HAND.encode())
    assert read_words(tmp_path / "a.txt") == wanted
    with gzip.open(tmp_path / "a.txt.gz", "wb") as file:
        file.write(BY_HAND.encode())
    assert read_words(tmp_path / "a.txt.gz") == wanted
    rows = (
        '\ufeff# những từ\r\n{"word": "hôm_nay"}\r\n{"word": " Tiếng\u00a0 Việt "}\r\n{"word":"▁cảm▁ơn bạn"}'
    )
    (tmp_path / "b.jsonl").write_bytes(rows.encode())
    assert read_words(tmp_path / "b.jsonl") == wanted


def test_dictionaries_as_people_and_their_editors_write_them(tmp_path):
    (tmp_path / "d.txt").write_bytes("\ufefftime\tthời_gian\r\n# x\r\n period \tThời  gian\r".encode())
    assert read_dictionary(tmp_path / "d.txt") == {"thời gian": ["time", "period"]}
    (tmp_path / "d.jsonl").write_bytes('\ufeff{"word": "thời_gian", "en": ["time"]}\r\n'.encode())
    assert read_dictionary(tmp_path / "d.jsonl") == {"thời gian": ["time"]}
    (tmp_path / "d.txt").write_bytes(b"time\t\r\n")
    with pytest.raises(UserError, match="d.txt:1 is neither a row such as"):
        read_dictionary(tmp_path / "d.txt")


def test_text_files_hold_no_syllables(tmp_path):
    (tmp_path / "words.txt").write_text("hôm nay\n", encoding="utf-8")
    assert read_syllables(tmp_path / "words.txt", count=0) == []
    with pytest.raises(UserError, match="has 0 syllables"):
        read_syllables(tmp_path / "words.txt", count=1)
