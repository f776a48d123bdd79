"""Checkpoints with the shapes of Qwen2.5, random weights (bfloat16) and a real tokenizer, for the benchmarks.

Reads a tokenizer's folder, writes new folders. A script that imports this has its own folder on sys.path.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vocabkit.files import read_json_object, write_json

# Size → values of these fields of config.json, and shards. Source: the files of Qwen/Qwen2.5-*-Instruct.
FIELDS = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "tie_word_embeddings", "vocab_size",
)  # fmt: skip
SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "0.5B": ((24, 896, 4864, 14, 2, True, 151_936), 1),
    "1.5B": ((28, 1536, 8960, 12, 2, True, 151_936), 1),
    "7B": ((28, 3584, 18_944, 28, 4, False, 152_064), 4),
}
BLOCK = (16 << 20) + 254  # bytes of random weights; no multiple of a row, so that rows differ


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of every tensor of a Qwen2 model, in the order of the original files."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for at in range(config["num_hidden_layers"]):
        layer = f"model.layers.{at}"
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        for name, rows in (("k", kv), ("q", hidden), ("v", kv)):
            yield f"{layer}.self_attn.{name}_proj.bias", (rows,)
            yield f"{layer}.self_attn.{name}_proj.weight", (rows, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, hidden)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def make_checkpoint(folder: Path, *, size: str, tokenizer: Path) -> int:
    """Write a checkpoint with random weights, block after block; return the bytes of its weights.

    size: one of SIZES. tokenizer: folder with the tokenizer's files and config.json, which are copied.
    """
    import numpy as np

    values, shards = SIZES[size]
    config = dict(zip(FIELDS, values, strict=True)) | {"tie_word_embeddings": bool(values[5])}
    folder.mkdir()
    for path in tokenizer.iterdir():
        shutil.copyfile(path, folder / path.name)
    write_json(folder / "config.json", read_json_object(tokenizer / "config.json") | config)
    values = np.random.default_rng(0).standard_normal(BLOCK // 2, dtype=np.float32) * np.float32(0.02)
    block = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()  # the upper half: bfloat16
    sizes = {name: 2 * int(np.prod(shape)) for name, shape in tensor_shapes(config)}
    total, written = sum(sizes.values()), 0
    files: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in tensor_shapes(config):
        if written >= total * len(files) / shards:
            files.append({})
        files[-1][name] = shape
        written += sizes[name]
    weight_map = {}
    for number, tensors in enumerate(files, 1):
        part = f"-{number:05}-of-{len(files):05}" if shards > 1 else ""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in tensors.items():
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + sizes[name]]}
            end += sizes[name]
            weight_map[name] = f"model{part}.safetensors"
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / f"model{part}.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for at in range(0, end, BLOCK):
                file.write(block[: end - at])
    if shards > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    return total
