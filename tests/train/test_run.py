"""finetune_qwen.py on real tiny checkpoints: what the table says, kills and interrupts, what is refused."""

import importlib.util
import json
import math
import os
import shutil
import signal
import types
from typing import Any

import pytest
import torch
from leaving import left_by_a_run
from tiny import SENTENCES
from training import RUN, argv_of, finetune, killed_run, refuse, stage
from transformers import AutoModelForCausalLM

import finetune_qwen
from vocabkit.checkpoint.record import new_rows
from vocabkit.errors import UserError
from vocabkit.files import read_json, sha256_file, write_json
from vocabkit.models.load import load_tokenizer
from vocabkit.outputs import publication
from vocabkit.train import memory
from vocabkit.train.data.tokenize import load_dataset
from vocabkit.train.run import _peak_memory, _train
from vocabkit.train.trainer import StageTrainer


def test_what_the_table_says_is_what_transformers_measures(extended, data, tmp_path):
    """Bits per byte after, once more: the saved folder, plain logits, one text at a time."""
    source = extended("llama", tied=False)
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps({"text": t}) + "\n" for t in SENTENCES[:5]), encoding="utf-8")
    flags = ["--finetune_layers", "all", "--lora_rank", "4", "--learning_rate", "0.02", "--max_steps", "5"]
    out = finetune(source, data, tmp_path / "out", "--eval_path", str(held_out), *flags)
    rows = load_dataset(
        [str(held_out)], load_tokenizer(out), max_length=64, stage_mix=None, cache_dir=tmp_path / "c", seed=0,
        text_field=None,
    )  # fmt: skip
    stop = new_rows(out).stop
    for folder, key in ((source, "bits_per_byte_before"), (out, "bits_per_byte_after")):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        nats = 0.0
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
            logits = model(ids).logits[0, :-1, :stop]
            nats += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        expected = nats / math.log(2) / sum(rows["num_bytes"])
        assert stage(out)[key] == pytest.approx(expected, rel=2e-5)
    assert stage(out)["bits_per_byte_after"] < stage(out)["bits_per_byte_before"]


