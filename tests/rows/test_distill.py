"""vocabkit/rows/distill.py: only new rows move, towards what old tokens meant, bit by bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from distilling import extended, learn, make, matrices
from leaving import left_by_a_run
from tiny import ROOT

from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.outputs import part_of
from vocabkit.verify.ladder import verify_edit

# family, tied: with a cap on the logits and scaled embeddings, a head with a bias, learned positions
FAMILIES = [("qwen2", True), ("llama", False), ("gemma2", True), ("phi", False), ("gpt2", True)]


@pytest.fixture(
    scope="module", params=FAMILIES, ids=lambda case: f"{case[0]}-{'tied' if case[1] else 'untied'}"
)
def pair(request, tmp_path_factory) -> tuple[Path, Path]:
    """A folder and what it became by distilling."""
    family, tied = request.param
    folder = tmp_path_factory.mktemp(family)
    source = make(folder, family, tied=tied)
    return source, extended(source, folder / "out")


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("qwen2"), "qwen2", tied=True)


@pytest.mark.slow
def test_distilled_rows_lose_less_and_stay_within_the_old_norms(pair):
    source, out = pair
    facts = read_json(out / "vocab_edit.json")["init"]
    before, after = facts["loss_before"], facts["loss_after"]
    assert facts["name"] == "distill" and facts["contexts"] == [6, 6, 6, 0] and facts["without_contexts"] == 1
    assert facts["steps"] == 10 * 2  # epochs, for there are few contexts, × batches of 16
    assert before.keys() == after.keys() == {"input", "output", "mass", "other"}
    total = {"input": 1} | {name: facts["settings"][name] for name in ("output", "mass", "other")}
    assert sum(total[k] * after[k] for k in total) < 0.95 * sum(total[k] * before[k] for k in total)
    assert after["output"] < before["output"]
    assert "distilled" in (out / "README.md").read_text(encoding="utf-8")
    assert verify_edit(source, out)  # the ladder: old rows bit by bit, norms of the new ones in range
    assert not part_of(out).exists()


def test_a_word_without_contexts_keeps_its_first_row(pair, tmp_path):
    source, out = pair
    plain = matrices(extended(source, tmp_path / "plain", init="weighted"))
    for name, rows in matrices(out).items():
        np.testing.assert_array_equal(rows[3], plain[name][3])
        if rows.shape[1] > 1:
            assert (np.abs(rows[:3] - plain[name][:3]).max(1) > 1e-3).all()
        else:
            np.testing.assert_array_equal(rows, plain[name])  # the head's bias has no part in it


def test_the_same_seed_gives_the_same_bytes(qwen2, tmp_path):
    (tmp_path / "b").mkdir()
    first, again = extended(qwen2, tmp_path / "a"), extended(qwen2, tmp_path / "b" / "a")
    assert (first / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    other = extended(qwen2, tmp_path / "c", seed=1)
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(qwen2, tmp_path):
    unbroken = extended(qwen2, tmp_path / "unbroken")
    out, state = tmp_path / "out", part_of(tmp_path / "out") / "distill.safetensors"
    code = (
        "import sys, time; sys.path[:0] = [sys.argv[4]]\n"
        "from pathlib import Path\n"
        "from vocabkit.rows import distill\n"
        "from vocabkit.edit.extend import extend_vocab\n"
        "distill.SAVE_EVERY, save = 0, distill.Trainer.save\n"
        "def slow(self, *args): save(self, *args); time.sleep(0.3)\n"
        "distill.Trainer.save = slow\n"
        "extend_vocab(Path(sys.argv[1]), Path(sys.argv[2]), words=Path(sys.argv[3]) / 'words.txt',\n"
        "    init='distill', contexts=[sys.argv[3] + '/texts.txt'], contexts_per_word=6)\n"
    )
    one = os.environ | {"OMP_NUM_THREADS": "1"}  # as build.py sets here: sums depend on it
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(qwen2), str(out), str(tmp_path), str(ROOT)], env=one
    )
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert state.exists() and not out.exists()
    with pytest.raises(UserError, match=r"is the state of another run .*; remove it to start anew: rm "):
        extended(qwen2, out, seed=1)
    extended(qwen2, out)
    assert (out / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
    facts = [read_json(folder / "vocab_edit.json")["init"] for folder in (out, unbroken)]
    assert facts[0] == facts[1] and not state.exists()
    left_by_a_run(tmp_path / "more", "distill.safetensors", b"no state")
    with pytest.raises(UserError, match=r"more\.part/distill\.safetensors cannot be read"):
        extended(qwen2, tmp_path / "more")


def test_a_model_in_bfloat16_gets_rows_in_float32(tmp_path):
    (made, *_), facts, _ = learn(make(tmp_path, "qwen2"), tmp_path, epochs=8, dtype="bfloat16")
    rounded = torch.tensor(made).bfloat16().float().numpy()
    assert made.dtype == np.float32 and (made != rounded).any()
    assert facts["loss_after"]["input"] < facts["loss_before"]["input"]
