"""What a stage moves, and what keeps every bit."""

import pytest
import torch
from training import WORDS, finetune, stage, tensors
from transformers import AutoModelForCausalLM

from vocabkit.checkpoint.record import new_rows
from vocabkit.files import sha256_file
from vocabkit.train.trainer import StageTrainer

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


def test_padding_rows_that_an_optimizer_moved_are_zero_again(extended, data, tmp_path, monkeypatch):
    """As bitsandbytes' 8-bit optimizers do: a state that is zero is not zero once it was rounded."""
    source = extended("qwen2", tied=False)
    step = StageTrainer.training_step

    def move(self, model, *args, **options):
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            module.weight.data[new_rows(source).stop :] += 1e-3
        return step(self, model, *args, **options)

    monkeypatch.setattr(StageTrainer, "training_step", move)
    out = finetune(source, data, tmp_path / "out", "--train_rows", "all", "--max_steps", "1")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert not tensors(out)[name][new_rows(source).stop :].any()
