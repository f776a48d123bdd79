"""vocabkit/train/memory.py: the sums are those of Qwen2.5-7B that were worked out by hand."""

import functools
import re
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import finetune_qwen
from vocabkit.checkpoint.shards import Tensor
from vocabkit.errors import UserError
from vocabkit.train import loss
from vocabkit.train.flags import training_arguments
from vocabkit.train.memory import (
    CARD_RESERVE,
    CHUNK,
    GIB,
    Model,
    Stage,
    available,
    check_fits,
    model_sizes,
    print_chunk,
    stage_of,
)
from vocabkit.train.options import StageOptions

H, WIDE, KV, L = 3584, 18944, 512, 28
CONFIG = {"hidden_size": H, "intermediate_size": WIDE}


@functools.cache
def sizes(rows: int, *, new: int = 0) -> Model:
    shapes = {"model.embed_tokens.weight": (rows, H), "lm_head.weight": (rows, H), "model.norm.weight": (H,)}
    for at in range(L):
        layer = f"model.layers.{at}."
        for name, out in (("q", H), ("k", KV), ("v", KV)):
            shapes |= {
                f"{layer}self_attn.{name}_proj.weight": (out, H),
                f"{layer}self_attn.{name}_proj.bias": (out,),
            }
        shapes |= {f"{layer}self_attn.o_proj.weight": (H, H), f"{layer}mlp.down_proj.weight": (H, WIDE)}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (WIDE, H) for name in ("gate", "up")}
        shapes |= {f"{layer}{name}_layernorm.weight": (H,) for name in ("input", "post_attention")}
    tensors = {name: Tensor(name, None, "BF16", shape, 0, 0) for name, shape in shapes.items()}  # type: ignore[arg-type]
    model = model_sizes(CONFIG, tensors, rows=rows, tied=False)
    return Model(**{**model.__dict__, "new": new})


def test_parameters_of_the_7b():
    model = sizes(152_064)
    assert model.parameters == 7_615_616_512  # as its model card says: 7.61 B
    assert model.parameters - model.tables == 6_525_621_760


FULL = dict(train_rows="all", trained_layers=L)
BIG = dict(dtype="bfloat16", tokens=4096, chunk=64 << 20)
LORA_64 = dict(FULL, lora_rank=64)
# Bytes that torch held at the peak on an H200, torch 2.11, 2026-11-27, by benchmarks/memory_measured.py: a 7B
# of 96,000 rows and 1,024 new ones, a 1.5B. The fused loss was another then: it held the head's gradient
# three times, where it is held once now.
ON_A_GPU = [
    ("7B", 96_000, dict(FULL, optim="adamw_torch_8bit", in_backward=True), 33_668_084_736),
    ("7B", 96_000, dict(LORA_64, optim="adamw_torch_8bit"), 21_092_940_800),
    ("7B", 96_000, dict(train_rows="new", trained_layers=0, optim="adamw_torch"), 16_613_364_736),
    ("7B", 96_000, dict(FULL, optim="adafactor", in_backward=True), 21_695_919_104),
    ("1.5B", 151_936, dict(LORA_64, optim="adamw_torch"), 6_401_190_400),
    ("1.5B", 94_976, dict(LORA_64, optim="adamw_torch"), 5_348_308_480),
    ("1.5B", 151_936, dict(LORA_64, optim="adamw_torch", fused=False), 12_453_789_696),
    ("1.5B", 94_976, dict(LORA_64, optim="adamw_torch", fused=False), 9_127_018_496),
]


@pytest.mark.parametrize(("name", "rows", "what", "measured"), ON_A_GPU)
def test_what_a_gpu_held(name, rows, what, measured):
    model = sizes(rows, new=1024) if name == "7B" else qwen_1_5b(rows)
    moments = list(Stage(model, **BIG, **what)._moments())
    if name == "1.5B" and what.get("fused", True):
        moments[0] = replace(moments[0], loss=moments[0].loss + 2 * rows * 1536 * 2)
    expected = max(memory.total for memory in moments)
    assert measured <= expected <= 1.03 * measured


def qwen_1_5b(rows: int) -> Model:
    h, wide, kv = 1536, 8960, 256
    linear = ((h, h), (kv, h), (kv, h), (h, h), (wide, h), (wide, h), (h, wide))
    layer = sum(a * b for a, b in linear) + h + 2 * kv + 2 * h
    return Model(rows, h, True, (layer,) * 28, linear, h, wide)


def test_a_chunk_of_logits_is_what_the_loss_says():
    assert CHUNK == 4 * loss.CHUNK


def test_new_rows_of_their_own_cost_nothing_but_themselves():
    flags = dict(dtype="bfloat16", optim="adamw_torch", tokens=4096, trained_layers=0)
    none = Stage(sizes(101_056), train_rows="none", **flags).memory()
    new = Stage(sizes(101_056, new=2048), train_rows="new", **flags).memory()
    assert new.weights + new.optimizer - none.weights - none.optimizer == 2048 * H * 2 * (4 + 8)  # two ends
    assert new.total < none.total * 1.02


