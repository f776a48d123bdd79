"""vocabkit/checkpoint/folder.py: what an opened folder says of itself, and what does not fit together."""

import json
import shutil
from pathlib import Path

import build
import numpy as np
import pytest
from tiny import edit_json, edit_record

from vocabkit.checkpoint.folder import open_folder, start_token
from vocabkit.checkpoint.record import EditRecord
from vocabkit.checkpoint.shards import read_rows
from vocabkit.checkpoint.torch_bin import BinCheckpoint
from vocabkit.errors import UserError
from vocabkit.files import read_json


@pytest.mark.parametrize("tied", [True, False])
def test_an_opened_folder(checkpoint, tied):
    folder = open_folder(checkpoint(tied=tied))
    assert (folder.path, folder.tensors.tied) == (checkpoint(tied=tied), tied)
    assert folder.matrices["input"].name == "model.embed_tokens.weight"
    assert [tensor.name for tensor in folder.matrices.values()][1:] == ["lm_head.weight"] * (not tied)
    count, rows = len(folder.tokenizer.tokens), folder.tensors.rows
    assert folder.padding == list(range(count, rows)) and rows > count
    assert folder.text(folder.tokenizer.vocab["!"]) == "'!'" and folder.text(rows - 1) == "padding"
    assert folder.spm_models == {} and folder.record is None and folder.new == set()
    assert folder.tokenizer.added["<|im_end|>"] in folder.required


def test_a_trimmed_folder_has_a_record(checkpoint, trimmed):
    folder = open_folder(trimmed())
    assert folder.record == EditRecord.read(trimmed()) and folder.new == set()
    assert folder.record.base_model == checkpoint().name


@pytest.fixture
def copy(checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(checkpoint(), tmp_path / "base"))


@pytest.mark.parametrize("to_edit", [False, True])
def test_a_token_beyond_the_rows(copy, to_edit):
    rows = read_json(copy / "config.json")["vocab_size"]
    data = read_json(copy / "tokenizer.json")
    model, added = data["model"], data["added_tokens"]
    more = {f"x{at}": at for at in range(len(model["vocab"]) + len(added), rows + 1)}
    model["vocab"] |= more | {entry["content"]: entry["id"] for entry in added}
    edit_json(copy / "tokenizer.json", model=model)
    with pytest.raises(UserError, match=f"a token with id {rows}, the matrices of .* have {rows} rows"):
        open_folder(copy, to_edit=to_edit)


@pytest.mark.parametrize("to_edit", [False, True])
def test_an_added_token_without_a_row_is_named(copy, to_edit):
    """As <image_soft_token> of Gemma-3's text models: id 262,144 of 262,144 rows."""
    rows = read_json(copy / "config.json")["vocab_size"]
    path, added = copy / "tokenizer.json", read_json(copy / "tokenizer.json")["added_tokens"]
    first = max(entry["id"] for entry in added) + 1
    more = [{**added[-1], "content": f"<far{at}>", "id": at} for at in range(first, rows + 2)]
    edit_json(path, added_tokens=[*added, *more])
    with pytest.raises(UserError) as error:
        open_folder(copy, to_edit=to_edit)
    assert f"the added token '<far{rows}>' (and 1 more) has id {rows}, but the model has" in str(error.value)
    assert "remove its entry from added_tokens of tokenizer.json" in str(error.value)
    edit_json(path, added_tokens=[*added, *more[:-2]])  # what it says to do
    open_folder(copy, to_edit=to_edit)


def test_new_tokens_are_those_of_the_record(copy):
    count = len(open_folder(copy).tokenizer.tokens)
    edit_record(copy, [*range(count - 2), None, 0]).write(copy)
    assert open_folder(copy).new == {count - 2}
    edit_record(copy, [0, 1]).write(copy)
    with pytest.raises(UserError, match=f"maps 2 tokens, .* has {count}; .*different folders: remove"):
        _ = open_folder(copy).new


def test_what_an_edit_reads_besides_is_read_at_once(copy):
    edit_json(copy / "generation_config.json", eos_token_id=9999)
    open_folder(copy)
    with pytest.raises(UserError, match="eos_token_id is 9999, but none of the"):
        open_folder(copy, to_edit=True)
    edit_json(copy / "generation_config.json", eos_token_id=0)
    edit_record(copy, [0]).write(copy)
    edit_json(copy / "vocab_edit.json", format="another")
    open_folder(copy)
    with pytest.raises(UserError, match="has format 'another' version 1"):
        open_folder(copy, to_edit=True)


def test_bin_files_are_opened_to_edit_and_have_rows_when_asked(copy, tmp_path):
    with open_folder(copy).readable(tmp_path) as same:
        assert same.checkpoint.folder == copy and same.path == copy
        wanted = np.concatenate(list(read_rows(same.tensors.embed[0], [0, 7])))
    build.as_bin(copy)
    with pytest.raises(UserError, match="has no safetensors, only pytorch_model.bin; convert it first"):
        open_folder(copy)
    folder = open_folder(copy, to_edit=True)
    assert isinstance(folder.checkpoint, BinCheckpoint)
    with folder.readable(tmp_path) as ready:
        assert ready.path == copy and not isinstance(ready.checkpoint, BinCheckpoint)
        assert (np.concatenate(list(read_rows(ready.tensors.embed[0], [0, 7]))) == wanted).all()
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_folder_without_a_start_token(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 5}), encoding="utf-8")
    with pytest.raises(UserError, match="names no bos_token_id"):
        start_token(tmp_path)
