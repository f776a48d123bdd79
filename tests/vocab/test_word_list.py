"""Files of words and syllables: each kind that can be read. What is refused: edit/test_extend.py."""

import gzip
import lzma
import re
import unicodedata

import pytest

from vocabkit.errors import UserError
from vocabkit.vocab.word_list import read_dictionary, read_list, read_words


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
    assert read_list(tmp_path / "words.txt").merges == []


BAD_ROWS = [
    '{"word": "hôm▁nay"}',
    "hôm nay",
    '{"word": 5}',
    '["a"]',
    '{"word": "<|x|>"}',
    '{"word": "hôm_nay"}',
    '{"syllable": " gian", "merge": ["Ġg", "ian"]}',
    '{"syllable": " gian", "merge": ["Ġgi", "an"]}',
    '{"syllable": " gian", "merge": "Ġgian"}',
    '{"word": "Ġgian"}',
    "[" * 100_000,
]


def test_one_bad_row_never_costs_the_list(tmp_path, capsys):
    path = tmp_path / "w.jsonl"
    path.write_text("\n".join(BAD_ROWS), encoding="utf-8")
    found = read_list(path)
    assert found.entries == ["hôm nay", ("Ġg", "ian"), "Ġgian"]
    where = [re.match(r".*w\.jsonl:(\d+) (.{11})", why).groups() for why in found.left_out]
    assert where == [
        ("2", "is not JSON"), ("3", 'has no "wor'), ("4", 'has no "wor'), ("5", "has the wor"),
        ("6", "has 'hôm na"), ("8", "has 'Ġgian'"), ("9", 'has no "mer'), ("11", "is not JSON"),
    ]  # fmt: skip
    assert read_words(path) == ["hôm nay", "Ġgian"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[-1] == "left out: 8 of 11 rows" and "w.jsonl:2 is not JSON" in said[0]
    with pytest.raises(
        UserError, match="--num_words is 3, .* has 2 words .8 rows left out: .*give at most as many"
    ):
        read_words(path, count=3)
    path.write_text("\n".join(BAD_ROWS[1:3]), encoding="utf-8")
    with pytest.raises(UserError, match="w.jsonl:1 is not JSON"):
        read_list(path)