def test_lessons_need_logits_of_their_places_and_a_few_activations():
    flags = dict(dtype="bfloat16", optim="adamw_torch", tokens=4096, trained_layers=0, train_rows="new")
    plain, taught = (
        next(Stage(sizes(101_056, new=2048), lessons=what, **flags)._moments()) for what in (False, True)
    )
    assert taught.loss - plain.loss == 16 * 9 * 101_056 * 4 * 8
    assert taught.activations - plain.activations == 16 * 50 * 28 * H * 2


def test_fsdp_takes_memory_in_shares():
    stage = Stage(sizes(101_056), dtype="bfloat16", tokens=4096, optim="adamw_torch", **FULL)
    whole, part = stage.memory(), replace(stage, processes=4).memory()
    assert 4 * part.weights == whole.weights and 4 * part.gradients == whole.gradients
    assert 4 * part.optimizer == whole.optimizer > 0
    assert part.activations == whole.activations and part.loss == whole.loss


# What fits which card, and whether the advice of a refusal does

NEW_WORDS = 2048
STAGES = {  # the defaults of a GPU are 8-bit AdamW, bfloat16, checkpointing and one row at a time
    "full, 8-bit in backward": ["--train_rows", "all", "--finetune_layers", "all", "--optim_in_backward"],
    "full, Adafactor in backward": ["--train_rows", "all", "--finetune_layers", "all", "--optim_in_backward",
                                    "--optim", "adafactor"],
    "full, 8-bit": ["--train_rows", "all", "--finetune_layers", "all"],
    "full, plain AdamW": ["--train_rows", "all", "--finetune_layers", "all", "--optim", "adamw_torch",
                          "--dtype", "float32", "--activation_checkpointing", "false",
                          "--per_device_train_batch_size", "4"],
    "full, accumulated": ["--train_rows", "all", "--finetune_layers", "all",
                          "--gradient_accumulation_steps", "8"],
    "LoRA and all rows": ["--train_rows", "all", "--finetune_layers", "all", "--lora_rank", "64"],
    "2 layers": ["--train_rows", "all", "--finetune_layers", "0 1"],
    "new rows": ["--train_rows", "new", "--finetune_layers", "none"],
}  # fmt: skip
CARD_24, CARD_40 = 23.5 * GIB, 39.5 * GIB  # what is free on such a card; CARD_RESERVE is not
WHOLE, TRIMMED = 152_064, 101_056


@functools.cache
def settings_of(flags: tuple[str, ...]) -> tuple[StageOptions, Any]:
    options = finetune_qwen.read_options([*flags])
    settings = training_arguments(options, part=Path("O.part"))
    # The namespace stands for a GPU; TrainingArguments itself would look for one.
    return options, types.SimpleNamespace(**{**vars(settings), "device": CUDA, "world_size": 1})


def run_on(
    monkeypatch, card: float, flags: Sequence[str], *, rows: int, tokens: int
) -> tuple[Stage, StageOptions, Any]:
    """What a run with these flags of finetune_qwen.py hands to check_fits() on such a card."""
    monkeypatch.setattr("vocabkit.train.memory.available", lambda _: card - CARD_RESERVE)
    monkeypatch.setattr("vocabkit.train.flags.TORCHAO", ())  # installed or not is not asked
    of_a_gpu = ["--optim", "adamw_torch_8bit", "--activation_checkpointing", "true", "--dtype", "bfloat16",
                "--per_device_train_batch_size", "1", "--model_max_length", str(tokens)]  # fmt: skip
    given = ["--model_name_or_path", "M", "--data_path", "D", "--output_dir", "O", *of_a_gpu]
    options, settings = settings_of((*given, *flags))
    return stage_of(sizes(rows, new=NEW_WORDS), options, settings), options, settings


CUDA = types.SimpleNamespace(type="cuda")
FITS = [  # what, tokens of a row, card, whether it fits with all rows, and trimmed
    ("full, 8-bit in backward", 4096, CARD_40, True, True),
    ("full, 8-bit in backward", 8192, CARD_40, True, True),
    ("full, 8-bit in backward", 4096, CARD_24, False, False),
    ("full, Adafactor in backward", 8192, CARD_24, False, True),
    ("full, 8-bit", 4096, CARD_40, False, False),
    ("LoRA and all rows", 4096, CARD_24, False, True),
    ("LoRA and all rows", 8192, CARD_24, False, True),
    ("2 layers", 8192, CARD_24, False, True),
    ("new rows", 8192, CARD_24, True, True),
]


@pytest.mark.parametrize(("what", "tokens", "card", "whole", "trimmed"), FITS)
def test_what_fits_which_card(monkeypatch, what, tokens, card, whole, trimmed):
    for rows, fits in ((WHOLE, whole), (TRIMMED, trimmed)):
        run = run_on(monkeypatch, card, STAGES[what], rows=rows, tokens=tokens)
        if fits:
            check_fits(*run)
        else:
            with pytest.raises(UserError, match=r"^M needs about \d+\.\d GiB, .* GiB free; give --"):
                check_fits(*run)