ALL = ["--train_rows", "all", "--finetune_layers", "all"]
KILLED = {
    "new rows, LoRA": ["--train_rows", "new", "--finetune_layers", "all", "--lora_rank", "2"],
    "all rows, LoRA": [*ALL, "--lora_rank", "2"],
    "adamw_torch": ALL,
    "adamw_torch in backward": [*ALL, "--optim_in_backward"],
    "adafactor": [*ALL, "--optim", "adafactor"],
    "adafactor in backward, one layer": [
        "--train_rows", "all", "--finetune_layers", "0", "--optim", "adafactor", "--optim_in_backward",
    ],
    "torchao's": [*ALL, "--optim", "adamw_torch_8bit", "--optim_args", "bf16_stochastic_round=True",
                  "--dtype", "bfloat16"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_goes_on_to_the_same_weights(extended, data, tmp_path, name, capsys):
    """With every optimizer that is let through, and LoRA."""
    if name == "torchao's" and not (importlib.util.find_spec("torchao") and shutil.which("g++")):
        pytest.skip("torchao and g++, by which torch.compile makes its steps, are not both installed")
    tied = name.endswith("LoRA")
    source = extended("qwen2", tied=tied, dtype="bfloat16" if name == "torchao's" else "float32")
    whole = finetune(source, data, tmp_path / "whole", *RUN, *KILLED[name])
    out = tmp_path / "killed"
    argv = argv_of(source, data, out, *RUN, *KILLED[name])
    killed_run(argv, 4)
    assert not out.exists() and (tmp_path / "killed.part" / "checkpoint-2").is_dir()
    assert finetune_qwen.main(argv) == 0
    assert "going on from" in capsys.readouterr().out
    assert sha256_file(whole / "model.safetensors") == sha256_file(out / "model.safetensors")
    assert stage(whole)["bits_per_byte_before"] == stage(out)["bits_per_byte_before"]


def test_interrupting_saves_and_the_same_command_goes_on(extended, data, tmp_path, monkeypatch):
    source = extended("qwen2", tied=True)
    whole = finetune(source, data, tmp_path / "whole", *RUN)
    step = StageTrainer.training_step
    pressed = []

    def press(self: Any, *args: Any, **options: Any) -> Any:
        if self.state.global_step == 2 and not pressed:
            pressed.append(os.kill(os.getpid(), signal.SIGINT))
        return step(self, *args, **options)

    monkeypatch.setattr(StageTrainer, "training_step", press)
    with pytest.raises(UserError, match="interrupted after step 3 of 5"):
        finetune(source, data, tmp_path / "out", *RUN)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    out = finetune(source, data, tmp_path / "out", *RUN)
    assert sha256_file(whole / "model.safetensors") == sha256_file(out / "model.safetensors")


def test_what_cannot_be_trained(checkpoint, extended, data, tmp_path):
    source, out = extended("qwen2", tied=True), tmp_path / "out"
    refuse("has no new rows to train: extend it first", checkpoint(), data, out)
    refuse(
        "'0 7': 7 is no layer of this model, which has 0 to 1", source, data, out, "--finetune_layers", "0 7"
    )
    refuse("'': nothing is no layer", source, data, out, "--finetune_layers", "")
    refuse("nothing would be trained", source, data, out, "--train_rows", "none")
    refuse("--lora_rank 2 with --finetune_layers none", source, data, out, "--lora_rank", "2")
    refuse("--eval_share is 1.5", source, data, out, "--eval_share", "1.5")
    if importlib.util.find_spec("torchao") is None:
        refuse("--optim adamw_torch_8bit is torchao's", source, data, out, "--optim", "adamw_torch_8bit")
    refuse("--stage_mix vi: expected NAME=SHARE", source, data, out, "--stage_mix", "vi")
    refuse("--report_to nonsense: nonsense is not supported", source, data, out, "--report_to", "nonsense")
    refuse("--no_such_flag", source, data, out, "--no_such_flag", "3")
    inside = ["--optim_in_backward", "--gradient_accumulation_steps", "2", "--max_grad_norm", "1"]
    refuse("needs --gradient_accumulation_steps 1, --max_grad_norm 0", source, data, out, *inside)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": "Qwen/Qwen2.5-7B"})
    refuse("is an adapter of Qwen/Qwen2.5-7B, no model", adapter, data, out)
    refuse("is an encoder-decoder model", checkpoint("t5"), data, out, "--train_rows", "all")


def test_an_output_that_is_there_or_of_another_run(extended, data, tmp_path):
    source = extended("qwen2", tied=True)
    out = finetune(source, data, tmp_path / "out", "--max_steps", "1")
    with pytest.raises(UserError, match="already exists"):
        finetune(source, data, out)
    part = left_by_a_run(tmp_path / "other", "progress.json").parent
    refuse("is not of a training run", source, data, tmp_path / "other")
    (part / "progress.json").unlink()
    write_json(part / "run.json", {"format": "vocabkit-run", "version": 1, "model_sha256": "0"})
    (part / "checkpoint-4").mkdir()
    write_json(part / "checkpoint-4" / "trainer_state.json", {"global_step": 4})
    refuse("holds another run, its model_sha256 differs", source, data, tmp_path / "other")


def test_two_runs_of_one_output(extended, data, tmp_path):
    part = tmp_path / "out.part"
    busy = pytest.raises(UserError, match=r"out\.part is being written by another")
    with pytest.raises(ZeroDivisionError), publication([tmp_path / "out"], resume=True) as first:
        with busy:
            finetune(extended(), data, tmp_path / "out", "--max_steps", "1")
        assert first.folder == part and part.is_dir()  # and the one that was refused removed nothing
        raise ZeroDivisionError
    finetune(extended(), data, tmp_path / "out", "--max_steps", "1")
    assert not part.exists()


def test_new_tokens_that_are_not_the_last(extended, data, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(extended("qwen2", tied=True), source)
    edit = read_json(source / "vocab_edit.json")
    write_json(source / "vocab_edit.json", {**edit, "new_to_old": [None, *edit["new_to_old"][1:]]})
    refuse("has new tokens that are not the last", source, data, tmp_path / "out")


def test_a_card_that_is_too_small(extended, data, tmp_path, monkeypatch):
    source = extended("qwen2", tied=True)
    monkeypatch.setattr(memory, "available", lambda device: 2e5)
    flags = ["--train_rows", "all", "--finetune_layers", "all"]
    refuse(
        "GiB free; even .* take a larger device or a smaller model, or --ignore_memory",
        source,
        data,
        tmp_path / "out",
        *flags,
    )
    out = finetune(source, data, tmp_path / "out", *flags, "--ignore_memory", "--max_steps", "1")
    assert out.is_dir()


def test_peak_memory_is_that_of_the_training(monkeypatch, tmp_path):
    """Not of loading, not of the evaluations around it; the allocator of a GPU is played."""
    peak = [7]

    def took(size: int) -> None:
        peak[0] = max(peak[0], size)

    class Trainer:
        eval_dataset, interrupted, before_first_step = ["a text"], False, None
        state, args = types.SimpleNamespace(global_step=1), types.SimpleNamespace(process_index=0)
        parts = types.SimpleNamespace(round_to_stored=lambda: None)

        def evaluate(self, metric_key_prefix: str) -> dict[str, float]:
            took(9)
            return {f"{metric_key_prefix}_bits_per_byte": 1.0}

        def train(self, resume_from_checkpoint: str | None) -> None:
            self.before_first_step()
            took(5)

        def gather_counts(self, peak: int) -> tuple[int, int]:
            return 1, peak

    write_json(tmp_path / "run.json", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peak.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak[0])
    assert _train(Trainer(), tmp_path, None, guard=dict)["peak_memory_bytes"] == 5
    assert peak == [9]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert 1e8 < _peak_memory() < 1e12, "resident bytes of this process"
