"""vocabkit/train/output.py: records and cards, and a check that nothing moved but what was trained."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import edit_json, edit_record
from training import WORDS, finetune, refuse

from vocabkit.checkpoint.record import new_rows
from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.train import run as train_run
from vocabkit.train.output import append_stage, write_trained

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


def test_stages_are_recorded_one_after_the_other(extended, data, tmp_path):
    first = finetune(extended("qwen2", tied=True), data, tmp_path / "1", "--max_steps", "1")
    second = finetune(first, data, tmp_path / "2", "--train_rows", "all", "--max_steps", "1")
    edit = read_json(second / "vocab_edit.json")
    assert [one["train_rows"] for one in edit["training"]] == ["new", "all"]
    assert edit["task"] == "extend_vocab" and edit["words"] == [word.replace(" ", "▁") for word in WORDS]
    card = (second / "README.md").read_text(encoding="utf-8")
    bits = [
        f"{one['bits_per_byte_before']:.4f} → {one['bits_per_byte_after']:.4f}" for one in edit["training"]
    ]
    assert f"| 1 | new | none | lm | 1 | {bits[0]} |\n| 2 | all | none | lm | 1 | {bits[1]} |\n" in card
    assert "# 2\n" in card and "given Vietnamese words" in card and "`vocab_edit.json` ghi" in card


def test_a_model_that_was_never_edited(checkpoint, data, tmp_path):
    flags = ["--train_rows", "none", "--finetune_layers", "0", "--max_steps", "1"]
    out = finetune(checkpoint(), data, tmp_path / "out", *flags)
    assert read_json(out / "training.json")["training"][0]["finetune_layers"] == "0"
    assert not (out / "vocab_edit.json").exists()
    assert "| 1 | none | 0 | lm | 1 | " in (out / "README.md").read_text(encoding="utf-8")


def test_rows_that_moved_are_not_saved(extended, data, tmp_path, monkeypatch):
    """The check at the end, proved: what is written is damaged on its way."""
    source = extended("qwen2", tied=True)
    write = write_trained

    def damage(at: int) -> None:
        def written(source: Path, part: Path, changes: Any) -> None:
            write(source, part, changes)
            path = part / "model.safetensors"
            values = load_file(path)
            values["model.embed_tokens.weight" if at >= 0 else "model.norm.weight"][at] += np.float32(1)
            save_file(values, path, metadata={"format": "pt"})

        monkeypatch.setattr(train_run, "write_trained", written)

    rows = new_rows(source)
    for at, message in (
        (3, "old rows of model.embed_tokens.weight moved"),
        (rows.stop, "old rows of"),
        (-1, "norm"),
    ):
        damage(at)
        out = tmp_path / re.sub(r"\W", "", f"out{at}")
        refuse(message, source, data, out, "--max_steps", "1")
    damage(rows.stop)
    refuse("padding rows", source, data, tmp_path / "all", "--max_steps", "1", "--train_rows", "all")
