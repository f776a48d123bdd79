"""--attn_implementation: documents of a packed row stay apart in each, and what cannot run says so in one
line.

No GPU is needed: flash-attention's two kernels are written in plain torch below and put in the place of the
package, so that all that transformers does around them (which one it calls, with what) is its own.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import SENTENCES
from transformers import AttentionInterface, AttentionMaskInterface, modeling_flash_attention_utils
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import flash_attention_mask

import finetune_qwen
from vocabkit.errors import UserError
from vocabkit.models.load import load_model
from vocabkit.train import flags
from vocabkit.train.data.packing import Collator, pack
from vocabkit.train.flags import check_attention
from vocabkit.train.loss import fuse_loss

STOP = 150  # ids of the documents below
NAME = "flash_reference"


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, softmax_scale: Any = None):
    """flash_attn_func: (B, N, heads, D), each row one document."""
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (softmax_scale or q.shape[-1] ** -0.5)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def flash_varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens_q: torch.Tensor, cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int, max_seqlen_k: int, causal: bool = False, softmax_scale: Any = None,
):  # fmt: skip
    """flash_attn_varlen_func: (N, heads, D), documents at [cu_seqlens[i], cu_seqlens[i + 1])."""
    assert (
        cu_seqlens_q.dtype == torch.int32
        and cu_seqlens_q[-1] == len(q)
        and torch.equal(cu_seqlens_q, cu_seqlens_k)
    )
    edges = list(itertools.pairwise(cu_seqlens_q.tolist()))
    assert max(end - start for start, end in edges) == max_seqlen_q == max_seqlen_k
    CALLS.append(len(edges))
    parts = (flash(*(x[None, start:end] for x in (q, k, v)), causal, softmax_scale) for start, end in edges)
    return torch.cat([part[0] for part in parts])


CALLS: list[int] = []  # documents of each call of the varlen kernel


@pytest.fixture
def flash_attention(monkeypatch) -> str:
    """The name of an attention that is transformers' own around the two kernels above."""
    AttentionInterface.register(NAME, flash_attention_forward)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    utils = modeling_flash_attention_utils
    kernels = (flash, flash_varlen, None, utils._pad_input, utils._unpad_input)
    monkeypatch.setattr(utils, "_lazy_imports", lambda *args, **options: kernels)
    monkeypatch.setattr(utils, "_loaded_implementation", None)
    CALLS.clear()
    return NAME


@pytest.fixture(scope="module")
def folder(checkpoint) -> Path:
    return checkpoint()


def rows_of(how: str) -> list[dict[str, Any]]:
    random = np.random.default_rng(1)
    lists = [random.integers(5, STOP, length).tolist() for length in random.integers(2, 30, 9)]
    data = datasets.Dataset.from_dict(
        {"input_ids": lists, "labels": lists, "num_bytes": [len(ids) for ids in lists]}
    )
    return list(pack(data, how=how, max_length=48, notes=lambda note: None))


