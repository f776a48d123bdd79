"""vocabkit/checkpoint/hub.py without a network: which names are hub ids, and what a download that fails
says.
"""

import os
import subprocess
import sys

import pytest
from tiny import ROOT

from vocabkit.checkpoint.hub import WANTED, is_hub_id, local_folder


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-7B-Instruct", "google/gemma-2-2b-it", "a/b_c.d"])
def test_hub_ids(name):
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "../Qwen2.5",
        "./a/b",
        "/data/model",
        "model",
        "a/b/c",
        "model/",
        "a//b",
        "~/model",
        "",
        "a/-b",
        "đ/b c",
    ],
)
def test_paths_are_no_hub_ids(name):
    assert not is_hub_id(name)


def test_a_folder_that_exists_here_wins_over_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("owner/model")
    assert str(local_folder("owner/model")) == "owner/model"


def test_no_download_of_weights_in_other_formats():
    assert "*.bin" not in WANTED and "*" not in WANTED and "*.safetensors" in WANTED and "*.py" not in WANTED


def test_what_cannot_be_downloaded_is_one_clear_error():
    """In its own process, since huggingface_hub reads HF_HUB_OFFLINE when it is imported."""
    result = subprocess.run(
        [sys.executable, "model_edit.py", "-m", "nobody/no-such-model", "-t", "trimm_vocab"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(
        "error: nobody/no-such-model is no folder here and could not be downloaded ("
    )
    assert "hf auth login" in result.stderr and result.stderr.count("\n") == 1
