"""The three launchers, one after the other, on the bundled demo checkpoint."""

import os
import shutil
import subprocess
import sys

import torch
from tiny import ROOT
from training import stage, tensors

from vocabkit.checkpoint.record import new_rows

DEMO = ROOT / "data" / "demo"
QUICK = [
    "--eval_path",
    str(DEMO / "heldout_texts.jsonl"),
    "--packing",
    "none",
    "--per_device_train_batch_size",
    "16",
]


def launch(name: str, *args: str, steps: int) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [str(ROOT / f"finetune_qwen__{name}.sh"), *args, "--", *QUICK, "--max_steps", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "bits per byte" in done.stdout and "GiB expected" in done.stdout


def test_the_chain_on_the_demo(tmp_path):
    """As it stands: the first launcher gives the bundled checkpoint its words, in out/."""
    extended, texts = ROOT / "out" / "demo__extend_vocab", str(DEMO / "train_texts.jsonl")
    shutil.rmtree(extended, ignore_errors=True)
    first = tmp_path / "demo__extend_vocab__1_embeddings_massage"
    launch("1_embeddings_massage", str(DEMO), texts, str(first), steps=60)
    launch("2_low_layers", str(first), texts, steps=30)
    second = first.with_name("demo__extend_vocab__2_low_layers")
    launch("3_final", str(second), steps=30)
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
