"""What is wrong with rows that explain words: each finding by a row that has it, and the bundled rows."""

import copy
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from explaining import ENCODER, MARKET, TIME, changed, with_example
from tiny import ROOT

from vocabkit.errors import UserError
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.vocab.word_list import read_dictionary
from vocabkit.words.explain.rows import check_explanations, read_explanations

DATA = ROOT / "data" / "vi_words_similarity.jsonl"


def test_good_rows_have_no_finding():
    assert check_explanations([TIME, MARKET], words=["thời gian", "chợ▁nổi"], encoder=ENCODER) == []
    assert check_explanations([TIME, MARKET]) == []
    bare = [{key: value for key, value in row.items() if key != "en_one_token"} for row in (TIME, MARKET)]
    assert check_explanations(bare) == [], "without a tokenizer the key may be missing"


GOOD, NFD = TIME["examples"], unicodedata.normalize("NFD", "lúc")
FINDINGS: dict[str, tuple[Any, str]] = {
    "no object": ([1], r"is a list, expected an object"),
    "keys": (changed(note=""), r"has the keys \['word'.*'note'\], expected \['word', 'en'"),
    "order of keys": (dict(reversed(TIME.items())), r"has the keys \['examples_en', .*expected \['word'"),
    "missing key": ({k: v for k, v in TIME.items() if k != "en_one_token"}, "has the keys .*en_one_token"),
    "type of word": (changed(word=5), '"word" is 5, expected a string'),
    "joiner": (changed(word="thời gian"), "\"word\" is 'thời gian', expected syllables with one ▁"),
    "empty syllable": (changed(word="thời▁▁gian"), "expected syllables with one ▁"),
    "NFC of word": (changed(word=unicodedata.normalize("NFD", "thời▁gian")), r"\"word\" is 'tho\\u031b.*NFC"),
    "not in the list": (changed(word="bạn▁bè"), "\"word\" is 'bạn▁bè', which is none of the 2 words"),
    "type of list": (changed(en="time"), "\"en\" is 'time', expected a list of strings"),
    "type of entry": (changed(near=["lúc", 3]), r'"near" is \[.lúc., 3\], expected a list of strings'),
    "no en": (changed(en=[], en_one_token=[]), '"en" has 0 entries, expected 1 to 5'),
    "much en": (changed(en=list("abcdef"), en_one_token=[]), '"en" has 6 entries, expected 1 to 5'),
    "twice in en": (changed(en=["time", "Time"]), r'"en" has an entry twice: \["\'time\'", "\'Time\'"\]'),
    "empty en": (changed(en=["time", ""]), "\"en\" has '', expected text with single spaces"),
    "one near": (changed(near=["lúc"]), '"near" has 1 entries, expected 2 to 6'),
    "itself": (changed(near=["lúc", "Thời Gian"]), "\"near\" holds 'Thời Gian', the word itself"),
    "spaces": (changed(near=["lúc", " giờ"]), "\"near\" has ' giờ', expected text with single spaces"),
    "NFC of entry": (changed(near=["giờ", NFD]), r"\"near\" has 'lu\\u0301c', expected its composed form"),
    "two examples": (changed(examples=GOOD[:2]), '"examples" has 2 entries, expected 3'),
    "short": (with_example(1, "Tôi hết thời gian rồi."), r"\"examples\" has .* with 5 words, expected 8"),
    "same twice": (with_example(1, GOOD[1]), r'"examples" has an entry twice'),
    "capital": (with_example(1, GOOD[0].replace("thời", "Thời")), r"example 1 lacks ' thời gian'"),
    "no space before": (
        with_example(2, 'Anh ấy bảo: "thời gian là thứ quý nhất đời".'),
        r"example 2 lacks ' thời gian'",
    ),
    "letter after": (with_example(1, GOOD[0].replace("gian", "giang")), "example 1 lacks ' thời gian'"),
    "mark after": (with_example(1, GOOD[0].replace("gian", "gian\u0301")), "example 1 lacks ' thời gian'"),
    "end": (with_example(3, GOOD[2][:-1]), r"example 3 ends with 'n', expected one of \.!\?…"),
    "place": (
        changed(examples=[" ".join([first, *GOOD[1].split()[1:]]) for first in ("Hễ", "Nếu", "Khi")]),
        "all examples have the word after 2 others",
    ),
    "beginning": (
        changed(
            examples=[
                "Hôm nay thời gian trôi nhanh quá bạn nhỉ?",
                "Hôm qua tôi mất nhiều thời gian để sửa xe.",
                "hôm sau nữa mọi người mới có đủ thời gian.",
            ]
        ),
        "all examples begin with 'hôm', expected different words",
    ),
    "short English": (
        changed(examples_en=["Time flies.", *TIME["examples_en"][1:]]),
        r"\"examples_en\" has 'Time flies.' with 2 words, expected 5",
    ),
    "same English": (changed(examples_en=TIME["examples_en"][:1] * 3), '"examples_en" has an entry twice'),
    "one token": (
        changed(en_one_token=["time", "period"]),
        r"\"en_one_token\" is \['time', 'period'\], expected \['time'\] of \"en\" \['time', 'period'\]",
    ),
    "type of one token": (changed(en_one_token=None), r"\"en_one_token\" is None, expected \['time'\]"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding(name):
    row, expected = FINDINGS[name]
    found = check_explanations(
        [MARKET, row], words=["thời gian", "chợ nổi"], encoder=ENCODER, name="my.jsonl"
    )
    assert any(re.search(expected, line) for line in found), found
    word = row.get("word") if isinstance(row, dict) else "?"
    assert all(line.startswith(f"my.jsonl:2: {word}: ") and "\n" not in line for line in found)


@pytest.mark.parametrize(
    ("marked", "finding"),
    [(["period"], False), ([], False), (["period", "time"], True), (["day"], True), ("time", True)],
)
def test_one_token_words_without_a_tokenizer_are_some_of_en_in_order(marked, finding):
    found = check_explanations([changed(en_one_token=marked)])
    assert [line.split(": ")[2].split(" is ")[0] for line in found] == ['"en_one_token"'] * finding


def test_findings_between_rows():
    again, thief = copy.deepcopy(TIME), copy.deepcopy(MARKET)
    thief["examples"][0] = TIME["examples"][0].upper()
    found = check_explanations([TIME, again, thief], name="a")
    assert "a:2: thời▁gian: \"word\" is 'thời▁gian', which has a row already: a:1" in found
    assert any(line.startswith("a:3: chợ▁nổi: example 1 stands in another row, a:1: ") for line in found)


def test_two_words_that_differ_in_capitals_are_two(tmp_path):
    capital = json.loads(json.dumps(MARKET, ensure_ascii=False).replace("chợ▁nổi", "Chợ▁nổi"))
    capital["examples"] = [
        "Sách có chương Chợ nổi miền Tây viết rất hay.",
        "Đây là biển chỉ đường: Chợ nổi cách hai cây số.",
        "Trời mờ sáng. Chợ nổi bắt đầu họp dưới sông.",
    ]
    assert check_explanations([MARKET, capital]) == []


def test_a_file_that_cannot_be_checked_is_one_line(tmp_path):
    with pytest.raises(UserError, match="none.jsonl is missing"):
        read_explanations(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="empty.jsonl holds no row"):
        read_explanations(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    with pytest.raises(UserError, match="latin.jsonl is not UTF-8"):
        read_explanations(tmp_path / "latin.jsonl")


def test_the_bundled_rows():
    if not DATA.exists():
        pytest.skip(f"{DATA.name} is not there")
    rows = read_explanations(DATA)
    asset = os.environ.get("VOCABKIT_ASSETS", "")
    folder = Path(asset) / "tokenizers" / "qwen2.5-instruct"
    encoder = load_encoder(folder) if asset and folder.is_dir() else None
    assert check_explanations(rows, encoder=encoder, name=DATA.name) == []
    assert all("en_one_token" in row for row in rows)
    lines = (ROOT / "data" / "vi_words_chosen.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [row["word"] for row in map(json.loads, lines) if "word" in row][:1024]
    covered = {row["word"] for row in rows} & set(chosen)
    assert len(covered) >= 1000, sorted(set(chosen) - covered)
    assert read_dictionary(DATA)["thời gian"] == next(r["en"] for r in rows if r["word"] == "thời▁gian")
