"""The scripts with the oldest packages that docs promise, from trimming to a GGUF and a stage of training."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import OLD_PACKAGES, OLD_TRAINING, ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OLD_TRAINING.is_dir(), reason=f"no {OLD_TRAINING}: run .ci/old"),
]
SCRIPTS = """
build_vocab.py -m demo {data}/train_texts.jsonl --min_count 1 -o list
model_edit.py -m demo -t trimm_vocab
build_vi_words.py -m demo {data}/train_texts.jsonl --min_freq 2 --choose 4 --syllables 2 -o words.jsonl
model_edit.py -b demo -m demo__trimm_vocab -t extend_vocab --words {data}/words.txt --init distill \
    --contexts_per_word 2
model_edit.py -m demo__extend_vocab -t export_gguf
model_chat.py demo__extend_vocab demo__extend_vocab.gguf --greedy --prompt Hi
"""
TRAINING = """finetune_qwen.py --model_name_or_path demo --data_path {data}/train_chats.jsonl \
    --output_dir stage --train_rows all --finetune_layers all --lora_rank 4 --max_steps 2 \
    --model_max_length 64"""


def run(command: str, folder: Path, *packages: Path) -> subprocess.CompletedProcess[str]:
    script, *argv = command.format(data=ROOT / "data" / "demo").split()
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, packages)), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, ROOT / script, *argv], cwd=folder, env=environment, input="", capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the bundled model in it."""
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(ROOT / "data" / "demo", folder / "demo")
    return folder


def test_all_scripts_but_training_run_with_the_oldest_packages(folder):
    for command in SCRIPTS.strip().split("\n"):
        done = run(command, folder, OLD_PACKAGES)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.count("Bot: ") == 2


def test_training_runs_with_the_oldest_packages_of_its_own(folder):
    done = run(TRAINING, folder, OLD_TRAINING, OLD_PACKAGES)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (folder / "stage" / "model.safetensors").is_file()


def test_older_ones_are_refused_in_one_line(folder):
    before = set(folder.iterdir())
    done = run(TRAINING, folder, OLD_PACKAGES)
    assert done.returncode == 1 and set(folder.iterdir()) == before
    line = "error: transformers 4.45.2 is installed, 5.0 or newer is needed: pip install -U transformers"
    assert done.stderr.strip() == line
