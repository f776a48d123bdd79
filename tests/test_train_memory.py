"""vocabkit/train_memory.py: the sums are those of Qwen2.5-7B that were worked out by hand."""

import argparse
import types

import pytest

from vocabkit.checkpoint import Tensor
from vocabkit.errors import UserError
from vocabkit.train_memory import GIB, Memory, Model, available, check_fits, expect, model_sizes

H, I, KV, L = 3584, 18944, 512, 28
CONFIG = {"hidden_size": H, "intermediate_size": I}


def sizes(rows: int, *, new: int = 0) -> Model:
    shapes = {"model.embed_tokens.weight": (rows, H), "lm_head.weight": (rows, H), "model.norm.weight": (H,)}
    for at in range(L):
        layer = f"model.layers.{at}."
        for name, out in (("q", H), ("k", KV), ("v", KV)):
            shapes |= {
                f"{layer}self_attn.{name}_proj.weight": (out, H),
                f"{layer}self_attn.{name}_proj.bias": (out,),
            }
        shapes |= {f"{layer}self_attn.o_proj.weight": (H, H), f"{layer}mlp.down_proj.weight": (H, I)}
        shapes |= {f"{layer}mlp.{name}_proj.weight": (I, H) for name in ("gate", "up")}
        shapes |= {f"{layer}{name}_layernorm.weight": (H,) for name in ("input", "post_attention")}
    tensors = {name: Tensor(name, None, "BF16", shape, 0, 0) for name, shape in shapes.items()}  # type: ignore[arg-type]
    model = model_sizes(CONFIG, tensors, rows=rows, tied=False)
    return Model(**{**model.__dict__, "new": new})


def test_parameters_of_the_7b():
    model = sizes(152_064)
    assert model.parameters == 7_615_616_512  # as its model card says: 7.61 B
    assert model.parameters - model.tables == 6_525_621_760


FULL = dict(train_rows="all", trained_layers=L)
STAGE_3 = dict(train_rows="all", trained_layers=L, lora_rank=64, optim="adamw_torch_8bit")
# what, tokens, GiB at 152,064 and at 101,056 rows: worked out apart from this code
TABLE = [
    (dict(FULL, optim="adamw_torch_8bit", fused=False), 4096, 51.3, 47.0),
    (dict(FULL, optim="adamw_torch_8bit"), 4096, 45.5, 43.1),
    (dict(FULL, optim="adamw_torch_8bit"), 8192, 47.1, 44.8),
    (dict(FULL, optim="adamw_torch_8bit", in_backward=True), 4096, 32.3, 30.3),
    (dict(FULL, optim="adafactor", in_backward=True), 4096, 18.0, 16.6),
    (dict(train_rows="none", trained_layers=L, lora_rank=64, optim="adamw_torch"), 4096, 18.3, 17.6),
    (STAGE_3, 4096, 22.5, 20.1),
    (dict(train_rows="all", trained_layers=2, optim="adamw_torch_8bit"), 4096, 22.7, 20.3),
]


@pytest.mark.parametrize(("what", "tokens", "whole", "trimmed"), TABLE)
def test_the_table_of_the_7b(what, tokens, whole, trimmed):
    for rows, expected in ((152_064, whole), (101_056, trimmed)):
        found = expect(sizes(rows), dtype="bfloat16", tokens=tokens, **what).total / GIB
        assert found == pytest.approx(expected, rel=0.05), rows


def test_new_rows_of_their_own_cost_nothing_but_themselves():
    flags = dict(dtype="bfloat16", optim="adamw_torch", tokens=4096, trained_layers=0)
    none = expect(sizes(101_056), train_rows="none", **flags)
    new = expect(sizes(101_056, new=2048), train_rows="new", **flags)
    assert new.total - none.total == 2048 * H * 2 * (4 + 4 + 4)  # two ends; weight, gradient, half the states
    assert new.gradients == 2048 * H * 2 * 4


def device(kind: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(type=kind)


def test_what_does_not_fit_is_refused_with_the_flags_to_change(monkeypatch):
    memory = expect(sizes(152_064), dtype="bfloat16", optim="adamw_torch", tokens=8192, **FULL)
    args = argparse.Namespace(
        optim_in_backward=False,
        finetune_layers="all",
        lora_rank=None,
        model_max_length=4096,
        model_name_or_path="M",
    )
    settings = types.SimpleNamespace(
        device=device("cuda"),
        optim="adamw_torch",
        activation_checkpointing=False,
        per_device_train_batch_size=2,
    )
    monkeypatch.setattr("vocabkit.train_memory.available", lambda _: 40.0 * GIB)
    with pytest.raises(UserError, match=r"M needs about \d+\.\d GiB.* has 40.0 GiB free") as caught:
        check_fits(memory, args, settings)
    for flag in ("--optim adamw_torch_8bit", "--optim_in_backward", "--activation_checkpointing true",
                 "--per_device_train_batch_size 1", "--lora_rank 64", "--model_max_length 2048"):  # fmt: skip
        assert flag in str(caught.value)
    check_fits(Memory(1, 1, 1, 1, 1), args, settings)
    monkeypatch.setattr("vocabkit.train_memory.available", lambda _: None)
    check_fits(memory, args, settings)


def test_memory_that_is_there():
    free = available(device("cpu"))
    assert free is None or 1e8 < free < 1e15
    assert available(device("mps")) is None
