"""vocabkit/train/output.py: the record that a stage is added to."""

import shutil

import pytest
from tiny import edit_json, edit_record

from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.train.output import append_stage

STAGE = {
    "base_model": "../base", "train_rows": "new", "finetune_layers": "none", "lora_rank": None,
    "objective": "lm", "steps": 3, "bits_per_byte_before": None, "bits_per_byte_after": None,
}  # fmt: skip


@pytest.fixture
def folders(tmp_path):
    """The folder that was trained, and the one that is written with copies of its files."""
    source, part = tmp_path / "source", tmp_path / "part"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}", encoding="utf-8")
    return source, part


@pytest.mark.parametrize("edited", [True, False])
def test_stages_follow_each_other(folders, edited):
    source, part = folders
    file = "vocab_edit.json" if edited else "training.json"
    if edited:
        edit_record(source, [0, 1]).write(source)
    for number in (1, 2):
        shutil.copytree(source, part)
        append_stage(source, part, {**STAGE, "steps": number}, name="out")
        assert [stage["steps"] for stage in read_json(part / file)["training"]] == [1, 2][:number]
        assert f"`{file}` holds each stage whole" in (part / "README.md").read_text(encoding="utf-8")
        shutil.rmtree(source)
        part.rename(source)


@pytest.mark.parametrize("file", ["vocab_edit.json", "training.json"])
def test_a_record_of_an_unknown_format_is_refused(folders, file):
    source, part = folders
    edit_record(source, [0]).write(source)
    if file == "training.json":
        (source / "vocab_edit.json").unlink()
        write_json(source / file, {"format": "vocab-training", "version": 1, "training": []})
    edit_json(source / file, version=9)
    shutil.copytree(source, part)
    with pytest.raises(UserError, match=f"{file} has format 'vocab-.*' version 9, expected .* version 1"):
        append_stage(source, part, STAGE, name="out")
