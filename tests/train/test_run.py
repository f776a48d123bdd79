"""finetune_qwen.py on real tiny checkpoints: what moves, what keeps every bit, what a killed run leaves."""

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import types
from pathlib import Path
from typing import Any

import build
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file
from tiny import SENTENCES
from training import RUN, WORDS, argv_of, finetune, killed_run, refuse, stage, tensors
from transformers import AutoModelForCausalLM

import finetune_qwen
from vocabkit.checkpoint.record import new_rows
from vocabkit.errors import UserError
from vocabkit.files import read_json, sha256_file, write_json
from vocabkit.models.load import load_tokenizer
from vocabkit.outputs import resumable_directory
from vocabkit.train import memory
from vocabkit.train import run as train_run
from vocabkit.train.data.tokenize import load_dataset
from vocabkit.train.output import write_trained
from vocabkit.train.run import _peak_memory, _train
from vocabkit.train.trainer import StageTrainer, last_checkpoint

# What moves, and what does not

HARSH = ["--weight_decay", "0.1", "--max_grad_norm", "0.5", "--learning_rate", "0.05", "--max_steps", "4"]
CASES = [
    ("qwen2", dict(tied=True), []),
    ("qwen2", dict(tied=False, shards=3, dtype="bfloat16"), ["--dtype", "bfloat16"]),
    ("qwen2", dict(tied=True, dtype="bfloat16"), ["--finetune_layers", "all", "--lora_rank", "2"]),
    ("llama", dict(tied=False), ["--finetune_layers", "0", "--lora_rank", "2"]),
    ("gemma2", dict(tied=True), ["--optim", "adafactor"]),
]


@pytest.mark.parametrize(("family", "options", "flags"), CASES)
def test_new_rows_alone_move(extended, data, tmp_path, family, options, flags):
    source = extended(family, **options)
    all_of_it = ["--eval_share", "0"]  # the input row of a word that is held out would not move
    out = finetune(source, data, tmp_path / "out", "--train_rows", "new", *HARSH, *all_of_it, *flags)
    before, after, rows = tensors(source), tensors(out), new_rows(source)
    assert rows is not None and len(rows) == len(WORDS)
    assert before.keys() == after.keys(), "a tied model grew a head, or a wrapper's name is left"
    tables = {name for name in before if name in ("model.embed_tokens.weight", "lm_head.weight")}
    assert len(tables) == (1 if options["tied"] else 2)
    for name in tables:
        old, new = before[name], after[name]
        assert old.dtype == new.dtype and old.shape == new.shape
        assert torch.equal(old[: rows.first].view(torch.uint8), new[: rows.first].view(torch.uint8))
        assert not new[rows.stop :].any(), "padding rows are no longer zero"
        moved = (old != new).any(1)[rows.first : rows.stop]
        assert moved[:3].all() if name == "model.embed_tokens.weight" else moved.all()
        norms = old[: rows.first].float().norm(dim=1)
        own = new[rows.first : rows.stop].float().norm(dim=1)
        assert (own <= norms.max() * 1.01).all() and (own >= norms[norms > 0].min() * 0.99).all()
        assert stage(out)["rows"][name]["rows"] == [rows.first, rows.stop]
    changed = {name for name in before if not torch.equal(before[name], after[name])} - tables
    layer = flags[flags.index("--finetune_layers") + 1] if "--finetune_layers" in flags else None
    if layer is None:
        assert not changed
    else:
        assert changed and all(layer == "all" or f".layers.{layer}." in name for name in changed)
        assert all(name.endswith("_proj.weight") for name in changed), "LoRA moves linear weights alone"
    same = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"]
    assert all(sha256_file(source / name) == sha256_file(out / name) for name in same)
    assert not (tmp_path / "out.part").exists()
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == []


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


def test_only_the_named_layers_and_all_rows(extended, data, tmp_path):
    source = extended("qwen2", tied=False)
    out = finetune(source, data, tmp_path / "out", "--train_rows", "all", "--finetune_layers", "1", *HARSH)
    before, after = tensors(source), tensors(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"model.embed_tokens.weight", "lm_head.weight"} < changed
    assert all(".layers.1." in name for name in changed - {"model.embed_tokens.weight", "lm_head.weight"})
    stop = new_rows(source).stop
    assert all(not after[name][stop:].any() for name in ("model.embed_tokens.weight", "lm_head.weight"))


