"""vocabkit/checkpoint/quantized.py: folders as four tools quantize them are trimmed, and not trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import build
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import edit_json
from training import refuse

import model_edit
from vocabkit.checkpoint.quantized import quantization
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.files import write_json

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Made = dict[str, torch.Tensor]


def fp8(name: str, weight: torch.Tensor) -> Made:
    return {name: weight.to(torch.float8_e4m3fn), f"{name}_scale_inv": torch.ones(1, 1)}


def gptq(name: str, weight: torch.Tensor) -> Made:
    rows, columns = weight.shape
    module = name.removesuffix("weight")
    return {
        f"{module}qweight": torch.full((columns // 8, rows), 7, dtype=torch.int32),
        f"{module}qzeros": torch.zeros(1, rows // 8, dtype=torch.int32),
        f"{module}scales": torch.ones(1, rows, dtype=torch.float16),
        f"{module}g_idx": torch.zeros(columns, dtype=torch.int32),
    }


def awq(name: str, weight: torch.Tensor) -> Made:
    made = gptq(name, weight)
    del made[name.removesuffix("weight") + "g_idx"]
    return made


def bitsandbytes(name: str, weight: torch.Tensor) -> Made:
    return {
        name: torch.full((weight.numel() // 2, 1), 0x77, dtype=torch.uint8),
        f"{name}.absmax": torch.ones(4),
        f"{name}.quant_state.bitsandbytes__nf4": torch.zeros(80, dtype=torch.uint8),
    }


KINDS: dict[str, tuple[Callable[[str, torch.Tensor], Made], dict[str, Any]]] = {
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 128}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}),
    "bitsandbytes": (bitsandbytes, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}


def quantize(source: Path, target: Path, kind: str) -> Path:
    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    make, settings = KINDS[kind]
    made: Made = {}
    for name, weight in weights.items():
        made |= make(name, weight) if name.endswith("proj.weight") else {name: weight}
    save_file(made, target / "model.safetensors", metadata={"format": "pt"})
    edit_json(target / "config.json", quantization_config=settings)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_folder_with_plain_tables_is_trimmed_and_not_trained(checkpoint, tmp_path, kind):
    folder = quantize(checkpoint(tied=False), tmp_path / kind, kind)
    assert quantization(read_checkpoint(folder)) == kind
    out = tmp_path / "trimmed"
    assert model_edit.main(["-m", str(folder), "-t", "trimm_vocab", "-o", str(out)]) == 0
    before, after = build.stored(folder), build.stored(out)
    assert before.keys() == after.keys()
    for name in before.keys() - {EMBED, HEAD}:
        same = before[name].view(torch.uint8) if before[name].dim() else before[name]
        assert torch.equal(same, after[name].view(torch.uint8) if after[name].dim() else after[name]), name
    assert len(after[EMBED]) < len(before[EMBED])
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "Chào"}\n', encoding="utf-8")
    message = (
        rf"is quantized \({kind}\), and quantized weights cannot be trained; train the model in BF16 or F32"
    )
    for source in (folder, out):
        refuse(message, source, data, tmp_path / "tuned", "--train_rows", "all")


def test_what_says_that_a_folder_is_quantized(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint(), folder)
    assert quantization(read_checkpoint(folder)) is None
    for name, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
        write_json(folder / name, {"bits": 4})
        assert quantization(read_checkpoint(folder)) == method
        (folder / name).unlink()
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**weights, name: weights[name].to(torch.int8)}, folder / "model.safetensors")
    assert quantization(read_checkpoint(folder)) == f"{name} is I8"
    edit_json(folder / "config.json", text_config={"quantization_config": {"quant_method": "fp8"}})
    assert quantization(read_checkpoint(folder)) == "fp8"