def nats_and_gradients(
    folder: Path, attention: str, batches: list[dict[str, Any]]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Sums over batches, by the loss that training uses."""
    model = fuse_loss(load_model(folder, dtype="float32", device="cpu", attention=attention), n_tokens=STOP)
    total = sum(model(**batch, num_items_in_batch=1).loss for batch in batches)
    total.backward()
    return float(total.detach()), {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def alone(folder) -> tuple[float, dict[str, torch.Tensor]]:
    """Each document in a batch of its own, by plain causal attention."""
    return nats_and_gradients(folder, "eager", [Collator(0)([row]) for row in rows_of("none")])


def same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> bool:
    close = [torch.allclose(one[1][name], other[1][name], rtol=2e-3, atol=2e-3) for name in one[1]]
    assert all(close) == (one[0] == pytest.approx(other[0], rel=1e-5)), "loss and gradients disagree"
    return all(close)


def test_a_flat_batch_is_the_sum_of_its_documents(folder, alone, flash_attention):
    rows = rows_of("best_fit")
    documents = sum(len(row["seq_lengths"]) for row in rows)
    assert 2 <= len(rows) < documents == 9
    batch = Collator(0, flatten=True)(rows)
    assert same(nats_and_gradients(folder, flash_attention, [batch]), alone)
    assert CALLS == [documents] * 2, "both layers called the kernel that keeps documents apart"


def test_without_the_edges_documents_see_each_other(folder, alone, flash_attention):
    """Why rows are flattened: in a batch of several, transformers takes each row for one document."""
    rows = rows_of("best_fit")
    assert not same(nats_and_gradients(folder, flash_attention, [Collator(0)(rows)]), alone)
    edges = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
    flat = Collator(0, flatten=True)(rows)
    running = {**flat, "position_ids": torch.arange(flat["input_ids"].shape[1])[None]}
    for name in edges:
        del running[name]
    assert not same(nats_and_gradients(folder, flash_attention, [running]), alone)
    assert not CALLS
    one_by_one = [Collator(0)([row]) for row in rows]  # where position_ids alone are enough
    assert same(nats_and_gradients(folder, flash_attention, one_by_one), alone)


def test_held_out_texts_keep_rows_of_their_own(folder, alone, flash_attention):
    """Several rows, padded, one document in each: right without edges, and sums come row by row."""
    collate = Collator(0, flatten=True).in_rows()
    model = fuse_loss(load_model(folder, dtype="float32", attention=flash_attention), n_tokens=STOP)
    rows = rows_of("none")
    with torch.no_grad():
        found = model(**collate(rows), per_row=True).logits
    assert found.shape == (len(rows), 2) and not CALLS
    assert float(found[:, 0].sum()) == pytest.approx(alone[0], rel=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_tells_documents_by_their_positions(folder, alone):
    """Several rows a batch, padded; not compiled, which takes most of a minute. Forward, as a CPU has no
    more.
    """
    if not hasattr(torch.compiler, "set_stance"):
        pytest.skip(f"torch {torch.__version__} cannot run flex_attention without compiling it")
    model = fuse_loss(load_model(folder, dtype="float32", attention="flex_attention"), n_tokens=STOP)
    batch = Collator(0)(rows_of("best_fit"))
    running = {**batch, "position_ids": None}
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        found, wrong = (float(model(**of, num_items_in_batch=1).loss) for of in (batch, running))
    assert found == pytest.approx(alone[0], rel=1e-5)
    assert wrong != pytest.approx(alone[0], rel=1e-3)


def test_training_with_flash_attention_is_training(folder, flash_attention, tmp_path):
    """The whole way by finetune_qwen.py: the same weights as with sdpa, through the kernel above."""
    data = tmp_path / "texts.jsonl"
    texts = [f"{number}. {text}" for number in range(6) for text in SENTENCES[:6]]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    found = {}
    for name in ("sdpa", flash_attention):
        out = str(tmp_path / name)
        given = ["--model_name_or_path", str(folder), "--data_path", str(data), "--output_dir", out,
                 "--train_rows", "all", "--finetune_layers", "all", "--model_max_length", "120", "--packing",
                 "best_fit", "--max_steps", "2", "--learning_rate", "0.01", "--seed", "1", "--eval_share",
                 "0.25", "--attn_implementation", name]  # fmt: skip
        assert not CALLS
        assert finetune_qwen.main(given) == 0
        found[name] = load_file(tmp_path / name / "model.safetensors")
    assert len(CALLS) == 4 and min(CALLS) > 4, "two layers in two steps of four rows; not in evaluations"
    before = load_file(folder / "model.safetensors")
    for name, tensor in found["sdpa"].items():
        assert torch.allclose(found[flash_attention][name], tensor, atol=1e-4), name
        assert not torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("name", "device", "dtype", "message"),
    [
        ("kernels-community/other", "cuda", "bfloat16", "knows eager, .* kernels of flash-attention"),
        ("flash", "cpu", "float32", "transformers .* knows eager, .*sdpa.*kernels-community"),
        (
            "flash_attention_2",
            "cpu",
            "bfloat16",
            "pip install flash-attn --no-build-isolation, .*or take sdpa$",
        ),
        ("flash_attention_3", "cuda", "bfloat16", "pip install kernels, or take sdpa$"),
        ("kernels-community/flash-attn2", "cuda", "bfloat16", "pip install kernels$"),
        ("flex_attention", "cpu", "float32", "no backward pass on a CPU"),
    ],
)
def test_an_attention_that_cannot_run(monkeypatch, name, device, dtype, message):
    monkeypatch.setattr(flags.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"^--attn_implementation {name}.*{message}") as caught:
        check_attention(name, device=device, dtype=dtype)
    assert "\n" not in str(caught.value)


def test_flash_attention_computes_in_16_bits(monkeypatch):
    monkeypatch.setattr(flags.importlib.util, "find_spec", lambda package: object())
    for name in ("flash_attention_2", "kernels-community/flash-attn2"):
        with pytest.raises(UserError, match="16 bits only: give --dtype bfloat16"):
            check_attention(name, device="cuda", dtype="float32")
        check_attention(name, device="cuda", dtype="bfloat16")
    for name in ("eager", "sdpa"):
        check_attention(name, device="cpu", dtype="float32")


def test_a_missing_attention_is_refused_before_anything_is_written(folder, tmp_path, monkeypatch):
    given = ["--model_name_or_path", str(folder), "--data_path", "none.jsonl", "--output_dir",
             str(tmp_path / "out"), "--train_rows", "all", "--attn_implementation", "flashy"]  # fmt: skip
    with pytest.raises(UserError, match="--attn_implementation flashy: transformers"):
        finetune_qwen.main(given)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="or leave out --attn_implementation flashy"):
        load_model(folder, attention="flashy")