def test_an_unmerged_adapter_is_what_merging_adds(extended, data, tmp_path):
    from peft import PeftModel

    source = extended("qwen2", tied=True)
    flags = ["--finetune_layers", "all", "--lora_rank", "2", "--max_steps", "3", "--learning_rate", "0.01"]
    merged = finetune(source, data, tmp_path / "merged", *flags)
    apart = finetune(source, data, tmp_path / "apart", *flags, "--no_merge_lora")
    names = {n for n, t in tensors(source).items() if not torch.equal(t, tensors(apart)[n])}
    assert names == {"model.embed_tokens.weight"}, "without merging the layers stay as they were"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(apart), apart / "adapter")
    model = model.merge_and_unload().eval()
    wanted = AutoModelForCausalLM.from_pretrained(merged).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, wanted(ids).logits, atol=1e-4)


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


def test_a_model_that_was_never_edited(data, tmp_path):
    base = build.make_checkpoint(tmp_path / "plain", "qwen2")
    out = finetune(
        base, data, tmp_path / "out", "--train_rows", "none", "--finetune_layers", "0", "--max_steps", "1"
    )
    assert read_json(out / "training.json")["training"][0]["finetune_layers"] == "0"
    assert not (out / "vocab_edit.json").exists()
    assert "| 1 | none | 0 | lm | 1 | " in (out / "README.md").read_text(encoding="utf-8")


# The optimizer and the loss's normalization


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


def test_a_checkpoint_cut_off_while_it_was_written_is_not_used(tmp_path):
    for step, name in ((4, "trainer_state.json"), (10, "trained.safetensors")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / name).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"


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


def test_a_second_interrupt_ends_at_once(extended, data, tmp_path, monkeypatch):
    def press(self: Any, *args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StageTrainer, "training_step", press)
    with pytest.raises(KeyboardInterrupt):
        finetune(extended("qwen2", tied=True), data, tmp_path / "out", *RUN)


def test_a_loss_that_is_no_number_stops(extended, data, tmp_path):
    source = tmp_path / "broken"
    shutil.copytree(extended("qwen2", tied=True), source)
    broken = load_file(source / "model.safetensors")
    broken["model.norm.weight"][:] = float("nan")
    save_file(broken, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="the loss is nan at step 1: lower --learning_rate"):
        finetune(source, data, tmp_path / "out", "--max_steps", "2", "--eval_share", "0")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_trained(extended, data, tmp_path):
    source, out = extended("qwen2", tied=True), tmp_path / "out"
    plain = build.make_checkpoint(tmp_path / "plain", "qwen2")
    refuse("has no new rows to train: extend it first", plain, data, out)
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
    t5 = build.make_checkpoint(tmp_path / "t5", "t5")
    refuse("is an encoder-decoder model", t5, data, out, "--train_rows", "all")


def test_an_output_that_is_there_or_of_another_run(extended, data, tmp_path):
    source = extended("qwen2", tied=True)
    out = finetune(source, data, tmp_path / "out", "--max_steps", "1")
    with pytest.raises(UserError, match="already exists"):
        finetune(source, data, out)
    part = tmp_path / "other.part"
    part.mkdir()
    (part / "notes.txt").touch()
    refuse("is not of a training run", source, data, tmp_path / "other")
    (part / "notes.txt").unlink()
    write_json(part / "run.json", {"format": "vocabkit-run", "version": 1, "model_sha256": "0"})
    (part / "checkpoint-4").mkdir()
    (part / "checkpoint-4" / "trainer_state.json").touch()
    refuse("holds another run, its model_sha256 differs", source, data, tmp_path / "other")


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


def test_two_runs_of_one_output(extended, data, tmp_path):
    part = tmp_path / "out.part"
    with resumable_directory(part), pytest.raises(UserError, match=r"out\.part is being written by another"):
        finetune(extended(), data, tmp_path / "out", "--max_steps", "1")
    assert [*part.iterdir()] == []  # and the one that was refused removed nothing
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
    refuse("GiB free; take a larger device, or --ignore_memory", source, data, tmp_path / "out", *flags)
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
    assert _train(Trainer(), tmp_path, None)["peak_memory_bytes"] == 5
    assert peak == [9]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert 1e8 < _peak_memory() < 1e12, "resident bytes of this process"


def test_rows_that_moved_are_not_saved(extended, data, tmp_path, monkeypatch):
    """The check at the end, proved: what is written is damaged on its way."""
    source = extended("qwen2", tied=True)
    write = write_trained

    def damage(at: int) -> None:
        def written(source: Path, part: Path, changes: Any) -> None:
            write(source, part, changes)
            path = part / "model.safetensors"
            values = load_numpy(path)
            values["model.embed_tokens.weight" if at >= 0 else "model.norm.weight"][at] += np.float32(1)
            from safetensors.numpy import save_file as save_numpy

            save_numpy(values, path, metadata={"format": "pt"})

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
