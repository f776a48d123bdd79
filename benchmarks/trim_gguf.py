#!/usr/bin/env python3
"""Trim a GGUF of 4.7 GB, shaped as Qwen2.5-7B in q4_k_m, and compare time and memory with `cp`.

Writes below --dir only (room for twice the file) and removes all of it. The tokenizer is a real one, the
blocks are random bytes: rows are moved without being unpacked, so their values do not matter. Each program
runs in a process of its own, the two in turn. The last line is the result as JSON.

    python3 benchmarks/trim_gguf.py --runs 3
    python3 benchmarks/trim_gguf.py --layers 4 --dir /mnt/disk
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.errors import UserError, run_cli  # noqa: E402

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
HIDDEN, INNER, HEADS, KV_HEADS, ROWS = 3584, 18_944, 28, 4, 152_064
BLOCK = (16 << 20) + 254  # bytes of random weights; no multiple of a row, so that rows differ


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=28, help="of the model (default: 28, all)")
    parser.add_argument("--runs", type=int, default=3, help="of each program (default: 3)")
    parser.add_argument("--dir", type=Path, help="where to work (default: the system's temporary folder)")
    return parser


def tensors(layers: int) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of every tensor, as llama-quantize chooses the types of q4_k_m."""
    kv = HIDDEN // HEADS * KV_HEADS
    found = [("token_embd.weight", (ROWS, HIDDEN), "Q4_K"), ("output.weight", (ROWS, HIDDEN), "Q6_K")]
    found.append(("output_norm.weight", (HIDDEN,), "F32"))
    for at in range(layers):
        more = "Q6_K" if at % 2 else "Q4_K"
        for name, shape, kind in (
            ("attn_norm.weight", (HIDDEN,), "F32"), ("ffn_norm.weight", (HIDDEN,), "F32"),
            ("attn_q.weight", (HIDDEN, HIDDEN), "Q4_K"), ("attn_k.weight", (kv, HIDDEN), "Q4_K"),
            ("attn_v.weight", (kv, HIDDEN), more), ("attn_output.weight", (HIDDEN, HIDDEN), "Q4_K"),
            ("attn_q.bias", (HIDDEN,), "F32"), ("attn_k.bias", (kv,), "F32"), ("attn_v.bias", (kv,), "F32"),
            ("ffn_gate.weight", (INNER, HIDDEN), "Q4_K"), ("ffn_up.weight", (INNER, HIDDEN), "Q4_K"),
            ("ffn_down.weight", (HIDDEN, INNER), more),
        ):  # fmt: skip
            found.append((f"blk.{at}.{name}", shape, kind))
    return found


def make_file(path: Path, tokenizer: Path, *, layers: int) -> None:
    """Write the file, block after block."""
    import numpy as np

    from vocabkit.checkpoint.shards import write_all
    from vocabkit.files import Progress
    from vocabkit.gguf.export import all_fields
    from vocabkit.gguf.files import NewTensor, import_gguf, write_gguf
    from vocabkit.gguf.vocab import UNUSED, read_vocab
    from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

    vocab = read_vocab(tokenizer, read_tokenizer_json(tokenizer))
    vocab.tokens += [f"[PAD{at}]" for at in range(len(vocab.tokens), ROWS)]
    vocab.types += [UNUSED] * (ROWS - len(vocab.types))
    config = {
        "model_type": "qwen2", "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "hidden_size": HIDDEN, "num_hidden_layers": layers, "max_position_embeddings": 32_768,
        "intermediate_size": INNER, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    }  # fmt: skip
    fields = all_fields(config, vocab, path=path, name="synthetic", kind="q8_0")
    data = np.random.default_rng(0).integers(0, 256, BLOCK, np.uint8).tobytes()
    gguf = import_gguf()

    def tensor(name: str, shape: tuple[int, ...], kind: str) -> NewTensor:
        quantization = gguf.GGMLQuantizationType[kind]
        block, bytes_of_block = gguf.GGML_QUANT_SIZES[quantization]
        size = int(np.prod(shape)) // block * bytes_of_block

        def write(file: IO[bytes], progress: Progress) -> None:
            for at in range(0, size, len(data)):
                write_all(file, data[: size - at])

        return NewTensor(name, shape[::-1], quantization, size, write)

    write_gguf(path, fields=fields, tensors=[tensor(*each) for each in tensors(layers)])


def run(command: list[str]) -> dict[str, float]:
    """Run a program until the disk has everything; seconds, processor seconds, peak memory in MB."""
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(command)} ended with {process.returncode}")
    seconds = time.monotonic() - start
    os.sync()
    return {
        "seconds": seconds,
        "synced": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    args = build_parser().parse_args(argv)
    tokenizer = ASSETS / "tokenizers" / "qwen2.5-instruct"
    if not tokenizer.is_dir():
        raise UserError(f"{tokenizer} is missing; set VOCABKIT_ASSETS to a folder with tokenizers/")
    results: dict[str, list[dict[str, float]]] = {"cp": [], "trim": []}
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        model, copy = Path(scratch) / "model.gguf", Path(scratch) / "copy.gguf"
        make_file(model, tokenizer, layers=args.layers)
        trimmed = model.with_name("model__trimm_vocab.gguf")
        edit = [sys.executable, str(ROOT / "model_edit.py"), "-m", str(model), "-t", "trimm_vocab"]
        for _ in range(args.runs):
            results["cp"].append(run(["cp", str(model), str(copy)]))
            copy.unlink()
            results["trim"].append(run(edit))
            after = trimmed.stat().st_size
            trimmed.unlink()
        size = model.stat().st_size
    row: dict[str, Any] = {"bytes": size, "bytes_after": after}
    for name, measured in results.items():
        row |= {f"{name}_{key}": median(each[key] for each in measured) for key in measured[0]}
    pairs = list(zip(results["trim"], results["cp"], strict=True))
    row["trim_to_cp"] = median(trim["seconds"] / cp["seconds"] for trim, cp in pairs)
    row["trim_to_cp_synced"] = median(trim["synced"] / cp["synced"] for trim, cp in pairs)
    for key, value in row.items():
        print(f"{key:20} {value:>18,.2f}")
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    run_cli(main)