@pytest.mark.parametrize("tokens", [1024, 4096, 16384])
@pytest.mark.parametrize("card", [CARD_24, CARD_40])
@pytest.mark.parametrize("what", STAGES)
def test_who_follows_the_advice_has_a_run_that_fits(monkeypatch, what, card, tokens):
    for rows in (WHOLE, TRIMMED):
        run = run_on(monkeypatch, card, STAGES[what], rows=rows, tokens=tokens)
        try:
            check_fits(*run)
            continue
        except UserError as error:
            found = re.search(r"give (--.*) \(about ([\d.]+) GiB\), or --ignore_memory$", str(error))
        assert found, "no way out"
        given = found[1].split()
        names = [flag for flag in given if flag.startswith("--")]
        assert len(set(names)) == len(names), "a flag is named twice"
        after = run_on(monkeypatch, card, [*STAGES[what], *given], rows=rows, tokens=tokens)
        check_fits(*after)
        assert f"{after[0].memory().total / GIB:.1f}" == found[2]
        for at, name in enumerate(given):  # and every one of its flags is needed
            if name.startswith("--") and name != "--gradient_accumulation_steps":
                end = next((i for i in range(at + 1, len(given)) if given[i].startswith("--")), len(given))
                less = [*STAGES[what], *given[:at], *given[end:]]
                if "--optim_in_backward" not in less and name == "--optim_in_backward":
                    less += ["--gradient_accumulation_steps", "1"]
                with pytest.raises(UserError):
                    check_fits(*run_on(monkeypatch, card, less, rows=rows, tokens=tokens))


@pytest.mark.parametrize(
    ("what", "card", "advice"),
    [
        ("full, 8-bit", CARD_40, "--optim_in_backward"),
        ("full, accumulated", CARD_40, "--optim_in_backward --gradient_accumulation_steps 1"),
        ("full, 8-bit", CARD_24, "--optim_in_backward --optim adafactor"),
        ("full, plain AdamW", CARD_40, "--activation_checkpointing true --dtype bfloat16 "
         "--optim adamw_torch_8bit --optim_in_backward"),
        ("full, plain AdamW", CARD_24, "--per_device_train_batch_size 1 --activation_checkpointing true "
         "--dtype bfloat16 --optim_in_backward --optim adafactor"),
    ],
)  # fmt: skip
def test_the_mildest_flags_are_named(monkeypatch, what, card, advice):
    run = run_on(monkeypatch, card, STAGES[what], rows=TRIMMED, tokens=4096)
    with pytest.raises(UserError) as caught:
        check_fits(*run)
    assert sorted(re.search(r"give (--.*) \(", str(caught.value))[1].split()) == sorted(advice.split())


def test_what_fits_nowhere_says_so(monkeypatch):
    run = run_on(monkeypatch, 8 * GIB, STAGES["full, 8-bit"], rows=TRIMMED, tokens=4096)
    with pytest.raises(UserError, match=r"even --.* needs 1\d\.\d GiB: take a larger device or a smaller"):
        check_fits(*run)
    run = run_on(monkeypatch, 8 * GIB, STAGES["new rows"], rows=TRIMMED, tokens=512)
    with pytest.raises(UserError, match=r"7\.5 GiB free; take a larger device, or --ignore_memory$"):
        check_fits(*run)
    monkeypatch.setattr("vocabkit.train.memory.available", lambda _: None)
    check_fits(*run)


@pytest.mark.parametrize(
    ("free", "kind", "expected"),
    [
        (80, "cuda", "1,024 MiB of logits: 2,656 tokens at a time"),
        (19.6, "cuda", "512 MiB of logits: 1,328 tokens at a time"),
        (18, "cuda", "64 MiB of logits: 166 tokens"),
        (80, "cpu", "64 MiB of logits: 166 tokens"),
    ],
)
def test_the_loss_takes_what_a_gpu_has_left(monkeypatch, capsys, free, kind, expected):
    monkeypatch.setattr("vocabkit.train.memory.available", lambda _: free * GIB)
    flags = dict(dtype="bfloat16", optim="adamw_torch", tokens=4096, trained_layers=0, train_rows="all")
    stage = Stage(sizes(TRIMMED), **flags)
    chunk = print_chunk(stage, device(kind))
    printed = capsys.readouterr().out
    assert expected in printed and f" {4 * chunk / 2**20:,.0f} MiB" in printed
    print_chunk(replace(stage, tokens=100), device(kind))
    assert "all tokens at once" in capsys.readouterr().out
    assert replace(stage, chunk=4 * chunk).memory().total <= free * GIB or 4 * chunk == CHUNK


def device(kind: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(type=kind)


def test_memory_that_is_there():
    free = available(device("cpu"))
    assert free is None or 1e8 < free < 1e15
    assert available(device("mps")) is None
