"""vocabkit/checkpoint/record.py: written and read byte for byte, another format refused."""

import dataclasses
import json

import pytest
from tiny import edit_json, edit_record

from vocabkit.checkpoint.record import EditRecord, NewRows, base_name, new_rows
from vocabkit.errors import UserError
from vocabkit.files import read_json

EXTENDED = {
    "task": "extend_vocab",
    "words": [],
    "syllables": [{"syllable": " gian", "merge": ["Ġg", "ian"]}],
    "words_file": {"name": "từ.jsonl", "sha256": "0"},
    "replaces": [[1, 2]],
    "init": {"name": "mean", "base": None},
}


@pytest.fixture
def base(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    return tmp_path


def test_a_file_is_read_and_written_again_byte_for_byte(base):
    """Fields in their order, on one line, characters as themselves, and the record before inside."""
    trimmed = edit_record(base, [0, 2, 5], keep={"source": "danh sách"}, training=[{"steps": 1}])
    record = edit_record(base, [0, 1, 2, None], previous=trimmed, training=[{"steps": 2}], **EXTENDED)
    record.write(base)
    before = (base / "vocab_edit.json").read_bytes()
    assert before.count(b"\n") == 1 and "từ.jsonl".encode() in before
    assert EditRecord.read(base) == record == EditRecord.find(base)
    EditRecord.read(base).write(base)
    assert (base / "vocab_edit.json").read_bytes() == before
    value = read_json(base / "vocab_edit.json")
    assert list(value) == [
        "format", "version", "task", "base_model", "base_tokenizer_sha256", "base_vocab_size",
        "base_n_tokens", "n_tokens", "vocab_size", "pad_rows", "new_to_old", "words", "syllables",
        "words_file", "replaces", "init", "suppressed", "made_by", "previous", "training",
    ]  # fmt: skip
    assert value["pad_rows"] is None and value["words"] == [] and "keep" not in value
    assert value["previous"]["format"] == "vocab-edit" and "words" not in value["previous"]


def test_a_folder_that_was_never_edited(tmp_path):
    assert EditRecord.find(tmp_path) is None and new_rows(tmp_path) is None
    with pytest.raises(UserError, match="vocab_edit.json is missing"):
        EditRecord.read(tmp_path)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"format": "other"}, "has format 'other' version 1, expected 'vocab-edit' version 1"),
        ({"version": 2}, "has format 'vocab-edit' version 2, expected 'vocab-edit' version 1"),
        ({"colour": 1}, "has 'colour', which is not known here; make the folder again"),
        ({"previous": {"task": "trimm_vocab"}}, "has no 'base_model'; make the folder again"),
    ],
)
def test_another_format_is_refused(base, changes, expected):
    edit_record(base, [0]).write(base)
    edit_json(base / "vocab_edit.json", **changes)
    for read in (EditRecord.read, EditRecord.find, new_rows):
        with pytest.raises(UserError) as error:
            read(base)
        assert str(error.value).startswith(f"{base / 'vocab_edit.json'} {expected}")


@pytest.mark.parametrize("name", ["new_to_old", "n_tokens", "suppressed", "pad_rows"])
def test_a_field_that_is_missing(base, name):
    edit_record(base, [0]).write(base)
    value = read_json(base / "vocab_edit.json")
    del value[name]
    (base / "vocab_edit.json").write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(UserError, match=f"vocab_edit.json has no '{name}'"):
        EditRecord.read(base)


def test_new_rows_are_the_last(base):
    record = edit_record(base, [0, 1, None, None])
    assert record.new_ids == [2, 3]
    record.write(base)
    assert new_rows(base) == NewRows(2, 4) and len(NewRows(2, 4)) == 2
    dataclasses.replace(record, new_to_old=[0, None, 1, None]).write(base)
    with pytest.raises(UserError, match=r"has new tokens that are not the last \(1 to 3 of 4\)"):
        new_rows(base)


def test_base_name():
    assert base_name("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
    assert base_name("/models/Qwen2.5-0.5B/") == base_name("../Qwen2.5-0.5B") == "Qwen2.5-0.5B"
