"""vocabkit/train/trainer.py: steps accumulated and in the backward pass, its ends, checkpoints and logs."""

import os
import shutil
import signal
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from training import RUN, finetune, stage, tensors

from vocabkit.errors import UserError
from vocabkit.train.trainer import StageTrainer, last_checkpoint


def test_accumulated_steps_are_one_large_step(extended, data, tmp_path):
    source = extended("qwen2", tied=False)
    flags = ["--max_steps", "3", "--train_rows", "all", "--optim", "sgd", "--learning_rate", "0.1"]
    once = finetune(source, data, tmp_path / "a", *flags)
    small = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "4"]
    often = finetune(source, data, tmp_path / "b", *flags, *small)
    for name, tensor in tensors(once).items():
        assert torch.allclose(tensor, tensors(often)[name], atol=1e-5), name


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor"])
def test_stepping_in_the_backward_pass_is_the_same_step(extended, data, tmp_path, optim):
    source = extended("qwen2", tied=True)
    flags = ["--max_steps", "4", "--train_rows", "all", "--finetune_layers", "all", "--optim", optim]
    plain = finetune(source, data, tmp_path / "a", *flags, "--max_grad_norm", "0")
    inside = finetune(source, data, tmp_path / "b", *flags, "--optim_in_backward")
    assert {n: t.tolist() for n, t in tensors(plain).items()} == {
        n: t.tolist() for n, t in tensors(inside).items()
    }


def test_a_loss_that_is_no_number_stops(extended, data, tmp_path):
    source = tmp_path / "broken"
    shutil.copytree(extended("qwen2", tied=True), source)
    broken = load_file(source / "model.safetensors")
    broken["model.norm.weight"][:] = float("nan")
    save_file(broken, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="the loss is nan at step 1: lower --learning_rate"):
        finetune(source, data, tmp_path / "out", "--max_steps", "2", "--eval_share", "0")
    assert not (tmp_path / "out").exists()


def test_a_second_interrupt_ends_at_once(extended, data, tmp_path, monkeypatch):
    def press(self: Any, *args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StageTrainer, "training_step", press)
    with pytest.raises(KeyboardInterrupt):
        finetune(extended("qwen2", tied=True), data, tmp_path / "out", *RUN)


def test_a_checkpoint_cut_off_while_it_was_written_is_not_used(tmp_path):
    for step, name in ((4, "trainer_state.json"), (10, "trained.safetensors")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / name).write_text("{}", encoding="utf-8")
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8" / "trainer_state.json").write_text('{"global_step": ', encoding="utf-8")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


def test_tensorboard_has_the_whole_run(extended, data, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.chdir(tmp_path)
    flags = ["--max_steps", "3", "--logging_steps", "1", "--report_to", "tensorboard"]
    out = finetune(extended(), data, tmp_path / "out", *flags)
    assert not (tmp_path / "runs").exists()
    events: dict[str, list[float]] = {}
    for path in sorted((out / "runs").iterdir()):
        file = accumulator.EventAccumulator(str(path)).Reload()
        for tag in file.Tags()["scalars"]:
            events.setdefault(tag, []).extend(event.value for event in file.Scalars(tag))
    assert events["train/before_bits_per_byte"] == [pytest.approx(stage(out)["bits_per_byte_before"])]
    assert events["train/after_bits_per_byte"] == [pytest.approx(stage(out)["bits_per_byte_after"])]
    assert len(events["train/loss"]) == 3
