"""vocabkit/edit/card.py: both languages, every number, no folder of this machine."""

import dataclasses

import pytest
from extending import WORDS
from tiny import edit_record

from vocabkit.edit.card import write_card
from vocabkit.files import read_json


def test_card_is_in_both_languages(trimmed):
    card = (trimmed() / "README.md").read_text(encoding="utf-8")
    edit = read_json(trimmed() / "vocab_edit.json")
    for text in ("with the vocabulary of English and Vietnamese", "## Tiếng Việt", "bộ từ vựng tiếng Anh"):
        assert text in card
    assert f"**{edit['n_tokens']:,} of {edit['base_n_tokens']:,} tokens**" in card
    assert f"**giữ {edit['n_tokens']:,} trên {edit['base_n_tokens']:,} token**" in card
    assert "{" not in card, "a field was not filled in"


def test_card_names_no_folder_of_this_machine_as_base_model(trimmed):
    front = (trimmed() / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert "base_model: base\n" in front


EXTENDED = {
    "task": "extend_vocab", "words": WORDS, "words_file": {"name": "w.txt", "sha256": "0"},
    "replaces": [[0]] * 4,
}  # fmt: skip


@pytest.fixture
def record(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    record = edit_record(tmp_path, [0, *[None] * 4], init={"name": "mean", "base": None}, **EXTENDED)
    return dataclasses.replace(record, base_model="../base__trimm_vocab")


def card_of(folder, record) -> str:
    write_card(folder, record, name="out")
    return (folder / "README.md").read_text(encoding="utf-8")


def test_card_names_words_and_formula(tmp_path, record):
    card = card_of(tmp_path, record)
    for part in ("4 Vietnamese words", "4 từ tiếng Việt", "“hôm nay”", "formula `mean`", "công thức `mean`"):
        assert part in card
    assert "{" not in card and "base_model: base__trimm_vocab\n" in card


def test_card_names_syllables_and_how_rows_were_learned(tmp_path, record):
    syllables = [{"syllable": " gian", "merge": ["Ġg", "ian"]}]
    card = card_of(tmp_path, dataclasses.replace(record, syllables=syllables, init={"name": "distill"}))
    for part in ("4 Vietnamese words and 1 Vietnamese syllables", "4 từ tiếng Việt và 1 âm tiết tiếng Việt"):
        assert part in card
    assert "The new rows were distilled" in card and "Các hàng mới được chưng cất" in card
    alone = card_of(tmp_path, dataclasses.replace(record, syllables=syllables, words=[]))
    assert "**1 Vietnamese syllables as tokens of their own**, such as “gian”" in alone
