"""One process that is the first, or not: who speaks, and what `accelerate launch` starts on a CPU."""

import pytest

import finetune_qwen
from vocabkit.errors import UserError
from vocabkit.train import processes
from vocabkit.train.processes import PATIENCE, one_voice


def test_another_process_waits_with_its_error_and_says_nothing_else(monkeypatch, capsys):
    slept: list[float] = []
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    with pytest.raises(UserError, match="^process 3: a file is missing$"), one_voice():
        print("hello")
        raise UserError("a file is missing")
    with pytest.raises(SystemExit), one_voice():
        raise KeyboardInterrupt
    assert slept == [PATIENCE] and capsys.readouterr().out == ""


def test_accelerate_on_a_cpu_starts_one_process(monkeypatch):
    """Its launcher sets this, and no rank: what was to be two processes would quietly be one."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match="starts one process on a CPU"):
        finetune_qwen.main(["--model_name_or_path", "m", "--data_path", "d", "--output_dir", "o"])
