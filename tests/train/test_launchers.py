"""The three launchers, one after the other, on the bundled demo checkpoint."""

import os
import shutil
import subprocess

import pytest
import torch
from tiny import ROOT
from training import stage, tensors

import finetune_qwen
import model_edit
from vocabkit.checkpoint.record import new_rows

pytestmark = pytest.mark.slow

DEMO = ROOT / "data" / "demo"
SCRIPTS = {str(ROOT / "finetune_qwen.py"): finetune_qwen, str(ROOT / "model_edit.py"): model_edit}


@pytest.fixture
def launch(tmp_path, capsys, monkeypatch):
    """Run a launcher, its commands in this process: PYTHON notes them, as starting Python takes longest."""
    python, notes = tmp_path / "python", tmp_path / "commands"
    python.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" "" >> "{notes}"\n', encoding="utf-8")
    python.chmod(0o755)
    held_out = tmp_path / "held_out.jsonl"
    with (DEMO / "heldout_texts.jsonl").open(encoding="utf-8") as texts:
        held_out.write_text(
            "".join(line for line, _ in zip(texts, range(50), strict=False)), encoding="utf-8"
        )
    quick = ["--eval_path", str(held_out), "--packing", "none", "--per_device_train_batch_size", "8"]

    def run(name: str, *args: str, steps: int) -> None:
        command = [str(ROOT / f"finetune_qwen__{name}.sh"), *args, "--", *quick, "--max_steps", str(steps)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHON": str(python)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        for noted in notes.read_text(encoding="utf-8").removesuffix("\0\0").split("\0\0"):
            script, *argv = noted.split("\0")
            assert SCRIPTS[script].main(argv) == 0
        notes.unlink()
        printed = capsys.readouterr().out
        assert "bits per byte" in printed and "GiB expected" in printed

    return run


def test_the_chain_on_the_demo(launch, tmp_path):
    """As it stands: the first launcher gives the bundled checkpoint its words, in out/."""
    extended, texts = ROOT / "out" / "demo__extend_vocab", str(DEMO / "train_texts.jsonl")
    shutil.rmtree(extended, ignore_errors=True)
    first = tmp_path / "demo__extend_vocab__1_embeddings_massage"
    launch("1_embeddings_massage", str(DEMO), texts, str(first), steps=20)
    launch("2_low_layers", str(first), texts, steps=8)
    second = first.with_name("demo__extend_vocab__2_low_layers")
    launch("3_final", str(second), steps=8)
    last = first.with_name("demo__extend_vocab__3_final")
    stages = [stage(folder) for folder in (first, second, last)]
    assert all(one["bits_per_byte_after"] < one["bits_per_byte_before"] for one in stages)

    weights = [tensors(folder) for folder in (extended, first, second, last)]
    rows = new_rows(extended)
    table = "model.embed_tokens.weight"
    changed = [
        {name for name in before if not torch.equal(before[name], after[name])}
        for before, after in zip(weights, weights[1:], strict=False)
    ]
    moved = (weights[0][table] != weights[1][table]).any(1)
    assert changed[0] == {table} and not moved[: rows.first].any() and moved[rows.first : rows.stop].all()
    assert all(name == table or ".layers.0." in name or ".layers.1." in name for name in changed[1])
    assert all(any(f".layers.{n}." in name for name in changed[2]) for n in range(4))
    assert [weights[3].keys() == other.keys() for other in weights] == [True] * 4
